//! A change of primary that is under way: what comes next. Pure.
//!
//! The phase is not stored. It follows from the claim in the status and from evidence, so a restarted operator goes on where
//! the last one stopped: Reprobe -> Fence -> Promote -> Publish. An epoch has one target for ever; a new target takes
//! a new epoch, so a late answer to an old order can never make a second primary under one epoch.

use understudy_wire::evidence::{Millis, Phase};
use understudy_wire::order::{FenceOrder, Promote};
use understudy_wire::{Epoch, GtidSet, ReplicaName};

use super::assess::{Assessment, Cause, SKEW};
use super::candidate::{Need, rank_for};
use super::cooldown;
use super::next_target::{need, next_candidate};
use super::plan::{Change, claim};
use super::record::{self, Entry, Grounds, Milestone, RecordUpdate};
use super::snapshot::{Kind, OrderOutcome, ReprobeOutcome, Snapshot, Transition};
use super::testimony::Case;
use crate::decision::{Draft, Order, OrderKind, Reason, Step};

/// How often a target is told again before the next one is taken.
const TRIES: u32 = 2;
/// A record that does not begin with the claim after this time is begun by whoever goes on with the change; milliseconds. An operator
/// that lives has written it by then, and seen it.
const RECORD_WITHIN: Millis = 1_000;

/// The next step of the change.
pub(crate) fn go_on(s: &Snapshot, a: &Assessment, t: &Transition, d: &mut Draft) {
    d.doing(match t.kind {
        Kind::Bootstrap => format!("bootstrap: making {} the first primary", t.to),
        Kind::Confirm => format!("confirming {} under epoch {}", t.to, t.epoch),
        Kind::Switchover => format!("switching over to {}", t.to),
        Kind::Failover => format!("failing over to {}", t.to),
    });
    if let Some(old) = &t.from {
        note_fence(s, t.kind, old, t.epoch, d);
    }
    begin_record(s, a, t, d);
    if serves(s, t) {
        match s.address_of(&t.to) {
            Some(address) => return publish(s, t, address, d),
            None => {
                d.doing =
                    Some(format!("waiting for the address of {}, which takes writes under epoch {}", t.to, t.epoch))
            }
        }
    }
    if s.known_epoch() > s.status.epoch {
        let known = s.known_epoch();
        d.note(Reason::StatusLost, format!("a manager knows epoch {known}, the status says {}", s.status.epoch));
        return claim(s, a, Change::again(t), Default::default(), d);
    }
    match t.kind {
        Kind::Bootstrap | Kind::Confirm => promote(s, a, t, at_once(s, t), d),
        Kind::Failover => failover(s, a, t, d),
        Kind::Switchover => switchover(s, a, t, d),
    }
}

/// Tells of a claim whose operator did not live to write it, or never heard that its claim was taken: of the first of an incident with what
/// led to it, of a further one that it was made. What led to the first mostly still holds: the old primary is as dead as it was, and its
/// manager still tells what it had stored. What a record says already does not change by this.
fn begin_record(s: &Snapshot, a: &Assessment, t: &Transition, d: &mut Draft) {
    let (Some(name), Some(old)) = (&t.record, &t.from) else { return };
    let known = s.memory.transition_known;
    // After the publication only what follows it is told.
    if known < RECORD_WITHIN && !serves(s, t) {
        return;
    }
    let record = s.records.iter().find(|record| record.name == *name);
    let decided = Milestone::Decided.to_string();
    let is_begun = record.is_some_and(|record| record.steps.contains(&decided));
    let is_told = record.is_some_and(|record| record.claimed.contains(&t.epoch));
    // A confirmation that begins an incident was chosen among nobody; its end tells all there is of it.
    let begins = !is_begun && matches!(t.kind, Kind::Failover | Kind::Switchover);
    if !begins && (is_told || !is_begun) {
        return;
    }
    let mut entries = Vec::new();
    if begins {
        let cause = t.cause.clone().unwrap_or_else(|| "unknown".into());
        entries = record::beginning(s, a, Some(old), t.epoch, &cause);
    }
    for entry in &mut entries {
        // Whatever led to the claim came before it.
        entry.ago = entry.ago.max(known);
        if let Some(detail) = entry.detail.as_mut().filter(|_| entry.step == Milestone::Decided) {
            detail.push_str("; told after the claim");
        }
    }
    if !is_told {
        entries.push(Entry::ago(Milestone::Claimed, t.epoch, known).saying(format!("for {}", t.to)));
    }
    tell(t, record::Phase::Claimed, entries, d);
    if let Some(update) = d.records.last_mut().filter(|_| begins) {
        update.message = Some(a.message());
        update.grounds = Some(Grounds::of(s, a, Some(old), rank_for(s, need(s, a, t), old, &[old])));
    }
}

