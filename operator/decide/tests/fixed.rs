//! The page names each threshold that is no field of the spec, with the value that it has.

use understudy_decide::failover::snapshot::Thresholds;
use understudy_wire::evidence::Millis;

const PAGE: &str = include_str!("../../docs/failover.md");

/// As the page has them: minutes from ten on, seconds below.
fn words(time: Millis) -> String {
    match (time / 60_000, time / 1_000, time % 1_000 / 100) {
        (minutes @ 10.., ..) => format!("{minutes} min"),
        (_, seconds, 0) => format!("{seconds} s"),
        (_, seconds, tenths) => format!("{seconds}.{tenths} s"),
    }
}

#[test]
fn what_is_fixed_stands_in_the_page_with_its_value() {
    let fixed = PAGE.split("\n## What is fixed\n").nth(1).expect("the section of what is fixed");
    let t = Thresholds::default();
    for (name, value) in [
        ("hung_unheard_after", t.hung_unheard_after),
        ("promote_within", t.promote_within),
        ("switchover_within", t.switchover_within),
        ("slow_commit", t.slow_commit),
        ("slow_fsync", t.slow_fsync),
        ("slow_after", t.slow_after),
        ("broken_standby_after", t.broken_standby_after),
        ("lost_standby_after", t.lost_standby_after),
        ("stuck_standby_after", t.stuck_standby_after),
        ("unheard_after", t.unheard_after),
        ("lagging_standby_after", t.lagging_standby_after),
        ("idle_rebuild_after", t.idle_rebuild_after),
        ("hung_rebuild_after", t.hung_rebuild_after),
        ("replacement_pause", t.replacement_pause),
    ] {
        let row = format!("| `{name}` | {} |", words(value));
        assert!(fixed.contains(&row), "failover.md has no row {row}");
    }
}

#[test]
fn what_follows_from_stuck_after_keeps_its_order_and_its_floor() {
    for stuck_after in [500, 800, 1_000, 3_000, 600_000] {
        let t = Thresholds { stuck_after, ..Thresholds::default() };
        assert!(t.borne_out_after() <= t.seen_stopped_after(), "{stuck_after}");
        assert!(2 * t.seen_stopped_after() >= stuck_after, "{stuck_after}: not less than half");
        assert!(t.seen_stopped_after() < stuck_after && stuck_after < t.stalled_after(), "{stuck_after}");
        assert!(t.stalled_after() < t.deadlocked_after(), "{stuck_after}");
    }
}
