//! A shard without a primary: the first one, by a once-only intent; or, when only the status was lost, the best copy. Pure.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::Phase;
use understudy_wire::order::{BootstrapIntent, Build, Origin};

use super::assess::Assessment;
use super::candidate::{Ranking, rank};
use super::plan::{Change, claim, start_again};
use super::snapshot::{Fact, Kind, OrderOutcome, Pod, Replica, Snapshot};
use crate::decision::{Draft, Order, OrderKind, Reason, Sentence, Step};
use crate::sick_standby::{AVOIDS_IN_VAIN, avoids_in_vain};

/// How long to wait for every copy to come forward before the best of those that did is taken.
const COLD_START_PATIENCE: u64 = 60_000;
/// A volume may be made a little before its Replica; one that is older than this was there before.
const MADE_TOGETHER: u64 = 60_000;

pub(crate) fn plan(s: &Snapshot, d: &mut Draft) {
    let holders: Vec<_> =
        s.replicas.iter().filter_map(|(name, replica)| Some((name, holds(s, name, replica)?))).collect();
    if has_served(s) || !holders.is_empty() {
        return cold_start(s, &holders, d);
    }
    let Some(intent) = &s.status.bootstrap else { return intend(s, Reason::BootstrapIntended, d) };
    match s.replicas.get(&intent.replica) {
        Some(replica) if replica.condemned.is_none() => initialise(s, &intent.replica, replica, d),
        Some(_) | None => intend(s, Reason::BootstrapAgain, d),
    }
}

/// Whether the status says that this shard has ever had a primary.
fn has_served(s: &Snapshot) -> bool {
    s.status.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.completed) || s.status.last_change.is_some()
}

/// What says that a replica may hold data of this shard. Then nobody initialises, whatever the status says.
enum Holds {
    /// This, for a person.
    Perhaps(String),
    /// Its manager is looking at the volume.
    SoonKnown,
}

/// The replica that was allowed to initialise, and has not served.
fn intended(s: &Snapshot) -> Option<&ReplicaName> {
    s.status.bootstrap.as_ref().filter(|bootstrap| !bootstrap.completed).map(|bootstrap| &bootstrap.replica)
}

fn holds(s: &Snapshot, name: &ReplicaName, replica: &Replica) -> Option<Holds> {
    let perhaps = |why: String| Some(Holds::Perhaps(why));
    let heard = s.own_report(name).map(|(server, _)| server);
    if let Some(server) = heard.filter(|server| server.epoch > s.status.epoch) {
        return perhaps(format!("its manager knows epoch {}", server.epoch));
    }
    let given_up = replica.condemned.as_ref().is_some_and(|condemned| Sentence::never_served(&condemned.reason));
    if given_up || intended(s) == Some(name) {
        return None;
    }
    // Written down as soon as its server was heard, and there even if nobody hears it now.
    let had_data = replica.server_uuid.is_some() || replica.last_executed.is_some();
    match heard.map(|server| &server.phase) {
        Some(Phase::Unusable { reason }) => {
            return perhaps(format!("its volume holds something that is no complete data directory ({reason})"));
        }
        Some(Phase::Starting) if !had_data => {
            let long = s.memory.awake.min(replica.age) > COLD_START_PATIENCE;
            let stuck = || Holds::Perhaps("its manager does not get to know what its volume holds".into());
            return Some(if long { stuck() } else { Holds::SoonKnown });
        }
        Some(Phase::Starting | Phase::Running | Phase::Exited { .. } | Phase::Stopping) => {
            return perhaps("its server has run".into());
        }
        Some(Phase::Unknown) => {
            return perhaps("what its manager says is not known to this version of the operator".into());
        }
        Some(Phase::Empty) if had_data => return perhaps("it held data, and its volume is empty now".into()),
        _ if had_data => return perhaps("it held data when it was heard last".into()),
        Some(Phase::Empty | Phase::Building) => return None,
        None => {}
    }
    // Nobody ever heard it. That it is new is known only from a status and a volume that fit together.
    let counted = replica.server_id < s.status.next_server_id;
    match &replica.volume {
        Fact::Absent => None,
        Fact::Present(volume) if !volume.bound => None,
        Fact::Present(volume) if volume.age > replica.age + MADE_TOGETHER => {
            perhaps("its volume was there before it, and its manager is silent".into())
        }
        Fact::Present(_) if counted => None,
        Fact::Present(_) => perhaps("the status does not know of it, and its manager is silent".into()),
        Fact::Unknown => perhaps("nobody knows its volume, and its manager is silent".into()),
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
        None => {
            d.doing("bootstrap: waiting for a first replica");
            if let Some((name, replica, sentence, why)) = lost_before_it_was_named(s) {
                give_up(name, replica, sentence, why, d);
            }
            start_again(s, d);
        }
    }
}

