//! The figures of a run. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use understudy_lab_outcome::Direct;

use super::compare::Findings;
use crate::gaps::{Gap, Start, longest, quantile, seconds, worst};
use crate::ledger::Outcome;
use crate::ledger::book::Book;
use crate::stale;

/// All figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The run's name.
    pub run: String,
    /// Counted samples per second asked for; canaries come on top.
    pub rate: u64,
    /// From the first send to the last.
    pub sending_seconds: f64,
    /// Whether the ledger has its last line; without it the run was cut off, and its figures end there.
    pub ledger_complete: bool,
    /// Samples.
    #[serde(flatten)]
    pub samples: Samples,
    /// Acknowledged and not to be found, or not with every bit. Must be 0.
    pub lost: u64,
    /// Found more than once, beyond [`Samples::explained`]. Must be 0.
    pub doubled: u64,
    /// Found and never sent. Must be 0.
    pub alien: u64,
    /// How long samples were still missing when the verification began; None: until its bound.
    pub settled_after_seconds: Option<f64>,
    /// Length of [`Self::ack_gap`].
    pub ack_gap_seconds: Option<f64>,
    /// Length of the longest write gap of all shards watched.
    pub write_gap_seconds: Option<f64>,
    /// Length of [`Self::visible_gap`].
    pub visible_gap_seconds: Option<f64>,
    /// Longest time without an acknowledgement.
    pub ack_gap: Option<Gap>,
    /// Seconds from send to acknowledgement.
    pub ack_delay: Option<Spread>,
    /// Batches that needed more than one attempt.
    pub batches_retried: u64,
    /// Per shard that was watched.
    pub shards: BTreeMap<String, ShardReport>,
    /// Longest time in which the newest readable sample of some group did not advance, over all groups.
    pub visible_gap: Option<Gap>,
    /// How old the newest readable sample was when it became readable, in seconds.
    pub visible_delay: Option<Spread>,
    /// Reads of the newest sample that failed.
    pub visible_failures: u64,
    /// Answers of the query API that were asked for after another primary was published and came from under an older epoch, or
    /// showed less than had been read before. Must be 0.
    pub stale_answers: u64,
    /// Of how many answers that were asked for after that and say who gave them; None when no primary changed.
    pub answers_after_change: Option<u64>,
    /// From that publication to the last of them; None when no primary changed.
    pub stale_read_seconds: Option<f64>,
    /// Time in which this tool itself did not run; it is not counted as a gap.
    pub own_pauses: Pauses,
    /// What the service said last about how fresh each shard is.
    pub fresh_until: Option<String>,
    /// A few samples that are not as they should be.
    pub oddities: Vec<String>,
}

/// Numbers of samples, canaries included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Samples {
    /// In all batches that were sent.
    pub sent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Not answered.
    pub unknown: u64,
    /// Not answered, and found.
    pub unknown_found: u64,
    /// Answered 4xx.
    pub refused: u64,
    /// Answered 4xx, and found.
    pub refused_found: u64,
    /// Due when too much was unanswered, so not sent; in batches.
    pub skipped_batches: u64,
    /// Acknowledged, and found with other bits; part of what is lost.
    pub wrong: u64,
    /// Stored more than once and given once.
    pub merged: u64,
    /// Of those, as many as this tool's own attempts of unknown outcome may have stored.
    pub explained: u64,
    /// Found, and due when the ledger was cut off.
    pub unrecorded: u64,
}

/// What was seen of one shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardReport {
    /// Longest time between two commits seen.
    pub write_gap: Gap,
    /// Longest time in which the newest readable sample of some group of this shard did not advance.
    pub visible_gap: Option<Gap>,
    /// Changes of primary, as `replica@epoch`.
    pub primaries: Vec<String>,
    /// Records stored again after them.
    pub replayed: i64,
    /// Reads of the stored offsets.
    pub reads: u64,
    /// Those that failed.
    pub failed_reads: u64,
    /// What a client that stayed with the first primary could do after another one was claimed.
    pub direct: Option<Direct>,
}

/// A distribution, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
    /// The highest.
    pub max: f64,
}

/// Stretches in which this tool did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pauses {
    /// How many.
    pub count: u64,
    /// All together.
    pub seconds: f64,
    /// The longest.
    pub longest_seconds: f64,
}

