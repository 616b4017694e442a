//! What holds for every Drill, however spoiled.

use proptest::prelude::*;
use understudy_decide::drill::snapshot::*;
use understudy_decide::drill::{DrillDecision, DrillSnapshot, Ending, plan};
use understudy_decide::failover::snapshot::Mode;

use super::scene::*;

/// One way to spoil a scene, any of them and any number.
fn spoiled() -> impl Strategy<Value = (DrillSnapshot, i64)> {
    let exercise = prop_oneof![Just(Exercise::Switchover), Just(KILL), Just(WEDGE)];
    let scope = prop_oneof![Just(one()), Just(Scope::Random), Just(Scope::Node(None)), Just(Scope::Zone(None))];
    let harms = prop::collection::vec(0..HINDRANCES.len(), 0..3);
    let struck = prop::option::of(prop::collection::vec(prop::option::of(0..40_i64), 3));
    (exercise, scope, harms, struck, any::<bool>(), 0..200_i64).prop_map(
        |(exercise, scope, harms, struck, recorded, now)| {
            let mut s = scene(exercise, scope);
            if let Some(struck) = struck {
                s = running(s, &[]);
                if let Some(run) = &mut s.status.run {
                    for (victim, at) in run.victims.iter_mut().zip(struck) {
                        victim.struck_at = at.map(later);
                    }
                }
                if recorded {
                    s.changes = vec![change(&s, 0, 30)];
                }
            }
            for harm in harms {
                HINDRANCES[harm].2(&mut s);
            }
            (s, now)
        },
    )
}

/// What must hold of the shards that are hit, by looking at them again without the code under test.
fn may_be_hit(s: &DrillSnapshot, exercise: Exercise, victims: &[&Victim]) -> bool {
    let fault = match exercise {
        Exercise::Switchover => None,
        Exercise::Fault(fault) => Some(fault),
    };
    let allowed = fault.is_none_or(|fault| s.policy.allowed.contains(&fault));
    let fit = |victim: &&Victim| {
        let Some(shard) = s.shards.get(&victim.shard) else { return false };
        let spent: f64 =
            s.changes.iter().filter(|change| change.shard == victim.shard).filter_map(|change| change.gap).sum();
        shard.primary.as_ref() == Some(&victim.replica)
            && shard.epoch == victim.epoch
            && shard.promotable > 0
            && !shard.paused
            && shard.mode != Mode::Paused
            && (fault.is_none() || shard.mode == Mode::Automatic)
            && fault.is_none_or(|fault| shard.equipped.contains(&fault))
            && spent.max(shard.unavailable) < s.policy.max_unavailable
    };
    let company = s
        .shards
        .values()
        .all(|shard| shard.health == Health::Healthy && !shard.changing && shard.redundant && shard.promotable > 0);
    let quiet = s.others.is_empty() && s.absent.is_none() && !s.policy.suspended && !s.leaving;
    allowed && company && quiet && victims.iter().all(fit)
}

proptest! {
    #[test]
    fn nobody_is_hit_against_a_rule_nor_twice_nor_while_another_drill_runs((s, seconds) in spoiled()) {
        let now = later(seconds);
        let decision = plan(&s, now);
        prop_assert_eq!(&decision, &plan(&s.clone(), now), "the same snapshot, the same decision");
        match &decision {
            DrillDecision::Start { run, .. } => {
                prop_assert!(s.status.run.is_none(), "one run at a time");
                let victims: Vec<_> = run.victims.iter().collect();
                prop_assert!(!victims.is_empty() && may_be_hit(&s, run.exercise, &victims));
                prop_assert!(victims.iter().all(|victim| victim.struck_at.is_none()), "it is written down before anything is done");
            }
            DrillDecision::Strike(places) => {
                let run = s.status.run.as_ref().expect("only a run that was written down strikes");
                let victims: Vec<_> = places.iter().map(|place| &run.victims[*place]).collect();
                prop_assert!(!victims.is_empty() && may_be_hit(&s, run.exercise, &victims));
                prop_assert!(victims.iter().all(|victim| victim.struck_at.is_none()), "nobody is hit twice");
                prop_assert!(run.exercise != Exercise::Switchover || victims.len() == 1);
            }
            DrillDecision::LetGo { end, places } => {
                let run = s.status.run.as_ref().expect("only a run lets go");
                prop_assert!(end.ending != Ending::Succeeded && run.exercise.is_held());
                prop_assert!(!places.is_empty() && places.iter().all(|place| run.victims[*place].struck_at.is_some()));
                let mut told = s.clone();
                if let Some(run) = &mut told.status.run {
                    run.ending = Some(end.clone());
                    run.victims.iter_mut().for_each(|victim| victim.released_at = Some(now));
                }
                let ended = plan(&told, now);
                prop_assert!(matches!(&ended, DrillDecision::Finish(report) if report.end == *end), "{:?}", ended);
            }
            _ => {}
        }
    }
}
