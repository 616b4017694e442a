//! Why the operator does not change a primary that is not well, or make a shard whole. Pure.
//!
//! The rules are those of `operator/docs/failover.md`; what only the operator knows (the breaker over the fleet, who could take over) is
//! taken from what it said.

use jiff::{SignedDuration, Timestamp};
use understudy_api::conditions;
use understudy_api::v1alpha1::VerdictState;

use super::time::{point, seconds_since, span};
use crate::objects::{Event, Shard};

/// Reasons of events that say why something is not done.
const WITHHOLDING: [&str; 8] = [
    "FailoverWithheld",
    "BreakerOpen",
    "NoCandidate",
    "RetentionExceeded",
    "ObserverSuspect",
    "LastCopyKept",
    "BootstrapHeld",
    "SwitchoverRefused",
];
/// Of those, and others, what says why a replica is not replaced.
const OF_REPLICAS: [&str; 4] = ["LastCopyKept", "QuarantineFull", "ReplacementWaits", "BuildWaits"];
/// Causes that are a judgement and no fact: the cooldown and the breaker hold them back.
const SOFT: [&str; 1] = ["Deadlocked"];
/// A primary that has been slow for so long hands over, if that is what helps.
const SLOW_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// An event of before the verdict began may be its beginning all the same.
const BEFORE: SignedDuration = SignedDuration::from_secs(10);

/// Each reason, the most binding first. None when the primary is being changed, or the shard is whole.
pub fn reasons(shard: &Shard, datastore_paused: bool, events: &[Event], now: Timestamp) -> Vec<String> {
    let name = &shard.name;
    if !shard.has_status {
        return vec![format!(
            "no operator has looked at {name} yet: `kubectl get pods -A -l app.kubernetes.io/name=understudy` shows whether one runs"
        )];
    }
    let mut reasons = Vec::new();
    match (datastore_paused, &shard.datastore) {
        (true, Some(datastore)) => reasons.push(format!(
            "spec.paused of the Datastore {datastore} stops every action: `kubectl understudy resume datastore/{datastore}`"
        )),
        _ if shard.paused => {
            reasons.push(format!("spec.paused stops every action: `kubectl understudy resume {name}`"));
        }
        _ => {}
    }
    if shard.is_current == Some(false) {
        reasons.push("the operator has not looked at the latest change of the spec yet".into());
    }
    let state = shard.known_state();
    if shard.transition.is_some() {
        // A change that nobody is left for waits as well.
        reasons.extend(held(shard, now));
        return reasons;
    }
    // What the status has holds now; an event may be over, and is what operators of before said alone.
    let is_said = |reason: &str| shard.withheld.iter().any(|held| held.reason == reason);
    if state == Some(VerdictState::Healthy) {
        reasons.extend(held(shard, now));
        if lacks_copies(shard) {
            reasons.extend(said(shard, events, now, |reason| OF_REPLICAS.contains(&reason) && !is_said(reason)));
        }
        return reasons;
    }
    reasons.extend(of_mode(shard, state));
    reasons.extend(of_verdict(shard, state, now));
    if is_dead(state) {
        reasons.extend(of_cooldown(shard, now));
        if shard.promotable == Some(0) {
            reasons.push("no standby could take over now; `kubectl understudy status` shows what each lacks".into());
        }
    }
    reasons.extend(held(shard, now));
    reasons.extend(said(shard, events, now, |reason| withholds(reason) && !is_said(reason)));
    reasons
}

/// What the operator holds back now, as the status has it.
fn held(shard: &Shard, now: Timestamp) -> impl Iterator<Item = String> {
    shard.withheld.iter().map(move |held| {
        let about = held.about.as_deref().map(|about| format!(" of {about}")).unwrap_or_default();
        let message = held.message.clone().unwrap_or_else(|| "no words were given".into());
        let since = held.since.map(|since| format!(", for {}", span(seconds_since(since, now)))).unwrap_or_default();
        let next = held.next_check.as_deref().map(|next| format!("; looked at again {next}")).unwrap_or_default();
        format!("{message} ({}{about}{since}{next})", held.reason)
    })
}

