//! Which replicas a shard should have: what to make, what to condemn, what to take away. Pure.
//!
//! Identity is never reused: a replacement has a new name, a new volume and a new `server_id`. The last good copy is never
//! condemned, and no volume is deleted before its successor has caught up and its time is over.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, Phase, Server};

use crate::decision::{Draft, NewReplica, Reason, Role, Sentence, Step};
use crate::failover::assess::{Assessment, Cause, phase_words};
use crate::failover::signature::volume_error;
use crate::failover::snapshot::{Fact, Kind, Replica, Snapshot};
use crate::following::{errant_against, is_good_copy};
use crate::ledger;
use crate::pace::{self, Pause};
use crate::placement;
use crate::replication_error::ReplicationError;
use crate::view::role_of;

/// For how long after a change of primary consumers come first, in milliseconds: some three times what they take on a busy machine.
const CONSUMERS_FIRST: i64 = 5_000;

/// Whether what is missing is not made yet. A failover is over for those it is made for when consumers commit again; until then a new
/// copy, of which nothing is there yet, would only take processor and disk from them.
pub(crate) fn waits(s: &Snapshot) -> bool {
    let is_failover = || s.status.last_change.as_ref().is_some_and(|change| change.kind == Kind::Failover);
    s.is_changing_primary() || (is_failover() && consumers_come_first(s))
}

/// Whether consumers have not committed on a new primary yet, and may still be about to.
pub(crate) fn consumers_come_first(s: &Snapshot) -> bool {
    let change =
        s.status.last_change.as_ref().filter(|change| s.status.transition.is_none() && change.kind != Kind::Confirm);
    let (Some(at), Some(primary)) = (change.and_then(|change| change.at), &s.status.primary) else { return false };
    let ago = s.now.as_millisecond().saturating_sub(at.as_millisecond());
    (0..CONSUMERS_FIRST).contains(&ago) && ledger::consumers_speak(s) && ledger::first_commit(s, primary).is_none()
}

/// Makes what is missing. Safe at any time, a change of primary included.
pub(crate) fn grow(s: &Snapshot, d: &mut Draft) {
    // A condemned primary stays on stage until another has taken over.
    let on_stage =
        |name: &ReplicaName, replica: &Replica| replica.condemned.is_none() || s.status.primary.as_ref() == Some(name);
    for (name, replica) in s.replicas.iter().filter(|(name, replica)| on_stage(name, replica)) {
        match (&replica.volume, &replica.pod) {
            (Fact::Absent, _) => {
                d.step(Step::MakeVolume { replica: name.clone() });
                if replica.pod.is_absent() {
                    d.step(Step::MakePod { replica: name.clone() });
                }
            }
            (Fact::Present(_), Fact::Absent) => {
                d.step(Step::MakePod { replica: name.clone() });
            }
            (Fact::Present(_), Fact::Present(pod)) => {
                if let Some(why) = &pod.unschedulable {
                    d.note_about(Reason::Unschedulable, name, format!("the pod of {name} cannot be placed: {why}"));
                }
            }
            (Fact::Unknown, _) | (Fact::Present(_), Fact::Unknown) => {}
        }
    }
    let missing = s.policy.replicas.saturating_sub(s.cast().count());
    if missing == 0 {
        return;
    }
    let places = to_fill(s, missing, d);
    if places.is_empty() {
        return;
    }
    let first = s.status.next_server_id.max(1);
    let mut replicas = Vec::with_capacity(places.len());
    for (server_id, instead_of) in (first..).zip(places) {
        replicas.push(NewReplica {
            name: name_for(s, server_id),
            server_id,
            replaces: instead_of.map(|(name, _)| name.clone()),
            first: s.status.primary.is_none() && instead_of.is_none(),
            avoid_nodes: placement::avoid(s, instead_of),
        });
    }
    let names: Vec<_> = replicas.iter().map(|new| new.name.as_str()).collect();
    let message = format!("making {}", names.join(", "));
    if d.step(Step::Grow { first, replicas }) {
        d.note(Reason::ReplicasAdded, message.clone());
        d.doing(message);
    }
}

