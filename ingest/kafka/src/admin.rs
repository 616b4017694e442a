//! Topics: made once, then only checked. I/O. Nothing here changes a topic that exists: what differs is reported, and
//! a person decides.

mod origin;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use self::origin::Origin;
use crate::connection::{Connection, Logged};

/// Administrates topics and asks for offsets. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    client: Arc<AdminClient<Logged>>,
}

/// How a topic should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas each partition has.
    pub replication: i32,
    /// Topic properties, by their Kafka names.
    pub config: BTreeMap<String, String>,
}

impl TopicSpec {
    /// A topic that the ingest can rely on: deleted by age and never compacted (a reader treats a missing offset as an
    /// error), no unclean election (it would drop acknowledged records), records large enough for the largest frame,
    /// `min.insync.replicas` of two where there are that many replicas, and records kept as they were sent: frames are
    /// compressed already.
    pub fn durable(name: impl Into<String>, partitions: i32, replication: i32, retention: Duration) -> Self {
        let config = [
            ("cleanup.policy", "delete".to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("min.insync.replicas", replication.min(2).to_string()),
            ("retention.ms", retention.as_millis().to_string()),
            ("retention.bytes", "-1".to_owned()),
            ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
            ("compression.type", "producer".to_owned()),
        ];
        let config = config.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { name: name.into(), partitions, replication, config }
    }
}

/// Kafka's own default for the largest record batch, said explicitly because the largest frame is made to fit in it.
pub const MAX_MESSAGE_BYTES: u32 = 1_048_588;

/// How a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Whether this call made it.
    pub created: bool,
    /// How many partitions it has.
    pub partitions: i32,
    /// The fewest replicas that any partition has.
    pub replication: i32,
    /// The fewest in-sync replicas that any partition has now.
    pub in_sync: i32,
    /// Partitions without a leader now.
    pub leaderless: Vec<i32>,
    /// Effective values of the properties that the spec names.
    pub config: BTreeMap<String, String>,
    /// Where it differs from the spec. Empty = as wanted.
    pub differences: Vec<Difference>,
}

/// One difference between a topic and its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Another number of partitions.
    Partitions {
        /// As specified.
        wanted: i32,
        /// As found.
        found: i32,
    },
    /// Another number of replicas.
    Replication {
        /// As specified.
        wanted: i32,
        /// As found.
        found: i32,
    },
    /// A property with another value; `None` = the broker does not know it.
    Config {
        /// Its Kafka name.
        key: String,
        /// As specified.
        wanted: String,
        /// As found.
        found: Option<String>,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Partitions { wanted, found } => write!(f, "{found} partitions instead of {wanted}"),
            Self::Replication { wanted, found } => write!(f, "{found} replicas instead of {wanted}"),
            Self::Config { key, wanted, found: Some(found) } => write!(f, "{key} is {found} instead of {wanted}"),
            Self::Config { key, wanted, found: None } => write!(f, "{key} is unknown, {wanted} was wanted"),
        }
    }
}

/// Which step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The client could not be made: a property is wrong.
    #[error("start the client: {0}")]
    Client(String),
    /// No answer about the brokers themselves.
    #[error("ask for the brokers: {0}")]
    Brokers(String),
    /// No metadata from any broker.
    #[error("read the metadata of {topic}: {reason}")]
    Metadata {
        /// Of which topic.
        topic: String,
        /// What the client said.
        reason: String,
    },
    /// The cluster answers and has no such topic.
    #[error("there is no topic {0}")]
    NoSuchTopic(String),
    /// The cluster refused to make the topic.
    #[error("create topic {topic}: {reason}")]
    Create {
        /// Which topic.
        topic: String,
        /// What the cluster said.
        reason: String,
    },
    /// The properties could not be read.
    #[error("read the properties of {topic}: {reason}")]
    Describe {
        /// Of which topic.
        topic: String,
        /// What the cluster said.
        reason: String,
    },
    /// The offsets could not be read.
    #[error("read the offsets of partition {partition} of {topic}: {reason}")]
    Offsets {
        /// Of which topic.
        topic: String,
        /// Of which partition.
        partition: i32,
        /// What the client said.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
}

