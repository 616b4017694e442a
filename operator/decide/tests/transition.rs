//! A failover that is under way, from the claim to what follows the publication.

mod support;

use support::*;
use understudy_decide::failover::record::{Outcome, Phase as RecordPhase};
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Order, OrderKind, Reason, Step};
use understudy_wire::Epoch;
use understudy_wire::evidence::{Millis, Phase, Probe, Stage};

fn published(scene: &Scene) -> Option<String> {
    scene.steps().into_iter().find_map(|step| match step {
        Step::Publish { primary, .. } => Some(primary.to_string()),
        _ => None,
    })
}

/// A failover from `a` was published a moment ago.
fn took_office(scene: &mut Scene, letter: &str) {
    scene.0.status.primary = Some(name(letter));
    scene.0.status.primary_address = scene.0.address_of(&name(letter));
    scene.0.status.epoch = Epoch(5);
    scene.0.status.transition = None;
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: Epoch(5),
        from: Some(name("a")),
        record: Some("m-5".into()),
        cause: Some("Unreachable".into()),
        at: Some(scene.0.now),
    });
    scene.0.memory.office_known = 100;
    scene.server(letter, |server| {
        server.serving = Some(Epoch(5));
        server.replication = None;
    });
}

fn failed_probe() -> ReprobeOutcome {
    ReprobeOutcome::Failed("refused".into())
}

#[test]
fn from_claim_to_publication() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    assert_eq!(scene.steps(), vec![Step::Reprobe { replica: name("a"), epoch: Epoch(5) }], "first the probe");
    scene.reprobed(ReprobeOutcome::Running(100));
    assert_eq!(scene.steps(), vec![], "it has its time");
    scene.reprobed(failed_probe());
    assert!(scene.order_to("a", OrderKind::Fence).is_some(), "the old one is fenced");
    assert!(scene.order_to("b", OrderKind::Promote).is_some(), "and not waited for");
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::InFlight);
    scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::InFlight);
    assert_eq!(scene.steps(), vec![], "the promotion is under way");
    scene.server("b", |server| server.serving = Some(Epoch(5)));
    assert_eq!(published(&scene).as_deref(), Some("m-b"), "the evidence proves it");
    scene.server("b", |server| server.serving = None);
    scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::Done(Some(gtids("a", 1000))));
    assert_eq!(published(&scene).as_deref(), Some("m-b"), "and so does the answer");
}

#[test]
fn a_probe_that_hangs_delays_the_promotion_by_its_deadline_only() {
    let mut scene = Scene::well();
    scene.lose_node(4_000);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Running(600));
    assert!(scene.order_to("b", OrderKind::Promote).is_some());
    assert!(scene.order_to("a", OrderKind::Fence).is_none(), "nobody to tell");
}

#[test]
fn success_after_the_claim_confirms_the_old_primary_under_a_further_epoch() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Committed);
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())));
    assert!(scene.gives(Reason::NearMiss));
    let Some(Step::Claim(claim)) = scene.steps().into_iter().next() else { panic!("no claim") };
    assert_eq!((claim.epoch(), claim.record.as_deref()), (Epoch(6), Some("m-5")), "the same incident");

    scene.reprobed(ReprobeOutcome::Running(10));
    scene.says(&manager("c"), "a", Some(commits()), None);
    assert_eq!(
        scene.claim(),
        Some((Kind::Confirm, "m-a".into())),
        "a commit that somebody else saw after the claim counts as much"
    );
}

#[test]
fn who_finds_a_claim_promotes_nobody_while_a_commit_is_fresh_that_may_have_come_after_it() {
    let mut scene = Scene::well();
    scene.kill_primary(4_000);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(failed_probe());
    let saw = |scene: &mut Scene, committed: Millis| {
        scene.says(&manager("c"), "a", Some(Probe { committed: Some(committed), ..refused(300) }), None);
    };
    saw(&mut scene, 1_500);
    assert!(scene.order_to("b", OrderKind::Promote).is_some(), "who claimed knows that it came before");
    scene.0.memory.transition_found = true;
    assert_eq!(scene.steps(), vec![], "who did not claim waits");
    saw(&mut scene, 2_500);
    assert!(scene.order_to("b", OrderKind::Promote).is_some(), "not for long");
    saw(&mut scene, 100);
    assert_eq!(scene.claim(), Some((Kind::Confirm, "m-a".into())), "one after it was found stands against it");
}

