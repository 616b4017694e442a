//! Promotion: stop receiving, deal with what was received within its bound, stop applying, take writes, write the epoch. I/O.
//!
//! Nobody stores anything meanwhile, so nothing is asked that does not decide anything. Throwing away what was received and not applied waits
//! until well after writes are taken: it syncs the volume, as the first commits do, and nobody needs it done.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use understudy_mysql::instance::EpochRow;
use understudy_mysql::{Instance, SqlError};
use understudy_wire::evidence::Replication;
use understudy_wire::order::{Promote, Promoted, Refusal};

use crate::facts::Shared;

const READ_WITHIN: Duration = Duration::from_secs(2);
/// Stopping the applier waits for the transaction that it is in.
const STEP_WITHIN: Duration = Duration::from_secs(5);

/// How long after the answer the old source is forgotten.
pub const TIDY_AFTER: Duration = Duration::from_secs(5);

/// Makes this server the primary under the order's epoch. Doing it again under the same epoch changes nothing.
pub async fn promote(shared: &Shared, server: &dyn Instance, order: &Promote) -> Result<Promoted, Refusal> {
    let mut clock = Clock::start();
    let stored = step("read epoch", server.epoch(READ_WITHIN).await)?;
    let row = EpochRow { epoch: order.epoch, primary: shared.me.clone() };
    if let Some(stored) = stored.as_ref().filter(|stored| stored.epoch > order.epoch) {
        let known = shared.update(|facts| {
            facts.known = facts.known.max(stored.epoch);
            facts.known
        });
        return Err(Refusal::StaleEpoch { given: order.epoch, known });
    }
    clock.lap("look");
    let bound = Duration::from_millis(order.apply_relay_log_within);
    if let Some(after) = &order.after
        && !step("get the rest", server.wait_executed(after, bound).await)?
    {
        let reason = format!("{after} was not executed within {} ms", order.apply_relay_log_within);
        return Err(Refusal::Failed { step: "get the rest".to_owned(), reason });
    }
    clock.lap("rest");
    // A source that was told to stop has nothing more to send than what is executed here by now.
    let bound = order.after.is_none().then_some(bound);
    if let Some(receiver) = end_receiving(server, bound).await? {
        stop_applying(server, receiver).await?;
    }
    clock.lap("source");
    step("take writes", server.take_writes(STEP_WITHIN).await)?;
    clock.lap("writes");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    step("write epoch", server.write_epoch(&row, i64::try_from(now).unwrap_or(i64::MAX), STEP_WITHIN).await)?;

    clock.lap("epoch");
    let status = step("read status", server.status(READ_WITHIN).await)?;
    clock.lap("status");
    tracing::info!(epoch = %order.epoch, took = clock.words(), "takes writes");
    let executed = status.executed.clone();
    shared.update(|facts| {
        let now = Instant::now();
        facts.take_status(status, now);
        facts.take_epoch_row(Some(row));
        facts.fence = None;
    });
    Ok(Promoted { epoch: order.epoch, executed })
}

/// What was done about the receiver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// It was connected, and has ended.
    Ended,
    /// It had no connection, and was left alone.
    LeftAlone,
}

/// Stops receiving and lets what was received be applied, within the bound if there is one. None: there is no source at all.
///
/// A receiver without a connection has nothing more to give, and mysqld ends it only when its attempt to connect is over. Towards a machine
/// that is gone that takes seconds, which nobody's promotion waits for. What it may receive after all is never applied: the applier is
/// stopped before writes are taken, nothing but an order to follow starts it again, and [`tidy`] throws away what came.
async fn end_receiving(server: &dyn Instance, bound: Option<Duration>) -> Result<Option<Receiver>, Refusal> {
    let Some(mut found) = replication(server).await? else { return Ok(None) };
    let mut receiver = Receiver::LeftAlone;
    if found.receiving {
        step("stop receiving", server.stop_receiving(STEP_WITHIN).await)?;
        receiver = Receiver::Ended;
    }
    let Some(bound) = bound else { return Ok(Some(receiver)) };
    if receiver == Receiver::Ended {
        // Only now: what came after the first look would be waited for by nobody.
        let Some(last) = replication(server).await? else { return Ok(None) };
        found = last;
    }
    let received = found.received;
    if !step("apply what was received", server.wait_executed(&received, bound).await)? {
        // Kafka still has what these transactions hold; waiting on would only make the gap longer.
        tracing::warn!(?bound, %received, "not everything received was applied within its bound, the rest is discarded");
    }
    Ok(Some(receiver))
}

async fn stop_applying(server: &dyn Instance, receiver: Receiver) -> Result<(), Refusal> {
    step("stop applying", server.stop_applying(STEP_WITHIN).await)?;
    // A follow that missed its deadline here may have gone on there.
    let left = replication(server).await?;
    if left.is_some_and(|left| left.applying || (left.receiving && receiver == Receiver::Ended)) {
        let reason = "it replicates again: something else started it meanwhile".to_owned();
        return Err(Refusal::Failed { step: "stop applying".to_owned(), reason });
    }
    Ok(())
}

async fn replication(server: &dyn Instance) -> Result<Option<Replication>, Refusal> {
    step("read replication", server.replication(READ_WITHIN).await)
}

/// Where the time of a promotion went, for the log.
struct Clock {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), laps: Vec::new() }
    }

    /// What has lasted since the last call was this.
    fn lap(&mut self, what: &'static str) {
        let now = Instant::now();
        self.laps.push((what, now - self.last));
        self.last = now;
    }

    fn words(&self) -> String {
        let each = self.laps.iter().map(|(what, lasted)| format!("{what} {} ms", lasted.as_millis()));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// What is left to do [`TIDY_AFTER`] the answer was given.
pub async fn tidy(shared: &Shared, server: &dyn Instance) {
    match server.forget_source(STEP_WITHIN).await {
        Ok(()) => shared.update(|facts| facts.take_replication(None, Instant::now())),
        Err(e) => tracing::warn!(error = %e, "the old source is not forgotten; it is not followed either"),
    }
}

fn step<T>(step: &str, outcome: Result<T, SqlError>) -> Result<T, Refusal> {
    outcome.map_err(|e| match e {
        SqlError::OlderEpoch { given, stored } => {
            Refusal::StaleEpoch { given: understudy_wire::Epoch(given), known: understudy_wire::Epoch(stored) }
        }
        e => Refusal::Failed { step: step.to_owned(), reason: e.to_string() },
    })
}
