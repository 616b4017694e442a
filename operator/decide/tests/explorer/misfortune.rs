//! What befalls the world, and how it becomes well again.

use understudy_decide::failover::snapshot::{Kind, Request};
use understudy_wire::{Epoch, ReplicaName};

use super::cluster::Process;
use super::world::World;

impl World {
    pub fn misfortune(&mut self) {
        let names: Vec<_> = self.replicas.keys().cloned().collect();
        if self.random.one_in(25)
            && let Some(name) = self.random.pick(&names).cloned()
        {
            // The primary is the most interesting victim.
            let name = if self.random.one_in(2) { self.status.primary.clone().unwrap_or(name) } else { name };
            self.harm(&name);
        }
        if self.random.one_in(120) {
            let at = usize::try_from(self.random.next() % self.nowhere() as u64).expect("small");
            let kind = self.random.between(0, 2);
            match kind {
                0 if self.nodes.iter().filter(|node| !node.up).count() == 1 => self.node_down(at),
                1 => self.nodes[at].cut = !self.nodes[at].cut,
                _ => self.node_back(at),
            }
            let node = self.nodes[at].clone();
            self.say(|| format!("{node:?}"));
        }
        if self.random.one_in(150) && self.operator.is_some() {
            self.say(|| "operator dies".into());
            self.counts.crashes += 1;
            self.operator = None;
            self.operator_back = self.now + self.random.between(0, 5_000);
        }
        if self.random.one_in(400) {
            self.say(|| "every node is shut down and comes back".into());
            names.iter().for_each(|name| self.end_pod(name));
        }
        if self.random.one_in(100) {
            let target = if self.random.one_in(2) { self.random.pick(&names).cloned() } else { None };
            let name = format!("request-{}", self.now);
            self.say(|| format!("a person asks for a switchover to {target:?}"));
            self.requests.push(Request { name, kind: Kind::Switchover, target, age: 0 });
        }
        if self.random.one_in(200) && self.wanted > 1 {
            self.wanted = usize::try_from(self.random.between(2, 3)).expect("small");
            let wanted = self.wanted;
            self.say(|| format!("{wanted} replicas are asked for"));
        }
    }

    pub fn harm(&mut self, name: &ReplicaName) {
        let kind = self.random.between(0, 11);
        let now = self.now;
        if kind == 10 {
            self.say(|| format!("{name}: its pod is evicted"));
            return self.end_pod(name);
        }
        let Some(rep) = self.replicas.get_mut(name) else { return };
        let Some(pod) = &mut rep.pod else { return };
        let what = match kind {
            0..=4 if matches!(pod.process, Process::Running | Process::Starting { .. }) => {
                pod.process = Process::Exited { at: now };
                "its process is killed"
            }
            5 | 6 if pod.process == Process::Running => {
                pod.frozen = !pod.frozen;
                if pod.frozen { "its process is frozen" } else { "its process thaws" }
            }
            7 => {
                pod.terminating_at = Some(now);
                "its pod is asked to stop"
            }
            11 => {
                let Some(disk) = &mut rep.disk else { return };
                disk.hangs = if disk.hangs.is_some() { None } else { Some(now) };
                if disk.hangs.is_some() { "its volume hangs" } else { "its volume thaws" }
            }
            8 => {
                rep.pod = None;
                "its pod is deleted by force"
            }
            9 if pod.process == Process::Running => {
                // A reboot of the pod: the data stays, the manager forgets what only it knew.
                pod.process = Process::Starting { until: now + 1_500 };
                pod.read_only = true;
                pod.peers = None;
                pod.fenced = None;
                pod.known =
                    rep.disk.as_ref().and_then(|d| d.data.as_ref()?.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
                "its pod is restarted"
            }
            _ => return,
        };
        self.say(|| format!("{name}: {what}"));
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

    pub fn node_down(&mut self, at: usize) {
        self.nodes[at].up = false;
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
