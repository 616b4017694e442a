//! How the world becomes well again.

use understudy_decide::failover::snapshot::{Fleet, Mode};
use understudy_wire::ReplicaName;

use super::cluster::{Process, ROOMY};
use super::world::World;

impl World {
    pub fn heal(&mut self) {
        self.say(|| "no more faults".into());
        self.faults = false;
        (self.severed, self.liar, self.mode, self.others) = (Vec::new(), None, Mode::Automatic, Fleet::default());
        (self.slow, self.load) = (0, 0);
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
                (pod.frozen, pod.frozen_until, pod.locked_until) = (false, None, None);
                let lags = pod.lags.is_some() && may_lag && self.random.one_in(2);
                may_lag &= !lags;
                pod.lags = pod.lags.filter(|_| lags);
            }
            let runs = rep.pod.as_ref().is_some_and(|pod| pod.process == Process::Running);
            if let Some(disk) = &mut rep.disk {
                (disk.slow, disk.free) = (0, ROOMY);
                // Without a server nobody finds out.
                disk.fails &= runs;
            }
        }
        // So may one volume or one server hang for ever, as long as another copy is there.
        let stuck: Vec<_> = self.replicas.keys().filter(|name| self.is_stuck(name)).cloned().collect();
        for name in stuck {
            let another = self.replicas.iter().any(|(other, rep)| {
                let holds = rep.disk.as_ref().is_some_and(|disk| disk.data.is_some() && !disk.unusable);
                let up = rep.pod.as_ref().is_some_and(|pod| self.nodes[pod.node].up && pod.process == Process::Running);
                *other != name && rep.condemned.is_none() && holds && up && !self.is_stuck(other)
            });
            if !another || self.served.is_empty() || self.random.one_in(2) {
                let rep = self.replicas.get_mut(&name).expect("it is stuck");
                rep.disk.iter_mut().for_each(|disk| (disk.hangs, disk.fails) = (None, false));
                rep.pod.iter_mut().for_each(|pod| pod.deadlocked = false);
            }
        }
    }

    /// Whether it does nothing that it is asked for, for as long as nobody comes.
    pub fn is_stuck(&self, name: &ReplicaName) -> bool {
        let Some(rep) = self.replicas.get(name) else { return false };
        let runs = rep.pod.as_ref().is_some_and(|pod| pod.process == Process::Running && !pod.ended);
        let disk = rep.disk.as_ref().is_some_and(|disk| disk.hangs.is_some() || disk.fails);
        disk || (runs && rep.pod.as_ref().is_some_and(|pod| pod.deadlocked))
    }
}
