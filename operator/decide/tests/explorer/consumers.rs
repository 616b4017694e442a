//! Consumers: one stores what was written, others store as well or wait for a partition. They are observers, too.

use std::collections::BTreeMap;

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, ProbeError};

use super::network::{Attempt, locked};
use super::pauses::Rhythm;
use super::watch::Watch;
use super::world::World;

/// How long a consumer waits for anything.
const PATIENCE: Millis = 2_000;
/// The one that stores what was written, which runs on no node that can be lost.
const FIRST: usize = 0;
/// The one that has no partition.
const IDLE: usize = 1;

#[derive(Clone, Debug)]
pub struct ConsumerW {
    pub pod: String,
    /// None: outside.
    pub node: Option<usize>,
    pub rhythm: Rhythm,
    /// It ended, and its next pod is there then.
    pub away_until: Option<Millis>,
    pub watch: BTreeMap<ReplicaName, Watch>,
    is_idle: bool,
}

impl ConsumerW {
    /// The consumers of a world with so many nodes.
    pub fn all(consumers: usize, nodes: usize) -> Vec<Self> {
        let one = |number| Self {
            pod: format!("store-{number}"),
            node: (number != FIRST).then_some(number % nodes),
            rhythm: Rhythm::default(),
            away_until: None,
            watch: BTreeMap::new(),
            is_idle: number == IDLE,
        };
        (0..consumers).map(one).collect()
    }

    /// Another pod of that name begins in its place, and knows nothing.
    pub fn roll(&mut self, back_at: Millis) {
        self.away_until = Some(back_at);
        self.watch.clear();
        self.rhythm = Rhythm::default();
    }

    fn saw(&mut self, now: Millis, primary: &ReplicaName, outcome: Attempt) {
        // It gives up before the server tells it of a lock.
        let outcome = outcome.map_err(|(stage, error)| {
            let error = if error == locked() { ProbeError::Timeout } else { error };
            (stage, error)
        });
        let is_idle = self.is_idle;
        self.watch.retain(|name, _| name == primary);
        let watch = self.watch.entry(primary.clone()).or_insert_with(|| Watch::of_consumer(PATIENCE, is_idle));
        watch.saw(now, outcome);
    }
}

impl World {
    /// Whether a consumer is there and its loop turns.
    pub fn is_heard(&self, consumer: &ConsumerW) -> bool {
        let is_up = consumer.node.is_none_or(|node| self.nodes[node].runs());
        is_up && consumer.rhythm.turns() && consumer.away_until.is_none()
    }

    /// Consumers write through the route in the status, guarded by the epoch in the database.
    pub fn consume(&mut self) -> Result<(), String> {
        self.written += 1;
        let Some(primary) = self.status.primary.clone() else { return Ok(()) };
        let (now, epoch) = (self.now, self.status.epoch);
        let held = (epoch, primary.clone());
        for number in 0..self.consumers.len() {
            let consumer = &self.consumers[number];
            if !self.is_heard(consumer) {
                continue;
            }
            let outcome = self.try_commit(&primary, &consumer.pod);
            let rep = self.replicas.get(&primary);
            let row = rep.and_then(|rep| rep.disk.as_ref()?.data.as_ref()?.row.as_ref());
            // Fenced: no commit, and nothing to accuse anybody of.
            if outcome.is_ok() && row != Some(&held) {
                continue;
            }
            if outcome.is_ok() && number == FIRST {
                self.store(&primary)?;
            }
            self.consumers[number].saw(now, &primary, outcome);
        }
        Ok(())
    }

    /// What was written until now is stored on a primary that serves under the present epoch.
    fn store(&mut self, primary: &ReplicaName) -> Result<(), String> {
        let (epoch, offset) = (self.status.epoch, self.written);
        let rep = self.replicas.get_mut(primary).expect("it committed");
        let own = rep.source_id();
        let data = rep.disk.as_mut().and_then(|disk| disk.data.as_mut()).expect("it committed");
        let next = data.executed.of(own).count() + 1;
        data.executed.insert(own, next, next);
        data.offset = offset;
        let under = self.served.entry(epoch).or_default();
        under.insert(primary.clone());
        if under.len() > 1 {
            return Err(format!("I2: {under:?} took writes under epoch {epoch}"));
        }
        Ok(())
    }
}
