//! What a Shard's conditions say, from what was seen and decided; [`replica`]: what a Replica's do. Pure.

mod replica;

use understudy_api::conditions::{self, Claim};
use understudy_api::v1alpha1::PartitionState;
use understudy_decide::Decision;
use understudy_decide::decision::View;
use understudy_decide::failover::snapshot::Snapshot;

pub use self::replica::{Facts, of_replica};
use super::observe::Objects;
use super::obstacles;
use super::rolled::Rolled;

/// One claim for each condition.
pub fn claims(s: &Snapshot, d: &Decision, objects: &Objects) -> Vec<Claim> {
    let verdict = d.assessment.verdict;
    let view = &d.view;
    let late = view.replicas.iter().filter_map(|replica| Some(format!("; {} {}", replica.name, replica.behind?)));
    let ready = format!("{}/{} replicas{}", view.ready, s.policy.replicas, late.collect::<String>());
    let serves = s.status.primary.is_some() && s.status.transition.is_none();
    let primary = match (serves, verdict) {
        (true, verdict) if verdict.commits() => Claim::yes(conditions::PRIMARY_HEALTHY, "Commits", "commits succeed"),
        (true, understudy_decide::Verdict::Unknown) => {
            Claim::unknown(conditions::PRIMARY_HEALTHY, "NoEvidence", "nobody has said anything yet")
        }
        (true, verdict) => Claim::no(conditions::PRIMARY_HEALTHY, verdict.state(), "see the verdict"),
        (false, _) => Claim::no(conditions::PRIMARY_HEALTHY, "NoPrimary", "no primary is in office"),
    };
    let healthy = primary.holds == Some(true);
    let promotable = match view.promotable {
        0 if s.policy.replicas > 1 => {
            Claim::no(conditions::PROMOTABLE, "NoCandidate", "no standby could take over now")
        }
        0 => Claim::no(conditions::PROMOTABLE, "SingleReplica", "one replica is asked for"),
        count => Claim::yes(conditions::PROMOTABLE, "Candidates", format!("{count} standbys could take over now")),
    };
    let redundant = match view.redundant {
        true => Claim::yes(conditions::REDUNDANT, "AllIntact", ready.clone()),
        false => Claim::no(conditions::REDUNDANT, "CopiesMissing", ready.clone()),
    };
    let all = match healthy && view.redundant {
        true => Claim::yes(conditions::READY, "Ready", ready.clone()),
        false => {
            let why = obstacles::message(&objects.obstacles).map(|why| format!("; {why}")).unwrap_or_default();
            let reason = if healthy { "NotRedundant" } else { "PrimaryNotHealthy" };
            Claim::no(conditions::READY, reason, format!("{ready}{why}"))
        }
    };
    let progressing = progressing(s.policy.paused, view, &ready);
    let degraded = degraded(healthy && s.status.last_change.is_some(), view, ready);
    let provisioned = obstacles::provisioned(&objects.obstacles);
    let up_to_date = Rolled::of(objects).claim();
    vec![all, progressing, degraded, provisioned, up_to_date, primary, promotable, redundant, consumers(objects)]
}

fn progressing(paused: bool, view: &View, ready: &str) -> Claim {
    let kind = conditions::PROGRESSING;
    match (&view.doing, view.redundant) {
        _ if paused => Claim::no(kind, conditions::PAUSED, "spec.paused stops every action on this shard"),
        (Some(doing), _) => Claim::yes(kind, "Acting", doing.clone()),
        (None, false) => Claim::yes(kind, "Building", ready),
        (None, true) => Claim::no(kind, "Settled", "nothing is to be done"),
    }
}

/// `had_all`: the shard serves, and missing copies were there before.
fn degraded(had_all: bool, view: &View, ready: String) -> Claim {
    let kind = conditions::DEGRADED;
    let low = view.replicas.iter().filter_map(|replica| Some((&replica.name, replica.low_volume.as_ref()?)));
    let mut said: Vec<_> = low.map(|(name, low)| format!("the volume of {name} is nearly full: {low}")).collect();
    let low = !said.is_empty();
    if let Some(node) = &view.one_node {
        said.insert(0, format!("all replicas are on {node}, and all are lost with it"));
    }
    let missing = had_all && !view.redundant;
    if missing {
        said.insert(0, ready);
    }
    let reason = match (missing, &view.one_node, low) {
        (true, ..) => "NotRedundant",
        (false, Some(_), _) => "OneNode",
        (false, None, true) => "VolumeLow",
        (false, None, false) => {
            let well =
                "no copy is missing that was there, the copies are on several nodes, and no volume is nearly full";
            return Claim::no(kind, "NotDegraded", well);
        }
    };
    Claim::yes(kind, reason, said.join("; "))
}

fn consumers(objects: &Objects) -> Claim {
    if objects.consumers.is_empty() {
        return Claim::unknown(conditions::CONSUMERS_CURRENT, "NoConsumer", "no consumer feeds this shard");
    }
    let (told, silent) = objects.partitions();
    current(&told.iter().map(|partition| partition.state).collect::<Vec<_>>(), silent.len())
}

