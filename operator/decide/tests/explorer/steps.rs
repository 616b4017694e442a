//! How the operator's shell carries out steps: conditions are checked again where the API server checks them.

use understudy_decide::decision::NewReplica;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Order, Step};
use understudy_wire::{Epoch, ReplicaName};

use super::cluster::{Disk, Letter, PodW, Process, Rep};
use super::operator::{Operator, Sent, at};
use super::world::World;

impl Operator {
    /// Carries out one step the way the shell does: conditions are checked again where the API server checks them.
    pub fn act(&mut self, world: &mut World, seen: &Snapshot, step: &Step) -> Result<(), String> {
        // A write can fail, or somebody else may have written first.
        if world.faults && world.random.one_in(15) {
            world.say(|| format!("write fails: {step:?}"));
            self.void |= step.is_irreversible();
            if step.can_wait() {
                self.held_back.insert(step.subject(), world.now);
            }
            return Ok(());
        }
        // Something in the cluster stands against it for as long as the faults last, and longer.
        if world.refuses(step) {
            world.say(|| format!("refused: {step:?}"));
            self.held_back.insert(step.subject(), world.now);
            return Ok(());
        }
        match step {
            Step::Order { replica, order } => {
                self.send(world, replica, order);
                return Ok(());
            }
            Step::Reprobe { epoch, .. } => self.reprobe = Some((*epoch, world.now, None)),
            Step::Claim(claim) => {
                if self.is_behind(world) || world.status.epoch > claim.after || world.status.epoch != seen.status.epoch
                {
                    return Ok(());
                }
                if world
                    .status
                    .transition
                    .as_ref()
                    .is_some_and(|t| t.kind != Kind::Bootstrap && t.kind != Kind::Switchover)
                {
                    world.counts.second_candidates += 1;
                }
                world.status.epoch = claim.epoch();
                world.status.transition = Some(Transition {
                    kind: claim.kind,
                    epoch: claim.epoch(),
                    from: claim.from.clone(),
                    to: claim.to.clone(),
                    record: claim.record.clone(),
                    request: claim.request.clone(),
                    cause: Some(claim.cause.clone()),
                });
                world.requests.retain(|request| Some(&request.name) != claim.record.as_ref());
                self.has_claimed(claim.epoch(), world.now);
            }
            Step::Publish { epoch, primary, address, in_a_row } => {
                let Some(t) = world.status.transition.clone().filter(|t| t.epoch == *epoch && t.to == *primary) else {
                    return Ok(());
                };
                if self.is_behind(world) {
                    return Ok(());
                }
                let given_up = world.replicas.get(primary).is_none_or(|rep| rep.condemned.is_some());
                if t.kind == Kind::Bootstrap && given_up {
                    return Ok(());
                }
                match t.kind {
                    Kind::Failover => world.counts.failovers += 1,
                    Kind::Switchover => world.counts.switchovers += 1,
                    Kind::Confirm => world.counts.confirms += 1,
                    Kind::Bootstrap => {}
                }
                world.published(&t, seen);
                world.status.primary = Some(primary.clone());
                world.status.primary_address = Some(address.clone());
                world.status.transition = None;
                world.status.in_a_row = *in_a_row;
                if let Some(bootstrap) = &mut world.status.bootstrap {
                    bootstrap.completed = true;
                }
                if t.kind != Kind::Bootstrap {
                    world.changes.push((t.record.clone(), *epoch));
                }
                let at = Some(at(world.now));
                if t.kind != Kind::Confirm {
                    world.status.changed_at = at;
                }
                world.status.last_change = Some(LastChange {
                    kind: t.kind,
                    epoch: *epoch,
                    from: t.from,
                    record: t.record,
                    cause: t.cause,
                    at,
                });
            }
            Step::IntendBootstrap { replica } => {
                if self.is_behind(world) {
                    return Ok(());
                }
                world.status.bootstrap = Some(Bootstrap { replica: replica.clone(), completed: false });
            }
            Step::Grow { first, replicas } => self.grow(world, *first, replicas),
            Step::MakeVolume { replica } => {
                let uid = world.uid("volume");
                if let Some(rep) = world.replicas.get_mut(replica) {
                    rep.disk.get_or_insert(Disk::new(uid));
                }
            }
            Step::MakePod { replica } => make_pod(world, replica),
            Step::Condemn { replica, uid, reason, .. } => {
                // The primary is never condemned on a cache.
                let is_to_serve = |t: &Transition| t.to == *replica && t.kind != Kind::Bootstrap;
                if world.status.primary.as_ref() == Some(replica)
                    || world.status.transition.as_ref().is_some_and(is_to_serve)
                {
                    return Ok(());
                }
                world.last_copy(replica)?;
                let node =
                    world.replicas.get(replica).and_then(|rep| Some(world.nodes[rep.pod.as_ref()?.node].name.clone()));
                if let Some(rep) =
                    world.replicas.get_mut(replica).filter(|rep| rep.uid == *uid && rep.condemned.is_none())
                {
                    let reason = reason.to_string();
                    rep.condemned = Some(Condemned { reason, at: Some(at(world.now)), successor_ready_at: None, node });
                }
            }
            Step::DeletePod { replica, uid, .. } => {
                if let Some(rep) = world.replicas.get_mut(replica)
                    && rep.pod.as_ref().is_some_and(|pod| pod.uid == *uid)
                {
                    rep.pod = None;
                }
            }
            Step::StartQuarantine { replica } => {
                if let Some(condemned) = world.replicas.get_mut(replica).and_then(|rep| rep.condemned.as_mut()) {
                    condemned.successor_ready_at = Some(at(world.now));
                }
            }
            Step::DeleteVolume { replica, uid } => delete_volume(world, replica, uid)?,
            Step::DeleteReplica { replica, uid } => {
                if world.replicas.get(replica).is_some_and(|rep| rep.uid == *uid && rep.disk.is_none()) {
                    world.replicas.remove(replica);
                }
            }
            Step::Refuse { request, .. } => world.requests.retain(|open| open.name != *request),
            Step::Label { replica, role } => {
                if let Some(rep) = world.replicas.get_mut(replica) {
                    let role = Some(role.to_string());
                    rep.pod.iter_mut().for_each(|pod| pod.role.clone_from(&role));
                    rep.disk.iter_mut().for_each(|disk| disk.role.clone_from(&role));
                }
            }
        }
        if matches!(step, Step::Claim(_) | Step::Publish { .. } | Step::IntendBootstrap { .. } | Step::Grow { .. }) {
            world.version += 1;
            self.seen = world.version;
        }
        world.wrote(step);
        Ok(())
    }