/// One that could have been first and will not be: silent for as long as a standby may be that starts, and where Kubernetes does not run
/// it either. By its silence alone it may still fetch its image, as its successor would have to. Nobody holds data here, and nobody told
/// it to initialise.
fn lost_before_it_was_named(s: &Snapshot) -> Option<(&ReplicaName, &Replica, Sentence, &'static str)> {
    let t = &s.policy.thresholds;
    let patience = t.unheard_after.max(t.lost_standby_after);
    // When no node is known, nothing is known of this one.
    let is_missed = |node: &str| !s.nodes.is_empty() && s.nodes.get(node).is_none_or(|node| node.ready_at.is_none());
    s.cast().find_map(|(name, replica)| {
        let is_silent = |pod: &&Pod| pod.age >= patience && s.silent_for(name) >= patience;
        // What ended is started again on its volume.
        let pod = replica.pod.present().filter(is_silent).filter(|_| !s.pod_ended(name))?;
        let has_place = replica.volume.present().is_some_and(|volume| volume.bound);
        let (sentence, why) = match &pod.node {
            Some(node) if is_missed(node) => {
                (Sentence::LostUnserved, "its manager is silent, and Kubernetes misses its node")
            }
            None if pod.unschedulable.is_some() && has_place => {
                (Sentence::LostUnserved, "its pod cannot be placed where its volume is")
            }
            None if pod.unschedulable.is_some() && avoids_in_vain(s, replica) => {
                (Sentence::Unplaceable, AVOIDS_IN_VAIN)
            }
            Some(_) | None => return None,
        };
        Some((name, replica, sentence, why))
    })
}

fn initialise(s: &Snapshot, name: &ReplicaName, replica: &Replica, d: &mut Draft) {
    d.doing(format!("bootstrap: {name} initialises"));
    let Some((server, _)) = s.fresh_report(name) else {
        if s.silent_for(name) > s.policy.thresholds.lost_standby_after && replica.pod.present().is_some() {
            give_up(name, replica, Sentence::LostUnserved, "its manager is silent", d);
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
        Phase::Building | Phase::Starting | Phase::Stopping | Phase::Unknown => {}
        Phase::Running => {
            let change = Change::out_of_nothing(Kind::Bootstrap, name, "Bootstrap");
            claim(s, &Assessment::nobody(), change, Default::default(), d);
        }
        Phase::Unusable { reason } => give_up(name, replica, Sentence::NeverServed, reason, d),
        Phase::Exited { .. } => give_up(name, replica, Sentence::NeverServed, "its server ended", d),
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
                    let order = understudy_wire::order::Promote {
                        epoch: transition.epoch,
                        apply_relay_log_within,
                        after: None,
                    };
                    d.step(Step::Order { replica: name.clone(), order: Order::Promote(order) });
                }
                not_yet(name, why, d);
            }
            Some(Phase::Exited { .. } | Phase::Unusable { .. } | Phase::Empty) => {
                give_up(name, replica, Sentence::NeverServed, why, d);
            }
            None if s.silent_for(name) > s.policy.thresholds.lost_standby_after => {
                give_up(name, replica, Sentence::LostUnserved, why, d);
            }
            Some(Phase::Building | Phase::Starting | Phase::Stopping) | None => not_yet(name, why, d),
        },
        Some(_) | None => plan(s, d),
    }
}

/// Nobody but the replica that was named can be first, so it is waited for, and that is said.
fn not_yet(name: &ReplicaName, why: &str, d: &mut Draft) {
    let message = format!("{name} has not become the first primary ({why}): it is told again as soon as it can be");
    d.note_about(Reason::CandidateFailed, name, message);
}

