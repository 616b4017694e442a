//! What must hold at every moment, and what must hold in the end.

use std::collections::BTreeMap;

use understudy_wire::{Epoch, ReplicaName};

use understudy_decide::failover::record::Phase;

use super::cluster::{Process, Rep};
use super::world::World;

impl World {
    /// What must hold at every moment.
    pub fn check(&self) -> Result<(), String> {
        let mut writable = BTreeMap::<Epoch, Vec<&ReplicaName>>::new();
        for (name, rep) in &self.replicas {
            let Some(pod) = rep.pod.as_ref().filter(|pod| pod.process == Process::Running && !pod.read_only) else {
                continue;
            };
            let row = rep.disk.as_ref().and_then(|disk| disk.data.as_ref()?.row.as_ref());
            if let Some((epoch, head)) = row
                && head == name
            {
                writable.entry(*epoch).or_default().push(name);
            }
            let _ = pod;
        }
        if let Some((epoch, names)) = writable.iter().find(|(_, names)| names.len() > 1) {
            return Err(format!("I2: {names:?} are writable under epoch {epoch}"));
        }
        let served = !self.served.is_empty();
        let copies =
            self.replicas.values().filter(|rep| rep.disk.as_ref().is_some_and(|d| d.data.is_some() && !d.unusable));
        if served && copies.count() == 0 {
            return Err("I6: no copy is left".into());
        }
        Ok(())
    }

    /// What is not yet as asked for.
    pub fn unwell(&self) -> Option<String> {
        if self.status.transition.is_some() {
            return Some(format!("{:?} is under way", self.status.transition));
        }
        let Some(primary) = &self.status.primary else { return Some("no primary".into()) };
        if let Err(why) = self.try_commit(primary, "somewhere") {
            return Some(format!("{primary} does not commit ({why:?}): {:?}", self.replicas.get(primary)));
        }
        let cast: Vec<_> = self.replicas.iter().filter(|(_, rep)| rep.condemned.is_none()).collect();
        let left_over = self.replicas.iter().filter(|(name, rep)| rep.condemned.is_some() && !self.stays(name)).count();
        if cast.len() != self.wanted || left_over > 0 {
            return Some(format!(
                "{} replicas, {} not condemned, {} asked for",
                self.replicas.len(),
                cast.len(),
                self.wanted
            ));
        }
        for (name, rep) in cast.iter().filter(|(name, _)| *name != primary) {
            let follows = rep.pod.as_ref().is_some_and(|pod| {
                let source = pod.source.as_ref().map(|(source, _)| source);
                pod.process == Process::Running && source == Some(primary) && !self.is_stuck(name) && !pod.broken
            });
            if !follows {
                return Some(format!("{name} does not follow: {rep:?}"));
            }
        }
        self.unrecorded()
    }

    /// What is condemned now must not be the last intact copy.
    pub fn last_copy(&self, condemned: &ReplicaName) -> Result<(), String> {
        let is_copy = |rep: &Rep| {
            rep.condemned.is_none() && rep.disk.as_ref().is_some_and(|disk| disk.data.is_some() && !disk.unusable)
        };
        let holds = self.replicas.get(condemned).is_some_and(is_copy);
        let others = self.replicas.iter().filter(|(name, rep)| *name != condemned && is_copy(rep));
        if holds && !self.served.is_empty() && others.count() == 0 {
            return Err(format!("I6: {condemned} is condemned and no other copy is there"));
        }
        Ok(())
    }

    /// The change of primary that has no complete record.
    fn unrecorded(&self) -> Option<String> {
        if let Some((name, record)) = self.records.iter().find(|(_, record)| record.phase != Phase::Closed) {
            return Some(format!("the record {name} is not closed: {record:?}"));
        }
        let (name, epoch) = self.changes.last()?;
        let Some(name) = name else { return Some(format!("the change to epoch {epoch} names no record")) };
        let Some(record) = self.records.get(name) else { return Some(format!("{name} is not there")) };
        // One that only confirms may have been closed before anybody told of its claim.
        let is_told = record.from == record.to || record.claimed.contains(epoch);
        let is_complete = record.result.is_some() && record.epoch == *epoch && record.steps.contains("Routed");
        (!is_complete || !is_told)
            .then(|| format!("I5: {name} is closed and says too little of epoch {epoch}: {record:?}"))
    }
}
