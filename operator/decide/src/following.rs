//! The other replicas of a shard with a primary in office: know each other, follow the primary, be built. Pure.
//!
//! Nothing here waits for a replica: each order goes out by itself, and a sick replica delays nobody else's.

use understudy_wire::evidence::{Millis, Phase, Replication, Server};
use understudy_wire::order::{Build, Follow, Origin, Peers};
use understudy_wire::{GtidSet, ReplicaName};

use crate::decision::{Draft, Order, OrderKind, Reason, Step};
use crate::failover::candidate::errant;
use crate::failover::snapshot::{MANAGER_PORT, OrderFact, OrderOutcome, Replica, Snapshot, with_port};
use crate::pace;
use crate::replication_error::ReplicationError;
use crate::topology::consumers_come_first;

/// How soon an order that was not carried out is given again.
const RETRY: Millis = 3_000;
/// How long a replica may go on saying that it is empty after it was told to clone.
const BUILD_BEGINS_WITHIN: Millis = 5_000;
/// A standby is taken for one whose replication was read, and whose volume took a write, no longer ago than this.
const IN_USE: Millis = 10_000;
/// A standby may be a donor, and counts as a copy, when it is no more than this behind.
pub(crate) const DONOR_DELAY: Millis = 10_000;

/// Orders to everybody but the primary, and the peers of everybody.
pub(crate) fn plan(s: &Snapshot, primary: &ReplicaName, d: &mut Draft) {
    introduce(s, Some(primary), d);
    let Some(address) = s.status.primary_address.clone() else { return };
    for (name, replica) in s.cast().filter(|(name, _)| *name != primary) {
        let Some((server, _)) = s.fresh_report(name) else { continue };
        match server.phase {
            Phase::Running => follow(s, name, server, primary, &address, d),
            Phase::Empty => build(s, name, replica, server, primary, d),
            Phase::Unusable { .. }
            | Phase::Building
            | Phase::Starting
            | Phase::Exited { .. }
            | Phase::Stopping
            | Phase::Unknown => {}
        }
    }
}

fn may_send(order: Option<&OrderFact>) -> bool {
    order.is_none_or(|order| !order.in_flight() && order.sent >= RETRY)
}

/// Tells every connected manager who the others are, when it is not what it was told last.
pub(crate) fn introduce(s: &Snapshot, primary: Option<&ReplicaName>, d: &mut Draft) {
    let epoch = s.status.epoch;
    let head = primary.and_then(|primary| Some((primary.clone(), s.status.primary_address.clone()?)));
    for (name, replica) in s.cast().filter(|(_, replica)| replica.link.connected) {
        let others = s.cast().filter(|(other, _)| *other != name);
        let address = |other: &Replica| Some(with_port(other.pod.present()?.ip.as_deref()?, MANAGER_PORT));
        let peers = others.filter_map(|(other, replica)| Some((other.clone(), address(replica)?))).collect();
        let peers = Peers { epoch, primary: head.clone(), peers };
        let waiting = s.order(name, OrderKind::Peers, epoch);
        let failed_lately = waiting.is_some_and(|o| o.in_flight() || (o.tries > 1 && o.sent < RETRY));
        if replica.link.peers.as_ref() != Some(&peers) && !failed_lately {
            d.step(Step::Order { replica: name.clone(), order: Order::Peers(peers) });
        }
    }
}

fn follow(s: &Snapshot, name: &ReplicaName, server: &Server, primary: &ReplicaName, address: &str, d: &mut Draft) {
    let epoch = s.status.epoch;
    let follows = server.replication.as_ref().is_some_and(|read| {
        let replication = &read.value;
        let has_error = replication.receive_error.is_some() || replication.apply_error.is_some();
        replication.source.as_deref() == Some(address)
            && (replication.receiving || has_error)
            && !was_interrupted(replication)
    });
    if follows && server.epoch >= epoch && server.read_only != Some(false) {
        return;
    }
    // New relay logs are a dozen writes to disk, and Kafka holds what is not copied meanwhile. One that takes writes is told at once, and
    // so are all while the old primary may write: what it sends them the new one lacks for ever.
    if consumers_come_first(s) && old_primary_is_done(s) && server.read_only != Some(false) {
        return;
    }
    if may_send(s.order(name, OrderKind::Follow, epoch)) {
        let order = Follow { epoch, source: primary.clone(), address: address.to_owned() };
        d.step(Step::Order { replica: name.clone(), order: Order::Follow(order) });
    }
}

