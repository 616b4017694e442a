//! Standbys that are of no use: with a transaction of their own, ever later, unable to apply, with a damaged relay log. By statements of
//! the server's administrator, inside its pod, and by what lies on its disk. A primary is refused: on that one they would lose data. I/O.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Scene;
use super::database::{ADMIN, Replica};
use super::holder::Going;
use super::process;
use super::target::Pod;
use crate::api::Api;

/// How late a lagging standby applies a transaction.
const LATE: Duration = Duration::from_secs(3600);
/// How long something to damage is waited for while nothing is applied.
const RECEIVED_WITHIN: Duration = Duration::from_secs(5);

/// The replica of this pod, which must be no primary.
pub fn of(pod: &Pod) -> Result<Replica> {
    if pod.role == "primary" {
        bail!("{} is a primary: this is a fault of standbys, and would lose data there", pod.what());
    }
    Replica::of(pod)
}

/// Runs statements on a server that takes no writes, and has it take none afterwards, however they went.
fn write(api: &Api, replica: &Replica, statements: &str) -> Result<()> {
    // Clearing `read_only` clears `super_read_only`, and setting the latter sets both.
    let done = replica.run(api, ADMIN, &format!("SET GLOBAL read_only = OFF; {statements};\n"));
    replica.run(api, ADMIN, "SET GLOBAL super_read_only = ON;\n")?;
    done.map(drop)
}

/// A transaction that nobody else has.
pub fn write_alone(api: &Api, pod: &Pod) -> Result<()> {
    write(api, &of(pod)?, "CREATE DATABASE view_lab_errant")
}

/// Rows that its primary changes all the time are not there, and it has no transaction of its own: the next change finds none.
pub fn break_replication(api: &Api, pod: &Pod) -> Result<()> {
    write(api, &of(pod)?, "SET SESSION sql_log_bin = 0; DELETE FROM understudy.heartbeat")
}

fn delay(replica: &Replica, api: &Api, by: Duration) -> Result<()> {
    let seconds = by.as_secs();
    let statements = format!(
        "STOP REPLICA SQL_THREAD; CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {seconds}; START REPLICA SQL_THREAD;\n"
    );
    replica.run(api, ADMIN, &statements).map(drop)
}

/// Each transaction is applied an hour late, for as long as it is wanted.
pub fn lag(replica: &Replica, going: &Going<'_>) -> Result<()> {
    let api = Api::new(going.paths());
    delay(replica, &api, LATE)?;
    while going.rest(Duration::from_secs(1)) {}
    // It has mostly been replaced meanwhile.
    delay(replica, &api, Duration::ZERO)
}

/// What was received and not applied yet is written over in the relay log. Nothing is applied meanwhile, so that there is something.
pub fn corrupt(scene: &Scene<'_>, pod: &Pod) -> Result<()> {
    let replica = of(pod)?;
    replica.run(&scene.api, ADMIN, "STOP REPLICA SQL_THREAD;\n")?;
    let damaged = damage(scene, pod, &replica);
    replica.run(&scene.api, ADMIN, "START REPLICA SQL_THREAD;\n")?;
    let bytes = damaged?;
    scene.ui.say(&format!("{}: {bytes} bytes of its relay log written over", pod.what()));
    Ok(())
}

/// How many bytes it was.
fn damage(scene: &Scene<'_>, pod: &Pod, replica: &Replica) -> Result<u64> {
    let position = "SELECT Relay_log_name, Relay_log_pos FROM mysql.slave_relay_log_info WHERE Channel_name = '';\n";
    let answer = replica.run(&scene.api, ADMIN, position)?;
    let (name, at) = parse(&answer).with_context(|| format!("no place in the relay log in `{}`", answer.trim()))?;
    let mysqld = process::mysqld(pod)?;
    let pid = mysqld.first().context("no mysqld")?.pid;
    // A server works in its data directory, and a path from the root is one of its own.
    let below = if name.starts_with('/') { "root" } else { "cwd" };
    let path = format!("/proc/{pid}/{below}/{}", name.trim_start_matches('/'));
    let mut file = OpenOptions::new().write(true).open(&path).with_context(|| format!("cannot write {path}"))?;
    let end = Instant::now() + RECEIVED_WITHIN;
    loop {
        let there = file.metadata()?.len().saturating_sub(at);
        if there > 0 {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&vec![0xa5_u8; usize::try_from(there)?])?;
            file.sync_all()?;
            return Ok(there);
        }
        if Instant::now() > end {
            bail!("it has received nothing new within {} s", RECEIVED_WITHIN.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// File and position of an answer of two columns. Pure.
fn parse(answer: &str) -> Option<(&str, u64)> {
    let (name, at) = answer.trim().split_once('\t')?;
    Some((name, at.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_a_relay_log_is_read() {
        assert_eq!(parse("./relay.000003\t4711\n"), Some(("./relay.000003", 4711)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("./relay.000003\tNULL\n"), None);
    }

    #[test]
    fn a_primary_is_left_alone() {
        let pod = Pod { shard: "s".into(), address: "10.0.0.1".into(), ..Pod::default() };
        assert!(of(&Pod { role: "standby".into(), ..pod.clone() }).is_ok());
        assert!(of(&Pod { role: "primary".into(), ..pod }).unwrap_err().to_string().contains("lose data"));
    }
}
