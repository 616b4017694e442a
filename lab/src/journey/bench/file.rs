//! The file of a bench: what was measured, on which machine and of which commit, and where a bench that is started again goes on.
//! Pure, but for [`Header::here`].

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::judge::Judgement;
use super::machine::{self, Machine};
use super::rows::{Row, Suite};
use crate::paths::Paths;

/// All of it, as it is on disk: one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// What was measured, where.
    #[serde(flatten)]
    pub header: Header,
    /// The rows as they were when the file was written last.
    pub rows: Vec<Described>,
    /// Every run, in the order in which they ended.
    pub runs: Vec<Run>,
    /// Runs that could not be brought to their end. They count as nothing, but for primaries that were changed and should not have been.
    pub broken: Vec<Broken>,
}

/// What holds for a whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Which command wrote it.
    pub bench: Suite,
    /// Where.
    pub machine: Machine,
    /// Of what the lab runs.
    pub versions: BTreeMap<String, String>,
    /// When it was begun, or gone on with.
    #[serde(flatten)]
    pub revision: Revision,
    /// Samples a second.
    pub rate: u64,
}

/// What was measured. Only runs of the same revision are compared with each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Of this repository.
    pub commit: String,
    /// Whether the checkout differed from that commit.
    #[serde(default)]
    pub dirty: bool,
    /// A hash of how it differed. Older files have none.
    #[serde(default)]
    pub changes: Option<String>,
    /// The product's image that ran, of which the tag is a hash of what is in it. Empty in older files.
    #[serde(default)]
    pub image: String,
}

/// A row, for whoever reads the file alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// Its number.
    pub row: String,
    /// Its name.
    pub fault: String,
    /// In words.
    pub what: String,
    /// What must come of it.
    pub must: String,
    /// Causes that a record may name; any, where there is none.
    pub causes: Vec<String>,
    /// p99 aimed at.
    pub write_gap_aim_s: Option<f64>,
    /// p99 aimed at.
    pub ack_gap_aim_s: Option<f64>,
}

/// One run. Times in seconds from the fault on, unless they say otherwise; unset where there was no such thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Number of the row.
    pub row: String,
    /// Name of the row.
    pub fault: String,
    /// Counted from 0 within the row and commit.
    pub index: usize,
    /// Of what.
    #[serde(flatten)]
    pub revision: Revision,
    /// What chance was drawn from: the moment of the fault.
    pub seed: u32,
    /// When it began, in UTC.
    pub started_at: String,
    /// Who was hit.
    pub subject: String,
    /// Shards that were hit.
    pub shards: Vec<String>,
    /// How long the fault lasted at most, each time.
    pub hold_s: f64,
    /// What it counts as.
    pub injections: u32,
    /// How far the best standby was behind at the fault.
    pub lag_s: Option<f64>,
    /// How long nobody could do anything about it, because the API server was away. Older files have none.
    #[serde(default)]
    pub excused_s: Option<f64>,
    /// Until the verdict was Stuck or Gone, or an epoch was claimed.
    pub detect_s: Option<f64>,
    /// Until an epoch was claimed.
    pub claim_s: Option<f64>,
    /// Until another replica was primary; of several shards the last.
    pub promote_s: Option<f64>,
    /// Until nothing was missing any more, when something was.
    pub rebuild_s: Option<f64>,
    /// Longest time in which no send was acknowledged.
    pub ack_gap_s: Option<f64>,
    /// Longest time between two commits on a shard that was hit.
    pub write_gap_s: Option<f64>,
    /// Longest time in which the newest readable sample did not advance.
    pub visible_gap_s: Option<f64>,
    /// From the publication of the new primary to the last answer of the query API that was stale.
    pub stale_read_s: Option<f64>,
    /// Answers of the query API that were stale.
    pub stale_answers: u64,
    /// Of how many after a change of primary that say whose they are. Older files have none.
    #[serde(default)]
    pub answers_after_change: Option<u64>,
    /// From the claim to the last read that the old primary answered to a client of its own.
    pub direct_read_s: Option<f64>,
    /// From the claim to the last write that it took from one.
    pub direct_write_s: Option<f64>,
    /// How many such writes it took.
    pub direct_writes: Option<u64>,
    /// Samples acknowledged.
    pub acked: u64,
    /// Samples of which nobody knows.
    pub unknown: u64,
    /// Acknowledged samples that cannot be read, or are read with another value.
    pub lost: u64,
    /// Samples stored more than once and not by sends that were repeated.
    pub doubled: u64,
    /// Samples stored more than once by sends that were repeated.
    pub explained: u64,
    /// Samples that were read and never sent.
    pub alien: u64,
    /// Records that were stored again after changes of primary.
    pub replayed: i64,
    /// The worst verdict of any shard.
    pub verdict: String,
    /// Verdicts of the shard that was aimed at, in order.
    pub verdicts: Vec<String>,
    /// The cause that the first record of a shard that was hit names.
    pub cause: Option<String>,
    /// Names of the records.
    pub records: Vec<String>,
    /// Changes of primary that the row does not let be.
    pub false_failover: u64,
    /// Times a primary was suspected and confirmed.
    pub near_misses: u64,
    /// Epoch of each shard before.
    pub epochs_before: BTreeMap<String, i64>,
    /// And after.
    pub epochs_after: BTreeMap<String, i64>,
    /// How it came out.
    pub judgement: Judgement,
}