impl Report {
    /// Whether anything was promised: only what was acknowledged is.
    pub fn has_promise(&self) -> bool {
        self.samples.acknowledged > 0
    }

    /// Whether there was a promise, and it was kept.
    pub fn is_clean(&self) -> bool {
        self.has_promise() && self.lost == 0 && self.doubled == 0 && self.alien == 0
    }

    /// What the ledger says about a run; nothing has been read back yet.
    pub fn of(book: &Book) -> Self {
        let window = book.window();
        let gap = |moments: &[u64], start| window.map(|window| longest(moments, window, start, &book.pauses));
        let visible = |groups: &mut dyn Iterator<Item = u64>| {
            let gaps = groups.filter_map(|group| {
                let moments: Vec<u64> = book.became_visible(group).into_iter().map(|(at, _)| at).collect();
                gap(&moments, Start::AtFirstMoment)
            });
            worst(gaps)
        };
        let watches_visible = !book.visible.is_empty() || book.visible_failures > 0;
        let shards: BTreeMap<String, ShardReport> = book
            .shards
            .iter()
            .filter_map(|(name, watched)| {
                let mut primaries: Vec<String> = watched.primaries.iter().map(|(_, p, e)| format!("{p}@{e}")).collect();
                primaries.dedup();
                let home = book.homes.get(name);
                let report = ShardReport {
                    write_gap: gap(&watched.commits(), Start::AtFirstMoment)?,
                    visible_gap: home.and_then(|groups| visible(&mut groups.iter().copied())),
                    primaries,
                    replayed: watched.replayed(),
                    reads: watched.observations.len() as u64 + watched.failures,
                    failed_reads: watched.failures,
                    direct: stale::direct(watched),
                };
                Some((name.clone(), report))
            })
            .collect();
        let write_gap = worst(shards.values().map(|shard| shard.write_gap));
        let ack_gap = gap(&book.acknowledgements(), Start::AtWindow);
        let visible_gap = watches_visible.then(|| visible(&mut (0..book.run.groups()))).flatten();
        let delays = (0..book.run.groups()).flat_map(|group| book.became_visible(group)).map(|(_, delay)| delay);
        let stale = stale::answers(book);
        let lengths = || book.pauses.iter().map(|(from, to)| seconds(to.saturating_sub(*from)));
        Self {
            run: book.run.id.clone(),
            rate: book.run.rate,
            sending_seconds: window.map_or(0.0, |window| seconds(window.until - window.from)),
            ledger_complete: book.complete,
            samples: Samples {
                sent: book.batches.values().map(|sending| sending.samples).sum(),
                acknowledged: book.samples(Outcome::Acked),
                unknown: book.samples(Outcome::Unknown),
                refused: book.samples(Outcome::Refused),
                skipped_batches: book.skipped,
                ..Samples::default()
            },
            lost: 0,
            doubled: 0,
            alien: 0,
            settled_after_seconds: None,
            ack_gap_seconds: ack_gap.map(|gap| gap.seconds),
            write_gap_seconds: write_gap.map(|gap| gap.seconds),
            visible_gap_seconds: visible_gap.map(|gap| gap.seconds),
            ack_gap,
            ack_delay: Spread::of(book.ack_delays()),
            batches_retried: book.batches.values().filter(|sending| sending.attempts() > 1).count() as u64,
            shards,
            visible_gap,
            visible_delay: Spread::of(delays.collect()),
            visible_failures: book.visible_failures,
            stale_answers: stale.map_or(0, |stale| stale.answers),
            answers_after_change: stale.map(|stale| stale.of),
            stale_read_seconds: stale.map(|stale| stale.seconds),
            own_pauses: Pauses {
                count: book.pauses.len() as u64,
                seconds: lengths().sum(),
                longest_seconds: lengths().fold(0.0, f64::max),
            },
            fresh_until: None,
            oddities: Vec::new(),
        }
    }

    /// Adds what was read back.
    pub fn with_findings(mut self, findings: &Findings, settled_after_seconds: Option<f64>) -> Self {
        self.lost = findings.acked_missing + findings.wrong;
        self.doubled = findings.doubled;
        self.alien = findings.alien;
        self.settled_after_seconds = settled_after_seconds;
        self.samples.unknown_found = findings.unknown_found;
        self.samples.refused_found = findings.refused_found;
        self.samples.wrong = findings.wrong;
        self.samples.merged = findings.merged;
        self.samples.explained = findings.explained;
        self.samples.unrecorded = findings.unrecorded;
        let line = |oddity: &super::compare::Oddity| format!("{} at {}", oddity.what, oddity.timestamp_ms);
        self.oddities = findings.oddities.iter().map(line).collect();
        self
    }