/// Whether its applier was ended within a transaction, and whoever did it did not come to start it again.
fn was_interrupted(replication: &Replication) -> bool {
    let error = replication.apply_error.as_deref().filter(|_| !replication.applying).map(ReplicationError::parse);
    error.is_some_and(|error| error.is_interruption())
}

/// Whether the primary before this one is known to write nothing any more: its manager answered the fence, or saw its server end. A
/// manager starts no server again, and answers the fence at once when there is none.
fn old_primary_is_done(s: &Snapshot) -> bool {
    let Some(change) = &s.status.last_change else { return false };
    let Some(old) = &change.from else { return false };
    let fence = s.order(old, OrderKind::Fence, change.epoch);
    fence.is_some_and(|order| matches!(order.outcome, OrderOutcome::Done(_)))
        || s.fresh_report(old).is_some_and(|(server, _)| matches!(server.phase, Phase::Exited { .. }))
}

/// Whether nothing is written to the volume of a server any more.
fn hangs(server: &Server) -> bool {
    server.fsync.as_ref().and_then(|fsync| fsync.in_flight).is_some_and(|hanging| hanging > IN_USE)
}

/// Whether a standby replicates from the published primary without an error, as far as it was seen lately.
pub(crate) fn replicates(s: &Snapshot, server: &Server) -> bool {
    server.phase == Phase::Running
        && !hangs(server)
        && server.replication.as_ref().is_some_and(|read| {
            let replication = &read.value;
            read.age <= IN_USE
                && replication.receiving
                && replication.applying
                && replication.source == s.status.primary_address
        })
}

/// Tells an empty replica whom to clone, as soon as there is somebody.
fn build(s: &Snapshot, name: &ReplicaName, replica: &Replica, server: &Server, primary: &ReplicaName, d: &mut Draft) {
    let epoch = s.status.epoch;
    if !replica.link.connected {
        return;
    }
    if let Some(error) = server.build.as_ref().and_then(|build| build.error.as_ref()) {
        d.note_about(Reason::BuildFailed, name, format!("building {name} failed: {error}"));
    }
    if s.order(name, OrderKind::Build, epoch).is_some_and(|o| o.in_flight() || o.sent < BUILD_BEGINS_WITHIN) {
        return;
    }
    let here = s.node_of(name).and_then(|node| s.fleet.filling.get(node)).copied().unwrap_or(0);
    let donor = if here < pace::FILLED_ON_A_NODE {
        donor(s, name, primary, d)
    } else {
        Donor::Wait("as many volumes as may be at a time are being filled on its node already")
    };
    match donor {
        Donor::Take(donor, address) => {
            d.note_about(Reason::Cloning, name, format!("{name} is told to clone {donor}"));
            let origin = Origin::Clone { donor, address };
            let order = Order::Build(Build { epoch, replica: name.clone(), origin });
            d.step(Step::Order { replica: name.clone(), order });
        }
        Donor::Wait(why) => d.note_about(Reason::WaitingForDonor, name, format!("{name} waits to be built: {why}")),
    }
}

