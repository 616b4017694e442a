//! `bench probes`: what the probes of all observers cost a server. Runs kubectl and the program that probes; reads `/proc`.
//!
//! There is no switch that turns probes off, and there should be none. So the cost is found from the other side: the same server is
//! measured as it is, with several times as many probes beside, and as it is again. What the added ones take, divided by their number,
//! is what one takes; times as many as the product makes, that is its share. Logins and TLS are in it, which the server's own
//! statistics of statements leave out.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use understudy_lab_outcome::ProbeCost;

use super::super::access::Access;
use super::super::load::Running;
use super::super::store::Store;
use super::machine::{self, Machine};
use super::sql::ask;
use crate::cli::parse_time;
use crate::paths::Paths;
use crate::process::all_pids;
use crate::product::{self, Profile};
use crate::progress::Ui;
use crate::run;
use crate::state;

/// Added probes for each of the product's own: enough to tell them from noise.
const TIMES: f64 = 8.0;
/// Added probes a second, at least.
const AT_LEAST: f64 = 40.0;
/// Ticks of `/proc/PID/stat` a second (USER_HZ), fixed on x86_64.
const TICKS: f64 = 100.0;
/// Connections that the accounts of probers ever made.
const COUNT: &str =
    "SELECT COALESCE(SUM(TOTAL_CONNECTIONS), 0) FROM performance_schema.accounts WHERE USER = 'understudy_probe'";

/// What `bench probes` takes.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How long each of the three measurements takes: 60s, 5m.
    #[arg(long = "for", value_parser = parse_time, default_value = "60s")]
    time: Duration,
    /// Samples per second meanwhile; none by default, so that the server is idle.
    #[arg(long, default_value = "0")]
    rate: u64,
    /// Where to write what was found.
    #[arg(long, value_name = "FILE")]
    out: Option<std::path::PathBuf>,
    /// Namespace of the Datastore.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Its name.
    #[arg(long, default_value = "metrics")]
    datastore: String,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Measured {
    /// Probes a second that were added.
    added_rate: f64,
    /// Share of a core that mysqld took.
    mysqld_cores: f64,
    /// Share of a core that its manager took.
    manager_cores: f64,
    /// Probes a second of the product itself, by logins.
    product_rate: f64,
    /// Commits beside them, and the added probes.
    cost: ProbeCost,
}

/// What follows from three of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Share {
    /// Processor time that one probe takes of mysqld, in milliseconds.
    probe_ms: f64,
    /// Probes a second of the product.
    rate: f64,
    /// Share of a core that these take of mysqld.
    cores: f64,
    /// p99 of a commit as it is, the worse of the two, in milliseconds.
    p99_ms: f64,
    /// The same with the added probes.
    p99_with_more_ms: f64,
}

