//! From the batch into the shard: the transaction, and what becomes of its failures. I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use understudy_sql::StepError;
use understudy_wire::evidence::{Millis, ProbeError, Stage};

use super::gather::Gathered;
use super::{Runner, lost, now};
use crate::batch::Batch;
use crate::complete::complete_until_ms;
use crate::facts::INTERVAL;
use crate::guard::Guard;
use crate::log::{Log, now_ms};
use crate::machine::Worked;
use crate::session::{Progress, Stored, TxError};
use crate::takeover::Milestone;
use crate::view::{Rows, View, ViewError};

/// How often rows are written only to say how far idle partitions are complete.
const REFRESH: Duration = Duration::from_secs(1);

impl<V: View, L: Log> Runner<V, L> {
    pub(super) async fn work(
        &mut self,
        guard: &Guard,
        hold: Option<Millis>,
        stop: &CancellationToken,
    ) -> Result<Worked, StepError> {
        let canary_at = self.committed + INTERVAL;
        // A batch that cannot be stored is full or overdue for ever, and gathering would never look at what moves.
        if self.deps.placement.has_changed().unwrap_or(false) {
            return Ok(Worked::Reload);
        }
        if let Some(hold) = hold {
            let until = (self.started + Duration::from_millis(hold)).min(canary_at);
            if stop.run_until_cancelled(sleep_until(until)).await.is_none() || until < canary_at {
                return Ok(Worked::Canary);
            }
            return self.canary(guard).await;
        }
        if let Err(why) = self.assign().await {
            return Ok(Worked::Held(why));
        }
        match self.gather(canary_at, stop).await {
            Gathered::Nothing => Ok(Worked::Canary),
            Gathered::Reload => Ok(Worked::Reload),
            Gathered::Canary => self.canary(guard).await,
            Gathered::Batch => {
                if let Err(why) = self.put_aside().await {
                    return Ok(Worked::Held(why));
                }
                self.store(guard).await
            }
        }
    }

    /// Prepares and commits the batch.
    pub(super) async fn store(&mut self, guard: &Guard) -> Result<Worked, StepError> {
        let Some(session) = &mut self.session else { return Err(lost()) };
        let preparing = Instant::now();
        self.deps.facts.began(Stage::Commit, now());
        if !self.batch.items().is_empty()
            && let Err(e) = session.prepare(&mut self.view, self.batch.items()).await
        {
            return self.view_failed(e);
        }
        let refresh = self.refreshed.elapsed() >= REFRESH;
        let progress = self.progress(refresh);
        let Some(session) = &mut self.session else { return Err(lost()) };
        let began = Instant::now();
        self.deps.facts.began(Stage::Commit, now());
        let committed = session.commit(&self.config.names, guard, &progress, &mut self.view, self.batch.items()).await;
        match committed {
            Ok(()) => {
                let (prepare, commit, records) = (began - preparing, began.elapsed(), self.batch.records());
                self.batch_stored(began, &progress, refresh);
                self.reach(Milestone::Stored, self.committed);
                if let Some(takeover) = self.takeover.take() {
                    // Where the time went that nothing was stored in, from the route on.
                    tracing::info!(stages = takeover.words(), ?prepare, ?commit, records, "stores on this primary");
                }
                Ok(Worked::Batch)
            }
            Err(e) => self.tx_failed(e),
        }
    }

    /// A transaction with nothing in it but the beat, and now and then how far idle partitions are complete.
    pub(super) async fn canary(&mut self, guard: &Guard) -> Result<Worked, StepError> {
        let refresh = self.refreshed.elapsed() >= REFRESH;
        // While the view is on hold the batch stays in hand, and the rows must not run ahead of it.
        let (progress, notes) = match refresh {
            true => (self.progress(true).into_iter().filter(|(p, _)| !self.is_taken(*p)).collect(), self.notes()),
            false => (BTreeMap::new(), BTreeMap::new()),
        };
        let rows = progress.iter().chain(&notes).map(|(p, row)| (*p, row.clone())).collect();
        let Some(session) = &mut self.session else { return Err(lost()) };
        let began = Instant::now();
        self.deps.facts.began(Stage::Commit, now());
        match session.commit(&self.config.names, guard, &rows, &mut self.view, &[]).await {
            Ok(()) => {
                self.note_commit(began, &progress, refresh);
                self.lanes.noted(notes.into_keys());
                self.deps.metrics.canaries.inc();
                Ok(Worked::Canary)
            }
            Err(e) => self.tx_failed(e),
        }
    }

    pub(super) fn is_taken(&self, partition: i32) -> bool {
        self.lanes.get(partition).is_some_and(|lane| lane.is_taken())
    }

