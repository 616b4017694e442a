//! I8: a shard whose spec stays and that nothing befalls comes to rest in a bounded number of passes, and then nothing is done.

mod support;

use proptest::prelude::*;
use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Order, Step, plan};
use understudy_wire::evidence::{Aged, Phase};
use understudy_wire::{Observer, ReplicaName};

/// More passes than any of these takes: a replacement takes some ten.
const PASSES: usize = 100;

/// What is not as it should be with a standby in the beginning.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Nothing,
    NoPod,
    Ended,
    Unusable,
    Errant,
    WrongLabel,
    FollowsNobody,
    Condemned,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::Nothing),
        Just(Trouble::NoPod),
        Just(Trouble::Ended),
        Just(Trouble::Unusable),
        Just(Trouble::Errant),
        Just(Trouble::WrongLabel),
        Just(Trouble::FollowsNobody),
        Just(Trouble::Condemned),
    ]
}

fn befalls(scene: &mut Scene, letter: &str, trouble: Trouble) {
    match trouble {
        Trouble::Nothing => {}
        Trouble::NoPod => scene.replica(letter, |replica| replica.pod = Fact::Absent),
        Trouble::Ended => scene.server(letter, |server| {
            server.phase = Phase::Exited { code: Some(1), signal: None, age: 5_000 };
        }),
        Trouble::Unusable => scene.server(letter, |server| server.phase = Phase::Unusable { reason: "half".into() }),
        Trouble::Errant => scene.server(letter, |server| {
            server.executed = Some(Aged { age: 50, value: gtids("a", 1_000).union(&gtids(letter, 3)) });
        }),
        Trouble::WrongLabel => scene.label(letter, "primary"),
        Trouble::FollowsNobody => scene.server(letter, |server| server.replication = None),
        Trouble::Condemned => scene.replica(letter, |replica| {
            replica.condemned = Some(Condemned { reason: "Wanted".into(), ..Condemned::default() });
        }),
    }
}

fn letter(name: &ReplicaName) -> &str {
    name.as_str().trim_start_matches("m-")
}

/// What becomes of a step in a cluster where everything works.
fn take(scene: &mut Scene, step: Step) {
    let now = scene.0.now;
    match step {
        Step::Grow { first, replicas } => {
            for (number, new) in (first..).zip(replicas) {
                let made = Replica {
                    replaces: new.replaces,
                    pod: Fact::Absent,
                    volume: Fact::Absent,
                    age: 0,
                    ..replica(number, letter(&new.name))
                };
                scene.0.replicas.insert(new.name, made);
                scene.0.status.next_server_id = number + 1;
            }
        }
        Step::MakeVolume { replica } => {
            let volume = VolumeClaim { uid: format!("pvc-{replica}"), bound: true, ..VolumeClaim::default() };
            scene.replica(letter(&replica), |replica| replica.volume = Fact::Present(volume));
        }
        Step::MakePod { replica } => {
            let number = scene.0.replicas[&replica].server_id;
            let pod = Pod {
                uid: format!("pod-{replica}"),
                node: Some(format!("node-{number}")),
                ip: Some(format!("10.0.0.{number}")),
                ..Pod::default()
            };
            scene.replica(letter(&replica), |replica| replica.pod = Fact::Present(pod));
            let speaker = Observer::Manager { replica: replica.clone() };
            if !scene.0.reports.iter().any(|received| received.report.observer == speaker) {
                let mut empty = server(letter(&replica), Phase::Empty);
                (empty.executed, empty.replication) = (None, None);
                scene.says(&speaker, letter(&replica), None, Some(empty));
            }
        }
        Step::Label { replica, role } => scene.label(letter(&replica), &role.to_string()),
        Step::Condemn { replica, reason, .. } => scene.replica(letter(&replica), |replica| {
            replica.condemned = Some(Condemned { reason: reason.to_string(), at: Some(now), ..Condemned::default() });
        }),
        Step::DeletePod { replica, .. } => {
            scene.replica(letter(&replica), |replica| replica.pod = Fact::Absent);
            let speaker = Observer::Manager { replica };
            scene.0.reports.retain(|received| received.report.observer != speaker);
        }
        Step::StartQuarantine { replica } => scene.replica(letter(&replica), |replica| {
            replica.condemned.as_mut().expect("condemned").successor_ready_at = Some(now);
        }),
        Step::DeleteReplica { replica, .. } => {
            scene.0.replicas.remove(&replica);
        }
        Step::Order { replica, order: Order::Peers(peers) } => {
            scene.replica(letter(&replica), |replica| replica.link.peers = Some(peers));
        }
        Step::Order { replica, order: Order::Build(_) | Order::Follow(_) } => {
            let follows = server(letter(&replica), Phase::Running);
            scene.says(&Observer::Manager { replica: replica.clone() }, letter(&replica), None, Some(follows));
        }
        step => panic!("nothing befell the primary: {step:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn i8_a_shard_comes_to_rest_and_stays_there(b in trouble(), c in trouble(), wanted in 2..5_usize) {
        let mut scene = Scene::well();
        befalls(&mut scene, "b", b);
        befalls(&mut scene, "c", c);
        scene.0.policy.replicas = wanted;
        for pass in 0..PASSES {
            let steps = plan(&scene.0).steps;
            if steps.is_empty() {
                prop_assert!(plan(&scene.0).steps.is_empty());
                let cast = scene.0.cast().count();
                prop_assert!(cast == wanted && plan(&scene.0).view.redundant, "{cast} after {pass} passes: {:?}", plan(&scene.0).notes);
                return Ok(());
            }
            steps.into_iter().for_each(|step| take(&mut scene, step));
        }
        prop_assert!(false, "no rest: {:?}", plan(&scene.0).steps);
    }
}