    /// Whether somebody wrote the status of the shard since this operator looked: its own write of it is refused then.
    fn is_behind(&mut self, world: &World) -> bool {
        let behind = self.seen != world.version;
        self.void |= behind;
        behind
    }

    fn send(&mut self, world: &mut World, to: &ReplicaName, order: &Order) {
        let Some(pod) = world.replicas.get(to).and_then(|rep| rep.pod.as_ref()) else { return };
        let cut = !world.nodes[pod.node].up || world.nodes[pod.node].cut;
        let uid = pod.uid.clone();
        let key = (to.clone(), order.kind());
        let tries = self.orders.get(&key).filter(|sent| sent.epoch == order.epoch()).map_or(1, |sent| sent.tries + 1);
        let sent =
            Sent { epoch: order.epoch(), at: world.now, tries, pod: uid.clone(), outcome: OrderOutcome::InFlight };
        self.orders.insert(key, sent);
        if let Order::Promote(promote) = order {
            // Nobody knows whether it gets there.
            world.offices.told.insert(promote.epoch);
        }
        if cut || (world.faults && world.random.one_in(20)) {
            return;
        }
        let slow = world.faults && world.random.one_in(10);
        let arrives = world.now + if slow { world.random.between(500, 9_000) } else { 0 };
        let answer_to = (!(world.faults && world.random.one_in(15))).then_some(self.generation);
        let until = arrives
            + match order {
                Order::Promote(promote) => promote.apply_relay_log_within,
                _ => 0,
            };
        let letter = Letter { arrives, until, to: to.clone(), pod: uid, order: order.clone(), answer_to };
        // One that got no answer may have been sent twice on the way.
        if world.faults && world.random.one_in(15) {
            let later = world.random.between(250, 9_000);
            world.post.push(Letter { arrives: arrives + later, until: until + later, ..letter.clone() });
        }
        world.post.push(letter);
    }

