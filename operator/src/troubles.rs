//! What stands in the way of a Shard, left by the one that ran into it for the one that writes the status. Pure, but for the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::apply::ApplyError;
use crate::events::Reason;

/// Something that only somebody outside can put right, in the words of the API server or the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The event that says the same.
    pub reason: Reason,
    /// For a person: which object, what is wrong, what to do.
    pub message: String,
}

impl Trouble {
    /// What stopped a write, if trying again will not help.
    pub fn of(error: &ApplyError) -> Option<Self> {
        let reason = match error {
            ApplyError::NotOurs { .. } => Reason::NameTaken,
            error if error.is_refusal() => Reason::Refused,
            _ => return None,
        };
        Some(Self { reason, message: error.to_string() })
    }
}

/// The trouble of each Shard with what stands around its replicas, by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<HashMap<(String, String), Trouble>>>);

impl Troubles {
    /// What the last pass ran into; nothing, when it went through.
    pub fn set(&self, namespace: &str, name: &str, trouble: Option<Trouble>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        match trouble {
            Some(trouble) => drop(all.insert(key, trouble)),
            None => drop(all.remove(&key)),
        }
    }

    /// What the last pass ran into.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Trouble> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}
