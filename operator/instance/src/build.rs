//! Filling an empty volume: initialising it once in a shard's life, cloning ever after. I/O.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use understudy_mysql::instance::{CloneProgress, Donor};
use understudy_mysql::probe::Account;
use understudy_mysql::schema::{self, ADMIN, REPLICATION};
use understudy_mysql::{Connect, Instance, Server, SqlError};
use understudy_wire::ReplicaName;
use understudy_wire::evidence::BuildProgress;

use crate::child::{Exit, Process};
use crate::config::Config;
use crate::datadir::{self, BUILDING, Marker, State, VolumeError};
use crate::facts::Shared;
use crate::host::{Host, HostError};
use crate::volume::{Hangs, on_volume};

const VOLUME_WITHIN: Duration = Duration::from_secs(30);
const INITIALISE_WITHIN: Duration = Duration::from_secs(15 * 60);
const START_WITHIN: Duration = Duration::from_secs(5 * 60);
/// Anything longer is a donor that does not move; the clone plugin itself gives up on one that is gone after five minutes.
const CLONE_WITHIN: Duration = Duration::from_secs(24 * 3600);
const CLONE_STALLS_AFTER: Duration = Duration::from_secs(120);
const SHUT_DOWN_WITHIN: Duration = Duration::from_secs(10 * 60);
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(250);
const ASK_BUSY_DONOR_EVERY: Duration = Duration::from_secs(2);
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// Where the data comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make a new, empty data directory with accounts and schema.
    Initialise,
    /// Copy a donor's.
    Clone {
        /// Whose.
        donor: ReplicaName,
        /// Its `ip:port`.
        address: SocketAddr,
    },
}

impl Plan {
    /// As the marker has it.
    pub fn origin(&self) -> String {
        match self {
            Self::Initialise => "initialise".to_owned(),
            Self::Clone { donor, .. } => donor.to_string(),
        }
    }
}

/// The step of a build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The volume did not answer.
    #[error(transparent)]
    Hangs(#[from] Hangs),
    /// The volume could not be prepared or finished.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// mysqld could not be run.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file for mysqld could not be written.
    #[error("{} could not be written: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// mysqld ended otherwise than it should; its log says why.
    #[error("mysqld ended with code {code:?}, signal {signal:?} while {what}")]
    Ended {
        /// What it was doing.
        what: &'static str,
        /// Its exit code.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// mysqld took too long.
    #[error("{what} took longer than {within:?}")]
    Slow {
        /// What.
        what: &'static str,
        /// The bound.
        within: Duration,
    },
    /// The clone failed.
    #[error(transparent)]
    Clone(#[from] SqlError),
    /// The donor's MySQL is of another series than this pod's.
    #[error(
        "MySQL copies data within one series only (8.4.x, 9.7.x), and the donor is of another one; set mysql.image back to one of \
         its series and replace this replica: {0}"
    )]
    OtherSeries(#[source] SqlError),
    /// The clone made no progress.
    #[error("the clone has not moved for {0:?}")]
    Stalled(Duration),
}

/// Fills the volume. On failure what it made is removed again, as far as the volume lets it.
pub async fn build(config: &Config, shared: &Shared, host: &Host, plan: &Plan) -> Result<Marker, BuildError> {
    let marker = Marker {
        replica: config.replica.clone(),
        shard_uid: config.shard_uid.clone(),
        state: State::Building,
        origin: plan.origin(),
    };
    let begin = marker.clone();
    on_volume(&config.volume, VOLUME_WITHIN, move |volume| datadir::begin_build(volume, &begin)).await??;
    let made = match plan {
        Plan::Initialise => initialise(config, shared, host).await,
        Plan::Clone { donor, address } => clone(config, shared, host, donor, *address).await,
    };
    match made {
        Ok(()) => {
            let done = Marker { state: State::Complete, ..marker };
            let finish = done.clone();
            on_volume(&config.volume, VOLUME_WITHIN, move |volume| datadir::finish_build(volume, &finish)).await??;
            Ok(done)
        }
        Err(e) => {
            end(host).await;
            match on_volume(&config.volume, VOLUME_WITHIN, datadir::clear_build).await {
                Ok(Ok(())) => {}
                Ok(Err(clear)) => tracing::warn!(error = %clear, "what the failed build left is still there"),
                Err(clear) => tracing::warn!(error = %clear, "what the failed build left is still there"),
            }
            Err(e)
        }
    }
}

fn at(shared: &Shared, donor: Option<&ReplicaName>, stage: &str) {
    let progress =
        BuildProgress { stage: stage.to_owned(), donor: donor.cloned(), done: 0, total: 0, eta: None, error: None };
    shared.update(|facts| facts.build = Some(progress));
}

/// No mysqld of a build outlives it.
async fn end(host: &Host) {
    if let Some(process) = host.process().filter(|p| p.exit().is_none()) {
        process.signal(Signal::KILL);
        if tokio::time::timeout(VOLUME_WITHIN, process.ended()).await.is_err() {
            tracing::warn!(pid = process.pid(), "mysqld of the failed build does not end");
        }
    }
}

async fn initialise(config: &Config, shared: &Shared, host: &Host) -> Result<(), BuildError> {
    at(shared, None, "initialise");
    let init = config.run.join("init.sql");
    write_secret(&init, &(schema::statements(&config.passwords).join(";\n") + ";\n"))?;
    let options = [
        "--initialize-insecure".to_owned(),
        format!("--datadir={}", config.volume.join(BUILDING).display()),
        format!("--init-file={}", init.display()),
        // While it is made, nobody can connect, and what is written must not count as a transaction.
        "--super-read-only=OFF".to_owned(),
        "--skip-log-bin".to_owned(),
    ];
    let process = host.start(&options)?;
    let outcome = ends_well(&process, "initialising", INITIALISE_WITHIN).await;
    if let Err(e) = fs::remove_file(&init) {
        tracing::warn!(error = %e, "file with the passwords not removed");
    }
    outcome
}

fn write_secret(path: &PathBuf, text: &str) -> Result<(), BuildError> {
    use std::io::Write;
    let file = |source| BuildError::File { path: path.clone(), source };
    let mut open = fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600);
    open.open(path).and_then(|mut f| f.write_all(text.as_bytes())).map_err(file)
}

