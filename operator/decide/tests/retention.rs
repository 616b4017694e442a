//! What Kafka must still hold for a candidate.

mod support;

use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_wire::evidence::{Aged, StoredOffset};

fn row(partition: i32, next_offset: i64) -> StoredOffset {
    StoredOffset { partition, ..offset(next_offset) }
}

fn stores(scene: &mut Scene, letter: &str, rows: &[(i32, i64)]) {
    let rows = rows.iter().map(|(partition, next)| row(*partition, *next)).collect();
    scene.server(letter, |server| server.offsets = Some(Aged { age: 50, value: rows }));
}

fn begins(scene: &mut Scene, partition: i32, earliest: i64) {
    scene.0.log.insert(("samples".into(), partition), earliest);
}

fn feeds(scene: &mut Scene, partition: i32, spans: &[(i64, Option<i64>)]) {
    let spans = spans.iter().map(|(from, until)| Span { from: *from, until: *until }).collect();
    scene.0.feeds.insert(("samples".into(), partition), spans);
}

/// The operator was started after the primary was lost, and never heard it.
fn never_heard(scene: &mut Scene) {
    scene.lose_node(61_000);
    scene.0.reports.retain(|received| received.report.observer != manager("a"));
}

#[test]
fn kafka_must_hold_what_a_candidate_has_not_executed() {
    type Case = (&'static str, fn(&mut Scene), Option<&'static str>);
    let cases: &[Case] = &[
        ("it holds it", |s| begins(s, 0, 500), Some("m-b")),
        ("it begins one record later", |s| begins(s, 0, 501), None),
        (
            "what was received and not executed may be discarded",
            |s| {
                begins(s, 0, 501);
                s.server("b", |server| {
                    server.replication.as_mut().expect("replicates").value.received = gtids("a", 1000);
                });
            },
            None,
        ),
        (
            "everything was executed",
            |s| {
                begins(s, 0, 901);
                s.server("b", |server| server.executed = Some(Aged { age: 50, value: gtids("a", 1000) }));
            },
            Some("m-b"),
        ),
        (
            "no row of a partition that the old primary has, from the beginning on",
            |s| {
                stores(s, "a", &[(0, 900), (1, 50)]);
                begins(s, 1, 0);
            },
            Some("m-b"),
        ),
        (
            "no row of a partition that the old primary has, and the beginning is gone",
            |s| {
                stores(s, "a", &[(0, 900), (1, 50)]);
                begins(s, 1, 10);
            },
            None,
        ),
        (
            "no row of a partition that another standby has, and the old primary was not heard",
            |s| {
                never_heard(s);
                stores(s, "c", &[(0, 500), (1, 50)]);
                begins(s, 1, 10);
            },
            Some("m-c"),
        ),
        (
            "a row that the old primary did not have either",
            |s| {
                stores(s, "b", &[(0, 500), (1, 5)]);
                begins(s, 1, 10);
            },
            Some("m-b"),
        ),
        (
            "a leftover of a partition that feeds another shard now, and the old primary was not heard",
            |s| {
                never_heard(s);
                for letter in ["b", "c"] {
                    stores(s, letter, &[(0, 500), (1, 100)]);
                }
                begins(s, 1, 5_000);
                feeds(s, 1, &[(0, Some(100))]);
            },
            Some("m-b"),
        ),
        (
            "the same row, not stored to the end of what feeds this shard",
            |s| {
                never_heard(s);
                for letter in ["b", "c"] {
                    stores(s, letter, &[(0, 500), (1, 99)]);
                }
                begins(s, 1, 5_000);
                feeds(s, 1, &[(0, Some(100))]);
            },
            None,
        ),
        (
            "the same row, and nobody knows what feeds this shard",
            |s| {
                never_heard(s);
                for letter in ["b", "c"] {
                    stores(s, letter, &[(0, 500), (1, 100)]);
                }
                begins(s, 1, 5_000);
            },
            None,
        ),
        (
            "no row of a partition that feeds this shard from where Kafka still has it",
            |s| {
                stores(s, "a", &[(0, 900), (1, 700)]);
                feeds(s, 1, &[(600, None)]);
                begins(s, 1, 600);
            },
            Some("m-b"),
        ),
        (
            "no row of a partition that feeds this shard from where Kafka has it no more",
            |s| {
                stores(s, "a", &[(0, 900), (1, 700)]);
                feeds(s, 1, &[(600, None)]);
                begins(s, 1, 601);
            },
            None,
        ),
        (
            "what it has stored was not read",
            |s| {
                for letter in ["b", "c"] {
                    s.server(letter, |server| server.offsets = None);
                }
            },
            None,
        ),
        (
            "of a consumer that is no more",
            |s| {
                begins(s, 0, 501);
                s.0.consumers.clear();
            },
            Some("m-b"),
        ),
        ("nobody knows what it holds, and the candidate is close behind", |s| s.0.log.clear(), Some("m-b")),
        (
            "nobody knows what it holds, nor how far behind the candidates are",
            |s| {
                s.0.log.clear();
                for letter in ["b", "c"] {
                    s.server(letter, |server| server.replication.as_mut().expect("replicates").value.delay = None);
                }
            },
            None,
        ),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        scene.kill_primary(500);
        scene.far_behind();
        stores(&mut scene, "a", &[(0, 900)]);
        spoil(&mut scene);
        let expected = expected.map(|to| (Kind::Failover, to.to_owned()));
        assert_eq!(scene.claim(), expected, "{case}: {:?}", scene.plan().notes);
    }
}
