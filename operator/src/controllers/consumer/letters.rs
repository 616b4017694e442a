//! The topic that takes the dead letters of a Consumer with `shards`: whether it is there. I/O.
//!
//! Nobody makes it here, as the topic beside it is somebody else's. Without it the first record that cannot be applied holds the batch that it
//! is in, and with it every partition of its shard, so a person is to hear of it before that.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;
use understudy_api::Consumer;
use understudy_api::conditions::Claim;
use understudy_kafka::{AdminError, dead_letter_topic};

use super::build::Resolved;
use crate::context::Context;
use crate::controllers::queue::{Again, chain};
use crate::events::Reason;

/// The topic of dead letters is there.
pub const LETTERS_READY: &str = "DeadLettersReady";
/// Why [`LETTERS_READY`] does not hold.
pub const TOPIC_MISSING: &str = "TopicMissing";

/// One that is there is looked for this often.
const EVERY: Duration = Duration::from_secs(300);
/// One that is not, or may not be.
const SOON: Duration = Duration::from_secs(30);

/// What was found of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letters {
    /// It is there.
    Present {
        /// Its name.
        topic: String,
    },
    /// The brokers answer, and have none of this name.
    Missing {
        /// The name.
        topic: String,
    },
    /// The brokers gave no answer; why.
    Unknown(String),
}

/// The outcome of a look, and when the next one is due.
#[derive(Clone, Debug)]
pub struct Look {
    /// None when none was due, so that the last finding stands, or when there is nothing to look for.
    pub found: Option<Letters>,
    /// When to look again.
    pub again: Again,
}

impl Letters {
    /// From what the brokers said when they were asked for the ends of the topic.
    pub fn of(topic: String, ends: &Result<BTreeMap<i32, i64>, AdminError>) -> Self {
        match ends {
            Ok(_) => Self::Present { topic },
            Err(AdminError::NoSuchTopic(_)) => Self::Missing { topic },
            Err(error) => Self::Unknown(chain(error)),
        }
    }

    /// The condition of the Consumer.
    pub fn claim(&self) -> Claim {
        match self {
            Self::Present { topic } => Claim::yes(LETTERS_READY, "Present", format!("topic {topic}")),
            Self::Missing { topic } => Claim::no(LETTERS_READY, TOPIC_MISSING, without(topic)),
            Self::Unknown(why) => Claim::unknown(LETTERS_READY, "KafkaUnreachable", why.clone()),
        }
    }
}

/// What is to be said when there is no such topic.
fn without(topic: &str) -> String {
    format!("there is no topic {topic}: the first record that cannot be applied stops all partitions of its shard")
}

/// What is to be said of a topic that is not there, by this look or by the last one.
pub fn missing(consumer: &Consumer, found: Option<&Letters>) -> Option<String> {
    match found {
        Some(Letters::Missing { topic }) => Some(without(topic)),
        Some(Letters::Present { .. } | Letters::Unknown(_)) => None,
        None => {
            let known = consumer.status.iter().flat_map(|status| &status.conditions);
            let mut known = known.filter(|known| known.type_ == LETTERS_READY && known.reason == TOPIC_MISSING);
            known.next().map(|known| known.message.clone())
        }
    }
}

/// Looks for the topic, if that is due. That of a Datastore is the Datastore's.
pub async fn look(consumer: &Consumer, resolved: &Resolved, context: &Context) -> Look {
    if consumer.spec.shards.is_none() {
        return Look { found: None, again: EVERY };
    }
    let generation = consumer.metadata.generation.unwrap_or_default();
    let what = format!("dead letters of {}/{generation}", consumer.uid().unwrap_or_default());
    let tried = format!("{what}, tried");
    if !context.recent.is_due(&what, EVERY) {
        return Look { found: None, again: EVERY };
    }
    if !context.recent.is_due(&tried, SOON) {
        return Look { found: None, again: SOON };
    }
    let topic = dead_letter_topic(&resolved.kafka.topic);
    let ends = context.topics.ends(&resolved.kafka.bootstrap_servers, &topic).await;
    context.recent.looked(tried);
    let found = Letters::of(topic, &ends);
    let again = match &found {
        Letters::Present { .. } => {
            context.recent.looked(what);
            EVERY
        }
        Letters::Missing { topic } => {
            context.events.say(consumer, Reason::TopicMissing, without(topic));
            SOON
        }
        Letters::Unknown(why) => {
            context.events.say(consumer, Reason::KafkaUnreachable, why.clone());
            SOON
        }
    };
    Look { found: Some(found), again }
}
