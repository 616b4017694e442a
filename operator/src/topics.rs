//! The Kafka topics of Datastores, behind a small trait so that controllers can be tried without brokers. I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use understudy_kafka::{Admin, AdminError, Connection, TopicSpec, TopicState, dead_letter_topic};

/// Longest time for all of one question.
const WITHIN: Duration = Duration::from_secs(10);
/// How long dead letters are kept at least: a person must get to them.
const DEAD_LETTERS: Duration = Duration::from_secs(30 * 24 * 3600);

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

/// How the topic is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether it was made just now.
    pub created: bool,
    /// Where it is not as asked, each for a person.
    pub differences: Vec<String>,
    /// Partitions that nobody leads at the moment.
    pub leaderless: Vec<i32>,
}

/// Makes topics and reads their ends.
#[async_trait]
pub trait Topics: Send + Sync {
    /// Makes the topic and that of its dead letters if they are missing, then says how the first is.
    async fn ensure(&self, wanted: &Wanted) -> Result<Found, AdminError>;
    /// The offset that the next record of each partition gets.
    async fn ends(&self, bootstrap: &str, topic: &str) -> Result<BTreeMap<i32, i64>, AdminError>;
}

/// Topics on real brokers; one client per list of brokers.
#[derive(Default)]
pub struct Brokers {
    clients: Mutex<HashMap<String, Admin>>,
}

impl Brokers {
    fn client(&self, bootstrap: &str) -> Result<Admin, AdminError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(bootstrap) {
            return Ok(client.clone());
        }
        let client = Admin::new(&Connection::new(bootstrap, "understudy-operator"))?;
        clients.insert(bootstrap.to_owned(), client.clone());
        Ok(client)
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
        client.ensure_topic(&letters, WITHIN).await?;
        Ok(found(&state))
    }

    async fn ends(&self, bootstrap: &str, topic: &str) -> Result<BTreeMap<i32, i64>, AdminError> {
        self.client(bootstrap)?.end_offsets(topic, WITHIN).await
    }
}

fn found(state: &TopicState) -> Found {
    Found {
        created: state.created,
        differences: state.differences.iter().map(ToString::to_string).collect(),
        leaderless: state.leaderless.clone(),
    }
}