async fn ends_well(process: &Process, what: &'static str, within: Duration) -> Result<(), BuildError> {
    match tokio::time::timeout(within, process.ended()).await {
        Ok(Exit { code: Some(0), .. }) => Ok(()),
        Ok(Exit { code, signal, .. }) => Err(BuildError::Ended { what, code, signal }),
        Err(_) => Err(BuildError::Slow { what, within }),
    }
}

/// A fresh server of its own takes the donor's data and shuts down: nobody restarts it for it, which is error 3707.
async fn clone(
    config: &Config,
    shared: &Shared,
    host: &Host,
    donor: &ReplicaName,
    address: SocketAddr,
) -> Result<(), BuildError> {
    at(shared, Some(donor), "prepare");
    let building = config.volume.join(BUILDING);
    let datadir = format!("--datadir={}", building.display());
    let process = host.start(&[
        "--initialize-insecure".to_owned(),
        datadir.clone(),
        "--super-read-only=OFF".to_owned(),
        "--skip-log-bin".to_owned(),
    ])?;
    ends_well(&process, "preparing the clone", INITIALISE_WITHIN).await?;

    let process = host.start(&offline(config, &["--super-read-only=OFF"]))?;
    let root = Account { user: "root".to_owned(), password: String::new() };
    let watcher = Server::new(&Connect::Socket(socket(config)), &root);
    answers(&process, &watcher, "starting for the clone").await?;

    let from = Donor {
        address,
        account: Account { user: REPLICATION.to_owned(), password: config.passwords.of(REPLICATION).to_owned() },
        ca_file: config.ca_file(),
        mib_per_second: config.clone_mib_per_second,
    };
    let cloner = Server::new(&Connect::Socket(socket(config)), &root);
    while let Err(e) = tokio::select! {
        outcome = cloner.clone_from(&from, CLONE_WITHIN) => outcome,
        stalled = watch(shared, donor, &watcher) => return Err(stalled),
    } {
        if !donor_is_busy(&e) {
            return Err(failed(e));
        }
        at(shared, Some(donor), "wait for the donor");
        tokio::time::sleep(ASK_BUSY_DONOR_EVERY).await;
    }
    // It shuts down by itself, with an exit code that only says so.
    match tokio::time::timeout(SHUT_DOWN_WITHIN, process.ended()).await {
        Ok(Exit { signal: None, .. }) => settle(config, shared, host, donor).await,
        Ok(Exit { code, signal, .. }) => Err(BuildError::Ended { what: "finishing the clone", code, signal }),
        Err(_) => Err(BuildError::Slow { what: "finishing the clone", within: SHUT_DOWN_WITHIN }),
    }
}

/// The plugin puts the copied files in their places at the next start, and must find them where it left them. What the donor
/// knew of its own source belongs to logs that were not copied.
async fn settle(config: &Config, shared: &Shared, host: &Host, donor: &ReplicaName) -> Result<(), BuildError> {
    at(shared, Some(donor), "settle");
    let process = host.start(&offline(config, &[]))?;
    let admin = Account { user: ADMIN.to_owned(), password: config.passwords.of(ADMIN).to_owned() };
    let server = Server::new(&Connect::Socket(socket(config)), &admin);
    answers(&process, &server, "settling the clone").await?;
    server.forget_source(SETTLE_WITHIN).await?;
    process.signal(Signal::TERM);
    ends_well(&process, "ending after the clone", SHUT_DOWN_WITHIN).await
}

