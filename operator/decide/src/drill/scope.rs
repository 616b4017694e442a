//! Whose primaries a run changes. Pure: what is left to chance follows from the Drill and the run.

use std::collections::BTreeSet;

use understudy_wire::ShardName;

use super::decision::{Hindrance, Rule};
use super::snapshot::{DrillSnapshot, Scope, Shard, Victim};
use crate::topology::fnv1a;

/// The primaries in the scope, by the names of their shards.
pub fn victims(s: &DrillSnapshot, run: &str) -> Result<Vec<Victim>, Hindrance> {
    let nobody = |words: String| Hindrance::new(Rule::NoVictim, words);
    let found: Vec<Victim> = match &s.policy.scope {
        Scope::Shard(name) => {
            let shard = s.shards.get(name);
            let shard = shard.ok_or_else(|| nobody(format!("the scope names Shard {name}, which is not there")))?;
            victim(s, name, shard).into_iter().collect()
        }
        Scope::Random => {
            let names: Vec<_> = s.shards.keys().collect();
            let chosen = by_chance(&names, s, run).and_then(|name| s.shards.get_key_value(*name));
            chosen.and_then(|(name, shard)| victim(s, name, shard)).into_iter().collect()
        }
        Scope::Node(name) => within(s, name.as_deref(), run, |shard| shard.node.as_deref()),
        Scope::Zone(name) => within(s, name.as_deref(), run, |shard| shard.zone.as_deref()),
    };
    if found.is_empty() {
        let words = match &s.policy.scope {
            Scope::Node(Some(name)) => format!("no primary runs on node {name}"),
            Scope::Zone(Some(name)) => format!("no primary runs in zone {name}"),
            Scope::Zone(None) => {
                "no primary runs on a node that has a zone (label topology.kubernetes.io/zone)".to_owned()
            }
            Scope::Shard(_) | Scope::Node(None) | Scope::Random => "there is no primary to change".to_owned(),
        };
        return Err(nobody(words));
    }
    Ok(found)
}

/// The primaries in one place: in this one, or in one of those that hold any.
fn within(s: &DrillSnapshot, named: Option<&str>, run: &str, place: impl Fn(&Shard) -> Option<&str>) -> Vec<Victim> {
    let serving = || s.shards.iter().filter(|(_, shard)| shard.primary.is_some());
    let places: BTreeSet<_> = serving().filter_map(|(_, shard)| place(shard)).collect();
    let places: Vec<_> = places.into_iter().collect();
    let Some(chosen) = named.or_else(|| by_chance(&places, s, run).copied()) else { return Vec::new() };
    let there = serving().filter(|(_, shard)| place(shard) == Some(chosen));
    there.filter_map(|(name, shard)| victim(s, name, shard)).collect()
}

fn victim(s: &DrillSnapshot, name: &ShardName, shard: &Shard) -> Option<Victim> {
    let replica = shard.primary.clone()?;
    Some(Victim {
        shard: name.clone(),
        restarts: s.pods.get(&replica).copied(),
        replica,
        epoch: shard.epoch,
        node: shard.node.clone(),
        struck_at: None,
        error: None,
        released_at: None,
    })
}

/// The same one for the same run, whoever asks.
fn by_chance<'a, T>(all: &'a [T], s: &DrillSnapshot, run: &str) -> Option<&'a T> {
    let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
    let place = fnv1a(format!("{}/{run}", s.uid).as_bytes()) % count;
    all.get(usize::try_from(place).ok()?)
}