    /// The rows to write: of partitions with records in the batch, and of others that are complete further than their rows say.
    pub(super) fn progress(&self, refresh: bool) -> BTreeMap<i32, Progress> {
        let now_ms = now_ms();
        let mut progress = BTreeMap::new();
        for (partition, lane) in self.lanes.iter() {
            let Some(next_offset) = lane.next() else { continue };
            let known = self.complete.get(&partition).copied();
            // Only what the lanes have heard: what is news to them may turn out to be another log.
            let end = self.heard.partitions.get(&partition);
            let complete_until_ms = complete_until_ms(lane, end, self.batch.last_ms(partition), known, now_ms);
            let (note, noted) = self.lanes.note(partition);
            let news = known != Some(complete_until_ms) || lane.stored() != Some(next_offset) || noted;
            if lane.is_taken() || (refresh && news) {
                let before = self.put_aside.get(&partition).copied().unwrap_or_default();
                let dead_letters = before + self.batch.letters_of(partition);
                let stored = Stored { next_offset, complete_until_ms, dead_letters, note };
                progress.insert(partition, Progress { expected: lane.stored(), stored });
            }
        }
        progress
    }

    /// The rows of partitions with records in the batch that are to say something else beside the offset, which stays: a move must not wait
    /// for a view that is on hold.
    fn notes(&self) -> BTreeMap<i32, Progress> {
        let mut rows = BTreeMap::new();
        for (partition, lane) in self.lanes.iter().filter(|(_, lane)| lane.is_taken()) {
            let (Some(next_offset), (note, true)) = (lane.stored(), self.lanes.note(partition)) else { continue };
            let complete_until_ms = self.complete.get(&partition).copied().unwrap_or_default();
            let dead_letters = self.put_aside.get(&partition).copied().unwrap_or_default();
            let stored = Stored { next_offset, complete_until_ms, dead_letters, note };
            rows.insert(partition, Progress { expected: Some(next_offset), stored });
        }
        rows
    }

    pub(super) fn batch_stored(&mut self, began: Instant, progress: &BTreeMap<i32, Progress>, refresh: bool) {
        self.note_commit(began, progress, refresh);
        self.deps.metrics.stored(self.batch.records(), self.batch.bytes());
        // Without items the view was not asked to write, and what it means to write next is not committed.
        if !self.batch.items().is_empty() {
            self.view.committed();
        }
        self.batch = Batch::default();
        self.missed_table = false;
    }

    pub(super) fn note_commit(&mut self, began: Instant, progress: &BTreeMap<i32, Progress>, refresh: bool) {
        let at = Instant::now();
        self.deps.facts.committed(at - began, at.into_std());
        self.hanging.answered(Stage::Commit);
        self.deps.metrics.commit_seconds.observe((at - began).as_secs_f64());
        self.committed = at;
        self.reach(Milestone::Committed, at);
        if refresh {
            self.refreshed = at;
        }
        self.lanes.committed(progress.keys().copied());
        for (partition, Progress { expected, stored }) in progress {
            self.complete.insert(*partition, stored.complete_until_ms);
            self.put_aside.insert(*partition, stored.dead_letters);
            let reached_ms = self.batch.last_ms(*partition).unwrap_or(stored.complete_until_ms);
            if reached_ms > 0 {
                self.reached_ms.insert(*partition, reached_ms);
            }
            if *expected != Some(stored.next_offset) {
                self.moved.insert(*partition, at);
            }
        }
    }

    pub(super) fn tx_failed(&mut self, error: TxError) -> Result<Worked, StepError> {
        match error {
            TxError::Fenced(fenced) => {
                self.deps.facts.idle();
                Ok(Worked::Fenced(fenced))
            }
            TxError::Diverged(diverged) => {
                tracing::warn!(%diverged, "what is stored is not what this process left");
                self.deps.facts.idle();
                Ok(Worked::Reload)
            }
            TxError::View(e) => self.view_failed(e),
            // Somebody holds what the transaction needs: the server is well and so is the connection.
            TxError::Step(e) if e.is_lock() => {
                self.deps.facts.failed(&e, now());
                tracing::warn!(error = %e, "somebody else's lock is in the way of the transaction");
                Ok(Worked::Canary)
            }
            TxError::Step(e) => Err(e),
        }
    }

    pub(super) fn view_failed(&mut self, error: ViewError) -> Result<Worked, StepError> {
        self.deps.facts.idle();
        match error {
            ViewError::Step(e) if e.is_missing_table() && !self.missed_table => {
                tracing::warn!(error = %e, "a table is gone; the view looks anew");
                self.missed_table = true;
                self.view.route_changed(Rows::Unknown);
                Ok(Worked::Canary)
            }
            ViewError::Step(e) if e.error == ProbeError::ReadOnly || !e.is_answer() => Err(e),
            ViewError::Reject { index, reason, detail } => {
                let items = self.batch.items().len();
                if self.batch.reject(index, reason, detail) {
                    return Ok(Worked::Canary);
                }
                // Asked again at once the view would say the same.
                Ok(Worked::Held(format!("the view rejects item {index}, from 0, of a batch of {items}: {reason}")))
            }
            other => {
                self.missed_table = false;
                Ok(Worked::Held(other.to_string()))
            }
        }
    }
}
