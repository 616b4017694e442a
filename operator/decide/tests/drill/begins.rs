//! When a run begins, whom it hits, and what keeps it from that.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::civil::Weekday;
use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;
use understudy_decide::drill::rules::MOST_VICTIMS;
use understudy_decide::drill::schedule::{Schedule, announced};
use understudy_decide::drill::snapshot::*;
use understudy_decide::drill::{DrillDecision, DrillSnapshot, Due, Ending, Rule, plan};
use understudy_decide::failover::snapshot::Mode;
use understudy_wire::{Epoch, ReplicaName, ShardName};

use super::scene::*;

#[test]
fn each_rule_keeps_a_run_from_beginning() {
    assert_eq!(
        whom(&begun(&scene(WEDGE, one()), monday())),
        ["m-0"],
        "nothing stands in the way but for what a case adds"
    );
    for (case, rule, spoil) in HINDRANCES {
        let mut s = scene(WEDGE, one());
        spoil(&mut s);
        assert_eq!(skipped(&s, later(5)), *rule, "{case}");
    }
}

#[test]
fn each_rule_is_asked_again_right_before_the_fault() {
    let s = running(scene(WEDGE, one()), &[]);
    assert_eq!(plan(&s, later(1)), DrillDecision::Strike(vec![0]));
    for (case, rule, spoil) in HINDRANCES.iter().filter(|(_, rule, _)| *rule != Rule::NoVictim) {
        let mut s = s.clone();
        spoil(&mut s);
        let report = finished(&s, later(1));
        assert_eq!((report.end.ending, report.end.rule), (Ending::Aborted, Some(*rule)), "{case}");
        assert!(report.end.message.starts_with(&format!("{rule}: ")), "{case}: {}", report.end.message);
        assert!(report.gaps.is_empty(), "{case}: nothing was done");
    }
    let changed: [(&str, Spoil); 3] = [
        ("another primary", |s| of(s, "m-0").primary = Some(ReplicaName::new("m-0-b"))),
        ("the same under another epoch", |s| of(s, "m-0").epoch = Epoch(5)),
        ("no shard", |s| drop(s.shards.remove(&ShardName::new("m-0")))),
    ];
    for (case, spoil) in changed {
        let mut s = s.clone();
        spoil(&mut s);
        assert_eq!(finished(&s, later(1)).end.rule, Some(Rule::PrimaryChanged), "{case}");
    }
}

#[test]
fn what_is_not_required_stands_in_nobodys_way_but_that_of_the_shard_that_is_hit() {
    let calm = |spoil: Spoil| {
        let mut s = scene(KILL, one());
        (s.policy.require_healthy, s.policy.require_redundancy) = (false, false);
        spoil(&mut s);
        s
    };
    let harmless: [(&str, Spoil); 6] = [
        ("another is stuck", |s| of(s, "m-2").health = Health::Unwell("Stuck".to_owned())),
        ("another has no standby", |s| of(s, "m-2").promotable = 0),
        ("one of three copies is missing", |s| of(s, "m-0").redundant = false),
        ("hard evidence counts at any time", |s| of(s, "m-0").cooling_until = Some(later(3600))),
        ("another shard's budget", |s| {
            s.changes = vec![past("m-1-3", "m-1", -60, 900.0)];
            of(s, "m-1").unavailable = 900.0;
        }),
        ("a gap of long ago", |s| s.changes = vec![past("m-0-3", "m-0", -31 * 86_400, 900.0)]),
    ];
    for (case, spoil) in harmless {
        assert_eq!(whom(&begun(&calm(spoil), monday())), ["m-0"], "{case}");
    }
    assert_eq!(skipped(&calm(|s| of(s, "m-0").health = Health::Unknown), monday()), Rule::Unhealthy);
    assert_eq!(skipped(&calm(|s| of(s, "m-0").promotable = 0), monday()), Rule::NotRedundant);
}

#[test]
fn three_shards_are_not_wedged_at_once_as_the_breaker_would_not_let_them_be_replaced() {
    for (exercise, expected) in [(KILL, None), (WEDGE, Some(Rule::TooMany))] {
        let mut s = scene(exercise, Scope::Zone(Some("z1".to_owned())));
        assert_eq!(begun(&s, monday()).victims.len(), 2);
        of(&mut s, "m-2").zone = Some("z1".to_owned());
        match expected {
            None => assert_eq!(begun(&s, monday()).victims.len(), 3),
            Some(rule) => assert_eq!(skipped(&s, monday()), rule),
        }
    }
}

