//! What the shards look like together, so that a cause they share is not taken for many deaths. Pure, but for the lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use understudy_decide::failover::snapshot::{Fleet, Snapshot};
use understudy_decide::{Decision, Step, Verdict, pace};

/// Shards that became suspect within this time count together.
const TOGETHER: Duration = Duration::from_secs(60);

/// How one shard stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    has_primary: bool,
    is_suspect: bool,
    is_slow: bool,
    is_partitioned: bool,
    managers: usize,
    silent: usize,
    replicas: usize,
    rebuilding: usize,
    /// The nodes on which its volumes are being filled.
    filling: Vec<String>,
}

impl Standing {
    /// From what was seen and concluded.
    pub fn of(snapshot: &Snapshot, decision: &Decision) -> Self {
        // Those that are about to be made count from now on: the next shard decides a moment later.
        let begun = decision.steps.iter().map(|step| match step {
            Step::Grow { replicas, .. } => replicas.iter().filter(|new| new.replaces.is_some()).count(),
            _ => 0,
        });
        let heard: Vec<_> = snapshot.cast().filter(|(name, _)| snapshot.own_report(name).is_some()).collect();
        Self {
            has_primary: snapshot.status.primary.is_some(),
            is_suspect: matches!(
                decision.assessment.verdict,
                Verdict::Suspect(_) | Verdict::Stuck(_) | Verdict::Gone(_)
            ),
            // But for moments, or a shared cause would be none whenever the others' last commits happened to be quick, or those who do not
            // reach them to be between two attempts.
            is_slow: decision.assessment.verdict == Verdict::Slow || snapshot.memory.past.was_slow,
            is_partitioned: decision.assessment.verdict == Verdict::ObserverPartition
                || snapshot.memory.past.was_partitioned,
            managers: heard.len(),
            replicas: snapshot.cast().count(),
            rebuilding: pace::rebuilding(snapshot) + begun.sum::<usize>(),
            filling: snapshot
                .cast()
                .filter(|(name, _)| pace::is_filling(snapshot, name))
                .filter_map(|(name, _)| snapshot.node_of(name).map(ToOwned::to_owned))
                .collect(),
            silent: heard.iter().filter(|(name, _)| snapshot.fresh_report(name).is_none()).count(),
        }
    }
}

#[derive(Default)]
struct Member {
    standing: Standing,
    suspect_since: Option<Instant>,
}

/// All shards that this operator looks after.
#[derive(Clone, Default)]
pub struct Company(Arc<Mutex<HashMap<(String, String), Member>>>);

impl Company {
    /// How a shard stands now.
    pub fn stand(&self, namespace: &str, shard: &str, standing: Standing, now: Instant) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let member = members.entry((namespace.to_owned(), shard.to_owned())).or_default();
        member.suspect_since = if standing.is_suspect { member.suspect_since.or(Some(now)) } else { None };
        member.standing = standing;
    }

    /// A shard is gone.
    pub fn leave(&self, namespace: &str, shard: &str) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.remove(&(namespace.to_owned(), shard.to_owned()));
    }

    /// All of them together.
    pub fn fleet(&self, now: Instant) -> Fleet {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |member: &&Member| {
            member.suspect_since.is_some_and(|since| now.saturating_duration_since(since) < TOGETHER)
        };
        let mut filling = BTreeMap::<String, usize>::new();
        for node in members.values().flat_map(|member| &member.standing.filling) {
            *filling.entry(node.clone()).or_default() += 1;
        }
        Fleet {
            shards: members.values().filter(|member| member.standing.has_primary).count(),
            suspect: members.values().filter(lately).count(),
            doubtful: members.values().filter(|member| member.standing.is_suspect).count(),
            slow: members.values().filter(|member| member.standing.is_slow).count(),
            partitioned: members.values().filter(|member| member.standing.is_partitioned).count(),
            managers: members.values().map(|member| member.standing.managers).sum(),
            silent: members.values().map(|member| member.standing.silent).sum(),
            replicas: members.values().map(|member| member.standing.replicas).sum(),
            rebuilding: members.values().map(|member| member.standing.rebuilding).sum(),
            filling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_together_only_while_their_trouble_is_new() {
        let start = Instant::now();
        let company = Company::default();
        let suspect = Standing {
            has_primary: true,
            is_suspect: true,
            is_slow: false,
            is_partitioned: true,
            managers: 3,
            silent: 1,
            replicas: 3,
            rebuilding: 1,
            filling: vec!["node-1".into()],
        };
        company.stand("ns", "a", suspect.clone(), start);
        company.stand("ns", "b", Standing { is_suspect: false, is_slow: true, ..suspect.clone() }, start);
        let filling = [("node-1".to_owned(), 2)].into();
        let fleet = Fleet {
            shards: 2,
            suspect: 1,
            doubtful: 1,
            slow: 1,
            partitioned: 2,
            managers: 6,
            silent: 2,
            replicas: 6,
            rebuilding: 2,
            filling,
        };
        assert_eq!(company.fleet(start), fleet);
        company.stand("ns", "a", suspect, start + TOGETHER);
        let fleet = company.fleet(start + TOGETHER);
        assert_eq!((fleet.suspect, fleet.doubtful), (0, 1));
        company.leave("ns", "a");
        assert_eq!(company.fleet(start).shards, 1);
    }
}
