//! Records of changes of primary, as they are written down: beside the loop, and sometimes not at all.

use std::collections::BTreeSet;

use understudy_decide::failover::record::{Milestone, Outcome, Phase, RecordUpdate};
use understudy_decide::failover::snapshot::{Kind, Record};
use understudy_wire::{Epoch, ReplicaName};

use super::world::World;

#[derive(Clone, Debug)]
pub struct RecordW {
    pub kind: Kind,
    pub epoch: Epoch,
    pub from: Option<ReplicaName>,
    pub to: Option<ReplicaName>,
    pub phase: Phase,
    pub result: Option<Outcome>,
    pub steps: BTreeSet<String>,
    /// The epochs of which it tells that they were claimed.
    pub claimed: BTreeSet<Epoch>,
}

impl World {
    /// Adds what is missing, as the shell does.
    pub fn record(&mut self, update: &RecordUpdate) {
        if self.faults && self.random.one_in(15) {
            return;
        }
        let record = self.records.entry(update.name.clone()).or_insert_with(|| RecordW {
            kind: update.kind,
            epoch: update.epoch,
            from: update.from.clone(),
            to: update.to.clone(),
            phase: update.phase,
            result: None,
            steps: BTreeSet::new(),
            claimed: BTreeSet::new(),
        });
        if record.phase == Phase::Closed && record.result.is_some() {
            return;
        }
        record.phase = record.phase.max(update.phase);
        if record.epoch <= update.epoch {
            record.epoch = update.epoch;
            record.from = record.from.take().or_else(|| update.from.clone());
            record.to = update.to.clone().or_else(|| record.to.take());
        }
        record.steps.extend(update.entries.iter().map(|entry| entry.step.to_string()));
        let claims = update.entries.iter().filter(|entry| entry.step == Milestone::Claimed);
        record.claimed.extend(claims.map(|entry| entry.epoch));
        if update.phase == Phase::Closed {
            record.result = record.result.or(update.result);
        }
    }

    /// Those that are not closed, and that of the last change if it is still to be made.
    pub fn open_records(&self) -> Vec<Record> {
        let open = self.records.iter().filter(|(_, record)| record.phase != Phase::Closed);
        let mut open: Vec<_> = open
            .map(|(name, record)| Record {
                name: name.clone(),
                kind: if record.from.is_some() && record.from == record.to { Kind::Confirm } else { record.kind },
                epoch: record.epoch,
                from: record.from.clone(),
                to: record.to.clone(),
                steps: record.steps.iter().cloned().collect(),
                claimed: record.claimed.iter().copied().collect(),
            })
            .collect();
        if let Some(last) = &self.status.last_change
            && let Some(name) = last.record.clone().filter(|name| !self.records.contains_key(name))
        {
            let (kind, epoch, from) = (last.kind, last.epoch, last.from.clone());
            open.push(Record {
                name,
                kind,
                epoch,
                from,
                to: self.status.primary.clone(),
                steps: Vec::new(),
                claimed: Vec::new(),
            });
        }
        open
    }
}
