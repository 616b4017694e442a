//! How it went from pass to pass: what a single look cannot tell, such as for how long the primary has been slow. Pure: the time
//! is an argument.
//!
//! Whoever calls [`plan`](crate::plan) carries it from pass to pass and forgets it with the process; nothing is lost with it
//! but a little time. Times are of the monotonic clock of that process.

use understudy_wire::evidence::Millis;
use understudy_wire::{Epoch, ReplicaName};

use super::assess::{Assessment, Verdict};
use super::snapshot::Snapshot;

/// What stopped holding and holds again within this time went on.
const FLICKER: Millis = 5_000;

/// What the passes until now came to.
#[derive(Clone, Debug, Default)]
pub struct Course {
    office: Option<(ReplicaName, Epoch)>,
    slow: Option<Spell>,
}

/// The same, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// How long the primary has been slow, but for moments.
    pub slow_for: Millis,
}

/// A time in which something held, but for moments.
#[derive(Clone, Copy, Debug)]
struct Spell {
    since: Millis,
    last: Millis,
}

impl Spell {
    fn go_on(before: Option<Self>, holds: bool, now: Millis) -> Option<Self> {
        match before.filter(|spell| now.saturating_sub(spell.last) <= FLICKER) {
            Some(spell) if holds => Some(Self { last: now, ..spell }),
            Some(spell) => Some(spell),
            None => holds.then_some(Self { since: now, last: now }),
        }
    }
}

impl Course {
    /// Takes in what one pass saw and concluded.
    pub fn see(&mut self, s: &Snapshot, a: &Assessment, now: Millis) {
        let primary = s.status.primary.as_ref().filter(|_| s.status.transition.is_none());
        let office = primary.map(|primary| (primary.clone(), s.status.epoch));
        if office != self.office {
            *self = Self { office, ..Self::default() };
        }
        self.slow = Spell::go_on(self.slow, a.verdict == Verdict::Slow, now);
    }

    /// What it comes to now.
    pub fn past(&self) -> Past {
        Past { slow_for: self.slow.map_or(0, |spell| spell.last - spell.since) }
    }
}
