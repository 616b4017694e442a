//! Tells what happens to one shard, from the objects that its watches deliver. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::store::is_whole;

/// What a failover is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// The verdict is not Healthy any more.
    Noticed,
    /// An epoch was taken.
    Claimed,
    /// Another replica takes writes.
    Promoted,
    /// A new replica was made.
    Replaced,
    /// The shard has everything again.
    Redundant,
}

/// One line, and the milestone that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Set on the lines that are measured.
    pub milestone: Option<Milestone>,
    /// For a person.
    pub text: String,
}

/// What was last seen of a shard and of its replicas.
#[derive(Debug)]
pub struct Story {
    name: String,
    shard: Value,
    replicas: BTreeMap<String, Value>,
    was_broken: bool,
}

impl Story {
    /// About the shard of this name, which nothing is known of yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), shard: Value::Null, replicas: BTreeMap::new(), was_broken: false }
    }

    /// Takes an object in and says what is new about it. What is seen for the first time before the shard is known is no news.
    pub fn tell(&mut self, object: &Value, deleted: bool) -> Vec<Line> {
        let of_shard = object["spec"]["shard"] == self.name.as_str();
        match object["kind"].as_str() {
            Some("Shard") if object["metadata"]["name"] == self.name.as_str() => self.shard_news(object),
            Some("Replica") if of_shard && !deleted => self.replica_news(object),
            _ => Vec::new(),
        }
    }

    /// The primary as last seen.
    pub fn primary(&self) -> &str {
        self.shard["status"]["primary"].as_str().unwrap_or_default()
    }

    /// The epoch as last seen.
    pub fn epoch(&self) -> i64 {
        self.shard["status"]["epoch"].as_i64().unwrap_or(0)
    }

    fn shard_news(&mut self, shard: &Value) -> Vec<Line> {
        let before = std::mem::replace(&mut self.shard, shard.clone());
        if before.is_null() {
            return Vec::new();
        }
        let mut news = Vec::new();
        let (old, new) = (&before["status"], &shard["status"]);
        let state = |status: &Value| status["verdict"]["state"].as_str().unwrap_or("Unknown").to_owned();
        if state(old) != state(new) {
            let cause = new["verdict"]["cause"].as_str().map_or(String::new(), |c| format!(" ({c})"));
            let noticed = state(old) == "Healthy";
            news.push(line(noticed.then_some(Milestone::Noticed), format!("verdict {}{cause}", state(new))));
        }
        if new["epoch"].as_i64() > old["epoch"].as_i64() {
            let target = new["targetPrimary"].as_str().unwrap_or("nobody");
            news.push(line(Some(Milestone::Claimed), format!("epoch {} is claimed for {target}", new["epoch"])));
        }
        if old["primary"] != new["primary"] && new["primary"].is_string() {
            let text = format!("{} takes writes under epoch {}", self.primary(), new["epoch"]);
            news.push(line(Some(Milestone::Promoted), text));
        }
        if !is_whole(shard) {
            self.was_broken = true;
        } else if self.was_broken {
            self.was_broken = false;
            let ready = new["ready"].as_str().unwrap_or("all");
            let text = format!("redundancy is back: {ready} ready, {} promotable", new["promotable"]);
            news.push(line(Some(Milestone::Redundant), text));
        }
        news
    }

    fn replica_news(&mut self, replica: &Value) -> Vec<Line> {
        let name = replica["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let before = self.replicas.insert(name.clone(), replica.clone());
        let Some(before) = before else {
            if self.shard.is_null() {
                return Vec::new();
            }
            let replaces =
                replica["spec"]["origin"]["replaces"].as_str().map_or(String::new(), |r| format!(" in place of {r}"));
            return vec![line(
                Some(Milestone::Replaced),
                format!("{name} is made{replaces}: a new server on a new volume"),
            )];
        };
        let (old, new) = (&before["status"], &replica["status"]);
        let mut news = Vec::new();
        if old["role"] != new["role"] {
            let text = match new["role"].as_str() {
                Some("condemned") => format!("{name} is condemned; its volume is kept in quarantine"),
                Some(role) => format!("{name} is {role} now"),
                None => return news,
            };
            news.push(line(None, text));
        }
        if old["phase"] != new["phase"] && new["role"] != "condemned" {
            let source = new["source"]
                .as_str()
                .filter(|_| new["phase"] == "Building")
                .map_or(String::new(), |s| format!(" from {s}"));
            news.push(line(None, format!("{name}: {}{source}", new["phase"].as_str().unwrap_or("Unknown"))));
        }
        news
    }
}

fn line(milestone: Option<Milestone>, text: String) -> Line {
    Line { milestone, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shard(primary: &str, epoch: i64, verdict: &str, ready: i64) -> Value {
        json!({
            "kind": "Shard", "metadata": {"name": "s", "generation": 1}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "primary": primary, "targetPrimary": "b", "epoch": epoch,
                "verdict": {"state": verdict, "cause": "ProcessExited"}, "readyReplicas": ready, "ready": format!("{ready}/3"),
                "promotable": ready - 1},
        })
    }

    fn replica(name: &str, role: &str, phase: &str) -> Value {
        json!({"kind": "Replica", "metadata": {"name": name}, "spec": {"shard": "s", "origin": {"replaces": "a"}},
            "status": {"role": role, "phase": phase, "source": "c"}})
    }

    #[test]
    fn a_failover_is_told_in_the_order_in_which_it_is_seen() {
        let mut story = Story::new("s");
        let mut told = Vec::new();
        for object in [
            shard("a", 1, "Healthy", 3),
            shard("a", 1, "Gone", 2),
            shard("a", 2, "Gone", 2),
            shard("b", 2, "Healthy", 2),
            replica("d", "spare", "Pending"),
            replica("d", "spare", "Building"),
            shard("b", 2, "Healthy", 3),
        ] {
            told.extend(story.tell(&object, false));
        }
        let milestones: Vec<_> = told.iter().filter_map(|l| l.milestone).collect();
        use Milestone::{Claimed, Noticed, Promoted, Redundant, Replaced};
        assert_eq!(milestones, [Noticed, Claimed, Promoted, Replaced, Redundant]);
        assert!(told.iter().any(|l| l.text == "d: Building from c"), "{told:?}");
        assert_eq!((story.primary(), story.epoch()), ("b", 2));
    }

    #[test]
    fn what_was_there_before_is_no_news() {
        let mut story = Story::new("s");
        assert!(story.tell(&replica("a", "primary", "Running"), false).is_empty());
        assert!(story.tell(&shard("a", 1, "Healthy", 3), false).is_empty());
        assert!(story.tell(&shard("a", 1, "Healthy", 3), false).is_empty());
    }

    #[test]
    fn other_shards_are_left_out() {
        let mut story = Story::new("other");
        assert!(story.tell(&shard("a", 1, "Healthy", 3), false).is_empty());
        assert!(story.tell(&shard("b", 2, "Healthy", 3), false).is_empty());
    }
}
