//! What is needed before a fault: for all rows a cooldown that is off and a lab that nothing is wrong with, for some primaries on one node
//! or another one in office, standbys that are behind, or an operator that stands still. I/O.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::statvfs;
use serde_json::{Value, json};

use super::super::install::NAMESPACE;
use super::super::store::Store;
use super::eyes::Eyes;
use super::rows::{Aim, Fault};
use super::seen::{Place, Seen};
use super::sql::ask;
use super::strike::{Strike, Victim, heal};
use crate::paths::Paths;
use crate::progress::Ui;
use crate::{fault, run, volume};

/// The instance of the operator that acts, standing still.
const STILL: Fault = Fault { kind: "freeze-pod", args: &[], aim: Aim::Operator };
/// For how long: longer than another one takes to be sure of it and to act.
const STILL_FOR: Duration = Duration::from_secs(30);
/// The Lease of the operator.
const LEASE: &str = "understudy";
/// How long a fault may take to be in force.
pub const LANDS_WITHIN: Duration = Duration::from_secs(120);
/// How long a switchover that was asked for may take.
const SWITCHED_WITHIN: Duration = Duration::from_secs(60);

/// For how long the volumes of condemned replicas are kept while faults follow each other: a look at the last one's.
const KEPT_S: u64 = 120;

/// What a Datastore's shards hold on to after a fault, given up for as long as this lives. The cooldown keeps SOFT evidence from acting
/// for minutes, and the next run would show neither a failover that must come nor one that must not. Eight volumes in quarantine keep a
/// ninth sick standby in its place.
#[derive(Debug)]
pub struct InARow<'a> {
    store: &'a Store<'a>,
    before: Value,
}

impl<'a> InARow<'a> {
    /// Gives it up.
    pub fn begin(store: &'a Store<'a>) -> Result<Self> {
        let datastore = store.access.find(&store.namespace, "datastore", &store.name)?;
        let datastore = datastore.with_context(|| format!("there is no Datastore {}", store.name))?;
        let this = Self { store, before: before(&datastore["spec"]["shardTemplate"]["failover"]) };
        this.set(&in_a_row())?;
        Ok(this)
    }

    fn set(&self, failover: &Value) -> Result<()> {
        let patch = json!({"spec": {"shardTemplate": {"failover": failover}}}).to_string();
        let (namespace, name) = (self.store.namespace.as_str(), self.store.name.as_str());
        let words = ["patch", "-n", namespace, "datastore", name, "--type", "merge", "-p", &patch];
        run::output(&mut self.store.access.kubectl(&words)).map(drop)
    }
}

impl Drop for InARow<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.set(&self.before) {
            eprintln!("spec.shardTemplate.failover of {} stays as it is for a bench: {error:#}", self.store.name);
        }
    }
}

fn in_a_row() -> Value {
    json!({"cooldownSeconds": 0, "quarantine": {"ttlSeconds": KEPT_S}})
}

/// What is put back. A bench that was killed put nothing back: what it left is not what was there before, and the defaults are taken.
fn before(failover: &Value) -> Value {
    let now = json!({"cooldownSeconds": failover["cooldownSeconds"], "quarantine": failover["quarantine"]});
    if now == in_a_row() { json!({"cooldownSeconds": null, "quarantine": null}) } else { now }
}

/// Takes out what earlier runs left in force. An error when something stays: what is measured then would be about that too.
pub fn clear(paths: &Paths) -> Result<()> {
    if !fault::active(paths)?.is_empty() {
        heal(paths)?;
    }
    let left: Vec<_> = fault::active(paths)?.iter().map(|fault| fault.describe()).collect();
    ensure!(left.is_empty(), "still in force, and no part of the run: {}", left.join("; "));
    Ok(())
}