/// Whether the target is known to take writes under the claimed epoch. A first primary that was given up stays so: another
/// replica may have been allowed to initialise since.
fn serves(s: &Snapshot, t: &Transition) -> bool {
    let given_up = s.replicas.get(&t.to).is_none_or(|replica| replica.condemned.is_some());
    if t.kind == Kind::Bootstrap && given_up {
        return false;
    }
    let answered =
        s.order(&t.to, OrderKind::Promote, t.epoch).is_some_and(|o| matches!(o.outcome, OrderOutcome::Done(_)));
    answered || s.fresh_report(&t.to).is_some_and(|(server, _)| server.serving == Some(t.epoch))
}

fn publish(s: &Snapshot, t: &Transition, address: String, d: &mut Draft) {
    let in_a_row = cooldown::row_after(s, t.kind);
    if !d.step(Step::Publish { epoch: t.epoch, primary: t.to.clone(), address, in_a_row }) {
        return;
    }
    let done = match t.kind {
        Kind::Bootstrap => Reason::Bootstrapped,
        Kind::Failover => Reason::FailoverDone,
        Kind::Switchover => Reason::SwitchoverDone,
        Kind::Confirm => Reason::PrimaryConfirmed,
    };
    d.note(done, format!("{} is primary under epoch {}", t.to, t.epoch));
    let (phase, result, message) = match (t.kind, t.cause.as_deref()) {
        (Kind::Bootstrap, _) => return,
        (Kind::Confirm, Some(SWITCHOVER_ABORTED)) => {
            (record::Phase::Closed, Some(record::Outcome::Failed), Some("the target did not catch up in time"))
        }
        (Kind::Confirm, _) => {
            (record::Phase::Closed, Some(record::Outcome::Confirmed), Some("the same primary under a new epoch"))
        }
        (Kind::Failover | Kind::Switchover, _) => (record::Phase::Rebuilding, None, None),
    };
    let steps = vec![Entry::now(Milestone::Promoted, t.epoch), Entry::now(Milestone::Routed, t.epoch)];
    tell(t, phase, steps, d);
    if let Some(update) = d.records.last_mut() {
        update.result = result;
        let stored = s.own_report(&t.to).and_then(|(server, _)| server.offsets.as_ref());
        update.offsets_after = stored.map(|read| read.value.clone());
        update.message = message.map(Into::into);
    }
}

/// Adds to the record of this change.
pub(crate) fn tell(t: &Transition, phase: record::Phase, entries: Vec<Entry>, d: &mut Draft) {
    let Some(name) = &t.record else { return };
    d.records.push(RecordUpdate {
        name: name.clone(),
        kind: t.kind,
        epoch: t.epoch,
        from: t.from.clone(),
        to: Some(t.to.clone()),
        cause: t.cause.clone(),
        message: None,
        phase,
        result: None,
        entries,
        grounds: None,
        offsets_after: None,
    });
}