#[test]
fn one_run_hits_no_more_than_its_bound_whatever_the_scope_holds() {
    for exercise in [Exercise::Switchover, KILL] {
        let mut s = scene(exercise, Scope::Zone(Some("z1".to_owned())));
        let like = |name: &str| {
            let replica = format!("{name}-a");
            (ShardName::new(name), shard("n1", "z1", &replica))
        };
        s.shards = (0..MOST_VICTIMS).map(|index| like(&format!("m-{index}"))).collect();
        assert_eq!(begun(&s, monday()).victims.len(), MOST_VICTIMS);
        s.shards.extend([like("one-more")]);
        assert_eq!(skipped(&s, monday()), Rule::TooMany, "{exercise:?}");
    }
}

#[test]
fn a_budget_of_a_month_is_one_of_an_hour() {
    let mut s = scene(KILL, one());
    s.policy.max_unavailable = 2_592_000.0;
    of(&mut s, "m-0").unavailable = 3599.0;
    assert_eq!(whom(&begun(&s, monday())), ["m-0"]);
    of(&mut s, "m-0").unavailable = 3600.0;
    assert_eq!(skipped(&s, monday()), Rule::BudgetSpent);
}

#[test]
fn a_switchover_needs_no_permission_and_no_more_than_manual() {
    let mut s = scene(Exercise::Switchover, one());
    s.policy.allowed = BTreeSet::new();
    of(&mut s, "m-0").equipped = BTreeSet::new();
    of(&mut s, "m-0").mode = Mode::Manual;
    assert_eq!(whom(&begun(&s, monday())), ["m-0"]);
}

#[test]
fn a_scope_names_its_victims() {
    let node = |name: Option<&str>| Scope::Node(name.map(str::to_owned));
    let zone = |name: Option<&str>| Scope::Zone(name.map(str::to_owned));
    for (case, scope, expected) in [
        ("a shard", one(), vec!["m-0"]),
        ("a node", node(Some("n1")), vec!["m-0", "m-1"]),
        ("another node", node(Some("n2")), vec!["m-2"]),
        ("a zone", zone(Some("z1")), vec!["m-0", "m-1"]),
    ] {
        assert_eq!(whom(&begun(&scene(KILL, scope), monday())), expected, "{case}");
    }
    for scope in [Scope::Random, node(None), zone(None)] {
        let of_week = |week: i64| {
            let mut s = scene(KILL, scope.clone());
            let at = later(week * 7 * 86_400);
            s.status.next_run = Some(at);
            let run = begun(&s, at);
            assert_eq!(
                begun(&s, at + SignedDuration::from_secs(9)).victims,
                run.victims,
                "the same run, the same victims"
            );
            whom(&run).join(" ")
        };
        let hit: BTreeSet<_> = (0..50).map(of_week).collect();
        let expected: &[&str] = if scope == Scope::Random { &["m-0", "m-1", "m-2"] } else { &["m-0 m-1", "m-2"] };
        assert_eq!(
            hit.iter().map(String::as_str).collect::<Vec<_>>(),
            expected,
            "{scope:?}: nobody is left out for ever"
        );
    }
}

#[test]
fn a_run_begins_when_it_was_announced_for_and_within_a_minute() {
    let s = scene(KILL, one());
    assert_eq!(plan(&s, later(-1)), DrillDecision::Wait { until: Some(monday()), because: None });
    assert_eq!(begun(&s, later(59)).id, format!("weekly-{}", monday().as_second()));
    assert_eq!(skipped(&s, later(60)), Rule::Missed);
    let unannounced = DrillSnapshot { status: Status::default(), ..s.clone() };
    let next = Some(later(7 * 86_400));
    assert_eq!(plan(&unannounced, later(5)), DrillDecision::Wait { until: next, because: None });
    for (case, decision, expected) in [
        ("it waits", plan(&s, later(-1)), Some(monday())),
        ("it begins", plan(&s, later(5)), next),
        ("it was missed", plan(&s, later(60)), next),
        ("a run goes on over it", DrillDecision::GoOn { doing: String::new() }, Some(monday())),
    ] {
        assert_eq!(announced(&s, &decision, later(60)), expected, "{case}");
    }
}

