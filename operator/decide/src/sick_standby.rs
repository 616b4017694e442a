//! Standbys that are of no use, and why: they are replaced, never repaired. Pure.
//!
//! A standby is judged by what its own manager says of it and by how it keeps up, later and more slowly than a primary: nobody waits for
//! it, and a rebuild costs more than a moment without it. How soon one is replaced: [`pace`](crate::pace).

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, Phase, Server};

use crate::decision::{Draft, Reason, Sentence};
use crate::failover::assess::{Assessment, phase_words};
use crate::failover::plan::AGAIN;
use crate::failover::signature::volume_error;
use crate::failover::snapshot::{Replica, Snapshot};
use crate::following::{DONOR_DELAY, errant_against, is_good_copy, replicates};
use crate::rebuild;
use crate::replication_error::ReplicationError;

/// Why a standby should be replaced, if it should.
pub(crate) fn sentence(
    s: &Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    (name, replica): (&ReplicaName, &Replica),
    d: &mut Draft,
) -> Option<(Sentence, String)> {
    of_no_use(s, name).or_else(|| match s.fresh_report(name) {
        Some((server, _)) if server.phase == Phase::Running => lagging(s, a, primary, name),
        Some(_) => None,
        None => lost(s, a, primary, (name, replica), d),
    })
}

/// Why a standby is of no use whatever the others do; None: it may be, as far as its own manager and its pod tell.
fn of_no_use(s: &Snapshot, name: &ReplicaName) -> Option<(Sentence, String)> {
    let t = &s.policy.thresholds;
    let Some((server, age)) = s.fresh_report(name) else {
        let ended = || (Sentence::Exited, "its pod ended, and nobody starts it again".into());
        return s.pod_ended(name).then(ended);
    };
    if let Some(own) = s.status.primary.as_ref().and_then(|primary| errant_against(s, primary, name)) {
        return Some((Sentence::Errant, format!("it has transactions that the primary lacks: {own}")));
    }
    // What ends because its pod was asked to stop comes back with the next pod, and has its data.
    let is_asked_to_stop = s.replicas.get(name).and_then(|its| its.pod.present()).is_some_and(|pod| pod.terminating);
    match &server.phase {
        Phase::Exited { .. } if is_asked_to_stop => None,
        Phase::Exited { age: ended, .. } if *ended + age >= t.gone_after => {
            Some((Sentence::Exited, phase_words(server, None)))
        }
        Phase::Unusable { reason } => Some((Sentence::Unusable, reason.clone())),
        Phase::Running => broken(t.broken_standby_after, server, age).or_else(|| stuck(s, name, server, age)),
        Phase::Building | Phase::Starting => {
            stuck(s, name, server, age).or_else(|| Some((Sentence::Stuck, rebuild::hangs(s, name, server)?)))
        }
        Phase::Empty => stuck(s, name, server, age),
        Phase::Exited { .. } | Phase::Stopping | Phase::Unknown => None,
    }
}

/// Whether a replica that is being built will not become a standby as it is: it is of no use, or has come no closer to its primary for
/// as long as a standby is given, or no further while it is filled. It need not be condemned for that, or not yet.
pub(crate) fn comes_to_nothing(s: &Snapshot, name: &ReplicaName) -> bool {
    of_no_use(s, name).is_some() || strays(s, name) || rebuild::stands_still(s, name)
}

/// A standby that is there and of no use, in the eyes of its own manager: what it asked for has not come back.
fn stuck(s: &Snapshot, name: &ReplicaName, server: &Server, age: Millis) -> Option<(Sentence, String)> {
    let after = s.policy.thresholds.stuck_standby_after;
    // A manager that was paused itself takes that time for a hang.
    let long = |since: Millis| since + age >= after + s.own_pause(name);
    let seconds = after / 1_000;
    if server.fsync.as_ref().and_then(|fsync| fsync.in_flight).is_some_and(long) {
        return Some((Sentence::Stuck, format!("a write to its volume has not ended within {seconds} s")));
    }
    // Not the reading of its replication: that waits while replication is being stopped, behind a long statement for instance.
    server.executed.as_ref().map(|read| read.age).filter(|since| long(*since))?;
    let stopped = matches!(server.process_state, Some('T' | 't'));
    let what = if stopped { "mysqld is stopped and" } else { "mysqld" };
    Some((Sentence::Stuck, format!("{what} has not answered its manager for {seconds} s")))
}

