//! The topic of a Datastore, with that of its dead letters: made, looked at now and then, and what to say about it. I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;
use understudy_api::{Datastore, conditions};
use understudy_kafka::AdminError;

use super::sharing;
use super::status::{TOPIC_READY, TOPIC_SHARED};
use crate::context::Context;
use crate::controllers::queue::chain;
use crate::events::Reason;
use crate::topics::{Found, Wanted};

/// A topic that is as it should be is looked at this often.
const EVERY: Duration = Duration::from_secs(300);

/// What is known of the topic after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It is as the spec asks.
    Ready,
    /// It is there, and it or that of its dead letters differs: which, and where.
    Differs(String),
    /// It is another Datastore's too: whose, and what then.
    Shared(String),
    /// The brokers gave no answer, or refused.
    Unreachable(String),
}

/// The outcome of a look, or that none was due.
#[derive(Clone, Debug)]
pub struct Look(Option<Fact>);

impl Look {
    /// What was found; `None` when the last finding stands.
    pub fn fact(&self) -> Option<Fact> {
        self.0.clone()
    }

    /// Whether the topic is there.
    pub fn exists(&self) -> bool {
        !matches!(self.0, Some(Fact::Unreachable(_)))
    }

    /// Whether it need not be looked at again soon.
    pub fn is_ready(&self, datastore: &Datastore) -> bool {
        match &self.0 {
            Some(fact) => *fact == Fact::Ready,
            None => datastore.status.as_ref().is_some_and(|status| conditions::holds(&status.conditions, TOPIC_READY)),
        }
    }
}

/// That the topic is that of another Datastore which goes before this one, if so; it is said as well.
pub fn shared(datastore: &Datastore, context: &Context) -> Option<Fact> {
    let all = context.caches.datastores.all();
    let holder = sharing::holder(datastore, all.iter().map(|other| &**other))?;
    let how = sharing::note(datastore, &holder);
    context.events.say(datastore, Reason::TopicShared, how.clone());
    Some(Fact::Shared(how))
}

/// Makes the topic if it is missing and looks at it, if that is due. One that is another's too is left to that one.
pub async fn look(datastore: &Datastore, context: &Context) -> Look {
    if let Some(fact) = shared(datastore, context) {
        return Look(Some(fact));
    }
    let generation = datastore.metadata.generation.unwrap_or_default();
    let what = format!("topic of {}/{generation}", datastore.uid().unwrap_or_default());
    // What was said of it then does not stand any more.
    if !was_shared(datastore) && !context.recent.is_due(&what, EVERY) {
        return Look(None);
    }
    let fact = match context.topics.ensure(&wanted(datastore)).await {
        Ok(found) => {
            if found.created {
                let note = format!("made topic {}", datastore.spec.kafka.topic);
                context.events.say(datastore, Reason::TopicCreated, note);
            }
            of_found(&found)
        }
        Err(error) => Fact::Unreachable(chain(&error)),
    };
    match &fact {
        Fact::Ready => context.recent.looked(what),
        Fact::Differs(how) => {
            context.recent.looked(what);
            context.events.say(datastore, Reason::TopicDiffers, how.clone());
        }
        Fact::Unreachable(why) => context.events.say(datastore, Reason::KafkaUnreachable, why.clone()),
        Fact::Shared(_) => {}
    }
    Look(Some(fact))
}

fn was_shared(datastore: &Datastore) -> bool {
    let mut known = datastore.status.iter().flat_map(|status| &status.conditions);
    known.any(|known| known.type_ == TOPIC_READY && known.reason == TOPIC_SHARED)
}

fn of_found(found: &Found) -> Fact {
    if found.differences.is_empty() { Fact::Ready } else { Fact::Differs(found.differences.join("; ")) }
}

/// The ends of the topic's partitions.
pub async fn ends(datastore: &Datastore, context: &Context) -> Result<BTreeMap<i32, i64>, AdminError> {
    let kafka = &datastore.spec.kafka;
    context.topics.ends(&kafka.bootstrap_servers, &kafka.topic).await
}

fn wanted(datastore: &Datastore) -> Wanted {
    let kafka = &datastore.spec.kafka;
    let hours = u64::try_from(kafka.retention_hours).unwrap_or(1);
    Wanted {
        bootstrap: kafka.bootstrap_servers.clone(),
        topic: kafka.topic.clone(),
        partitions: kafka.partitions,
        replication: kafka.replication_factor,
        min_insync: kafka.min_insync_replicas,
        retention: Duration::from_secs(hours * 3600),
    }
}
