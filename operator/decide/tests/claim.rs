//! What is written down with the claim of a change: why it was decided, who said what, and who was considered.

mod support;

use support::*;
use understudy_decide::Step;
use understudy_decide::failover::exhibit::Of;
use understudy_decide::failover::record::{Milestone, Phase as RecordPhase};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Limit, Phase, ProbeError, Stage};

#[test]
fn the_claim_begins_the_record() {
    let mut scene = Scene::well();
    scene.kill_primary(400);
    let decision = scene.plan();
    let Some(Step::Claim(claim)) = decision.steps.iter().find(|step| matches!(step, Step::Claim(_))) else {
        panic!("no claim: {:?}", decision.steps)
    };
    assert_eq!((claim.after, claim.epoch()), (EPOCH, Epoch(5)));
    assert_eq!(claim.record.as_deref(), Some("m-5"));
    let record = &decision.records[0];
    assert_eq!(
        (record.name.as_str(), record.phase, record.cause.as_deref()),
        ("m-5", RecordPhase::Claimed, Some("ProcessExited"))
    );
    let steps: Vec<_> = record.entries.iter().map(|entry| (entry.step, entry.ago)).collect();
    assert_eq!(
        steps,
        [
            (Milestone::FirstSign, 450),
            (Milestone::Suspected, 0),
            (Milestone::Quorum, 420),
            (Milestone::Decided, 0),
            (Milestone::Claimed, 0),
        ]
    );
    let grounds = record.grounds.as_ref().expect("what was known");
    assert_eq!((grounds.votes.len(), grounds.ranking.fit.len(), grounds.offsets_before.len()), (4, 2, 1));
}

#[test]
fn the_record_tells_how_old_each_word_was_and_where_each_replica_is() {
    let mut scene = Scene::well();
    scene.kill_primary(400);
    scene.report(&manager("a")).age = 340;
    scene.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 60 });
    scene.silent("c", 5_000);
    scene.says(
        &consumer(),
        "a",
        Some(fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Server }, 300)),
        None,
    );
    scene.report(&consumer()).age = 70;
    let decision = scene.plan();
    let grounds = decision.records[0].grounds.as_ref().expect("what was known");
    assert_eq!(grounds.own_age, 340);
    let of = |observer: &str| grounds.exhibits.iter().find(|e| e.observer == observer && e.of == Of::Probe);
    let consumer = of("consumer store-m-0").expect("what the consumer met");
    assert_eq!((consumer.stage, consumer.lasted, consumer.age), (Some(Stage::Auth), Some(300), 70));
    assert_eq!(of("peer m-c").expect("its last word").age, 5_000);
    let own = grounds.exhibits.iter().find(|e| e.of == Of::Process).expect("what the kernel said");
    assert_eq!((own.observer.as_str(), own.age), ("manager m-a", 340));
    let abstained: Vec<_> = grounds.abstained.iter().map(|ballot| (ballot.observer.as_str(), ballot.age)).collect();
    assert_eq!(abstained, [("peer m-c", 5_000), ("consumer store-m-0", 70)]);
    let zones: Vec<_> = grounds.standings.iter().map(|(name, stood)| (name.as_str(), stood.zone.as_deref())).collect();
    assert_eq!(zones, [("m-a", Some("zone-1")), ("m-b", Some("zone-2")), ("m-c", Some("zone-3"))]);
    assert_eq!(grounds.ranking.unfit.len(), 1, "c, and the record says where it is");
}
