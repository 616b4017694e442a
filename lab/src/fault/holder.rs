//! Faults that somebody must keep up: a process of the lab of its own, which ends when their record is gone. So `heal`, `--for` and
//! `down` end them alike, and a command that was killed leaves none behind that could not be ended.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::network::Table;
use super::process::Victims;
use super::record::{self, Active, active};
use super::{Scene, database, network, oom, standby};
use crate::paths::Paths;
use crate::process::{self, Process};
use crate::run;
use crate::state::{Lock, write_atomic};

/// A pause that took longer was not one of one to two seconds.
const LONGEST_PAUSE: Duration = Duration::from_millis(2100);

/// What a holder does, over and over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Puts rules in and takes them out.
    Flap { netns: PathBuf, table: Table, chain: String },
    /// Pauses of one to two seconds.
    Stutter { victims: Vec<Victims>, times: u32 },
    /// Lets mysqld of this pod run out of memory.
    Oom { uid: String },
    /// Opens connections to this address until no more are taken.
    Exhaust { address: String },
    /// A metadata lock that others wait for.
    LongDdl { replica: database::Replica },
    /// Queries that take memory, disk and time.
    HeavyQueries { replica: database::Replica },
    /// An applier that waits an hour with each transaction.
    Lag { replica: database::Replica },
}

impl Work {
    /// For `status`.
    pub fn describe(&self) -> String {
        match self {
            Self::Flap { table: Table::Mangle, .. } => "cut a second on, a second off".to_owned(),
            Self::Flap { table: Table::Filter, .. } => "refused a second on, a second off".to_owned(),
            Self::Stutter { times, .. } => format!("{times} pauses of one to two seconds"),
            Self::Oom { .. } => "mysqld is killed by the kernel whenever it is there".to_owned(),
            Self::Exhaust { address } => format!("connections to {address} until error 1040"),
            Self::LongDdl { .. } => "ALTER TABLE behind an open transaction".to_owned(),
            Self::HeavyQueries { .. } => "big sorts and big rollbacks".to_owned(),
            Self::Lag { .. } => "applies each transaction an hour late".to_owned(),
        }
    }

    fn run(&self, going: &Going<'_>) -> Result<()> {
        match self {
            Self::Flap { netns, table, chain } => {
                let rules = network::rules_of(netns, *table, chain)?;
                let mut is_on = true;
                while going.rest(network::FLAP) {
                    is_on = !is_on;
                    network::flap(netns, *table, chain, &rules, is_on)?;
                }
                Ok(())
            }
            Self::Stutter { victims, times } => {
                let mut seed = seed();
                for _ in 0..*times {
                    seed = next(seed);
                    let begun = Instant::now();
                    victims.iter().for_each(|v| v.hold(true));
                    // To freeze a cgroup takes as long as its processes hang on their disk, and most of them stand still meanwhile.
                    let goes_on = going.rest(between(seed, 1000, 2000).saturating_sub(begun.elapsed()));
                    victims.iter().for_each(|v| v.hold(false));
                    let lasted = begun.elapsed();
                    if lasted > LONGEST_PAUSE {
                        println!("a pause took {:.2} s: the machine had no time to end it", lasted.as_secs_f64());
                    }
                    seed = next(seed);
                    if !goes_on || !going.rest(between(seed, 500, 3000)) {
                        break;
                    }
                }
                Ok(())
            }
            Self::Oom { uid } => {
                while going.rest(Duration::from_millis(100)) {
                    oom::press(uid);
                }
                Ok(())
            }
            Self::Exhaust { address } => database::exhaust(address, going),
            Self::LongDdl { replica } => database::long_ddl(replica, going),
            Self::HeavyQueries { replica } => database::heavy_queries(replica, going),
            Self::Lag { replica } => standby::lag(replica, going),
        }
    }

    /// What a holder that was killed may have left standing still. Done before it is forgotten.
    pub fn clean_up(&self) {
        if let Self::Stutter { victims, .. } = self {
            victims.iter().for_each(|v| v.hold(false));
        }
    }
}

/// Says whether the fault is still wanted.
#[derive(Debug)]
pub struct Going<'a> {
    paths: &'a Paths,
    id: &'a str,
}

impl Going<'_> {
    /// Whether it is.
    pub fn is_wanted(&self) -> bool {
        // A file that cannot be read is no reason to end.
        active(self.paths)
            .map_or(true, |all| all.iter().any(|a| matches!(a, Active::EndHolder { id, .. } if id == self.id)))
    }

    /// Waits, and says whether the fault is still wanted; looks each tenth of a second.
    pub fn rest(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            if !self.is_wanted() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// The paths of the lab.
    pub fn paths(&self) -> &Paths {
        self.paths
    }
}

fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_secs() ^ u64::from(t.subsec_nanos()))
}

/// The multiplier and the increment of Knuth's MMIX.
fn next(seed: u64) -> u64 {
    seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// A time of so many milliseconds, by chance. Pure.
fn between(seed: u64, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + (seed >> 33) % (to - from + 1))
}

/// Writes the work down and starts who does it.
pub fn start(scene: &Scene<'_>, what: String, work: Work) -> Result<()> {
    let paths = scene.paths;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = format!("{}-{}", std::process::id(), now.as_nanos());
    let program = install_program(paths)?;
    scene.record(Active::EndHolder { what, id: id.clone(), work, process: None })?;
    let mut command = run::cmd([&program]);
    command.arg("--state-dir").arg(&paths.state).args(["hold-fault", "--id", &id]);
    let holder = process::spawn(&command, &paths.state, &log(paths), "")?;
    record::record_process(paths, &id, holder)
}

/// Its log.
pub fn log(paths: &Paths) -> PathBuf {
    paths.logs().join("faults.log")
}

/// This very program, where nobody builds over it.
fn install_program(paths: &Paths) -> Result<PathBuf> {
    let (own, target) =
        (fs::read("/proc/self/exe").context("cannot read this program")?, paths.state.join("bin").join("lab-faults"));
    if !fs::read(&target).is_ok_and(|old| old == own) {
        write_atomic(&target, &own)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    }
    Ok(target)
}

/// The holder's own life: does the work until its record is gone, and takes the record away when the work ended before.
pub fn hold(paths: &Paths, id: &str) -> Result<()> {
    let found = active(paths)?.into_iter().find(|a| matches!(a, Active::EndHolder { id: own, .. } if own == id));
    let Some(Active::EndHolder { what, work, .. }) = found else { return Ok(()) };
    let fault = Active::EndHolder { what: what.clone(), id: id.to_owned(), work: work.clone(), process: None };
    println!("{what}: {}", work.describe());
    let ended = work.run(&Going { paths, id });
    if let Err(error) = &ended {
        println!("{what}: {error:#}");
    }
    let _lock = Lock::take(&paths.state, super::LOCK, |_| {})?;
    record::forget(paths, &fault)
}

/// Ends a holder whose record was just taken away: by itself within ten seconds, or by force.
pub fn end(process: Option<&Process>) {
    if let Some(process) = process
        && !process.wait_gone(Duration::from_secs(10))
    {
        process.stop(Duration::ZERO);
    }
}

/// Waits until a holder has ended, by itself or otherwise.
pub fn wait_done(paths: &Paths, wanted: &str) {
    let is_at_work = || {
        active(paths).unwrap_or_default().iter().any(|fault| match fault {
            Active::EndHolder { id, process, .. } => id == wanted && process.as_ref().is_none_or(Process::is_alive),
            _ => false,
        })
    };
    while is_at_work() {
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A line about what a holder said last, for a fault that ended before its time.
pub fn last_words(paths: &Paths) -> String {
    crate::lab::tail(&log(paths), 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_of_one_to_two_seconds_and_differ() {
        let mut seed = 7;
        let pauses: Vec<_> = std::iter::repeat_with(|| {
            seed = next(seed);
            between(seed, 1000, 2000)
        })
        .take(1000)
        .collect();
        assert!(pauses.iter().all(|p| (Duration::from_secs(1)..=Duration::from_secs(2)).contains(p)));
        let distinct: std::collections::BTreeSet<_> = pauses.iter().collect();
        assert!(distinct.len() > 300, "{}", distinct.len());
    }

    #[test]
    fn a_holder_ends_when_its_record_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().into(), cache: dir.path().into(), checkout: dir.path().into() };
        let fault =
            Active::EndHolder { what: "r".into(), id: "1".into(), work: Work::Oom { uid: "u".into() }, process: None };
        record::record(&paths, &fault).unwrap();
        let going = Going { paths: &paths, id: "1" };
        assert!(going.rest(Duration::ZERO));
        assert!(!Going { paths: &paths, id: "2" }.is_wanted());
        record::forget(&paths, &fault).unwrap();
        assert!(!going.rest(Duration::from_secs(600)), "it does not even wait");
    }
}