fn failover(s: &Snapshot, a: &Assessment, t: &Transition, d: &mut Draft) {
    let told = s.order(&t.to, OrderKind::Promote, t.epoch).is_some();
    if let Some(old) = &t.from
        && !told
    {
        // One that commits and could not be confirmed is not asked again: no consumer stores anything there under a later epoch.
        if t.cause.as_deref() != Some(NOT_CONFIRMED) {
            match reprobe(s, t, old, d) {
                Reprobed::Wait => return,
                Reprobed::Lives => {
                    d.note(
                        Reason::NearMiss,
                        format!("{old} committed after epoch {} was claimed: it is confirmed", t.epoch),
                    );
                    let change = Change::new(Kind::Confirm, old, old, "NearMiss").of_incident(t);
                    return claim(s, a, change, Default::default(), d);
                }
                Reprobed::Dead(how) => {
                    let entry = Entry::now(Milestone::Reprobed, t.epoch).saying(how);
                    tell(t, record::Phase::Fencing, vec![entry], d);
                }
            }
        }
        fence(s, t, old, d);
    }
    promote(s, a, t, at_once(s, t), d);
}

/// A promotion with what the target has.
pub(super) fn at_once(s: &Snapshot, t: &Transition) -> Promote {
    let apply_relay_log_within = s.policy.thresholds.apply_relay_log_within;
    Promote { epoch: t.epoch, apply_relay_log_within, after: None }
}

enum Reprobed {
    Wait,
    Lives,
    Dead(String),
}

/// The probe after the claim: the last chance to see the old primary commit.
fn reprobe(s: &Snapshot, t: &Transition, old: &ReplicaName, d: &mut Draft) -> Reprobed {
    let within = s.policy.thresholds.reprobe_within;
    // Others probe as well; a commit that they saw after the claim counts as much. Before a planned fence commits are nothing new.
    let seen = Case::hear(s, old).newest_commit().filter(|_| t.kind != Kind::Switchover);
    if seen.is_some_and(|commit| commit + SKEW < s.memory.transition_known) {
        return Reprobed::Lives;
    }
    // Whoever finds a claim cannot tell whether a commit came before it or after, so it waits until none is fresh.
    let may_live = s.memory.transition_found && seen.is_some_and(|commit| commit <= s.policy.thresholds.fresh);
    match s.memory.reprobe.as_ref().filter(|probe| probe.epoch == t.epoch).map(|probe| &probe.outcome) {
        Some(ReprobeOutcome::Committed) => Reprobed::Lives,
        Some(_) if may_live => Reprobed::Wait,
        Some(ReprobeOutcome::Failed(how)) => Reprobed::Dead(how.clone()),
        Some(ReprobeOutcome::Running(since)) if *since < within => Reprobed::Wait,
        Some(ReprobeOutcome::Running(_)) => Reprobed::Dead("no answer in time".into()),
        None if s.status.primary_address.is_none() && !may_live => Reprobed::Dead("it has no address".into()),
        None => {
            d.step(Step::Reprobe { replica: old.clone(), epoch: t.epoch });
            Reprobed::Wait
        }
    }
}

/// Tells the old primary to refuse writes if its manager can be reached. Nothing waits for it.
fn fence(s: &Snapshot, t: &Transition, old: &ReplicaName, d: &mut Draft) {
    if s.order(old, OrderKind::Fence, t.epoch).is_some() {
        return;
    }
    if s.replicas.get(old).is_some_and(|replica| replica.link.connected) {
        let order = Order::Fence(FenceOrder { epoch: t.epoch, planned: false });
        d.step(Step::Order { replica: old.clone(), order });
    } else {
        unreachable(old, t.epoch, "there is no connection to its manager", d);
    }
}

fn unreachable(old: &ReplicaName, epoch: Epoch, why: &str, d: &mut Draft) {
    let message = format!("{old} was not made to refuse writes ({why}); epoch {epoch} ends its office all the same");
    d.note_about(Reason::PrimaryUnreachable, old, message);
}

/// What came of telling the old primary to refuse writes. The answer may come after the new one has taken office.
pub(crate) fn note_fence(s: &Snapshot, kind: Kind, old: &ReplicaName, epoch: Epoch, d: &mut Draft) {
    match s.order(old, OrderKind::Fence, epoch).map(|order| &order.outcome) {
        Some(OrderOutcome::Done(Some(last))) => {
            d.note_about(Reason::PrimaryFenced, old, format!("{old} refuses writes; it has executed {last}"));
        }
        Some(OrderOutcome::Done(None)) => {
            d.note_about(Reason::PrimaryFenced, old, format!("{old} takes no writes: its server was ended"));
        }
        // A planned change is given up instead, and says so.
        Some(OrderOutcome::Failed(why)) if kind == Kind::Failover => unreachable(old, epoch, why, d),
        Some(OrderOutcome::Failed(_) | OrderOutcome::InFlight) | None => {}
    }
}

