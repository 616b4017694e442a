//! Why replicas are condemned, and what follows from the reason. Pure.

use strum::{Display, EnumIter, IntoEnumIterator, IntoStaticStr};

/// Why a replica is condemned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, EnumIter, IntoStaticStr)]
pub enum Sentence {
    /// It was the primary of a failover.
    FailedOver,
    /// It has transactions that the primary lacks.
    Errant,
    /// Its server or its pod ended.
    Exited,
    /// Its manager has been silent for too long.
    Lost,
    /// Its volume holds something that is not a complete data directory.
    Unusable,
    /// It is there and of no use: its volume hangs, its server does not answer its own manager, or it comes no further while it is filled
    /// or starts.
    Stuck,
    /// It is far behind and comes no closer, while another standby keeps up.
    Lagging,
    /// Its replication is broken for good.
    ReplicationBroken,
    /// Its volume fails.
    VolumeFailed,
    /// Its pod cannot be placed, and it holds no data.
    Unplaceable,
    /// There are more replicas than asked for.
    ScaledDown,
    /// It was to be the first primary, and failed before it served: its volume holds nothing that anybody wrote.
    NeverServed,
    /// It was to be the first primary, or the next that could have been, and its manager has been silent for too long.
    LostUnserved,
}

impl Sentence {
    /// Whether the one that is made instead may well end the same way, and another one as well: the cause need not be the
    /// replica's own.
    pub fn is_soft(self) -> bool {
        match self {
            Self::Exited
            | Self::Lost
            | Self::Unusable
            | Self::Stuck
            | Self::Lagging
            | Self::ReplicationBroken
            | Self::Unplaceable => true,
            Self::FailedOver
            | Self::Errant
            | Self::VolumeFailed
            | Self::ScaledDown
            | Self::NeverServed
            | Self::LostUnserved => false,
        }
    }

    /// Whether a replica that was condemned for this reason failed by itself. A primary that was killed, or a node that was lost, says
    /// nothing of the next replica.
    pub fn failed_by_itself(reason: &str) -> bool {
        let own = |sentence: &Self| match sentence {
            Self::Exited
            | Self::Errant
            | Self::Unusable
            | Self::Stuck
            | Self::Lagging
            | Self::ReplicationBroken
            | Self::VolumeFailed
            | Self::Unplaceable
            | Self::NeverServed => true,
            Self::FailedOver | Self::Lost | Self::LostUnserved | Self::ScaledDown => false,
        };
        Self::iter().filter(own).any(|sentence| reason == <&str>::from(sentence))
    }

    /// Whether a replica that was condemned for this reason is known never to have served.
    pub fn never_served(reason: &str) -> bool {
        [Self::NeverServed, Self::LostUnserved].iter().any(|sentence| reason == <&str>::from(sentence))
    }

    /// Whether nobody heard of it any more.
    pub fn was_lost(reason: &str) -> bool {
        [Self::Lost, Self::LostUnserved].iter().any(|sentence| reason == <&str>::from(sentence))
    }
}
