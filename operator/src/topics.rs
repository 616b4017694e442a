//! The Kafka topics of Datastores, behind a small trait so that controllers can be tried without brokers. I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use understudy_kafka::{Admin, AdminError, Connection, Difference, TopicSpec, TopicState, dead_letter_topic};

/// Longest time for all of one question.
const WITHIN: Duration = Duration::from_secs(10);
/// How long dead letters are kept at least: a person must get to them.
const DEAD_LETTERS: Duration = Duration::from_secs(30 * 24 * 3600);
/// A client that nobody has needed for this long is closed: whatever names its brokers asks more often.
const UNUSED: Duration = Duration::from_secs(15 * 60);
/// Between two looks for such clients.
const SWEEP: Duration = Duration::from_secs(60);

/// A Datastore's topic as its spec asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Copies of each.
    pub replication: i32,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync: i32,
    /// How long records are kept.
    pub retention: Duration,
}

/// How the topic and that of its dead letters are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the topic was made just now.
    pub created: bool,
    /// Which of the two is not as asked, and where; each for a person.
    pub differences: Vec<String>,
}

/// Makes topics and reads their ends.
#[async_trait]
pub trait Topics: Send + Sync {
    /// Makes the topic and that of its dead letters if they are missing, then says how they are.
    async fn ensure(&self, wanted: &Wanted) -> Result<Found, AdminError>;
    /// The offset that the next record of each partition gets.
    async fn ends(&self, bootstrap: &str, topic: &str) -> Result<BTreeMap<i32, i64>, AdminError>;
}

/// Topics on real brokers; one client per list of brokers, with threads of its own, for as long as it is needed.
pub struct Brokers {
    clients: Arc<Mutex<Clients<Admin>>>,
}

impl Brokers {
    /// The handle, and the task that closes clients which nobody needs any more, until stopped.
    pub fn new(stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let clients = Arc::<Mutex<Clients<Admin>>>::default();
        let brokers = Self { clients: clients.clone() };
        let sweeping = async move {
            while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
                let unused = lock(&clients).take_unused(Instant::now());
                if unused.is_empty() {
                    continue;
                }
                let count = unused.len();
                // Closing one waits for its threads.
                match tokio::task::spawn_blocking(move || drop(unused)).await {
                    Ok(()) => tracing::info!(count, "clients of brokers that nothing names any more are closed"),
                    Err(error) => tracing::warn!(%error, "clients of brokers not closed"),
                }
            }
        };
        (brokers, sweeping)
    }

    fn client(&self, bootstrap: &str) -> Result<Admin, AdminError> {
        let make = || Admin::new(&Connection::new(bootstrap, "understudy-operator"));
        lock(&self.clients).obtain(bootstrap, Instant::now(), make)
    }
}

fn lock<C>(clients: &Mutex<Clients<C>>) -> MutexGuard<'_, Clients<C>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client per list of brokers, and when it was needed last.
struct Clients<C>(HashMap<String, (C, Instant)>);

impl<C> Default for Clients<C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<C: Clone> Clients<C> {
    fn obtain<E>(&mut self, bootstrap: &str, now: Instant, make: impl FnOnce() -> Result<C, E>) -> Result<C, E> {
        if let Some((client, needed)) = self.0.get_mut(bootstrap) {
            *needed = now;
            return Ok(client.clone());
        }
        let client = make()?;
        self.0.insert(bootstrap.to_owned(), (client.clone(), now));
        Ok(client)
    }

    /// Takes out those that were not needed for [`UNUSED`].
    fn take_unused(&mut self, now: Instant) -> Vec<C> {
        let is_unused = |needed: Instant| now.saturating_duration_since(needed) >= UNUSED;
        self.0.extract_if(|_, (_, needed)| is_unused(*needed)).map(|(_, (client, _))| client).collect()
    }
}

#[async_trait]
impl Topics for Brokers {
    async fn ensure(&self, wanted: &Wanted) -> Result<Found, AdminError> {
        let client = self.client(&wanted.bootstrap)?;
        let mut spec = TopicSpec::durable(&wanted.topic, wanted.partitions, wanted.replication, wanted.retention);
        spec.config.insert("min.insync.replicas".to_owned(), wanted.min_insync.to_string());
        let state = client.ensure_topic(&spec, WITHIN).await?;
        let letters = dead_letter_topic(&wanted.topic);
        let mut letters = TopicSpec::durable(letters, 1, wanted.replication, wanted.retention.max(DEAD_LETTERS));
        letters.config.insert("min.insync.replicas".to_owned(), wanted.min_insync.to_string());
        let letters = client.ensure_topic(&letters, WITHIN).await?;
        Ok(found(&state, &letters))
    }

    async fn ends(&self, bootstrap: &str, topic: &str) -> Result<BTreeMap<i32, i64>, AdminError> {
        self.client(bootstrap)?.end_offsets(topic, WITHIN).await
    }
}

