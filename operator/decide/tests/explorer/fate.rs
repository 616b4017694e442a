//! Which faults befall the world, drawn.

use understudy_decide::failover::snapshot::Mode;
use understudy_wire::ReplicaName;
use understudy_wire::evidence::Millis;

use super::cluster::{PodW, Process, ROOMY};
use super::network::OPERATOR;
use super::pauses::INTERVAL;
use super::random::Random;
use super::script::Misfortune;
use super::verb::Verb;
use super::world::World;

/// What was drawn in one turn.
pub struct Drawn {
    pub at: Millis,
    pub misfortunes: Vec<Misfortune>,
}

impl Drawn {
    pub fn add(&mut self, verb: Verb, about: Option<String>, amount: Option<u64>) {
        self.misfortunes.push(Misfortune { at: self.at, verb, about, amount });
    }
}

impl World {
    pub fn draw(&self, fate: &mut Random, at: Millis) -> Vec<Misfortune> {
        let mut drawn = Drawn { at, misfortunes: Vec::new() };
        let names: Vec<_> = self.replicas.keys().cloned().collect();
        if fate.one_in(20)
            && let Some(name) = fate.pick(&names).cloned()
        {
            // The primary is the most interesting victim.
            let name = if fate.one_in(2) { self.status.primary.clone().unwrap_or(name) } else { name };
            if let Some((verb, amount)) = self.harm(&name, fate) {
                drawn.add(verb, Some(name.to_string()), amount);
            }
        }
        self.draw_nodes(fate, &mut drawn);
        self.draw_observers(fate, &names, &mut drawn);
        if fate.one_in(150) {
            drawn.add(Verb::OperatorDies, None, Some(fate.between(0, 5_000)));
        }
        if fate.one_in(200) {
            drawn.add(Verb::OperatorSleeps, None, Some(fate.between(0, 6_000)));
        }
        self.draw_persons(fate, &names, &mut drawn);
        self.draw_surroundings(fate, &mut drawn);
        drawn.misfortunes
    }

    fn draw_nodes(&self, fate: &mut Random, drawn: &mut Drawn) {
        if fate.one_in(120) {
            let node = self.any_node(fate);
            let verb = match fate.between(0, 2) {
                0 if self.nodes.iter().filter(|node| !node.up).count() == 1 => Verb::NodeDown,
                1 if self.nodes[node].cut => Verb::Join,
                1 => Verb::Cut,
                _ => Verb::NodeUp,
            };
            drawn.add(verb, Some(self.nodes[node].name.clone()), None);
        }
        if fate.one_in(400) {
            drawn.add(Verb::Blackout, None, None);
        }
        if fate.one_in(300) {
            let node = self.any_node(fate);
            drawn.add(Verb::StallNode, Some(self.nodes[node].name.clone()), Some(fate.between(1, 24) * INTERVAL));
        }
        if fate.one_in(200) {
            self.draw_way(fate, drawn);
        }
        // The way from all who write to the one that they write to: it is cut off.
        if fate.one_in(400)
            && let Some(node) = self.node_of_primary()
        {
            for consumer in &self.consumers {
                drawn.add(Verb::Sever, Some(format!("{}/{}", consumer.pod, self.nodes[node].name)), None);
            }
        }
    }

    /// A way between a place and a node is cut, or all of them are well again.
    pub fn draw_way(&self, fate: &mut Random, drawn: &mut Drawn) {
        if !self.severed.is_empty() {
            for (place, node) in &self.severed {
                drawn.add(Verb::Mend, Some(format!("{place}/{node}")), None);
            }
            return;
        }
        let to = self.node_of_primary().unwrap_or(0);
        let place = match fate.between(0, 3) {
            0 => OPERATOR.to_owned(),
            1 => fate.pick(&self.consumers).expect("one at least").pod.clone(),
            _ => self.nodes[self.any_node(fate)].name.clone(),
        };
        // Nothing comes between what is on one node.
        if place != self.nodes[to].name {
            drawn.add(Verb::Sever, Some(format!("{place}/{}", self.nodes[to].name)), None);
        }
    }

    fn draw_observers(&self, fate: &mut Random, names: &[ReplicaName], drawn: &mut Drawn) {
        if fate.one_in(150) {
            drawn.add(Verb::Doze, Some(self.any_observer(fate, names)), Some(fate.between(1, 24) * INTERVAL));
        }
        if fate.one_in(150) {
            match self.liar {
                Some(_) => drawn.add(Verb::Honest, None, None),
                None => {
                    let verb = if fate.one_in(3) { Verb::Flatter } else { Verb::Lie };
                    drawn.add(verb, Some(self.any_observer(fate, names)), None);
                }
            }
        }
        if fate.one_in(200) {
            let consumer = fate.pick(&self.consumers).expect("one at least").pod.clone();
            drawn.add(Verb::Roll, Some(consumer), Some(fate.between(1, 12) * INTERVAL));
        }
    }

