//! How it went from pass to pass: what a single look cannot tell, such as for how long the primary has been slow, that it was suspect
//! until a moment ago, or that one observer contradicts the others again and again. Pure: the time is an argument.
//!
//! Whoever calls [`plan`](crate::plan) carries it from pass to pass and forgets it with the process; nothing is lost with it
//! but a little time. Times are of the monotonic clock of that process.

use std::collections::BTreeMap;

use understudy_wire::evidence::{Millis, Phase};
use understudy_wire::{Epoch, ReplicaName};

use super::assess::{Assessment, Verdict};
use super::cut_off::{self, Way};
use super::relief;
use super::snapshot::Snapshot;
use crate::rebuild::{Progress, Standstill};
use crate::sick_standby;

/// What stopped holding and holds again within this time went on.
const FLICKER: Millis = 5_000;
/// An observer that contradicts the others for so long is suspect itself,
const CONTRADICTS_FOR: Millis = 10_000;
/// and so is one that begins to do so this often
const TURNS: usize = 3;
/// within this time.
const TURNS_WITHIN: Millis = 60_000;
/// Who contradicted others and does so again within this time went on.
const SAME_TURN: Millis = 1_000;
/// Less than this is no coming closer.
const CLOSER: Millis = 1_000;
/// What is over is told for this long.
const TOLD_FOR: Millis = 5_000;

/// What the passes until now came to.
#[derive(Clone, Debug, Default)]
pub struct Course {
    office: Option<(ReplicaName, Epoch)>,
    slow: Option<Spell>,
    /// Since when the primary's volume has been slow and a standby's has not, at every look.
    quicker: Option<Millis>,
    closed: Option<Spell>,
    partition: Option<Spell>,
    suspicion: Option<Suspicion>,
    dissent: BTreeMap<String, Dissent>,
    strays: BTreeMap<ReplicaName, Stray>,
    builds: BTreeMap<ReplicaName, Progress>,
}

/// The same, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// How long the primary has been slow, but for moments.
    pub slow_for: Millis,
    /// How long its volume has been slow while that of a standby was not, at every look.
    pub quicker_for: Millis,
    /// Whether the primary was slow within the last moments.
    pub was_slow: bool,
    /// How long no consumer has reached the primary, but for moments in which too few told. Their own failures may have begun with
    /// something else.
    pub cut_off_for: Millis,
    /// Whether some did not reach the primary within the last moments, and others saw it commit.
    pub was_partitioned: bool,
    /// A suspicion of the primary that a commit has just ended.
    pub cleared: Option<Cleared>,
    /// Observers that contradict the others, and how.
    pub dissenters: Vec<Dissenter>,
    /// How long standbys that are far behind have not come closer.
    pub stray_for: BTreeMap<ReplicaName, Millis>,
    /// How long replicas that are filled or start have come no further.
    pub standstill: BTreeMap<ReplicaName, Standstill>,
}

/// A suspicion that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// What was suspected, as the verdict has it.
    pub state: &'static str,
    /// Its cause, as a stable word.
    pub cause: &'static str,
    /// How old its first sign was when it ended.
    pub lasted: Millis,
    /// What was seen then, and by whom.
    pub message: String,
}

/// An observer that alone cannot use a primary that others see commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dissenter {
    /// Its kind and name.
    pub observer: String,
    /// How it contradicts them.
    pub dissents: Dissents,
}

/// How an observer contradicts the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dissents {
    /// Without a break for so long.
    For(Millis),
    /// It began to so often within a minute.
    Times(usize),
}

/// A standby that is far behind: how far at the closest, since when, and when that was seen last.
#[derive(Clone, Copy, Debug)]
struct Stray {
    closest: Millis,
    since: Millis,
    last: Millis,
}

/// A primary in doubt.
#[derive(Clone, Debug)]
struct Suspicion {
    worst: Cleared,
    ended: Option<Millis>,
}

/// When an observer began to contradict the others, and when it did last.
#[derive(Clone, Debug, Default)]
struct Dissent {
    turns: Vec<Millis>,
    last: Millis,
    lasts: Millis,
}

/// A time in which something held, but for moments.
#[derive(Clone, Copy, Debug)]
struct Spell {
    since: Millis,
    last: Millis,
}

impl Spell {
    fn go_on(before: Option<Self>, holds: bool, now: Millis) -> Option<Self> {
        match before.filter(|spell| spell.goes_on(now)) {
            Some(spell) if holds => Some(Self { last: now, ..spell }),
            Some(spell) => Some(spell),
            None => holds.then_some(Self { since: now, last: now }),
        }
    }

    fn goes_on(&self, now: Millis) -> bool {
        now.saturating_sub(self.last) <= FLICKER
    }
}

impl Course {
    /// Takes in what one pass saw and concluded.
    pub fn see(&mut self, s: &Snapshot, a: &Assessment, now: Millis) {
        let primary = s.status.primary.as_ref().filter(|_| s.status.transition.is_none());
        let office = primary.map(|primary| (primary.clone(), s.status.epoch));
        if office != self.office {
            // Whoever is in office, a rebuild gets on or does not.
            *self = Self { office, builds: std::mem::take(&mut self.builds), ..Self::default() };
        }
        self.slow = Spell::go_on(self.slow, a.verdict == Verdict::Slow, now);
        let is_quicker = primary.is_some_and(|primary| relief::is_slow_alone(s, primary));
        self.quicker = is_quicker.then(|| self.quicker.unwrap_or(now));
        self.partition = Spell::go_on(self.partition, a.verdict == Verdict::ObserverPartition, now);
        self.closed = match primary.map(|primary| cut_off::way(s, primary)) {
            Some(way @ (Way::Closed(_) | Way::Unknown)) => {
                Spell::go_on(self.closed, matches!(way, Way::Closed(_)), now)
            }
            Some(Way::Open) | None => None,
        };
        self.suspect(s, a, now);
        self.contradict(s, a, now);
        self.stray(s, now);
        self.build(s, now);
    }

