//! Readings of the own server and of its process, each with its deadline; the last good value stays with its age. I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use understudy_mysql::{Instance, Prober, SqlError};
use understudy_wire::evidence::{Failing, Probe, ProbeError, Stage};

use crate::facts::{EVERY, Life, Shared};
use crate::host::Host;
use crate::{pressure, proc};

const WITHIN: Duration = Duration::from_secs(1);
/// How often the state of mysqld is read. A stop is counted from the first reading that saw it, so it is known to be this much shorter than
/// it is.
const STATE_EVERY: Duration = Duration::from_millis(125);
/// Its threads are read once in so many turns.
const THREADS_PACE: u64 = 2;
/// So many readings in a row may miss their deadline before the next waits for the probe of the admin port: longer than it takes to tell a deadlock,
/// so that a server under load whose log moves is still seen to move.
const MISSES: u32 = 10;
/// The longest that a reading may take once so many have missed their deadline.
const AT_MOST: Duration = Duration::from_secs(30);
/// The pressure is read once in so many turns.
const PRESSURE_PACE: u64 = 8;

/// The pace of readings.
pub(crate) fn turns() -> Interval {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}

/// The manager's own loop: it measures its pauses and nothing else.
pub async fn pulse(shared: Arc<Shared>, stop: CancellationToken) {
    let mut turns = turns();
    while stop.run_until_cancelled(turns.tick()).await.is_some() {
        shared.tick(Instant::now());
    }
}

/// Whether the admin port lets nobody read. mysqld keeps the session of a reading that was given up for as long as its thread hangs, and counts
/// it among the connections of clients, so after [`MISSES`] there is none until the probe of that port gets through.
fn answers_nobody(admin: &Prober) -> bool {
    admin.probe(Instant::now()).is_some_and(|probe| lets_nobody_read(&probe))
}

fn lets_nobody_read(probe: &Probe) -> bool {
    let is_silence = |failing: &Failing| failing.error == ProbeError::Timeout && failing.stage != Stage::Commit;
    probe.failing.as_ref().is_some_and(is_silence)
}

/// How long a reading may take after so many that missed their deadline: twice as long after each from [`MISSES`] on. A port that answers may
/// keep one reading waiting for ever, as for a lock that a volume which hangs keeps, and each that is given up leaves its session there; the one
/// that waits is answered as soon as anything moves.
fn patience(missed: u32) -> Duration {
    WITHIN.saturating_mul(1 << missed.saturating_sub(MISSES).min(5)).min(AT_MOST)
}

/// Status and epoch. `server` is a connection that nobody else uses; `admin` probes the same port.
pub async fn status(shared: Arc<Shared>, server: Arc<dyn Instance>, admin: Prober, stop: CancellationToken) {
    let mut turns = turns();
    let mut missed = 0_u32;
    while stop.run_until_cancelled(turns.tick()).await.is_some() {
        if shared.read(|facts| facts.life != Life::Running) || (missed >= MISSES && answers_nobody(&admin)) {
            continue;
        }
        let reading = read_status(&shared, &*server, patience(missed));
        let Some(read) = stop.run_until_cancelled(reading).await else { return };
        missed = if matches!(read, Err(SqlError::Deadline { .. })) { missed.saturating_add(1) } else { 0 };
        if let Err(e) = read {
            tracing::debug!(error = %e, "server not read");
        }
    }
}

async fn read_status(shared: &Shared, server: &dyn Instance, within: Duration) -> Result<(), SqlError> {
    let status = server.status(within).await?;
    let row = server.epoch(within).await?;
    let now = Instant::now();
    shared.update(|facts| {
        facts.take_status(status, now);
        // A promotion that ended while this was being read knows better.
        if row.as_ref().map(|row| row.epoch) >= facts.epoch_row.as_ref().map(|row| row.epoch) {
            facts.take_epoch_row(row);
        }
    });
    Ok(())
}

/// Replication and stored offsets, apart from the status because replication that is being stopped makes its reading wait.
pub async fn replication(shared: Arc<Shared>, server: Arc<dyn Instance>, admin: Prober, stop: CancellationToken) {
    let mut turns = turns();
    let mut missed = 0_u32;
    while stop.run_until_cancelled(turns.tick()).await.is_some() {
        if shared.read(|facts| facts.life != Life::Running) || (missed >= MISSES && answers_nobody(&admin)) {
            continue;
        }
        let reading = read_replication(&shared, &*server, patience(missed));
        let Some(read) = stop.run_until_cancelled(reading).await else { return };
        missed = if matches!(read, Err(SqlError::Deadline { .. })) { missed.saturating_add(1) } else { 0 };
        if let Err(e) = read {
            tracing::debug!(error = %e, "replication not read");
        }
    }
}

async fn read_replication(shared: &Shared, server: &dyn Instance, within: Duration) -> Result<(), SqlError> {
    let replication = server.replication(within).await?;
    shared.update(|facts| facts.take_replication(replication, Instant::now()));
    let offsets = server.offsets(within).await?;
    shared.update(|facts| facts.offsets = Some((Instant::now(), offsets)));
    Ok(())
}

/// State of the process, and pressure, in a thread of its own because even the kernel may keep a reader waiting. Ends with the process.
pub fn process(shared: Arc<Shared>, host: Arc<Host>) -> std::io::Result<()> {
    std::thread::Builder::new().name("process".to_owned()).spawn(move || {
        for turn in 0_u64.. {
            let pid = host.process().filter(|process| process.exit().is_none()).map(|process| process.pid());
            let state = pid.and_then(|pid| proc::thread_state(pid, pid));
            shared.update(|facts| facts.take_process_state(state, Instant::now()));
            if turn.is_multiple_of(THREADS_PACE) {
                let process = pid.and_then(proc::state);
                shared.update(|facts| facts.take_process(process, Instant::now()));
            }
            // An average over ten seconds, after the state that may matter now.
            if turn.is_multiple_of(PRESSURE_PACE) {
                let pressure = pressure::read();
                shared.update(|facts| facts.pressure = pressure);
            }
            std::thread::sleep(STATE_EVERY);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_that_are_answered_late_if_at_all_are_few_and_the_first_ten_are_not_kept_waiting() {
        for (missed, seconds) in
            [(0, 1), (MISSES, 1), (MISSES + 1, 2), (MISSES + 4, 16), (MISSES + 5, 30), (u32::MAX, 30)]
        {
            assert_eq!(patience(missed), Duration::from_secs(seconds), "{missed}");
        }
    }

    #[test]
    fn a_port_that_answers_nobody_is_left_alone_and_one_that_only_ends_no_commit_is_read() {
        let fails = |stage, error| {
            let failing = Failing { since: 900, latest: 10, count: 2, stage, error, unanswered: None, answered: None };
            Probe { failing: Some(failing), ..Probe::default() }
        };
        for (case, probe, expected) in [
            ("it answers", Probe::default(), false),
            ("no greeting", fails(Stage::Greeting, ProbeError::Timeout), true),
            ("no select", fails(Stage::Select, ProbeError::Timeout), true),
            ("no commit", fails(Stage::Commit, ProbeError::Timeout), false),
            ("refused", fails(Stage::Tcp, ProbeError::Refused { message: "refused".into() }), false),
        ] {
            assert_eq!(lets_nobody_read(&probe), expected, "{case}");
        }
    }
}