/// A run without an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// Name of the row.
    pub fault: String,
    /// Counted from 0.
    pub index: usize,
    /// Of what.
    #[serde(flatten)]
    pub revision: Revision,
    /// When it began, in UTC.
    pub started_at: String,
    /// What came in between.
    pub why: String,
    /// Changes of primary meanwhile that a row which lets none be does not let be; unset when nobody could tell. Older files have none.
    #[serde(default)]
    pub false_failover: Option<u64>,
}

/// Why a file is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another command wrote it.
    AnotherBench,
    /// It is of another commit, of a checkout that differs from its commit in another way, or of another image.
    AnotherRevision {
        /// Of the file.
        file: String,
        /// Of the checkout and the cluster.
        here: String,
    },
    /// It was measured under another load, on another machine, or with another Kubernetes, Kafka or MySQL.
    Ground,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AnotherBench => write!(
                f,
                "it was written by the other of `bench failover` and `bench benign`: name another file with --out"
            ),
            Self::AnotherRevision { file, here } => write!(
                f,
                "its runs are of {file}, and this is {here}: name another file with --out, or give --append to have both in one"
            ),
            Self::Ground => {
                write!(
                    f,
                    "its runs were made at another rate, on another machine, or with another Kubernetes, Kafka or MySQL: name another file with --out"
                )
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl Header {
    /// Of this machine, this checkout and the image that runs.
    pub fn here(paths: &Paths, bench: Suite, rate: u64, image: String) -> Result<Self> {
        let (commit, changes) = machine::commit(&paths.checkout)?;
        let revision = Revision { commit, dirty: changes.is_some(), changes, image };
        Ok(Self { bench, machine: Machine::here(), versions: machine::versions(paths)?, revision, rate })
    }

    /// Whether figures of both may stand in one file.
    fn shares_ground(&self, other: &Self) -> bool {
        // What is of the product itself may differ, when it is said.
        let around = |header: &Self| {
            let mut versions = header.versions.clone();
            versions.retain(|name, _| name != "Understudy" && name != "image");
            versions
        };
        self.rate == other.rate && self.machine == other.machine && around(self) == around(other)
    }
}

impl Run {
    /// The write gap without the time in which nobody could do anything about it.
    pub fn owed_gap_s(&self) -> Option<f64> {
        Some((self.write_gap_s? - self.excused_s.unwrap_or(0.0)).max(0.0))
    }
}

impl Revision {
    /// The commit, for people.
    pub fn describe(&self) -> String {
        let short: String = self.commit.chars().take(12).collect();
        match &self.changes {
            Some(changes) => format!("{short} with changes {changes}"),
            None if self.dirty => format!("{short} with changes"),
            None => short,
        }
    }

    fn with_image(&self) -> String {
        let image = if self.image.is_empty() { "an unknown image" } else { self.image.as_str() };
        format!("{} in {image}", self.describe())
    }
}

impl Described {
    /// A row.
    pub fn of(row: &Row) -> Self {
        Self {
            row: row.id.to_owned(),
            fault: row.name.to_owned(),
            what: row.what.to_owned(),
            must: row.must_in_words().to_owned(),
            causes: row.causes.iter().map(|cause| (*cause).to_owned()).collect(),
            write_gap_aim_s: row.write_gap_aim,
            ack_gap_aim_s: row.ack_gap_aim,
        }
    }
}

/// The file to go on with: the one that is there, or a new one.
pub fn resume(there: Option<File>, header: Header, append: bool) -> Result<File, Refusal> {
    let Some(there) = there else {
        return Ok(File { header, rows: Vec::new(), runs: Vec::new(), broken: Vec::new() });
    };
    if there.header.bench != header.bench {
        return Err(Refusal::AnotherBench);
    }
    if !there.header.shares_ground(&header) {
        return Err(Refusal::Ground);
    }
    if there.header.revision != header.revision && !append {
        let (file, here) = (there.header.revision.with_image(), header.revision.with_image());
        return Err(Refusal::AnotherRevision { file, here });
    }
    Ok(File { header, ..there })
}

impl File {
    /// What is left to do of so many runs of each row: each with its index, in turns of one run of each row. So a bench that is cut
    /// short has about as many of each, and what the machine does meanwhile falls on all of them. Runs of other revisions do not count.
    pub fn left<'a>(&self, rows: &[&'a Row], runs: usize) -> Vec<(&'a Row, usize)> {
        let is_there = |row: &Row, index: usize| {
            let is_it = |run: &Run| run.fault == row.name && run.index == index && run.revision == self.header.revision;
            self.runs.iter().any(is_it)
        };
        let all = (0..runs).flat_map(|index| rows.iter().map(move |row| (*row, index)));
        all.filter(|(row, index)| !is_there(row, *index)).collect()
    }

    /// Every revision that runs are of, with how many there are, in the order in which they came.
    pub fn revisions(&self) -> Vec<(&Revision, usize)> {
        let mut all: Vec<(&Revision, usize)> = Vec::new();
        for run in &self.runs {
            match all.iter_mut().find(|(revision, _)| **revision == run.revision) {
                Some((_, runs)) => *runs += 1,
                None => all.push((&run.revision, 1)),
            }
        }
        all
    }

    /// Adds the descriptions of rows; what was said of them before is replaced.
    pub fn describe(&mut self, rows: &[&Row]) {
        self.rows.retain(|known| !rows.iter().any(|row| row.name == known.fault));
        self.rows.extend(rows.iter().map(|row| Described::of(row)));
    }
}

