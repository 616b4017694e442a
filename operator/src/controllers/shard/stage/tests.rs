//! A stage that panics, and passes against an API server that is slow, silent, or told something else by others.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use understudy_decide::decision::{Claim, NewReplica};
use understudy_decide::failover::record::{Entry, Phase};
use understudy_decide::failover::snapshot::Kind;
use understudy_wire::Epoch;

use super::*;
use crate::controllers::shard::showing::Shown;
use crate::fake::FakeApi;

#[test]
fn the_route_is_told_of_when_it_is_written_and_everything_else_when_it_was() {
    let decided = Timestamp::from_second(1_000).unwrap();
    let passed = Duration::from_millis(120);
    let entry = |step, ago| Entry { step, epoch: Epoch(5), ago, detail: None };
    let update = |entries: Vec<Entry>| RecordUpdate {
        name: "m-5".to_owned(),
        kind: Kind::Failover,
        epoch: Epoch(5),
        from: None,
        to: None,
        cause: None,
        message: None,
        phase: Phase::Rebuilding,
        result: None,
        entries,
        grounds: None,
        offsets_after: None,
    };
    for (case, entries, expected) in [
        (
            "published in this pass",
            vec![entry(Milestone::Promoted, 0), entry(Milestone::Routed, 0)],
            vec![(Milestone::Promoted, 0), (Milestone::Routed, 120)],
        ),
        (
            "published long ago by another operator",
            vec![entry(Milestone::Promoted, 900), entry(Milestone::Routed, 900)],
            vec![(Milestone::Promoted, -900), (Milestone::Routed, -900)],
        ),
        ("not published", vec![entry(Milestone::Claimed, 0)], vec![(Milestone::Claimed, 0)]),
    ] {
        let (told, at) = told_when_routed(update(entries), decided, passed);
        let since_decided = |entry: &Entry| {
            let late = at.as_millisecond() - decided.as_millisecond();
            (entry.step, late - i64::try_from(entry.ago).unwrap())
        };
        assert_eq!(told.entries.iter().map(since_decided).collect::<Vec<_>>(), expected, "{case}");
    }
}

/// A shard on which decisions do nothing by themselves.
fn api() -> FakeApi {
    FakeApi::with([json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": { "name": "m", "namespace": "prod", "uid": "u", "finalizers": [farewell::FINALIZER] },
        "spec": {
            "replicas": 2, "mysql": { "image": "mysql:9" }, "storage": { "size": "2Gi" }, "paused": true,
        },
    })])
}

async fn shared(api: &FakeApi) -> Shared {
    let context = api.context().await;
    let (pulse, beating) = Pulse::new(context.stop.clone());
    let (registrar, writing) = Registrar::new(&context);
    context.tasks.spawn(beating);
    context.tasks.spawn(writing);
    Shared { context, pulse, company: Company::default(), registrar }
}

async fn stage(api: &FakeApi) -> Stage {
    Stage::new(&shared(api).await, "prod", "m", Arc::default())
}

/// Something is in the way of the shard, in these words.
fn obstruct(stage: &Stage, words: &str) {
    let trouble = Trouble { reason: Reason::Refused, message: words.to_owned() };
    stage.context.troubles.set("prod", "m", Some(trouble));
}

/// What a pass has before it, with these steps decided on.
fn decided(stage: &mut Stage, steps: Vec<Step>) -> (Objects, Snapshot, Decision) {
    let now = Instant::now();
    let shown = stage.showing.written("m");
    stage.take_in(shown);
    let shard = stage.shard.clone().unwrap();
    let objects = stage.objects(shard, now);
    let snapshot = stage.observe(&objects, now);
    let decision = Decision { steps, ..plan(&snapshot) };
    stage.reporter.prepare(&snapshot, &decision, &objects, None);
    (objects, snapshot, decision)
}

/// One pass that decides on this step.
async fn pass_with(stage: &mut Stage, step: Step) {
    let (objects, snapshot, decision) = decided(stage, vec![step]);
    stage.carry_out(&decision, &snapshot, &objects, Instant::now()).await;
}

