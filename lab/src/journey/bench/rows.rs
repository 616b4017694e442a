//! The fault matrix: every fault that is measured, what must come of it, and what is aimed at. Pure.
//!
//! Rows A must change the primary, rows B must not, and P is the planned change. `operator/docs/fault-matrix.md` shows them with
//! what was measured.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Which command runs a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// `bench failover`.
    Failover,
    /// `bench benign`.
    Benign,
}

/// What must come of a row on the shards that it hits. On all others nothing may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// An unplanned change of primary.
    Failover,
    /// The planned change that was asked for.
    Switchover,
    /// A change of primary, planned or not.
    Change,
    /// A planned change of primary that nobody asked for, and no other.
    Handover,
    /// No change of primary.
    Nothing,
}

/// Whom a fault is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The primary of the shard.
    Primary,
    /// One of its standbys.
    Standby,
    /// The node of its primary.
    Node,
    /// The zone of its primary.
    Zone,
    /// The instance of the operator that acts.
    Operator,
    /// Nobody: it is a fault of the whole lab.
    Lab,
}

/// One fault of the lab, as `cargo lab fault` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub kind: &'static str,
    /// More arguments.
    pub args: &'static [&'static str],
    /// Its target.
    pub aim: Aim,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A fault of the lab.
    Fault(Fault),
    /// Two of them at once.
    Both(Fault, Fault),
    /// SIGKILL of the primary's mysqld, and of its successor's as soon as an epoch is claimed for that.
    KillBoth,
    /// A fault that keeps everybody from acting, and SIGKILL of the primary's mysqld while it lasts.
    KillDuring(Fault),
    /// A Failover object asks for a switchover.
    Switchover,
    /// The primary's pod is deleted, with its grace.
    DeletePod,
    /// A standby's Replica is deleted, so that another is cloned.
    DeleteStandby,
    /// The same while a fault lasts that keeps the other from starting.
    DeleteStandbyDuring(Fault),
    /// So many times the samples that are asked for.
    Load(u64),
    /// Nobody sends anything.
    Idle,
}

/// What is done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepare {
    /// Nothing.
    Nothing,
    /// As many primaries as can be are brought to one node.
    Gather,
    /// The shard hands over, as if a person had asked for it. What a primary was replaced for last, and what is no fault of its own, is
    /// not done for that cause again within 10 min, whatever the cooldown.
    HandOver,
    /// The standbys receive and apply nothing for so long.
    Lag(Duration),
    /// The instance of the operator that acts stands still, for 30 s.
    PauseOperator,
}

/// Which shards are hit with the one that is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// That one alone.
    Shard,
    /// Those whose primary is on the same node.
    Node,
    /// Those whose primary is in the same zone.
    Zone,
    /// All.
    All,
}

/// When a fault is taken out before its time, because whom it was aimed at was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Once everything has been there again for a moment: whoever is set going then is gone.
    Whole,
    /// As soon as another replica is primary: who goes on then finds its office taken.
    Promoted,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its number in the matrix; several variants may share one.
    pub id: &'static str,
    /// The name of the variant, unique in its suite.
    pub name: &'static str,
    /// Which command runs it.
    pub suite: Suite,
    /// In words.
    pub what: &'static str,
    /// What is done before.
    pub prepare: Prepare,
    /// What is done.
    pub act: Act,
    /// What one run counts as: as many faults that the product had to bear.
    pub injections: u32,
    /// How long; zero for what has an end of its own.
    pub hold: Duration,
    /// Never shorter than this, whatever is asked for: less is not what the row says, or shows nothing.
    pub least: Duration,
    /// When it ends sooner.
    pub ends: Ends,
    /// Whom it hits.
    pub hits: Hits,
    /// What must come of it.
    pub must: Must,
    /// Whether the standby that is hit must be replaced.
    pub replaces: bool,
    /// The causes that a record may name; any, where there is none.
    pub causes: &'static [&'static str],
    /// A verdict that the shard that is aimed at must have had: of a fault from which nothing comes, that is how it is known to have been there.
    pub shows: Option<&'static str>,
    /// Write gap aimed at, p99 in seconds; where nobody can act at first, from when somebody can.
    pub write_gap_aim: Option<f64>,
    /// Ack gap aimed at, p99 in seconds; only where nothing but the database is hit.
    pub ack_gap_aim: Option<f64>,
}