/// How full the volumes of the lab's replicas are, from 0 to 1: the third of them, since a shard has three that hold the same, and one
/// alone may be full for another reason. 0 of fewer.
pub fn fullness(paths: &Paths) -> Result<f64> {
    let spaces = volume::mounts_under(&paths.volumes())?;
    let spaces = spaces.iter().filter_map(|mount| statvfs(mount.as_path()).ok());
    Ok(third(spaces.map(|space| 1.0 - space.f_bavail as f64 / space.f_blocks.max(1) as f64).collect()))
}

/// The third from above. Pure.
fn third(mut used: Vec<f64>) -> f64 {
    used.sort_by(f64::total_cmp);
    used.into_iter().rev().nth(2).unwrap_or(0.0)
}

/// When the instance of the operator that acts said so last, by its own clock; None when there is none.
pub fn acted(store: &Store<'_>) -> Result<Option<String>> {
    let lease = store.access.find(NAMESPACE, "lease", LEASE)?;
    Ok(lease.and_then(|lease| lease["spec"]["renewTime"].as_str().map(str::to_owned)))
}

/// Asks for a switchover by an object, as a person would. `target` may be left to the operator.
pub fn ask_for_switchover(store: &Store<'_>, shard: &str, epoch: i64, target: Option<&str>) -> Result<()> {
    let mut spec = json!({"shard": shard, "kind": "Switchover", "reason": "cargo lab bench"});
    if let Some(target) = target {
        spec["target"] = json!(target);
    }
    // One that was refused left the epoch as it was, and its object.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let request = json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
        "metadata": {"name": format!("bench-{shard}-{}-{}", epoch + 1, now.as_secs())}, "spec": spec,
    });
    store.access.apply(&store.namespace, &request.to_string())
}

/// Brings as many primaries as can be to one node, by switchovers; the shards whose primaries are there then.
pub fn gather(store: &Store<'_>, ui: &Ui, shards: &[String]) -> Result<Vec<String>> {
    let mut eyes = Eyes::open(store, shards.to_vec())?;
    let Some((node, there)) = meeting_point(&eyes.seen) else { bail!("no replica has a node") };
    ensure!(
        there.len() > 1,
        "no node has replicas of two shards: name a Datastore with more shards, or more replicas, with --datastore"
    );
    for (shard, replica) in &there {
        if eyes.seen.primary(shard) == replica {
            continue;
        }
        ui.say(&format!("  bring the primary of {shard} to {node}: {replica}"));
        switch(store, &mut eyes, shard, Some(replica))?;
    }
    Ok(there.into_keys().collect())
}

/// Has a shard hand over to whom the operator takes.
pub fn hand_over(store: &Store<'_>, ui: &Ui, shards: &[String], shard: &str) -> Result<()> {
    ui.say(&format!("  have {shard} hand over first"));
    switch(store, &mut Eyes::open(store, shards.to_vec())?, shard, None)
}

/// Asks for a switchover, and waits until it is over and everything is there.
fn switch(store: &Store<'_>, eyes: &mut Eyes<'_>, shard: &str, target: Option<&str>) -> Result<()> {
    let epoch = eyes.seen.epochs().get(shard).copied().unwrap_or(0);
    let before = eyes.seen.primary(shard).to_owned();
    ask_for_switchover(store, shard, epoch, target)?;
    let is_it = |primary: &str| target.map_or(primary != before, |target| primary == target);
    let end = Instant::now() + SWITCHED_WITHIN;
    let is_over = eyes.watch(end, |seen| Ok(is_it(seen.primary(shard)) && seen.is_whole()))?;
    let to = target.unwrap_or("another replica");
    ensure!(is_over, "{shard} did not hand over to {to} within {} s", SWITCHED_WITHIN.as_secs());
    Ok(())
}

