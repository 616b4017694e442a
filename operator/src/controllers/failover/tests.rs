use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use understudy_api::v1alpha1::{FailoverPhase, FailoverResult, FailoverSpec, FailoverStatus, RebuildNote};
use understudy_api::{Failover, Shard};
use understudy_decide::failover::assess::Ballot;
use understudy_decide::failover::candidate::{Candidate, Ranking, Unfit};
use understudy_decide::failover::record::{Entry, Grounds, Milestone, Outcome, Phase, RecordUpdate};
use understudy_decide::failover::snapshot::Kind;
use understudy_wire::evidence::StoredOffset;
use understudy_wire::{Epoch, ReplicaName};

use super::merge::candidates;
use super::waiting::{Turn, Waiting};
use super::{Job, Measured, Registrar, is_leftover, merge};
use crate::fake::FakeApi;

fn update(phase: Phase, entries: Vec<Entry>) -> RecordUpdate {
    RecordUpdate {
        name: "m-5".into(),
        kind: Kind::Failover,
        epoch: Epoch(5),
        from: Some(ReplicaName::new("m-a")),
        to: Some(ReplicaName::new("m-b")),
        cause: Some("ProcessExited".into()),
        message: None,
        phase,
        result: None,
        entries,
        grounds: None,
        offsets_after: None,
    }
}

fn job(update: RecordUpdate, second: i64) -> Job {
    let shard = Shard::new(
        "m",
        serde_json::from_value(serde_json::json!({
            "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" },
        }))
        .expect("a spec"),
    );
    let at = Timestamp::from_second(1_800_000_000 + second).expect("a time");
    Job { shard, update, at, measured: Measured::default() }
}

fn empty() -> Failover {
    Failover::new(
        "m-5",
        FailoverSpec {
            shard: "m".into(),
            kind: Default::default(),
            reason: None,
            target: None,
            epoch: Some(5),
            drill: None,
        },
    )
}

fn offset(next_offset: i64) -> StoredOffset {
    StoredOffset { consumer: "store".into(), topic: "t".into(), partition: 0, next_offset }
}

fn ranking() -> Ranking {
    let fit = |name: &str| Candidate {
        name: ReplicaName::new(name),
        executed: Default::default(),
        reach: Default::default(),
        offsets: 0,
        free: 0,
        elsewhere: false,
        delay: None,
    };
    Ranking { fit: vec![fit("m-b"), fit("m-c")], unfit: vec![(ReplicaName::new("m-d"), Unfit::Condemned)] }
}

#[test]
fn a_record_grows_and_nothing_in_it_changes() {
    let mut record = empty();
    let mut first = update(
        Phase::Claimed,
        vec![
            Entry::ago(Milestone::FirstSign, Epoch(5), 400),
            Entry::now(Milestone::Claimed, Epoch(5)).saying("for m-b"),
        ],
    );
    first.grounds = Some(Box::new(Grounds { offsets_before: vec![offset(120)], ..Grounds::default() }));
    let first = job(first, 0);
    assert!(merge(&mut record, &first));
    assert!(!merge(&mut record, &first), "the same again adds nothing");

    let mut promoted = update(Phase::Rebuilding, vec![Entry::now(Milestone::Promoted, Epoch(5))]);
    promoted.offsets_after = Some(vec![offset(100)]);
    assert!(merge(&mut record, &job(promoted, 1)));
    assert!(!merge(&mut record, &job(update(Phase::Promoting, vec![]), 2)), "a phase never goes back");

    let status = record.status.clone().expect("a status");
    let steps: Vec<_> = status.timeline.iter().map(|entry| (entry.step.as_str(), entry.elapsed_ms)).collect();
    assert_eq!(steps, [("FirstSign", 0), ("Claimed", 400), ("Promoted", 1_400)]);
    assert_eq!((status.phase, status.replayed_records), (FailoverPhase::Rebuilding, Some(20)));
    assert_eq!(status.started_at.expect("begun").0, first.at - SignedDuration::from_millis(400));

    let mut closed = update(Phase::Closed, vec![Entry::now(Milestone::Redundant, Epoch(5))]);
    closed.result = Some(Outcome::Succeeded);
    let mut closed = job(closed, 30);
    closed.measured.write_gap = Some(1.26);
    assert!(merge(&mut record, &closed));
    let status = record.status.clone().expect("a status");
    assert_eq!((status.phase, status.result), (FailoverPhase::Closed, Some(FailoverResult::Succeeded)));
    assert_eq!((status.write_gap_seconds, status.gap.as_deref()), (Some(1.26), Some("1.3s")));
    let complete = status.conditions.iter().find(|condition| condition.type_ == "Complete").expect("a condition");
    assert_eq!((complete.status.as_str(), complete.reason.as_str()), ("True", "Succeeded"));
    assert!(
        !merge(&mut record, &job(update(Phase::Closed, vec![Entry::now(Milestone::Following, Epoch(5))]), 40)),
        "it is over"
    );
}