/// A number of the matrix that is not measured here, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Its number.
    pub id: &'static str,
    /// In words.
    pub what: &'static str,
    /// Why.
    pub why: &'static str,
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn on_primary(kind: &'static str) -> Fault {
    Fault { kind, args: &[], aim: Aim::Primary }
}

const fn cut(args: &'static [&'static str]) -> Fault {
    Fault { kind: "cut", args, aim: Aim::Primary }
}

const fn on_node(kind: &'static str) -> Fault {
    Fault { kind, args: &[], aim: Aim::Node }
}

const fn on_lab(kind: &'static str) -> Fault {
    Fault { kind, args: &[], aim: Aim::Lab }
}

const fn clock(aim: Aim, args: &'static [&'static str]) -> Fault {
    Fault { kind: "clock-jump", args, aim }
}

const fn stutters(aim: Aim) -> Fault {
    Fault { kind: "stutter", args: &["--times", "100"], aim }
}

const fn on_standby(kind: &'static str) -> Fault {
    Fault { kind, args: &[], aim: Aim::Standby }
}

/// What `main` means: a server that dies, or is stuck in one of four ways, and a node that is lost.
const MAIN: [&str; 6] = ["kill", "freeze", "deadlock", "wedge", "stall", "node-loss"];

/// What most rows A have in common.
const A: Row = Row {
    id: "",
    name: "",
    suite: Suite::Failover,
    what: "",
    prepare: Prepare::Nothing,
    act: Act::Idle,
    injections: 1,
    hold: s(60),
    least: s(0),
    ends: Ends::Whole,
    hits: Hits::Shard,
    must: Must::Failover,
    replaces: false,
    causes: &[],
    shows: None,
    write_gap_aim: None,
    ack_gap_aim: Some(0.5),
};

/// What most rows B have in common.
const B: Row = Row { suite: Suite::Benign, must: Must::Nothing, ack_gap_aim: None, ..A };

/// What a standby that is of no use has in common: it comes to nothing by itself, and another one must be there.
const USELESS: Row = Row { id: "B17", hold: s(0), replaces: true, ..B };

/// One that hangs is replaced after a minute.
const HANGING: Row = Row { hold: s(90), least: s(90), ..USELESS };

