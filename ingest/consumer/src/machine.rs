//! What a consumer does next: from no route to owner of a shard's data and back. Pure; the clock is an argument.
//!
//! ```text
//!   Idle --route--> Claiming --owner--> Running <--> Paused, Stuck
//!     ^                ^                   |
//!     +---no route-----+------ Fenced <----+  epoch or owner differ, connection lost, route changed
//! ```
//!
//! The driver executes one [`Step`] at a time and tells how it ended. It may drop a step half way, when the route changes or the process
//! shall stop: whatever the step had done then, the rows in the shard decide what counts.

use understudy_sql::StepError;
use understudy_wire::Epoch;
use understudy_wire::evidence::Millis;

use crate::guard::{Fenced, Guard, OwnerId, OwnerRow, Presence, Survey, Term, check_epoch};
use crate::route::Route;

/// Times that the machine keeps, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// An owner whose beat stands still for this long is taken to be gone.
    pub takeover: Millis,
    /// The same for an owner that is not connected to the server all that while.
    pub absent: Millis,
    /// How often somebody else's ownership is looked at. A challenger that itself paused for four times this starts counting anew.
    pub look: Millis,
    /// How often a server of another epoch is asked again.
    pub fenced_look: Millis,
    /// First and longest pause between attempts to connect.
    pub reconnect: (Millis, Millis),
    /// First and longest pause after the view could not apply its records.
    pub hold: (Millis, Millis),
}

impl Default for Times {
    fn default() -> Self {
        Self { takeover: 3000, absent: 1000, look: 250, fenced_look: 100, reconnect: (50, 500), hold: (500, 30_000) }
    }
}

/// What a consumer is doing, for people and metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// There is no route to follow.
    Idle,
    /// It looks for a way to become, or waits to become, the owner.
    Claiming {
        /// Who owns the data now; None while that is not known.
        owner: Option<String>,
    },
    /// It applies records.
    Running,
    /// It is the owner and was told not to read.
    Paused,
    /// It may not write where it is; why.
    Fenced(Fenced),
    /// It cannot reach or use the primary; why.
    Cut(StepError),
    /// It is the owner and cannot apply its records; why.
    Stuck(String),
    /// It has given up what it held.
    Stopped,
}

impl State {
    /// A word from a closed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Claiming { .. } => "Claiming",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Fenced(_) => "Fenced",
            Self::Cut(_) => "Cut",
            Self::Stuck(_) => "Stuck",
            Self::Stopped => "Stopped",
        }
    }
}

/// What the driver is to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time, or before something happens.
    Rest(Option<Millis>),
    /// Connect to the primary of the route.
    Open(Route),
    /// Read the epoch and the owner row, and whether the owner is connected. Answer: [`Machine::surveyed`].
    Survey,
    /// Compare and set the owner row, if it still is as seen. Answer: [`Machine::claimed`].
    Claim {
        /// The row as it must be.
        seen: OwnerRow,
        /// The epoch that the server must have.
        epoch: Epoch,
    },
    /// Read the stored offsets and bring the log there. Answer: [`Machine::loaded`].
    Load(Guard),
    /// Gather and commit a batch, or a canary when there is none, or `canary_only` while the view is on hold.
    /// Answer: [`Machine::worked`].
    Work {
        /// What each transaction must find.
        guard: Guard,
        /// The view is on hold until this time.
        hold: Option<Millis>,
    },
    /// Give up the connection, whatever it is doing.
    Close,
    /// Make the owner row free for others, then close.
    Release(Guard),
    /// It is over.
    End,
}

/// How a piece of work ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Worked {
    /// A batch was committed.
    Batch,
    /// Nothing but the beat, or nothing at all.
    Canary,
    /// The rows say no.
    Fenced(Fenced),
    /// The stored offsets are not those that this process left, or the placement changed: they must be read again.
    Reload,
    /// The view, or the dead letters, cannot take the batch; the server is well.
    Held(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection; none before this time.
    Closed(Millis),
    /// Connected, and to look at the rows at this time.
    Look(Millis),
    /// Nobody else can be the owner any more.
    Claim(OwnerRow),
    Load,
    Work,
    /// The connection must be given up first.
    Drop,
    Stopped,
}

