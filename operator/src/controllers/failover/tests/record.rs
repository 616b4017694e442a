//! What a record says after it was told of a change, and of what nobody told.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use understudy_api::Failover;
use understudy_api::v1alpha1::{
    CandidateNote, EvidenceKind, FailoverPhase, FailoverResult, RebuildNote, ShardStatus, TimelineEntry, Transition,
    Vote,
};
use understudy_decide::failover::assess::Ballot;
use understudy_decide::failover::exhibit::{Exhibit, Of};
use understudy_decide::failover::record::{Entry, Grounds, Milestone, Outcome, Phase, Standing};
use understudy_wire::evidence::Stage;
use understudy_wire::{Epoch, ReplicaName};

use super::super::merge::candidates;
use super::super::{merge, step_epoch};
use super::{empty, job, offset, ranking, update};

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
fn a_record_whose_phase_only_a_later_operator_knows_goes_on_and_is_closed() {
    let mut record = empty();
    let status = serde_json::json!({ "phase": "Admiring", "result": "Admired", "epoch": 5 });
    record.status = Some(serde_json::from_value(status).expect("a status"));
    assert!(merge(&mut record, &job(update(Phase::Rebuilding, vec![]), 1)));
    assert_eq!(record.status.as_ref().map(|status| status.phase), Some(FailoverPhase::Rebuilding));
    let mut closed = update(Phase::Closed, vec![Entry::now(Milestone::Redundant, Epoch(5))]);
    closed.result = Some(Outcome::Succeeded);
    merge(&mut record, &job(closed, 30));
    let status = record.status.expect("a status");
    assert_eq!(
        (status.phase, status.result),
        (FailoverPhase::Closed, Some(FailoverResult::Unknown)),
        "what ended it stays"
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
    let standings = ["m-b", "m-c", "m-d"].map(|name| {
        let zone = Some(format!("zone of {name}"));
        (ReplicaName::new(name), Standing { zone, offsets: Some(340), free: Some(7), delay: Some(1_350) })
    });
    let grounds = Grounds { ranking, standings: standings.into(), ..Grounds::default() };
    let notes = candidates(&grounds, Some(&ReplicaName::new("m-c")));
    let said: Vec<_> = notes.iter().map(|note| (note.replica.as_str(), note.rejected.as_deref())).collect();
    assert_eq!(said, [("m-b", Some("ranked 1")), ("m-c", None), ("m-d", Some("condemned"))]);
    assert!(notes.iter().all(|note| note.zone == Some(format!("zone of {}", note.replica))), "{notes:?}");
    let stood = |note: &CandidateNote| (note.offsets, note.free_bytes, note.delay_ms);
    assert!(notes.iter().all(|note| stood(note) == (Some(340), Some(7), Some(1_350))), "{notes:?}");
}

#[test]
fn a_second_candidate_is_the_one_taken_and_the_first_one_did_not_become_primary() {
    let mut record = empty();
    let mut first = update(Phase::Claimed, vec![Entry::now(Milestone::Claimed, Epoch(5))]);
    first.grounds = Some(Box::new(Grounds { ranking: ranking(), ..Grounds::default() }));
    merge(&mut record, &job(first, 0));
    let mut second = update(Phase::Promoting, vec![Entry::now(Milestone::Claimed, Epoch(6))]);
    (second.epoch, second.to) = (Epoch(6), Some(ReplicaName::new("m-c")));
    merge(&mut record, &job(second, 3));
    let rejected = |record: &Failover| {
        let candidates = record.status.clone().expect("a status").candidates;
        candidates.into_iter().map(|note| (note.replica, note.rejected)).collect::<Vec<_>>()
    };
    let note = |replica: &str, why: Option<&str>| (replica.to_owned(), why.map(str::to_owned));
    let others = [note("m-c", None), note("m-d", Some("condemned"))];
    assert_eq!(rejected(&record)[0], note("m-b", Some("did not become primary")));
    assert_eq!(rejected(&record)[1..], others);

    let mut third = update(Phase::Promoting, vec![Entry::now(Milestone::Claimed, Epoch(7))]);
    (third.epoch, third.to) = (Epoch(7), Some(ReplicaName::new("m-e")));
    merge(&mut record, &job(third, 6));
    assert_eq!(rejected(&record)[3..], [note("m-e", None)], "it came after the decision");
}

#[test]
fn what_is_told_by_a_later_operator_stands_where_it_belongs() {
    let mut record = empty();
    // The claim was made 20 s before anybody came to tell it.
    let told = vec![Entry::ago(Milestone::Decided, Epoch(5), 1_000), Entry::ago(Milestone::Claimed, Epoch(5), 1_000)];
    let mut begun = job(update(Phase::Claimed, told), 20);
    let since = begun.at - SignedDuration::from_secs(20);
    begun.shard.status = Some(ShardStatus {
        transition: Some(Transition { epoch: 5, since: Some(MicroTime(since)), ..Transition::default() }),
        ..ShardStatus::default()
    });
    merge(&mut record, &begun);
    merge(&mut record, &job(update(Phase::Fencing, vec![Entry::now(Milestone::Reprobed, Epoch(5))]), 21));
    // The status says the second of the publication, which began before the probe ended.
    let published = [Milestone::Promoted, Milestone::Routed].map(|step| Entry::ago(step, Epoch(5), 500));
    merge(&mut record, &job(update(Phase::Rebuilding, published.into()), 21));
    let status = record.status.expect("a status");
    let steps: Vec<_> = status.timeline.iter().map(|entry| (entry.step.as_str(), entry.elapsed_ms)).collect();
    let expected = [("Decided", 0), ("Claimed", 0), ("Reprobed", 21_000), ("Promoted", 21_000), ("Routed", 21_000)];
    assert_eq!(steps, expected);
}

#[test]
fn what_led_to_an_incident_is_in_its_record_once_under_whatever_epoch_it_is_told_again() {
    let mut record = empty();
    let led_to = |epoch| {
        let before = [Milestone::FirstSign, Milestone::Suspected, Milestone::Quorum, Milestone::Decided];
        before.map(|step| Entry::ago(step, Epoch(epoch), 100)).to_vec()
    };
    merge(&mut record, &job(update(Phase::Claimed, led_to(5)), 0));
    let mut again = update(Phase::Claimed, led_to(6));
    again.entries.push(Entry::now(Milestone::Claimed, Epoch(6)));
    merge(&mut record, &job(again, 3));
    let timeline = record.status.expect("a status").timeline;
    let told: Vec<_> = timeline.iter().map(|entry| (entry.step.as_str(), step_epoch(entry))).collect();
    let (first, further) = (Some(Epoch(5)), Some(Epoch(6)));
    let expected =
        [("FirstSign", first), ("Suspected", first), ("Quorum", first), ("Decided", first), ("Claimed", further)];
    assert_eq!(told, expected);
}

#[test]
fn a_further_claim_stands_after_the_one_before_it_though_only_the_second_of_its_route_is_known() {
    let mut record = empty();
    let mut first = job(update(Phase::Claimed, vec![Entry::now(Milestone::Claimed, Epoch(5))]), 1);
    first.at += SignedDuration::from_millis(700);
    merge(&mut record, &first);
    // Both happened within a second, and the status tells only which.
    let further = [Milestone::Claimed, Milestone::Promoted, Milestone::Routed].map(|step| Entry::now(step, Epoch(6)));
    merge(&mut record, &job(update(Phase::Rebuilding, further.into()), 1));
    let timeline = record.status.expect("a status").timeline;
    let told: Vec<_> =
        timeline.iter().map(|entry| (entry.step.as_str(), step_epoch(entry), entry.elapsed_ms)).collect();
    let (five, six) = (Some(Epoch(5)), Some(Epoch(6)));
    assert_eq!(told, [("Claimed", five, 0), ("Claimed", six, 0), ("Promoted", six, 0), ("Routed", six, 0)]);
}

#[test]
fn the_epoch_of_a_step_is_the_one_that_its_words_begin_with() {
    for (words, expected) in [
        (Some("epoch 5"), Some(Epoch(5))),
        (Some("epoch 12: for m-b"), Some(Epoch(12))),
        (Some("epoch 5th"), None),
        (Some("for m-b, epoch 5"), None),
        (None, None),
    ] {
        let (step, at) = ("Claimed".to_owned(), MicroTime(Timestamp::UNIX_EPOCH));
        let entry = TimelineEntry { step, at, elapsed_ms: 0, detail: words.map(str::to_owned) };
        assert_eq!(step_epoch(&entry), expected, "{words:?}");
    }
}

#[test]
fn every_word_is_as_old_as_it_was_and_says_when_that_was() {
    let mut record = empty();
    let mut first = update(Phase::Claimed, vec![]);
    let ballot = |observer: &str, age| vec![Ballot { observer: observer.into(), says: "this".into(), age }];
    let (votes, vetoes, abstained) =
        (ballot("peer m-b", 2_400), ballot("operator", 90), ballot("consumer store-0", 70));
    first.grounds = Some(Box::new(Grounds { votes, vetoes, abstained, own_age: 340, ..Grounds::default() }));
    let job = job(first, 0);
    merge(&mut record, &job);
    let status = record.status.expect("a status");
    let ago = |votes: &[Vote]| {
        let at = votes[0].at.as_ref().expect("a time").0;
        (votes.len(), votes[0].age_ms, job.at.as_millisecond() - at.as_millisecond())
    };
    assert_eq!((ago(&status.votes), ago(&status.vetoes)), ((1, 2_400, 2_400), (1, 90, 90)));
    assert_eq!(ago(&status.abstentions), (1, 70, 70));
    assert_eq!(status.evidence.iter().map(|note| note.age_ms).collect::<Vec<_>>(), [340]);
}

#[test]
fn a_record_holds_every_fact_with_its_number_behind_the_words_of_the_manager() {
    let fact = |observer: &str, of, lasted, stage| Exhibit {
        observer: observer.into(),
        of,
        fact: "a fact".into(),
        lasted,
        stage,
        age: 120,
    };
    let exhibits = vec![
        fact("manager m-a", Of::Fsync, Some(6_200), None),
        fact("manager m-a", Of::Threads, None, None),
        fact("peer m-b", Of::Probe, Some(2_400), Some(Stage::Commit)),
    ];
    let mut first = update(Phase::Claimed, vec![]);
    first.grounds = Some(Box::new(Grounds { own: "its manager says so".into(), exhibits, ..Grounds::default() }));
    let mut record = empty();
    merge(&mut record, &job(first, 0));
    let evidence = record.status.expect("a status").evidence;
    let told: Vec<_> = evidence.iter().map(|note| (note.kind, note.lasted_ms, note.stage.as_deref())).collect();
    let expected = [
        (None, None, None),
        (Some(EvidenceKind::Fsync), Some(6_200), None),
        (Some(EvidenceKind::Threads), None, None),
        (Some(EvidenceKind::Probe), Some(2_400), Some("Commit")),
    ];
    assert_eq!(told, expected);
    assert!(evidence.iter().all(|note| note.subject == "m-a"), "{evidence:?}");
}

#[test]
fn a_record_says_its_cause_in_words() {
    let mut record = empty();
    merge(&mut record, &job(update(Phase::Claimed, vec![]), 0));
    let explanation = record.status.expect("a status").explanation.expect("words");
    assert!(explanation.starts_with("mysqld of the primary ended"), "{explanation}");
}

#[test]
fn a_record_is_of_a_drill_by_its_spec_or_by_its_label() {
    let mut record = empty();
    assert_eq!(record.drill(), None);
    record.metadata.labels = Some([(understudy_api::labels::DRILL.to_owned(), "nightly".to_owned())].into());
    assert_eq!(record.drill(), Some("nightly"));
    record.spec.drill = Some("weekly".to_owned());
    assert_eq!(record.drill(), Some("weekly"));
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

#[test]
fn stacks_come_in_whenever_they_were_taken_and_the_first_ones_stay() {
    let mut record = empty();
    merge(&mut record, &job(update(Phase::Claimed, vec![]), 0));
    let with = |line: &str, phase, second| {
        let mut job = job(update(phase, vec![]), second);
        job.measured.stacks = Some(vec![line.to_owned()]);
        job
    };
    assert!(merge(&mut record, &with("1 in D: ib_log_flush", Phase::Promoting, 1)));
    merge(&mut record, &with("1 in R: mysqld", Phase::Closed, 30));
    assert_eq!(record.status.expect("a status").stacks, ["1 in D: ib_log_flush"]);
}