    /// Adds what the service said about how fresh it is.
    pub fn with_freshness(mut self, fresh_until: Option<String>) -> Self {
        self.fresh_until = fresh_until;
        self
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        let p50 = quantile(&mut values, 0.5)?;
        Some(Self { p50, p99: quantile(&mut values, 0.99)?, max: quantile(&mut values, 1.0)? })
    }
}

#[cfg(test)]
mod tests {
    use understudy_lab_outcome::{Gap as ReadGap, Outcome as Read, ShardOutcome};

    use super::*;
    use crate::ledger::{FORMAT, Record, Stamp};
    use crate::plan::Run;
    use crate::plan::tests::small;
    use crate::verify::text::NOTHING_ACKNOWLEDGED;

    fn at(ms: u64) -> Stamp {
        Stamp(ms * 1000, small().start_ms + ms as i64)
    }

    /// 10 s of a run in which the primary of shard s-0 is gone from 4 s to 7 s; shard s-1 goes on. Groups 0 to 3 are on
    /// s-0, the others on s-1. The tool itself stands still from 8 s to 8.5 s.
    fn ledger() -> Vec<Record> {
        let run = small();
        let mut records = vec![Record::Run { format: FORMAT, run: run.clone(), at: at(0) }];
        for (shard, groups) in [("s-0", [0, 1, 2, 3]), ("s-1", [4, 5, 6, 7])] {
            records.push(Record::Where { shard: shard.into(), groups: groups.into(), at: at(0) });
        }
        for tick in 0..100 {
            let now = run.due_ms(tick);
            for batch in run.batches(tick) {
                let samples = run.samples(batch);
                let sum = format!("{:016x}", Run::checksum(&samples));
                records.push(Record::Sent { batch, samples: samples.len() as u64, sum, at: at(now) });
                records.push(Record::Done { batch, outcome: Outcome::Acked, attempts: 1, at: at(now + 10) });
            }
        }
        records.push(Record::Pause { from: at(8000), at: at(8500) });
        for step in 1..=110 {
            let now = step * 100;
            if (8000..8500).contains(&now) {
                continue;
            }
            let is_out = (4000..7000).contains(&now);
            for shard in ["s-0", "s-1"] {
                let is_behind = shard == "s-0" && is_out;
                let replica = if shard == "s-0" && now >= 7000 { "b" } else { "a" };
                let epoch = if replica == "b" { 2 } else { 1 };
                let (shard, asked) = (shard.to_owned(), at(now - 5));
                records.push(if is_behind {
                    Record::StoredFailed { shard, replica: replica.into(), why: "refused".into(), at: at(now) }
                } else {
                    let offsets =
                        [("t/0".to_owned(), if replica == "b" { step as i64 - 2 } else { step as i64 })].into();
                    Record::Stored { shard, replica: replica.into(), epoch, offsets, asked, at: at(now) }
                });
            }
            let groups = (0..8).filter(|group| *group >= 4 || !is_out);
            let newest = groups.map(|group| (group, run.start_ms + now as i64 - 300)).collect();
            records.push(Record::Visible { newest, asked: at(now - 5), at: at(now) });
        }
        records.push(Record::End { at: at(11_500) });
        records
    }

    fn report() -> Report {
        Report::of(&Book::read(ledger().into_iter().map(Ok)).unwrap())
    }