#[test]
fn a_confirmation_closes_the_record_as_a_near_miss() {
    let mut scene = Scene::well();
    scene.claimed(Kind::Confirm, "a");
    assert!(scene.order_to("a", OrderKind::Promote).is_some());
    scene.server("a", |server| server.serving = Some(Epoch(5)));
    assert_eq!(published(&scene).as_deref(), Some("m-a"));
    let record = scene.plan().records.pop().expect("a record");
    assert_eq!((record.phase, record.result), (RecordPhase::Closed, Some(Outcome::Confirmed)));
}

/// What keeps `a` from being confirmed.
type Spoil = (&'static str, fn(&mut Scene));

const NOT_CONFIRMED: &[Spoil] = &[
    ("its manager fell silent", |s| s.silence("a")),
    ("its process ended", |s| {
        s.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 });
    }),
    ("it refused twice", |s| s.ordered("a", OrderKind::Promote, 2, 300, OrderOutcome::Failed("error 1290".into()))),
];

/// A confirmation of `a` that has not come to its end for a while.
fn not_confirmed(mode: Mode, request: Option<&str>, spoil: fn(&mut Scene)) -> Scene {
    let mut scene = Scene::well();
    scene.0.policy.mode = mode;
    scene.claimed(Kind::Confirm, "a");
    let transition = scene.0.status.transition.as_mut().expect("claimed");
    transition.request = request.map(Into::into);
    transition.record = request.map(Into::into).or(transition.record.take());
    scene.0.memory.transition_known = 6_000;
    spoil(&mut scene);
    scene
}

#[test]
fn a_primary_that_cannot_be_confirmed_is_replaced_only_where_the_mode_or_a_person_says_so() {
    for (mode, request, replaced) in [
        (Mode::Automatic, None, true),
        (Mode::Manual, None, false),
        (Mode::Manual, Some("please"), true),
        (Mode::Manual, Some("m-5"), true),
        (Mode::Paused, None, false),
        (Mode::Paused, Some("please"), false),
    ] {
        for (case, spoil) in NOT_CONFIRMED {
            let case = format!("{mode}, asked for by {request:?}: {case}");
            let scene = not_confirmed(mode, request, *spoil);
            let kind = scene.claim().map(|(kind, _)| kind);
            assert_eq!(kind, replaced.then_some(Kind::Failover), "{case}: {:?}", scene.steps());
            let asked = scene.steps().into_iter().find_map(|step| match step {
                Step::Claim(claim) => Some(claim.request),
                _ => None,
            });
            assert_eq!(asked, replaced.then(|| request.map(Into::into)), "{case}: who asked stays known");
            assert_eq!(scene.gives(Reason::FailoverLeftToPerson), !replaced, "{case}");
            let hears = scene.0.fresh_report(&name("a")).is_some_and(|(server, _)| server.phase == Phase::Running);
            let told = scene.order_to("a", OrderKind::Promote).is_some();
            assert_eq!(told, !replaced && hears, "{case}: it is told again whenever it hears");
        }
    }
}

#[test]
fn a_request_for_a_primary_that_cannot_be_confirmed_is_the_word_that_manual_waits_for() {
    let asked = |mode: Mode| {
        let mut scene = not_confirmed(mode, None, |s| s.silence("a"));
        let target = Some(name("c"));
        scene.0.requests.push(Request { name: "please".into(), kind: Kind::Failover, target, age: 10 });
        scene
    };
    let scene = asked(Mode::Manual);
    assert_eq!(scene.claim(), Some((Kind::Failover, "m-c".into())), "the one that was asked for");
    let records: Vec<_> = scene.plan().records.into_iter().map(|told| (told.name, told.phase, told.result)).collect();
    let ended = ("m-5".to_owned(), RecordPhase::Closed, Some(Outcome::Failed));
    assert_eq!(records, [ended, ("please".to_owned(), RecordPhase::Claimed, None)]);
    let claimed = scene.steps().into_iter().any(|step| match step {
        Step::Claim(claim) => claim.request.as_deref() == Some("please"),
        _ => false,
    });
    assert!(claimed, "who asked is written down with the claim");
    assert_eq!(asked(Mode::Paused).claim(), None, "in no mode but that");
}

