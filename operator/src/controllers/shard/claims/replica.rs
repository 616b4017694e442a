//! What a Replica's conditions say. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use understudy_api::conditions::{self, Claim};
use understudy_api::v1alpha1::{Condemned, ReplicaPhase};

/// What the conditions follow from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Where it is in its life.
    pub phase: ReplicaPhase,
    /// Whether it serves or replicates.
    pub ready: bool,
    /// Whether its Shard is paused.
    pub paused: bool,
    /// What is wrong with it, for a person.
    pub message: &'a str,
    /// Why nothing more is applied.
    pub broken: Option<&'a str>,
    /// What is said of its volume, when that is nearly full.
    pub low_volume: Option<&'a str>,
    /// That and why it is to be replaced.
    pub condemned: Option<&'a Condemned>,
    /// When its volume may be deleted.
    pub kept_until: Option<&'a Time>,
}

/// Ready, Progressing and Degraded.
pub fn of_replica(facts: &Facts<'_>) -> [Claim; 3] {
    match facts.phase {
        ReplicaPhase::Condemned | ReplicaPhase::Quarantined => {
            let (reason, message) = (facts.phase.into(), end(facts));
            [conditions::READY, conditions::PROGRESSING, conditions::DEGRADED]
                .map(|kind| Claim::no(kind, reason, message.clone()))
        }
        _ => [ready(facts), progressing(facts), degraded(facts)],
    }
}

/// Of one that is to be replaced: why, and what becomes of its volume.
fn end(facts: &Facts<'_>) -> String {
    let until = match facts.kept_until {
        Some(Time(at)) => format!("until {at}, or until 8 later primaries are kept"),
        None => "until its successor has caught up".to_owned(),
    };
    let why = facts.condemned.map_or_else(String::new, |condemned| match &condemned.message {
        Some(message) => format!("{}: {message}; ", condemned.reason),
        None => format!("{}; ", condemned.reason),
    });
    format!("{why}its volume is kept {until}")
}

fn ready(facts: &Facts<'_>) -> Claim {
    match facts.ready {
        true => Claim::yes(conditions::READY, "Ready", "it serves or replicates"),
        false => Claim::no(conditions::READY, "NotReady", facts.message),
    }
}

fn progressing(facts: &Facts<'_>) -> Claim {
    let kind = conditions::PROGRESSING;
    let phase = facts.phase.into();
    match facts.phase {
        _ if facts.paused => Claim::no(kind, conditions::PAUSED, "spec.paused of its Shard stops every action on it"),
        ReplicaPhase::Running if facts.ready => Claim::no(kind, "Settled", "nothing is to be done"),
        ReplicaPhase::Running => Claim::yes(kind, "Joining", facts.message),
        ReplicaPhase::Pending
        | ReplicaPhase::Empty
        | ReplicaPhase::Building
        | ReplicaPhase::Starting
        | ReplicaPhase::Stopping => Claim::yes(kind, phase, facts.message),
        ReplicaPhase::Exited
        | ReplicaPhase::Unusable
        | ReplicaPhase::Unknown
        | ReplicaPhase::Condemned
        | ReplicaPhase::Quarantined => Claim::no(kind, phase, facts.message),
    }
}

fn degraded(facts: &Facts<'_>) -> Claim {
    let kind = conditions::DEGRADED;
    match (facts.phase, facts.broken, facts.low_volume) {
        (ReplicaPhase::Exited | ReplicaPhase::Unusable | ReplicaPhase::Unknown, ..) => {
            Claim::yes(kind, facts.phase.into(), facts.message)
        }
        (_, Some(error), _) => Claim::yes(kind, "ReplicationBroken", error),
        (_, None, Some(low)) => Claim::yes(kind, "VolumeLow", format!("its volume is nearly full: {low}")),
        (_, None, None) => Claim::no(kind, "NotDegraded", "nothing is known to be wrong with it"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn said(facts: &Facts<'_>) -> Vec<String> {
        let holds = |claim: &Claim| if claim.holds == Some(true) { "" } else { "not " };
        of_replica(facts).iter().map(|claim| format!("{}{}: {}", holds(claim), claim.kind, claim.reason)).collect()
    }

    #[test]
    fn a_replica_says_what_is_so_in_each_phase_of_its_life() {
        let running = Facts { phase: ReplicaPhase::Running, ready: true, ..Facts::default() };
        let low = Some("204 MiB of its 2048 MiB should be free");
        for (case, facts, expected) in [
            ("well", running, ["Ready: Ready", "not Progressing: Settled", "not Degraded: NotDegraded"]),
            (
                "just made",
                Facts::default(),
                ["not Ready: NotReady", "Progressing: Pending", "not Degraded: NotDegraded"],
            ),
            (
                "built",
                Facts { phase: ReplicaPhase::Building, ..Facts::default() },
                ["not Ready: NotReady", "Progressing: Building", "not Degraded: NotDegraded"],
            ),
            (
                "not connected yet",
                Facts { ready: false, ..running },
                ["not Ready: NotReady", "Progressing: Joining", "not Degraded: NotDegraded"],
            ),
            (
                "stuck at a transaction",
                Facts { ready: false, broken: Some("1062"), ..running },
                ["not Ready: NotReady", "Progressing: Joining", "Degraded: ReplicationBroken"],
            ),
            (
                "nearly full",
                Facts { low_volume: low, ..running },
                ["Ready: Ready", "not Progressing: Settled", "Degraded: VolumeLow"],
            ),
            (
                "ended",
                Facts { phase: ReplicaPhase::Exited, low_volume: low, ..Facts::default() },
                ["not Ready: NotReady", "not Progressing: Exited", "Degraded: Exited"],
            ),
            (
                "of a shard that is paused",
                Facts { paused: true, ..running },
                ["Ready: Ready", "not Progressing: Paused", "not Degraded: NotDegraded"],
            ),
            (
                "replaced",
                Facts { phase: ReplicaPhase::Quarantined, low_volume: low, ..Facts::default() },
                ["not Ready: Quarantined", "not Progressing: Quarantined", "not Degraded: Quarantined"],
            ),
        ] {
            assert_eq!(said(&facts), expected, "{case}");
        }
    }

    #[test]
    fn a_condemned_replica_says_why_and_until_when_its_volume_is_kept() {
        let condemned =
            Condemned { reason: "Exited".into(), message: Some("mysqld exited".into()), ..Condemned::default() };
        let until = Time(Timestamp::from_second(1_800_000_000).unwrap());
        let mut facts = Facts { phase: ReplicaPhase::Condemned, condemned: Some(&condemned), ..Facts::default() };
        let message = |facts: &Facts<'_>| of_replica(facts)[0].message.clone();
        assert_eq!(message(&facts), "Exited: mysqld exited; its volume is kept until its successor has caught up");
        facts.phase = ReplicaPhase::Quarantined;
        facts.kept_until = Some(&until);
        assert_eq!(
            message(&facts),
            "Exited: mysqld exited; its volume is kept until 2027-01-15T08:00:00Z, or until 8 later primaries are kept"
        );
    }
}