/// Reads a file; one that is not of a bench is an error that names it.
pub fn read(path: &Path) -> Result<Option<File>> {
    crate::state::read_json(path)
}

#[cfg(test)]
pub mod tests {
    use super::super::rows::{ROWS, select};
    use super::*;

    /// A checkout that is as its commit, in an image of that.
    pub fn revision(commit: &str) -> Revision {
        Revision { commit: commit.into(), image: format!("understudy:{commit}"), ..Revision::default() }
    }

    /// Of a machine that nobody has.
    pub fn header(commit: &str) -> Header {
        Header {
            bench: Suite::Failover,
            machine: Machine { processor: "P".into(), cores: 2, memory_gib: 8, kernel: "6.1".into() },
            versions: [("MySQL".to_owned(), "9.7.4".to_owned())].into(),
            revision: revision(commit),
            rate: 5000,
        }
    }

    /// A run of `kill` that went well, with this write gap.
    pub fn run(commit: &str, index: usize, write_gap_s: f64) -> Run {
        Run {
            row: "A1".into(),
            fault: "kill".into(),
            index,
            revision: revision(commit),
            seed: u32::MAX,
            started_at: "2026-01-02T03:04:05Z".into(),
            subject: "metrics-0-a".into(),
            shards: vec!["metrics-0".into()],
            hold_s: 0.0,
            injections: 1,
            lag_s: Some(0.5),
            excused_s: None,
            detect_s: Some(0.4),
            claim_s: Some(0.5),
            promote_s: Some(0.9),
            rebuild_s: Some(30.0),
            ack_gap_s: Some(0.2),
            write_gap_s: Some(write_gap_s),
            visible_gap_s: Some(2.0),
            stale_read_s: Some(0.0),
            stale_answers: 0,
            answers_after_change: Some(40),
            direct_read_s: None,
            direct_write_s: Some(0.1),
            direct_writes: Some(0),
            acked: 1000,
            unknown: 0,
            lost: 0,
            doubled: 0,
            explained: 3,
            alien: 0,
            replayed: 7,
            verdict: "Gone(ProcessExited)".into(),
            verdicts: vec!["Gone(ProcessExited)".into(), "Healthy".into()],
            cause: Some("ProcessExited".into()),
            records: vec!["metrics-0-5".into()],
            false_failover: 0,
            near_misses: 0,
            epochs_before: [("metrics-0".to_owned(), 4)].into(),
            epochs_after: [("metrics-0".to_owned(), 5)].into(),
            judgement: Judgement::AsItMust,
        }
    }

