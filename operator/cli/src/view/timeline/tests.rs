//! What `timeline` shows of records of many kinds.

use serde_json::json;

use super::*;
use crate::view::fixtures::{self, at, object, with};

fn shown(object: DynamicObject, extent: Extent) -> Vec<String> {
    screen(object, at(0)).text(extent).words()
}

fn has(lines: &[String], expected: &str) {
    assert!(lines.iter().any(|line| line.contains(expected)), "{expected} in {lines:#?}");
}

#[test]
fn a_record_is_shown_step_by_step() {
    let lines = shown(fixtures::record(), Extent::Screen);
    assert_eq!(lines[0], "Failover of m, m-5: Succeeded");
    for expected in [
        "primary m-a -> m-b",
        "ended after 40s",
        "write gap 4.1 s",
        "replayed 42 records",
        "rebuild m-d, redundant after 40.0 s",
        "Decided +2000 ms 2000 ms ==================== epoch 5: Stuck",
        "Redundant +40000 ms 36000 ms > epoch 5",
        "peer m-b 120 ms no answer at commit",
        "manager m-a m-a 90 ms fsync hangs",
        "m-b z2 yes u:1-90",
        "m-c z3 no: has fewer transactions u:1-80",
        "metrics-store samples 0 100 58 42",
        "metrics-store samples 1 50 50 0",
        "thread: ib_log_writer",
        "log_write",
    ] {
        has(&lines, expected);
    }
    assert!(!lines.iter().any(|line| line == "Said that it lives"), "{lines:#?}");
}

#[test]
fn the_export_is_the_whole_record_with_what_is_not_known_here() {
    let record = with(fixtures::record(), &[("/status/novelty", json!({ "deep": [1, 2] }))]);
    let json = serde_json::to_value(screen(record.clone(), at(0))).unwrap();
    assert_eq!(json, serde_json::to_value(&record).unwrap());
    assert_eq!(json["status"]["novelty"]["deep"][1], 2);
    assert_eq!(json["kind"], "Failover");
}

#[test]
fn a_request_that_nobody_took_up_is_shown() {
    let request = object(json!({ "metadata": { "name": "please" }, "spec": { "shard": "m", "kind": "Switchover" } }));
    let lines = shown(request, Extent::Screen);
    assert_eq!(lines[0], "Switchover of m, please: Pending: no operator has taken it up yet");
    has(&lines, "Nothing has been done yet.");
}

#[test]
fn steps_without_a_time_since_the_first_are_told_by_their_clocks() {
    let timeline = json!([
        { "step": "Claimed", "at": at(-58) },
        { "step": "FirstSign", "at": at(-60) },
        { "step": "Odd" },
    ]);
    let lines = shown(with(fixtures::record(), &[("/status/timeline", timeline)]), Extent::Screen);
    has(&lines, "Claimed +2000 ms 2000 ms");
    has(&lines, "FirstSign +0 ms 0 ms");
}

#[test]
fn a_bar_is_where_its_step_was_and_never_empty_nor_too_wide() {
    for (from, to, scale, begin, end) in [
        (0, 0, 100, 0, 1),
        (0, 100, 100, 0, BAR),
        (50, 100, 100, BAR / 2, BAR),
        (100, 100, 100, BAR - 1, BAR),
        (0, 50, 100, 0, BAR / 2),
    ] {
        let bar = bar(from, to, scale);
        assert_eq!(bar.find('='), Some(begin), "{from}..{to}: {bar:?}");
        assert_eq!(bar.len(), end, "{from}..{to}: {bar:?}");
    }
    for (from, to) in [(0, 101), (100, 5_000), (400, 5_000), (0, i64::MAX)] {
        let bar = bar(from, to, 100);
        assert!(bar.len() == BAR && bar.ends_with('>'), "{from}..{to}: {bar:?}");
    }
    assert_eq!(bar(-5, -1, 1).len(), 1, "clocks that went back");
}

#[test]
fn stacks_are_shown_whatever_their_shape_and_cut_unless_all_is_asked_for() {
    for (stacks, lines) in [
        (json!("one\ntwo\n"), vec!["one", "two"]),
        (json!([{ "thread": 7 }]), vec!["thread: 7"]),
        (json!({ "a": ["x", "y"] }), vec!["a:", "  x", "  y"]),
        (json!(null), vec![]),
        (json!(3), vec!["3"]),
    ] {
        assert_eq!(stack_lines(&stacks), lines, "{stacks}");
    }
    let long: Vec<_> = (0..100).map(|n| format!("frame-{n}")).collect();
    let record = with(fixtures::record(), &[("/status/stacks", json!(long.join("\n")))]);
    has(&shown(record.clone(), Extent::Screen), "… and 88 more lines; --all shows them");
    has(&shown(record, Extent::All), "frame-99");
}