fn found(topic: &TopicState, letters: &TopicState) -> Found {
    let of_topic = differences(topic, |_| true);
    let of_letters = differences(letters, |difference| !is_harmless(difference));
    Found { created: topic.created, differences: of_topic.into_iter().chain(of_letters).collect() }
}

/// Where a topic is not as asked, by its name, or nothing.
fn differences(state: &TopicState, counts: impl Fn(&Difference) -> bool) -> Option<String> {
    let mut all: Vec<_> =
        state.differences.iter().filter(|&difference| counts(difference)).map(ToString::to_string).collect();
    if !state.leaderless.is_empty() {
        all.push(format!("partitions without a leader: {:?}", state.leaderless));
    }
    (!all.is_empty()).then(|| format!("topic {}: {}", state.name, all.join(", ")))
}

/// Whether dead letters are as safe and are kept for at least as long as with what was asked. In which partition they are is nothing to anybody.
fn is_harmless(difference: &Difference) -> bool {
    match difference {
        Difference::Partitions { .. } => true,
        Difference::Config { key, wanted, found: Some(found) } if key == "retention.ms" => {
            let ms = |text: &str| text.parse::<i64>().ok();
            // A negative number is for ever.
            ms(found).zip(ms(wanted)).is_some_and(|(found, wanted)| found < 0 || found > wanted)
        }
        Difference::Config { .. } | Difference::Replication { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn state(name: &str, differences: Vec<Difference>) -> TopicState {
        TopicState {
            name: name.to_owned(),
            created: false,
            partitions: 4,
            replication: 3,
            in_sync: 3,
            leaderless: vec![],
            config: BTreeMap::new(),
            differences,
        }
    }

    fn property(key: &str, wanted: &str, found: &str) -> Difference {
        Difference::Config { key: key.to_owned(), wanted: wanted.to_owned(), found: Some(found.to_owned()) }
    }

    fn retention(found: &str) -> Difference {
        property("retention.ms", "2592000000", found)
    }

    #[test]
    fn what_is_wrong_with_either_topic_is_told_by_its_name() {
        let fewer = || Difference::Replication { wanted: 3, found: 1 };
        let other = || Difference::Partitions { wanted: 4, found: 6 };
        let sooner = || property("min.insync.replicas", "2", "1");
        type Case = (&'static str, Vec<Difference>, Vec<Difference>, &'static [&'static str]);
        let cases: [Case; 9] = [
            ("both are as asked", vec![], vec![], &[]),
            ("the first", vec![other()], vec![], &["topic m: 6 partitions instead of 4"]),
            ("copies of dead letters", vec![], vec![fewer()], &["topic m.dead-letter: 1 replicas instead of 3"]),
            (
                "copies before one is acknowledged",
                vec![],
                vec![sooner()],
                &["topic m.dead-letter: min.insync.replicas is 1 instead of 2"],
            ),
            (
                "dead letters are not kept for long enough",
                vec![],
                vec![retention("86400000")],
                &["topic m.dead-letter: retention.ms is 86400000 instead of 2592000000"],
            ),
            ("dead letters are kept for longer", vec![], vec![retention("31536000000")], &[]),
            ("dead letters are kept for ever", vec![], vec![retention("-1")], &[]),
            ("dead letters have more partitions", vec![], vec![other()], &[]),
            (
                "both",
                vec![retention("86400000")],
                vec![fewer(), sooner()],
                &[
                    "topic m: retention.ms is 86400000 instead of 2592000000",
                    "topic m.dead-letter: 1 replicas instead of 3, min.insync.replicas is 1 instead of 2",
                ],
            ),
        ];
        for (case, topic, letters, expected) in cases {
            let found = found(&state("m", topic), &state("m.dead-letter", letters));
            assert_eq!(found.differences, expected, "{case}");
        }
        let leaderless = TopicState { leaderless: vec![0], ..state("m.dead-letter", vec![]) };
        let found = found(&state("m", vec![]), &leaderless);
        assert_eq!(found.differences, ["topic m.dead-letter: partitions without a leader: [0]"]);
    }

    #[test]
    fn a_client_is_kept_for_as_long_as_somebody_needs_it() {
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let mut clients = Clients::default();
        let mut made = 0;
        let mut obtain = |clients: &mut Clients<u32>, bootstrap: &str, now: Instant| {
            let make = || {
                made += 1;
                Ok::<_, Infallible>(made)
            };
            clients.obtain(bootstrap, now, make).unwrap()
        };
        assert_eq!(obtain(&mut clients, "a:9092", after(0)), 1);
        assert_eq!(obtain(&mut clients, "b:9092", after(0)), 2);
        assert_eq!(obtain(&mut clients, "a:9092", after(10)), 1, "there is one already");
        assert_eq!(clients.take_unused(after(14)), Vec::<u32>::new());
        assert_eq!(clients.take_unused(after(15)), [2], "nothing names these brokers any more");
        assert_eq!(obtain(&mut clients, "b:9092", after(16)), 3, "something names them again");
        assert_eq!(clients.take_unused(after(40)).len(), 2);
    }
}
