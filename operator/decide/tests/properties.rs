//! What holds for every snapshot, however spoiled.

mod support;

use proptest::prelude::*;
use support::*;
use understudy_decide::decision::Sentence;
use understudy_decide::failover::assess::Class;
use understudy_decide::failover::candidate::{Unfit, examine};
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Cause, Fact, Order, OrderKind, Reason, Step, plan};
use understudy_wire::evidence::*;
use understudy_wire::{Epoch, ReplicaName};

/// One way to spoil a snapshot.
#[derive(Clone, Debug)]
enum Harm {
    Phase(usize, u8, Millis),
    Silent(usize, Millis),
    Probe(usize, u8, Millis, Option<Millis>),
    ReadOnly(usize, Option<bool>),
    Serving(usize, u64),
    Known(usize, u64),
    Executed(usize, u64, bool),
    Pod(usize, u8),
    Volume(usize, bool),
    Condemned(usize, bool),
    Transition(u8, usize, u64),
    Reprobe(u8),
    Order(usize, u8, u8, Millis),
    Wanted(usize),
    Mode(u8),
    Awake(Millis),
    Office(Millis),
    Request(Option<usize>),
    NoPrimary,
    Gap(usize),
    Changed(Millis, u32, bool),
    Fleet(usize, usize),
    Still(Millis),
    Stopped(Millis, bool),
    Waits(usize, bool, Millis, Millis),
    Space(usize, u64, bool),
}

fn harm() -> impl Strategy<Value = Harm> {
    let who = 0..3usize;
    let age = prop_oneof![0..500u64, 500..3_000u64, 3_000..100_000u64];
    prop_oneof![
        (who.clone(), 0..7u8, age.clone()).prop_map(|(w, p, a)| Harm::Phase(w, p, a)),
        (who.clone(), age.clone()).prop_map(|(w, a)| Harm::Silent(w, a)),
        (0..4usize, 0..6u8, age.clone(), prop::option::of(age.clone()))
            .prop_map(|(w, p, a, c)| Harm::Probe(w, p, a, c)),
        (who.clone(), prop::option::of(any::<bool>())).prop_map(|(w, r)| Harm::ReadOnly(w, r)),
        (who.clone(), 3..7u64).prop_map(|(w, e)| Harm::Serving(w, e)),
        (who.clone(), 0..7u64).prop_map(|(w, e)| Harm::Known(w, e)),
        (who.clone(), 900..1_100u64, any::<bool>()).prop_map(|(w, n, e)| Harm::Executed(w, n, e)),
        (who.clone(), 0..5u8).prop_map(|(w, p)| Harm::Pod(w, p)),
        (who.clone(), any::<bool>()).prop_map(|(w, p)| Harm::Volume(w, p)),
        (who.clone(), any::<bool>()).prop_map(|(w, ready)| Harm::Condemned(w, ready)),
        (0..4u8, who.clone(), 4..6u64).prop_map(|(k, w, e)| Harm::Transition(k, w, e)),
        (0..3u8).prop_map(Harm::Reprobe),
        (who.clone(), 0..5u8, 0..3u8, age.clone()).prop_map(|(w, k, o, a)| Harm::Order(w, k, o, a)),
        (1..5usize).prop_map(Harm::Wanted),
        (0..3u8).prop_map(Harm::Mode),
        age.clone().prop_map(Harm::Awake),
        age.clone().prop_map(Harm::Office),
        (0..1_000_000u64, 0..6u32, any::<bool>()).prop_map(|(ago, row, open)| Harm::Changed(ago, row, open)),
        (0..6usize, 0..4usize).prop_map(|(suspect, rebuilding)| Harm::Fleet(suspect, rebuilding)),
        (age.clone(), any::<bool>()).prop_map(|(a, told)| Harm::Stopped(a, told)),
        (0..4usize, any::<bool>(), age.clone(), 0..2_000u64)
            .prop_map(|(w, lock, a, waited)| Harm::Waits(w, lock, a, waited)),
        age.prop_map(Harm::Still),
        (who.clone(), 0..60u64, any::<bool>()).prop_map(|(w, free, full)| Harm::Space(w, free, full)),
        prop::option::of(who).prop_map(Harm::Request),
        Just(Harm::NoPrimary),
        (0..4usize).prop_map(Harm::Gap),
    ]
}

const LETTERS: [&str; 3] = ["a", "b", "c"];