    fn build(&mut self, s: &Snapshot, now: Millis) {
        self.builds.retain(|name, _| s.cast().any(|(member, _)| member == name));
        for (name, _) in s.cast().filter(|(name, _)| s.status.primary.as_ref() != Some(*name)) {
            let Some((server, _)) = s.fresh_report(name) else { continue };
            if let Some(progress) = Progress::go_on(self.builds.remove(name), server, now) {
                self.builds.insert(name.clone(), progress);
            }
        }
    }

    fn stray(&mut self, s: &Snapshot, now: Millis) {
        self.strays.retain(|name, stray| s.replicas.contains_key(name) && now.saturating_sub(stray.last) <= FLICKER);
        for (name, _) in s.cast().filter(|(name, _)| s.status.primary.as_ref() != Some(*name)) {
            let Some((server, age)) = s.fresh_report(name).filter(|(server, _)| server.phase == Phase::Running) else {
                continue;
            };
            let Some(distance) = sick_standby::distance(s, server, age) else {
                self.strays.remove(name);
                continue;
            };
            let stray = self.strays.entry(name.clone()).or_insert(Stray { closest: distance, since: now, last: now });
            if distance.saturating_add(CLOSER) < stray.closest {
                (stray.closest, stray.since) = (distance, now);
            }
            stray.last = now;
        }
    }

    fn suspect(&mut self, s: &Snapshot, a: &Assessment, now: Millis) {
        if let Some(cause) = a.verdict.cause() {
            let open = self.suspicion.take().filter(|suspicion| suspicion.ended.is_none());
            let worst = open.map(|suspicion| suspicion.worst).filter(|worst| worst.lasted > a.since);
            let worst = worst.unwrap_or_else(|| Cleared {
                state: a.verdict.state(),
                cause: cause.into(),
                lasted: a.since,
                message: a.message(),
            });
            self.suspicion = Some(Suspicion { worst, ended: None });
        } else if a.verdict.commits()
            && let Some(suspicion) = &mut self.suspicion
        {
            suspicion.ended.get_or_insert(now);
        }
        let is_told = |suspicion: &Suspicion| match suspicion.ended {
            None => true,
            Some(ended) => {
                now.saturating_sub(ended) <= TOLD_FOR && suspicion.worst.lasted >= s.policy.thresholds.suspect_after
            }
        };
        self.suspicion = self.suspicion.take().filter(is_told);
    }

    fn contradict(&mut self, s: &Snapshot, a: &Assessment, now: Millis) {
        if a.verdict == Verdict::ObserverPartition {
            for ballot in a.votes.iter().filter(|ballot| ballot.age >= s.policy.thresholds.suspect_after) {
                let dissent = self.dissent.entry(ballot.observer.clone()).or_default();
                if dissent.turns.is_empty() || now.saturating_sub(dissent.last) > SAME_TURN {
                    dissent.turns.push(now);
                }
                (dissent.last, dissent.lasts) = (now, ballot.age);
            }
        }
        self.dissent.retain(|_, dissent| {
            dissent.turns.retain(|turn| now.saturating_sub(*turn) <= TURNS_WITHIN);
            now.saturating_sub(dissent.last) <= TURNS_WITHIN
        });
    }

    fn dissenters(&self, now: Millis) -> Vec<Dissenter> {
        let dissents = |dissent: &Dissent| {
            let goes_on = now.saturating_sub(dissent.last) <= SAME_TURN;
            match dissent.turns.len() {
                _ if goes_on && dissent.lasts >= CONTRADICTS_FOR => Some(Dissents::For(dissent.lasts)),
                times if times >= TURNS => Some(Dissents::Times(times)),
                _ => None,
            }
        };
        let dissenter = |(observer, dissent): (&String, &Dissent)| {
            Some(Dissenter { observer: observer.clone(), dissents: dissents(dissent)? })
        };
        self.dissent.iter().filter_map(dissenter).collect()
    }

    /// What it comes to now.
    pub fn past(&self, now: Millis) -> Past {
        let cleared = self.suspicion.as_ref().filter(|suspicion| suspicion.ended.is_some());
        let goes_on = |spell: Option<Spell>| spell.is_some_and(|spell| self.office.is_some() && spell.goes_on(now));
        Past {
            slow_for: self.slow.map_or(0, |spell| spell.last - spell.since),
            quicker_for: self.quicker.map_or(0, |since| now.saturating_sub(since)),
            cut_off_for: self.closed.map_or(0, |spell| spell.last - spell.since),
            was_slow: goes_on(self.slow),
            was_partitioned: goes_on(self.partition),
            cleared: cleared.map(|suspicion| suspicion.worst.clone()),
            dissenters: self.dissenters(now),
            stray_for: self.strays.iter().map(|(name, stray)| (name.clone(), stray.last - stray.since)).collect(),
            standstill: self.builds.iter().map(|(name, build)| (name.clone(), build.standstill())).collect(),
        }
    }
}