/// Measures and prints.
pub fn run(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let access = Access::lab(paths);
    let store = Store { access: &access, namespace: options.namespace.clone(), name: options.datastore.clone() };
    let token = store.known_token()?.context("there is no Datastore of the lab: run `cargo lab demo` first")?;
    let program = product::build_load(paths, ui, Profile::Release)?;
    store.wait_ready(ui, Duration::from_secs(300))?;
    let mut load = None;
    if options.rate > 0 {
        let lasts = format!("{}s", options.time.as_secs() * 4 + 300);
        let ledger = paths.dot_lab().join("bench").join("probes.ledger");
        let mut running = Running::start(&program, &store, &token, options.rate, &lasts, &ledger)?;
        running.wait_flowing()?;
        load = Some(running);
    }
    let shard = store.shards()?.into_iter().next().context("the Datastore has no shard")?;
    let server = Server::of(&store, &shard)?;
    let (name, time) = (server.replica.clone(), options.time);
    ui.say(&format!("{name}, primary of {}: three times {} s", server.shard, time.as_secs()));
    let measure = |added: f64| server.measure(&access, &program, added, time);
    let before = measure(0.0)?;
    let added = (before.product_rate * TIMES).max(AT_LEAST).round();
    ui.say(&format!("  the product probes {:.1} times a second; {added} are added", before.product_rate));
    let more = measure(added)?;
    let after = measure(0.0)?;
    if let Some(load) = &mut load {
        load.check()?;
    }
    let share = share(&before, &more, &after)?;
    let all = [before, more, after];
    print!("{}", text(&all, share));
    if let Some(out) = &options.out {
        let (commit, changes) = machine::commit(&paths.checkout)?;
        let found = serde_json::json!({
            "bench": "probes", "machine": Machine::here(), "versions": machine::versions(paths)?, "commit": commit, "dirty": changes.is_some(), "changes": changes,
            "rate": options.rate, "seconds": time.as_secs_f64(), "measured": all, "share": share,
        });
        state::write_json(out, &found)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The primary of a shard, and its processes on this machine.
struct Server<'a> {
    store: &'a Store<'a>,
    shard: String,
    replica: String,
    mysqld: i32,
    manager: i32,
}

impl<'a> Server<'a> {
    fn of(store: &'a Store<'a>, shard: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = text(&shard["metadata"]["name"]).context("a shard without a name")?;
        let replica = text(&shard["status"]["primary"]).with_context(|| format!("the shard {name} has no primary"))?;
        let pod = store.access.find(&store.namespace, "pod", &replica)?;
        let uid = pod.as_ref().and_then(|pod| text(&pod["metadata"]["uid"])).context("the primary has no pod")?;
        let process = |comm: &str| of_pod(&uid, comm).with_context(|| format!("no {comm} runs in the pod {replica}"));
        Ok(Self { store, mysqld: process("mysqld")?, manager: process("understudy-inst")?, shard: name, replica })
    }

    /// Runs the program with so many added probes, and looks at the processes before and after.
    fn measure(&self, access: &Access, program: &std::path::Path, added: f64, time: Duration) -> Result<Measured> {
        let logins = || -> Result<f64> {
            let text = ask(self.store, &self.shard, &self.replica, COUNT)?;
            text.trim().parse().with_context(|| format!("{} does not count logins: {text}", self.replica))
        };
        let mut command = Command::new(program);
        command.arg("probe").args(access.flags());
        command.args(["--namespace", &self.store.namespace, "--shard", &self.shard]);
        command.args(["--for", &format!("{}ms", time.as_millis()), "--rate", &added.to_string()]);
        let (from, connected) = (Instant::now(), logins()?);
        let (mysqld, manager) = (cpu(self.mysqld)?, cpu(self.manager)?);
        let began = Instant::now();
        let cost: ProbeCost = serde_json::from_str(&run::output(&mut command)?).context("the probes said nothing")?;
        let seconds = began.elapsed().as_secs_f64();
        let (mysqld, manager) = (cpu(self.mysqld)? - mysqld, cpu(self.manager)? - manager);
        // One login is that of the commits, which are told apart from probes by that.
        let own = logins()? - connected - cost.probes as f64 - 1.0;
        Ok(Measured {
            added_rate: cost.probes as f64 / seconds,
            mysqld_cores: mysqld / seconds,
            manager_cores: manager / seconds,
            product_rate: own.max(0.0) / from.elapsed().as_secs_f64(),
            cost,
        })
    }
}

/// The process of a pod with this name, by its cgroup.
fn of_pod(uid: &str, comm: &str) -> Option<i32> {
    let mark = format!("pod{uid}");
    let reads = |pid: &i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    all_pids().into_iter().find(|pid| reads(pid, "comm").trim() == comm && reads(pid, "cgroup").contains(&mark))
}

/// Processor time of a process so far, in seconds.
fn cpu(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("the process {pid} ended"))?;
    ticks(&text).map(|ticks| ticks / TICKS).with_context(|| format!("/proc/{pid}/stat is not understood"))
}