fn apply(scene: &mut Scene, harm: &Harm) {
    let observers = [manager("b"), manager("c"), consumer(), operator()];
    match harm.clone() {
        Harm::Phase(who, phase, age) => scene.server(LETTERS[who], |server| {
            server.phase = match phase {
                0 => Phase::Empty,
                1 => Phase::Unusable { reason: "x".into() },
                2 => Phase::Building,
                3 => Phase::Starting,
                4 => Phase::Exited { code: None, signal: Some(9), age },
                5 => Phase::Stopping,
                _ => Phase::Running,
            };
        }),
        Harm::Silent(who, age) => scene.silent(LETTERS[who], age),
        Harm::Probe(who, how, since, committed) => {
            let mut probe = match how {
                0 => refused(since),
                1 => unreachable(since),
                2 => fails(Stage::Greeting, ProbeError::Timeout, since),
                3 => fails(Stage::Commit, ProbeError::ReadOnly, since),
                4 => fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Server }, since),
                _ => commits(),
            };
            if committed.is_some() {
                probe.committed = committed;
            }
            scene.says(&observers[who], "a", Some(probe), None);
        }
        Harm::ReadOnly(who, read_only) => scene.server(LETTERS[who], |server| server.read_only = read_only),
        Harm::Serving(who, epoch) => scene.server(LETTERS[who], |server| server.serving = Some(Epoch(epoch))),
        Harm::Known(who, epoch) => scene.server(LETTERS[who], |server| server.epoch = Epoch(epoch)),
        Harm::Executed(who, last, errant) => scene.server(LETTERS[who], |server| {
            let mut set = gtids("a", last);
            if errant {
                set = set.union(&gtids(LETTERS[who], 3));
            }
            server.executed = Some(Aged { age: 50, value: set });
        }),
        Harm::Pod(who, how) => scene.replica(LETTERS[who], |replica| match (how, &mut replica.pod) {
            (0, pod) => *pod = Fact::Absent,
            (1, pod) => *pod = Fact::Unknown,
            (2, Fact::Present(pod)) => pod.terminating = true,
            (3, Fact::Present(pod)) => pod.phase = PodPhase::Ended,
            (_, Fact::Present(pod)) => pod.ip = None,
            _ => {}
        }),
        Harm::Volume(who, unknown) => scene.replica(LETTERS[who], |replica| {
            replica.volume = if unknown { Fact::Unknown } else { Fact::Absent };
        }),
        Harm::Condemned(who, ready) => {
            let at = jiff::Timestamp::from_second(1_700_000_000).expect("a time");
            scene.replica(LETTERS[who], |replica| {
                replica.condemned = Some(Condemned {
                    reason: "Lost".into(),
                    at: None,
                    successor_ready_at: ready.then_some(at),
                    node: Some("node-1".into()),
                });
            });
        }
        Harm::Transition(kind, to, epoch) => {
            scene.0.status.epoch = Epoch(epoch);
            scene.0.status.transition = Some(Transition {
                kind: [Kind::Bootstrap, Kind::Failover, Kind::Switchover, Kind::Confirm][usize::from(kind)],
                epoch: Epoch(epoch),
                from: Some(name("a")),
                to: name(LETTERS[to]),
                record: Some("m-5".into()),
                request: None,
                cause: None,
            });
            scene.0.memory.transition_known = 400;
            if kind == 0 {
                scene.0.status.primary = None;
            }
        }
        Harm::Reprobe(how) => scene.reprobed(match how {
            0 => ReprobeOutcome::Committed,
            1 => ReprobeOutcome::Failed("x".into()),
            _ => ReprobeOutcome::Running(100),
        }),
        Harm::Order(who, kind, outcome, sent) => {
            let kind = [OrderKind::Build, OrderKind::Follow, OrderKind::Promote, OrderKind::Fence, OrderKind::Peers]
                [usize::from(kind)];
            let outcome = match outcome {
                0 => OrderOutcome::InFlight,
                1 => OrderOutcome::Done(Some(gtids("a", 1000))),
                _ => OrderOutcome::Failed("x".into()),
            };
            scene.ordered(LETTERS[who], kind, 1, sent, outcome);
        }
        Harm::Wanted(replicas) => scene.0.policy.replicas = replicas,
        Harm::Mode(mode) => scene.0.policy.mode = [Mode::Automatic, Mode::Manual, Mode::Paused][usize::from(mode)],
        Harm::Awake(awake) => scene.0.memory.awake = awake,
        Harm::Office(known) => scene.0.memory.office_known = known,
        Harm::Request(target) => {
            let target = target.map(|who| name(LETTERS[who]));
            scene.0.requests.push(Request { name: "r".into(), kind: Kind::Switchover, target, age: 10 });
        }
        Harm::NoPrimary => scene.0.status.primary = None,
        Harm::Gap(who) => scene.report(&observers[who]).report.own_gap = 4_000,
        Harm::Changed(ago, in_a_row, open) => {
            let ago = jiff::SignedDuration::from_millis(i64::try_from(ago).expect("small"));
            let (kind, epoch, from) = (Kind::Failover, EPOCH, Some(name("gone")));
            let at = Some(scene.0.now - ago);
            let record = Some("m-4".to_owned());
            scene.0.status.in_a_row = in_a_row;
            scene.0.status.last_change = Some(LastChange { kind, epoch, from: from.clone(), record, cause: None, at });
            if open {
                let to = Some(name("a"));
                scene.0.records =
                    vec![Record { name: "m-4".into(), kind, epoch, from, to, steps: vec![], claimed: vec![] }];
            }
        }
        Harm::Fleet(suspect, rebuilding) => {
            (scene.0.fleet.suspect, scene.0.fleet.rebuilding) = (suspect, rebuilding);
        }
        Harm::Still(age) => {
            scene.server("a", |server| server.lsn = Some(Aged { age, value: 1 }));
            scene.all_say(&fails(Stage::Commit, ProbeError::Timeout, age));
        }
        Harm::Stopped(age, told) => scene.server("a", |server| {
            (server.process_state, server.stopped) = (Some('T'), told.then_some(age));
        }),
        Harm::Waits(who, lock, since, waited) => {
            let error = if lock { lock_wait() } else { ProbeError::Timeout };
            scene.says(&observers[who], "a", Some(waits(Stage::Commit, error, since, since + waited)), None);
        }
        Harm::Space(who, free, full) => scene.server(LETTERS[who], |server| {
            server.volume = Some(Volume { total: 100, free });
            if full {
                server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() });
            }
        }),
    }
}

