//! Managers: what they do with an order, and what they see of the primary.

use std::collections::BTreeMap;

use understudy_decide::Order;
use understudy_decide::failover::snapshot::*;
use understudy_wire::GtidSet;
use understudy_wire::order::{Origin, Promote};

use super::cluster::{Data, Letter, PodW, Process};
use super::watch::Watch;
use super::world::World;

impl World {
    /// Orders arrive at managers, answers at the operator that asked.
    pub fn deliver(&mut self) -> Result<(), String> {
        let now = self.now;
        let (arrived, waiting) =
            std::mem::take(&mut self.post).into_iter().partition(|letter: &Letter| letter.arrives <= now);
        self.post = waiting;
        for letter in arrived {
            if self.dozes(&letter) || (letter.until > now && self.waits(&letter)) {
                self.post.push(Letter { arrives: now + 100, ..letter });
                continue;
            }
            let answer = self.obey(&letter)?;
            self.say(|| format!("{}: {:?} -> {answer:?}", letter.to, letter.order));
            let Some(answer) = answer else { continue };
            if let Some(operator) =
                self.operator.as_mut().filter(|operator| Some(operator.generation) == letter.answer_to)
            {
                operator.answered(&letter, answer);
            }
        }
        Ok(())
    }

    /// Whether a manager that would take the order stands still.
    fn dozes(&self, letter: &Letter) -> bool {
        let pod = self.replicas.get(&letter.to).and_then(|rep| rep.pod.as_ref());
        pod.is_some_and(|pod| pod.uid == letter.pod && self.nodes[pod.node].up && !pod.rhythm.turns())
    }

    /// Whether a manager waits for what an order must come after.
    fn waits(&self, letter: &Letter) -> bool {
        let Order::Promote(promote) = &letter.order else { return false };
        let Some(rep) = self.replicas.get(&letter.to) else { return false };
        let (Some(pod), Some(disk)) = (&rep.pod, &rep.disk) else { return false };
        let runs = pod.uid == letter.pod && self.nodes[pod.node].runs() && pod.process == Process::Running;
        runs && pod.known <= promote.epoch && disk.data.as_ref().is_some_and(|data| !has_rest(data, pod, promote))
    }

