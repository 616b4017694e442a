//! What the Shards' statuses showed from a fault on: who was primary, which verdicts there were, and when. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::super::store::is_whole;

/// Verdicts kept of one shard.
const VERDICTS: usize = 50;
/// From the best to the worst.
const GRAVITY: [&str; 8] = ["Healthy", "Slow", "Saturated", "Unknown", "ObserverPartition", "Suspect", "Stuck", "Gone"];

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The verdict was Stuck or Gone, or an epoch was claimed.
    Detected,
    /// An epoch was claimed.
    Claimed,
    /// Another replica was primary.
    Promoted,
    /// A replica was missing.
    Broken,
    /// Nothing was missing any more.
    Whole,
}

/// The shards of a Datastore.
#[derive(Debug)]
pub struct Seen {
    shards: BTreeMap<String, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    last: Value,
    base: Option<Base>,
    verdicts: Vec<String>,
    marks: BTreeMap<Mark, Instant>,
}

#[derive(Debug)]
struct Base {
    primary: String,
    epoch: i64,
}

impl Seen {
    /// Of these shards, of which nothing is known yet.
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self { shards: names.into_iter().map(|name| (name, Watched::default())).collect() }
    }

    /// Takes a Shard in. Others than these are left out.
    pub fn take(&mut self, shard: &Value, at: Instant) {
        let name = shard["metadata"]["name"].as_str().unwrap_or_default();
        let Some(watched) = self.shards.get_mut(name).filter(|_| shard["kind"] == "Shard") else { return };
        watched.last = shard.clone();
        if watched.base.is_some() {
            watched.note(at);
        }
    }

    /// From now on counts what is seen.
    pub fn begin(&mut self) {
        for watched in self.shards.values_mut() {
            let base = Base { primary: watched.primary().to_owned(), epoch: watched.epoch() };
            *watched = Watched { last: watched.last.take(), base: Some(base), ..Watched::default() };
        }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.shards.keys()
    }

    /// Whether every one has been seen.
    pub fn is_complete(&self) -> bool {
        self.shards.values().all(|watched| watched.last.is_object())
    }

    /// Whether every one has everything.
    pub fn is_whole(&self) -> bool {
        self.shards.values().all(|watched| is_whole(&watched.last))
    }

    /// Whether this one has another primary than in the beginning.
    pub fn has_changed(&self, shard: &str) -> bool {
        let changed = |watched: &Watched| {
            let primary = watched.primary();
            watched.base.as_ref().is_some_and(|base| !primary.is_empty() && base.primary != primary)
        };
        self.shards.get(shard).is_some_and(changed)
    }

    /// Who is being made primary of this one without a plan.
    pub fn successor(&self, shard: &str) -> Option<&str> {
        let transition = &self.shards.get(shard)?.last["status"]["transition"];
        transition["to"].as_str().filter(|_| transition["kind"] == "Failover")
    }

    /// The primary, as last seen.
    pub fn primary(&self, shard: &str) -> &str {
        self.shards.get(shard).map_or("", Watched::primary)
    }

    /// Epochs as last seen, by shard.
    pub fn epochs(&self) -> BTreeMap<String, i64> {
        self.shards.iter().map(|(name, watched)| (name.clone(), watched.epoch())).collect()
    }

    /// Replicas that are not condemned, with their nodes.
    pub fn replicas(&self, shard: &str) -> Vec<Place> {
        let Some(watched) = self.shards.get(shard) else { return Vec::new() };
        let all = watched.last["status"]["replicas"].as_array().into_iter().flatten();
        all.filter(|replica| replica["role"] != "condemned").map(Place::of).collect()
    }

    /// How far the best standby is behind, in seconds.
    pub fn lag(&self, shard: &str) -> Option<f64> {
        self.shards.get(shard)?.last["status"]["lagSeconds"].as_f64()
    }

    /// When something was first seen of any of these; of [`Mark::Whole`] when it was last seen.
    pub fn mark(&self, shards: &[String], mark: Mark) -> Option<Instant> {
        let all = shards.iter().filter_map(|name| self.shards.get(name)?.marks.get(&mark).copied());
        if mark == Mark::Whole { all.max() } else { all.min() }
    }

    /// When the last of these had it; None when one had not.
    pub fn mark_of_all(&self, shards: &[String], mark: Mark) -> Option<Instant> {
        let all: Option<Vec<_>> = shards.iter().map(|name| self.shards.get(name)?.marks.get(&mark).copied()).collect();
        all?.into_iter().max()
    }

    /// Verdicts of this one, in order, each with its cause.
    pub fn verdicts(&self, shard: &str) -> &[String] {
        self.shards.get(shard).map_or(&[][..], |watched| &watched.verdicts[..])
    }

    /// The worst verdict of any shard.
    pub fn worst(&self) -> String {
        let all = self.shards.values().flat_map(|watched| &watched.verdicts);
        all.max_by_key(|verdict| gravity(verdict)).map_or_else(|| GRAVITY[0].to_owned(), Clone::clone)
    }
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The replica.
    pub name: String,
    /// Its node; empty when it is not known.
    pub node: String,
    /// The zone of that.
    pub zone: String,
}

impl Place {
    fn of(replica: &Value) -> Self {
        let text = |field: &str| replica[field].as_str().unwrap_or_default().to_owned();
        Self { name: text("name"), node: text("node"), zone: text("zone") }
    }
}

impl Watched {
    fn primary(&self) -> &str {
        self.last["status"]["primary"].as_str().unwrap_or_default()
    }

    fn epoch(&self) -> i64 {
        self.last["status"]["epoch"].as_i64().unwrap_or(0)
    }

