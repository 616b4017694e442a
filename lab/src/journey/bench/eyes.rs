//! The Shards of a Datastore, watched through whatever happens to the API server. Runs kubectl.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::store::Store;
use super::super::watch::Watches;
use super::seen::Seen;

/// How often the caller is asked whether it has seen enough.
const TICK: Duration = Duration::from_millis(100);
/// Before a watch that ended is begun again.
const AGAIN: Duration = Duration::from_secs(1);
/// Until the first look at every shard.
const FIRST: Duration = Duration::from_secs(30);

/// A watch that begins again when it ends, and what it has shown.
#[derive(Debug)]
pub struct Eyes<'a> {
    store: &'a Store<'a>,
    watches: Option<Watches>,
    /// What was seen.
    pub seen: Seen,
}

impl<'a> Eyes<'a> {
    /// Watches these shards, and has seen each of them.
    pub fn open(store: &'a Store<'a>, shards: Vec<String>) -> Result<Self> {
        let mut eyes = Self { store, watches: None, seen: Seen::of(shards) };
        let is_complete = eyes.watch(Instant::now() + FIRST, |seen| Ok(seen.is_complete()))?;
        ensure!(is_complete, "not all shards were seen within {} s", FIRST.as_secs());
        Ok(eyes)
    }

    /// Takes in what comes until `end`, or until it is enough; whether it was.
    pub fn watch(&mut self, end: Instant, mut enough: impl FnMut(&Seen) -> Result<bool>) -> Result<bool> {
        loop {
            if enough(&self.seen)? {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.look(left.min(TICK));
        }
    }

    /// Takes in what comes for so long.
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        self.watch(Instant::now() + time, |_| Ok(false)).map(drop)
    }

    /// One event at most. Without an API server there is none, and kubectl ends: it is asked again, and tells everything anew.
    fn look(&mut self, limit: Duration) {
        let watches = match self.watches.take() {
            Some(watches) => Ok(watches),
            None => Watches::start(self.store.access, &self.store.namespace, &["shards"]),
        };
        match watches.and_then(|watches| watches.next(limit).map(|event| (watches, event))) {
            Ok((watches, event)) => {
                self.watches = Some(watches);
                if let Some(event) = event.filter(|event| !event.deleted) {
                    self.seen.take(&event.object, event.at);
                }
            }
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}
