//! What can be done to a replica, a node or a part, and from whom something can be cut off. Pure.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A fault. The letters are the rows of the fault matrix: A must lead to a failover, B must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A1: SIGKILL of mysqld, of all processes of a pod, or of a part.
    Kill,
    /// A2: SIGSTOP of mysqld, of all processes of a pod, or of a part.
    Freeze,
    /// A3: every process of the pod stands still, the instance manager too (cgroup freezer).
    FreezePod,
    /// A3: every process of the node stands still, as when a VM is paused (cgroup freezer).
    NodeFreeze,
    /// A4: mysqld takes logins, and no statement opens a table: mutexes of its own that nobody gives back. fsync works.
    Deadlock,
    /// A4: as `deadlock`, and whoever connects is not even greeted.
    Mute,
    /// A5: reads and writes of the replica's volume hang (one byte a second).
    Stall,
    /// A6: the replica's volume takes no writes (fsfreeze): reads answer, commits hang.
    Wedge,
    /// A7: the replica's disk answers reads and writes with EIO.
    Eio,
    /// A7: the replica's file system turns read-only, as ext4 does it after an error.
    ReadOnly,
    /// A8: the replica's disk gets a few operations a second (--iops).
    Slow,
    /// A9, A10: the node vanishes (SIGKILL of everything on it).
    NodeLoss,
    /// A11: all nodes of --zone vanish.
    ZoneLoss,
    /// A12, B1, B2: packets between the target and --from are dropped, both ways; with --flap each second on and off.
    Cut,
    /// A17: the replica's volume is filled to its last block.
    DiskFull,
    /// A18: the kernel kills mysqld for want of memory, again and again.
    Oom,
    /// The node loses its cable.
    Isolate,
    /// B4: connections that say nothing, until the server takes no more (error 1040).
    ExhaustConnections,
    /// B5: an open transaction and an ALTER TABLE behind it, on the newest table of the store.
    LongDdl,
    /// B7: big sorts and temporary tables, and big transactions that are rolled back.
    HeavyQueries,
    /// B8: pauses of one to two seconds, --times of them.
    Stutter,
    /// B10: the processes of a pod see a clock that is ahead or behind (--by).
    ClockJump,
    /// B11: every Kafka broker stands still.
    KafkaDown,
    /// A14, B3: the control plane's processes are gone.
    ApiDown,
    /// B15: the cluster's DNS stands still.
    DnsDown,
    /// B15: no node has an image of the product any more, and nobody gives it: what runs goes on, what is new does not start.
    ImagePull,
    /// B16: one standby says that its primary is down: its new connections to that one are refused; with --flap each second on and off.
    Lie,
    /// B17: a standby has a transaction that nobody else has.
    Errant,
    /// B17: a standby applies everything an hour late.
    Lag,
    /// B17: a standby lacks a row that its primary changes, so its applier stops.
    BreakReplication,
    /// B17: what a standby has received and not applied yet is written over on its disk.
    Corrupt,
    /// B13: as `slow`, on every volume of the lab.
    SlowAll,
    /// B14: the node is cordoned and its pods are evicted.
    Drain,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// From whom something is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// The three brokers.
    Kafka,
    /// Everybody who talks MySQL to it, but the operator and the shard's other replicas.
    Clients,
    /// Every instance of the operator.
    Operator,
    /// The shard's other replicas that are not primary.
    Standbys,
    /// The shard's primary.
    Primary,
    /// The API server.
    Api,
    /// Everything that is not on the same node, and for a pod every other pod.
    All,
}

/// What a fault takes beside its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// For `cut`.
    pub from: Vec<Peer>,
    /// For `cut` and `lie`: one second on, one second off.
    pub flap: bool,
    /// For `stutter`: how many pauses.
    pub times: u32,
    /// For `slow`: reads and writes a second, each.
    pub iops: u32,
    /// For `clock-jump`: seconds ahead, or behind when negative.
    pub by: i32,
    /// Undo it before its time when standard input ends.
    pub until_eof: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { from: vec![Peer::All], flap: false, times: 10, iops: 20, by: 3600, until_eof: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_of_every_kind_what_it_does_and_how_it_is_undone() {
        let page = include_str!("../../README.md");
        for kind in Kind::value_variants() {
            let name = format!("`{kind}`");
            let is_told = |line: &str| {
                let cells: Vec<_> = line.split(" | ").collect();
                cells.len() == 4 && cells[0].trim_start_matches("| ").split(", ").any(|cell| cell == name)
            };
            assert!(page.lines().any(is_told), "{name}");
        }
    }

    #[test]
    fn every_kind_is_called_on_the_command_line_as_the_fault_matrix_calls_it() {
        let names: Vec<_> = Kind::value_variants().iter().map(Kind::to_string).collect();
        let wanted = "kill freeze freeze-pod node-freeze deadlock mute stall wedge eio read-only slow node-loss zone-loss cut disk-full oom \
                      isolate exhaust-connections long-ddl heavy-queries stutter clock-jump kafka-down api-down dns-down image-pull \
                      lie errant lag break-replication corrupt slow-all drain";
        assert_eq!(names, wanted.split_whitespace().collect::<Vec<_>>());
    }
}