#[test]
fn an_operator_that_has_just_begun_to_look_waits_until_it_has_looked() {
    let s = DrillSnapshot { awake: SignedDuration::from_secs(5), ..scene(KILL, one()) };
    assert_eq!(plan(&s, later(2)), DrillDecision::Wait { until: Some(later(12)), because: None });
}

#[test]
fn what_a_person_asks_for_is_begun_once_whatever_the_schedule() {
    let mut s = scene(KILL, one());
    (s.policy.schedule, s.status.next_run, s.policy.requested) = (None, None, Some(monday()));
    let due = |s: &DrillSnapshot, now| match plan(s, now) {
        DrillDecision::Start { due, .. } | DrillDecision::Skip { due, .. } => Some(due),
        _ => None,
    };
    assert_eq!(due(&s, later(-1)), None);
    assert_eq!(due(&s, later(300)), Some(Due::Requested(monday())));
    assert_eq!(skipped(&s, later(600)), Rule::Missed, "it was asked for in another situation");
    s.status.last_requested = Some(monday());
    assert_eq!(due(&s, later(5)), None);
    s.policy.requested = Some(later(4));
    assert_eq!(due(&s, later(5)), Some(Due::Requested(later(4))));
    s.policy.suspended = true;
    assert_eq!(skipped(&s, later(5)), Rule::Suspended);
}

#[test]
fn what_is_asked_for_at_the_second_of_the_schedule_is_one_run() {
    let mut s = scene(Exercise::Switchover, one());
    s.policy.requested = Some(monday());
    let decision = plan(&s, later(5));
    assert!(matches!(decision, DrillDecision::Start { due: Due::Requested(_), .. }), "{decision:?}");
    let next = Some(later(7 * 86_400));
    assert_eq!(
        announced(&s, &decision, later(5)),
        next,
        "a second run would have the name and the records of the first"
    );
    s.policy.requested = Some(later(-1));
    assert_eq!(announced(&s, &plan(&s, later(5)), later(5)), Some(monday()), "another second is another run");
}

#[test]
fn a_schedule_is_read_in_its_time_zone() {
    for (fields, zone, expected) in [
        ("0 10 * * MON", None, "2026-03-09T10:00:00Z"),
        ("0 10 * * 1", Some("Europe/Paris"), "2026-03-09T09:00:00Z"),
        ("30 3 * * *", Some("America/New_York"), "2026-03-03T08:30:00Z"),
        ("*/15 * * * *", None, "2026-03-02T10:15:00Z"),
        // The clocks go from 2 to 3 in the night to March 29.
        ("0 10 29 3 *", Some("Europe/Paris"), "2026-03-29T08:00:00Z"),
    ] {
        let schedule = Schedule::parse(fields, zone).expect("a schedule");
        assert_eq!(schedule.next(monday()).map(|at| at.to_string()).as_deref(), Some(expected), "{fields} {zone:?}");
    }
    for (fields, zone, says) in
        [("0 10 * *", None, "needs five"), ("61 * * * *", None, "61"), ("0 0 * * *", Some("Mars"), "Mars")]
    {
        let words = Schedule::parse(fields, zone).expect_err(fields);
        assert!(words.contains(says) && !words.contains('\n'), "{words}");
    }
}

#[test]
fn a_window_may_reach_over_midnight() {
    let mut s = scene(KILL, one());
    s.policy.zone = Some("Europe/Paris".to_owned());
    s.policy.windows = vec![window(Weekday::Sunday, 22, 2)];
    for (at, is_open) in [
        ("2026-03-01T20:59:00Z", false),
        ("2026-03-01T21:00:00Z", true),
        ("2026-03-02T00:59:00Z", true),
        ("2026-03-02T01:00:00Z", false),
        ("2026-03-02T21:30:00Z", false),
    ] {
        let now: Timestamp = at.parse().expect("a time");
        s.status.next_run = Some(now);
        assert_eq!(matches!(plan(&s, now), DrillDecision::Start { .. }), is_open, "{at}");
    }
}

#[test]
fn every_rule_stands_in_the_docs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drill.md");
    let text = std::fs::read_to_string(file).expect("docs/drill.md");
    let missing: Vec<_> = Rule::iter().filter(|rule| !text.contains(&format!("`{rule}`"))).collect();
    assert!(missing.is_empty(), "docs/drill.md does not name {missing:?}");
}