fn give_up(name: &ReplicaName, replica: &Replica, reason: Sentence, why: &str, d: &mut Draft) {
    let message = format!("it never served, and nobody was told of it: {why}");
    d.note_about(Reason::ReplicaCondemned, name, message.clone());
    d.step(Step::Condemn { replica: name.clone(), uid: replica.uid.clone(), reason, message, epoch: None });
}

/// Copies may exist and the status does not say which one was primary: the one with the most, once everybody had time to come forward.
fn cold_start(s: &Snapshot, holders: &[(&ReplicaName, Holds)], d: &mut Draft) {
    // One that was only just initialised is no copy of what others hold.
    let but: Vec<_> = intended(s)
        .filter(|name| s.own_report(name).is_none_or(|(server, _)| server.epoch <= s.status.epoch))
        .into_iter()
        .collect();
    let ranking = rank(s, None, &but);
    let Some(best) = ranking.choose(None).map(|candidate| candidate.name.clone()) else {
        start_again(s, d);
        return held(s, holders, &ranking, d);
    };
    d.note(Reason::StatusLost, "replicas hold data and the status names no primary: the best copy will be taken");
    d.doing("waiting for every copy to come forward");
    let everybody = s.cast().all(|(name, _)| s.fresh_report(name).is_some());
    if everybody || s.memory.awake > COLD_START_PATIENCE {
        claim(s, &Assessment::nobody(), Change::out_of_nothing(Kind::Failover, &best, "StatusLost"), ranking, d);
    } else {
        start_again(s, d);
    }
}

/// Nobody initialises and nobody can be taken.
fn held(s: &Snapshot, holders: &[(&ReplicaName, Holds)], ranking: &Ranking, d: &mut Draft) {
    let known = holders.iter().filter_map(|(name, holds)| match holds {
        Holds::Perhaps(why) => Some((*name, why)),
        Holds::SoonKnown => None,
    });
    let known: Vec<_> = known.collect();
    let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    match (known.is_empty(), holders.is_empty()) {
        (false, _) => {
            let names = names.join(" ");
            d.doing(format!("waiting for {names}: it may hold the data of this shard, so nobody initialises"));
            let whys: Vec<_> = known.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            let message = format!(
                "no volume is initialised, because this shard may have data ({}). Bring back what is missing. Only if it is lost for \
                 ever, `kubectl delete replica {names}`: the shard then goes on without, and the volumes are kept",
                whys.join("; ")
            );
            d.note(Reason::BootstrapHeld, message);
        }
        (true, false) => d.doing("bootstrap: waiting to hear what the volumes hold"),
        (true, true) => {
            d.doing(wait_for_person(s));
            let message = format!("this shard had a primary: {}. Seen: {}", anew_by_hand(s), ranking.words());
            d.note(Reason::BootstrapHeld, message);
        }
    }
}

/// Whether no replica holds anything of a shard that had a primary, as far as anybody knows.
pub(crate) fn nothing_left(s: &Snapshot) -> bool {
    let is_empty = |name: &ReplicaName| {
        s.fresh_report(name).is_some_and(|(server, _)| matches!(server.phase, Phase::Empty | Phase::Building))
    };
    let never_had = |name: &ReplicaName, replica: &Replica| {
        s.status.primary.as_ref() != Some(name) && holds(s, name, replica).is_none()
    };
    s.replicas.iter().all(|(name, replica)| is_empty(name) || never_had(name, replica))
}

/// What is being done while [`nothing_left`].
pub(crate) fn wait_for_person(s: &Snapshot) -> String {
    format!("waiting for a copy: nothing is left of this shard. To begin anew, empty: kubectl delete shard {}", s.shard)
}

/// What a person may do while [`nothing_left`].
pub(crate) fn anew_by_hand(s: &Snapshot) -> String {
    format!(
        "no replica holds data any more, and nobody initialises. Bring back what is missing. Only if every copy is lost for ever, \
         `kubectl delete shard {}`, and make it again unless its Datastore does: it begins empty, and consumers read what Kafka \
         still holds",
        s.shard
    )
}
