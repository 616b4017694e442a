//! From a route to a place in the log: connect, look, claim, read the offsets. I/O.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use understudy_kafka::Position;
use understudy_sql::StepError;
use understudy_wire::Epoch;
use understudy_wire::evidence::{ProbeError, Stage};

use super::{Runner, now, unexpected};
use crate::batch::Batch;
use crate::guard::{OwnerRow, Survey};
use crate::lanes::Resume;
use crate::log::{Ends, Log};
use crate::placement::within;
use crate::route::Route;
use crate::session::{Session, TxError};
use crate::takeover::Milestone;
use crate::view::{Rows, View};

/// How long the log may take to be brought to other positions.
const ASSIGN: Duration = Duration::from_secs(2);

impl<V: View, L: Log> Runner<V, L> {
    pub(super) async fn open(&mut self, route: &Route) {
        let opened = match self.ahead.take(route).await {
            Some(session) => {
                if let Some(takeover) = &mut self.takeover {
                    takeover.was_ahead();
                }
                Ok(session)
            }
            None => {
                self.wait_for_hanging().await;
                let login = match (self.deps.login)() {
                    Ok(login) => login,
                    Err(message) => {
                        let error = ProbeError::Other { message };
                        return self.machine.failed(StepError { step: "read login", stage: Stage::Tcp, error });
                    }
                };
                self.deps.facts.began(Stage::Tcp, now());
                let (owner, deadlines) = (&self.config.owner, self.config.deadlines);
                Session::open(route, &login, owner, deadlines, &mut self.hanging).await
            }
        };
        match opened {
            Ok(session) => {
                self.reach(Milestone::Connected, Instant::now());
                self.deps.facts.selected(now());
                self.hanging.answered(Stage::Select);
                self.deps.metrics.connections.inc();
                self.session = Some(session);
                self.is_new_to_view = true;
                if self.opened.as_ref() != Some(&route.primary) {
                    self.opened = Some(route.primary.clone());
                    self.lanes.elsewhere();
                }
                let at = self.now();
                self.machine.opened(at);
            }
            Err(e) => self.failed(e),
        }
    }

    /// Returns when another session may be opened. That the server does not answer goes on until then, and is told so often that one telling
    /// still counts when the next comes.
    async fn wait_for_hanging(&mut self) {
        let facts = &self.deps.facts;
        let silent = |stage| facts.failed(&StepError::timeout("wait for earlier sessions", stage), now());
        self.hanging.wait(self.config.deadlines.step / 2, silent).await;
    }

    pub(super) async fn survey(&mut self) {
        let Some(session) = &mut self.session else { return self.gone() };
        self.deps.facts.began(Stage::Select, now());
        match session.survey(&self.config.names).await {
            Ok(survey) => {
                self.deps.facts.selected(now());
                self.hanging.answered(Stage::Select);
                self.see_owner(&survey);
                let at = self.now();
                self.machine.surveyed(survey, at);
            }
            Err(e) => self.failed(e),
        }
    }

    /// Takes notice of another process that stores on this primary. Before its promotion a row there only tells of the one before it.
    pub(super) fn see_owner(&mut self, survey: &Survey) {
        let wanted = self.machine.present_route().map(|route| route.epoch);
        let other =
            survey.owner.as_ref().filter(|row| !row.owner.is_empty() && row.owner != self.config.owner.as_str());
        if survey.epoch == wanted
            && let (Some(takeover), Some(row)) = (&mut self.takeover, other)
        {
            takeover.sees(row);
        }
    }

    pub(super) async fn claim(&mut self, seen: &OwnerRow, epoch: Epoch) {
        let Some(session) = &mut self.session else { return self.gone() };
        self.deps.facts.began(Stage::Commit, now());
        let claim = session.claim(&self.config.names, self.config.owner.as_str(), seen, epoch).await;
        let at = self.now();
        match claim {
            Ok(term) => {
                self.deps.facts.idle();
                if let Some(term) = term {
                    tracing::info!(term = term.0, before = seen.owner, "this pod is now the active one");
                }
                self.machine.claimed(Ok(term), at);
            }
            Err(TxError::Fenced(fenced)) => {
                self.deps.facts.idle();
                self.machine.claimed(Err(fenced), at);
            }
            // Whoever holds the row is alive, or its session ends soon.
            Err(TxError::Step(e)) if e.is_lock() => {
                self.deps.facts.idle();
                self.session = None;
                self.machine.failed(e);
            }
            Err(TxError::Step(e)) => self.failed(e),
            Err(other) => self.failed(unexpected("claim", &other)),
        }
    }