fn harms() -> impl Strategy<Value = Vec<Harm>> {
    prop::collection::vec(harm(), 0..8)
}

fn spoiled(harms: &[Harm]) -> Scene {
    let mut scene = Scene::well();
    harms.iter().for_each(|harm| apply(&mut scene, harm));
    scene
}

fn promoted(step: &Step) -> Option<(&ReplicaName, Epoch)> {
    match step {
        Step::Order { replica, order: Order::Promote(promote) } => Some((replica, promote.epoch)),
        _ => None,
    }
}

/// A commit that somebody saw fresh, after the claim became known here.
fn commit_after_claim(s: &Snapshot, old: &ReplicaName) -> bool {
    let about = |received: &Received| {
        let evidence = received.report.evidence.iter().filter(|e| e.subject == *old);
        evidence.filter_map(|e| Some(e.probe.as_ref()?.committed? + received.age)).min()
    };
    s.reports.iter().filter_map(about).any(|commit| commit + 100 < s.memory.transition_known)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_same_snapshot_gives_the_same_decision(harms in harms()) {
        let scene = spoiled(&harms);
        prop_assert_eq!(format!("{:?}", plan(&scene.0)), format!("{:?}", plan(&scene.0)));
    }

    #[test]
    fn the_next_look_is_never_now_and_never_later_than_the_calm_one(harms in harms()) {
        let scene = spoiled(&harms);
        let decision = plan(&scene.0);
        prop_assert!((1..=1_000).contains(&decision.requeue), "{:?}", decision.requeue);
        prop_assert!(!decision.assessment.verdict.is_dead() || decision.assessment.ripens.is_none());
    }

    #[test]
    fn at_most_one_step_cannot_be_taken_back(harms in harms()) {
        let scene = spoiled(&harms);
        let steps = plan(&scene.0).steps;
        prop_assert!(steps.iter().filter(|step| step.is_irreversible()).count() <= 1, "{steps:?}");
    }

    #[test]
    fn no_call_follows_one_that_cannot_be_taken_back(harms in harms()) {
        let scene = spoiled(&harms);
        let steps = plan(&scene.0).steps;
        let call = |step: &Step| step.is_irreversible() && !matches!(step, Step::Order { .. });
        let after = steps.iter().skip_while(|step| !call(step)).skip(1);
        prop_assert!(after.clone().all(|step| !step.can_wait()), "{steps:?}");
    }

    #[test]
    fn nothing_is_made_or_labelled_while_the_primary_is_changed(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        let changes = s.status.transition.as_ref().is_some_and(|t| t.kind != Kind::Bootstrap);
        if changes && s.memory.transition_known < s.policy.thresholds.promote_within {
            let makes = |step: &Step| matches!(step, Step::MakeVolume { .. } | Step::MakePod { .. } | Step::Grow { .. } | Step::Label { .. });
            let steps = plan(s).steps;
            prop_assert!(!steps.iter().any(makes), "{steps:?}");
        }
    }

    #[test]
    fn i2_only_the_target_of_the_claimed_epoch_is_promoted_and_claims_only_go_up(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        for step in plan(s).steps {
            if let Some((replica, epoch)) = promoted(&step) {
                let transition = s.status.transition.as_ref();
                prop_assert!(transition.is_some_and(|t| t.to == *replica && t.epoch == epoch), "{step:?}");
            }
            if let Step::Claim(claim) = &step {
                prop_assert!(claim.epoch() > s.status.epoch, "{step:?}");
            }
            if let Step::Publish { epoch, primary, .. } = &step {
                let proven = s.own_report(primary).is_some_and(|(server, _)| server.serving == Some(*epoch))
                    || s.order(primary, OrderKind::Promote, *epoch).is_some_and(|o| matches!(o.outcome, OrderOutcome::Done(_)));
                prop_assert!(proven, "{step:?}");
            }
        }
    }

    #[test]
    fn i4_a_commit_after_the_claim_stands_against_a_failover(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        let Some(transition) = s.status.transition.as_ref().filter(|t| t.kind == Kind::Failover) else { return Ok(()) };
        let told = s.order(&transition.to, OrderKind::Promote, transition.epoch).is_some();
        let old = transition.from.clone().expect("from a");
        if !told && commit_after_claim(s, &old) {
            let steps = plan(s).steps;
            prop_assert!(steps.iter().all(|step| promoted(step).is_none()), "{steps:?}");
        }
    }

    #[test]
    fn i4_a_fresh_commit_stands_against_a_claim(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        let Some(primary) = s.status.primary.clone() else { return Ok(()) };
        let newest = s.reports.iter().flat_map(|r| r.report.evidence.iter().map(move |e| (r, e))).filter(|(_, e)| e.subject == primary);
        let newest = newest.filter_map(|(r, e)| Some(e.probe.as_ref()?.committed? + r.age)).min();
        let decision = plan(s);
        let unplanned = decision.steps.iter().any(|step| matches!(step, Step::Claim(c) if c.kind == Kind::Failover && c.from.as_ref() == Some(&primary)));
        if s.status.transition.is_none() && unplanned && let Some(newest) = newest {
            prop_assert!(newest > 2_000 || newest + 100 >= decision.assessment.since, "commit {newest} ms ago: {:?}", decision.assessment);
        }
    }

    #[test]
    fn i6_a_volume_goes_only_when_it_was_condemned_and_all_copies_are_there(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        for step in plan(s).steps {
            match &step {
                Step::DeleteVolume { replica, .. } => {
                    prop_assert!(s.replicas[replica].condemned.as_ref().is_some_and(|c| c.successor_ready_at.is_some()));
                    prop_assert!(s.status.primary.as_ref() != Some(replica));
                    let running = s.cast().filter(|(name, _)| s.fresh_report(name).is_some_and(|(server, _)| server.phase == Phase::Running));
                    prop_assert!(running.count() >= s.policy.replicas, "{step:?}");
                }
                Step::Condemn { replica, .. } => {
                    prop_assert!(s.status.primary.as_ref() != Some(replica), "{step:?}");
                    prop_assert!(s.status.transition.as_ref().is_none_or(|t| t.kind == Kind::Bootstrap), "{step:?}");
                }
                Step::DeletePod { replica, restart: false, .. } => prop_assert!(s.replicas[replica].condemned.is_some()),
                _ => {}
            }
        }
    }

    #[test]
    fn i6_the_last_good_copy_is_never_condemned(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        // What was to be the first primary and never served is no copy of anything.
        if s.status.primary.is_none() {
            return Ok(());
        }
        for step in plan(s).steps {
            let Step::Condemn { replica, epoch: None, .. } = &step else { continue };
            let is_copy = |server: &Server| server.phase == Phase::Running || server.serving.is_some();
            let others = s.cast().filter(|(name, _)| *name != replica);
            let copies = others.filter(|(name, _)| s.fresh_report(name).is_some_and(|(server, _)| is_copy(server)));
            prop_assert!(copies.count() > 0, "{step:?}");
        }
    }

    #[test]
    fn i7_a_judgement_ends_no_office_within_the_cooldown_or_above_the_breaker(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        let decision = plan(s);
        let begins = |step: &Step| matches!(step, Step::Claim(claim) if claim.kind == Kind::Failover);
        let judged = s.status.primary.is_some() && s.status.transition.is_none() && s.requests.is_empty();
        let last_resort = decision.notes.iter().any(|note| note.reason == Reason::LastResort);
        if !judged || last_resort || !decision.steps.iter().any(begins) {
            return Ok(());
        }
        let since = s.status.last_change.as_ref().and_then(|change| change.at);
        let ago = since.map(|at| s.now.as_millisecond() - at.as_millisecond());
        if decision.assessment.class == Some(Class::Soft) {
            prop_assert!(ago.is_none_or(|ago| ago >= 600_000), "{:?}", decision.assessment);
            prop_assert!(s.fleet.suspect < 3 || s.fleet.suspect * 5 <= s.fleet.shards, "{:?}", decision.assessment);
        }
        let lost = decision.assessment.verdict.cause() == Some(Cause::Unreachable);
        if s.status.in_a_row >= 2 && !s.records.is_empty() && !lost {
            prop_assert!(ago.is_none_or(|ago| ago >= 30_000), "{:?}", s.status);
        }
    }

    #[test]
    fn i7_no_sick_standby_is_given_up_beyond_the_budgets(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        for step in plan(s).steps {
            let Step::Condemn { reason, epoch: None, .. } = &step else { continue };
            if *reason != Sentence::ScaledDown && s.status.primary.is_some() {
                prop_assert!(s.fleet.rebuilding < 2, "{step:?}: 24 replicas, of which a tenth may be rebuilt");
                let mut given_up = s.replicas.iter().filter(|(name, _)| s.status.primary.as_ref() != Some(*name)).filter(|(_, replica)| replica.condemned.is_some());
                let waits = given_up.next().is_some() && s.cast().count() < s.policy.replicas;
                prop_assert!(*reason == Sentence::Lost || !waits, "{step:?}");
            }
        }
    }

    #[test]
    fn while_nobody_is_known_to_serve_it_is_said_what_is_done_or_waited_for(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        let decision = plan(s);
        let is_dead = decision.assessment.verdict.is_dead() && s.status.transition.is_none() && s.status.primary.is_some();
        if is_dead || s.status.transition.is_some() || s.status.primary.is_none() {
            prop_assert!(decision.view.doing.is_some(), "{:?}", decision.notes);
        }
        let why = |reason: Reason| matches!(reason, Reason::FailoverLeftToPerson | Reason::Cooldown | Reason::FleetBreaker | Reason::FailoverPaced | Reason::NoCandidate | Reason::RetentionViolated);
        let changes = decision.steps.iter().any(|step| matches!(step, Step::Claim(_)));
        if is_dead && !changes {
            prop_assert!(decision.notes.iter().any(|note| why(note.reason)), "{:?}", decision.notes);
        }
    }

    #[test]
    fn nothing_is_done_while_paused(harms in harms()) {
        let scene = spoiled(&harms);
        let mut scene = scene;
        scene.0.policy.paused = true;
        prop_assert_eq!(plan(&scene.0).steps, vec![]);
    }

    #[test]
    fn an_errant_replica_is_the_target_of_a_claim_only_when_nobody_else_is_left(harms in harms()) {
        let scene = spoiled(&harms);
        let s = &scene.0;
        for step in plan(s).steps {
            let Step::Claim(claim) = &step else { continue };
            // The primary itself may be confirmed, and a target once claimed may be claimed again.
            let again = s.status.primary.as_ref() == Some(&claim.to) || s.status.transition.as_ref().is_some_and(|t| t.to == claim.to || t.from.as_ref() == Some(&claim.to));
            let own = LETTERS.iter().find(|letter| name(letter) == claim.to).expect("of the scene");
            let executed = s.own_report(&claim.to).and_then(|(server, _)| server.executed.clone());
            // Everything here was written on a.
            if !again && *own != "a" && let Some(executed) = executed && executed.value.contains(&gtids(own, 3)) {
                prop_assert!(s.memory.awake >= 5_000, "{step:?}");
                let old = name("a");
                let given_up = s.status.transition.as_ref().map(|t| &t.to);
                for (other, replica) in s.replicas.iter().filter(|(other, _)| **other != old && Some(*other) != given_up) {
                    let fit = examine(s, Some(&old), other, replica);
                    prop_assert!(fit.is_err(), "{step:?} and {other} is fit");
                    let comes_back = matches!(fit, Err(Unfit::Silent)) && s.silent_for(other) < s.policy.thresholds.lost_standby_after;
                    prop_assert!(!comes_back, "{step:?} and {other} may come back");
                }
            }
        }
    }
}