/// A donor serves one clone at a time.
fn donor_is_busy(error: &SqlError) -> bool {
    const ER_CLONE_DONOR: u16 = 3862;
    const ER_CLONE_TOO_MANY_CONCURRENT_CLONES: &str = "3634";
    matches!(error, SqlError::Refused { code: ER_CLONE_DONOR, message, .. } if message.contains(ER_CLONE_TOO_MANY_CONCURRENT_CLONES))
}

fn failed(error: SqlError) -> BuildError {
    const ER_CLONE_DONOR_VERSION: u16 = 3864;
    match error.code() {
        Some(ER_CLONE_DONOR_VERSION) => BuildError::OtherSeries(error),
        _ => BuildError::Clone(error),
    }
}

fn socket(config: &Config) -> PathBuf {
    config.run.join("build.sock")
}

/// Options of a server that works on the build and that nobody can reach but this manager.
fn offline(config: &Config, more: &[&str]) -> Vec<String> {
    let own = [
        format!("--datadir={}", config.volume.join(BUILDING).display()),
        format!("--socket={}", socket(config).display()),
        "--skip-networking".to_owned(),
    ];
    own.into_iter().chain(more.iter().map(|option| (*option).to_owned())).collect()
}

async fn answers(process: &Process, server: &Server, what: &'static str) -> Result<(), BuildError> {
    let answered = async {
        while server.status(ASK_WITHIN).await.is_err() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::select! {
        Exit { code, signal, .. } = process.ended() => Err(BuildError::Ended { what, code, signal }),
        answered = tokio::time::timeout(START_WITHIN, answered) => answered.map_err(|_| BuildError::Slow { what, within: START_WITHIN }),
    }
}

/// Tells the clone's progress for as long as it makes some.
async fn watch(shared: &Shared, donor: &ReplicaName, server: &Server) -> BuildError {
    let begun = Instant::now();
    let (mut moved, mut last) = (Instant::now(), CloneProgress::default());
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        if let Ok(Some(progress)) = server.clone_progress(ASK_WITHIN).await {
            if progress != last {
                (moved, last) = (Instant::now(), progress);
            }
            let progress = told(&last, donor, begun.elapsed());
            shared.update(|facts| facts.build = Some(progress));
        }
        if moved.elapsed() > CLONE_STALLS_AFTER {
            return BuildError::Stalled(CLONE_STALLS_AFTER);
        }
    }
}

/// The estimate supposes that the rest goes as fast as what is done.
fn told(progress: &CloneProgress, donor: &ReplicaName, elapsed: Duration) -> BuildProgress {
    let CloneProgress { stage, done, total, error } = progress.clone();
    let eta = (done > 0 && total > done).then(|| {
        let left = elapsed.as_millis().saturating_mul(u128::from(total - done)) / u128::from(done);
        u64::try_from(left).unwrap_or(u64::MAX)
    });
    BuildProgress { stage, donor: Some(donor.clone()), done, total, eta, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_donor_is_waited_for_and_any_other_error_is_not() {
        let refused = |message: &str| SqlError::Refused { step: "clone", code: 3862, message: message.to_owned() };
        assert!(donor_is_busy(&refused(
            "Clone Donor Error: 3634 : Too many concurrent clone operations. Maximum allowed - 1.."
        )));
        assert!(!donor_is_busy(&refused("Clone Donor Error: 1045 : Access denied.")));
    }

    #[test]
    fn a_donor_of_another_series_is_told_from_any_other_failure_and_with_what_to_do() {
        let refused = |code, message: &str| SqlError::Refused { step: "clone", code, message: message.to_owned() };
        let versions = "Clone Donor MySQL version: 8.4.6 is different from Recipient MySQL version 9.7.4.";
        let other_series = failed(refused(3864, versions)).to_string();
        assert!(other_series.contains("set mysql.image back") && other_series.ends_with(versions), "{other_series}");
        let away = refused(3862, "Clone Donor Error: 2003 : Can't connect to MySQL server.");
        assert_eq!(failed(away.clone()).to_string(), away.to_string());
    }

    #[test]
    fn the_estimate_goes_by_what_is_done() {
        let progress = |done, total| CloneProgress { stage: "FILE COPY".to_owned(), done, total, error: None };
        for (case, done, total, eta) in [
            ("nothing done", 0, 100, None),
            ("a quarter", 25, 100, Some(30_000)),
            ("all", 100, 100, None),
            ("more than estimated", 120, 100, None),
        ] {
            assert_eq!(
                told(&progress(done, total), &ReplicaName::new("a"), Duration::from_secs(10)).eta,
                eta,
                "{case}"
            );
        }
    }
}