fn broken(after: Millis, server: &Server, age: Millis) -> Option<(Sentence, String)> {
    if let Some(error) = volume_error(server) {
        return Some((Sentence::VolumeFailed, format!("its volume answers {error}")));
    }
    let replication = &server.replication.as_ref()?.value;
    let parsed = |error: &Option<String>| error.as_deref().map(ReplicationError::parse);
    // The applier stops at the first transaction that it cannot apply; the source has purged what the receiver needs.
    let purged = parsed(&replication.receive_error).filter(ReplicationError::is_final);
    let stands = |error: &ReplicationError| !replication.applying && !error.is_interruption();
    let error = parsed(&replication.apply_error).filter(stands).or(purged)?;
    // The manager repeats a last error for as long as it stands; the LSN says how long nothing has been applied.
    let idle = server.lsn.as_ref().is_none_or(|lsn| lsn.age + age >= after);
    idle.then(|| (Sentence::ReplicationBroken, error.text()))
}

/// A standby whose manager is silent. A silence that may be the operator's own is nobody's fault.
fn lost(
    s: &Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    (name, replica): (&ReplicaName, &Replica),
    d: &mut Draft,
) -> Option<(Sentence, String)> {
    let t = &s.policy.thresholds;
    let pod = replica.pod.present()?;
    let heard = s.own_report(name).is_some();
    let silent = s.silent_for(name);
    let starts_within = t.unheard_after.max(t.lost_standby_after);
    let patience = if heard { t.lost_standby_after } else { starts_within };
    // The last word may be of an earlier pod of the replica: one that was made anew is as silent as that while it starts.
    if silent < patience || pod.age < starts_within {
        return None;
    }
    // A volume has its place, and nothing comes back where that is gone. What never had one waits for room, as its successor would.
    let has_place = || replica.volume.present().is_some_and(|volume| volume.bound);
    if pod.unschedulable.is_some() && !heard && !has_place() {
        return avoids_in_vain(s, replica).then(|| (Sentence::Unplaceable, AVOIDS_IN_VAIN.into()));
    }
    let primary_is_heard = s.fresh_report(primary).is_some() && a.verdict.commits();
    if !primary_is_heard {
        return None;
    }
    if s.fleet.managers >= 4 && s.fleet.silent * 2 > s.fleet.managers {
        let message = format!(
            "{} of {} managers are silent: {name} is not replaced, the trouble may be the operator's own. {AGAIN}",
            s.fleet.silent, s.fleet.managers
        );
        d.note_about(Reason::ObserverSuspect, name, message);
        return None;
    }
    let why = match &pod.unschedulable {
        Some(why) => format!("its pod cannot be placed where its volume is: {why}"),
        None => format!("its manager has been silent for {} s", silent / 1_000),
    };
    Some((Sentence::Lost, why))
}

/// Why a pod that cannot be placed is made anew.
pub(crate) const AVOIDS_IN_VAIN: &str = "the nodes it avoids are well again, and no other has room";

/// Whether a replica avoids a node that is well.
pub(crate) fn avoids_in_vain(s: &Snapshot, replica: &Replica) -> bool {
    replica.avoid_nodes.iter().any(|node| s.nodes.get(node).is_some_and(|node| node.schedulable))
}

/// How far a standby is behind, if that is further than a standby should be. What is not known, as when it does not replicate, is further
/// than anything.
pub(crate) fn distance(s: &Snapshot, server: &Server, age: Millis) -> Option<Millis> {
    let replication = server.replication.as_ref().filter(|_| replicates(s, server));
    let delay = replication.and_then(|read| Some(read.value.delay? + read.age + age));
    Some(delay.unwrap_or(Millis::MAX)).filter(|delay| *delay > DONOR_DELAY)
}

/// A standby that does not come closer to its primary. When none of the others keeps up either, it is the primary or the way to it.
fn lagging(s: &Snapshot, a: &Assessment, primary: &ReplicaName, name: &ReplicaName) -> Option<(Sentence, String)> {
    if !strays(s, name) {
        return None;
    }
    let after = s.policy.thresholds.lagging_standby_after;
    let others = || s.cast().filter(|(other, _)| *other != name && *other != primary);
    let others_keep_up = a.verdict.commits() && others().any(|(other, _)| is_good_copy(s, primary, other));
    let (limit, minutes) = (DONOR_DELAY / 1_000, after / 60_000);
    others_keep_up.then(|| {
        let why = format!(
            "it has been more than {limit} s behind for {minutes} min and comes no closer, while another keeps up"
        );
        (Sentence::Lagging, why)
    })
}

/// Whether a standby has been far behind, or has not replicated, for as long as it is given to come closer.
fn strays(s: &Snapshot, name: &ReplicaName) -> bool {
    s.memory.past.stray_for.get(name).is_some_and(|stray| *stray >= s.policy.thresholds.lagging_standby_after)
}