#[test]
fn a_candidate_that_fails_is_followed_by_the_next_in_the_same_incident() {
    type Case = (&'static str, fn(&mut Scene));
    let cases: &[Case] = &[
        ("its process ended", |s| {
            s.server("b", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 })
        }),
        ("its manager fell silent", |s| s.silent("b", 3_000)),
        ("it does not answer", |s| s.ordered("b", OrderKind::Promote, 1, 7_000, OrderOutcome::InFlight)),
        ("it refused twice", |s| s.ordered("b", OrderKind::Promote, 2, 300, OrderOutcome::Failed("error 1872".into()))),
        ("its Replica was deleted", |s| drop(s.0.replicas.remove(&name("b")))),
    ];
    for (case, spoil) in cases {
        let mut scene = Scene::well();
        scene.kill_primary(700);
        scene.claimed(Kind::Failover, "b");
        scene.reprobed(failed_probe());
        scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::InFlight);
        spoil(&mut scene);
        assert_eq!(scene.claim(), Some((Kind::Failover, "m-c".into())), "{case}: {:?}", scene.steps());
        let Some(Step::Claim(claim)) = scene.steps().into_iter().find(|step| matches!(step, Step::Claim(_))) else {
            panic!()
        };
        assert_eq!(
            (claim.epoch(), claim.record.as_deref(), claim.from),
            (Epoch(6), Some("m-5"), Some(name("a"))),
            "{case}"
        );
    }
}

#[test]
fn a_candidate_that_refused_once_is_told_again() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(failed_probe());
    scene.ordered("b", OrderKind::Promote, 1, 300, OrderOutcome::Failed("busy".into()));
    assert!(scene.order_to("b", OrderKind::Promote).is_some());
}

#[test]
fn the_last_copy_is_started_again_and_never_replaced() {
    let mut scene = Scene::well();
    scene.kill_primary(7_000);
    scene.silent("b", 9_000);
    scene.silent("c", 9_000);
    scene.says(&consumer(), "a", Some(refused(6_000)), None);
    scene.says(&operator(), "a", Some(refused(6_000)), None);
    let restarts = vec![Step::DeletePod { replica: name("a"), uid: "pod-a".into(), restart: true }];
    assert_eq!(scene.steps(), restarts);
    scene.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 1_000 });
    scene.says(&consumer(), "a", Some(refused(900)), None);
    scene.says(&operator(), "a", Some(refused(900)), None);
    assert_eq!(scene.steps(), vec![], "others get their time to come forward");
}

#[test]
fn after_a_failover_the_old_primary_is_condemned_whatever_became_of_it() {
    let mut scene = Scene::well();
    took_office(&mut scene, "b");
    let condemned = |scene: &Scene| {
        scene.steps().into_iter().any(|step| matches!(step, Step::Condemn { replica, .. } if replica == name("a")))
    };
    assert!(!condemned(&scene), "it may be needed as long as the new one has not committed");
    scene.says(&operator(), "b", Some(fails(Stage::Auth, no_connection_left(), 9_000)), None);
    assert!(!condemned(&scene), "it is full, and nobody has seen it commit");
    scene.says(&manager("c"), "b", Some(commits()), None);
    assert!(condemned(&scene), "it is full, and commits");
    scene.says(&operator(), "b", Some(Probe::default()), None);
    assert!(condemned(&scene));
    scene.ordered("a", OrderKind::Fence, 1, 10, OrderOutcome::Done(None));
    assert!(scene.order_to("c", OrderKind::Follow).is_none(), "consumers come first");
    scene.says(&consumer(), "b", Some(Probe { committing_since: Some(10), ..commits() }), None);
    let Some(Order::Follow(follow)) = scene.order_to("c", OrderKind::Follow) else { panic!("c follows") };
    assert_eq!((follow.source, follow.address.as_str()), (name("b"), "10.0.0.2:3306"));
    scene.0.status.last_change.as_mut().expect("set above").kind = Kind::Switchover;
    assert!(!condemned(&scene), "after a planned change it becomes a standby");
    assert!(scene.order_to("a", OrderKind::Follow).is_some());
}

