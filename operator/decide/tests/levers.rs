//! The fields with which a person holds the operator back: what goes on all the same, and what is said.

mod support;

use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Fact, Reason};
use understudy_wire::evidence::{Aged, ProbeError, Stage};

#[test]
fn a_restarted_primary_that_has_everything_is_confirmed_in_every_mode_and_replaced_only_where_the_mode_says_so() {
    let restarted = |mode, executed| {
        let mut scene = Scene::well();
        scene.0.policy.mode = mode;
        scene.server("a", |server| {
            server.serving = None;
            server.read_only = Some(true);
            server.executed = Some(Aged { age: 50, value: gtids("a", executed) });
        });
        scene.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
        scene.claim()
    };
    let whole = 1_000;
    for (mode, replaced) in
        [(Mode::Automatic, Some((Kind::Failover, "m-b".to_owned()))), (Mode::Manual, None), (Mode::Paused, None)]
    {
        assert_eq!(restarted(mode, whole), Some((Kind::Confirm, "m-a".to_owned())), "{mode}");
        assert_eq!(restarted(mode, whole - 100), replaced, "{mode}, with less than a standby has");
    }
}

#[test]
fn where_a_person_decides_it_is_said_what_they_have_to_do() {
    type Case = (&'static str, Mode, fn(&mut Scene), &'static str, Option<&'static str>);
    let dies: fn(&mut Scene) = |s| s.kill_primary(500);
    let leaves: fn(&mut Scene) = |s| {
        s.replica("a", |replica| {
            if let Fact::Present(pod) = &mut replica.pod {
                pod.terminating = true;
            }
        });
    };
    let failover = Some("waiting for a person to create a Failover with spec.shard m and spec.kind Failover");
    let cases: &[Case] = &[
        ("dead", Mode::Manual, dies, r#""spec":{"shard":"m","kind":"Failover"}}' | kubectl create -f -"#, failover),
        ("leaving", Mode::Manual, leaves, r#""spec":{"shard":"m","kind":"Switchover"}}' | kubectl create -f -"#, None),
        (
            "dead, and nobody may",
            Mode::Paused,
            dies,
            r#"kubectl patch shard m --type merge -p '{"spec":{"failover":{"mode":"Automatic"}}}'"#,
            Some("nothing: failover.mode is Paused"),
        ),
    ];
    for (case, mode, spoil, says, doing) in cases {
        let mut scene = Scene::well();
        scene.0.policy.mode = *mode;
        spoil(&mut scene);
        let plan = scene.plan();
        let note = plan.notes.iter().find(|note| note.reason == Reason::FailoverLeftToPerson).expect("a note");
        assert!(note.message.contains(says), "{case}: {}", note.message);
        assert_eq!(plan.view.doing.as_deref(), *doing, "{case}");
    }
}

#[test]
fn that_a_shard_is_not_paused_any_more_is_said_until_the_status_knows() {
    let mut scene = Scene::well();
    for (was, is, resumed) in [(false, false, false), (false, true, false), (true, true, false), (true, false, true)] {
        scene.0.status.paused = was;
        scene.0.policy.paused = is;
        assert_eq!((scene.gives(Reason::ShardPaused), scene.gives(Reason::ShardResumed)), (is, resumed), "{was} {is}");
    }
}