/// Somebody else's row, since when it stands still, when it was last seen to, and since when its owner is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    row: OwnerRow,
    since: Millis,
    seen: Millis,
    absent: Option<Millis>,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Machine {
    times: Times,
    owner: OwnerId,
    paused: bool,
    stopping: bool,
    route: Option<Route>,
    phase: Phase,
    term: Option<Term>,
    watched: Option<Watched>,
    failures: u32,
    holds: u32,
    hold: Option<(Millis, String)>,
    fenced: Option<Fenced>,
    cut: Option<StepError>,
}

impl Machine {
    /// A process without a route.
    pub fn new(owner: OwnerId, times: Times, paused: bool) -> Self {
        Self {
            times,
            owner,
            paused,
            stopping: false,
            route: None,
            phase: Phase::Closed(0),
            term: None,
            watched: None,
            failures: 0,
            holds: 0,
            hold: None,
            fenced: None,
            cut: None,
        }
    }

    /// What to do now.
    pub fn step(&self, now: Millis) -> Step {
        match (&self.phase, &self.route) {
            (Phase::Stopped, _) => Step::End,
            (Phase::Drop, _) => Step::Close,
            (Phase::Closed(_), _) if self.stopping => Step::End,
            (Phase::Work | Phase::Load, Some(route)) if self.stopping => match self.guard(route) {
                Some(guard) => Step::Release(guard),
                None => Step::Close,
            },
            (_, _) if self.stopping => Step::Close,
            (Phase::Closed(_), None) => Step::Rest(None),
            (_, None) => Step::Close,
            (Phase::Closed(at) | Phase::Look(at), _) if *at > now => Step::Rest(Some(*at)),
            (Phase::Closed(_), Some(route)) => Step::Open(route.clone()),
            (Phase::Look(_), _) => Step::Survey,
            (Phase::Claim(seen), Some(route)) => Step::Claim { seen: seen.clone(), epoch: route.epoch },
            (Phase::Load, Some(route)) => self.guard(route).map_or(Step::Survey, Step::Load),
            (Phase::Work, Some(route)) => match self.guard(route) {
                Some(guard) => {
                    let hold = self.hold.as_ref().map(|(until, _)| *until).filter(|until| *until > now);
                    Step::Work { guard, hold }
                }
                None => Step::Survey,
            },
        }
    }

    /// For people.
    pub fn state(&self) -> State {
        match (&self.phase, &self.fenced, &self.cut, &self.hold) {
            (Phase::Stopped, ..) => State::Stopped,
            _ if self.route.is_none() => State::Idle,
            (_, _, Some(cut), _) => State::Cut(cut.clone()),
            (_, Some(fenced), ..) => State::Fenced(fenced.clone()),
            (Phase::Work, _, _, Some((_, why))) => State::Stuck(why.clone()),
            (Phase::Work | Phase::Load, ..) if self.paused => State::Paused,
            (Phase::Work | Phase::Load, ..) => State::Running,
            _ => State::Claiming { owner: self.watched.as_ref().map(|w| w.row.owner.clone()) },
        }
    }

    /// The term it holds, as far as it knows.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// The route it follows.
    pub fn present_route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    /// The route to follow from now on. Whether a step under way must be dropped.
    pub fn follow(&mut self, route: Option<Route>, now: Millis) -> bool {
        if self.route == route {
            return false;
        }
        self.route = route;
        (self.watched, self.fenced, self.cut, self.failures) = (None, None, None, 0);
        self.phase = match self.phase {
            Phase::Closed(_) => Phase::Closed(now),
            Phase::Stopped => Phase::Stopped,
            _ => Phase::Drop,
        };
        true
    }

    /// The process shall end.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The connection is open.
    pub fn opened(&mut self, now: Millis) {
        self.phase = Phase::Look(now);
    }

    /// The connection is given up.
    pub fn closed(&mut self, now: Millis) {
        self.phase = Phase::Closed(now + self.pause());
    }

    /// The row was made free, or that could not be done: over in any case.
    pub fn released(&mut self) {
        self.phase = Phase::Stopped;
    }

    /// A step failed; the connection is of no more use.
    pub fn failed(&mut self, error: StepError) {
        self.failures = self.failures.saturating_add(1);
        self.cut = Some(error);
        self.phase = Phase::Drop;
    }

