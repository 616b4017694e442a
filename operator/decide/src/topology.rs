//! Which replicas a shard should have: what to make, what to condemn, what to take away. Pure.
//!
//! Identity is never reused: a replacement has a new name, a new volume and a new `server_id`. The last good copy is never
//! condemned, and no volume is deleted before its successor has caught up and its time is over.

use understudy_wire::ReplicaName;

use crate::decision::{Draft, NewReplica, Reason, Role, Sentence, Step};
use crate::failover::assess::{Assessment, Cause, Verdict};
use crate::failover::candidate::examine;
use crate::failover::plan::AGAIN;
use crate::failover::snapshot::{Fact, Kind, Replica, Snapshot};
use crate::failover::testimony::Case;
use crate::following::is_good_copy;
use crate::ledger;
use crate::pace::{self, Pause};
use crate::placement;
use crate::sick_standby;
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
    for (name, _) in due.iter().skip(pace::room(s)).flatten() {
        d.doing(format!("waiting to replace {name}: as many replicas as may be are being rebuilt already"));
        let message = format!("{name} is not replaced yet: {}", pace::budget_spent(s));
        d.note_about(Reason::ReplacementWaits, name, message);
    }
    due.truncate(pace::room(s));
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
    let old = condemn_old_primary(s, a, primary, d);
    for (name, replica) in s.cast().filter(|(name, _)| *name != primary && Some(*name) != old) {
        let Some((sentence, why)) = sick_standby::sentence(s, a, primary, (name, replica), d) else { continue };
        if sentence.is_soft() && pace::kept(s).len() >= pace::KEPT_AT_MOST {
            keep(s, name, &why, d);
        } else if let Some(waits) = pace::waits(s, name, sentence) {
            let message = format!("{name} should be replaced ({why}) and stays for now: {waits}");
            d.note_about(Reason::ReplacementWaits, name, message);
        } else {
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

/// After a failover the old primary is replaced, whatever became of it. The route already points elsewhere. But not before the new one
/// commits: when that fails as well, the old one may be the last that comes back.
fn condemn_old_primary<'a>(
    s: &'a Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    d: &mut Draft,
) -> Option<&'a ReplicaName> {
    let change = s.status.last_change.as_ref().filter(|change| change.kind == Kind::Failover)?;
    let old = change.from.as_ref().filter(|old| *old != primary)?;
    let replica = s.replicas.get(old).filter(|replica| replica.condemned.is_none())?;
    // Right after it took office everybody connects at once, and while some find no connection left others commit.
    let commits = || Case::hear(s, primary).newest_commit().is_some_and(|age| age <= s.policy.thresholds.fresh);
    if !(a.verdict.commits() || (a.verdict == Verdict::Saturated && commits())) {
        return Some(old);
    }
    if is_last_standby(s, primary, old) {
        let message = format!(
            "{old} is to be replaced after the failover, but no other standby could take over. {AGAIN}, and it is replaced once one can"
        );
        d.note_about(Reason::LastCopyKept, old, message);
        return Some(old);
    }
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

/// Whether it could take over from the primary, and those that are on their way to it cannot yet.
fn is_last_standby(s: &Snapshot, primary: &ReplicaName, standby: &ReplicaName) -> bool {
    let can = |name: &ReplicaName, replica: &Replica| examine(s, Some(primary), name, replica).is_ok();
    let others: Vec<_> = s.cast().filter(|(name, _)| *name != primary && *name != standby).collect();
    let is_able = s.replicas.get(standby).is_some_and(|replica| can(standby, replica));
    is_able && !others.is_empty() && !others.iter().any(|(name, replica)| can(name, replica))
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
            format!(
                "{name} should be replaced ({why}), but it may be the last good copy. {AGAIN}, and it is replaced once another copy is there"
            ),
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
        let message = format!("{name} is not taken away: no other standby is intact. {AGAIN}");
        d.note_about(Reason::LastCopyKept, name, message);
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