    fn grow(&mut self, world: &mut World, first: u32, replicas: &[NewReplica]) {
        // The shell counts again past the cache, and the ids are taken by compare-and-set.
        let there = world.replicas.values().filter(|rep| rep.condemned.is_none()).count();
        if self.is_behind(world) || world.status.next_server_id.max(1) != first || there + replicas.len() > world.wanted
        {
            return;
        }
        world.status.next_server_id = first + u32::try_from(replicas.len()).expect("few");
        for new in replicas {
            let uid = world.uid("replica");
            let made = world.now;
            world.replicas.entry(new.name.clone()).or_insert(Rep {
                uid,
                server_id: new.server_id,
                condemned: None,
                replaces: new.replaces.clone(),
                avoid: new.avoid_nodes.clone(),
                pod: None,
                disk: None,
                made,
                is_known: false,
            });
            if world.faults && world.random.one_in(20) {
                return;
            }
        }
    }
}

fn delete_volume(world: &mut World, replica: &ReplicaName, uid: &str) -> Result<(), String> {
    let Some(rep) = world.replicas.get(replica).filter(|rep| rep.disk.as_ref().is_some_and(|disk| disk.uid == uid))
    else {
        return Ok(());
    };
    if rep.condemned.is_none() {
        return Err(format!("I6: the volume of {replica} is deleted and it was never condemned"));
    }
    let intact = world.replicas.values().filter(|rep| {
        rep.condemned.is_none() && rep.disk.as_ref().is_some_and(|disk| disk.data.is_some() && !disk.unusable)
    });
    if intact.count() == 0 {
        return Err(format!("I6: the volume of {replica} is deleted and no other copy is there"));
    }
    world.counts.volumes_deleted += 1;
    world.replicas.get_mut(replica).expect("seen above").disk = None;
    Ok(())
}

fn make_pod(world: &mut World, replica: &ReplicaName) {
    let taken: Vec<_> = world.replicas.values().filter_map(|rep| rep.pod.as_ref().map(|pod| pod.node)).collect();
    let Some(rep) = world.replicas.get(replica) else { return };
    if rep.pod.is_some() || rep.disk.is_none() {
        return;
    }
    let bound = rep.disk.as_ref().and_then(|disk| disk.node);
    let allowed: Vec<_> = (0..world.nowhere()).filter(|node| !rep.avoid.contains(&world.nodes[*node].name)).collect();
    let free: Vec<_> = allowed.iter().copied().filter(|node| !taken.contains(node)).collect();
    let chosen = bound.or_else(|| world.random.pick(&free).copied()).or_else(|| world.random.pick(&allowed).copied());
    let node = chosen.unwrap_or(world.nowhere());
    let uid = world.uid("pod");
    let ip = format!("10.0.{}.{}", uid.len(), uid.trim_start_matches("pod-"));
    let now = world.now;
    let rep = world.replicas.get_mut(replica).expect("seen above");
    let disk = rep.disk.as_mut().expect("seen above");
    disk.node = chosen;
    let known = disk.data.as_ref().and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
    let process = if disk.data.is_some() { Process::Starting { until: now + 1_000 } } else { Process::None };
    rep.pod = Some(PodW::new(uid, ip, node, process, known, now));
}
