//! Where the partitions that feed a shard begin in Kafka, by all that was ever said of them. Pure.
//!
//! What Kafka holds of a topic only moves forward, so the highest beginning that anybody said is true, whoever is silent by now.
//! That is so for one topic: one that was deleted and made anew under the same name begins at 0 again. So what was said of a topic
//! is forgotten when another id is told of it, by a reading that is younger than all of the one before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use understudy_wire::Observer;
use understudy_wire::evidence::LogRange;

use crate::evidence::Heard;

/// One topic.
#[derive(Debug)]
struct Topic {
    /// Which one of its name; None while nobody told.
    id: Option<String>,
    /// When the brokers were first heard to have it.
    since: Instant,
    /// When they were last.
    read: Instant,
    /// The lowest offset of each partition.
    earliest: BTreeMap<i32, i64>,
}

impl Topic {
    fn of(id: Option<&String>, read: Instant) -> Self {
        Self { id: id.cloned(), since: read, read, earliest: BTreeMap::new() }
    }
}

/// What a reading is of.
enum Subject {
    /// The topic that is known.
    This,
    /// One that took its place, or the first of which the id is known.
    Another,
    /// One that is gone.
    Gone,
}

/// The topics that feed a shard, by name.
#[derive(Debug, Default)]
pub struct KafkaLog(BTreeMap<String, Topic>);

impl KafkaLog {
    /// Takes note of what everybody said last. Of Kafka only the word of consumers counts.
    pub fn hear(&mut self, heard: &[(String, Heard)]) {
        for (_, heard) in heard.iter().filter(|(_, heard)| matches!(heard.report.observer, Observer::Consumer { .. })) {
            for range in &heard.report.log {
                self.note(range, heard.at.checked_sub(Duration::from_millis(range.age)).unwrap_or(heard.at));
            }
        }
    }

    /// The lowest offset that Kafka holds, by topic and partition.
    pub fn earliest(&self) -> BTreeMap<(String, i32), i64> {
        let of = |(name, topic): (&String, &Topic)| -> Vec<_> {
            topic.earliest.iter().map(|(partition, offset)| ((name.clone(), *partition), *offset)).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    fn note(&mut self, range: &LogRange, read: Instant) {
        let id = range.topic_id.as_ref();
        let topic = self.0.entry(range.topic.clone()).or_insert_with(|| Topic::of(id, read));
        match subject(topic, id, read) {
            Subject::This => {}
            Subject::Another => *topic = Topic::of(id, read),
            Subject::Gone => return,
        }
        topic.read = topic.read.max(read);
        let known = topic.earliest.entry(range.partition).or_insert(range.earliest);
        *known = range.earliest.max(*known);
    }
}

fn subject(known: &Topic, id: Option<&String>, read: Instant) -> Subject {
    match (&known.id, id) {
        (Some(known), Some(id)) if known == id => Subject::This,
        (Some(_), Some(_)) if read > known.read => Subject::Another,
        (Some(_), Some(_)) => Subject::Gone,
        (None, Some(_)) => Subject::Another,
        // An observer that does not tell the id may have looked before the present topic was made.
        (Some(_), None) if read < known.since => Subject::Gone,
        (_, None) => Subject::This,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use understudy_wire::Report;

    use super::*;

    /// What one consumer's pod says at `start`: the id of the topic, where its one partition begins, and how many seconds ago it looked.
    type Said = (Option<&'static str>, i64, u64);

    fn heard((id, earliest, seconds): Said, start: Instant) -> (String, Heard) {
        let range = LogRange {
            topic: "samples".into(),
            topic_id: id.map(str::to_owned),
            partition: 0,
            earliest,
            end: earliest + 10,
            age: seconds * 1_000,
        };
        let report = Report {
            observer: Observer::Consumer { pod: "store-0".into() },
            seq: 1,
            own_gap: 0,
            interval: 250,
            evidence: vec![],
            log: vec![range],
        };
        ("store-0".into(), Heard { report: Arc::new(report), at: start })
    }

    #[test]
    fn the_highest_beginning_counts_of_the_topic_that_is_there_now() {
        let cases: &[(&str, &[Said], i64)] = &[
            ("one looked earlier than the other", &[(Some("a"), 100, 1), (Some("a"), 90, 2)], 100),
            ("retention went on", &[(Some("a"), 100, 2), (Some("a"), 120, 1)], 120),
            ("it was made anew", &[(Some("a"), 900_000, 2), (Some("b"), 500, 1)], 500),
            (
                "it was made anew, and one has not looked since",
                &[(Some("a"), 900_000, 3), (Some("b"), 500, 2), (Some("a"), 900_000, 3)],
                500,
            ),
            (
                "it was made anew twice",
                &[(Some("a"), 900_000, 3), (Some("b"), 500, 2), (Some("c"), 0, 1), (Some("b"), 500, 2)],
                0,
            ),
            ("nobody tells which topic it is", &[(None, 100, 2), (None, 90, 1)], 100),
            ("the first one to tell", &[(None, 900_000, 2), (Some("b"), 500, 1)], 500),
            ("one does not tell, of the same topic", &[(Some("a"), 100, 2), (None, 120, 1)], 120),
            (
                "one does not tell, and looked before it was made anew",
                &[(Some("a"), 900_000, 4), (Some("b"), 500, 2), (None, 900_000, 3)],
                500,
            ),
        ];
        let start = Instant::now() + Duration::from_secs(3_600);
        for (case, said, expected) in cases {
            let mut log = KafkaLog::default();
            let heard: Vec<_> = said.iter().map(|said| heard(*said, start)).collect();
            // What was said last is heard again with each pass.
            for _ in 0..2 {
                log.hear(&heard);
            }
            assert_eq!(log.earliest(), [(("samples".to_owned(), 0), *expected)].into(), "{case}");
        }
    }
}