/// Every row, in the order of the matrix.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    Row { id: "A1", name: "kill", what: "SIGKILL of mysqld", act: Act::Fault(on_primary("kill")), hold: s(0), causes: &["ProcessExited"], write_gap_aim: Some(3.0), ..A },
    Row { id: "A2", name: "freeze", what: "mysqld is stopped", act: Act::Fault(on_primary("freeze")), causes: &["Stopped"], write_gap_aim: Some(6.0), ..A },
    Row { id: "A2", name: "thaw", what: "mysqld is stopped, and goes on as soon as another is primary", act: Act::Fault(on_primary("freeze")), ends: Ends::Promoted, causes: &["Stopped"], write_gap_aim: Some(6.0), ..A },
    Row { id: "A3", name: "freeze-pod", what: "the pod is frozen, its manager too", act: Act::Fault(on_primary("freeze-pod")), hold: s(30), causes: &["Unreachable", "Stopped"], write_gap_aim: Some(8.0), ..A },
    Row { id: "A3", name: "thaw-pod", what: "the pod is frozen, and goes on as soon as another is primary", act: Act::Fault(on_primary("freeze-pod")), hold: s(30), ends: Ends::Promoted, causes: &["Unreachable", "Stopped"], write_gap_aim: Some(8.0), ..A },
    Row { id: "A3", name: "node-freeze", what: "everything on the node is frozen", act: Act::Fault(on_node("node-freeze")), hold: s(30), hits: Hits::Node, causes: &["Unreachable", "Stopped"], write_gap_aim: Some(8.0), ack_gap_aim: None, ..A },
    Row { id: "A4", name: "deadlock", what: "mysqld takes logins and no statement ends", act: Act::Fault(on_primary("deadlock")), causes: &["Deadlocked"], write_gap_aim: Some(11.0), ..A },
    Row { id: "A4", name: "mute", what: "mysqld takes connections and greets nobody", act: Act::Fault(on_primary("mute")), causes: &["Stopped"], write_gap_aim: Some(6.0), ..A },
    Row { id: "A5", name: "stall", what: "reads and writes of the volume hang", act: Act::Fault(on_primary("stall")), causes: &["VolumeStalled"], write_gap_aim: Some(8.0), ..A },
    Row { id: "A6", name: "wedge", what: "writes of the volume hang, reads go on", act: Act::Fault(on_primary("wedge")), causes: &["VolumeStalled"], write_gap_aim: Some(8.0), ..A },
    Row { id: "A7", name: "eio", what: "the volume answers with errors", act: Act::Fault(on_primary("eio")), causes: &["VolumeFailed", "ProcessExited"], write_gap_aim: Some(4.0), ..A },
    Row { id: "A7", name: "read-only", what: "the volume becomes read-only", act: Act::Fault(on_primary("read-only")), causes: &["VolumeFailed", "ProcessExited"], write_gap_aim: Some(4.0), ..A },
    Row { id: "A8", name: "slow", what: "the volume of one shard is slow", act: Act::Fault(on_primary("slow")), hold: s(150), least: s(120), must: Must::Change, causes: &["SlowVolume", "VolumeStalled"], write_gap_aim: Some(1.0), ..A },
    Row { id: "A9", name: "node-loss", what: "the node vanishes", act: Act::Fault(on_node("node-loss")), hits: Hits::Node, causes: &["Unreachable", "PodStopped"], write_gap_aim: Some(10.0), ack_gap_aim: None, ..A },
    Row { id: "A10", name: "shared-node", what: "a node with several primaries vanishes", prepare: Prepare::Gather, act: Act::Fault(on_node("node-loss")), hits: Hits::Node, causes: &["Unreachable", "PodStopped"], write_gap_aim: Some(10.0), ack_gap_aim: None, ..A },
    Row { id: "A11", name: "zone-loss", what: "all nodes of a zone vanish", act: Act::Fault(Fault { kind: "zone-loss", args: &[], aim: Aim::Zone }), hits: Hits::Zone, causes: &["Unreachable", "PodStopped"], write_gap_aim: Some(15.0), ack_gap_aim: None, ..A },
    Row { id: "A12", name: "cut-clients", what: "the primary is cut off from Kafka and clients", prepare: Prepare::HandOver, act: Act::Both(cut(&["--from", "kafka"]), cut(&["--from", "clients"])), must: Must::Change, causes: &["CutOff"], write_gap_aim: Some(9.0), ..A },
    Row { id: "A12", name: "cut-all", what: "the primary is cut off from everybody", act: Act::Fault(cut(&["--from", "all"])), causes: &["Unreachable"], write_gap_aim: Some(9.0), ..A },
    Row { id: "A13", name: "lagging-standbys", what: "SIGKILL of mysqld while all standbys are 60 s behind", prepare: Prepare::Lag(s(60)), act: Act::Fault(on_primary("kill")), hold: s(0), causes: &["ProcessExited"], ..A },
    Row { id: "A14", name: "kill-without-api", what: "SIGKILL of mysqld while the API server is away for 60 s", act: Act::KillDuring(on_lab("api-down")), least: s(60), causes: &["ProcessExited"], write_gap_aim: Some(13.0), ..A },
    Row { id: "A14", name: "kill-without-api-long", what: "the same while it is away for 15 min", act: Act::KillDuring(on_lab("api-down")), hold: s(900), least: s(900), causes: &["ProcessExited"], write_gap_aim: Some(13.0), ..A },
    Row { id: "A15", name: "paused-operator", what: "SIGKILL of mysqld while the operator that acts stands still", prepare: Prepare::PauseOperator, act: Act::Fault(on_primary("kill")), hold: s(0), causes: &["ProcessExited"], write_gap_aim: Some(13.0), ..A },
    Row { id: "A16", name: "second-failure", what: "SIGKILL of mysqld, and of its successor while that is promoted", act: Act::KillBoth, hold: s(0), causes: &["ProcessExited"], write_gap_aim: Some(12.0), ..A },
    Row { id: "A17", name: "disk-full", what: "the volume is full", act: Act::Fault(on_primary("disk-full")), must: Must::Change, causes: &["VolumeFull", "VolumeFilling", "ProcessExited"], write_gap_aim: Some(8.0), ..A },
    Row { id: "A18", name: "oom", what: "mysqld is killed for memory, again and again", act: Act::Fault(on_primary("oom")), causes: &["ProcessExited", "Restarted"], write_gap_aim: Some(3.0), ..A },
    Row { id: "P1", name: "switchover", what: "another primary is asked for", act: Act::Switchover, hold: s(0), must: Must::Switchover, write_gap_aim: Some(1.0), ..A },

    Row { id: "B1", name: "cut-operator", what: "the operator is cut off from the primary", act: Act::Fault(cut(&["--from", "operator"])), shows: Some("ObserverPartition"), ..B },
    Row { id: "B1", name: "flap-operator", what: "the same, on and off", act: Act::Fault(cut(&["--from", "operator", "--flap"])), ..B },
    Row { id: "B2", name: "cut-standbys", what: "the primary is cut off from its standbys", act: Act::Fault(cut(&["--from", "standbys"])), shows: Some("ObserverPartition"), ..B },
    Row { id: "B3", name: "api-down", what: "the API server is away for 15 min", act: Act::Fault(on_lab("api-down")), hold: s(900), hits: Hits::All, ..B },
    Row { id: "B4", name: "exhaust-connections", what: "clients take all connections", act: Act::Fault(on_primary("exhaust-connections")), shows: Some("Saturated"), ..B },
    Row { id: "B5", name: "long-ddl", what: "a change of a table holds its lock for 10 min", act: Act::Fault(on_primary("long-ddl")), hold: s(600), ..B },
    Row { id: "B6", name: "saturation", what: "ten times the load", act: Act::Load(10), hold: s(120), hits: Hits::All, ..B },
    Row { id: "B7", name: "heavy-queries", what: "heavy queries and big rollbacks", act: Act::Fault(on_primary("heavy-queries")), hold: s(120), ..B },
    Row { id: "B8", name: "stutter", what: "pauses of 1 to 2 s of mysqld", act: Act::Fault(stutters(Aim::Primary)), hold: s(0), injections: 100, ..B },
    Row { id: "B8", name: "node-stutter", what: "pauses of 1 to 2 s of the node", act: Act::Fault(stutters(Aim::Node)), hold: s(0), injections: 100, hits: Hits::Node, ..B },
    Row { id: "B8", name: "operator-stutter", what: "pauses of 1 to 2 s of the operator that acts", act: Act::Fault(stutters(Aim::Operator)), hold: s(0), injections: 100, hits: Hits::All, ..B },
    Row { id: "B10", name: "clock-jump", what: "the clock of the primary jumps an hour ahead", act: Act::Fault(clock(Aim::Primary, &["--by=1h"])), ..B },
    Row { id: "B10", name: "clock-back", what: "the clock of the primary jumps an hour back", act: Act::Fault(clock(Aim::Primary, &["--by=-1h"])), ..B },
    Row { id: "B10", name: "operator-clock-jump", what: "the clock of the operator that acts jumps an hour ahead", act: Act::Fault(clock(Aim::Operator, &["--by=1h"])), hits: Hits::All, ..B },
    Row { id: "B10", name: "operator-clock-back", what: "the clock of the operator that acts jumps an hour back", act: Act::Fault(clock(Aim::Operator, &["--by=-1h"])), hits: Hits::All, ..B },
    Row { id: "B11", name: "kafka-down", what: "Kafka is away for 5 min", act: Act::Fault(on_lab("kafka-down")), hold: s(300), hits: Hits::All, ..B },
    Row { id: "B12", name: "idle", what: "no data for 10 min", act: Act::Idle, hold: s(600), hits: Hits::All, ..B },
    Row { id: "B13", name: "slow-all", what: "the volumes of all shards are slow", act: Act::Fault(on_lab("slow-all")), hold: s(120), hits: Hits::All, ..B },
    Row { id: "B14", name: "drain", what: "the primary's node is drained", act: Act::Fault(on_node("drain")), hits: Hits::Node, must: Must::Handover, write_gap_aim: Some(1.0), ..B },
    Row { id: "B14", name: "restart", what: "the primary's pod is deleted, with its grace", act: Act::DeletePod, must: Must::Handover, write_gap_aim: Some(1.0), ..B },
    Row { id: "B15", name: "dns-down", what: "no name is resolved", act: Act::Fault(on_lab("dns-down")), hits: Hits::All, ..B },
    Row { id: "B15", name: "image-pull", what: "a standby is replaced, and the image of the new one cannot be pulled", act: Act::DeleteStandbyDuring(on_lab("image-pull")), ..B },
    Row { id: "B16", name: "lie", what: "one observer says that the primary refuses it", act: Act::Fault(on_standby("lie")), shows: Some("ObserverPartition"), ..B },
    Row { id: "B16", name: "flap-lie", what: "the same, on and off", act: Act::Fault(Fault { kind: "lie", args: &["--flap"], aim: Aim::Standby }), ..B },
    Row { name: "standby-kill", what: "SIGKILL of a standby's mysqld", act: Act::Fault(on_standby("kill")), ..USELESS },
    Row { name: "standby-freeze", what: "a standby's mysqld is stopped", act: Act::Fault(on_standby("freeze")), ..HANGING },
    Row { name: "standby-wedge", what: "writes of a standby's volume hang", act: Act::Fault(on_standby("wedge")), ..HANGING },
    Row { name: "standby-errant", what: "a standby has a transaction that nobody else has", act: Act::Fault(on_standby("errant")), ..USELESS },
    Row { name: "standby-lag", what: "a standby applies everything an hour late, for longer than it is given", act: Act::Fault(on_standby("lag")), hold: s(780), least: s(780), ..USELESS },
    Row { name: "standby-broken", what: "a standby lacks rows that its primary changes", act: Act::Fault(on_standby("break-replication")), ..USELESS },
    Row { name: "standby-corrupt", what: "the relay log of a standby is damaged", act: Act::Fault(on_standby("corrupt")), ..USELESS },
    Row { id: "B18", name: "clone", what: "a standby is cloned at full speed", act: Act::DeleteStandby, hold: s(30), ..B },
];

