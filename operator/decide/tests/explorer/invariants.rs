//! What must hold at every moment, and what must hold in the end.

use std::collections::BTreeMap;

use understudy_wire::{Epoch, ReplicaName};

use super::cluster::Process;
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
        if self.try_commit(primary, None).is_err() {
            return Some(format!("{primary} does not commit"));
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
                pod.process == Process::Running && source == Some(primary) && !self.hangs(name)
            });
            if !follows {
                return Some(format!("{name} does not follow: {rep:?}"));
            }
        }
        None
    }
}