    fn note(&mut self, at: Instant) {
        let Some(base) = &self.base else { return };
        let status = &self.last["status"];
        let state = status["verdict"]["state"].as_str().unwrap_or("Unknown");
        let cause = status["verdict"]["cause"].as_str().map_or(String::new(), |cause| format!("({cause})"));
        let claimed = self.epoch() > base.epoch;
        let promoted = status["transition"].is_null() && self.primary() != base.primary && !self.primary().is_empty();
        let lacks = lacks(&self.last);
        let mut marks = Vec::new();
        if claimed || matches!(state, "Stuck" | "Gone") {
            marks.push(Mark::Detected);
        }
        if claimed {
            marks.push(Mark::Claimed);
        }
        if promoted {
            marks.push(Mark::Promoted);
        }
        if lacks {
            marks.push(Mark::Broken);
        }
        let verdict = format!("{state}{cause}");
        for mark in marks {
            self.marks.entry(mark).or_insert(at);
        }
        if lacks {
            self.marks.remove(&Mark::Whole);
        } else if self.marks.contains_key(&Mark::Broken) && is_whole(&self.last) {
            self.marks.entry(Mark::Whole).or_insert(at);
        }
        if self.verdicts.last() != Some(&verdict) && self.verdicts.len() < VERDICTS {
            self.verdicts.push(verdict);
        }
    }
}

/// Whether a shard has fewer replicas than it should, whatever is thought of its primary.
fn lacks(shard: &Value) -> bool {
    let (spec, status) = (&shard["spec"], &shard["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(3);
    status["readyReplicas"].as_i64().unwrap_or(0) < wanted || status["promotable"].as_i64().unwrap_or(0) < wanted - 1
}

fn gravity(verdict: &str) -> usize {
    let state = verdict.split('(').next().unwrap_or_default();
    GRAVITY.iter().position(|known| *known == state).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn shard(primary: &str, epoch: i64, verdict: (&str, &str), ready: i64, transition: Value) -> Value {
        json!({
            "kind": "Shard", "metadata": {"name": "s-0", "generation": 1}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "primary": primary, "epoch": epoch, "transition": transition,
                "verdict": {"state": verdict.0, "cause": verdict.1}, "readyReplicas": ready, "promotable": ready - 1,
                "lagSeconds": 1.5,
                "replicas": [{"name": "a", "role": "primary", "node": "node-1", "zone": "a"}, {"name": "z", "role": "condemned"}]},
        })
    }

    #[test]
    fn a_failover_is_timed_by_what_the_status_showed_first() {
        let mut seen = Seen::of(["s-0".to_owned()]);
        let zero = Instant::now();
        let at = |second| zero + Duration::from_secs(second);
        let claim = json!({"kind": "Failover", "to": "b"});
        assert!(!seen.is_complete());
        seen.take(&shard("a", 4, ("Healthy", ""), 3, Value::Null), at(0));
        assert!(seen.is_complete() && seen.is_whole());
        seen.begin();
        for (second, object) in [
            (1, shard("a", 4, ("Suspect", "Stopped"), 3, Value::Null)),
            (3, shard("a", 4, ("Stuck", "Stopped"), 2, Value::Null)),
            (4, shard("a", 5, ("Stuck", "Stopped"), 2, claim)),
        ] {
            seen.take(&object, at(second));
        }
        assert_eq!((seen.successor("s-0"), seen.has_changed("s-0")), (Some("b"), false));
        seen.take(&shard("b", 5, ("Healthy", "x"), 2, Value::Null), at(5));
        assert!(seen.has_changed("s-0") && !seen.is_whole());
        seen.take(&shard("b", 5, ("Healthy", "x"), 3, Value::Null), at(20));
        seen.take(&shard("b", 5, ("Healthy", "x"), 3, Value::Null), at(30));
        let shards = ["s-0".to_owned()];
        for (mark, second) in
            [(Mark::Detected, 3), (Mark::Claimed, 4), (Mark::Promoted, 5), (Mark::Broken, 3), (Mark::Whole, 20)]
        {
            assert_eq!(seen.mark(&shards, mark), Some(at(second)), "{mark:?}");
            assert_eq!(seen.mark_of_all(&shards, mark), Some(at(second)), "{mark:?}");
        }
        assert_eq!(seen.verdicts("s-0"), ["Suspect(Stopped)", "Stuck(Stopped)", "Healthy(x)"]);
        assert_eq!(seen.worst(), "Stuck(Stopped)");
        assert_eq!((seen.epochs()["s-0"], seen.primary("s-0"), seen.lag("s-0")), (5, "b", Some(1.5)));
        let place = Place { name: "a".into(), node: "node-1".into(), zone: "a".into() };
        assert_eq!(seen.replicas("s-0"), [place]);
    }

    #[test]
    fn what_was_there_before_the_fault_and_other_shards_count_for_nothing() {
        let mut seen = Seen::of(["s-0".to_owned()]);
        let now = Instant::now();
        seen.take(&shard("a", 4, ("Gone", "ProcessExited"), 1, Value::Null), now);
        seen.begin();
        let mut other = shard("b", 9, ("Gone", "x"), 1, Value::Null);
        other["metadata"]["name"] = json!("s-1");
        seen.take(&other, now);
        assert_eq!(seen.names().collect::<Vec<_>>(), ["s-0"]);
        assert_eq!(seen.worst(), "Healthy");
        let shards = ["s-0".to_owned(), "s-1".to_owned()];
        assert_eq!((seen.mark(&shards, Mark::Claimed), seen.mark_of_all(&shards, Mark::Claimed)), (None, None));
    }
}