/// What the matrix has and this lab has not.
pub const LEFT: &[Left] = &[Left {
    id: "B9",
    what: "packets are lost or late",
    why: "the kernel of the lab has no netem, and nothing else drops single packets",
}];

impl Act {
    /// The faults of the lab that are put in together.
    pub fn faults(self) -> Vec<Fault> {
        match self {
            Self::Fault(fault) => vec![fault],
            Self::Both(one, other) => vec![one, other],
            Self::KillDuring(fault) | Self::DeleteStandbyDuring(fault) => vec![fault],
            Self::KillBoth => vec![on_primary("kill")],
            Self::Switchover | Self::DeletePod | Self::DeleteStandby | Self::Load(_) | Self::Idle => Vec::new(),
        }
    }
}

impl Prepare {
    /// Whether it changes primaries itself, which is no fault of anybody.
    pub fn changes_primaries(self) -> bool {
        matches!(self, Self::Gather | Self::HandOver)
    }
}

impl Row {
    /// How long it is held when no fault is to be held for longer than `limit`.
    pub fn held(&self, limit: Option<Duration>) -> Duration {
        limit.map_or(self.hold, |limit| self.hold.min(limit).max(self.least))
    }

    /// Whether the shards that it hits must get another primary.
    pub fn owes_change(&self) -> bool {
        self.must != Must::Nothing
    }

