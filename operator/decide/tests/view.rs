//! What is said of each replica.

mod support;

use support::*;
use understudy_decide::Fact;
use understudy_decide::failover::snapshot::Node;
use understudy_wire::evidence::Millis;

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
        let view = scene.plan().view;
        let found = view.replicas.iter().find(|replica| replica.name == name("b")).expect("it is there");
        assert_eq!(found.behind, expected, "{case}");
        assert_eq!(found.message, expected.map(|words| format!("it {words}")), "{case}");
        assert_eq!(view.redundant, expected.is_none(), "{case}: what is said is why a copy is missing");
        let primary = view.replicas.iter().find(|replica| replica.name == name("a")).expect("it is there");
        assert_eq!(primary.behind, None, "{case}");
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
