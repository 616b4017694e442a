//! Trouble for which no primary may be changed, drawn: short pauses, locks, load, slow disks everywhere, one way that is cut or one
//! observer that lies, observers and operators that come and go; and drains, for which it may.

use understudy_wire::evidence::Millis;

use super::cluster::{Process, Rep};
use super::fate::Drawn;
use super::pauses::INTERVAL;
use super::random::Random;
use super::script::Misfortune;
use super::verb::Verb;
use super::world::World;

/// The longest pause that is benign, in turns: 2 s.
const PAUSE: u64 = 8;
/// For how long everything runs after a pause before there is another.
const BETWEEN: Millis = 500;
/// The longest lock, in turns: 12 s.
const LOCK: u64 = 48;

impl World {
    pub fn draw_benign(&self, fate: &mut Random, at: Millis) -> Vec<Misfortune> {
        let mut drawn = Drawn { at, misfortunes: Vec::new() };
        self.draw_pause(fate, &mut drawn);
        let names: Vec<_> = self.replicas.keys().cloned().collect();
        let is_locked =
            self.replicas.values().any(|rep| rep.pod.as_ref().is_some_and(|pod| pod.locked_until.is_some()));
        let is_cut = !self.severed.is_empty() || self.nodes[..self.nowhere()].iter().any(|node| node.cut);
        if fate.one_in(60)
            && !is_locked
            && self.liar.is_none()
            && let Some(primary) = &self.status.primary
        {
            drawn.add(Verb::Lock, Some(primary.to_string()), Some(fate.between(1, LOCK) * INTERVAL));
        }
        if fate.one_in(60) {
            self.draw_partition(fate, is_cut, &mut drawn);
        }
        // One that lies is one voice; beside a lock or another way that is cut there would be two, and nobody to contradict them.
        if self.liar.is_some() && fate.one_in(40) {
            drawn.add(Verb::Honest, None, None);
        } else if self.liar.is_none() && !is_locked && !is_cut && drawn.misfortunes.is_empty() && fate.one_in(60) {
            let verb = if fate.one_in(3) { Verb::Flatter } else { Verb::Lie };
            drawn.add(verb, Some(self.any_observer(fate, &names)), None);
        }
        if fate.one_in(80) {
            let consumer = fate.pick(&self.consumers).expect("one at least").pod.clone();
            drawn.add(Verb::Roll, Some(consumer), Some(fate.between(1, 12) * INTERVAL));
        }
        if fate.one_in(80) {
            drawn.add(Verb::Load, None, Some(if self.load > 0 { 0 } else { fate.between(2, 14) * 100 }));
        }
        if fate.one_in(120) {
            drawn.add(Verb::SlowAll, None, Some(if self.slow > 0 { 0 } else { fate.between(2, 14) * 100 }));
        }
        if fate.one_in(100) {
            drawn.add(Verb::OperatorDies, None, Some(fate.between(0, 5_000)));
        }
        if fate.one_in(150) {
            drawn.add(Verb::OperatorSleeps, None, Some(fate.between(0, 6_000)));
        }
        if fate.one_in(80)
            && self.is_whole()
            && let Some(name) = fate.pick(&names)
        {
            let name = self.status.primary.as_ref().filter(|_| fate.one_in(2)).unwrap_or(name);
            drawn.add(Verb::Stop, Some(name.to_string()), None);
        }
        drawn.misfortunes
    }

    /// A server, a machine or an observer stands still for up to 2 s, and never two of them one right after the other: that would be more.
    fn draw_pause(&self, fate: &mut Random, drawn: &mut Drawn) {
        if self.now < self.still_until + BETWEEN || !fate.one_in(8) {
            return;
        }
        let millis = Some(fate.between(1, PAUSE) * INTERVAL);
        if fate.one_in(5) {
            let names: Vec<_> = self.replicas.keys().cloned().collect();
            return drawn.add(Verb::Doze, Some(self.any_observer(fate, &names)), millis);
        }
        if fate.one_in(4) {
            let node = self.any_node(fate);
            return drawn.add(Verb::StallNode, Some(self.nodes[node].name.clone()), millis);
        }
        let names: Vec<_> = self.replicas.keys().collect();
        let primary = self.status.primary.as_ref().filter(|_| fate.one_in(2));
        if let Some(name) = primary.or_else(|| fate.pick(&names).copied()) {
            drawn.add(Verb::Pause, Some(name.to_string()), millis);
        }
    }

    /// One way is cut at a time: between the operator and a node, or between another place and the primary's.
    fn draw_partition(&self, fate: &mut Random, is_cut: bool, drawn: &mut Drawn) {
        if self.liar.is_some() {
            return;
        }
        if is_cut {
            for node in self.nodes[..self.nowhere()].iter().filter(|node| node.cut) {
                drawn.add(Verb::Join, Some(node.name.clone()), None);
            }
            if !self.severed.is_empty() {
                self.draw_way(fate, drawn);
            }
        } else if fate.one_in(3) {
            let node = self.any_node(fate);
            drawn.add(Verb::Cut, Some(self.nodes[node].name.clone()), None);
        } else {
            self.draw_way(fate, drawn);
        }
    }

    /// Whether all that are asked for serve or follow, so that one may be drained.
    fn is_whole(&self) -> bool {
        let works = |rep: &Rep| {
            let pod = rep.pod.as_ref().filter(|pod| pod.process == Process::Running && pod.terminating_at.is_none());
            rep.condemned.is_none() && pod.is_some()
        };
        let is_calm = self.status.transition.is_none() && self.status.primary.is_some();
        is_calm && self.replicas.len() == self.wanted && self.replicas.values().all(works)
    }
}
