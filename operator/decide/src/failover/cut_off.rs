//! A primary that works and that those who write to the shard do not reach. Pure.
//!
//! Its manager, the standbys and the operator see it commit, so nobody would ever call it dead, and nothing is stored in it all the
//! same. Consumers are the only ones who write, so what they say of the way there is enough for a planned change, and for no more.

use std::collections::BTreeMap;

use understudy_wire::evidence::{Millis, Stage};
use understudy_wire::{Observer, ReplicaName};

use super::snapshot::Snapshot;
use super::testimony::{Abstention, Accusation, Case, Domain, Testimony};

/// For how long no consumer has reached it, from two nodes at least; None: one does, or too few say so.
pub(crate) fn lasted(s: &Snapshot, primary: &ReplicaName) -> Option<Millis> {
    let case = Case::hear(s, primary);
    let mut nodes = BTreeMap::<&str, Millis>::new();
    for testimony in case.testimonies.iter().filter(|t| has_a_voice(t, case.thresholds.fresh)) {
        let since = testimony.accuses.as_ref().filter(|accusation| is_on_the_way(accusation))?.since;
        if let Domain::Node(node) = &testimony.domain {
            let longest = nodes.entry(node).or_default();
            *longest = since.max(*longest);
        }
    }
    let mut since: Vec<_> = nodes.into_values().collect();
    since.sort_unstable_by(|a, b| b.cmp(a));
    since.get(1).copied()
}

/// A consumer that was heard a moment ago and was not paused itself.
fn has_a_voice(testimony: &Testimony, fresh: Millis) -> bool {
    let is_away = matches!(testimony.abstains, Some(Abstention::Stale | Abstention::SelfSuspect));
    matches!(testimony.observer, Observer::Consumer { .. }) && testimony.heard <= fresh && !is_away
}

/// Nothing came back of the connection. Who was greeted reached the server.
fn is_on_the_way(accusation: &Accusation) -> bool {
    accusation.stage == Stage::Tcp
}
