//! One stretch of a run: what the ledger says against what the query API says. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::Outcome;
use crate::ledger::book::Book;
use crate::plan::{CANARY, COUNTED, Run, Series};
use crate::prom::TimeSeries;

/// Samples of one stretch at most: what one read may return without meeting the limits of a query.
const STRETCH_SAMPLES: u64 = 20_000;
/// A ledger without its last line may lack what was sent in the last moments before the crash, this many milliseconds.
const UNRECORDED_MS: i64 = 5000;

/// One read: a group, a metric and a range of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The group's number.
    pub group: u64,
    /// [`COUNTED`] or [`CANARY`].
    pub metric: &'static str,
    /// Milliseconds since 1970, both included.
    pub range_ms: (i64, i64),
}

/// What one sample should be.
#[derive(Clone, Copy, Debug)]
struct Expected {
    bits: u64,
    outcome: Outcome,
    deliveries: u64,
}

/// What a stretch should hold.
#[derive(Clone, Debug)]
pub struct Chapter {
    /// How to read it.
    pub stretch: Stretch,
    expected: HashMap<(Series, i64), Expected>,
}

/// A sample that is not what it should be, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// In words.
    pub what: String,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// What was found in one stretch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged, and there with every bit.
    pub acked_found: u64,
    /// Acknowledged, and not there.
    pub acked_missing: u64,
    /// Unknown, and there.
    pub unknown_found: u64,
    /// Unknown, and not there.
    pub unknown_missing: u64,
    /// Refused, and there all the same: the good part of a batch is kept.
    pub refused_found: u64,
    /// There with other bits than were sent.
    pub wrong: u64,
    /// There, and never sent.
    pub alien: u64,
    /// There and due to be sent when the ledger was cut off.
    pub unrecorded: u64,
    /// There more than once: in the answer itself, or merged by the service and not explained.
    pub doubled: u64,
    /// Merged by the service, all of them.
    pub merged: u64,
    /// Of those, explained by attempts of this tool of which nobody knows whether they were stored.
    pub explained: u64,
    /// A few samples that are not as they should be.
    pub oddities: Vec<Oddity>,
}

const ODDITIES: usize = 20;

impl Findings {
    /// Adds another stretch's.
    pub fn add(&mut self, other: &Self) {
        self.acked_found += other.acked_found;
        self.acked_missing += other.acked_missing;
        self.unknown_found += other.unknown_found;
        self.unknown_missing += other.unknown_missing;
        self.refused_found += other.refused_found;
        self.wrong += other.wrong;
        self.alien += other.alien;
        self.unrecorded += other.unrecorded;
        self.doubled += other.doubled;
        self.merged += other.merged;
        self.explained += other.explained;
        let room = ODDITIES.saturating_sub(self.oddities.len());
        self.oddities.extend(other.oddities.iter().take(room).cloned());
    }

    fn odd(&mut self, timestamp_ms: i64, what: impl FnOnce() -> String) {
        if self.oddities.len() < ODDITIES {
            self.oddities.push(Oddity { what: what(), timestamp_ms });
        }
    }
}