fn lacks_copies(shard: &Shard) -> bool {
    let is_it = |kind: &str| kind == conditions::REDUNDANT || kind == conditions::PROMOTABLE;
    shard.conditions.iter().any(|condition| is_it(&condition.kind) && condition.status.as_deref() == Some("False"))
}

fn is_dead(state: Option<VerdictState>) -> bool {
    matches!(state, Some(VerdictState::Stuck | VerdictState::Gone))
}

fn of_mode(shard: &Shard, state: Option<VerdictState>) -> Option<String> {
    let name = &shard.name;
    match shard.mode.as_deref() {
        Some("Paused") => Some("spec.failover.mode is Paused: nobody changes the primary, requests included".into()),
        Some("Manual") if is_dead(state) => {
            Some(format!("spec.failover.mode is Manual: it waits for a person, `kubectl understudy failover {name}`"))
        }
        Some("Manual") => Some("spec.failover.mode is Manual: the primary is changed on request only".into()),
        _ => None,
    }
}

fn of_verdict(shard: &Shard, state: Option<VerdictState>, now: Timestamp) -> Option<String> {
    Some(match state {
        Some(VerdictState::Slow) => {
            format!("commits succeed, though slowly: that is no reason for a failover{}", of_slow(shard, now))
        }
        Some(VerdictState::Saturated) => {
            "a server that is out of connections or waits for a lock is alive, and replacing it would not end that".into()
        }
        Some(VerdictState::Suspect) => {
            "Suspect is not certain: the evidence must hold for longer, or be seen by one more observer elsewhere".into()
        }
        Some(VerdictState::ObserverPartition) => {
            "others see the primary commit, so those who do not are the ones who are cut off: only one that no consumer reaches from \
             two nodes or more hands over"
                .into()
        }
        Some(VerdictState::Unknown) => {
            "there is no evidence at all, and without any nothing is done: see whether operator and managers reach each other".into()
        }
        Some(VerdictState::Healthy | VerdictState::Stuck | VerdictState::Gone) => return None,
        None => format!("this program does not know the verdict {}: it is older than the operator", shard.state()),
    })
}

/// When a primary that is slow hands over, and on what that depends.
fn of_slow(shard: &Shard, now: Timestamp) -> String {
    // The others leave it to a person, and say so.
    if shard.mode.as_deref().is_some_and(|mode| mode != "Automatic") {
        return String::new();
    }
    let depends = "when its own volume is what is slow and a standby's is not";
    let slow_after = SLOW_AFTER.as_secs();
    let since = shard.verdict.as_ref().and_then(|verdict| verdict.since);
    let due = since.and_then(|since| since.checked_add(SLOW_AFTER).ok());
    match due {
        Some(due) if due > now => format!(
            ". After {slow_after} s, at {} (in {}), it hands over by a switchover {depends}",
            point(due),
            span(seconds_since(now, due))
        ),
        Some(_) => format!(
            ". It has been slow for more than {slow_after} s, so it hands over by a switchover as soon as that is due: {depends}"
        ),
        None => format!(". After {slow_after} s it hands over by a switchover {depends}"),
    }
}

fn of_cooldown(shard: &Shard, now: Timestamp) -> Option<String> {
    let cause = shard.verdict.as_ref()?.cause.as_deref()?;
    let last = shard.last_failover.as_ref()?.time?;
    let until = last.checked_add(SignedDuration::from_secs(shard.cooldown?)).ok()?;
    (SOFT.contains(&cause) && now < until).then(|| {
        format!(
            "the primary was changed {} ago: until {} (in {}) only hard evidence counts, and {cause} is a judgement",
            span(seconds_since(last, now)),
            point(until),
            span(seconds_since(now, until)),
        )
    })
}

/// Whether an event of this reason says why something is not done.
fn withholds(reason: &str) -> bool {
    WITHHOLDING.contains(&reason) || reason.ends_with("Withheld")
}