    /// The server takes no writes, and the connection is well: it is kept, as the server was told to stop, or will be told to serve.
    pub fn refused(&mut self, error: StepError, now: Millis) {
        self.cut = Some(error);
        self.phase = Phase::Look(now + self.times.look);
    }

    /// What the server says.
    pub fn surveyed(&mut self, survey: Survey, now: Millis) {
        let Some(route) = &self.route else { return };
        self.cut = None;
        if let Err(fenced) = check_epoch(route.epoch, survey.epoch) {
            (self.fenced, self.watched) = (Some(fenced), None);
            self.phase = Phase::Look(now + self.times.fenced_look);
            return;
        }
        let row = survey.owner.unwrap_or_default();
        if row.owner == self.owner.as_str() && Some(row.term) == self.term {
            (self.phase, self.fenced) = (Phase::Load, None);
        } else if row.owner.is_empty()
            || row.owner == self.owner.as_str()
            || self.stands_still(&row, survey.presence, now)
        {
            self.phase = Phase::Claim(row);
        } else {
            self.phase = Phase::Look(now + self.times.look);
            self.fenced = None;
        }
    }

    /// Whether somebody else's row has stood still for long enough under this process's own eyes.
    fn stands_still(&mut self, row: &OwnerRow, presence: Presence, now: Millis) -> bool {
        let blind = 4 * self.times.look;
        let watched = match &mut self.watched {
            Some(watched) if watched.row == *row && now.saturating_sub(watched.seen) <= blind => watched,
            other => other.insert(Watched { row: row.clone(), since: now, seen: now, absent: None }),
        };
        watched.seen = now;
        watched.absent = match presence {
            Presence::Connected => None,
            Presence::Absent => watched.absent.or(Some(now)),
        };
        let lasts = |since: Millis, limit: Millis| now.saturating_sub(since) >= limit;
        lasts(watched.since, self.times.takeover) || watched.absent.is_some_and(|since| lasts(since, self.times.absent))
    }

    /// Whether the row was taken, and in which term.
    pub fn claimed(&mut self, outcome: Result<Option<Term>, Fenced>, now: Millis) {
        match outcome {
            Ok(Some(term)) => {
                (self.term, self.watched, self.fenced) = (Some(term), None, None);
                self.phase = Phase::Load;
            }
            Ok(None) => self.phase = Phase::Look(now),
            Err(fenced) => self.fence(fenced, now),
        }
    }

    /// The log stands where the rows say, or cannot be brought there for this reason.
    pub fn loaded(&mut self, outcome: Result<(), String>, now: Millis) {
        (self.fenced, self.cut, self.failures) = (None, None, 0);
        self.phase = Phase::Work;
        match outcome {
            Ok(()) => self.unhold(),
            // The next piece of work begins with reading the offsets again.
            Err(why) => {
                self.put_on_hold(why, now);
            }
        }
    }

    /// How a piece of work ended.
    pub fn worked(&mut self, outcome: Worked, now: Millis) {
        self.cut = None;
        self.failures = 0;
        match outcome {
            Worked::Batch => self.unhold(),
            Worked::Canary => {}
            Worked::Fenced(fenced) => self.fence(fenced, now),
            Worked::Reload => self.phase = Phase::Load,
            Worked::Held(why) => self.put_on_hold(why, now),
        }
    }

    fn fence(&mut self, fenced: Fenced, now: Millis) {
        self.fenced = Some(fenced);
        self.phase = Phase::Look(now);
    }

    fn put_on_hold(&mut self, why: String, now: Millis) {
        let pause = grown(self.times.hold, self.holds);
        self.holds = self.holds.saturating_add(1);
        self.hold = Some((now + pause, why));
    }

    fn unhold(&mut self) {
        (self.hold, self.holds) = (None, 0);
    }

    fn pause(&self) -> Millis {
        match self.failures {
            0 => 0,
            failures => grown(self.times.reconnect, failures - 1),
        }
    }

    fn guard(&self, route: &Route) -> Option<Guard> {
        Some(Guard { owner: self.owner.clone(), term: self.term?, epoch: route.epoch })
    }
}

fn grown((first, most): (Millis, Millis), times: u32) -> Millis {
    first.saturating_mul(1 << times.min(16)).min(most)
}

#[cfg(test)]
mod tests;