/// Cuts a run into chapters: each sample that was sent is in exactly one.
pub fn chapters(book: &Book) -> Vec<Chapter> {
    let run = &book.run;
    let Some(last) = book.batches.keys().next_back().map(|batch| batch.tick) else { return Vec::new() };
    let per_second = |metric| match metric {
        COUNTED => run.rate.div_ceil(run.groups()),
        _ => 1000_u64.div_ceil(run.tick_ms),
    };
    let mut chapters: BTreeMap<(u64, &'static str, u64), Chapter> = BTreeMap::new();
    let tick = run.tick_ms as i64;
    for metric in [COUNTED, CANARY] {
        let ticks_at_once = (STRETCH_SAMPLES * 1000 / (per_second(metric) * run.tick_ms)).max(1);
        for group in 0..run.groups() {
            for begin in (0..=last).step_by(ticks_at_once as usize) {
                let end = (begin + ticks_at_once).min(last + 1);
                let beyond = if end > last && !book.complete { UNRECORDED_MS } else { 0 };
                let range_ms = (run.start_ms + begin as i64 * tick, run.start_ms + end as i64 * tick - 1 + beyond);
                let stretch = Stretch { group, metric, range_ms };
                chapters.insert((group, metric, begin), Chapter { stretch, expected: HashMap::new() });
            }
        }
    }
    for (_, sending, sample) in book.sent_samples() {
        let metric = if matches!(sample.series, Series::Counted(_)) { COUNTED } else { CANARY };
        let group = run.group_of(sample.series);
        let range = (group, metric, 0)..=(group, metric, u64::MAX);
        let within = |chapter: &&mut Chapter| {
            let (from, to) = chapter.stretch.range_ms;
            (from..=to).contains(&sample.timestamp_ms)
        };
        let expected = Expected { bits: sample.bits, outcome: sending.outcome(), deliveries: sending.deliveries() };
        if let Some(chapter) = chapters.range_mut(range).map(|(_, chapter)| chapter).find(within) {
            chapter.expected.insert((sample.series, sample.timestamp_ms), expected);
        }
    }
    chapters.into_values().collect()
}

impl Chapter {
    /// Holds an answer against the ledger; `merged` is what the service says it merged.
    pub fn compare(&self, book: &Book, answer: &[TimeSeries], merged: u64) -> Findings {
        let mut findings = Findings { merged, ..Findings::default() };
        let mut found: HashMap<(Series, i64), u64> = HashMap::new();
        for series in answer {
            let labels = || series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
            let Some(of) = book.run.series_of(labels()) else {
                findings.alien += series.samples.len() as u64;
                let first = series.samples.first().map_or(0, |sample| sample.timestamp);
                findings.odd(first, || format!("a series that was never sent: {:?}", labels().collect::<Vec<_>>()));
                continue;
            };
            for sample in &series.samples {
                let place = (of, sample.timestamp);
                let times = found.entry(place).or_default();
                *times += 1;
                if *times > 1 {
                    findings.doubled += 1;
                    findings.odd(sample.timestamp, || format!("{of:?} is in one answer more than once"));
                } else {
                    self.judge(book, place, sample.value.to_bits(), &mut findings);
                }
            }
        }
        // The service says how many it merged and not which, so they are weighed for the whole stretch. Each delivery of
        // ours but one may have become one more stored copy; what is merged beyond that is the store's.
        let by_us = |(place, expected): (&(Series, i64), &Expected)| {
            if found.contains_key(place) { expected.deliveries.saturating_sub(1) } else { 0 }
        };
        findings.explained = merged.min(self.expected.iter().map(by_us).sum());
        let beyond = merged - findings.explained;
        findings.doubled += beyond;
        if beyond > 0 {
            let (range, explained) = (self.stretch.range_ms, findings.explained);
            findings.odd(range.0, || {
                let group = self.stretch.group;
                format!("group {group}: {merged} merged, {explained} explained by attempts of unknown outcome")
            });
        }
        self.count_missing(&found, &mut findings);
        findings
    }

    fn judge(&self, book: &Book, place: (Series, i64), bits: u64, findings: &mut Findings) {
        let (series, timestamp) = place;
        match self.expected.get(&place) {
            Some(expected) if expected.bits == bits => match expected.outcome {
                Outcome::Acked => findings.acked_found += 1,
                Outcome::Unknown => findings.unknown_found += 1,
                Outcome::Refused => findings.refused_found += 1,
            },
            Some(expected) => {
                findings.wrong += 1;
                let origin = book.run.origin(bits);
                findings.odd(timestamp, || {
                    format!("{series:?} has bits {bits:016x} (those of {origin:?}), sent were {:016x}", expected.bits)
                });
            }
            None if was_cut_off(book, place, bits) => findings.unrecorded += 1,
            None => {
                findings.alien += 1;
                findings.odd(timestamp, || format!("{series:?} has a sample that was never sent, bits {bits:016x}"));
            }
        }
    }

    fn count_missing(&self, found: &HashMap<(Series, i64), u64>, findings: &mut Findings) {
        let mut missing: Vec<_> = self.expected.iter().filter(|(place, _)| !found.contains_key(place)).collect();
        missing.sort_by_key(|((series, timestamp), _)| (*timestamp, *series));
        for ((series, timestamp), expected) in missing {
            match expected.outcome {
                Outcome::Acked => {
                    findings.acked_missing += 1;
                    findings.odd(*timestamp, || format!("{series:?} was acknowledged and is not there"));
                }
                Outcome::Unknown => findings.unknown_missing += 1,
                Outcome::Refused => {}
            }
        }
    }
}

/// Whether a sample is one of the run that was due about when the ledger was cut off.
fn was_cut_off(book: &Book, place: (Series, i64), bits: u64) -> bool {
    let run: &Run = &book.run;
    let is_planned = run.origin(bits).is_some_and(|origin| (origin.series, origin.timestamp_ms) == place);
    let Some(last) = book.batches.keys().next_back() else { return false };
    let from = run.start_ms + (last.tick * run.tick_ms) as i64;
    is_planned && !book.complete && (from..from + UNRECORDED_MS).contains(&place.1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::ledger::{FORMAT, Record, Stamp, Taken};
    use crate::plan::Batch;
    use crate::plan::tests::small;
    use crate::prom::{Label, Sample};

    const TICKS: u64 = 5;

    fn stamp(run: &Run, tick: u64) -> Stamp {
        Stamp(run.due_ms(tick) * 1000, run.start_ms + run.due_ms(tick) as i64)
    }

    /// A run in which each batch ends with the outcome and attempts that `ends` gives; None: it is never sent.
    fn book(complete: bool, ends: impl Fn(Batch) -> Option<(Outcome, u32)>) -> Book {
        book_of(complete, Taken::Unknown, ends)
    }

    /// The same; `taken` is what became of the attempts that failed.
    fn book_of(complete: bool, taken: Taken, ends: impl Fn(Batch) -> Option<(Outcome, u32)>) -> Book {
        let run = small();
        let mut records = vec![Record::Run { format: FORMAT, run: run.clone(), at: Stamp(0, run.start_ms) }];
        for tick in 0..TICKS {
            let at = stamp(&run, tick);
            for batch in run.batches(tick) {
                let Some((outcome, attempts)) = ends(batch) else {
                    records.push(Record::Skipped { batch, at });
                    continue;
                };
                let samples = run.samples(batch);
                let sum = format!("{:016x}", Run::checksum(&samples));
                records.push(Record::Sent { batch, samples: samples.len() as u64, sum, at });
                let failed = |attempt| Record::Failed { batch, attempt, taken, why: String::new(), at };
                records.extend((1..attempts).map(failed));
                records.push(Record::Done { batch, outcome, attempts, at });
            }
        }
        if complete {
            records.push(Record::End { at: stamp(&run, TICKS) });
        }
        Book::read(records.into_iter().map(Ok)).unwrap()
    }

    fn stored(run: &Run, keep: impl Fn(Batch) -> bool) -> Vec<(Series, i64, u64)> {
        let batches = (0..TICKS).flat_map(|tick| run.batches(tick)).filter(|batch| keep(*batch));
        let samples = batches.flat_map(|batch| run.samples(batch));
        samples.map(|sample| (sample.series, sample.timestamp_ms, sample.bits)).collect()
    }

    /// What the query API would answer for a chapter.
    fn answer(run: &Run, stretch: &Stretch, stored: &[(Series, i64, u64)]) -> Vec<TimeSeries> {
        let mut by_series: BTreeMap<Series, Vec<Sample>> = BTreeMap::new();
        for (series, timestamp, bits) in stored {
            let metric = if matches!(series, Series::Counted(_)) { COUNTED } else { CANARY };
            let (from, to) = stretch.range_ms;
            let inside = (from..=to).contains(timestamp);
            if run.group_of(*series) == stretch.group && metric == stretch.metric && inside {
                let sample = Sample { value: f64::from_bits(*bits), timestamp: *timestamp };
                by_series.entry(*series).or_default().push(sample);
            }
        }
        let labels = |series| run.labels(series).into_iter().map(|(name, value)| Label { name: name.into(), value });
        by_series
            .into_iter()
            .map(|(series, samples)| TimeSeries { labels: labels(series).collect(), samples })
            .collect()
    }

    fn verify(book: &Book, stored: &[(Series, i64, u64)], merged_per_chapter: u64) -> Findings {
        let mut findings = Findings::default();
        for chapter in chapters(book) {
            let answer = answer(&book.run, &chapter.stretch, stored);
            findings.add(&chapter.compare(book, &answer, merged_per_chapter));
        }
        findings
    }

    fn acked(_: Batch) -> Option<(Outcome, u32)> {
        Some((Outcome::Acked, 1))
    }

    fn total(book: &Book) -> u64 {
        book.batches.values().map(|sending| sending.samples).sum()
    }

    #[test]
    fn every_sample_is_in_exactly_one_chapter() {
        for rate in [37, 500, 999, 3000] {
            let mut book = book(true, acked);
            book.run = Run { rate, series: 50, ..small() };
            let chapters = chapters(&book);
            let expected = book.sent_samples().count();
            assert_eq!(chapters.iter().map(|chapter| chapter.expected.len()).sum::<usize>(), expected, "rate {rate}");
        }
    }

    #[test]
    fn long_runs_are_cut_into_stretches_that_do_not_overlap() {
        let mut book = book(true, acked);
        book.run = Run { rate: 50_000, series: 5000, ..small() };
        let last = Batch { tick: 2000, lane: 0 };
        let sending = book.batches[&Batch { tick: 0, lane: 0 }];
        book.batches = [(Batch { tick: 0, lane: 0 }, sending), (last, sending)].into();
        let chapters = chapters(&book);
        assert!(chapters.len() > book.run.groups() as usize * 2);
        for pair in chapters.windows(2).map(|pair| (&pair[0].stretch, &pair[1].stretch)) {
            if (pair.0.group, pair.0.metric) == (pair.1.group, pair.1.metric) {
                assert_eq!(pair.0.range_ms.1 + 1, pair.1.range_ms.0);
            }
        }
        assert_eq!(chapters.iter().map(|chapter| chapter.expected.len()).sum::<usize>(), book.sent_samples().count());
    }

    #[test]
    fn all_there_is_all_found() {
        let book = book(true, acked);
        let findings = verify(&book, &stored(&book.run, |_| true), 0);
        assert_eq!(findings, Findings { acked_found: total(&book), ..Findings::default() });
    }

    #[test]
    fn an_acknowledged_sample_that_is_missing_is_missing() {
        let book = book(true, acked);
        let mut stored = stored(&book.run, |_| true);
        stored.remove(17);
        let findings = verify(&book, &stored, 0);
        assert_eq!((findings.acked_missing, findings.acked_found), (1, total(&book) - 1));
        assert!(findings.oddities[0].what.contains("acknowledged and is not there"));
    }

    #[rstest]
    #[case::stored(true)]
    #[case::not_stored(false)]
    fn an_unanswered_batch_is_never_lost(#[case] is_stored: bool) {
        let dark = |batch: Batch| batch.tick == 2;
        let book = book(true, |batch| Some((if dark(batch) { Outcome::Unknown } else { Outcome::Acked }, 1)));
        let findings = verify(&book, &stored(&book.run, |batch| is_stored || !dark(batch)), 0);
        let unknown = book.samples(Outcome::Unknown);
        let (found, missing) = if is_stored { (unknown, 0) } else { (0, unknown) };
        assert_eq!((findings.unknown_found, findings.unknown_missing), (found, missing));
        assert_eq!((findings.acked_missing, findings.doubled, findings.wrong, findings.alien), (0, 0, 0, 0));
    }

    #[test]
    fn one_flipped_bit_is_wrong_even_in_a_nan() {
        let book = book(true, acked);
        let mut stored = stored(&book.run, |_| true);
        let nan = stored.iter().position(|(_, _, bits)| f64::from_bits(*bits).is_nan()).unwrap();
        stored[nan].2 ^= 1 << 7;
        let findings = verify(&book, &stored, 0);
        assert_eq!((findings.wrong, findings.acked_missing), (1, 0));
    }

    #[test]
    fn a_sample_twice_in_an_answer_is_doubled() {
        let book = book(true, acked);
        let mut stored = stored(&book.run, |_| true);
        stored.push(stored[5]);
        assert_eq!(verify(&book, &stored, 0).doubled, 1);
    }

    /// Three samples of each stretch are merged.
    #[rstest]
    #[case::sent_once(1, Taken::Unknown, 0)]
    // Its first acknowledgement may have been lost: sent and stored twice by us, not by the store.
    #[case::sent_again_after_no_answer(2, Taken::Unknown, 3)]
    #[case::sent_again_after_it_was_turned_away(2, Taken::Nothing, 0)]
    fn merged_samples_are_doubled_unless_attempts_of_unknown_outcome_explain_them(
        #[case] attempts: u32,
        #[case] taken: Taken,
        #[case] explained: u64,
    ) {
        let book = book_of(true, taken, |_| Some((Outcome::Acked, attempts)));
        let chapters = chapters(&book).len() as u64;
        let findings = verify(&book, &stored(&book.run, |_| true), 3);
        let by_chapter = [findings.merged, findings.explained, findings.doubled].map(|sum| sum / chapters);
        assert_eq!(by_chapter, [3, explained, 3 - explained]);
    }

    #[test]
    fn what_was_never_sent_is_alien() {
        let book = book(true, |batch| (batch.tick != 1).then_some((Outcome::Acked, 1)));
        let mut stored = stored(&book.run, |_| true);
        let skipped = stored.len() as u64 - total(&book);
        assert_eq!(verify(&book, &stored, 0).alien, skipped, "a batch that was skipped");
        stored.retain(|(_, timestamp, _)| *timestamp < book.run.start_ms + 100);
        stored[0].1 += 1;
        assert_eq!(verify(&book, &stored, 0).alien, 1, "a timestamp that no sample has");
    }

    #[test]
    fn what_a_cut_off_ledger_lacks_at_its_end_is_unrecorded_and_nothing_else_is() {
        let sent = |batch: Batch| (batch.tick < TICKS - 1).then_some((Outcome::Acked, 1));
        let cut = book(false, sent);
        let everything = stored(&cut.run, |_| true);
        let findings = verify(&cut, &everything, 0);
        assert_eq!(findings.unrecorded, everything.len() as u64 - total(&cut));
        assert_eq!((findings.alien, findings.acked_missing), (0, 0));

        let complete = book(true, sent);
        assert_eq!(verify(&complete, &everything, 0).unrecorded, 0);
        let hole = Book { complete: false, ..book(true, |batch| (batch.tick != 0).then_some((Outcome::Acked, 1))) };
        assert!(verify(&hole, &everything, 0).alien > 0, "what was skipped long before the end was never sent");
    }
}
