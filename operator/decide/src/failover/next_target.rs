//! The target of a change of primary does not take office: who is next, under a further epoch. Pure.
//!
//! The next one is chosen as the first one was, and for as long as nobody can be, the target is told again: it is the only hope.

use understudy_wire::evidence::Phase;

use super::assess::{Assessment, Cause};
use super::bootstrap;
use super::candidate::{Need, rank, rank_for};
use super::plan::{Change, by_hand, claim, errant, nobody_else, wait_for_request};
use super::record;
use super::snapshot::{Kind, Mode, Request, Snapshot, Transition};
use super::transition::{NOT_CONFIRMED, abort, at_once, tell};
use crate::decision::{Draft, Order, OrderKind, Reason, Step};

/// The target failed. Another one under another epoch, in the same incident.
pub(super) fn next_candidate(s: &Snapshot, a: &Assessment, t: &Transition, why: &str, d: &mut Draft) {
    if t.kind == Kind::Bootstrap {
        return bootstrap::again(s, &t.to, why, d);
    }
    let old = t.from.as_ref().unwrap_or(&t.to);
    // A planned change goes back to where it came from, as long as that lives.
    if t.kind == Kind::Switchover && rank(s, Some(old), &[&t.to]).choose(Some(old)).is_some() {
        return abort(s, a, t, old, why, d);
    }
    let need = need(s, a, t);
    let ranking = rank_for(s, need, old, &[&t.to]);
    let request = word(s, t);
    let stays = stays(s, t);
    let wanted = request.and_then(|request| request.target.as_ref());
    let next = ranking.choose(wanted).or_else(|| ranking.choose(None)).map(|candidate| candidate.name.clone());
    let (next, ranking) = match next {
        Some(_) if stays => {
            leave_to_person(s, t, why, d);
            return tell_again(s, t, d);
        }
        Some(next) => (Some(next), ranking),
        // A primary that is only full has everything, and room brings it back.
        None if stays || need == Need::Room => (None, ranking),
        None => errant(s, old, wanted, &ranking, d).map_or((None, ranking), |(next, errant)| (Some(next), errant)),
    };
    match next {
        Some(next) => {
            d.note_about(
                Reason::CandidateFailed,
                &t.to,
                format!("{} did not become primary ({why}): {next} is next", t.to),
            );
            let kind = if next == *old { Kind::Confirm } else { Kind::Failover };
            let cause = match t.kind {
                Kind::Confirm => NOT_CONFIRMED,
                _ => t.cause.as_deref().unwrap_or("CandidateFailed"),
            };
            let change = Change::new(kind, old, &next, cause);
            let change = match request {
                // What the person asked for has a record of its own, so that of the confirmation ends here.
                Some(request) => {
                    give_up_record(t, d);
                    change.recorded_in(Some(request))
                }
                None => change.of_incident(t),
            };
            claim(s, a, change, ranking, d);
        }
        None => {
            if stays {
                leave_to_person(s, t, why, d);
            }
            nobody_else(s, &t.to, &ranking, s.requests.first(), d);
            tell_again(s, t, d);
        }
    }
}

/// What the next choice needs: what the first one did, for as long as the old primary may come back for room. One that has died since
/// is left for whoever can take over.
pub(super) fn need(s: &Snapshot, a: &Assessment, t: &Transition) -> Need {
    let runs = |old| s.fresh_report(old).is_some_and(|(server, _)| server.phase == Phase::Running);
    match a.verdict.cause().filter(|_| a.verdict.is_dead()) {
        Some(Cause::VolumeFull) => Need::Room,
        // Fenced, it looks restarted.
        Some(Cause::Restarted) | None if t.from.as_ref().is_some_and(runs) => {
            t.cause.as_deref().map_or(Need::Nothing, Need::of)
        }
        Some(_) | None => Need::Nothing,
    }
}

/// The target is the only hope: whenever it can hear, it is told again.
fn tell_again(s: &Snapshot, t: &Transition, d: &mut Draft) {
    let hears = s.fresh_report(&t.to).is_some_and(|(server, _)| server.phase == Phase::Running);
    let waiting = s.order(&t.to, OrderKind::Promote, t.epoch).is_some_and(|order| order.in_flight());
    if hears && !waiting {
        d.step(Step::Order { replica: t.to.clone(), order: Order::Promote(at_once(s, t)) });
    }
}

/// Whether another primary in place of the target is not the operator's to choose. A confirmation is begun in every mode because the
/// primary stays the same, so it must not end with another one unless a person asked for the change.
fn is_left_to_person(s: &Snapshot, t: &Transition) -> bool {
    t.kind == Kind::Confirm
        && match s.policy.mode {
            Mode::Automatic => false,
            Mode::Manual => t.request.is_none(),
            Mode::Paused => true,
        }
}

/// What a person asked for since, where that is the word which the mode waits for.
fn word<'a>(s: &'a Snapshot, t: &Transition) -> Option<&'a Request> {
    s.requests.first().filter(|_| is_left_to_person(s, t) && s.policy.mode == Mode::Manual)
}

/// Whether no other takes the place of the target, whoever could.
pub(super) fn stays(s: &Snapshot, t: &Transition) -> bool {
    is_left_to_person(s, t) && word(s, t).is_none()
}

fn leave_to_person(s: &Snapshot, t: &Transition, why: &str, d: &mut Draft) {
    let (to, mode) = (&t.to, s.policy.mode);
    let waits = match mode {
        Mode::Paused => "nothing else: failover.mode is Paused".to_owned(),
        Mode::Manual | Mode::Automatic => wait_for_request(s),
    };
    // It has come to more than was said when this pass began.
    d.doing = Some(format!("confirming {to} under epoch {}, and {waits}", t.epoch));
    let by_hand = by_hand(s, Kind::Failover);
    let message =
        format!("{to} could not be confirmed ({why}), failover.mode is {mode}: no other takes over. {by_hand}");
    d.note(Reason::FailoverLeftToPerson, message);
}

/// Closes the record of a change that came to nothing.
fn give_up_record(t: &Transition, d: &mut Draft) {
    let Some(name) = &t.record else { return };
    tell(t, record::Phase::Closed, Vec::new(), d);
    if let Some(update) = d.records.last_mut().filter(|update| update.name == *name) {
        update.result = Some(record::Outcome::Failed);
    }
}
