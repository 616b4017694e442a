//! A shard without a primary: the first one, by a once-only intent; or, when only the status was lost, the best copy. Pure.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::Phase;
use understudy_wire::order::{BootstrapIntent, Build, Origin};

use super::assess::Assessment;
use super::candidate::rank;
use super::plan::{Change, claim};
use super::snapshot::{Kind, OrderOutcome, Replica, Snapshot};
use crate::decision::{Draft, Order, OrderKind, Reason, Sentence, Step};

/// How long to wait for every copy to come forward before the best of those that did is taken.
const COLD_START_PATIENCE: u64 = 60_000;

pub(crate) fn plan(s: &Snapshot, d: &mut Draft) {
    if may_hold_data(s) {
        return cold_start(s, d);
    }
    let Some(intent) = &s.status.bootstrap else { return intend(s, Reason::BootstrapIntended, d) };
    match s.replicas.get(&intent.replica) {
        Some(replica) if replica.condemned.is_none() => initialise(s, &intent.replica, replica, d),
        Some(_) | None => intend(s, Reason::BootstrapAgain, d),
    }
}

/// Whether anything says that this shard has ever had a primary. Then nobody initialises, whatever the status says.
fn may_hold_data(s: &Snapshot) -> bool {
    let served =
        s.status.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.completed) || s.status.last_change.is_some();
    served || s.replicas.iter().any(|(name, replica)| is_a_copy(s, name, replica))
}

fn is_a_copy(s: &Snapshot, name: &ReplicaName, replica: &Replica) -> bool {
    let intended = s.status.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.replica == *name);
    let Some((server, _)) = s.own_report(name) else { return false };
    if server.epoch > s.status.epoch {
        return true;
    }
    match server.phase {
        // An interrupted build never served.
        Phase::Empty | Phase::Building | Phase::Unusable { .. } => false,
        Phase::Starting | Phase::Running | Phase::Exited { .. } | Phase::Stopping => {
            !intended && replica.condemned.is_none()
        }
    }
}

/// Names the one replica that may initialise: the first whose manager says that its volume is empty.
fn intend(s: &Snapshot, reason: Reason, d: &mut Draft) {
    let empty = |name: &ReplicaName| s.fresh_report(name).is_some_and(|(server, _)| server.phase == Phase::Empty);
    let first = s.cast().filter(|(name, _)| empty(name)).min_by_key(|(_, replica)| replica.server_id);
    match first {
        Some((name, _)) => {
            d.doing(format!("bootstrap: {name} will initialise"));
            d.note(reason, format!("{name} alone may initialise a volume of this shard"));
            d.step(Step::IntendBootstrap { replica: name.clone() });
        }
        None => d.doing("bootstrap: waiting for a first replica"),
    }
}

fn initialise(s: &Snapshot, name: &ReplicaName, replica: &Replica, d: &mut Draft) {
    d.doing(format!("bootstrap: {name} initialises"));
    let Some((server, _)) = s.fresh_report(name) else {
        if s.silent_for(name) > s.policy.thresholds.lost_standby_after && replica.pod.present().is_some() {
            give_up(name, replica, Sentence::Lost, "its manager is silent", d);
        }
        return;
    };
    match &server.phase {
        Phase::Empty => {
            if let Some(error) = server.build.as_ref().and_then(|build| build.error.as_ref()) {
                d.note_about(Reason::BuildFailed, name, error.clone());
            }
            let epoch = s.status.epoch;
            let asked = s.order(name, OrderKind::Build, epoch);
            if asked.is_none_or(|order| !order.in_flight() && order.sent >= RETRY) {
                let intent = BootstrapIntent { shard_uid: s.uid.clone(), replica: name.clone() };
                let build = Build { epoch, replica: name.clone(), origin: Origin::Initialise { intent } };
                d.note_about(Reason::Initialising, name, format!("{name} is told to initialise its empty volume"));
                d.step(Step::Order { replica: name.clone(), order: Order::Build(build) });
            }
        }
        Phase::Building | Phase::Starting | Phase::Stopping => {}
        Phase::Running => {
            let change = Change::out_of_nothing(Kind::Bootstrap, name, "Bootstrap");
            claim(s, &Assessment::nobody(), change, Default::default(), d);
        }
        Phase::Unusable { reason } => give_up(name, replica, Sentence::Unusable, reason, d),
        Phase::Exited { .. } => give_up(name, replica, Sentence::Exited, "its server ended", d),
    }
}

/// How soon an order that was not carried out is given again.
pub(crate) const RETRY: u64 = 3_000;

/// The replica that was to be first is lost before anybody was ever told of it: its volume never held anything.
pub(crate) fn again(s: &Snapshot, name: &ReplicaName, why: &str, d: &mut Draft) {
    let told_again = s.order(name, OrderKind::Promote, s.status.epoch);
    match s.replicas.get(name) {
        Some(replica) if replica.condemned.is_none() => match s.fresh_report(name).map(|(server, _)| &server.phase) {
            Some(Phase::Running) => {
                let failed =
                    told_again.is_some_and(|o| matches!(o.outcome, OrderOutcome::Failed(_)) && o.sent >= RETRY);
                if failed && let Some(transition) = &s.status.transition {
                    let apply_relay_log_within = s.policy.thresholds.apply_relay_log_within;
                    let order = understudy_wire::order::Promote { epoch: transition.epoch, apply_relay_log_within };
                    d.step(Step::Order { replica: name.clone(), order: Order::Promote(order) });
                }
            }
            Some(Phase::Exited { .. } | Phase::Unusable { .. } | Phase::Empty) => {
                give_up(name, replica, Sentence::Exited, why, d);
            }
            None if s.silent_for(name) > s.policy.thresholds.lost_standby_after => {
                give_up(name, replica, Sentence::Lost, why, d);
            }
            _ => {}
        },
        Some(_) | None => plan(s, d),
    }
}

fn give_up(name: &ReplicaName, replica: &Replica, reason: Sentence, why: &str, d: &mut Draft) {
    let message = format!("it was to be the first primary and never served: {why}");
    d.note_about(Reason::ReplicaCondemned, name, message.clone());
    d.step(Step::Condemn { replica: name.clone(), uid: replica.uid.clone(), reason, message, epoch: None });
}

/// Copies exist and the status does not say which one was primary: the one with the most, once everybody had time to come forward.
fn cold_start(s: &Snapshot, d: &mut Draft) {
    d.note(Reason::StatusLost, "replicas hold data and the status names no primary: the best copy will be taken");
    d.doing("waiting for every copy to come forward");
    let ranking = rank(s, None, &[]);
    let everybody = s.cast().all(|(name, _)| s.fresh_report(name).is_some());
    let best = ranking.choose(None).map(|candidate| candidate.name.clone());
    if let Some(best) = best.filter(|_| everybody || s.memory.awake > COLD_START_PATIENCE) {
        claim(s, &Assessment::nobody(), Change::out_of_nothing(Kind::Failover, &best, "StatusLost"), ranking, d);
    }
}
