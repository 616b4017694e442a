//! `status`: the store as one screen. Pure.

mod rows;
mod tables;

use jiff::Timestamp;
use serde::Serialize;

use self::rows::{ConsumerRow, DatastoreRow, DrillRow, FailoverRow, ReplicaRow, ShardRow};
use super::text::{Extent, Piece, Text, Tone};
use super::time::{measured, point};
use super::{Screen, counted};
use crate::leader::Leader;
use crate::objects::{Availability, Consumer, Datastore, Drill, Failover, Replica, Shard};

/// Everything that was read of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// The namespace.
    pub namespace: String,
    /// Which operator acts on it.
    pub operator: Leader,
    /// Its Datastores.
    pub datastores: Vec<Datastore>,
    /// Its Shards, those made by hand too.
    pub shards: Vec<Shard>,
    /// Its Replicas.
    pub replicas: Vec<Replica>,
    /// Its Consumers.
    pub consumers: Vec<Consumer>,
    /// Its Failovers, closed ones too.
    pub failovers: Vec<Failover>,
    /// Its Drills.
    pub drills: Vec<Drill>,
    /// Kinds of which there are more than were read.
    pub cut_off: Vec<&'static str>,
}

impl Store {
    /// What belongs to one Datastore. `false` when there is no such.
    pub fn keep(&mut self, datastore: &str) -> bool {
        let of = |named: &Option<String>| named.as_deref() == Some(datastore);
        self.datastores.retain(|found| found.name == datastore);
        self.shards.retain(|shard| of(&shard.datastore));
        let mut names: Vec<_> = self.shards.iter().map(|shard| shard.name.clone()).collect();
        names.sort();
        let has = |shard: &Option<String>| shard.as_ref().is_some_and(|shard| names.binary_search(shard).is_ok());
        self.replicas.retain(|replica| has(&replica.shard));
        self.failovers.retain(|failover| has(&failover.shard));
        let reads = |consumer: &Consumer| {
            of(&consumer.datastore) || consumer.shards.iter().any(|shard| names.binary_search(shard).is_ok())
        };
        self.consumers.retain(reads);
        // A drill that names no Datastore may be of this one.
        self.drills.retain(|drill| drill.datastore.is_none() || of(&drill.datastore));
        !self.datastores.is_empty()
    }
}

/// The store as one screen. Of each kind, what is not well comes first.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusScreen {
    namespace: String,
    at: Timestamp,
    operator: Leader,
    /// What is not well, in words; empty when everything is.
    unwell: Vec<String>,
    datastores: Vec<DatastoreRow>,
    shards: Vec<ShardRow>,
    replicas_not_ready: Vec<ReplicaRow>,
    consumers: Vec<ConsumerRow>,
    open_failovers: Vec<FailoverRow>,
    drills: Vec<DrillRow>,
    cut_off: Vec<&'static str>,
}

/// Puts the screen together.
pub fn screen(store: &Store, now: Timestamp) -> StatusScreen {
    let mut shards: Vec<_> = store.shards.iter().map(|shard| rows::shard_row(shard, now)).collect();
    shards.sort_by(|one, other| (one.is_well, &one.name).cmp(&(other.is_well, &other.name)));
    let mut consumers: Vec<_> = store.consumers.iter().map(rows::consumer_row).collect();
    consumers.sort_by(|one, other| (one.is_well, &one.name).cmp(&(other.is_well, &other.name)));
    let mut datastores: Vec<_> = store.datastores.iter().map(rows::datastore_row).collect();
    datastores
        .sort_by(|one, other| (one.ready == Some(true), &one.name).cmp(&(other.ready == Some(true), &other.name)));
    let open = store.failovers.iter().filter(|failover| !failover.is_closed());
    let mut open_failovers: Vec<_> = open.map(|failover| rows::failover_row(failover, now)).collect();
    open_failovers.sort_by(|one, other| (one.since, &one.name).cmp(&(other.since, &other.name)));
    let mut drills: Vec<_> = store.drills.iter().map(|drill| rows::drill_row(drill, now)).collect();
    drills.sort_by(|one, other| {
        (one.next_run.is_none(), one.next_run, &one.name).cmp(&(other.next_run.is_none(), other.next_run, &other.name))
    });
    let mut unwell = rows::unwell(&datastores, &shards, &consumers);
    // First, because everything else may be otherwise by now.
    if let Some(absence) = store.operator.absence() {
        unwell.insert(0, absence);
    }
    StatusScreen {
        namespace: store.namespace.clone(),
        at: now,
        operator: store.operator.clone(),
        unwell,
        datastores,
        replicas_not_ready: store
            .replicas
            .iter()
            .filter_map(|replica| rows::replica_row(replica, store, now))
            .collect(),
        shards,
        consumers,
        open_failovers,
        drills,
        cut_off: store.cut_off.clone(),
    }
}

impl StatusScreen {
    /// Whether there is something, an operator acts on it as far as is known, every shard is Healthy and ready, and every Datastore and Consumer
    /// is ready.
    pub fn is_well(&self) -> bool {
        self.unwell.is_empty()
    }

    fn summary(&self, text: &mut Text, extent: Extent) {
        let what =
            format!("{} in namespace {}, {}", counted(self.shards.len(), "shard"), self.namespace, point(self.at));
        let state = match self.unwell.len() {
            _ if self.shards.is_empty() && self.datastores.is_empty() => Piece::new("nothing is there", Tone::Busy),
            0 => Piece::new("everything is well", Tone::Good),
            1 => Piece::new("1 thing is not well", Tone::Bad),
            count => Piece::new(format!("{count} things are not well"), Tone::Bad),
        };
        text.line([Piece::new(what, Tone::Head), ": ".into(), state]);
        let shown = if extent == Extent::All { usize::MAX } else { 5 };
        for what in self.unwell.iter().take(shown) {
            text.line(["  ".into(), Piece::from(what.as_str())]);
        }
        if let Some(more) = self.unwell.len().checked_sub(shown).filter(|more| *more > 0) {
            text.say(Piece::new(format!("  … and {more} more; --all shows them"), Tone::Faint));
        }
    }
}

impl Screen for StatusScreen {
    fn text(&self, extent: Extent) -> Text {
        let mut text = Text::default();
        self.summary(&mut text, extent);
        self.datastores(&mut text, extent);
        self.shards(&mut text, extent);
        self.replicas(&mut text, extent);
        self.consumers(&mut text, extent);
        self.failovers(&mut text, extent);
        self.drills(&mut text, extent);
        for kind in &self.cut_off {
            let words = format!("There are more {kind} in this namespace than were read: rows may be missing.");
            text.say(Piece::new(words, Tone::Busy));
        }
        if let Some(doubt) = self.operator.doubt() {
            text.line([]);
            text.say(Piece::new(doubt, Tone::Busy));
        }
        text
    }
}

/// `12.4 s in 30d`.
pub fn unavailable(availability: Option<&Availability>) -> Option<String> {
    let availability = availability?;
    let time = measured(availability.unavailable_seconds?);
    Some(match availability.window_days {
        Some(days) => format!("{time} in {days}d"),
        None => time,
    })
}

#[cfg(test)]
mod tests;