/// Tells the target to become primary; takes another one when it does not.
fn promote(s: &Snapshot, a: &Assessment, t: &Transition, order: Promote, d: &mut Draft) {
    let limits = &s.policy.thresholds;
    let failed = |why: &str| Some(why.to_owned());
    let lost = match s.replicas.get(&t.to) {
        None => failed("its Replica was deleted"),
        Some(replica) if replica.condemned.is_some() => failed("it was condemned"),
        Some(_) => match s.fresh_report(&t.to) {
            Some((server, _)) if server.phase == Phase::Running => None,
            Some((server, age)) => Some(super::assess::phase_words(server, Some(age))),
            // The one in office commits, and nobody else will for less than a promotion takes: a connection that breaks comes back.
            None if t.kind == Kind::Confirm && s.memory.transition_known <= limits.promote_within => {
                return d.doing(format!("waiting for the manager of {}", t.to));
            }
            None if s.silent_for(&t.to) > limits.fresh => failed("its manager is silent"),
            // Nothing heard yet after a restart of the operator.
            None => return d.doing("waiting to hear from the target"),
        },
    };
    let given = s.order(&t.to, OrderKind::Promote, t.epoch);
    let patience = limits.promote_within
        + match order.after {
            Some(_) => limits.switchover_within,
            None => order.apply_relay_log_within,
        };
    let gave_up = match given.map(|given| (&given.outcome, given)) {
        None => None,
        Some((OrderOutcome::InFlight, given)) if given.sent > patience => failed("it did not answer in time"),
        Some((OrderOutcome::InFlight | OrderOutcome::Done(_), _)) if lost.is_none() => return,
        Some((OrderOutcome::Failed(why), given)) if given.tries >= TRIES => Some(why.clone()),
        Some(_) => None,
    };
    if let Some(why) = lost.or(gave_up) {
        return next_candidate(s, a, t, &why, d);
    }
    if d.step(Step::Order { replica: t.to.clone(), order: Order::Promote(order) }) {
        d.note_about(Reason::Promoting, &t.to, format!("{} is told to become primary under epoch {}", t.to, t.epoch));
        tell(t, record::Phase::Promoting, Vec::new(), d);
    }
}

/// The cause of a failover that follows a confirmation which could not be carried out.
pub(crate) const NOT_CONFIRMED: &str = "NotConfirmed";

/// The cause of a confirmation that ends a switchover which did not succeed.
pub(crate) const SWITCHOVER_ABORTED: &str = "SwitchoverAborted";

/// Goes back to the old primary.
pub(super) fn abort(s: &Snapshot, a: &Assessment, t: &Transition, old: &ReplicaName, why: &str, d: &mut Draft) {
    d.note(Reason::SwitchoverAborted, format!("{old} stays primary: {why}"));
    let change = Change::new(Kind::Confirm, old, old, SWITCHOVER_ABORTED).of_incident(t);
    claim(s, a, change, Default::default(), d);
}