#[test]
fn the_old_primary_is_kept_while_it_is_the_only_one_that_could_take_over() {
    let mut scene = Scene::well();
    took_office(&mut scene, "b");
    scene.says(&manager("a"), "b", Some(commits()), None);
    scene.says(&consumer(), "b", Some(Probe { committing_since: Some(10), ..commits() }), None);
    let condemned = |scene: &Scene| {
        scene.steps().into_iter().any(|step| matches!(step, Step::Condemn { replica, .. } if replica == name("a")))
    };
    scene.server("c", |server| server.phase = Phase::Building);
    assert!(!condemned(&scene));
    assert!(scene.gives(Reason::LastCopyKept));
    scene.server("c", |server| server.phase = Phase::Running);
    assert!(condemned(&scene), "another can");
    scene.server("c", |server| server.phase = Phase::Building);
    scene.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 10 });
    assert!(condemned(&scene), "it is no use itself");
}

#[test]
fn what_came_of_fencing_the_old_primary_is_said() {
    type Case = (&'static str, OrderOutcome, Option<Reason>);
    let cases: [Case; 4] = [
        ("it obeyed", OrderOutcome::Done(Some(gtids("a", 1000))), Some(Reason::PrimaryFenced)),
        ("it was killed", OrderOutcome::Done(None), Some(Reason::PrimaryFenced)),
        ("its manager refused", OrderOutcome::Failed("no answer".into()), Some(Reason::PrimaryUnreachable)),
        ("no answer yet", OrderOutcome::InFlight, None),
    ];
    for (case, outcome, expected) in cases {
        let mut scene = Scene::well();
        scene.kill_primary(700);
        scene.claimed(Kind::Failover, "b");
        scene.reprobed(failed_probe());
        scene.ordered("a", OrderKind::Fence, 1, 10, outcome);
        scene.ordered("b", OrderKind::Promote, 1, 10, OrderOutcome::InFlight);
        for when in ["under way", "published"] {
            if when == "published" {
                took_office(&mut scene, "b");
            }
            for reason in [Reason::PrimaryFenced, Reason::PrimaryUnreachable] {
                let wanted = expected == Some(reason);
                assert_eq!(scene.gives(reason), wanted, "{case}, {when}, {reason}: {:?}", scene.reasons());
            }
        }
        scene.0.status.epoch = Epoch(6);
        assert!(!scene.gives(Reason::PrimaryFenced), "{case}: of an epoch that is over");
    }
}

#[test]
fn an_old_primary_that_nobody_can_tell_is_said_when_the_next_one_is_told() {
    let mut scene = Scene::well();
    scene.lose_node(4_000);
    scene.claimed(Kind::Failover, "b");
    scene.reprobed(ReprobeOutcome::Running(100));
    assert!(!scene.gives(Reason::PrimaryUnreachable), "nobody was to tell it yet");
    scene.reprobed(failed_probe());
    assert!(scene.order_to("b", OrderKind::Promote).is_some());
    assert!(scene.gives(Reason::PrimaryUnreachable), "{:?}", scene.reasons());
}

#[test]
fn a_change_of_primary_is_called_by_its_kind_when_it_begins_and_when_it_ends() {
    let mut scene = Scene::well();
    scene.kill_primary(700);
    assert!(scene.gives(Reason::FailoverBegun));
    let mut scene = Scene::well();
    scene.replica("a", |replica| {
        replica.condemned = Some(Condemned { reason: "Wanted".into(), ..Condemned::default() });
    });
    assert!(scene.gives(Reason::SwitchoverBegun), "nobody asked for it: {:?}", scene.reasons());
    let mut scene = Scene::well();
    scene.server("c", |server| server.epoch = Epoch(9));
    assert!(scene.gives(Reason::ConfirmBegun));
    for (kind, to, done) in [
        (Kind::Bootstrap, "a", Reason::Bootstrapped),
        (Kind::Failover, "b", Reason::FailoverDone),
        (Kind::Switchover, "b", Reason::SwitchoverDone),
        (Kind::Confirm, "a", Reason::PrimaryConfirmed),
    ] {
        let mut scene = Scene::well();
        scene.claimed(kind, to);
        scene.server(to, |server| server.serving = Some(Epoch(5)));
        assert!(published(&scene).is_some() && scene.gives(done), "{kind:?}: {:?}", scene.reasons());
    }
}