    fn draw_persons(&self, fate: &mut Random, names: &[ReplicaName], drawn: &mut Drawn) {
        if fate.one_in(100) {
            let target = if fate.one_in(2) { fate.pick(names).map(ToString::to_string) } else { None };
            drawn.add(Verb::Ask, target, None);
        }
        if fate.one_in(300) {
            let target = if fate.one_in(2) { fate.pick(names).map(ToString::to_string) } else { None };
            drawn.add(Verb::Insist, target, None);
        }
        if fate.one_in(200) && self.wanted > 1 {
            drawn.add(Verb::Want, None, Some(fate.between(2, 3)));
        }
        let mode = if self.mode == Mode::Automatic {
            fate.one_in(400).then(|| if fate.one_in(3) { Mode::Paused } else { Mode::Manual })
        } else {
            fate.one_in(40).then_some(Mode::Automatic)
        };
        if let Some(mode) = mode {
            drawn.add(Verb::Mode, Some(mode.to_string()), None);
        }
    }

    fn draw_surroundings(&self, fate: &mut Random, drawn: &mut Drawn) {
        if fate.one_in(150) {
            let stored = self.replicas.values().filter_map(|rep| Some(rep.disk.as_ref()?.data.as_ref()?.offset)).max();
            let stored = u64::try_from(stored.unwrap_or(0)).expect("an offset");
            drawn.add(Verb::Drop, None, Some(stored.saturating_sub(fate.between(0, 8))));
        }
        if fate.one_in(200) {
            drawn.add(Verb::Load, None, Some(if self.load > 0 { 0 } else { fate.between(2, 14) * 100 }));
        }
        if fate.one_in(300) {
            drawn.add(Verb::SlowAll, None, Some(if self.slow > 0 { 0 } else { fate.between(2, 14) * 100 }));
        }
        if self.script.shards > 1 && fate.one_in(80) {
            let word = *fate.pick(&["suspect", "slow", "partitioned"]).expect("some");
            let count = if fate.one_in(2) { 0 } else { fate.between(1, 12) };
            drawn.add(Verb::Fleet, Some(word.to_owned()), Some(count));
        }
    }

    /// What may happen to a replica as it is now.
    fn harm(&self, name: &ReplicaName, fate: &mut Random) -> Option<(Verb, Option<u64>)> {
        let rep = self.replicas.get(name)?;
        let (pod, disk) = (rep.pod.as_ref()?, rep.disk.as_ref());
        let running = pod.process == Process::Running;
        let turns = |fate: &mut Random, most| Some(fate.between(1, most) * INTERVAL);
        let verb = match fate.between(0, 20) {
            0..=4 if running || matches!(pod.process, Process::Starting { .. }) => Verb::Kill,
            5 | 6 if running && pod.frozen => Verb::Thaw,
            5 | 6 if running => Verb::Freeze,
            7 => Verb::Stop,
            8 => Verb::Delete,
            9 if running => Verb::Restart,
            10 => Verb::Evict,
            11 if disk?.hangs.is_some() => Verb::Unhang,
            11 => Verb::Hang,
            12 if pod.lags.is_some() => Verb::CatchUp,
            12 if running => Verb::Lag,
            13 if running && pod.source.is_some() => Verb::Corrupt,
            14 | 15 if pod.deadlocked => Verb::Release,
            14 | 15 if running => Verb::Deadlock,
            16 if running => return Some((Verb::Fill, Some(self.room_of(pod, disk?.free, fate)))),
            17 if disk?.fails => Verb::RepairVolume,
            17 if running => Verb::FailVolume,
            18 if disk?.slow > 0 => return Some((Verb::Slow, Some(0))),
            18 => return Some((Verb::Slow, Some(fate.between(2, 14) * 100))),
            19 if running => return Some((Verb::Lock, turns(fate, 48))),
            20 if running => return Some((Verb::Pause, turns(fate, 8))),
            _ => return None,
        };
        Some((verb, None))
    }

    /// Thousandths of a volume that are free next: it fills up, or somebody makes room.
    fn room_of(&self, pod: &PodW, free: u64, fate: &mut Random) -> u64 {
        // A full volume is what a primary and not a standby has to say something about.
        let leads = self.status.primary.as_ref().and_then(|name| self.replicas.get(name)?.pod.as_ref());
        match fate.between(0, 3) {
            _ if free < ROOMY => ROOMY,
            0 if leads.is_some_and(|its| its.uid == pod.uid) => 0,
            1 => 150,
            _ => 40,
        }
    }

    pub fn any_node(&self, fate: &mut Random) -> usize {
        usize::try_from(fate.next() % self.nowhere() as u64).expect("small")
    }

    /// The manager of a replica, or a consumer.
    pub fn any_observer(&self, fate: &mut Random, names: &[ReplicaName]) -> String {
        let consumers = self.consumers.iter().map(|consumer| consumer.pod.clone());
        let all: Vec<_> = names.iter().map(ToString::to_string).chain(consumers).collect();
        fate.pick(&all).expect("one at least").clone()
    }

    pub fn node_of_primary(&self) -> Option<usize> {
        let primary = self.status.primary.as_ref()?;
        let node = self.replicas.get(primary)?.pod.as_ref()?.node;
        (node != self.nowhere()).then_some(node)
    }
}
