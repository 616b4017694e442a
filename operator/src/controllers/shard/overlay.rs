//! What this process wrote itself and the caches may not show yet. Pure.
//!
//! A watch is always a little behind. Without this, a replica that was made a moment ago would be made again, and one that
//! was condemned would be a candidate. Versions are compared as numbers, as the API server gives them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use understudy_api::{Replica, Shard};

use crate::cache::Held;

/// An object that its watch has not shown for this long is not waited for: it was deleted since.
const NEVER_SEEN: Duration = Duration::from_secs(30);
/// A step that was taken is not taken again within this time while the caches catch up.
pub const SETTLES: Duration = Duration::from_secs(1);

/// Whether `known` is a later version of the object that `other` is: answers need not come in the order of what they tell.
pub fn is_newer<K: ResourceExt>(known: &K, other: &K) -> bool {
    known.uid() == other.uid() && version(known) > version(other)
}

/// The latest of an object that was read from a cache and one that was written here.
#[derive(Default)]
pub struct Overlay {
    shard: Option<Shard>,
    replicas: HashMap<String, (Replica, Instant)>,
    gone: HashMap<String, Instant>,
    taken: HashMap<String, Instant>,
}

fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Overlay {
    /// The Shard as far as anybody here knows.
    pub fn shard(&mut self, cached: Option<Held<Shard>>) -> Option<Shard> {
        let cached = cached.map(|shard| (*shard).clone());
        match (cached, &self.shard) {
            (Some(cached), Some(written)) if cached.uid() == written.uid() && version(&cached) < version(written) => {
                Some(written.clone())
            }
            (Some(cached), _) => {
                self.shard = None;
                Some(cached)
            }
            (None, _) => None,
        }
    }

    /// A Shard that was written, or read past the cache.
    pub fn wrote_shard(&mut self, shard: Shard) {
        if !self.shard.as_ref().is_some_and(|known| is_newer(known, &shard)) {
            self.shard = Some(shard);
        }
    }

    /// The shard's replicas as far as anybody here knows.
    pub fn replicas(&mut self, cached: Vec<Held<Replica>>, now: Instant) -> Vec<Replica> {
        let mut all: HashMap<String, Replica> =
            cached.into_iter().map(|replica| (replica.name_any(), (*replica).clone())).collect();
        self.replicas.retain(|name, (written, at)| match all.get(name) {
            Some(cached) if version(cached) >= version(written) => false,
            Some(_) => true,
            None => now.duration_since(*at) < NEVER_SEEN,
        });
        for (name, (written, _)) in &self.replicas {
            all.insert(name.clone(), written.clone());
        }
        let mut all: Vec<_> = all.into_values().filter(|replica| !self.is_gone(replica.uid().as_deref())).collect();
        all.sort_by_key(ResourceExt::name_any);
        all
    }

    /// A Replica that was written.
    pub fn wrote_replica(&mut self, replica: Replica, now: Instant) {
        let name = replica.name_any();
        if !self.replicas.get(&name).is_some_and(|(known, _)| is_newer(known, &replica)) {
            self.replicas.insert(name, (replica, now));
        }
    }

    /// An object that was deleted.
    pub fn deleted(&mut self, uid: &str, now: Instant) {
        self.gone.retain(|_, at| now.duration_since(*at) < NEVER_SEEN);
        self.gone.insert(uid.to_owned(), now);
    }

    /// Whether an object with this UID was deleted here.
    pub fn is_gone(&self, uid: Option<&str>) -> bool {
        uid.is_some_and(|uid| self.gone.contains_key(uid))
    }

    /// Whether a step that names itself so was taken a moment ago; if not, it is now.
    pub fn take(&mut self, step: &str, now: Instant) -> bool {
        self.taken.retain(|_, at| now.duration_since(*at) < SETTLES);
        if self.taken.contains_key(step) {
            return false;
        }
        self.taken.insert(step.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use kube::core::DeserializeGuard;
    use serde_json::json;

    fn replica(version: &str, condemned: bool) -> Replica {
        let mut object = json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Replica",
            "metadata": { "name": "m-a", "uid": "u1", "resourceVersion": version },
            "spec": { "shard": "m", "serverId": 1 },
        });
        if condemned {
            object["spec"]["condemned"] = json!({ "reason": "Lost" });
        }
        serde_json::from_value(object).expect("a replica")
    }

    fn held(replica: Replica) -> Vec<Held<Replica>> {
        Held::new(Arc::new(DeserializeGuard(Ok(replica)))).into_iter().collect()
    }

    #[test]
    fn what_was_written_counts_until_the_cache_has_it() {
        let now = Instant::now();
        let mut overlay = Overlay::default();
        overlay.wrote_replica(replica("12", true), now);
        let seen = |overlay: &mut Overlay, cached| {
            let all = overlay.replicas(cached, now);
            all.iter()
                .map(|r| (r.resource_version().unwrap_or_default(), r.spec.condemned.is_some()))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(&mut overlay, vec![]), [("12".to_owned(), true)], "made, and not in the cache yet");
        assert_eq!(seen(&mut overlay, held(replica("9", false))), [("12".to_owned(), true)], "the cache is behind");
        assert_eq!(
            seen(&mut overlay, held(replica("100", true))),
            [("100".to_owned(), true)],
            "the cache is ahead: 100 > 12"
        );
        assert_eq!(seen(&mut overlay, vec![]), [], "and then it was deleted");
    }

    #[test]
    fn an_answer_that_comes_late_does_not_bring_back_what_was() {
        let now = Instant::now();
        let mut overlay = Overlay::default();
        overlay.wrote_replica(replica("12", true), now);
        overlay.wrote_replica(replica("9", false), now);
        let seen = overlay.replicas(held(replica("8", false)), now);
        assert!(seen[0].spec.condemned.is_some(), "version 12");
    }

    #[test]
    fn what_was_deleted_is_not_seen_any_more() {
        let now = Instant::now();
        let mut overlay = Overlay::default();
        overlay.deleted("u1", now);
        assert!(overlay.replicas(held(replica("9", false)), now).is_empty());
    }

    #[test]
    fn a_step_settles_before_it_is_taken_again() {
        let now = Instant::now();
        let mut overlay = Overlay::default();
        assert!(overlay.take("pod m-a", now));
        assert!(!overlay.take("pod m-a", now + SETTLES / 2));
        assert!(overlay.take("pod m-a", now + SETTLES));
    }
}
