//! What was applied last, so that nothing is sent twice. Pure but for a lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;

const REMEMBERED: Duration = Duration::from_secs(600);

/// What is known of the live object that is about to be applied.
#[derive(Clone, Debug)]
pub enum Live {
    /// Its kind is not watched.
    Unwatched,
    /// It is not there, as far as its watch knows.
    Absent,
    /// It is there.
    Present {
        /// `metadata.generation`, of kinds that have one.
        generation: Option<i64>,
        /// `metadata.resourceVersion`.
        version: Option<String>,
    },
}

impl Live {
    /// From a cache.
    pub fn of(meta: Option<&ObjectMeta>) -> Self {
        match meta {
            None => Self::Absent,
            Some(meta) => Self::Present { generation: meta.generation, version: meta.resource_version.clone() },
        }
    }
}

/// Who applied which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub manager: &'static str,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug)]
struct Memory {
    hash: u64,
    at: Instant,
    generation: Option<i64>,
    version: Option<String>,
}

impl Memory {
    fn still_holds(&self, hash: u64, live: &Live, now: Instant) -> bool {
        let unchanged = match live {
            Live::Unwatched => true,
            Live::Absent => false,
            Live::Present { generation: Some(generation), .. } => self.generation == Some(*generation),
            Live::Present { generation: None, version } => self.version == *version,
        };
        self.hash == hash && unchanged && now.duration_since(self.at) < REMEMBERED
    }
}

/// What was applied last of each object.
#[derive(Debug, Default)]
pub(super) struct Applied {
    memory: Mutex<HashMap<Key, Memory>>,
}

impl Applied {
    /// Whether an object of this hash was applied last, and the live one is as it was left.
    pub fn still_holds(&self, key: &Key, hash: u64, live: &Live, now: Instant) -> bool {
        self.lock().get(key).is_some_and(|memory| memory.still_holds(hash, live, now))
    }

    /// An object was applied and is this now.
    pub fn keep(&self, key: Key, hash: u64, written: &ObjectMeta, now: Instant) {
        let (generation, version) = (written.generation, written.resource_version.clone());
        self.lock().insert(key, Memory { hash, at: now, generation, version });
    }

    /// An object is deleted: the next one of this name is not there already, whoever applies it.
    pub fn forget(&self, kind: &str, namespace: &str, name: &str) {
        self.lock().retain(|key, _| key.kind != kind || key.namespace != namespace || key.name != name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(generation: Option<i64>, version: &str, at: Instant) -> Memory {
        Memory { hash: 1, at, generation, version: Some(version.to_owned()) }
    }

    fn present(generation: Option<i64>, version: &str) -> Live {
        Live::Present { generation, version: Some(version.to_owned()) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_sent_again_only_when_something_changed() {
        let now = Instant::now();
        let later = now + REMEMBERED;
        for (case, memory, hash, live, at, holds) in [
            ("nothing changed", memory(Some(3), "9", now), 1, present(Some(3), "12"), now, true),
            ("we want something else", memory(Some(3), "9", now), 2, present(Some(3), "9"), now, false),
            ("somebody changed it", memory(Some(3), "9", now), 1, present(Some(4), "12"), now, false),
            ("somebody deleted it", memory(Some(3), "9", now), 1, Live::Absent, now, false),
            ("a kind without generations", memory(None, "9", now), 1, present(None, "9"), now, true),
            ("changed, without generations", memory(None, "9", now), 1, present(None, "10"), now, false),
            ("not watched", memory(None, "9", now), 1, Live::Unwatched, now, true),
            ("long ago", memory(None, "9", now), 1, Live::Unwatched, later, false),
        ] {
            assert_eq!(memory.still_holds(hash, &live, at), holds, "{case}");
        }
    }
}
