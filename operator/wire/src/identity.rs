//! Names and the epoch, as types of their own so that they cannot be confused. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Takes a name that the API server has already validated.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as Kubernetes spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A shard, by the name of its Shard object.
    ShardName
}
name! {
    /// A replica, by the name that its Replica object, pod and volume share; never reused.
    ReplicaName
}

/// Counter per shard; each promotion adds one. An answer under a lower epoch than the highest known one is not accepted. What is read
/// from others is no higher than [`Epoch::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Epoch(pub u64);

/// A number that is no epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no epoch: the status of a Shard cannot hold it")]
pub struct NoEpoch(u64);

impl Epoch {
    /// The highest that the status of a Shard, whose numbers are signed, can hold.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());

    /// The epoch that a promotion out of this one takes.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TryFrom<u64> for Epoch {
    type Error = NoEpoch;

    fn try_from(number: u64) -> Result<Self, NoEpoch> {
        if number > Self::MAX.0 { Err(NoEpoch(number)) } else { Ok(Self(number)) }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_that_a_status_cannot_hold_is_read_as_an_epoch() {
        for (case, text, expected) in [
            ("none was claimed yet", "0", Some(Epoch(0))),
            ("an ordinary one", "7", Some(Epoch(7))),
            ("the highest", "9223372036854775807", Some(Epoch::MAX)),
            ("one more", "9223372036854775808", None),
            ("all bits set", "18446744073709551615", None),
            ("a negative one", "-1", None),
        ] {
            assert_eq!(serde_json::from_str::<Epoch>(text).ok(), expected, "{case}");
        }
        assert_eq!(serde_json::to_string(&Epoch(7)).unwrap(), "7", "it is written as it is read");
    }
}