/// Both ends of the partitions of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Of the partitions that answered.
    pub known: BTreeMap<i32, Watermarks>,
    /// Partitions that did not, and why.
    pub unknown: BTreeMap<i32, String>,
}

/// First offset that is still there, and the one the next record will get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The earliest offset that can be read.
    pub earliest: i64,
    /// The offset after the last record.
    pub end: i64,
}

impl Admin {
    /// Starts a client. Does not wait for a broker.
    pub fn new(connection: &Connection) -> Result<Self, AdminError> {
        let client = connection.config().create_with_context(Logged);
        Ok(Self { client: Arc::new(client.map_err(|error| AdminError::Client(error.to_string()))?) })
    }

    /// Makes the topic if there is none, then says how it is. Two callers at once are fine.
    pub async fn ensure_topic(&self, spec: &TopicSpec, within: Duration) -> Result<TopicState, AdminError> {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let created = match self.layout(&spec.name, left()).await {
            Ok(_) => return self.describe_topic(spec, left()).await,
            Err(AdminError::NoSuchTopic(_)) => self.create(spec, left()).await?,
            Err(error) => return Err(error),
        };
        loop {
            match self.describe_topic(spec, left()).await {
                // The controller answers before every broker has heard of it, and another may be asked each time.
                Err(AdminError::NoSuchTopic(_) | AdminError::Describe { .. }) if !left().is_zero() => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other.map(|state| TopicState { created, ..state }),
            }
        }
    }

    /// How the topic is, held against a spec, without making it.
    pub async fn describe_topic(&self, spec: &TopicSpec, within: Duration) -> Result<TopicState, AdminError> {
        let deadline = Instant::now() + within;
        let layout = self.layout(&spec.name, within).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let config = self.config(&spec.name, left).await?;
        let mut differences = Vec::new();
        if layout.partitions != spec.partitions {
            differences.push(Difference::Partitions { wanted: spec.partitions, found: layout.partitions });
        }
        if layout.replication != spec.replication {
            differences.push(Difference::Replication { wanted: spec.replication, found: layout.replication });
        }
        for (key, wanted) in &spec.config {
            let found = config.get(key).cloned();
            if found.as_ref() != Some(wanted) {
                differences.push(Difference::Config { key: key.clone(), wanted: wanted.clone(), found });
            }
        }
        let config = config.into_iter().filter(|(key, _)| spec.config.contains_key(key)).collect();
        Ok(TopicState {
            name: spec.name.clone(),
            created: false,
            partitions: layout.partitions,
            replication: layout.replication,
            in_sync: layout.in_sync,
            leaderless: layout.leaderless,
            config,
            differences,
        })
    }

    /// How many brokers there are, and with that how many replicas a partition can have.
    pub async fn brokers(&self, within: Duration) -> Result<usize, AdminError> {
        self.blocking(within, |client, deadline| {
            let failed = |error: KafkaError| AdminError::Brokers(error.to_string());
            Ok(client.fetch_metadata(None, left(deadline)).map_err(failed)?.brokers().len())
        })
        .await
    }

    /// The earliest offset that can still be read, of each partition that answers.
    pub async fn earliest_offsets(&self, topic: &str, within: Duration) -> Result<BTreeMap<i32, i64>, AdminError> {
        let marks = self.watermarks(topic, within).await?;
        Ok(marks.known.into_iter().map(|(partition, marks)| (partition, marks.earliest)).collect())
    }

    /// The offset that the next record will get, of each partition that answers.
    pub async fn end_offsets(&self, topic: &str, within: Duration) -> Result<BTreeMap<i32, i64>, AdminError> {
        let marks = self.watermarks(topic, within).await?;
        Ok(marks.known.into_iter().map(|(partition, marks)| (partition, marks.end)).collect())
    }

