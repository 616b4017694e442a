//! A primary that works and that those who write to the shard do not reach. Pure.
//!
//! Its manager, the standbys and the operator see it commit, so nobody would ever call it dead, and nothing is stored in it all the
//! same. Consumers are the only ones who write, so what they say of the way there is enough for a planned change, and for no more.

use std::collections::BTreeMap;

use understudy_wire::evidence::{Millis, Stage};
use understudy_wire::{Observer, ReplicaName};

use super::snapshot::Snapshot;
use super::testimony::{Abstention, Accusation, Case, Domain, Testimony};

/// One that has never reached the primary is believed that it does not once that has lasted for so long; milliseconds. The network of a pod that
/// was just started may still be set up, and its policies with it.
const NEWCOMER: Millis = 30_000;

/// The way from those who write to a shard to its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One of them reaches it.
    Open,
    /// None does, from two nodes at least. So long have their attempts failed: in the end on the way there, at first perhaps otherwise.
    Closed(Millis),
    /// Too few say so.
    Unknown,
}

/// How the way to the primary looks now.
pub(crate) fn way(s: &Snapshot, primary: &ReplicaName) -> Way {
    let case = Case::hear(s, primary);
    let mut nodes = BTreeMap::<&str, Millis>::new();
    for testimony in case.testimonies.iter().filter(|t| has_a_voice(t, case.thresholds.fresh)) {
        let Some(accusation) = testimony.accuses.as_ref().filter(|accusation| is_on_the_way(accusation)) else {
            return Way::Open;
        };
        if let Domain::Node(node) = &testimony.domain {
            let longest = nodes.entry(node).or_default();
            *longest = accusation.since.max(*longest);
        }
    }
    let mut since: Vec<_> = nodes.into_values().collect();
    since.sort_unstable_by(|a, b| b.cmp(a));
    since.get(1).map_or(Way::Unknown, |since| Way::Closed(*since))
}

/// A consumer that was heard a moment ago, was not paused itself, and is no newcomer that may still come through.
fn has_a_voice(testimony: &Testimony, fresh: Millis) -> bool {
    let is_away = matches!(testimony.abstains, Some(Abstention::Stale | Abstention::SelfSuspect));
    matches!(testimony.observer, Observer::Consumer { .. })
        && testimony.heard <= fresh
        && !is_away
        && !is_new(testimony)
}

fn is_new(testimony: &Testimony) -> bool {
    let may_come = |accusation: &Accusation| is_on_the_way(accusation) && accusation.since < NEWCOMER;
    !testimony.was_answered && testimony.abstains.is_none() && testimony.accuses.as_ref().is_none_or(may_come)
}

/// Nothing came back of the connection. Who was greeted reached the server.
fn is_on_the_way(accusation: &Accusation) -> bool {
    accusation.stage == Stage::Tcp
}
