//! What befalls the world, and how it becomes well again.

use understudy_decide::failover::snapshot::{Kind, Request};
use understudy_wire::evidence::Millis;
use understudy_wire::{Epoch, ReplicaName};

use super::cluster::Process;
use super::operator::Asleep;
use super::random::Random;
use super::script::{Misfortune, Verb};
use super::world::{BEGUN, World};

impl World {
    /// What befalls the world in this turn: drawn, unless the script has it already.
    pub fn misfortune(&mut self) {
        let at = self.now - BEGUN;
        if let Some(mut fate) = self.fate.take() {
            let drawn = self.draw(&mut fate, at);
            self.script.misfortunes.extend(drawn);
            self.fate = Some(fate);
        }
        while let Some(next) = self.script.misfortunes.get(self.befallen).filter(|next| next.at <= at).cloned() {
            self.befallen += 1;
            self.say(|| next.to_string());
            self.befall(&next);
        }
    }

    fn draw(&self, fate: &mut Random, at: Millis) -> Vec<Misfortune> {
        let names: Vec<_> = self.replicas.keys().cloned().collect();
        let mut drawn = Vec::new();
        let mut add = |verb, about: Option<String>, amount| drawn.push(Misfortune { at, verb, about, amount });
        if fate.one_in(25)
            && let Some(name) = fate.pick(&names).cloned()
        {
            // The primary is the most interesting victim.
            let name = if fate.one_in(2) { self.status.primary.clone().unwrap_or(name) } else { name };
            if let Some(verb) = self.harm(&name, fate) {
                add(verb, Some(name.to_string()), None);
            }
        }
        if fate.one_in(120) {
            let node = &self.nodes[usize::try_from(fate.next() % self.nowhere() as u64).expect("small")];
            let verb = match fate.between(0, 2) {
                0 if self.nodes.iter().filter(|node| !node.up).count() == 1 => Verb::NodeDown,
                1 if node.cut => Verb::Join,
                1 => Verb::Cut,
                _ => Verb::NodeUp,
            };
            add(verb, Some(node.name.clone()), None);
        }
        if fate.one_in(150) {
            add(Verb::OperatorDies, None, Some(fate.between(0, 5_000)));
        }
        if fate.one_in(200) {
            add(Verb::OperatorSleeps, None, Some(fate.between(0, 6_000)));
        }
        if fate.one_in(400) {
            add(Verb::Blackout, None, None);
        }
        if fate.one_in(100) {
            let target = if fate.one_in(2) { fate.pick(&names).map(ToString::to_string) } else { None };
            add(Verb::Ask, target, None);
        }
        if fate.one_in(200) && self.wanted > 1 {
            add(Verb::Want, None, Some(fate.between(2, 3)));
        }
        if fate.one_in(150) {
            let stored = self.replicas.values().filter_map(|rep| Some(rep.disk.as_ref()?.data.as_ref()?.offset)).max();
            let stored = u64::try_from(stored.unwrap_or(0)).expect("an offset");
            add(Verb::Drop, None, Some(stored.saturating_sub(fate.between(0, 8))));
        }
        drawn
    }

    /// What may happen to a replica as it is now.
    fn harm(&self, name: &ReplicaName, fate: &mut Random) -> Option<Verb> {
        let rep = self.replicas.get(name)?;
        let pod = rep.pod.as_ref()?;
        let running = pod.process == Process::Running;
        Some(match fate.between(0, 13) {
            0..=4 if running || matches!(pod.process, Process::Starting { .. }) => Verb::Kill,
            5 | 6 if running && pod.frozen => Verb::Thaw,
            5 | 6 if running => Verb::Freeze,
            7 => Verb::Stop,
            8 => Verb::Delete,
            9 if running => Verb::Restart,
            10 => Verb::Evict,
            11 => match rep.disk.as_ref()?.hangs {
                Some(_) => Verb::Unhang,
                None => Verb::Hang,
            },
            12 if pod.lags.is_some() => Verb::CatchUp,
            12 if running => Verb::Lag,
            13 if running && pod.source.is_some() => Verb::Corrupt,
            _ => return None,
        })
    }

    fn befall(&mut self, misfortune: &Misfortune) {
        let Misfortune { verb, about, amount, .. } = misfortune;
        let amount = amount.unwrap_or(0);
        let replica = about.as_ref().map(ReplicaName::new);
        let node = about.as_ref().and_then(|about| self.nodes.iter().position(|node| node.name == *about));
        match verb {
            Verb::NodeDown => node.into_iter().for_each(|node| self.nodes[node].up = false),
            Verb::NodeUp => node.into_iter().for_each(|node| self.node_back(node)),
            Verb::Cut | Verb::Join => {
                node.into_iter().for_each(|node| self.nodes[node].cut = *verb == Verb::Cut);
            }
            Verb::Blackout => {
                let names: Vec<_> = self.replicas.keys().cloned().collect();
                names.iter().for_each(|name| self.end_pod(name));
            }
            Verb::OperatorDies if self.operator.is_some() => {
                self.counts.crashes += 1;
                self.operator = None;
                self.operator_back = self.now + amount;
            }
            Verb::OperatorSleeps => self.operator_sleeps(amount),
            Verb::Ask => {
                let name = format!("request-{}", self.now);
                self.requests.push(Request { name, kind: Kind::Switchover, target: replica, age: 0 });
            }
            Verb::Want => self.wanted = usize::try_from(amount).expect("small"),
            Verb::Drop => self.earliest = self.earliest.max(i64::try_from(amount).expect("an offset")),
            Verb::OperatorDies => {}
            Verb::Evict => replica.iter().for_each(|replica| self.end_pod(replica)),
            _ => replica.iter().for_each(|replica| self.befall_replica(replica, *verb)),
        }
    }