    /// What a manager does with an order. None: nobody is there, or it hangs.
    pub fn obey(&mut self, letter: &Letter) -> Result<Option<OrderOutcome>, String> {
        let ever_served = !self.served.is_empty();
        let now = self.now;
        let relay_applied = !self.random.one_in(5);
        let Some(rep) = self.replicas.get_mut(&letter.to) else { return Ok(None) };
        let own = rep.source_id();
        let (Some(pod), Some(disk)) = (&mut rep.pod, &mut rep.disk) else { return Ok(None) };
        if pod.uid != letter.pod || pod.ended || !self.nodes[pod.node].up {
            return Ok(None);
        }
        let refuse = |why: &str| Ok(Some(OrderOutcome::Failed(why.into())));
        if letter.order.epoch() < pod.known {
            return refuse("stale epoch");
        }
        let done = |set| Ok(Some(OrderOutcome::Done(set)));
        let running = pod.process == Process::Running;
        let stands_still = running && (pod.frozen || pod.deadlocked);
        let writes = matches!(letter.order, Order::Build(_) | Order::Follow(_) | Order::Promote(_));
        if writes && disk.fails {
            return refuse("EIO");
        }
        if writes && !disk.takes_writes() {
            return Ok(None);
        }
        match &letter.order {
            Order::Build(build) => {
                if pod.process != Process::None || disk.data.is_some() || disk.unusable {
                    return refuse("not empty");
                }
                pod.known = build.epoch;
                match &build.origin {
                    Origin::Initialise { intent } => {
                        if ever_served && rep.condemned.is_none() {
                            return Err(format!("I9: {} initialises and the shard has served", letter.to));
                        }
                        if intent.replica != letter.to {
                            return refuse("not mine");
                        }
                        disk.data = Some(Data { executed: GtidSet::new(), offset: 0, row: None });
                        pod.process = Process::Starting { until: now + 700 };
                    }
                    Origin::Clone { donor, .. } => {
                        pod.process = Process::Building { until: now + 1_500, donor: donor.clone() };
                    }
                }
                done(None)
            }
            Order::Follow(follow) => {
                pod.known = follow.epoch;
                if !running || stands_still {
                    return if stands_still { Ok(None) } else { refuse("not running") };
                }
                pod.read_only = true;
                pod.fenced = None;
                pod.source = Some((follow.source.clone(), follow.address.clone()));
                done(None)
            }
            Order::Promote(promote) => {
                if pod.fenced == Some(promote.epoch) {
                    return refuse("fenced under this epoch");
                }
                pod.known = promote.epoch;
                let data = match &mut disk.data {
                    Some(data) if running && !stands_still => data,
                    _ if stands_still => return Ok(None),
                    _ => return refuse("not running"),
                };
                if !has_rest(data, pod, promote) {
                    return refuse("the rest did not come");
                }
                if data.row.as_ref().is_none_or(|(epoch, _)| *epoch < promote.epoch) {
                    if relay_applied || promote.after.is_some() {
                        data.executed = data.executed.union(&pod.received);
                    }
                    let next = data.executed.of(own).count() + 1;
                    data.executed.insert(own, next, next);
                    data.row = Some((promote.epoch, letter.to.clone()));
                }
                pod.source = None;
                pod.fenced = None;
                pod.read_only = false;
                (pod.lags, pod.broken) = (None, false);
                done(Some(data.executed.clone()))
            }
            Order::Fence(fence) => {
                pod.known = fence.epoch;
                pod.fenced = Some(fence.epoch);
                pod.read_only = true;
                if stands_still {
                    pod.process = Process::Exited { at: now };
                    (pod.frozen, pod.frozen_until) = (false, None);
                    return done(None);
                }
                done(disk.data.as_ref().filter(|_| running).map(|data| data.executed.clone()))
            }
            Order::Peers(peers) => {
                let serving = disk.data.as_ref().and_then(|data| data.row.clone());
                let head = peers.primary.as_ref().map(|(name, _)| name);
                if serving.is_some_and(|(epoch, _)| peers.epoch > epoch) && head != Some(&letter.to) {
                    pod.read_only = true;
                }
                pod.known = peers.epoch;
                pod.peers = Some(peers.clone());
                done(None)
            }
        }
    }

    /// Managers probe the primary that they were told of, their own one included.
    pub fn observe(&mut self) {
        let now = self.now;
        let heads: BTreeMap<_, _> = self
            .replicas
            .iter()
            .filter_map(|(name, rep)| {
                let watches = |pod: &&PodW| !pod.ended && self.nodes[pod.node].runs() && pod.rhythm.turns();
                let pod = rep.pod.as_ref().filter(watches)?;
                let (head, _) = pod.peers.as_ref()?.primary.as_ref()?;
                let place = &self.nodes[pod.node].name;
                Some((name.clone(), (head.clone(), self.try_commit(head, place))))
            })
            .collect();
        for (name, (head, outcome)) in heads {
            let Some(pod) = self.replicas.get_mut(&name).and_then(|rep| rep.pod.as_mut()) else { continue };
            match &mut pod.probe {
                Some((subject, watch)) if *subject == head => watch.saw(now, outcome),
                probe => {
                    let mut watch = Watch::default();
                    watch.saw(now, outcome);
                    *probe = Some((head, watch));
                }
            }
        }
    }
}

/// Whether all that an order must come after is there.
fn has_rest(data: &Data, pod: &PodW, promote: &Promote) -> bool {
    promote.after.as_ref().is_none_or(|rest| data.executed.union(&pod.received).contains(rest))
}