#[test]
fn a_second_candidate_has_steps_of_its_own_in_the_same_record() {
    let mut record = empty();
    merge(
        &mut record,
        &job(update(Phase::Claimed, vec![Entry::now(Milestone::Claimed, Epoch(5)).saying("for m-b")]), 0),
    );
    let mut second = update(Phase::Claimed, vec![Entry::now(Milestone::Claimed, Epoch(6)).saying("for m-c")]);
    second.epoch = Epoch(6);
    second.to = Some(ReplicaName::new("m-c"));
    assert!(merge(&mut record, &job(second, 3)));
    let status = record.status.expect("a status");
    assert_eq!(status.timeline.len(), 2);
    assert_eq!((status.epoch, status.to.as_deref(), status.from.as_deref()), (Some(6), Some("m-c"), Some("m-a")));
}

#[test]
fn the_one_that_was_asked_for_is_taken_wherever_it_stands() {
    let ranking = ranking();
    let zones = ["m-b", "m-c", "m-d"].map(|name| (ReplicaName::new(name), format!("zone of {name}")));
    let grounds = Grounds { ranking, zones: zones.into(), ..Grounds::default() };
    let notes = candidates(&grounds, Some(&ReplicaName::new("m-c")));
    let said: Vec<_> = notes.iter().map(|note| (note.replica.as_str(), note.rejected.as_deref())).collect();
    assert_eq!(said, [("m-b", Some("ranked 1")), ("m-c", None), ("m-d", Some("condemned"))]);
    assert!(notes.iter().all(|note| note.zone == Some(format!("zone of {}", note.replica))), "{notes:?}");
}

#[test]
fn evidence_is_as_old_as_it_was() {
    let mut record = empty();
    let mut first = update(Phase::Claimed, vec![]);
    let abstained = Ballot { observer: "consumer store-0".into(), says: "it was paused itself".into(), age: 70 };
    first.grounds = Some(Box::new(Grounds { own_age: 340, abstained: vec![abstained], ..Grounds::default() }));
    merge(&mut record, &job(first, 0));
    let ages: Vec<_> = record.status.expect("a status").evidence.iter().map(|note| note.age_ms).collect();
    assert_eq!(ages, [340, 70]);
}

#[test]
fn the_time_to_redundancy_counts_from_the_first_sign() {
    let mut record = empty();
    let begun = vec![Entry::ago(Milestone::FirstSign, Epoch(5), 2_500), Entry::now(Milestone::Claimed, Epoch(5))];
    merge(&mut record, &job(update(Phase::Claimed, begun), 0));
    let mut closed = job(update(Phase::Closed, vec![Entry::now(Milestone::Redundant, Epoch(5))]), 30);
    closed.measured.rebuild = Some(RebuildNote {
        replica: Some("m-d".into()),
        started_at: Some(MicroTime(closed.at - SignedDuration::from_secs(25))),
        finished_at: Some(MicroTime(closed.at)),
        seconds: None,
    });
    assert!(merge(&mut record, &closed));
    let rebuild = record.status.clone().expect("a status").rebuild.expect("a replacement");
    assert_eq!((rebuild.replica.as_deref(), rebuild.seconds), (Some("m-d"), Some(32.5)));
    assert!(!merge(&mut record, &closed), "once");
}

/// The same, about another shard in a namespace.
fn of_shard(shard: &str, update: RecordUpdate, second: i64) -> Job {
    let mut job = job(RecordUpdate { name: format!("{shard}-5"), ..update }, second);
    job.shard.metadata.name = Some(shard.to_owned());
    job.shard.metadata.namespace = Some("prod".to_owned());
    job
}

fn steps(status: &FailoverStatus) -> Vec<&str> {
    status.timeline.iter().map(|entry| entry.step.as_str()).collect()
}

