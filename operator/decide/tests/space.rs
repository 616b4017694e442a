//! When a volume is nearly full, and what is said then.

mod support;

use support::*;
use understudy_decide::Reason;
use understudy_decide::failover::snapshot::Condemned;
use understudy_decide::space::is_low;
use understudy_wire::evidence::Volume;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn a_volume_is_nearly_full_below_a_tenth_or_a_gibibyte_whichever_is_less() {
    for (case, total, free, was_low, expected) in [
        ("small, a tenth is free", 1_000 * MIB, 100 * MIB, false, false),
        ("small, less is free", 1_000 * MIB, 99 * MIB, false, true),
        ("large, 1 GiB is free", 1_000 * GIB, GIB, false, false),
        ("large, less is free", 1_000 * GIB, GIB - 1, false, true),
        ("it was, and a little was deleted", 1_000 * MIB, 124 * MIB, true, true),
        ("it was, and a quarter more is free", 1_000 * MIB, 125 * MIB, true, false),
        ("nothing is known of its size", 0, 0, true, false),
    ] {
        assert_eq!(is_low(Volume { total, free }, was_low), expected, "{case}");
    }
}

fn fill(scene: &mut Scene, letter: &str, free: u64) {
    scene.server(letter, |server| server.volume = Some(Volume { total: 2_048 * MIB, free }));
}

/// Of which replicas it is said, and in which words.
fn said(scene: &Scene) -> Vec<(String, String)> {
    let notes = scene.plan().notes.into_iter().filter(|note| note.reason == Reason::VolumeLow);
    notes.map(|note| (note.about.expect("a replica").to_string(), note.message)).collect()
}

fn shown(scene: &Scene) -> Vec<Option<String>> {
    scene.plan().view.replicas.into_iter().map(|view| view.low_volume).collect()
}

#[test]
fn each_volume_that_is_nearly_full_is_said_in_words_that_stay() {
    let mut scene = Scene::well();
    assert_eq!((said(&scene), shown(&scene)), (vec![], vec![None; 3]));
    fill(&mut scene, "a", 150 * MIB);
    fill(&mut scene, "b", 170 * MIB);
    let words = Some("204 MiB of its 2048 MiB should be free".to_owned());
    assert_eq!(shown(&scene), [words.clone(), words, None]);
    let before = said(&scene);
    assert_eq!(before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["m-a", "m-b"]);
    fill(&mut scene, "a", 140 * MIB);
    assert_eq!(said(&scene), before);
    assert_eq!(scene.steps(), vec![], "nothing is done about it");
}

#[test]
fn what_was_known_counts_while_a_manager_is_not_heard_and_nothing_of_one_that_is_replaced() {
    let mut scene = Scene::well();
    scene.0.reports.retain(|received| received.report.observer != manager("b"));
    scene.replica("b", |replica| {
        replica.last_volume = Some(Volume { total: 1_000 * MIB, free: 110 * MIB });
        replica.was_low = true;
    });
    assert_eq!(said(&scene).len(), 1);
    scene.replica("b", |replica| replica.condemned = Some(Condemned { reason: "Lost".into(), ..Condemned::default() }));
    assert_eq!(said(&scene), vec![]);
}