    /// Both ends of each partition that answers; an error when none does. Partitions of one broker are asked one after the other, and the
    /// brokers at once, so that whatever does not answer delays nobody else.
    pub async fn watermarks(&self, topic: &str, within: Duration) -> Result<Marks, AdminError> {
        let deadline = Instant::now() + within;
        let layout = self.layout(topic, within).await?;
        let mut marks = Marks::default();
        marks.unknown.extend(layout.leaderless.iter().map(|partition| (*partition, "it has no leader".to_owned())));
        let (tell, mut answers) = mpsc::channel(usize::try_from(layout.partitions).unwrap_or(0).max(1));
        let mut asking = JoinSet::new();
        for partitions in layout.led.into_values() {
            marks.unknown.extend(partitions.iter().map(|partition| (*partition, "no answer in time".to_owned())));
            let (client, topic, tell) = (self.client.clone(), topic.to_owned(), tell.clone());
            asking.spawn_blocking(move || ask_for_ends(client.inner(), &topic, &partitions, deadline, &tell));
        }
        drop(tell);
        while let Ok(Some((partition, answer))) = timeout_at(deadline, answers.recv()).await {
            match answer {
                Ok(found) => {
                    marks.unknown.remove(&partition);
                    marks.known.insert(partition, found);
                }
                Err(reason) => drop(marks.unknown.insert(partition, reason)),
            }
        }
        match marks.unknown.first_key_value() {
            Some((partition, reason)) if marks.known.is_empty() => {
                let (topic, partition, reason) = (topic.to_owned(), *partition, reason.clone());
                Err(AdminError::Offsets { topic, partition, reason })
            }
            _ => Ok(marks),
        }
    }

    /// Which topic of which cluster it is.
    pub async fn origin(&self, topic: &str, within: Duration) -> Result<Origin, AdminError> {
        let name = topic.to_owned();
        self.blocking(within, move |client, deadline| {
            // First: whether it is there at all, and with the answer comes the cluster's id.
            layout(client, &name, deadline)?;
            let topic = origin::topic_id(client, &name, left(deadline));
            let topic = topic.map_err(|reason| AdminError::Metadata { topic: name, reason })?;
            Ok(Origin { cluster: origin::cluster_id(client, left(deadline)), topic })
        })
        .await
    }

    async fn layout(&self, topic: &str, within: Duration) -> Result<Layout, AdminError> {
        let topic = topic.to_owned();
        self.blocking(within, move |client, deadline| layout(client, &topic, deadline)).await
    }

    /// Whether this call made it; `false` when somebody else just did.
    async fn create(&self, spec: &TopicSpec, within: Duration) -> Result<bool, AdminError> {
        let failed = |reason: String| AdminError::Create { topic: spec.name.clone(), reason };
        let mut topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication));
        for (key, value) in &spec.config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().request_timeout(Some(within)).operation_timeout(Some(within));
        let asked = self.client.create_topics([&topic], &options);
        let answers = match tokio::time::timeout(within, asked).await {
            Ok(answers) => answers.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(AdminError::Deadline(within)),
        };
        match answers.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(failed(code.to_string())),
            None => Err(failed("no answer for the topic".to_owned())),
        }
    }

    async fn config(&self, topic: &str, within: Duration) -> Result<BTreeMap<String, String>, AdminError> {
        let failed = |reason: String| AdminError::Describe { topic: topic.to_owned(), reason };
        let options = AdminOptions::new().request_timeout(Some(within));
        let resource = ResourceSpecifier::Topic(topic);
        let asked = self.client.describe_configs([&resource], &options);
        let answers = match tokio::time::timeout(within, asked).await {
            Ok(answers) => answers.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(AdminError::Deadline(within)),
        };
        let resource = answers.into_iter().next().ok_or_else(|| failed("no answer for the topic".to_owned()))?;
        let entries = resource.map_err(|code| failed(code.to_string()))?.entries;
        if entries.is_empty() {
            // A broker that has not heard of the topic yet says so by an answer without content.
            return Err(failed("the broker knows no properties of it".to_owned()));
        }
        Ok(entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// librdkafka's calls block; they have a deadline of their own, and one more around them in case they forget it.
    async fn blocking<T: Send + 'static>(
        &self,
        within: Duration,
        call: impl FnOnce(&Client<Logged>, Instant) -> Result<T, AdminError> + Send + 'static,
    ) -> Result<T, AdminError> {
        let client = self.client.clone();
        let deadline = Instant::now() + within;
        let called = tokio::task::spawn_blocking(move || call(client.inner(), deadline));
        match tokio::time::timeout(within + Duration::from_millis(500), called).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(AdminError::Client(panic.to_string())),
            Err(_) => Err(AdminError::Deadline(within)),
        }
    }
}