/// For each replica to be made now, which condemned one it replaces. A place whose replacements keep failing stays empty for
/// a while.
fn to_fill<'a>(s: &'a Snapshot, missing: usize, d: &mut Draft) -> Vec<Option<(&'a ReplicaName, &'a Replica)>> {
    let mut due = Vec::new();
    let mut waiting = 0;
    for (name, replica) in &s.replicas {
        let succeeded = s.replicas.values().any(|other| other.replaces.as_ref() == Some(name));
        let Some(condemned) = replica.condemned.as_ref().filter(|_| !succeeded) else { continue };
        if condemned.reason == Sentence::ScaledDown.to_string() {
            continue;
        }
        let Some(pause) = pace::pause(s, replica) else {
            due.push(Some((name, replica)));
            continue;
        };
        waiting += 1;
        let Pause { failed, until } = pause;
        d.doing(format!("waiting until {until} before {name} is replaced: {failed} in a row failed"));
        let message = format!(
            "{name} is replaced at {until}: {failed} in a row were condemned soon after they were made, the last one as {}",
            condemned.reason
        );
        d.note_about(Reason::ReplacementWaits, name, message);
    }
    due.truncate(missing);
    let new = missing.saturating_sub(due.len()).saturating_sub(waiting);
    due.extend(std::iter::repeat_n(None, new));
    due
}

/// The name of the replica with this id: the same for the same shard and id, so that making it twice makes one.
pub fn name_for(s: &Snapshot, server_id: u32) -> ReplicaName {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let hash = fnv1a(format!("{}/{server_id}", s.uid).as_bytes());
    let letter = |at: u32| char::from(LETTERS[usize::try_from(hash >> (at * 5) & 31).unwrap_or(0)]);
    let suffix: String = (0..4).map(letter).collect();
    let name = ReplicaName::new(format!("{}-{suffix}", s.shard));
    let taken = |name: &ReplicaName| s.replicas.get(name).is_some_and(|other| other.server_id != server_id);
    if !taken(&name) {
        return name;
    }
    // 2^20 suffixes: a collision within one shard is rare, and the id itself settles it.
    ReplicaName::new(format!("{}-{suffix}{server_id}", s.shard))
}

/// FNV-1a with a final mix, 64 bit: stable for ever, unlike the standard library's hashers.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 33
}

/// Condemns. Only while a primary is in office and nothing else is under way.
pub(crate) fn shrink(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    let old = condemn_old_primary(s, primary, d);
    for (name, replica) in s.cast().filter(|(name, _)| *name != primary && Some(*name) != old) {
        if let Some((sentence, why)) = sentence(s, a, primary, (name, replica), d) {
            if sentence.is_soft() && pace::kept(s).len() >= pace::KEPT_AT_MOST {
                keep(s, name, &why, d);
                continue;
            }
            condemn(s, a, primary, (name, replica), sentence, why, d);
        }
    }
    scale_down(s, a, primary, d);
}

/// Takes away what is left of the condemned.
pub(crate) fn clear_away(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    for (name, replica) in s.replicas.iter().filter(|(_, replica)| replica.condemned.is_some()) {
        take_away(s, a, primary, (name, replica), d);
    }
}

/// After a failover the old primary is replaced, whatever became of it. The route already points elsewhere.
fn condemn_old_primary<'a>(s: &'a Snapshot, primary: &ReplicaName, d: &mut Draft) -> Option<&'a ReplicaName> {
    let change = s.status.last_change.as_ref().filter(|change| change.kind == Kind::Failover)?;
    let old = change.from.as_ref().filter(|old| *old != primary)?;
    let replica = s.replicas.get(old).filter(|replica| replica.condemned.is_none())?;
    let cause = change.cause.clone().unwrap_or_else(|| "unknown".into());
    let message = format!("{primary} took over under epoch {}: {cause}", change.epoch);
    let epoch = Some(change.epoch);
    // A node that nobody hears of is avoided by the replacement; that is told by this word.
    let unreachable = change.cause.as_deref() == Some(Cause::Unreachable.into());
    let reason = if unreachable { Sentence::Lost } else { Sentence::FailedOver };
    let step =
        Step::Condemn { replica: old.clone(), uid: replica.uid.clone(), reason, message: message.clone(), epoch };
    if d.step(step) {
        d.note_about(Reason::ReplicaCondemned, old, format!("{old} is replaced: {message}"));
    }
    Some(old)
}

