use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use understudy_api::v1alpha1::{FailoverPhase, FailoverResult, FailoverSpec, RebuildNote};
use understudy_api::{Failover, Shard};
use understudy_decide::failover::assess::Ballot;
use understudy_decide::failover::candidate::{Candidate, Ranking, Unfit};
use understudy_decide::failover::record::{Entry, Grounds, Milestone, Outcome, Phase, RecordUpdate};
use understudy_decide::failover::snapshot::Kind;
use understudy_wire::evidence::StoredOffset;
use understudy_wire::{Epoch, ReplicaName};

use super::merge::candidates;
use super::{Job, Measured, merge};

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
        FailoverSpec { shard: "m".into(), kind: Default::default(), reason: None, target: None, epoch: Some(5) },
    )
}

fn offset(next_offset: i64) -> StoredOffset {
    StoredOffset { consumer: "store".into(), topic: "t".into(), partition: 0, next_offset }
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
    let fit = |name: &str| Candidate {
        name: ReplicaName::new(name),
        executed: Default::default(),
        reach: Default::default(),
        offsets: 0,
        free: 0,
        elsewhere: false,
        delay: None,
    };
    let ranking =
        Ranking { fit: vec![fit("m-b"), fit("m-c")], unfit: vec![(ReplicaName::new("m-d"), Unfit::Condemned)] };
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
