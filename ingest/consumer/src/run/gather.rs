//! From the log into the batch. I/O.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use understudy_kafka::{Broken, Event};

use super::Runner;
use crate::lanes::{Fault, Offer};
use crate::log::Log;
use crate::route::Change;
use crate::view::View;

/// How often partitions whose records went missing are tried again.
const RETRY_FAULTS: Duration = Duration::from_secs(5);
/// How long putting one batch's rejects aside may take at a time. Below the time after which another consumer takes over.
const PUT_ASIDE: Duration = Duration::from_secs(2);

/// What ended gathering.
pub(super) enum Gathered {
    /// The batch is to be committed.
    Batch,
    /// It is time for a canary.
    Canary,
    /// The placement changed, or a person may have changed the rows.
    Reload,
    /// Something else comes first: the log must be told anew, or the process shall stop.
    Nothing,
}

impl<V: View, L: Log> Runner<V, L> {
    /// Takes records until the batch is complete, or until it is time for a canary.
    pub(super) async fn gather(&mut self, canary_at: Instant, stop: &CancellationToken) -> Gathered {
        while !self.batch.is_full(self.config.limits) {
            let now = Instant::now();
            let due = self.due();
            match due {
                Some(due) if due <= now => break,
                _ if canary_at <= now => return Gathered::Canary,
                _ => {}
            }
            let until = due.map_or(canary_at, |due| due.min(canary_at));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Gathered::Nothing,
                Ok(()) = self.deps.placement.changed() => return Gathered::Reload,
                // The batch may be due by that.
                Ok(()) = self.deps.transitions.changed() => {}
                Ok(()) = self.deps.ends.changed() => self.listen_to_ends(),
                () = sleep_until(until) => {}
                () = sleep_until(self.retried + RETRY_FAULTS) => {
                    self.retried = now;
                    if self.lanes.try_again() {
                        self.generation = None;
                    }
                    // A person may have said in the row where to go on.
                    if !self.lanes.faulty().is_empty() {
                        return Gathered::Reload;
                    }
                }
                Some(event) = self.deps.events.recv() => {
                    self.take(event);
                    self.take_waiting();
                }
            }
            if self.generation.is_none() {
                return Gathered::Nothing;
            }
        }
        Gathered::Batch
    }

    /// When the batch in hand must be committed; None while it is empty.
    ///
    /// What comes first after a change of primary ends the gap, and what comes last before a planned one begins it: neither waits for more
    /// than can be taken at once. And the fence of the old primary waits for the statement that it meets, so the batches before it are small.
    pub(super) fn due(&self) -> Option<Instant> {
        let is_handed_over =
            self.deps.transitions.borrow().as_ref().is_some_and(|transition| transition.change == Change::Planned);
        match self.takeover.is_some() || is_handed_over {
            true => self.batch.due_in_haste(self.config.limits),
            false => self.batch.due(self.config.limits),
        }
    }

    /// Takes what is in the channel already, as long as the batch has room.
    pub(super) fn take_waiting(&mut self) {
        while !self.batch.is_full(self.config.limits) {
            match self.deps.events.try_recv() {
                Ok(event) => self.take(event),
                Err(_) => return,
            }
        }
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Record(record) if Some(record.generation) == self.generation => {
                self.came.insert(record.partition, (Instant::now(), SystemTime::now()));
                match self.lanes.offer(record.partition, record.offset, self.config.holes) {
                    Offer::Take => {
                        let decoded = self.view.decode(&record);
                        self.batch.push(record, decoded, Instant::now());
                    }
                    Offer::Drop => {}
                    Offer::Fault => self.complain(record.partition),
                }
            }
            Event::Broken { generation, partition, why } if Some(generation) == self.generation => {
                let fault = match why {
                    Broken::Gap { expected, got } => Fault::Gap { expected, got },
                    Broken::BelowEarliest { expected, earliest } => Fault::Deleted { wanted: expected, earliest },
                    Broken::BeyondEnd { expected, end } => Fault::Ended { wanted: expected, end },
                    Broken::Rewritten { expected } => Fault::Ended { wanted: expected, end: expected - 1 },
                };
                self.lanes.broke(partition, fault);
                self.complain(partition);
            }
            // Of an assignment that was given up: what it says was read under other positions.
            Event::Record(_) | Event::Broken { .. } => {}
        }
    }

    pub(super) fn complain(&self, partition: i32) {
        let fault = self.lanes.get(partition).and_then(|lane| lane.fault().cloned());
        if let Some(fault) = fault {
            self.deps.metrics.faults.inc();
            tracing::error!(partition, error = %fault, remedy = fault.remedy(), "the partition cannot go on, the others do");
        }
    }

    /// What cannot be applied must be in the dead-letter topic before the offset passes over it.
    pub(super) async fn put_aside(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PUT_ASIDE;
        for letter in self.batch.letters().iter_mut().filter(|letter| !letter.delivered) {
            let (partition, offset, reason) = (letter.record.partition, letter.record.offset, letter.reason);
            match self.deps.dead.put(&letter.record, reason, &letter.detail, deadline).await {
                Ok(()) => {
                    letter.delivered = true;
                    self.deps.metrics.put_aside(reason);
                    tracing::warn!(partition, offset, reason, detail = letter.detail, "put aside");
                }
                Err(e) => {
                    return Err(format!(
                        "the record at offset {offset} of partition {partition} cannot be put aside: {e}"
                    ));
                }
            }
        }
        Ok(())
    }
}
