//! What is said of each replica.

mod support;

use support::*;
use understudy_decide::decision::ReplicaView;
use understudy_decide::failover::snapshot::{Condemned, Mode, Node};
use understudy_decide::{Fact, Role, Step};
use understudy_wire::evidence::Millis;

fn shown(scene: &Scene, letter: &str) -> ReplicaView {
    let replicas = scene.plan().view.replicas;
    replicas.into_iter().find(|replica| replica.name == name(letter)).expect("it is there")
}

/// The role that the labels of a replica are moved to, if they are moved.
fn labelled(scene: &Scene, letter: &str) -> Option<Role> {
    scene.plan().steps.into_iter().find_map(|step| match step {
        Step::Label { replica, role } if replica == name(letter) => Some(role),
        _ => None,
    })
}

#[test]
fn a_replica_whose_manager_is_silent_keeps_its_label_unless_that_says_primary() {
    for (case, silent, label, moved) in [
        ("a standby", true, "standby", None),
        ("one that is being built", true, "spare", None),
        ("a former primary, which may still take writes", true, "primary", Some(Role::Spare)),
        ("a former primary that is heard and follows", false, "primary", Some(Role::Standby)),
    ] {
        let mut scene = Scene::well();
        scene.label("c", label);
        if silent {
            scene.silence("c");
        }
        assert_eq!(labelled(&scene, "c"), moved, "{case}");
    }
}

#[test]
fn a_condemned_primary_is_the_primary_until_another_is_in_office() {
    for (case, office, role, ready, moved) in [
        ("it is in office", "a", Role::Primary, true, None),
        ("another is", "b", Role::Condemned, false, Some(Role::Condemned)),
    ] {
        let mut scene = Scene::well();
        scene.replica("a", |replica| {
            replica.condemned = Some(Condemned { reason: "Rolled".into(), ..Condemned::default() });
        });
        // Or it hands over at once, and no label is moved beside a claim.
        scene.0.policy.mode = Mode::Manual;
        scene.0.status.primary = Some(name(office));
        scene.0.status.primary_address = scene.0.address_of(&name(office));
        let found = shown(&scene, "a");
        assert_eq!((found.role, found.ready), (role, ready), "{case}");
        assert_eq!(labelled(&scene, "a"), moved, "{case}");
    }
}

#[test]
fn a_standby_that_does_not_keep_up_says_how_far_it_is_behind_in_steps() {
    let hour: Millis = 3_600_000;
    for (case, delay, expected) in [
        ("it keeps up", Some(0), None),
        ("nothing has arrived over its connection yet", None, Some("is not known yet to keep up")),
        ("11 s", Some(11_000), Some("is more than 10 s behind")),
        ("9 min", Some(9 * 60_000), Some("is more than 1 min behind")),
        ("59 min", Some(59 * 60_000), Some("is more than 10 min behind")),
        ("2 h", Some(2 * hour), Some("is more than 1 h behind")),
        ("23 h", Some(23 * hour), Some("is more than 6 h behind")),
        ("3 days", Some(72 * hour), Some("is more than a day behind")),
    ] {
        let mut scene = Scene::well();
        scene.server("b", |server| {
            server.replication.as_mut().expect("it replicates").value.delay = delay;
        });
        let found = shown(&scene, "b");
        assert_eq!(found.behind, expected, "{case}");
        assert_eq!(found.message, expected.map(|words| format!("it {words}")), "{case}");
        let redundant = scene.plan().view.redundant;
        assert_eq!(redundant, expected.is_none(), "{case}: what is said is why a copy is missing");
        assert_eq!(shown(&scene, "a").behind, None, "{case}");
    }
}

#[test]
fn replicas_that_are_all_on_one_node_are_told_of_when_there_is_another() {
    let together = |count: usize, change: fn(&mut Node)| {
        let mut scene = Scene::well();
        for letter in ["a", "b", "c"].into_iter().take(count) {
            scene.replica(letter, |replica| {
                if let Fact::Present(pod) = &mut replica.pod {
                    pod.node = Some("node-1".into());
                }
            });
        }
        scene.0.nodes.values_mut().for_each(change);
        scene.plan().view.one_node
    };
    type Case = (&'static str, usize, fn(&mut Node), Option<&'static str>);
    let cases: &[Case] = &[
        ("all", 3, |_| (), Some("node-1")),
        ("two of three", 2, |_| (), None),
        ("all, and pods can be on no other", 3, |node| node.schedulable = false, None),
        ("all, and the pods of this shard may be on no other", 3, |node| node.barred = true, None),
    ];
    for (case, count, change, expected) in cases {
        assert_eq!(together(*count, *change).as_deref(), *expected, "{case}");
    }
}