    /// What must come of it, for people.
    pub fn must_in_words(&self) -> &'static str {
        match self.must {
            Must::Failover => "failover",
            Must::Switchover => "switchover",
            Must::Change => "failover or switchover",
            Must::Handover => "a switchover",
            Must::Nothing => "nothing",
        }
    }
}

/// The rows of a suite that are meant by names or numbers, in the order of the matrix; `main` means the main ones, `all` all of them.
pub fn select(suite: Suite, asked: &[String]) -> Result<Vec<&'static Row>> {
    let of_suite = || ROWS.iter().filter(move |row| row.suite == suite);
    let is_main = |row: &Row| MAIN.contains(&row.name);
    let means = |asked: &str, row: &Row| {
        asked == "all" || (asked == "main" && is_main(row)) || asked == row.name || asked.eq_ignore_ascii_case(row.id)
    };
    for name in asked {
        if let Some(left) = LEFT.iter().find(|left| left.id.eq_ignore_ascii_case(name)) {
            bail!("{} ({}) is not measured in this lab: {}", left.id, left.what, left.why);
        }
        let known: Vec<_> = of_suite().map(|row| row.name).collect();
        ensure!(
            of_suite().any(|row| means(name, row)),
            "there is no fault `{name}` here: use all, or some of {}",
            known.join(",")
        );
    }
    Ok(of_suite().filter(|row| asked.iter().any(|name| means(name, row))).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(suite: Suite, asked: &str) -> Option<Vec<&'static str>> {
        let asked: Vec<_> = asked.split(',').map(str::to_owned).collect();
        select(suite, &asked).ok().map(|rows| rows.into_iter().map(|row| row.name).collect())
    }

    #[test]
    fn every_number_of_the_matrix_has_a_row_or_a_reason() {
        for (letter, suite) in [('A', Suite::Failover), ('B', Suite::Benign)] {
            for number in 1..=18 {
                let id = format!("{letter}{number}");
                let rows = ROWS.iter().filter(|row| row.id == id && row.suite == suite).count();
                let reasons = LEFT.iter().filter(|left| left.id == id).count();
                assert!((rows > 0) != (reasons == 1), "{id}: {rows} rows, {reasons} reasons");
            }
        }
    }

    #[test]
    fn names_are_unique_in_their_suite_and_rows_are_whole() {
        for suite in [Suite::Failover, Suite::Benign] {
            let all: Vec<_> = ROWS.iter().filter(|row| row.suite == suite).map(|row| row.name).collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
        for row in ROWS {
            assert!(!row.id.is_empty() && !row.name.is_empty() && !row.what.is_empty(), "{row:?}");
            assert!(!row.what.contains('|') && row.injections > 0, "{row:?}");
            let may_change = matches!(row.must, Must::Failover | Must::Switchover | Must::Change);
            assert_eq!(may_change, row.suite == Suite::Failover, "{row:?}");
            assert!(row.act != Act::Idle || row.name == "idle", "{row:?}");
            let is_of_standby = row.act.faults().first().is_some_and(|fault| fault.aim == Aim::Standby);
            assert!(!row.replaces || is_of_standby, "{row:?}");
            assert!(row.least <= row.hold, "{row:?}");
            assert!(row.ends == Ends::Whole || row.must == Must::Failover, "{row:?}");
        }
    }

    #[test]
    fn no_row_is_held_for_less_than_it_takes_to_show_anything() {
        let row = |name: &str| ROWS.iter().find(|row| row.name == name).unwrap();
        for (name, limit, expected) in [
            ("freeze", None, 60),
            ("freeze", Some(25), 25),
            ("freeze", Some(90), 60),
            ("kill", Some(25), 0),
            ("kill-without-api", Some(25), 60),
            ("standby-lag", Some(25), 780),
            ("standby-freeze", Some(25), 90),
        ] {
            assert_eq!(row(name).held(limit.map(s)), s(expected), "{name}, {limit:?}");
        }
    }

    #[test]
    fn rows_are_chosen_by_name_by_number_or_all_at_once() {
        assert_eq!(names(Suite::Failover, "freeze,kill"), Some(vec!["kill", "freeze"]));
        assert_eq!(names(Suite::Failover, "a7"), Some(vec!["eio", "read-only"]));
        assert_eq!(names(Suite::Benign, "B17,idle").map(|rows| rows.len()), Some(8));
        assert_eq!(names(Suite::Failover, "main").map(|rows| rows.len()), Some(MAIN.len()));
        assert_eq!(names(Suite::Benign, "main"), None);
        let all = |suite| names(suite, "all").map_or(0, |rows| rows.len());
        assert_eq!(all(Suite::Failover) + all(Suite::Benign), ROWS.len());
        for wrong in ["kil", "A19", "B1", ""] {
            assert_eq!(names(Suite::Failover, wrong), None, "{wrong}");
        }
        assert!(select(Suite::Benign, &["B9".into()]).unwrap_err().to_string().contains("netem"));
    }
}