    fn befall_replica(&mut self, name: &ReplicaName, verb: Verb) {
        let now = self.now;
        let Some(rep) = self.replicas.get_mut(name) else { return };
        if verb == Verb::Delete {
            rep.pod = None;
            return;
        }
        let Some(pod) = &mut rep.pod else { return };
        let running = pod.process == Process::Running;
        match verb {
            Verb::Kill if running || matches!(pod.process, Process::Starting { .. }) => {
                pod.process = Process::Exited { at: now };
            }
            Verb::Freeze => pod.frozen = running,
            Verb::Thaw => pod.frozen = false,
            Verb::Stop => pod.terminating_at = Some(now),
            Verb::Hang => rep.disk.iter_mut().for_each(|disk| disk.hangs = Some(now)),
            Verb::Unhang => rep.disk.iter_mut().for_each(|disk| disk.hangs = None),
            Verb::Lag => pod.lags = Some(now),
            Verb::CatchUp => pod.lags = None,
            Verb::Corrupt => pod.broken = true,
            Verb::Restart if running => {
                // A reboot of the pod: the data stays, the manager forgets what only it knew.
                pod.process = Process::Starting { until: now + 1_500 };
                pod.read_only = true;
                pod.peers = None;
                pod.fenced = None;
                pod.known =
                    rep.disk.as_ref().and_then(|d| d.data.as_ref()?.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
            }
            _ => {}
        }
    }

    /// The operator is paused after it has decided; whoever begins in its place does not wait for it.
    fn operator_sleeps(&mut self, millis: Millis) {
        if self.asleep.is_some() {
            return;
        }
        let Some(mut operator) = self.operator.take() else { return };
        operator.listen(self);
        let (decision, snapshot) = operator.decide(self);
        self.counts.sleepers += 1;
        self.asleep = Some(Asleep { until: self.now + millis, operator, decision, snapshot });
        self.operator_back = self.now;
    }

    fn end_pod(&mut self, name: &ReplicaName) {
        let now = self.now;
        if let Some(pod) = self.replicas.get_mut(name).and_then(|rep| rep.pod.as_mut()) {
            pod.ended = true;
            pod.frozen = false;
            pod.process = Process::Exited { at: now };
            pod.probe = None;
        }
    }

    pub fn node_back(&mut self, at: usize) {
        if self.nodes[at].up {
            return;
        }
        self.nodes[at].up = true;
        let now = self.now;
        for rep in self.replicas.values_mut() {
            let Some(pod) = rep.pod.as_mut().filter(|pod| pod.node == at && !pod.ended) else { continue };
            pod.frozen = false;
            pod.read_only = true;
            pod.peers = None;
            pod.fenced = None;
            pod.probe = None;
            let data = rep.disk.as_ref().and_then(|disk| disk.data.as_ref());
            pod.known = data.and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
            let built = data.is_some();
            if let Process::Building { .. } = pod.process
                && let Some(disk) = &mut rep.disk
            {
                disk.unusable = true;
            }
            pod.process = if built { Process::Starting { until: now + 2_000 } } else { Process::None };
        }
    }

    pub fn heal(&mut self) {
        self.say(|| "no more faults".into());
        self.faults = false;
        // Somebody gave Kafka more room.
        self.earliest = 0;
        // One standby may lag for ever, as long as another does not.
        let mut may_lag = self.wanted > 2;
        for at in 0..self.nowhere() {
            self.nodes[at].cut = false;
            // One node may stay lost for ever, as long as there is room elsewhere and it does not hold the only copy.
            let elsewhere = self.replicas.values().any(|rep| {
                let disk = rep.disk.as_ref().filter(|disk| disk.data.is_some() && !disk.unusable);
                rep.condemned.is_none()
                    && disk.and_then(|disk| disk.node).is_some_and(|node| node != at && self.nodes[node].up)
            });
            if self.nowhere() <= self.wanted + 1 || !elsewhere || self.random.one_in(2) {
                self.node_back(at);
            }
        }
        for rep in self.replicas.values_mut() {
            if let Some(pod) = &mut rep.pod {
                pod.frozen = false;
                let lags = pod.lags.is_some() && may_lag && self.random.one_in(2);
                may_lag &= !lags;
                pod.lags = pod.lags.filter(|_| lags);
            }
        }
        // So may one volume hang for ever, as long as another copy is there.
        let hanging: Vec<_> = self.replicas.keys().filter(|name| self.hangs(name)).cloned().collect();
        for name in hanging {
            let another = self.replicas.iter().any(|(other, rep)| {
                let holds = rep.disk.as_ref().is_some_and(|disk| disk.data.is_some() && !disk.unusable);
                let up = rep.pod.as_ref().is_some_and(|pod| self.nodes[pod.node].up && pod.process == Process::Running);
                *other != name && rep.condemned.is_none() && holds && up && !self.hangs(other)
            });
            if !another || self.served.is_empty() || self.random.one_in(2) {
                let disk = self.replicas.get_mut(&name).and_then(|rep| rep.disk.as_mut());
                disk.expect("it hangs").hangs = None;
            }
        }
    }

    pub fn hangs(&self, name: &ReplicaName) -> bool {
        let disk = self.replicas.get(name).and_then(|rep| rep.disk.as_ref());
        disk.is_some_and(|disk| disk.hangs.is_some())
    }
}
