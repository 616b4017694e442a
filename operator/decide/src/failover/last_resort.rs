//! The primary is gone and nobody but errant replicas is left: when one of them takes over. Pure.
//!
//! An errant replica holds everything below its own stored offsets, because data and offset are one transaction, and Kafka
//! has the rest as long as the rule of retention holds for it as for anybody. So its promotion loses no acknowledged sample.
//! It throws away the office of the primary that is gone, though, and where it had replicated from that primary as well, some
//! records may be in it twice. So it comes last: not while one without transactions of its own is there, or may come back.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, Phase};

use super::candidate::{Ranking, Unfit, rank_errant};
use super::plan::LAST_COPY_PATIENCE;
use super::snapshot::Snapshot;
use super::testimony::Case;

/// What is left when nobody is fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LastResort {
    /// No errant replica could take over either.
    Nobody,
    /// One could, and these may still come back before it has to.
    Wait {
        /// The errant one.
        best: ReplicaName,
        /// Who is waited for.
        others: Vec<ReplicaName>,
    },
    /// Nobody else will come: the errant ones, best first.
    Take(Ranking),
}

/// Looks for an errant replica that may take over from `old`; `ranking` is of everybody, and found nobody fit.
pub(crate) fn last_resort(s: &Snapshot, old: &ReplicaName, ranking: &Ranking) -> LastResort {
    let errant = rank_errant(s, old, ranking);
    let (true, Some(best)) = (ranking.fit.is_empty(), errant.fit.first()) else { return LastResort::Nobody };
    let waited = waited(s, old);
    let stays = |name: &&ReplicaName| match ranking.unfit.iter().find(|(unfit, _)| unfit == *name) {
        // Neither comes to have fewer transactions, or Kafka to have more.
        Some((_, Unfit::Errant(_) | Unfit::Retention { .. })) => false,
        Some((_, Unfit::Condemned)) => *name == old,
        Some(_) | None => true,
    };
    let others = s.replicas.keys().filter(stays).filter(|name| may_come_back(s, name, waited));
    let others: Vec<_> = others.cloned().collect();
    if others.is_empty() && waited >= LAST_COPY_PATIENCE {
        return LastResort::Take(errant);
    }
    LastResort::Wait { best: best.name.clone(), others }
}

/// How long the shard has been without a commit, as far as this process knows.
fn waited(s: &Snapshot, old: &ReplicaName) -> Millis {
    let known = match s.status.transition {
        Some(_) => s.memory.transition_known,
        None => s.memory.office_known,
    };
    let commit = Case::hear(s, old).newest_commit().unwrap_or(Millis::MAX);
    commit.min(known).min(s.memory.awake)
}

/// Whether a replica that cannot take over now may yet do so within the patience of the shard.
fn may_come_back(s: &Snapshot, name: &ReplicaName, waited: Millis) -> bool {
    let t = &s.policy.thresholds;
    match s.fresh_report(name).map(|(server, _)| &server.phase) {
        // It has no data of its own to come back with.
        Some(Phase::Empty | Phase::Building | Phase::Unusable { .. }) => false,
        // Crash recovery takes its time, and ends.
        Some(Phase::Starting) => waited < t.unheard_after.max(t.lost_standby_after),
        Some(Phase::Running | Phase::Exited { .. } | Phase::Stopping | Phase::Unknown) => waited < t.lost_standby_after,
        None => waited < t.lost_standby_after || s.silent_for(name) < t.lost_standby_after,
    }
}
