//! Servers: they start, are cloned and replicate.

use std::collections::BTreeMap;

use understudy_wire::{GtidSet, ReplicaName};

use super::cluster::{Process, Rep};
use super::world::World;

impl World {
    pub fn servers_move(&mut self) {
        let now = self.now;
        // What others may read from, as it was at the beginning of the turn.
        let read = |(name, rep): (&ReplicaName, &Rep)| {
            let pod = rep.pod.as_ref().filter(|pod| self.nodes[pod.node].runs() && pod.answers())?;
            Some((name.clone(), (pod.ip.clone(), pod.node, rep.disk.as_ref()?.data.clone()?)))
        };
        let alive: BTreeMap<_, _> = self.replicas.iter().filter_map(read).collect();
        let apart = |one: usize, other: usize| self.is_severed(&self.nodes[one].name, other);
        let apart: Vec<(usize, usize)> = if self.severed.is_empty() {
            Vec::new()
        } else {
            let nodes = 0..self.nodes.len();
            nodes
                .clone()
                .flat_map(|one| nodes.clone().map(move |other| (one, other)))
                .filter(|(a, b)| apart(*a, *b))
                .collect()
        };
        for rep in self.replicas.values_mut() {
            let (Some(pod), Some(disk)) = (&mut rep.pod, &mut rep.disk) else { continue };
            if !self.nodes[pod.node].runs() {
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
                    match alive.get(&donor) {
                        Some((_, _, data)) if !self.random.one_in(10) => {
                            disk.data = Some(data.clone());
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
                    (pod.deadlocked, pod.locked_until) = (false, None);
                }
                _ => {}
            }
            let works = disk.takes_writes();
            let Some(data) = disk.data.as_mut().filter(|_| pod.answers()) else { continue };
            if pod.rhythm.turns() {
                pod.last_read = now;
            }
            if works && !pod.broken && pod.locked_until.is_none() {
                pod.moved = now;
            }
            if works
                && let Some((source, address)) = &pod.source
                && let Some((ip, at, theirs)) = alive.get(source)
                && !apart.contains(&(pod.node, *at))
                && format!("{ip}:3306") == *address
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
            }
        }
    }
}
