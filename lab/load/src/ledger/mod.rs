//! The ledger: what a run did and saw, one JSON object a line, only ever appended to.
//!
//! [`writer`] does I/O on a thread of its own. [`reader`] is pure: lines in, [`book::Book`] out; a last line that was cut
//! off by a crash is left out. [`book`] is pure: what the lines add up to, [`sending`] for a batch and [`watched`] for a shard.
//!
//! Rules that keep it honest: a batch is recorded as sent before its first byte leaves; one that got no answer is
//! unknown, never lost and never acknowledged; every failed attempt is recorded, with whether it may have been stored;
//! time is taken from the monotonic clock of the one process that wrote the ledger, wall time stands beside it for people.

pub mod book;
pub mod reader;
pub mod sending;
pub mod watched;
pub mod writer;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::{Batch, Run};

/// Version of the format; a reader refuses any other.
pub const FORMAT: u32 = 2;

/// A moment: microseconds of the monotonic clock since the process began, milliseconds of the wall clock since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub u64, pub i64);

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Answered 2xx.
    Acked,
    /// Answered 4xx other than 429: not to be sent again. Parts of it may be stored.
    Refused,
    /// No such answer until the end of the run.
    Unknown,
}

/// What became of the samples of an attempt that was not answered 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Taken {
    /// None was taken: nobody was reached, or the answer says so.
    Nothing,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// A server that answered for a shard, as the query API names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// The replica.
    pub replica: String,
    /// The epoch in its own table.
    pub epoch: u64,
    /// Whether it was asked as the primary, and not as a standby in its place.
    pub is_primary: bool,
}

/// What a client of one server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Reads a row.
    Read,
    /// Commits a row.
    Write,
}

/// One line. The kind stands outside: a tag inside would keep maps with numbers as keys from being read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Record {
    /// The first line.
    Run {
        /// [`FORMAT`].
        format: u32,
        /// What is sent.
        run: Run,
        /// When the first sample was due.
        at: Stamp,
    },
    /// A batch is about to be sent for the first time.
    Sent {
        /// Which.
        batch: Batch,
        /// How many samples.
        samples: u64,
        /// [`Run::checksum`] of them, in hexadecimal.
        sum: String,
        /// When.
        at: Stamp,
    },
    /// An attempt to send a batch that was not answered 2xx.
    Failed {
        /// Which.
        batch: Batch,
        /// Counted from 1.
        attempt: u32,
        /// Whether it may have been stored.
        taken: Taken,
        /// Status and body, or the error.
        why: String,
        /// When it ended.
        at: Stamp,
    },
    /// A batch needs no further attempt.
    Done {
        /// Which.
        batch: Batch,
        /// How it ended.
        outcome: Outcome,
        /// Attempts made.
        attempts: u32,
        /// When.
        at: Stamp,
    },
    /// A batch was not sent at all, because too many were unanswered already.
    Skipped {
        /// Which.
        batch: Batch,
        /// When it was due.
        at: Stamp,
    },
    /// The route of a shard, as its status shows it.
    Route {
        /// Which.
        shard: String,
        /// The replica.
        primary: String,
        /// `ip:port`.
        address: String,
        /// The epoch.
        epoch: u64,
        /// When it was seen.
        at: Stamp,
    },
    /// The stored offsets of a shard, read through its current primary.
    Stored {
        /// Which.
        shard: String,
        /// The replica that answered.
        replica: String,
        /// The epoch in its own table.
        epoch: u64,
        /// `consumer/topic/partition` to next offset.
        offsets: BTreeMap<String, i64>,
        /// When it was asked.
        asked: Stamp,
        /// When the answer was there.
        at: Stamp,
    },
    /// The stored offsets of a shard could not be read.
    StoredFailed {
        /// Which.
        shard: String,
        /// The replica that was asked.
        replica: String,
        /// The error.
        why: String,
        /// When it was given up.
        at: Stamp,
    },
    /// The newest readable canaries: only groups whose newest is newer than ever before.
    Visible {
        /// Group to timestamp in milliseconds.
        newest: BTreeMap<u64, i64>,
        /// When it was asked.
        asked: Stamp,
        /// When the answer was there.
        at: Stamp,
    },
    /// Which servers gave an answer of the query API, and in what it went back.
    Served {
        /// Shard to the server that answered for it.
        shards: BTreeMap<String, Server>,
        /// Groups whose newest canary is older than one that had been read before this was asked, from the same servers under the
        /// same epochs; none when a standby answered, which may be behind.
        behind: Vec<u64>,
        /// When it was asked.
        asked: Stamp,
        /// When the answer was there.
        at: Stamp,
    },
    /// What a client of one server could do with it, over a connection from before anything happened.
    Direct {
        /// Which shard.
        shard: String,
        /// The server: the primary when the run began, and nobody else after that.
        replica: String,
        /// What it did.
        act: Act,
        /// Why it could not; unset when it could.
        why: Option<String>,
        /// When it was asked.
        asked: Stamp,
        /// When the answer was there.
        at: Stamp,
    },
    /// The query API did not answer.
    VisibleFailed {
        /// Status and body, or the error.
        why: String,
        /// When it was given up.
        at: Stamp,
    },
    /// Which groups are found on which shard.
    Where {
        /// Which.
        shard: String,
        /// Its groups.
        groups: Vec<u64>,
        /// When it was asked.
        at: Stamp,
    },
    /// This process itself did not run, or could not record: nothing can be said about that time.
    Pause {
        /// The last moment it is known to have run.
        from: Stamp,
        /// The first moment it ran again.
        at: Stamp,
    },
    /// The last line of a run that was not cut off.
    End {
        /// When.
        at: Stamp,
    },
}
