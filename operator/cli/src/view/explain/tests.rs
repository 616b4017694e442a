//! What `explain` says of shards of many kinds.

use kube::api::DynamicObject;
use serde_json::json;

use super::*;
use crate::view::fixtures::{self, at, of_datastore, with};

fn explained(object: &DynamicObject) -> ExplainScreen {
    explained_by(fixtures::leading(), object)
}

fn explained_by(operator: Leader, object: &DynamicObject) -> ExplainScreen {
    screen(Seen { namespace: "prod".into(), operator, shard: Shard::read(object), ..Seen::default() }, at(0))
}

fn shown(screen: &ExplainScreen) -> String {
    screen.text(Extent::Screen).words().join("\n")
}

#[test]
fn of_a_healthy_shard_nothing_is_wrong_and_it_says_since_when() {
    let text = shown(&explained(&fixtures::healthy()));
    let since = point(at(-12 * 86_400));
    assert!(
        text.starts_with(&format!(
            "Nothing is wrong with m: it has been Healthy for 12d (since {since}). The primary is m-a."
        )),
        "{text}"
    );
    assert!(text.contains("Nothing is to be done."), "{text}");
    assert!(!text.contains("What is wrong") && !text.contains("Why") && !text.contains("Who says so"), "{text}");
}

#[test]
fn of_a_stuck_one_it_says_who_says_so_and_what_is_being_done() {
    let screen = explained(&fixtures::stuck());
    let text = shown(&screen);
    for expected in [
        "m has been Stuck (VolumeStalled) for 7s",
        "fsync hangs, seen by manager m-a and peer m-b",
        "Redundant (CopiesMissing) for 40s: 2/3 replicas",
        "Manager m-a pod Accuses 12s yes fsync hangs for 6 s",
        "Peer m-b node n2 Accuses 11s yes no answer at commit",
        "Operator understudy no: was paused nothing",
        "Failover from m-a to m-b under epoch 5, for 2s",
        "kubectl understudy timeline m-5",
        "failover to m-b, epoch 5",
        "Last change of primary: Failover 12d ago, write gap 4.1s, because of Stopped: kubectl understudy timeline m-4",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(!text.contains("Why nothing"), "{text}");
    assert!(!text.contains("PrimaryHealthy"), "the verdict says it better: {text}");
}

#[test]
fn what_no_operator_looks_after_is_told_as_what_was_known_last() {
    let text = shown(&explained_by(fixtures::silent(), &fixtures::healthy()));
    assert!(text.starts_with("no operator acts: understudy-a holds the Lease understudy-system/understudy"), "{text}");
    for expected in [
        "What was known last: Nothing is wrong with m",
        "What was being done\nNothing.",
        "Why nothing\nno operator acts: whatever is wanted waits until one does",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let stuck = shown(&explained_by(fixtures::silent(), &fixtures::stuck()));
    assert!(stuck.contains("What was being done\nFailover from m-a to m-b"), "{stuck}");
    assert!(stuck.contains("Why not more\nno operator acts"), "{stuck}");
    let unseen = shown(&explained_by(Leader::Never { namespace: "prod".into() }, &fixtures::unseen()));
    assert!(unseen.starts_with("no operator acts: none has ever looked after namespace prod"), "{unseen}");
    assert!(!unseen.contains("What was known last"), "{unseen}");
}

#[test]
fn who_may_not_read_leases_is_told_that_last() {
    let unknown = Leader::Unknown { why: "leases is forbidden".into() };
    let text = shown(&explained_by(unknown, &fixtures::healthy()));
    assert!(text.starts_with("Nothing is wrong with m"), "{text}");
    assert!(
        text.lines().last().is_some_and(|last| last.starts_with("whether an operator acts is not known")),
        "{text}"
    );
}

#[test]
fn of_one_that_is_held_back_it_says_why_nothing_is_done() {
    let text = shown(&explained(&fixtures::withheld()));
    assert!(text.contains("What is being done\nNothing."), "{text}");
    assert!(text.contains("Why nothing\nthe primary was changed 1m40s ago"), "{text}");
    assert!(text.contains("The status does not tell observer by observer"), "{text}");
}

#[test]
fn what_is_held_back_is_told_when_its_event_is_long_gone_with_the_page_to_read() {
    let held = json!([{
        "reason": "LastCopyKept", "about": "m-b", "message": "m-b should be replaced", "since": at(-86_400),
        "nextCheck": "once another good copy is there",
    }]);
    let suspicion = json!({
        "replica": "m-a", "clearedAt": at(-60), "state": "Suspect", "cause": "Stopped", "lastedMs": 900, "count": 3,
    });
    let fields = [("/status/withheld", held), ("/status/lastSuspicion", suspicion)];
    let screen = explained(&with(fixtures::healthy(), &fields));
    let text = shown(&screen);
    for expected in [
        "Why nothing\nm-b should be replaced (LastCopyKept of m-b, for 1d; looked at again once another good copy is there)",
        "What to look at next\nA replica that is not replaced (LastCopyKept): operator/docs/runbooks/replacement-held.md",
        "Last suspicion that a commit ended: Suspect (Stopped) of m-a 1m ago, its first sign 900 ms old; 3 so far",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let json = serde_json::to_value(&screen).unwrap();
    assert_eq!(json.pointer("/withheld/0/reason"), Some(&json!("LastCopyKept")));
    assert_eq!(json.pointer("/runbooks/0/because"), Some(&json!("LastCopyKept")));
}

#[test]
fn of_a_paused_one_it_says_how_it_goes_on() {
    let text = shown(&explained(&fixtures::paused()));
    assert!(text.contains("nothing: spec.paused"), "{text}");
    assert!(text.contains("`kubectl understudy resume m`"), "{text}");
    let of_datastore = of_datastore(fixtures::paused(), "metrics");
    let seen = Seen { shard: Shard::read(&of_datastore), datastore_paused: true, ..Seen::default() };
    let text = shown(&screen(seen, at(0)));
    assert!(text.contains("`kubectl understudy resume datastore/metrics`"), "{text}");
}

#[test]
fn of_one_without_a_status_it_says_what_to_look_at() {
    let text = shown(&explained(&fixtures::unseen()));
    assert!(text.starts_with("m has no status: no operator has looked at it yet."), "{text}");
    assert!(text.contains("kubectl get pods -A -l app.kubernetes.io/name=understudy"), "{text}");
}

#[test]
fn a_healthy_primary_of_a_shard_that_is_not_whole_is_not_nothing() {
    let conditions = json!([
        { "type": "Ready", "status": "False", "reason": "NotRedundant", "message": "2/3 replicas" },
        { "type": "Degraded", "status": "True", "reason": "NotRedundant", "message": "2/3 replicas", "lastTransitionTime": at(-30) },
        { "type": "Promotable", "status": "False", "reason": "SingleReplica", "message": "one replica is asked for" },
    ]);
    let text = shown(&explained(&with(fixtures::healthy(), &[("/status/conditions", conditions)])));
    assert!(text.contains("but the shard is not whole"), "{text}");
    assert!(text.contains("Degraded (NotRedundant) for 30s: 2/3 replicas"), "{text}");
    assert!(!text.contains("SingleReplica") && !text.contains("Ready (NotRedundant)"), "{text}");
    assert!(!text.contains("Nothing is to be done."), "{text}");
}

#[test]
fn of_a_primary_that_is_dead_it_never_says_that_nothing_is_to_be_done() {
    let verdict = json!({ "state": "Gone", "cause": "ProcessExited", "since": at(-1), "message": "mysqld ended" });
    let text = shown(&explained(&with(fixtures::healthy(), &[("/status/verdict", verdict)])));
    assert!(text.contains("What is being done\nNothing that the status tells of yet."), "{text}");
}

#[test]
fn events_are_told_newest_first_and_what_was_not_read_is_told() {
    let event = |second: i64, reason: &str| Event {
        reason: reason.into(),
        message: "said".into(),
        warning: false,
        at: Some(at(second)),
        count: 3,
    };
    let seen = Seen {
        shard: Shard::read(&fixtures::healthy()),
        events: vec![event(-90, "First"), event(-5, "Second")],
        not_read: vec!["events: forbidden".into()],
        ..Seen::default()
    };
    let screen = screen(seen, at(0));
    let text = shown(&screen);
    assert!(text.contains("5s 3 Second said\n1m30s 3 First said"), "{text}");
    assert!(text.contains("Not read: events: forbidden"), "{text}");
}

#[test]
fn json_has_everything_that_an_answer_rests_on() {
    let availability = json!({ "windowDays": 30, "unavailableSeconds": 12.5, "failovers": 2, "mttrSeconds": 6.5 });
    let screen = explained(&with(fixtures::stuck(), &[("/status/availability", availability)]));
    assert!(shown(&screen).contains("Without commits: 12.5 s in 30d, 2 failovers, mean time to recovery 6.5 s"));
    let json = serde_json::to_value(&screen).unwrap();
    for (pointer, value) in [
        ("/shard", json!("m")),
        ("/operator/state", json!("Leading")),
        ("/verdict/state", json!("Stuck")),
        ("/observers/1/says", json!("no answer at commit")),
        ("/observers/2/counts", json!(false)),
        ("/transition/to", json!("m-b")),
        ("/doing", json!("failover to m-b, epoch 5")),
        ("/whyNothing", json!([])),
        ("/replicas/2/name", json!("m-c")),
        ("/availability/mttrSeconds", json!(6.5)),
        ("/wrong/0/condition", json!("Redundant")),
    ] {
        assert_eq!(json.pointer(pointer), Some(&value), "{pointer} in {json:#}");
    }
}