/// Why a standby should be replaced, if it should.
fn sentence(
    s: &Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    (name, replica): (&ReplicaName, &Replica),
    d: &mut Draft,
) -> Option<(Sentence, String)> {
    let t = &s.policy.thresholds;
    let Some((server, age)) = s.fresh_report(name) else {
        if s.pod_ended(name) {
            return Some((Sentence::Exited, "its pod ended, and nobody starts it again".into()));
        }
        return lost(s, a, primary, (name, replica), d);
    };
    if let Some(own) = errant_against(s, primary, name) {
        return Some((Sentence::Errant, format!("it has transactions that the primary lacks: {own}")));
    }
    match &server.phase {
        Phase::Exited { age: ended, .. } if *ended + age >= t.gone_after => {
            Some((Sentence::Exited, phase_words(server, None)))
        }
        Phase::Unusable { reason } => Some((Sentence::Unusable, reason.clone())),
        Phase::Running => broken(t.broken_standby_after, server, age).or_else(|| stuck(s, name, server, age)),
        Phase::Empty | Phase::Building | Phase::Starting => stuck(s, name, server, age),
        Phase::Exited { .. } | Phase::Stopping => None,
    }
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
        let avoided = replica.avoid_nodes.iter().any(|node| s.nodes.get(node).is_some_and(|node| node.schedulable));
        return avoided
            .then(|| (Sentence::Unplaceable, "the nodes it avoids are well again, and no other has room".into()));
    }
    let primary_is_heard = s.fresh_report(primary).is_some() && a.verdict.commits();
    if !primary_is_heard {
        return None;
    }
    if s.fleet.managers >= 4 && s.fleet.silent * 2 > s.fleet.managers {
        let message = format!(
            "{} of {} managers are silent: {name} is not replaced, the trouble may be the operator's own",
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

/// Intact copies of the shard besides `but`: a primary that serves and commits, and every good standby. A frozen primary
/// still says that it serves; it is no copy that anybody could use.
fn copies_besides(s: &Snapshot, a: &Assessment, primary: &ReplicaName, but: &ReplicaName) -> usize {
    let serves = |name: &ReplicaName| {
        let serving = s.fresh_report(name).is_some_and(|(server, _)| server.serving == Some(s.status.epoch));
        serving && a.verdict.commits()
    };
    let others = s.cast().filter(|(name, _)| *name != but);
    others.filter(|(name, _)| if *name == primary { serves(name) } else { is_good_copy(s, primary, name) }).count()
}

fn condemn(
    s: &Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    (name, replica): (&ReplicaName, &Replica),
    sentence: Sentence,
    why: String,
    d: &mut Draft,
) {
    if copies_besides(s, a, primary, name) == 0 {
        d.note_about(
            Reason::LastCopyKept,
            name,
            format!("{name} should be replaced ({why}), but it may be the last good copy"),
        );
        return;
    }
    let step = Step::Condemn {
        replica: name.clone(),
        uid: replica.uid.clone(),
        reason: sentence,
        message: why.clone(),
        epoch: None,
    };
    if d.step(step) {
        match sentence {
            Sentence::ScaledDown => {
                d.note_about(Reason::ReplicaRemoved, name, format!("{name} is taken away: {why}"));
            }
            _ => d.note_about(Reason::ReplicaCondemned, name, format!("{name} is replaced: {why}")),
        }
    }
}

/// Somebody has to find out first why one after the other fails.
fn keep(s: &Snapshot, name: &ReplicaName, why: &str, d: &mut Draft) {
    let kept: Vec<_> = pace::kept(s).into_iter().map(ReplicaName::as_str).collect();
    let count = kept.len();
    d.doing(format!("not replacing {name}: the volumes of {count} replaced replicas are kept already"));
    let message = format!(
        "{name} should be replaced and is not, because the volumes of {count} replaced replicas are kept already. Find out why they \
         failed (kubectl get replicas -o wide), then delete those that nobody needs: kubectl delete pvc {}. {name}: {why}",
        kept.join(" ")
    );
    d.note_about(Reason::QuarantineFull, name, message);
}

/// One replica too many goes at a time, the least useful one, and only while the rest is well.
fn scale_down(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    let surplus = s.cast().count().saturating_sub(s.policy.replicas);
    if surplus == 0 || !a.verdict.commits() || d.is_taken() {
        return;
    }
    let least = s
        .cast()
        .filter(|(name, _)| *name != primary)
        .min_by_key(|(name, replica)| (is_good_copy(s, primary, name), std::cmp::Reverse(replica.server_id)));
    let Some((name, replica)) = least else { return };
    let good_left = s.cast().filter(|(other, _)| *other != name && *other != primary);
    let good_left = good_left.filter(|(other, _)| is_good_copy(s, primary, other)).count();
    // With one replica asked for, the primary is the copy that stays.
    if good_left == 0 && s.policy.replicas > 1 {
        d.note_about(Reason::LastCopyKept, name, "not scaled down: no other standby is intact");
        return;
    }
    condemn(
        s,
        a,
        primary,
        (name, replica),
        Sentence::ScaledDown,
        format!("{} replicas are asked for", s.policy.replicas),
        d,
    );
}

/// What is left of a condemned replica: first its pod, much later its volume, at last its object.
fn take_away(
    s: &Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    (name, replica): (&ReplicaName, &Replica),
    d: &mut Draft,
) {
    if name == primary {
        return;
    }
    if let Fact::Present(pod) = &replica.pod {
        d.step(Step::DeletePod { replica: name.clone(), uid: pod.uid.clone(), restart: false });
        return;
    }
    if !replica.pod.is_absent() {
        return;
    }
    let volume = match &replica.volume {
        Fact::Unknown => return,
        Fact::Absent => {
            d.step(Step::DeleteReplica { replica: name.clone(), uid: replica.uid.clone() });
            return;
        }
        Fact::Present(volume) => volume,
    };
    // A primary that does not commit may be about to be replaced itself.
    if !is_redundant(s, primary) || !a.verdict.commits() || volume.terminating {
        return;
    }
    let Some(condemned) = replica.condemned.as_ref().filter(|condemned| condemned.successor_ready_at.is_some()) else {
        if d.step(Step::StartQuarantine { replica: name.clone() }) {
            let ttl = s.policy.quarantine_seconds;
            d.note_about(
                Reason::VolumeQuarantined,
                name,
                format!("redundancy is back: the volume of {name} is kept for {ttl} s more"),
            );
        }
        return;
    };
    let why = match (pace::is_over(s, condemned), pace::makes_room(s, name, condemned)) {
        (true, _) => "is over".to_owned(),
        (false, true) => format!("ends early, as {} later primaries are kept", pace::KEPT_AT_MOST),
        (false, false) => return,
    };
    if d.step(Step::DeleteVolume { replica: name.clone(), uid: volume.uid.clone() }) {
        d.note_about(Reason::VolumeDeleted, name, format!("the quarantine of {name} {why}: its volume is deleted"));
    }
}

/// Whether there are as many intact copies as asked for.
pub(crate) fn is_redundant(s: &Snapshot, primary: &ReplicaName) -> bool {
    let serves = s.fresh_report(primary).is_some_and(|(server, _)| server.serving == Some(s.status.epoch));
    let standbys = s.cast().filter(|(name, _)| *name != primary && is_good_copy(s, primary, name)).count();
    serves && standbys + 1 >= s.policy.replicas
}

/// Moves the role labels of pods and volumes to where the Services should point.
pub(crate) fn label(s: &Snapshot, d: &mut Draft) {
    for (name, replica) in &s.replicas {
        let Some(role) = role_of(s, name, replica) else { continue };
        let differs = |label: Option<&String>| label.is_none_or(|label| *label != role.to_string());
        // A condemned replica's pod is on its way out.
        let pod = role != Role::Condemned && replica.pod.present().is_some_and(|pod| differs(pod.role.as_ref()));
        let volume = replica.volume.present().is_some_and(|volume| differs(volume.role.as_ref()));
        // A volume's label need not follow every turn of a standby that stops replicating for a moment.
        let volume = volume && role != Role::Spare;
        // For the same reason it tells a replica that has just joined from one that replicates again.
        if volume
            && role == Role::Standby
            && let Some(primary) = &s.status.primary
        {
            d.note_about(Reason::ReplicaJoined, name, format!("{name} is a standby: it replicates from {primary}"));
        }
        if pod || volume {
            d.step(Step::Label { replica: name.clone(), role });
        }
    }
}
