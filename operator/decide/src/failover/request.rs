//! A change of primary that a person asked for: when it is taken up, and when it is turned down, and in which words. Pure.
//!
//! One that is turned down says why in its own record and as an event of the shard. One that is open waits for something that is said.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::Millis;

use super::assess::Assessment;
use super::candidate::{Candidate, Ranking, rank};
use super::plan::{Change, claim, hands_over, in_time, late_words};
use super::snapshot::{Kind, Mode, Request, Snapshot};
use crate::decision::{Draft, Reason, Step};

/// A request is turned down when it could not be taken up for this long.
const REQUEST_PATIENCE: Millis = 30_000;

fn refuse(request: &Request, message: String, d: &mut Draft) {
    d.note(Reason::RequestRefused, format!("{}: {message}", request.name));
    d.step(Step::Refuse { request: request.name.clone(), message });
}

/// A person's request, on a primary that is not dead.
pub(crate) fn take_up(s: &Snapshot, a: &Assessment, primary: &ReplicaName, request: &Request, d: &mut Draft) {
    if s.policy.mode == Mode::Paused {
        return refuse(request, "failover.mode is Paused".into(), d);
    }
    if request.target.as_ref() == Some(primary) {
        return refuse(request, format!("{primary} is the primary already"), d);
    }
    if let Some(unknown) = request.target.as_ref().filter(|target| !s.replicas.contains_key(*target)) {
        return refuse(request, format!("the shard has no replica {unknown}"), d);
    }
    if request.kind == Kind::Failover && a.verdict.commits() {
        return refuse(request, format!("{primary} commits; ask for a Switchover, which waits for it"), d);
    }
    let ranking = rank(s, Some(primary), &[primary]);
    let planned = request.kind != Kind::Failover;
    let may_begin = !planned || hands_over(s, a, primary);
    let keeps_up = |candidate: &&Candidate| !planned || in_time(s, candidate);
    let chosen = match request.target.as_ref() {
        Some(target) => ranking.choose(Some(target)).filter(keeps_up),
        None => ranking.fit.iter().find(keeps_up),
    };
    match chosen.filter(|_| may_begin).cloned() {
        Some(to) => {
            let kind = if planned { Kind::Switchover } else { Kind::Failover };
            claim(s, a, Change::new(kind, primary, &to.name, "Requested").recorded_in(Some(request)), ranking, d);
        }
        None if request.age < REQUEST_PATIENCE => d.doing(format!("waiting to take up {}", request.name)),
        None if !may_begin && a.verdict.commits() => {
            refuse(request, format!("{primary} commits, but its manager cannot be reached to hand over"), d);
        }
        None if !may_begin => {
            refuse(request, format!("{primary} is {} and cannot hand over: {}", a.verdict.state(), a.message()), d);
        }
        None => {
            let words = if planned { late_words(s, &ranking) } else { ranking.words() };
            refuse(request, format!("no standby can take over: {words}"), d);
        }
    }
}

/// Turns down a request for one candidate while the volume of the primary is full and nobody has room, once it is old enough. Any other
/// dead primary is left for whoever can take over first, so a request stays open; this one lives and has everything, room brings it
/// back, and who asked for a candidate that is as full must come to know. Whether it was turned down.
pub(crate) fn refuse_without_room(primary: &ReplicaName, request: &Request, ranking: &Ranking, d: &mut Draft) -> bool {
    let Some(target) = request.target.as_ref().filter(|_| request.age >= REQUEST_PATIENCE) else { return false };
    let stands_against = ranking.unfit.iter().find(|(name, _)| name == target).map(|(_, why)| why.words());
    let why = match stands_against {
        Some(why) => why,
        None if target == primary => "it is the primary".into(),
        None => "the shard has no such replica".into(),
    };
    let message = format!(
        "{target} does not take over from {primary}, whose volume is full: {why}, and nobody else can either. Make room on the volume of \
         {primary}, which then goes on by itself, or on that of another, and ask again"
    );
    refuse(request, message, d);
    true
}

/// Turns down a request on a shard that has no primary, once it is old enough.
pub(crate) fn without_primary(s: &Snapshot, d: &mut Draft) {
    if let Some(request) = s.requests.first().filter(|request| request.age >= REQUEST_PATIENCE) {
        let message = "the shard has no primary that another could take over from. It gets one without being asked: `kubectl get shard` \
                       says what it waits for. Ask again once it has one";
        refuse(request, message.into(), d);
    }
}