/// The node with replicas of most shards, and of each shard the replica there. Of several such nodes, the first by name.
fn meeting_point(seen: &Seen) -> Option<(String, BTreeMap<String, String>)> {
    let mut nodes: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for shard in seen.names() {
        for Place { name, node, .. } in seen.replicas(shard) {
            if !node.is_empty() {
                nodes.entry(node).or_default().insert(shard.clone(), name);
            }
        }
    }
    let most = nodes.values().map(BTreeMap::len).max()?;
    nodes.into_iter().find(|(_, shards)| shards.len() == most)
}

/// Lets the standbys of a shard fall behind for so long: what they receive stays unapplied. They go on by themselves afterwards, or are
/// told to by a promotion.
pub fn lag(store: &Store<'_>, eyes: &mut Eyes<'_>, victim: &Victim, time: Duration) -> Result<()> {
    let places = eyes.seen.replicas(&victim.shard);
    let standbys: Vec<_> = places.into_iter().map(|place| place.name).filter(|name| *name != victim.primary).collect();
    ensure!(!standbys.is_empty(), "{} has no standby", victim.shard);
    let end = Instant::now() + time;
    // The operator may tell one to follow again, which starts its applier: so it is stopped once more.
    while Instant::now() < end {
        for standby in &standbys {
            ask(store, &victim.shard, standby, "STOP REPLICA SQL_THREAD")?;
        }
        eyes.pass(Duration::from_secs(2))?;
    }
    Ok(())
}

/// Makes the operator that acts stand still; it goes on when the time is over, or the value is dropped and `heal` was run.
pub fn pause_operator(paths: &Paths, eyes: &mut Eyes<'_>, victim: &Victim) -> Result<Strike> {
    let mut strike = Strike::start(paths, &STILL, victim, STILL_FOR)?;
    let landed = eyes.watch(Instant::now() + LANDS_WITHIN, |_| Ok(strike.landed()?.is_some()))?;
    ensure!(landed, "the operator does not stand still");
    Ok(strike)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(name: &str, nodes: &[&str]) -> Value {
        let replica = |node: &&str| json!({"name": format!("{name}-{node}"), "role": "standby", "node": node});
        let replicas: Vec<_> = nodes.iter().map(replica).collect();
        json!({"kind": "Shard", "metadata": {"name": name}, "status": {"replicas": replicas}})
    }

    #[test]
    fn what_a_bench_that_was_killed_left_is_not_put_back_by_the_next_one() {
        let defaults = json!({"cooldownSeconds": null, "quarantine": null});
        let own = json!({"cooldownSeconds": 0, "quarantine": {"ttlSeconds": 3600}});
        for (case, there, expected) in [
            ("nothing was said", json!({"mode": "Automatic"}), defaults.clone()),
            ("somebody's own", own.clone(), own),
            ("left behind", in_a_row(), defaults),
        ] {
            assert_eq!(before(&there), expected, "{case}");
        }
    }

    #[test]
    fn volumes_are_as_full_as_the_third_of_them() {
        for (case, used, expected) in [
            ("one was filled", vec![0.2, 1.0, 0.1, 0.2, 0.3, 0.1], 0.2),
            ("a shard is full", vec![0.8, 0.2, 0.82, 0.2, 0.81, 0.2], 0.8),
            ("hardly any is there", vec![0.9, 0.9], 0.0),
        ] {
            assert_eq!(third(used), expected, "{case}");
        }
    }

    #[test]
    fn primaries_meet_where_most_shards_have_a_replica() {
        let mut seen = Seen::of(["s-0", "s-1", "s-2"].map(str::to_owned));
        for object in [shard("s-0", &["n1", "n2"]), shard("s-1", &["n2", "n3"]), shard("s-2", &["n3", "n4"])] {
            seen.take(&object, Instant::now());
        }
        let there = BTreeMap::from([("s-0", "s-0-n2"), ("s-1", "s-1-n2")].map(|(s, r)| (s.to_owned(), r.to_owned())));
        assert_eq!(meeting_point(&seen), Some(("n2".to_owned(), there)));
        assert_eq!(meeting_point(&Seen::of(["s-0".to_owned()])), None);
    }
}