/// What the states of all partitions that feed a shard come to, and of how many no pod tells any more: what was said of those last may be that
/// all is well.
fn current(states: &[PartitionState], silent: usize) -> Claim {
    let kind = conditions::CONSUMERS_CURRENT;
    let all = states.len() + silent;
    let count = |state: PartitionState| states.iter().filter(|found| **found == state).count();
    let [stuck, fenced, paused] = [PartitionState::Stuck, PartitionState::Fenced, PartitionState::Paused].map(count);
    let unknown = count(PartitionState::Unknown);
    let not_read = [
        (silent, "have no pod that reads them"),
        (stuck, "do not advance"),
        (fenced, "cannot be written to the primary now"),
        (paused, "are paused"),
    ];
    let said = not_read.iter().filter(|(count, _)| *count > 0);
    let said: Vec<_> = said.map(|(count, what)| format!("{count} of {all} partitions {what}")).collect();
    let reason = match (all, silent, stuck, fenced, paused) {
        (0, ..) => return Claim::unknown(kind, "NotRunning", "no partition is read yet"),
        (_, 0, 0, 0, 0) if unknown > 0 => {
            let words = format!("what {unknown} of {all} partitions do is not known to this version of the operator");
            return Claim::unknown(kind, "Unknown", words);
        }
        (_, 0, 0, 0, 0) => return Claim::yes(kind, "Running", format!("{all} partitions are read")),
        (_, 0, 0, 0, _) => "Paused",
        (_, 0, 0, ..) => "Fenced",
        (_, 0, ..) => "Stuck",
        _ => "NotRunning",
    };
    Claim::no(kind, reason, said.join("; "))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use understudy_decide::Role;
    use understudy_decide::decision::ReplicaView;
    use understudy_wire::ReplicaName;

    use super::*;

    #[test]
    fn a_shard_is_degraded_while_a_copy_is_missing_or_a_volume_is_nearly_full() {
        let low = ReplicaView {
            name: ReplicaName::new("m-b"),
            role: Role::Standby,
            ready: true,
            promotable: true,
            message: None,
            behind: None,
            low_volume: Some("204 MiB of its 2048 MiB should be free".into()),
        };
        let well = ReplicaView { name: ReplicaName::new("m-a"), low_volume: None, ..low.clone() };
        let of = |redundant, replicas: &[&ReplicaView]| {
            let replicas = replicas.iter().map(|view| (*view).clone()).collect();
            let claim = degraded(true, &View { redundant, replicas, ..View::default() }, "2/3 replicas".into());
            (claim.reason, claim.message)
        };
        assert_eq!(of(true, &[&well]).0, "NotDegraded");
        let said = "the volume of m-b is nearly full: 204 MiB of its 2048 MiB should be free";
        assert_eq!(of(true, &[&well, &low]), ("VolumeLow", said.to_owned()));
        assert_eq!(of(false, &[&well, &low]), ("NotRedundant", format!("2/3 replicas; {said}")));
        let one_node = Some("node-3".to_owned());
        let together = View { redundant: true, one_node, replicas: vec![low], ..View::default() };
        let claim = degraded(true, &together, "3/3 replicas".into());
        let expected = format!("all replicas are on node-3, and all are lost with it; {said}");
        assert_eq!((claim.reason, claim.message), ("OneNode", expected));
    }

    #[test]
    fn consumers_are_current_only_while_every_partition_is_read() {
        use PartitionState::{Fenced, Paused, Running, Stuck, Unknown};
        for (case, states, silent, holds, reason, says) in [
            ("none yet", &[][..], 0, None, "NotRunning", "no partition is read yet"),
            ("all are read", &[Running, Running], 0, Some(true), "Running", "2 partitions are read"),
            ("one is paused", &[Running, Paused], 0, Some(false), "Paused", "1 of 2 partitions are paused"),
            ("all are paused", &[Paused, Paused], 0, Some(false), "Paused", "2 of 2 partitions are paused"),
            (
                "what one does only a later version knows",
                &[Running, Unknown],
                0,
                None,
                "Unknown",
                "what 1 of 2 partitions do is not known to this version of the operator",
            ),
            ("all pods are gone", &[], 2, Some(false), "NotRunning", "2 of 2 partitions have no pod that reads them"),
            (
                "the pods of one Consumer are gone, another's partition does not advance",
                &[Running, Stuck],
                1,
                Some(false),
                "NotRunning",
                "1 of 3 partitions have no pod that reads them; 1 of 3 partitions do not advance",
            ),
            (
                "one has no way to the primary",
                &[Fenced, Paused],
                0,
                Some(false),
                "Fenced",
                "1 of 2 partitions cannot be written to the primary now; 1 of 2 partitions are paused",
            ),
            (
                "one does not advance",
                &[Running, Stuck, Paused],
                0,
                Some(false),
                "Stuck",
                "1 of 3 partitions do not advance; 1 of 3 partitions are paused",
            ),
        ] {
            let claim = current(states, silent);
            assert_eq!((claim.holds, claim.reason, claim.message.as_str()), (holds, reason, says), "{case}");
        }
    }

    #[test]
    fn the_status_remembers_that_the_shard_was_paused_until_it_is_not() {
        let doing = View { doing: Some("nothing: spec.paused".into()), ..View::default() };
        let settled = View { redundant: true, ..View::default() };
        let mut written = Vec::new();
        for (paused, view) in [(false, &settled), (true, &doing), (true, &settled), (false, &doing), (false, &settled)]
        {
            let claim = progressing(paused, view, "3/3 replicas");
            conditions::set(&mut written, claim, Some(1), &Time(Timestamp::UNIX_EPOCH));
            assert_eq!(conditions::is_paused(&written), paused, "{view:?}");
        }
    }
}