/// Where the partitions of a topic are.
struct Layout {
    partitions: i32,
    replication: i32,
    in_sync: i32,
    leaderless: Vec<i32>,
    /// By the broker that leads them.
    led: BTreeMap<i32, Vec<i32>>,
}

fn layout(client: &Client<Logged>, topic: &str, deadline: Instant) -> Result<Layout, AdminError> {
    let failed = |reason: String| AdminError::Metadata { topic: topic.to_owned(), reason };
    let missing = || AdminError::NoSuchTopic(topic.to_owned());
    let metadata = match client.fetch_metadata(Some(topic), left(deadline)) {
        Ok(metadata) => metadata,
        Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)) => {
            return Err(missing());
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(missing)?;
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => return Err(missing()),
        // A leader election is under way, which the partitions tell below.
        Some(RDKafkaErrorCode::LeaderNotAvailable) if !found.partitions().is_empty() => {}
        Some(code) => return Err(failed(code.to_string())),
    }
    let partitions = found.partitions();
    let fewest = |count: fn(&rdkafka::metadata::MetadataPartition) -> usize| {
        partitions.iter().map(count).min().and_then(|least| i32::try_from(least).ok()).unwrap_or(0)
    };
    let mut led: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in partitions.iter().filter(|found| found.leader() >= 0) {
        led.entry(partition.leader()).or_default().push(partition.id());
    }
    Ok(Layout {
        led,
        partitions: partitions.len() as i32,
        replication: fewest(|partition| partition.replicas().len()),
        in_sync: fewest(|partition| partition.isr().len()),
        leaderless: partitions.iter().filter(|found| found.leader() < 0).map(|found| found.id()).collect(),
    })
}

/// The least time that one partition is given for its ends, while there is any.
const LEAST: Duration = Duration::from_millis(100);

/// Asks for both ends of each partition in turn, until the deadline. A partition that does not answer takes no more than its share of the
/// time, so that it does not speak for those after it.
fn ask_for_ends(
    client: &Client<Logged>,
    topic: &str,
    partitions: &[i32],
    deadline: Instant,
    tell: &mpsc::Sender<(i32, Result<Watermarks, String>)>,
) {
    for (index, partition) in partitions.iter().enumerate() {
        let all = deadline.saturating_duration_since(Instant::now());
        if all.is_zero() {
            return;
        }
        let others = u32::try_from(partitions.len() - index).unwrap_or(u32::MAX);
        let share = (all / others).max(LEAST).min(all);
        let answer = client.fetch_watermarks(topic, *partition, share);
        let answer = answer.map(|(earliest, end)| Watermarks { earliest, end }).map_err(|error| error.to_string());
        // Nobody waits any more.
        if tell.try_send((*partition, answer)).is_err() {
            return;
        }
    }
}

fn left(deadline: Instant) -> Duration {
    // librdkafka reads 0 as "do not wait" and refuses some calls at once: give it a last moment instead.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(10))
}