fn claim(after: u64) -> Step {
    Step::Claim(Claim {
        after: Epoch(after),
        kind: Kind::Failover,
        from: None,
        to: ReplicaName::new("m-a"),
        record: None,
        request: None,
        cause: "ProcessExited".to_owned(),
    })
}

fn intend() -> Step {
    Step::IntendBootstrap { replica: ReplicaName::new("m-a") }
}

fn publish() -> Step {
    Step::Publish {
        epoch: Epoch(1),
        primary: ReplicaName::new("m-a"),
        address: "10.0.0.1:3306".to_owned(),
        in_a_row: 0,
    }
}

fn grow() -> Step {
    let name = ReplicaName::new("m-a");
    let new = NewReplica { name, server_id: 1, replaces: None, first: true, avoid_nodes: Vec::new() };
    Step::Grow { first: 1, replicas: vec![new] }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_written_holds_up_no_pass_and_is_written_in_the_end() {
    let api = api();
    api.hang("PUT shards");
    let mut stage = stage(&api).await;
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        stage.pass().await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(stage.showing.is_busy(), "one write is under way");
    api.allow("PUT shards");
    let verdict = || api.object("shards/m").is_some_and(|shard| shard["status"]["verdict"].is_object());
    for _ in 0..100 {
        if verdict() {
            break;
        }
        stage.pass().await;
        tokio::time::sleep(TICK).await;
    }
    assert!(verdict(), "{:?}", api.object("shards/m"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_lands_though_every_write_takes_longer_than_it_is_waited_for() {
    let api = api();
    api.delay("PUT shards", Duration::from_millis(900));
    let mut stage = stage(&api).await;
    stage.pass().await;
    assert!(stage.showing.is_busy(), "a status is on its way");
    let claimed = || api.object("shards/m").is_some_and(|shard| shard["status"]["transition"].is_object());
    let began = tokio::time::Instant::now();
    let mut tries = 0;
    while !claimed() && began.elapsed() < Duration::from_secs(10) {
        tries += 1;
        obstruct(&stage, &format!("there is something new to show at try {tries}"));
        pass_with(&mut stage, claim(0)).await;
        tokio::time::sleep(BREATH).await;
    }
    assert!(claimed(), "not after {tries} tries: {:?}", api.object("shards/m"));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_shown_after_a_step_that_was_not_taken_unless_a_claim_is_to_be_tried_again() {
    for (case, step, refusal, is_shown) in [
        ("a claim finds another version", claim(0), None, false),
        ("a claim is refused for good", claim(0), Some((422, "no such kind of transition")), true),
        ("a claim fails in passing", claim(0), Some((503, "too busy")), false),
        ("what can wait finds another version", grow(), None, true),
    ] {
        let api = api();
        let mut stage = stage(&api).await;
        match refusal {
            Some((code, words)) => api.refuse("PUT shards", code, words),
            None => api.change("shards/m", |shard| shard["metadata"]["labels"] = json!({ "team": "metrics" })),
        }
        obstruct(&stage, "no such image");
        pass_with(&mut stage, step).await;
        assert_eq!(stage.showing.is_busy(), is_shown, "{case}");
        assert_eq!(api.object("shards/m").unwrap()["status"], Value::Null, "{case}: it was not taken");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_names_the_version_that_was_decided_on_whatever_is_heard_before_it_is_taken() {
    let calm = || json!({});
    let changing = || json!({ "epoch": 1, "transition": { "kind": "Failover", "epoch": 1, "to": "m-a" } });
    for (case, status, step, (part, field, value)) in [
        ("a claim, and a person pauses failover", calm(), claim(0), ("spec", "failover", json!({ "mode": "Paused" }))),
        ("a claim, and the change before it is published", changing(), claim(1), ("status", "primary", json!("m-a"))),
        (
            "a publish, and another address is",
            changing(),
            publish(),
            ("status", "primaryAddress", json!("10.0.0.9:3306")),
        ),
        (
            "an intent, and another replica is named",
            calm(),
            intend(),
            ("status", "bootstrap", json!({ "replica": "m-b", "shardUid": "u" })),
        ),
        ("growing, and one replica less is wanted", calm(), grow(), ("spec", "replicas", json!(1))),
    ] {
        let api = api();
        api.change("shards/m", |shard| shard["status"] = status);
        let mut stage = stage(&api).await;
        let (objects, snapshot, _) = decided(&mut stage, Vec::new());
        api.change("shards/m", |shard| shard[part][field] = value);
        let theirs = api.object("shards/m").unwrap();
        stage.overlay.wrote_shard(serde_json::from_value(theirs.clone()).unwrap());
        let taken = stage.take(&step, &snapshot, &objects).await;
        assert!(taken.as_ref().is_err_and(ActError::is_conflict), "{case}: {taken:?}");
        assert_eq!(api.object("shards/m"), Some(theirs), "{case}");
        assert!(api.object("replicas/m-a").is_none(), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_stage_wrote_itself_is_no_other_version() {
    let api = api();
    let mut stage = stage(&api).await;
    let (objects, snapshot, _) = decided(&mut stage, Vec::new());
    stage.report(&objects);
    assert!(stage.showing.is_busy(), "a status is on its way");
    let taken = stage.take(&claim(0), &snapshot, &objects).await;
    assert!(matches!(taken, Ok(Taken::Done)), "{taken:?}");
    assert_eq!(api.writes(), ["PUT shards/m", "PUT shards/m"]);
    assert_eq!(api.object("shards/m").unwrap()["status"]["epoch"], 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_takes_back_nothing_of_what_was_decided_on() {
    let api = api();
    let mut stage = stage(&api).await;
    decided(&mut stage, Vec::new());
    let before = stage.shard.clone().unwrap();
    api.change("shards/m", |shard| shard["metadata"]["labels"] = json!({ "team": "metrics" }));
    stage.shard = Some(serde_json::from_value(api.object("shards/m").unwrap()).unwrap());
    let shard = stage.shard.clone().unwrap();
    let objects = stage.objects(shard, Instant::now());
    let snapshot = stage.observe(&objects, Instant::now());
    stage.take_in_own(vec![Shown::Shard(before)]);
    let taken = stage.take(&claim(0), &snapshot, &objects).await;
    assert!(matches!(taken, Ok(Taken::Done)), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_on_the_shard_does_not_wait_for_the_statuses_of_replicas() {
    let publishable = || json!({ "epoch": 1, "transition": { "kind": "Failover", "epoch": 1, "to": "m-a" } });
    for (case, status, step) in [
        ("a claim", json!({}), claim(0)),
        ("a publish", publishable(), publish()),
        ("an intent", json!({}), intend()),
        ("growing", json!({}), grow()),
    ] {
        let api = api();
        api.change("shards/m", |shard| shard["status"] = status);
        api.add(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Replica",
            "metadata": { "name": "m-z", "namespace": "prod", "uid": "z" },
            "spec": { "shard": "m", "serverId": 9 },
        }));
        api.hang("PUT replicas");
        let mut stage = stage(&api).await;
        let (objects, snapshot, _) = decided(&mut stage, Vec::new());
        stage.report(&objects);
        let began = tokio::time::Instant::now();
        let taken = stage.take(&step, &snapshot, &objects).await;
        assert!(matches!(taken, Ok(Taken::Done)), "{case}: {taken:?}");
        assert!(began.elapsed() < BREATH, "{case}: {:?}", began.elapsed());
        assert!(stage.showing.is_busy(), "{case}: a Replica's status is still on its way");
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_leaves_when_another_replica_took_office_last_as_it_was() {
    const EARLIER: &str = "2026-01-01T07:00:00Z";
    const LATER: &str = "2026-01-01T08:00:00Z";
    let last = |kind: &str, changed: Value| json!({ "name": "m-0", "kind": kind, "time": LATER, "changedAt": changed });
    for (case, kind, before, expected) in [
        ("it was written down", "Confirm", last("Confirm", json!(EARLIER)), Some(EARLIER)),
        ("it was not, as by an earlier operator", "Confirm", last("Failover", Value::Null), Some(LATER)),
        ("there was no change before", "Confirm", Value::Null, None),
    ] {
        let written = published(kind, before).await;
        assert_eq!(written["changedAt"].as_str(), expected, "{case}");
        assert_eq!(written["kind"], kind, "{case}");
    }
    let written = published("Failover", last("Failover", json!(EARLIER))).await;
    assert!(written["time"].is_string());
    assert_eq!(written["changedAt"], written["time"], "another replica takes office now");
}

/// `status.lastFailover` after a change of this kind is published.
async fn published(kind: &str, before: Value) -> Value {
    let api = api();
    api.change("shards/m", |shard| {
        let transition = json!({ "kind": kind, "epoch": 1, "to": "m-a" });
        shard["status"] = json!({ "epoch": 1, "transition": transition, "lastFailover": before });
    });
    let mut stage = stage(&api).await;
    let (objects, snapshot, _) = decided(&mut stage, Vec::new());
    let taken = stage.take(&publish(), &snapshot, &objects).await;
    assert!(matches!(taken, Ok(Taken::Done)), "{kind}: {taken:?}");
    api.object("shards/m").unwrap()["status"]["lastFailover"].clone()
}

#[tokio::test(start_paused = true)]
async fn that_a_shard_begins_empty_beside_volumes_of_an_earlier_one_is_said() {
    for (uid, said) in [("u", 0), ("u-of-before", 1)] {
        let api = api();
        api.add(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "m-z", "namespace": "prod", "labels": {
                "app.kubernetes.io/managed-by": "understudy", "understudy.dev/shard": "m", "understudy.dev/shard-uid": uid,
            }},
        }));
        let mut stage = stage(&api).await;
        let (objects, snapshot, _) = decided(&mut stage, Vec::new());
        // Nobody hears events in a test, so each that is said is dropped.
        let before = stage.context.events.dropped();
        let taken = stage.take(&intend(), &snapshot, &objects).await;
        assert!(matches!(taken, Ok(Taken::Done)), "{taken:?}");
        assert_eq!(stage.context.events.dropped() - before, said, "a volume of {uid}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_stage_that_panicked_another_begins_though_nothing_changes_and_nothing_is_told_between() {
    let api = api();
    api.change("shards/m", |shard| shard["status"] = json!({ "primary": "m-a", "epoch": 1 }));
    let shared = shared(&api).await;
    shared.context.metrics.leading.set(1);
    let (begun, stop) = (AtomicU32::new(0), CancellationToken::new());
    let stage = || async {
        let mut running = pin!(Stage::new(&shared, "prod", "m", Arc::default()).run(stop.clone()));
        if begun.fetch_add(1, Ordering::Relaxed) == 0 {
            assert!(tokio::time::timeout(TICK, running.as_mut()).await.is_err(), "it ended by itself");
            panic!("a mistake in the operator");
        }
        running.await;
    };
    let told = || {
        let metrics = shared.context.metrics.render().unwrap();
        (metrics.contains("shard=\"m\""), shared.company.fleet(Instant::now()).shards)
    };
    let look = async {
        tokio::time::sleep(TICK / 2).await;
        assert_eq!((begun.load(Ordering::Relaxed), told()), (1, (true, 1)));
        tokio::time::sleep(TICK).await;
        assert_eq!((begun.load(Ordering::Relaxed), told()), (1, (false, 0)), "it panicked");
        tokio::time::sleep(AFTER_PANIC).await;
        assert_eq!((begun.load(Ordering::Relaxed), told()), (2, (true, 1)));
        stop.cancel();
    };
    tokio::join!(keep_on("m", &stop, stage), look);
    assert_eq!(told(), (false, 0), "it was asked to stop");
}
