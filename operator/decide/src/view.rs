//! What the status should show, and which role each replica has. Pure.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::Phase;

use crate::decision::{ReplicaView, Role, View};
use crate::failover::assess::{Assessment, phase_words};
use crate::failover::candidate::examine;
use crate::failover::snapshot::{Replica, Snapshot};
use crate::following::{behind, replicates};
use crate::replication_error::ReplicationError;
use crate::space;
use crate::topology::is_redundant;

/// The role of a replica. None: its manager is not heard, so it keeps the role it has.
pub(crate) fn role_of(s: &Snapshot, name: &ReplicaName, replica: &Replica) -> Option<Role> {
    if replica.condemned.is_some() && s.status.primary.as_ref() != Some(name) {
        return Some(Role::Condemned);
    }
    if s.status.primary.as_ref() == Some(name) {
        return Some(Role::Primary);
    }
    match s.fresh_report(name) {
        Some((server, _)) if replicates(s, server) => Some(Role::Standby),
        Some(_) => Some(Role::Spare),
        // Never heard of, or not for a while: a standby that is silent for a moment stays one; a former primary does not stay primary.
        None => match replica.pod.present().and_then(|pod| pod.role.as_deref()) {
            Some("standby") => None,
            _ => Some(Role::Spare),
        },
    }
}

pub(crate) fn view(s: &Snapshot, a: &Assessment, doing: Option<String>) -> View {
    let replicas: Vec<_> = s.replicas.iter().map(|(name, replica)| replica_view(s, a, name, replica)).collect();
    View {
        ready: replicas.iter().filter(|replica| replica.ready).count(),
        promotable: replicas.iter().filter(|replica| replica.promotable).count(),
        redundant: s
            .status
            .primary
            .as_ref()
            .is_some_and(|primary| s.status.transition.is_none() && is_redundant(s, primary)),
        one_node: one_node(s),
        doing,
        replicas,
    }
}

fn one_node(s: &Snapshot) -> Option<String> {
    let on: Vec<_> = s.cast().map(|(name, _)| s.node_of(name)).collect();
    let first = on.first().copied().flatten().filter(|_| on.len() > 1)?;
    let elsewhere = s.nodes.iter().any(|(name, facts)| name != first && facts.schedulable && !facts.barred);
    (elsewhere && on.iter().all(|node| *node == Some(first))).then(|| first.to_owned())
}

fn replica_view(s: &Snapshot, a: &Assessment, name: &ReplicaName, replica: &Replica) -> ReplicaView {
    let primary = s.status.primary.as_ref();
    let last = match replica.pod.present().and_then(|pod| pod.role.as_deref()) {
        Some("standby") => Role::Standby,
        _ => Role::Spare,
    };
    let role = role_of(s, name, replica).unwrap_or(last);
    let follows = s.fresh_report(name).is_some_and(|(server, _)| replicates(s, server));
    let late = s.fresh_report(name).filter(|_| follows && role == Role::Standby);
    let late = late.and_then(|(server, age)| behind(server, age));
    let fitness = (role != Role::Primary).then(|| examine(s, primary, name, replica));
    let message = match (&replica.condemned, s.fresh_report(name)) {
        (Some(condemned), _) => Some(format!("condemned: {}", condemned.reason)),
        (None, None) => Some("its manager is silent".into()),
        (None, Some((server, _))) if server.phase != Phase::Running => Some(phase_words(server, None)),
        (None, Some((server, _))) => {
            let replication = server.replication.as_ref().map(|read| &read.value).filter(|_| role != Role::Primary);
            let error = replication.and_then(|r| r.apply_error.as_deref().or(r.receive_error.as_deref()));
            let error = error.map(|error| ReplicationError::parse(error).text());
            let unfit = || fitness.as_ref()?.as_ref().err().map(|why| why.words());
            let idle =
                (role != Role::Primary && !follows).then(|| "it is not seen to replicate from the primary".into());
            error.or_else(unfit).or(idle).or(late.map(|late| format!("it {late}")))
        }
    };
    let in_office = role == Role::Primary && s.status.transition.is_none();
    ReplicaView {
        name: name.clone(),
        role,
        ready: if role == Role::Primary { in_office && a.verdict.commits() } else { follows && role == Role::Standby },
        promotable: follows && fitness.is_some_and(|fitness| fitness.is_ok()),
        message,
        behind: late,
        low_volume: space::low(s, name, replica),
    }
}
