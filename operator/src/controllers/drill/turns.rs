//! Whose turn it is among the Drills of a namespace. Pure, but for the lock.
//!
//! Runs of one Datastore exclude each other, and a Datastore has one namespace: what is slow in one namespace keeps no Drill of another.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The namespaces in which a Drill begins a run, strikes or ends one right now.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeSet<String>>);

/// Lasts until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    namespace: String,
}

impl Turns {
    /// Nobody's turn anywhere.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    /// The turn of a namespace; None while it is another's. Nobody waits for it here: who waits would hold a place among the few passes
    /// that are made at once over all namespaces.
    pub fn take(&self, namespace: &str) -> Option<Turn<'_>> {
        let is_free = self.taken().insert(namespace.to_owned());
        is_free.then(|| Turn { turns: self, namespace: namespace.to_owned() })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken().remove(&self.namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_turn_at_a_time_and_those_of_others_are_free_meanwhile() {
        let turns = Turns::new();
        let first = turns.take("prod");
        assert!(first.is_some());
        assert!(turns.take("prod").is_none(), "it is another's");
        assert!(turns.take("dev").is_some());
        drop(first);
        assert!(turns.take("prod").is_some(), "it is free again");
    }
}
