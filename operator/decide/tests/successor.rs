//! What the next operator adds to a record that the one before did not live to write.

mod support;

use support::*;
use understudy_decide::failover::record::{Entry, Milestone, Phase as RecordPhase, RecordUpdate};
use understudy_decide::failover::snapshot::*;
use understudy_wire::Epoch;

/// `a` was killed, an operator claimed epoch 5 for `b`, and another has known of it for this long.
fn taken_over(known: u64) -> Scene {
    let mut scene = Scene::well();
    scene.kill_primary(20_000);
    scene.claimed(Kind::Failover, "b");
    scene.0.memory.transition_known = known;
    scene
}

fn record_of(steps: &[&str]) -> Record {
    let claimed = steps.iter().filter(|step| **step == "Claimed").map(|_| Epoch(5)).collect();
    Record {
        claimed,
        name: "m-5".into(),
        kind: Kind::Failover,
        epoch: Epoch(5),
        from: Some(name("a")),
        to: Some(name("b")),
        steps: steps.iter().map(|step| (*step).to_owned()).collect(),
    }
}

/// What the plan says of the beginning of the record.
fn begun(scene: &Scene) -> Option<RecordUpdate> {
    scene.plan().records.into_iter().find(|update| update.phase == RecordPhase::Claimed)
}

fn steps(entries: &[Entry]) -> Vec<(Milestone, u64)> {
    entries.iter().map(|entry| (entry.step, entry.ago)).collect()
}

#[test]
fn a_claim_that_left_no_record_is_told_with_what_still_holds() {
    let update = begun(&taken_over(1_500)).expect("it is begun");
    assert_eq!((update.name.as_str(), update.epoch, update.to), ("m-5", Epoch(5), Some(name("b"))));
    let told = [Milestone::FirstSign, Milestone::Suspected, Milestone::Quorum, Milestone::Decided, Milestone::Claimed];
    assert_eq!(update.entries.iter().map(|entry| entry.step).collect::<Vec<_>>(), told);
    assert_eq!(steps(&update.entries[3..]), [(Milestone::Decided, 1_500), (Milestone::Claimed, 1_500)]);
    assert!(update.message.is_some_and(|message| message.contains("signal 9")));
    let grounds = update.grounds.expect("what is known");
    assert_eq!((grounds.votes.len(), grounds.offsets_before.len()), (4, 1));
    assert!(grounds.ranking.fit.iter().any(|candidate| candidate.name == name("b")), "{:?}", grounds.ranking);
}

#[test]
fn a_record_is_begun_once_and_not_before_its_own_operator_had_the_time() {
    assert!(begun(&taken_over(300)).is_none(), "it may be on its way");
    let mut scene = taken_over(1_500);
    scene.0.records.push(record_of(&["FirstSign", "Decided", "Claimed"]));
    assert!(begun(&scene).is_none(), "it is there");
    let mut scene = taken_over(1_500);
    scene.0.records.push(record_of(&[]));
    assert!(begun(&scene).is_some(), "the object was made, and then nothing was written");
    let mut scene = Scene::well();
    scene.claimed(Kind::Confirm, "a");
    scene.0.memory.transition_known = 1_500;
    assert!(begun(&scene).is_none(), "a confirmation has no candidates");
}

#[test]
fn a_further_epoch_of_an_incident_is_told_by_the_next_operator_as_well() {
    // The first one claimed epoch 4 and told all of it, then epoch 5, and died.
    let earlier = Record { claimed: vec![EPOCH], ..record_of(&["FirstSign", "Decided", "Claimed"]) };
    let mut near_miss = Scene::well();
    near_miss.claimed(Kind::Confirm, "a");
    near_miss.0.memory.transition_known = 1_500;
    for (case, mut scene) in [("the next candidate", taken_over(1_500)), ("a near miss", near_miss)] {
        scene.0.records.push(earlier.clone());
        let update = begun(&scene).unwrap_or_else(|| panic!("{case}: it is not told"));
        let (told, epochs): (Vec<_>, Vec<_>) = update.entries.iter().map(|entry| (entry.step, entry.epoch)).unzip();
        assert_eq!((told, epochs), (vec![Milestone::Claimed], vec![Epoch(5)]), "{case}");
        assert_eq!((update.grounds, update.message), (None, None), "{case}: what led to it was told before");
        scene.0.records[0].claimed.push(Epoch(5));
        assert!(begun(&scene).is_none(), "{case}: once");
    }
}

#[test]
fn what_led_to_an_incident_is_told_when_only_its_further_claim_was() {
    let mut scene = taken_over(1_500);
    scene.0.records.push(record_of(&["Claimed"]));
    let update = begun(&scene).expect("it is begun");
    let told = [Milestone::FirstSign, Milestone::Suspected, Milestone::Quorum, Milestone::Decided];
    assert_eq!(update.entries.iter().map(|entry| entry.step).collect::<Vec<_>>(), told);
    assert!(update.grounds.is_some());
}

#[test]
fn a_target_that_serves_already_is_published_at_once_and_the_record_begun_with_it() {
    let mut scene = taken_over(10);
    scene.server("b", |server| server.serving = Some(Epoch(5)));
    let phases: Vec<_> = scene.plan().records.into_iter().map(|update| update.phase).collect();
    assert_eq!(phases, [RecordPhase::Claimed, RecordPhase::Rebuilding]);
}

#[test]
fn a_publication_that_was_not_recorded_is_told_with_the_promotion_before_it() {
    let mut scene = Scene::well();
    let at = Some(scene.0.now - jiff::SignedDuration::from_secs(20));
    let (kind, epoch, from) = (Kind::Failover, EPOCH, Some(name("z")));
    scene.0.status.last_change =
        Some(LastChange { kind, epoch, from: from.clone(), record: Some("m-4".into()), cause: None, at });
    let record = Record {
        name: "m-4".into(),
        epoch,
        from,
        to: Some(name("a")),
        claimed: vec![epoch],
        ..record_of(&["Decided", "Claimed"])
    };
    scene.0.records.push(record);
    let entries = |scene: &Scene| {
        let all = scene.plan().records.into_iter().flat_map(|update| update.entries);
        steps(&all.filter(|e| e.step <= Milestone::Routed).collect::<Vec<_>>())
    };
    assert_eq!(entries(&scene), [(Milestone::Promoted, 20_000), (Milestone::Routed, 20_000)]);
    scene.0.records[0].steps.extend(["Promoted".to_owned(), "Routed".to_owned()]);
    assert_eq!(entries(&scene), []);
    scene.0.records[0].claimed = vec![Epoch(3)];
    assert_eq!(entries(&scene), [(Milestone::Claimed, 20_000)], "only that of a candidate before was told");
    scene.0.records[0].claimed = vec![EPOCH];
    let says = |scene: &Scene| scene.plan().records.into_iter().find_map(|update| update.message);
    assert_eq!(says(&scene), None, "the claim said why");
    scene.0.records[0].steps.clear();
    assert!(says(&scene).is_some_and(|message| message.contains("not known")), "nobody did");
}