/// What the operator said for such a reason since the verdict holds, each reason once.
fn said(shard: &Shard, events: &[Event], now: Timestamp, is_such: impl Fn(&str) -> bool) -> Vec<String> {
    let since =
        shard.verdict.as_ref().and_then(|verdict| verdict.since).and_then(|since| since.checked_sub(BEFORE).ok());
    let is_of_now = |event: &&Event| since.is_none_or(|since| event.at.is_some_and(|at| at >= since));
    let mut newest: Vec<&Event> = Vec::new();
    for event in events.iter().filter(|event| is_such(&event.reason)).filter(is_of_now) {
        match newest.iter_mut().find(|known| known.reason == event.reason) {
            Some(known) if known.at < event.at => *known = event,
            Some(_) => {}
            None => newest.push(event),
        }
    }
    let words = |event: &&Event| {
        let ago = event.at.map(|at| format!(", {} ago", span(seconds_since(at, now)))).unwrap_or_default();
        format!("{} (event {}{ago})", event.message, event.reason)
    };
    newest.iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::{self, at};

    #[test]
    fn each_state_that_is_not_dead_says_why_it_is_left_alone() {
        for state in ["Slow", "Saturated", "Suspect", "ObserverPartition", "Unknown", "Bewitched"] {
            let shard = fixtures::with(fixtures::healthy(), &[("/status/verdict/state", state.into())]);
            let reasons = reasons(&fixtures::shard(&shard), false, &[], at(0));
            assert_eq!(reasons.len(), 1, "{state}: {reasons:?}");
        }
        let reasons = reasons(&fixtures::shard(&fixtures::healthy()), false, &[], at(0));
        assert!(reasons.is_empty(), "{reasons:?}");
    }

    #[test]
    fn that_a_primary_is_seen_to_commit_is_no_promise_that_it_stays_in_office() {
        let shard = fixtures::with(fixtures::healthy(), &[("/status/verdict/state", "ObserverPartition".into())]);
        let reasons = reasons(&fixtures::shard(&shard), false, &[], at(0));
        assert!(reasons[0].contains("no consumer reaches") && reasons[0].contains("hands over"), "{reasons:?}");
        let page = include_str!("../../../docs/runbooks/observer-partition.md");
        assert!(
            !page.contains("nothing is changed") && page.contains("`SwitchoverWithheld`"),
            "the runbook says otherwise"
        );
    }

    #[test]
    fn a_shard_that_lacks_copies_says_what_keeps_it_from_having_them() {
        let event = |reason: &str| Event {
            reason: reason.into(),
            message: "the volumes of 8 are kept".into(),
            warning: true,
            at: Some(at(-60)),
            count: 1,
        };
        let events = [event("QuarantineFull"), event("NoCandidate")];
        let whole = fixtures::shard(&fixtures::healthy());
        assert!(reasons(&whole, false, &events, at(0)).is_empty(), "of what is over nothing is told");
        let lacks = serde_json::json!([{ "type": "Redundant", "status": "False", "reason": "CopiesMissing" }]);
        let short = fixtures::shard(&fixtures::with(fixtures::healthy(), &[("/status/conditions", lacks)]));
        let reasons = reasons(&short, false, &events, at(0));
        assert_eq!(reasons, ["the volumes of 8 are kept (event QuarantineFull, 1m ago)"]);
    }

    #[test]
    fn what_the_status_holds_back_is_told_with_since_when_and_its_event_is_not_told_again() {
        let held = serde_json::json!([
            {
                "reason": "QuarantineFull", "about": "m-b", "message": "the volumes of 8 are kept", "since": at(-7_200),
                "nextCheck": "once one of them is deleted",
            },
            { "reason": "LastCopyKept" },
        ]);
        let lacks = serde_json::json!([{ "type": "Redundant", "status": "False", "reason": "CopiesMissing" }]);
        let fields = [("/status/withheld", held), ("/status/conditions", lacks)];
        let shard = fixtures::shard(&fixtures::with(fixtures::healthy(), &fields));
        let event = |reason: &str| Event {
            reason: reason.into(),
            message: "said long ago".into(),
            warning: true,
            at: Some(at(-60)),
            count: 1,
        };
        let reasons = reasons(&shard, false, &[event("QuarantineFull"), event("BuildWaits")], at(0));
        assert_eq!(
            reasons,
            [
                "the volumes of 8 are kept (QuarantineFull of m-b, for 2h; looked at again once one of them is deleted)",
                "no words were given (LastCopyKept)",
                "said long ago (event BuildWaits, 1m ago)",
            ]
        );
    }

    #[test]
    fn a_primary_that_is_slow_hands_over_and_it_is_told_when() {
        let of = |mode: &str, since: i64| {
            let verdict = serde_json::json!({ "state": "Slow", "since": at(since) });
            let fields = [("/status/verdict", verdict), ("/spec/failover/mode", mode.into())];
            let shard = fixtures::shard(&fixtures::with(fixtures::healthy(), &fields));
            reasons(&shard, false, &[], at(0)).join("\n")
        };
        let soon = of("Automatic", -40);
        assert!(soon.contains(&format!("After 60 s, at {} (in 20s), it hands over", point(at(20)))), "{soon}");
        let due = of("Automatic", -90);
        assert!(due.contains("slow for more than 60 s, so it hands over"), "{due}");
        let manual = of("Manual", -90);
        assert!(manual.contains("on request only") && !manual.contains("hands over"), "{manual}");
        let page = include_str!("../../../docs/failover.md");
        assert!(
            page.contains(&format!("Slow for {} s (`slow_after`)", SLOW_AFTER.as_secs())),
            "the docs say otherwise"
        );
    }

    #[test]
    fn a_spec_that_nobody_has_looked_at_is_told() {
        let shard = fixtures::with(fixtures::healthy(), &[("/status/observedGeneration", 2.into())]);
        let reasons = reasons(&fixtures::shard(&shard), false, &[], at(0));
        assert_eq!(reasons, ["the operator has not looked at the latest change of the spec yet"]);
    }

    #[test]
    fn the_cooldown_holds_back_a_judgement_and_no_fact_and_only_for_its_time() {
        let of = |cause: &str, now: i64| {
            let shard = fixtures::with(fixtures::withheld(), &[("/status/verdict/cause", cause.into())]);
            reasons(&fixtures::shard(&shard), false, &[], at(now))
        };
        let held = of("Deadlocked", 0);
        assert!(held.iter().any(|reason| reason.contains("only hard evidence counts")), "{held:?}");
        assert!(
            held.iter().any(|reason| reason.contains("changed 1m40s ago") && reason.contains("in 8m20s")),
            "{held:?}"
        );
        for (cause, now) in [("Deadlocked", 501), ("VolumeStalled", 0)] {
            let reasons = of(cause, now);
            assert!(!reasons.iter().any(|reason| reason.contains("hard evidence")), "{cause} {now}: {reasons:?}");
        }
    }

    #[test]
    fn of_what_was_said_only_the_latest_of_each_reason_since_the_verdict_counts() {
        let shard = fixtures::shard(&fixtures::withheld());
        let event = |reason: &str, second: i64, message: &str| Event {
            reason: reason.into(),
            message: message.into(),
            warning: true,
            at: Some(at(second)),
            count: 1,
        };
        let events = [
            event("FailoverWithheld", -3_000, "of an earlier verdict"),
            event("FailoverWithheld", -20, "first"),
            event("FailoverWithheld", -5, "second"),
            event("ReplicaJoined", -5, "no refusal"),
            event("BreakerOpen", -9, "too many"),
        ];
        let said = said(&shard, &events, at(0), withholds);
        assert_eq!(said, ["second (event FailoverWithheld, 5s ago)", "too many (event BreakerOpen, 9s ago)"]);
    }

    #[test]
    fn every_event_that_withholds_something_is_one_of_the_operators() {
        let page = include_str!("../../../docs/records.md");
        for reason in WITHHOLDING.into_iter().chain(OF_REPLICAS) {
            assert!(page.contains(&format!("`{reason}`")), "docs/records.md names no event {reason}");
        }
    }

    #[test]
    fn a_cause_that_is_a_judgement_is_soft_in_the_table_of_signatures() {
        let page = include_str!("../../../docs/failover.md");
        for cause in SOFT {
            assert!(page.contains(&format!("| {cause} | SOFT |")), "{cause}");
        }
        let soft = page.lines().filter(|line| line.contains("| SOFT |")).count();
        assert_eq!(soft, SOFT.len(), "the table has other causes that are SOFT");
    }
}
