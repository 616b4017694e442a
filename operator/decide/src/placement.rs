//! Where new replicas may go. Pure: constraints for the scheduler, which does the placing.
//!
//! The pods of a shard keep apart from each other by themselves (anti-affinity and spreading, in the pod). What only the
//! operator knows is which nodes are lost before Kubernetes says so.

use std::collections::BTreeSet;

use jiff::Timestamp;
use understudy_wire::ReplicaName;

use crate::decision::Sentence;
use crate::failover::snapshot::{Replica, Snapshot};

/// Nodes that the replacement of `replaced` must not be placed on.
///
/// A node that nobody hears of is avoided without regard to what is left: nothing would run there. A node whose server only
/// died is avoided as long as there is another free one.
pub fn avoid(s: &Snapshot, replaced: Option<(&ReplicaName, &Replica)>) -> Vec<String> {
    let mut avoid: BTreeSet<String> = silent_nodes(s);
    if let Some((_, replica)) = replaced
        && let Some(condemned) = &replica.condemned
        && let Some(node) = &condemned.node
    {
        let occupied: BTreeSet<_> = s.cast().filter_map(|(name, _)| s.node_of(name)).collect();
        let free = |name: &str| name != node && !occupied.contains(name) && !avoid.contains(name);
        let others = s.nodes.iter().filter(|(name, facts)| facts.schedulable && free(name)).count();
        if others > 0 {
            avoid.insert(node.clone());
        }
    }
    avoid.into_iter().collect()
}

/// After so many seconds Kubernetes' own word on a node counts: it calls a lost one unready within 50.
const KUBERNETES_KNOWS: i64 = 300;
/// What a kubelet said sooner than this many seconds after the loss may be from before it, as their clocks differ. One that starts
/// speaks at once, one at work every 5 minutes.
const CLOCKS: i64 = 10;

/// Whether a node on which a replica was lost is back: its kubelet has spoken since, or Kubernetes never came to miss it.
fn is_back(s: &Snapshot, node: &str, lost: Option<Timestamp>) -> bool {
    let Some(ready) = s.nodes.get(node).and_then(|facts| facts.ready_at) else { return false };
    let since = |from: Timestamp, to: Timestamp| to.as_second().saturating_sub(from.as_second());
    lost.is_none_or(|lost| since(lost, ready) >= CLOCKS || since(lost, s.now) >= KUBERNETES_KNOWS)
}

/// Nodes on which a replica of this shard fell silent or was lost, which are not back, and on which none is heard now.
fn silent_nodes(s: &Snapshot) -> BTreeSet<String> {
    let t = &s.policy.thresholds;
    let mut silent = BTreeSet::new();
    let mut heard = BTreeSet::new();
    for (name, replica) in &s.replicas {
        let here = s.node_of(name);
        match &replica.condemned {
            Some(condemned) if Sentence::was_lost(&condemned.reason) => {
                let node = here.or(condemned.node.as_deref()).filter(|node| !is_back(s, node, condemned.at));
                silent.extend(node.map(ToOwned::to_owned));
            }
            // Its pod was taken away: its silence says nothing of the node.
            Some(_) => {}
            None => match s.own_report(name) {
                Some((_, age)) if age > t.fresh + t.gone_after => silent.extend(here.map(ToOwned::to_owned)),
                Some(_) => heard.extend(here.map(ToOwned::to_owned)),
                None => {}
            },
        }
    }
    &silent - &heard
}
