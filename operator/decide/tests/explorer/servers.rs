//! Servers: they start, are cloned, replicate, and take what the consumer writes.

use understudy_wire::evidence::*;
use understudy_wire::{GtidSet, ReplicaName};

use super::cluster::Process;
use super::world::World;

impl World {
    pub fn servers_move(&mut self) {
        let now = self.now;
        let seen = self.replicas.clone();
        let alive = |name: &ReplicaName| {
            let rep = seen.get(name)?;
            let pod = rep
                .pod
                .as_ref()
                .filter(|pod| self.nodes[pod.node].up && !pod.frozen && pod.process == Process::Running)?;
            Some((pod.clone(), rep.disk.as_ref()?.data.clone()?))
        };
        for (name, rep) in &mut self.replicas {
            let (Some(pod), Some(disk)) = (&mut rep.pod, &mut rep.disk) else { continue };
            if !self.nodes[pod.node].up {
                continue;
            }
            if pod.terminating_at.is_some_and(|at| now > at + 4_000) {
                rep.pod = None;
                continue;
            }
            if pod.terminating_at.is_some_and(|at| now > at + 2_000) && pod.process == Process::Running {
                pod.process = Process::Exited { at: now };
            }
            let hangs = disk.hangs.is_some();
            match pod.process.clone() {
                Process::Building { .. } | Process::Starting { .. } if hangs => {}
                Process::Building { until, donor } if now >= until => {
                    match alive(&donor) {
                        Some((_, data)) if !self.random.one_in(10) => {
                            disk.data = Some(data);
                            pod.process = Process::Starting { until: now + 700 };
                        }
                        _ => {
                            disk.unusable = self.random.one_in(3);
                            pod.process = Process::None;
                        }
                    };
                }
                Process::Starting { until } if now >= until => {
                    pod.process = Process::Running;
                    pod.read_only = true;
                    pod.source = None;
                    pod.received = GtidSet::new();
                }
                _ => {}
            }
            let Some(data) = disk.data.as_mut().filter(|_| pod.process == Process::Running && !pod.frozen) else {
                continue;
            };
            pod.last_read = now;
            if !hangs
                && let Some((source, address)) = &pod.source
                && let Some((head, theirs)) = alive(source)
                && format!("{}:3306", head.ip) == *address
            {
                pod.received = pod.received.union(&theirs.executed.subtract(&data.executed));
                if !self.random.one_in(3) && pod.lags.is_none() && !pod.broken {
                    data.executed = data.executed.union(&pod.received);
                    data.offset = data.offset.max(theirs.offset);
                    if let Some((epoch, head)) = &theirs.row
                        && data.row.as_ref().is_none_or(|(ours, _)| ours < epoch)
                    {
                        data.row = Some((*epoch, head.clone()));
                    }
                }
                let _ = name;
            }
        }
    }

    /// The consumer writes through the route in the status, guarded by the epoch in the database.
    pub fn consume(&mut self) -> Result<(), String> {
        self.written += 1;
        let Some(primary) = self.status.primary.clone() else { return Ok(()) };
        let epoch = self.status.epoch;
        let outcome = self.try_commit(&primary, None);
        let outcome = match outcome {
            Ok(()) => {
                let offset = self.written;
                let rep = self.replicas.get_mut(&primary).expect("it committed");
                let own = rep.source_id();
                let data = rep.disk.as_mut().and_then(|disk| disk.data.as_mut()).expect("it committed");
                if data.row.as_ref() == Some(&(epoch, primary.clone())) {
                    let next = data.executed.of(own).count() + 1;
                    data.executed.insert(own, next, next);
                    data.offset = offset;
                    let under = self.served.entry(epoch).or_default();
                    under.insert(primary.clone());
                    if under.len() > 1 {
                        return Err(format!("I2: {under:?} took writes under epoch {epoch}"));
                    }
                    Ok(())
                } else {
                    // Fenced: no commit, and nothing to accuse anybody of.
                    return Ok(());
                }
            }
            Err(failure) => Err(failure),
        };
        let now = self.now;
        self.consumer.retain(|name, _| *name == primary);
        self.consumer.entry(primary).or_default().saw(now, outcome);
        Ok(())
    }

    /// How a probe up to a commit ends; `from` is the operator's view when it may be cut off.
    pub fn try_commit(&self, subject: &ReplicaName, from: Option<&str>) -> Result<(), (Stage, ProbeError)> {
        let unreachable = Err((Stage::Tcp, ProbeError::Timeout));
        let Some(rep) = self.replicas.get(subject) else { return unreachable };
        let Some(pod) = &rep.pod else { return unreachable };
        let node = &self.nodes[pod.node];
        if pod.ended || !node.up || (from == Some("operator") && node.cut) {
            return unreachable;
        }
        if pod.frozen {
            return Err((Stage::Greeting, ProbeError::Timeout));
        }
        match pod.process {
            Process::Running if pod.read_only => Err((Stage::Commit, ProbeError::ReadOnly)),
            Process::Running if rep.disk.as_ref().is_some_and(|disk| disk.hangs.is_some()) => {
                Err((Stage::Commit, ProbeError::Timeout))
            }
            Process::Running => Ok(()),
            _ => Err((Stage::Tcp, ProbeError::Refused { message: "refused".into() })),
        }
    }
}