    #[test]
    fn each_gap_is_that_of_its_shard_and_own_pauses_are_taken_out() {
        let report = report();
        // The first answer of the new primary at 7.0 s is no commit, the one at 7.1 s is.
        let gap = |shard: &str| report.shards[shard].write_gap;
        assert_eq!((gap("s-0").seconds, gap("s-0").from), (3.2, 3.9));
        // Of the gap in which the tool stood still nobody knows that it was as short as the others.
        assert_eq!((gap("s-1").seconds, gap("s-1").at_most_seconds, gap("s-1").from), (0.1, 0.6, 7.9));
        assert_eq!(report.write_gap_seconds, Some(3.2));
        let visible = |shard: &str| report.shards[shard].visible_gap.unwrap().seconds;
        assert_eq!((visible("s-0"), visible("s-1")), (3.1, 0.1));
        assert_eq!(report.visible_gap_seconds, Some(3.1));
        assert!((report.ack_gap_seconds.unwrap() - 0.1).abs() < 1e-9);
        assert_eq!((report.own_pauses.count, report.own_pauses.seconds), (1, 0.5));
        assert_eq!(report.shards["s-0"].failed_reads, 30);
    }

    #[test]
    fn nothing_lost_nothing_doubled_nothing_alien_is_clean_and_anything_else_is_not() {
        let missing = Findings { acked_missing: 1, ..Findings::default() };
        let wrong = Findings { wrong: 1, ..Findings::default() };
        let doubled = Findings { doubled: 1, ..Findings::default() };
        let alien = Findings { alien: 1, ..Findings::default() };
        let explained = Findings { merged: 7, explained: 7, unknown_missing: 3, unrecorded: 2, ..Findings::default() };
        for (findings, clean) in [(missing, false), (wrong, false), (doubled, false), (alien, false), (explained, true)]
        {
            assert_eq!(report().with_findings(&findings, None).is_clean(), clean, "{findings:?}");
        }
    }

    #[test]
    fn a_run_of_which_nothing_was_acknowledged_is_not_clean_and_says_why() {
        let records = ledger().into_iter().filter(|record| !matches!(record, Record::Done { .. }));
        let report = Report::of(&Book::read(records.map(Ok)).unwrap());
        let report = report.with_findings(&Findings::default(), Some(1.0));
        assert!(!report.is_clean());
        let text = report.to_string();
        assert!(text.contains(NOTHING_ACKNOWLEDGED) && !text.contains("was readable"), "{text}");
    }

    #[test]
    fn what_is_explained_away_is_a_figure_of_its_own() {
        let findings = Findings { merged: 9, explained: 7, doubled: 2, ..Findings::default() };
        let text = report().with_findings(&findings, Some(1.0)).to_string();
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok())
        };
        assert_eq!((figure("doubled"), figure("explained")), (Some(2), Some(7)), "{text}");
    }

    #[test]
    fn programs_find_their_figures_in_it() {
        let report = report().with_findings(&Findings { merged: 9, explained: 7, ..Findings::default() }, None);
        let gap = |gap: Gap| ReadGap { seconds: gap.seconds, at_most_seconds: gap.at_most_seconds, open: gap.open };
        let shard = |shard: &ShardReport| ShardOutcome {
            write_gap: gap(shard.write_gap),
            replayed: shard.replayed,
            direct: shard.direct,
        };
        let expected = Read {
            acknowledged: report.samples.acknowledged,
            unknown: report.samples.unknown,
            lost: report.lost,
            doubled: report.doubled,
            explained: report.samples.explained,
            alien: report.alien,
            ack_gap_seconds: report.ack_gap_seconds,
            write_gap_seconds: report.write_gap_seconds,
            visible_gap_seconds: report.visible_gap_seconds,
            ack_gap: report.ack_gap.map(gap),
            visible_gap: report.visible_gap.map(gap),
            stale_answers: report.stale_answers,
            answers_after_change: report.answers_after_change,
            stale_read_seconds: report.stale_read_seconds,
            shards: report.shards.iter().map(|(name, of)| (name.clone(), shard(of))).collect(),
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Read>(&text).unwrap(), expected);
        assert!(expected.acknowledged > 0 && expected.explained == 7, "{expected:?}");
        assert!(expected.write_gap_seconds.is_some_and(|gap| gap > 0.0), "{expected:?}");
        assert_eq!(expected.shards.len(), 2, "{expected:?}");
    }

    #[test]
    fn a_run_without_a_watcher_has_no_write_gap_instead_of_a_good_one() {
        let records = ledger().into_iter().filter(|record| matches!(record, Record::Run { .. } | Record::Sent { .. }));
        let report = Report::of(&Book::read(records.map(Ok)).unwrap());
        assert_eq!((report.write_gap_seconds, report.visible_gap_seconds), (None, None));
        assert!(report.ack_gap.unwrap().open);
    }
}
