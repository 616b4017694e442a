//! What keeps a partition from going on, and what a person does about it. Pure.

use understudy_kafka::Origin;

/// Why a partition cannot go on. The others do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Offsets are missing in the middle of the log.
    #[error("offset {expected} is missing from the topic, the next one there is {got}")]
    Gap {
        /// Wanted.
        expected: i64,
        /// Delivered.
        got: i64,
    },
    /// Kafka's retention deleted what was not stored yet.
    #[error("offset {wanted} is next to store and no longer in the topic, whose earliest is {earliest}")]
    Deleted {
        /// Wanted.
        wanted: i64,
        /// There.
        earliest: i64,
    },
    /// The log ended before what was taken of it: it lost records. It may have grown past it since, with others.
    #[error("offset {wanted} is next to store, but the topic was seen to end at {end}: it lost records")]
    Ended {
        /// Wanted.
        wanted: i64,
        /// The highest that the end can have been then.
        end: i64,
    },
    /// What is stored was read from another topic.
    #[error(
        "what is stored was read from the {stored}, and the topic of that name is now the {found}: it was made anew"
    )]
    Replaced {
        /// As the row says.
        stored: Origin,
        /// As the brokers say.
        found: Origin,
    },
    /// The offset was stored with what is in another schema: of the one that is written here it says nothing.
    #[error(
        "the row's offset was stored with what is in the schema {stored}, and this consumer writes the schema {written}"
    )]
    Schema {
        /// As the row says.
        stored: String,
        /// What is written here.
        written: String,
    },
    /// The placement was changed below what is stored already.
    #[error("the placement gives this shard nothing from offset {until} on, but it has stored up to {stored}")]
    Overrun {
        /// Where it should have stopped.
        until: i64,
        /// Where it is.
        stored: i64,
    },
    /// An owner before said that another shard is fed from here on, and the placement as this process knows it says nothing of that.
    #[error(
        "the row says that another shard is fed from offset {until} on, and the placement as it is known here does not"
    )]
    Moved {
        /// Where it stops.
        until: i64,
    },
}

impl Fault {
    /// A word from a closed set: it labels metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::Deleted { .. } => "deleted",
            Self::Ended { .. } => "ended",
            Self::Replaced { .. } => "replaced",
            Self::Schema { .. } => "schema",
            Self::Overrun { .. } => "overrun",
            Self::Moved { .. } => "moved",
        }
    }

    /// What is done next, and by whom.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Gap { .. } => {
                "it is tried again every few seconds; if it lasts, see \"When a partition stands\" in ingest/docs/consumer.md"
            }
            Self::Overrun { .. } => "nothing is missing; what lies between the two offsets is in both shards",
            Self::Moved { .. } => {
                "it passes when this pod hears of the move; if it lasts, see \"When a partition stands\" in ingest/docs/consumer.md"
            }
            Self::Deleted { .. } => {
                "what lies between is lost: set next_offset to the earliest, or start: Earliest if this Consumer never read it"
            }
            Self::Schema { .. } => {
                "a Consumer that writes another schema needs another name or group; see \"When a partition stands\" in ingest/docs/consumer.md"
            }
            Self::Ended { .. } | Self::Replaced { .. } => {
                "it stands until a person says from where to go on: \"When a partition stands\" in ingest/docs/consumer.md"
            }
        }
    }
}
