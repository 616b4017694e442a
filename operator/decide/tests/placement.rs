//! Where new replicas may go.

mod support;

use support::*;
use understudy_decide::Fact;
use understudy_decide::failover::snapshot::*;

/// `b` was condemned because nobody heard of it, and its pod is gone.
fn lose(scene: &mut Scene) {
    scene.replica("b", |replica| {
        replica.condemned =
            Some(Condemned { reason: "Lost".into(), node: Some("node-2".into()), ..Condemned::default() });
        replica.pod = Fact::Absent;
    });
    scene.0.reports.retain(|received| received.report.observer != manager("b"));
}

#[test]
fn a_condemned_replica_is_replaced_on_another_node_as_long_as_there_is_one() {
    let mut scene = Scene::well();
    scene.replica("b", |replica| {
        replica.condemned =
            Some(Condemned { reason: "FailedOver".into(), node: Some("node-2".into()), ..Condemned::default() });
        replica.pod = Fact::Absent;
    });
    let new = scene.grown();
    assert_eq!(new.len(), 1);
    assert_eq!((new[0].server_id, new[0].replaces.as_ref()), (4, Some(&name("b"))));
    assert_eq!(new[0].avoid_nodes, ["node-2"]);
    scene.0.nodes.remove("node-4");
    assert!(scene.grown()[0].avoid_nodes.is_empty(), "no other node is free");
}

#[test]
fn a_lost_node_is_avoided_even_if_nothing_else_is_free() {
    let mut scene = Scene::well();
    scene.0.nodes.remove("node-4");
    lose(&mut scene);
    assert_eq!(scene.grown()[0].avoid_nodes, ["node-2"]);
}

#[test]
fn a_node_on_which_one_fell_silent_or_was_lost_is_avoided_unless_another_is_heard_there() {
    type Case = (&'static str, fn(&mut Scene), bool);
    let cases: &[Case] = &[
        ("nobody else is there", |_| (), true),
        ("another is there and is heard", beside_b, false),
        (
            "another is there and is silent as well",
            |s| {
                beside_b(s);
                s.silent("c", 5_000);
            },
            true,
        ),
    ];
    type Loss = fn(&mut Scene);
    let losses: &[(&str, Loss)] = &[("b is silent", |s| s.silent("b", 5_000)), ("b was lost", lose)];
    for (case, others, avoided) in cases {
        for (what, loss) in losses {
            let mut scene = Scene::well();
            // One more than there were: it replaces none, so only the silence speaks against a node.
            scene.0.policy.replicas = 4;
            loss(&mut scene);
            others(&mut scene);
            let new = scene.grown().into_iter().find(|new| new.replaces.is_none()).expect("one more is made");
            let expected: &[&str] = if *avoided { &["node-2"] } else { &[] };
            assert_eq!(new.avoid_nodes, expected, "{what}, {case}");
        }
    }
}

/// `c` is on the node of `b`.
fn beside_b(scene: &mut Scene) {
    scene.replica("c", |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.node = Some("node-2".into());
        }
    });
}

#[test]
fn a_node_that_was_lost_is_used_again_once_kubernetes_says_that_it_is_back() {
    let ago = |scene: &Scene, seconds: i64| scene.0.now - jiff::SignedDuration::from_secs(seconds);
    for (case, lost, ready, avoided) in [
        ("a minute ago, and Kubernetes has not noticed", 60, Some(70), true),
        ("a minute ago, and its kubelet's clock is a little ahead", 60, Some(51), true),
        ("a minute ago, and its kubelet has spoken since", 60, Some(50), false),
        ("two minutes ago, and unready", 120, None, true),
        ("hours ago, and unready", 9_000, None, true),
        ("five minutes ago, and Kubernetes never missed it", 300, Some(310), false),
    ] {
        let mut scene = Scene::well();
        lose(&mut scene);
        let at = ago(&scene, lost);
        scene.replica("b", |replica| replica.condemned.as_mut().expect("it is condemned").at = Some(at));
        let ready = ready.map(|seconds| ago(&scene, seconds));
        scene.0.nodes.get_mut("node-2").expect("a node").ready_at = ready;
        scene.replica("c", |replica| {
            replica.condemned =
                Some(Condemned { reason: "FailedOver".into(), node: Some("node-3".into()), ..Condemned::default() });
            replica.pod = Fact::Absent;
        });
        let found = scene
            .grown()
            .into_iter()
            .any(|new| new.avoid_nodes.contains(&"node-2".to_owned()) && new.replaces == Some(name("c")));
        assert_eq!(found, avoided, "{case}");
    }
}

#[test]
fn the_node_of_a_replica_whose_pod_was_taken_away_is_not_taken_for_lost() {
    let mut scene = Scene::well();
    for (letter, node) in [("b", "node-2"), ("c", "node-3")] {
        scene.replica(letter, |replica| {
            replica.condemned =
                Some(Condemned { reason: "FailedOver".into(), node: Some(node.into()), ..Condemned::default() });
            replica.pod = Fact::Absent;
        });
        scene.report(&manager(letter)).age = 60_000;
    }
    let avoided: Vec<_> = scene.grown().into_iter().map(|new| new.avoid_nodes).collect();
    assert_eq!(avoided, [["node-2"], ["node-3"]]);
}