/// Planned: the old primary stops taking writes, the target gets the rest, then takes office.
fn switchover(s: &Snapshot, a: &Assessment, t: &Transition, d: &mut Draft) {
    let limits = &s.policy.thresholds;
    let Some(old) = &t.from else { return promote(s, a, t, at_once(s, t), d) };
    let told = s.order(&t.to, OrderKind::Promote, t.epoch);
    let fence = s.order(old, OrderKind::Fence, t.epoch);
    let last = match fence.map(|fence| &fence.outcome) {
        Some(OrderOutcome::Done(last)) => last.as_ref(),
        _ => None,
    };
    let has_all = last.is_some_and(|last| has(s, &t.to, last));
    // A fenced server looks restarted; any other death makes this a failover from here on, unless all there was has come.
    if a.verdict.is_dead() && a.verdict.cause() != Some(Cause::Restarted) && !has_all {
        return match told.filter(|told| told.in_flight()) {
            Some(_) => wait_no_more(s, a, t, old, d),
            None => failover(s, a, t, d),
        };
    }
    let overdue = s.memory.transition_known > limits.switchover_within;
    let last = match fence.map(|fence| (&fence.outcome, fence.tries)) {
        // A restarted operator does not know what it was answered, and asks again.
        None if overdue => return abort(s, a, t, old, "its manager could not be reached", d),
        None => return begin_fence(s, t, old, d),
        Some((OrderOutcome::Failed(_), tries)) if tries < TRIES && !overdue => return begin_fence(s, t, old, d),
        Some((OrderOutcome::Failed(why), _)) => return abort(s, a, t, old, &format!("it was not fenced: {why}"), d),
        Some((OrderOutcome::InFlight, _)) if overdue => return abort(s, a, t, old, "it was not fenced in time", d),
        Some((OrderOutcome::InFlight, _)) => return,
        // It did not obey and was killed: nobody knows what it had, and Kafka has it all.
        Some((OrderOutcome::Done(None), _)) => return failover(s, a, t, d),
        Some((OrderOutcome::Done(Some(last)), _)) => last,
    };
    let mut entries = vec![Entry::now(Milestone::Fenced, t.epoch).saying(format!("{old} has executed {last}"))];
    if has_all {
        entries.push(Entry::now(Milestone::CaughtUp, t.epoch));
    }
    tell(t, record::Phase::Promoting, entries, d);
    match told.map(|told| &told.outcome) {
        None if overdue && !has_all => {
            return abort(s, a, t, old, &format!("{} did not get everything in time", t.to), d);
        }
        Some(OrderOutcome::Failed(why)) if overdue => {
            return abort(s, a, t, old, &format!("{} did not take over in time: {why}", t.to), d);
        }
        _ => {}
    }
    // The target itself waits for the rest, so that no report lies between its arrival and the promotion. It gives up first, so that
    // nobody is confirmed beside it.
    let apply_relay_log_within = limits.switchover_within.saturating_sub(s.memory.transition_known).max(LEAST_WAIT);
    promote(s, a, t, Promote { epoch: t.epoch, apply_relay_log_within, after: Some(last.clone()) }, d);
}

/// How long a target gets for the rest, however late it is told; milliseconds.
const LEAST_WAIT: u64 = 1_000;

/// The old primary died while the target waited for what only that could send: whoever has most takes over with what it has.
fn wait_no_more(s: &Snapshot, a: &Assessment, t: &Transition, old: &ReplicaName, d: &mut Draft) {
    let cause = a.verdict.cause().unwrap_or(Cause::Unexplained);
    let ranking = rank_for(s, Need::of(cause.into()), old, &[old]);
    let Some(best) = ranking.choose(None).map(|best| best.name.clone()) else {
        return next_candidate(s, a, t, "the old primary died before it had sent everything", d);
    };
    claim(s, a, Change::new(Kind::Failover, old, &best, cause.into()).of_incident(t), ranking, d);
}

fn begin_fence(s: &Snapshot, t: &Transition, old: &ReplicaName, d: &mut Draft) {
    if !s.replicas.get(old).is_some_and(|replica| replica.link.connected) {
        return d.doing(format!("waiting for the manager of {old}"));
    }
    let order = Order::Fence(FenceOrder { epoch: t.epoch, planned: true });
    d.step(Step::Order { replica: old.clone(), order });
    tell(t, record::Phase::Fencing, Vec::new(), d);
}

/// Whether a replica has executed, or received and will apply, all of these.
fn has(s: &Snapshot, replica: &ReplicaName, all: &GtidSet) -> bool {
    let Some((server, _)) = s.fresh_report(replica) else { return false };
    let Some(executed) = &server.executed else { return false };
    match &server.replication {
        Some(replication) => executed.value.union(&replication.value.received).contains(all),
        None => executed.value.contains(all),
    }
}