/// The updates of a whole change: the first candidate fails, the second one takes over, and the record is closed and measured after that.
fn change() -> Vec<Job> {
    let now = |step: Milestone, epoch: u64| vec![Entry::now(step, Epoch(epoch))];
    let second = |phase: Phase, entries: Vec<Entry>| {
        let to = Some(ReplicaName::new("m-c"));
        RecordUpdate { epoch: Epoch(6), to, ..update(phase, entries) }
    };
    let mut claimed = update(Phase::Claimed, now(Milestone::Claimed, 5));
    claimed.entries.insert(0, Entry::ago(Milestone::FirstSign, Epoch(5), 2_500));
    claimed.message = Some("mysqld exited".into());
    let grounds = Grounds { ranking: ranking(), offsets_before: vec![offset(120)], ..Grounds::default() };
    claimed.grounds = Some(Box::new(grounds));
    let mut promoted = second(Phase::Rebuilding, now(Milestone::Promoted, 6));
    promoted.offsets_after = Some(vec![offset(100)]);
    let closed = |step| {
        let result = Some(Outcome::Succeeded);
        RecordUpdate { result, ..second(Phase::Closed, now(step, 6)) }
    };
    let mut measured = job(closed(Milestone::Following), 40);
    measured.measured.write_gap = Some(1.26);
    let told = [
        (claimed, 0),
        (update(Phase::Promoting, now(Milestone::Reprobed, 5)), 1),
        (update(Phase::Promoting, vec![]), 2),
        (update(Phase::Promoting, now(Milestone::Fenced, 5)), 3),
        (second(Phase::Claimed, now(Milestone::Claimed, 6)), 4),
        (promoted, 5),
        (second(Phase::Rebuilding, now(Milestone::Routed, 6)), 6),
        (second(Phase::Rebuilding, now(Milestone::Routed, 6)), 7),
        (closed(Milestone::Redundant), 30),
        (second(Phase::Rebuilding, now(Milestone::Condemned, 6)), 35),
    ];
    told.into_iter().map(|(update, second)| job(update, second)).chain([measured]).collect()
}

#[test]
fn what_was_told_of_a_record_while_it_waited_makes_it_as_if_it_had_been_told_one_by_one() {
    let recorded = |jobs: &[Job]| {
        let mut record = empty();
        for job in jobs {
            merge(&mut record, job);
        }
        let mut status = record.status.expect("a status");
        // Since when it has not been complete is not known more exactly than by the last that was told.
        status.conditions.clear();
        status
    };
    let told = change();
    for count in 1..=told.len() {
        let mut waiting = Waiting::default();
        // A stage says the same again with each pass.
        told[..count].iter().flat_map(|job| [job, job]).for_each(|job| waiting.note(job.clone()));
        let Turn::Of(_, jobs) = waiting.take(Instant::now()) else { panic!("{count}: nothing waits") };
        assert_eq!(recorded(&jobs), recorded(&told[..count]), "{count}");
        assert!(jobs.len() <= 5, "one for each phase of each epoch: {}", jobs.len());
    }
    let all = recorded(&told);
    assert_eq!(
        (steps(&all).len(), all.result, all.gap.as_deref()),
        (8, Some(FailoverResult::Succeeded), Some("1.3s")),
        "{:?}",
        steps(&all)
    );
}

#[test]
fn a_record_that_could_not_be_written_waits_and_is_told_the_rest_then() {
    let start = Instant::now();
    let soon = start + Duration::from_millis(500);
    let claimed = |shard| of_shard(shard, update(Phase::Claimed, vec![]), 0);
    let mut waiting = Waiting::default();
    waiting.note(claimed("a"));
    waiting.note(claimed("b"));
    let take = |waiting: &mut Waiting, now| match waiting.take(now) {
        Turn::Of((namespace, record), jobs) => (format!("{namespace}/{record}"), jobs),
        Turn::Wait(until) => (format!("wait {:?}", until.map(|until| until - start)), vec![]),
    };
    let (first, jobs) = take(&mut waiting, start);
    assert_eq!((first.as_str(), jobs.len()), ("prod/a-5", 1));
    waiting.put_back(("prod".into(), first.split_once('/').expect("a name").1.into()), jobs, soon);
    waiting.note(of_shard("a", update(Phase::Promoting, vec![]), 1));
    assert_eq!(take(&mut waiting, start).0, "prod/b-5", "it holds up no other");
    assert_eq!(take(&mut waiting, start).0, "wait Some(500ms)");
    let (again, jobs) = take(&mut waiting, soon);
    let phases: Vec<_> = jobs.iter().map(|job| job.update.phase).collect();
    assert_eq!((again.as_str(), phases), ("prod/a-5", vec![Phase::Claimed, Phase::Promoting]));
    assert_eq!(take(&mut waiting, soon).0, "wait None");
}