enum Donor {
    Take(ReplicaName, String),
    Wait(&'static str),
}

/// A standby that is not being cloned already; the primary only if it is the one copy left.
fn donor(s: &Snapshot, name: &ReplicaName, primary: &ReplicaName, d: &Draft) -> Donor {
    let begun_now = d.steps.iter().any(|step| matches!(step, Step::Order { order: Order::Build(_), .. }));
    let begins = s.cast().any(|(other, _)| {
        let told = s.order(other, OrderKind::Build, s.status.epoch);
        let empty = s.fresh_report(other).is_none_or(|(server, _)| server.phase == Phase::Empty);
        other != name && empty && told.is_some_and(|order| order.sent < BUILD_BEGINS_WITHIN)
    });
    if begun_now || begins {
        return Donor::Wait("another build is beginning");
    }
    let busy: Vec<_> = s
        .replicas
        .keys()
        .filter_map(|other| s.fresh_report(other))
        .filter(|(server, _)| server.phase == Phase::Building && !hangs(server))
        .map(|(server, _)| server.build.as_ref().and_then(|build| build.donor.clone()))
        .collect();
    let is_busy = |donor: &ReplicaName| busy.iter().any(|taken| taken.as_ref().is_none_or(|taken| taken == donor));
    let standbys: Vec<_> = s
        .cast()
        .filter(|(other, _)| *other != name && *other != primary)
        .filter(|(other, _)| is_good_copy(s, primary, other))
        .map(|(other, _)| other)
        .collect();
    let free = standbys.iter().filter(|standby| !is_busy(standby)).max_by_key(|standby| {
        // Nearest first: the data need not cross zones.
        (s.zone_of(standby).is_some() && s.zone_of(standby) == s.zone_of(name), std::cmp::Reverse(**standby))
    });
    let taken = |donor: &ReplicaName| match s.address_of(donor) {
        Some(address) => Donor::Take(donor.clone(), address),
        None => Donor::Wait("the donor has no address"),
    };
    // One that has its data and is about to follow is worth waiting for; one that never gets there is replaced.
    let about_to_follow = s.cast().filter(|(other, _)| *other != name && *other != primary).any(|(other, _)| {
        let strays =
            s.memory.past.stray_for.get(other).copied().unwrap_or(0) >= s.policy.thresholds.broken_standby_after;
        let is_sick = || strays || errant_against(s, primary, other).is_some();
        match s.fresh_report(other).map(|(server, _)| &server.phase) {
            Some(Phase::Starting) => true,
            Some(Phase::Running) => !standbys.contains(&other) && !is_sick(),
            Some(_) | None => false,
        }
    });
    match free {
        Some(standby) => taken(standby),
        None if standbys.is_empty() && about_to_follow => Donor::Wait("a standby is about to be ready"),
        None if !standbys.is_empty() => Donor::Wait("every donor is busy"),
        None if is_busy(primary) => Donor::Wait("the primary is being cloned, and there is no other copy"),
        None if s.fresh_report(primary).is_some_and(|(server, _)| server.serving == Some(s.status.epoch)) => {
            taken(primary)
        }
        None => Donor::Wait("no copy is there to be cloned"),
    }
}

/// Whether a standby is an intact copy: it replicates, is known to keep up, and has no transaction of its own.
pub(crate) fn is_good_copy(s: &Snapshot, primary: &ReplicaName, standby: &ReplicaName) -> bool {
    let Some((server, age)) = s.fresh_report(standby) else { return false };
    let current = behind(server, age).is_none();
    replicates(s, server) && current && errant_against(s, primary, standby).is_none()
}

/// How far behind a standby is, when that is more than a copy may be. In steps, as the words are written down and the number always
/// moves.
pub(crate) fn behind(server: &Server, age: Millis) -> Option<&'static str> {
    const MINUTE: Millis = 60_000;
    let read = server.replication.as_ref();
    let Some(delay) = read.and_then(|read| Some(read.value.delay? + read.age + age)) else {
        return Some("is not known yet to keep up");
    };
    let steps = [
        (24 * 60 * MINUTE, "is more than a day behind"),
        (6 * 60 * MINUTE, "is more than 6 h behind"),
        (60 * MINUTE, "is more than 1 h behind"),
        (10 * MINUTE, "is more than 10 min behind"),
        (MINUTE, "is more than 1 min behind"),
        (DONOR_DELAY, "is more than 10 s behind"),
    ];
    steps.iter().find(|(least, _)| delay > *least).map(|(_, words)| *words)
}

/// Transactions of a standby that did not come from the primary and that the primary does not have.
///
/// Compared only with a primary that is seen serving under the present epoch: by then it has dealt with its relay log, so
/// what it lacks from others it will never get.
pub(crate) fn errant_against(s: &Snapshot, primary: &ReplicaName, standby: &ReplicaName) -> Option<GtidSet> {
    let (server, _) = s.fresh_report(standby)?;
    let executed = &server.executed.as_ref()?.value;
    let (head, _) = s.fresh_report(primary)?;
    if head.serving != Some(s.status.epoch) || s.memory.office_known <= s.policy.thresholds.fresh {
        return None;
    }
    Some(errant(s, Some(primary), standby, executed)).filter(|errant| !errant.is_empty())
}