    fn with_runs(commit: &str, runs: Vec<Run>) -> File {
        File { runs, ..resume(None, header(commit), false).unwrap() }
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kill.json");
        assert_eq!(read(&path).unwrap(), None);
        let mut file = with_runs("c0ffee", vec![run("c0ffee", 0, 1.5)]);
        file.describe(&select(Suite::Failover, &["kill".into()]).unwrap());
        let why = "the load ended".to_owned();
        let (fault, revision, started_at) = ("kill".to_owned(), revision("c0ffee"), "2026-01-02T03:04:05Z".to_owned());
        let false_failover = Some(0);
        file.broken.push(Broken { fault, index: 1, revision, started_at, why, false_failover });
        crate::state::write_json(&path, &file).unwrap();
        assert_eq!(read(&path).unwrap(), Some(file));
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("kill.json"));
    }

    #[test]
    fn a_bench_that_is_started_again_goes_on_where_it_was() {
        let rows: Vec<_> = ROWS.iter().filter(|row| ["kill", "freeze"].contains(&row.name)).collect();
        let file = with_runs("c0ffee", vec![run("c0ffee", 0, 1.0), run("c0ffee", 2, 1.0), run("0ther", 1, 1.0)]);
        let file = resume(Some(file), header("c0ffee"), false).unwrap();
        let left: Vec<_> = file.left(&rows, 3).into_iter().map(|(row, index)| (row.name, index)).collect();
        assert_eq!(left, [("freeze", 0), ("kill", 1), ("freeze", 1), ("freeze", 2)]);
        assert_eq!(file.left(&rows[..1], 1).len(), 0, "fewer are asked for than there are");
    }

    #[test]
    fn runs_that_cannot_be_compared_are_not_put_into_one_file() {
        let there = || Some(with_runs("c0ffee", vec![run("c0ffee", 0, 1.0)]));
        let (file, here) = ("c0ffee in understudy:c0ffee".to_owned(), "0ther in understudy:0ther".to_owned());
        let other = Refusal::AnotherRevision { file, here };
        assert_eq!(resume(there(), header("0ther"), false), Err(other.clone()));
        assert!(other.to_string().contains("--append"));
        let with = |revision| Header { revision, ..header("c0ffee") };
        let changed = |hash: &str| Revision { dirty: true, changes: Some(hash.into()), ..revision("c0ffee") };
        let old_image = Revision { image: "understudy:old".into(), ..revision("c0ffee") };
        for (case, file, here) in [
            ("a checkout with changes", revision("c0ffee"), changed("1")),
            ("with other changes", changed("1"), changed("2")),
            ("another image of the same commit", revision("c0ffee"), old_image),
        ] {
            let there = resume(None, with(file), false).unwrap();
            let refused = resume(Some(there), with(here), false);
            assert!(matches!(refused, Err(Refusal::AnotherRevision { .. })), "{case}");
        }
        let of = |name: &str, version: &str| {
            let mut header = header("c0ffee");
            header.versions.insert(name.to_owned(), version.to_owned());
            header
        };
        assert_eq!(resume(there(), of("MySQL", "9.7.5"), true), Err(Refusal::Ground));
        assert!(resume(there(), of("Understudy", "0.2.0"), true).is_ok());
        let slower = Header { rate: 1000, ..header("c0ffee") };
        assert_eq!(resume(there(), slower, true), Err(Refusal::Ground));
        let benign = Header { bench: Suite::Benign, ..header("c0ffee") };
        assert_eq!(resume(there(), benign, true), Err(Refusal::AnotherBench));
        let both = resume(there(), header("0ther"), true).unwrap();
        assert_eq!((both.header.revision.commit.as_str(), both.runs.len()), ("0ther", 1));
        let kill = select(Suite::Failover, &["kill".into()]).unwrap();
        assert_eq!(both.left(&kill, 1).len(), 1, "what another commit did is to be done again");
    }

    #[test]
    fn a_commit_is_short_for_people_and_says_when_it_is_not_all() {
        let clean = revision("0123456789abcdef");
        assert_eq!(clean.describe(), "0123456789ab");
        let changed = Revision { dirty: true, changes: Some("77".into()), ..clean.clone() };
        assert_eq!(changed.describe(), "0123456789ab with changes 77");
        assert_eq!(Revision { changes: None, ..changed }.describe(), "0123456789ab with changes");
    }

    #[test]
    fn a_file_of_before_changes_and_images_were_written_down_is_read() {
        let mut text = serde_json::to_value(with_runs("c0ffee", vec![run("c0ffee", 0, 1.0)])).unwrap();
        for at in ["/runs/0", ""] {
            let object = text.pointer_mut(at).and_then(|value| value.as_object_mut()).unwrap();
            object.remove("changes");
            object.remove("image");
        }
        let file: File = serde_json::from_value(text).unwrap();
        assert_eq!(file.runs[0].revision, Revision { commit: "c0ffee".into(), ..Revision::default() });
    }

    #[test]
    fn every_revision_of_a_file_is_counted() {
        let file = with_runs("b", vec![run("a", 0, 1.0), run("b", 0, 1.0), run("a", 1, 1.0)]);
        let (a, b) = (revision("a"), revision("b"));
        assert_eq!(file.revisions(), [(&a, 2), (&b, 1)]);
    }
}