#[tokio::test]
async fn when_many_shards_change_at_once_each_record_is_written_with_all_of_its_steps() {
    let api = FakeApi::default();
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    let shards: Vec<_> = (0..300).map(|number| format!("m-{number}")).collect();
    for (second, phase, step) in [
        (0, Phase::Claimed, Milestone::Claimed),
        (1, Phase::Promoting, Milestone::Fenced),
        (2, Phase::Rebuilding, Milestone::Promoted),
    ] {
        for shard in &shards {
            registrar.note(of_shard(shard, update(phase, vec![Entry::now(step, Epoch(5))]), second));
        }
    }
    let _writing = AbortOnDropHandle::new(tokio::spawn(writing));
    let status = |shard: &str| {
        let record = api.object(&format!("failovers/{shard}-5"))?;
        serde_json::from_value::<FailoverStatus>(record["status"].clone()).ok()
    };
    let is_written = |shard: &str| status(shard).is_some_and(|status| status.phase == FailoverPhase::Rebuilding);
    // Their turns come in the order in which they were told of.
    let all = async {
        while !is_written("m-299") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the last record");
    for shard in &shards {
        let status = status(shard).expect("a record");
        assert_eq!(steps(&status), ["Claimed", "Fenced", "Promoted"], "{shard}");
    }
}

/// A record that was closed, as the API server has it.
fn closed(owners: Value) -> Value {
    json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
        "metadata": { "name": "m-5", "namespace": "prod", "ownerReferences": owners },
        "spec": { "shard": "m", "kind": "Failover", "epoch": 5 }, "status": { "phase": "Closed" },
    })
}

fn owner(kind: &str, uid: &str) -> Value {
    json!({ "apiVersion": "understudy.dev/v1alpha1", "kind": kind, "name": "m", "uid": uid })
}

#[test]
fn a_record_is_left_over_when_it_was_made_for_another_shard() {
    let mut shard = job(update(Phase::Claimed, vec![]), 0).shard;
    shard.metadata.uid = Some("new".into());
    for (case, owners, expected) in [
        ("a person's", json!([]), false),
        ("of this one", json!([owner("Shard", "new")]), false),
        ("of an earlier one", json!([owner("Shard", "old")]), true),
        ("a request that another tool made", json!([owner("Workflow", "w1")]), false),
    ] {
        let record: Failover = serde_json::from_value(closed(owners)).expect("a record");
        assert_eq!(is_leftover(&record, &shard), expected, "{case}");
    }
}

/// What is to be told of the first change of the Shard of this UID.
fn of_uid(uid: &str, phase: Phase, step: Milestone) -> Job {
    let mut job = of_shard("m", update(phase, vec![Entry::now(step, Epoch(5))]), 0);
    job.shard.metadata.uid = Some(uid.to_owned());
    job
}

/// Waits until the record is of the Shard of this UID and has a step. Gives its steps.
async fn written_for(api: &FakeApi, uid: &str) -> Vec<String> {
    let steps = || {
        let record =
            api.object("failovers/m-5").filter(|record| record["metadata"]["ownerReferences"][0]["uid"] == uid)?;
        let status: FailoverStatus = serde_json::from_value(record["status"].clone()).ok()?;
        let steps: Vec<_> = status.timeline.into_iter().map(|entry| entry.step).collect();
        Some(steps).filter(|steps| !steps.is_empty())
    };
    until(steps).await
}

async fn until<T>(there: impl Fn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = there() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it comes")
}

/// As the garbage collector does.
fn collect(api: &FakeApi) {
    api.change("failovers/m-5", |record| record["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
}

#[tokio::test]
async fn a_shard_that_was_made_again_has_records_of_its_own() {
    let api = FakeApi::default();
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    let _writing = AbortOnDropHandle::new(tokio::spawn(writing));
    registrar.note(of_uid("old", Phase::Closed, Milestone::Redundant));
    assert_eq!(written_for(&api, "old").await, ["Redundant"]);
    collect(&api);
    registrar.note(of_uid("new", Phase::Claimed, Milestone::Claimed));
    assert_eq!(written_for(&api, "new").await, ["Claimed"]);
}

#[tokio::test]
async fn a_record_waits_until_that_of_an_earlier_shard_was_collected() {
    let shard = json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
        "metadata": { "name": "m", "namespace": "prod", "uid": "new" },
        "spec": { "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" } },
    });
    let api = FakeApi::with([shard, closed(json!([owner("Shard", "old")]))]);
    let context = api.context().await;
    let (registrar, writing) = Registrar::new(&context);
    let _writing = AbortOnDropHandle::new(tokio::spawn(writing));
    registrar.note(of_uid("new", Phase::Claimed, Milestone::Claimed));
    until(|| api.writes().contains(&"POST failovers/m-5".to_owned()).then_some(())).await;
    collect(&api);
    assert_eq!(written_for(&api, "new").await, ["Claimed"]);
}

#[test]
fn what_waits_of_an_earlier_shard_is_forgotten_when_the_next_one_speaks() {
    let mut waiting = Waiting::default();
    waiting.note(of_uid("old", Phase::Closed, Milestone::Redundant));
    waiting.note(of_uid("new", Phase::Claimed, Milestone::Claimed));
    let Turn::Of(_, jobs) = waiting.take(Instant::now()) else { panic!("nothing waits") };
    let told: Vec<_> = jobs.iter().map(|job| (job.shard.metadata.uid.as_deref(), job.update.phase)).collect();
    assert_eq!(told, [(Some("new"), Phase::Claimed)]);
}