    /// Brings lanes, batch and log to where the rows say.
    pub(super) async fn load(&mut self) {
        self.reach(Milestone::Owner, Instant::now());
        let Some(session) = &mut self.session else { return self.gone() };
        let placement = self.deps.placement.borrow_and_update().clone().unwrap_or_default();
        let stored = match session.offsets(&self.config.names).await {
            Ok(stored) => stored,
            Err(e) => return self.failed(e),
        };
        let promised = stored.iter().filter_map(|(p, stored)| Some((*p, stored.note.until?))).collect();
        let placement = within(placement, &promised);
        let offsets = stored.iter().map(|(p, stored)| (*p, stored.next_offset)).collect();
        let paused: Vec<i32> = match self.config.paused {
            true => placement.keys().copied().collect(),
            false => self.config.paused_partitions.clone(),
        };
        let positions = self.lanes.positions();
        let resume = self.lanes.load(&placement, &paused, &offsets);
        if std::mem::take(&mut self.is_new_to_view) {
            self.view.route_changed(match resume {
                Resume::KeepBatch | Resume::DropBatch => Rows::Kept,
                Resume::Rewind => Rows::Unknown,
            });
        }
        let read = Instant::now();
        self.moved = stored.keys().map(|partition| (*partition, read)).collect();
        self.complete = stored.iter().map(|(p, stored)| (*p, stored.complete_until_ms)).collect();
        self.put_aside = stored.iter().map(|(p, stored)| (*p, stored.dead_letters)).collect();
        self.reached_ms = self.complete.clone();
        self.reached_ms.retain(|_, until| *until > 0);
        for (partition, stored) in stored {
            self.lanes.recall(partition, stored.note);
        }
        tracing::info!(?resume, positions = ?self.lanes.positions(), "read the stored offsets");
        if resume != Resume::KeepBatch {
            self.batch = Batch::default();
        }
        if resume == Resume::Rewind {
            self.generation = None;
            self.deps.metrics.rewinds.inc();
        }
        // A person may have taken away what kept a partition from going on, and left its offset as it was.
        if self.lanes.positions() != positions {
            self.generation = None;
        }
        // The lanes may be others by now, which have heard nothing.
        self.heard = Ends::default();
        self.listen_to_ends();
        let outcome = self.assign().await;
        if outcome.is_ok() {
            self.reach(Milestone::Positioned, Instant::now());
        }
        let at = self.now();
        self.machine.loaded(outcome, at);
    }

    /// Tells the log where to read, unless it knows.
    pub(super) async fn assign(&mut self) -> Result<(), String> {
        // Before it is known which topic it is, it may be another one than what is stored was read from.
        if self.generation.is_some() || self.deps.ends.borrow().origin.is_none() {
            return Ok(());
        }
        let positions = self.lanes.positions();
        let positions = positions.into_iter().map(|(partition, offset)| Position { partition, offset }).collect();
        match timeout_at(Instant::now() + ASSIGN, self.deps.log.assign(positions)).await {
            Ok(Ok(generation)) => {
                self.generation = Some(generation);
                Ok(())
            }
            Ok(Err(e)) => Err(format!("the topic cannot be read: {e}")),
            Err(_) => Err("the topic cannot be read: no answer from the client".to_owned()),
        }
    }

    /// Lanes learn which topic it is and where it begins and ends.
    pub(super) fn listen_to_ends(&mut self) {
        let heard = self.deps.ends.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.heard, heard.clone());
        let faulty = self.lanes.faulty();
        let positions = self.lanes.positions();
        if let Some(origin) = &heard.origin
            && self.lanes.is_of(origin)
        {
            // What is in hand may have come from the other topic.
            self.lanes.rewind();
            self.batch = Batch::default();
        }
        // A reader that is behind has far more to read than it has room for, and would throw it away again and again.
        if !self.deps.events.is_empty() {
            self.lanes.are_waited_for();
        }
        // What was told before is no further silence of the partition.
        for (partition, end) in heard.partitions.into_iter().filter(|(p, end)| before.partitions.get(p) != Some(end)) {
            // What the broker said before the last commit is no news of an end below it.
            let is_old = self.moved.get(&partition).is_some_and(|moved| end.asked <= *moved);
            let stored = self.lanes.get(partition).and_then(|lane| lane.stored()).filter(|_| is_old);
            if self.lanes.heard(partition, end.earliest, stored.map_or(end.end, |stored| stored.max(end.end))) {
                self.generation = None;
            }
        }
        if self.lanes.positions() != positions {
            self.generation = None;
        }
        self.lanes.faulty().difference(&faulty).for_each(|partition| self.complain(*partition));
    }
}