/// utime and stime. The name between the parentheses may hold anything, so fields are counted from the last closing one.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn share(before: &Measured, more: &Measured, after: &Measured) -> Result<Share> {
    ensure!(more.added_rate > 0.0, "no probe was added");
    if more.cost.failed * 10 > more.cost.probes {
        bail!("{} of {} added probes failed: what they cost says nothing", more.cost.failed, more.cost.probes);
    }
    let idle = f64::midpoint(before.mysqld_cores, after.mysqld_cores);
    let one = (more.mysqld_cores - idle).max(0.0) / more.added_rate;
    let rate = f64::midpoint(before.product_rate, after.product_rate);
    Ok(Share {
        probe_ms: one * 1e3,
        rate,
        cores: one * rate,
        p99_ms: before.cost.p99_ms.max(after.cost.p99_ms),
        p99_with_more_ms: more.cost.p99_ms,
    })
}

fn text(all: &[Measured; 3], share: Share) -> String {
    let mut text = format!(
        "{:<10}{:>14}{:>14}{:>16}{:>16}{:>14}{:>14}\n",
        "", "added a s", "product's a s", "mysqld % core", "manager % core", "commit p50 ms", "commit p99 ms"
    );
    for (name, m) in ["as it is", "with more", "as it is"].iter().zip(all) {
        text += &format!(
            "{name:<10}{:>14.1}{:>14.1}{:>16.2}{:>16.2}{:>14.2}{:>14.2}\n",
            m.added_rate,
            m.product_rate,
            m.mysqld_cores * 100.0,
            m.manager_cores * 100.0,
            m.cost.p50_ms,
            m.cost.p99_ms
        );
    }
    text += &format!(
        "One probe takes {:.3} ms of mysqld's processor time, so the {:.1} a second of the product take {:.2} % of a core.\n\
         How it was found: mysqld's user and system time from /proc, with and without added probes of the same kind (a new connection\n\
         with TLS, a login, a read, a commit); the difference divided by the number of added ones, times the product's own, which are\n\
         counted by logins of its account. The manager's share is all that it does, its probes among it, and so a bound for them.\n\
         A commit's p99 was {:.2} ms as it is and {:.2} ms with the added ones: what so many do to it bounds what the few do.\n",
        share.probe_ms,
        share.rate,
        share.cores * 100.0,
        share.p99_ms,
        share.p99_with_more_ms
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(added_rate: f64, mysqld_cores: f64, product_rate: f64, p99_ms: f64) -> Measured {
        let probes = added_rate as u64 * 10;
        let cost = ProbeCost { seconds: 10.0, commits: 200, p50_ms: 1.0, p99_ms, max_ms: 9.0, probes, failed: 0 };
        Measured { added_rate, mysqld_cores, manager_cores: 0.01, product_rate, cost }
    }

    #[test]
    fn the_share_of_the_products_probes_follows_from_what_the_added_ones_cost() {
        let (before, more, after) =
            (measured(0.0, 0.25, 10.0, 3.0), measured(100.0, 0.5, 10.0, 4.0), measured(0.0, 0.25, 14.0, 3.5));
        let share = share(&before, &more, &after).unwrap();
        assert_eq!((share.probe_ms, share.rate), (2.5, 12.0));
        assert!((share.cores - 0.03).abs() < 1e-9, "{share:?}");
        assert_eq!((share.p99_ms, share.p99_with_more_ms), (3.5, 4.0));
        let text = text(&[before, more, after], share);
        assert!(text.contains("take 3.00 % of a core") && text.contains("How it was found"), "{text}");
    }

    #[test]
    fn nothing_is_said_when_the_added_probes_failed() {
        let mut more = measured(100.0, 0.3, 10.0, 4.0);
        more.cost.failed = 500;
        let idle = measured(0.0, 0.1, 10.0, 3.0);
        assert!(share(&idle, &more, &idle).is_err());
        assert!(share(&idle, &idle, &idle).is_err());
    }

    #[test]
    fn processor_time_is_that_of_user_and_system() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 98765 1000 10 184";
        assert_eq!(ticks(stat), Some(42.0));
        assert_eq!(ticks("42 (cut"), None);
    }
}
