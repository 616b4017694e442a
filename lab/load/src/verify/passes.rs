//! Reading all chapters, and again those in which acknowledged samples are missing, until none is or nothing more comes for long. What was
//! sent last arrives last, so it is waited for first: all that is read before would have to be read again. I/O.

use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use super::compare::{Chapter, Findings, Stretch, chapters};
use crate::ledger::book::Book;
use crate::query::Query;

/// Reads at once.
const AT_ONCE: usize = 4;
/// Pause between two passes.
const BETWEEN: Duration = Duration::from_secs(1);
/// So many times as long is waited at most, however much still comes.
const LONGEST: u32 = 6;

/// How long is still waited. What is late is not lost: as long as samples go on arriving, the bound begins anew.
#[derive(Debug)]
struct Patience {
    wait: Duration,
    began: Instant,
    got_on: Instant,
    fewest: Option<u64>,
}

impl Patience {
    fn new(wait: Duration, now: Instant) -> Self {
        Self { wait, began: now, got_on: now, fewest: None }
    }

    /// So many are missing now, None when not all could be read; what is left of the bound.
    fn left(&mut self, missing: Option<u64>, now: Instant) -> Duration {
        if missing.zip(self.fewest).is_some_and(|(missing, fewest)| missing < fewest) {
            self.got_on = now;
        }
        self.fewest = missing.into_iter().chain(self.fewest).min();
        let since = |moment: Instant| now.saturating_duration_since(moment);
        self.wait.saturating_sub(since(self.got_on)).min((self.wait * LONGEST).saturating_sub(since(self.began)))
    }
}

/// What all passes together found.
#[derive(Debug)]
pub struct Outcome {
    /// Of the last reading of each chapter.
    pub findings: Findings,
    /// How long acknowledged samples were missing, from the first pass on; None: until the bound.
    pub settled_after: Option<Duration>,
    /// What the service said last about how fresh each shard is.
    pub fresh_until: Option<String>,
}

struct Reading {
    index: usize,
    findings: Findings,
    fresh_until: Option<String>,
}

/// Reads until every acknowledged sample is there, or none has come for as long as `wait`. An answer that cannot be had within that bound
/// is an error: nothing may be said then.
pub async fn read_back(book: &Book, query: &Query, wait: Duration) -> anyhow::Result<Outcome> {
    let chapters = chapters(book);
    let began = Instant::now();
    await_ends(book, query, &chapters, wait).await;
    let mut patience = Patience::new(wait, Instant::now());
    let mut found: Vec<Option<Findings>> = vec![None; chapters.len()];
    let mut fresh_until = None;
    let mut pending: Vec<usize> = (0..chapters.len()).collect();
    let mut earlier: Option<(Instant, u64)> = None;
    loop {
        let is_first = earlier.is_none();
        let failure = pass(book, query, &chapters, &pending, is_first, &mut found, &mut fresh_until).await;
        pending.retain(|index| found[*index].as_ref().is_none_or(|findings| findings.acked_missing > 0));
        if pending.is_empty() {
            break;
        }
        let missing: u64 = found.iter().flatten().map(|findings| findings.acked_missing).sum();
        let left = patience.left(failure.is_none().then_some(missing), Instant::now());
        if left.is_zero() {
            if let Some(failure) = failure {
                return Err(failure.context("chapters of the run could not be read"));
            }
            return Ok(Outcome { findings: sum(&found), settled_after: None, fresh_until });
        }
        let now = (Instant::now(), missing);
        show_waiting(now, earlier.replace(now), left, pending.len(), failure.as_ref());
        sleep(BETWEEN).await;
    }
    let settled = began.elapsed();
    if earlier.is_some() {
        // What arrived while waiting may also have arrived twice, in chapters that were complete before.
        let all: Vec<usize> = (0..chapters.len()).collect();
        found.fill(None);
        if let Some(failure) = pass(book, query, &chapters, &all, true, &mut found, &mut fresh_until).await {
            return Err(failure.context("chapters of the run could not be read again"));
        }
    }
    Ok(Outcome { findings: sum(&found), settled_after: Some(settled), fresh_until })
}

/// Reads the ends of all stretches until no acknowledged sample is missing there, or none has come for as long as `wait`. It decides
/// nothing: everything is read afterwards, these too.
async fn await_ends(book: &Book, query: &Query, chapters: &[Chapter], wait: Duration) {
    let mut patience = Patience::new(wait, Instant::now());
    let stretches: Vec<&Stretch> = chapters.iter().map(|chapter| &chapter.stretch).collect();
    let mut pending = ends(&stretches);
    let mut found: Vec<Option<Findings>> = vec![None; chapters.len()];
    let mut fresh_until = None;
    let mut earlier: Option<(Instant, u64)> = None;
    loop {
        let failure = pass(book, query, chapters, &pending, false, &mut found, &mut fresh_until).await;
        pending.retain(|index| found[*index].as_ref().is_none_or(|findings| findings.acked_missing > 0));
        if pending.is_empty() {
            return;
        }
        let missing: u64 = found.iter().flatten().map(|findings| findings.acked_missing).sum();
        let left = patience.left(failure.is_none().then_some(missing), Instant::now());
        if left.is_zero() {
            return;
        }
        let now = (Instant::now(), missing);
        show_waiting(now, earlier.replace(now), left, pending.len(), failure.as_ref());
        sleep(BETWEEN).await;
    }
}

/// The last stretch of each group and metric, where those of one follow each other in time. Pure.
fn ends(stretches: &[&Stretch]) -> Vec<usize> {
    let of = |stretch: &Stretch| (stretch.group, stretch.metric);
    let is_end = |index: &usize| stretches.get(index + 1).is_none_or(|next| of(next) != of(stretches[*index]));
    (0..stretches.len()).filter(is_end).collect()
}

/// Reads chapters; returns the last failure, if any.
async fn pass(
    book: &Book,
    query: &Query,
    chapters: &[Chapter],
    pending: &[usize],
    show: bool,
    found: &mut [Option<Findings>],
    fresh_until: &mut Option<String>,
) -> Option<anyhow::Error> {
    let mut readings =
        futures::stream::iter(pending).map(|index| read(book, query, chapters, *index)).buffer_unordered(AT_ONCE);
    let mut failure = None;
    let mut shown = Instant::now();
    let mut done = 0;
    while let Some(reading) = readings.next().await {
        match reading {
            Ok(reading) => {
                found[reading.index] = Some(reading.findings);
                *fresh_until = reading.fresh_until.or(fresh_until.take());
            }
            Err(problem) => failure = Some(problem),
        }
        done += 1;
        if show && shown.elapsed() >= Duration::from_secs(2) {
            shown = Instant::now();
            eprintln!("  read {done} of {} chapters", pending.len());
        }
    }
    failure
}

async fn read(book: &Book, query: &Query, chapters: &[Chapter], index: usize) -> anyhow::Result<Reading> {
    let chapter = &chapters[index];
    let stretch = &chapter.stretch;
    let instance = &book.run.instances[stretch.group as usize];
    let labels = [("__name__", stretch.metric), ("instance", instance.as_str()), ("run", book.run.id.as_str())];
    let answer = query.read(stretch.range_ms, &labels, None).await;
    let answer = answer.with_context(|| format!("read {} of {instance}", stretch.metric))?;
    let findings = chapter.compare(book, &answer.series, answer.merged);
    Ok(Reading { index, findings, fresh_until: answer.fresh_until })
}

fn sum(found: &[Option<Findings>]) -> Findings {
    let mut total = Findings::default();
    found.iter().flatten().for_each(|findings| total.add(findings));
    total
}

fn show_waiting(
    now: (Instant, u64),
    before: Option<(Instant, u64)>,
    left: Duration,
    chapters: usize,
    failure: Option<&anyhow::Error>,
) {
    let eta = before.and_then(|before| eta(before.1, now.1, now.0 - before.0));
    let eta = eta.map_or("no estimate".to_owned(), |eta| format!("about {} s to go", eta.as_secs()));
    let failure = failure.map_or(String::new(), |failure| format!("; last error: {failure:#}"));
    let (missing, left) = (now.1, left.as_secs());
    eprintln!(
        "  {missing} acknowledged samples not there yet in {chapters} chapters, {eta}, giving up in {left} s{failure}"
    );
}

/// How long until nothing is missing, at the pace since the last pass; None without progress.
fn eta(before: u64, now: u64, within: Duration) -> Option<Duration> {
    let arrived = before.checked_sub(now).filter(|arrived| *arrived > 0)?;
    Some(within.mul_f64(now as f64 / arrived as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_group_and_metric_is_waited_for_first() {
        let stretch = |group, metric, from| Stretch { group, metric, range_ms: (from, from + 9) };
        let all = [
            stretch(0, "canary", 0),
            stretch(0, "counted", 0),
            stretch(0, "counted", 10),
            stretch(1, "counted", 0),
            stretch(1, "counted", 10),
            stretch(1, "counted", 20),
        ];
        assert_eq!(ends(&all.iter().collect::<Vec<_>>()), [0, 2, 5]);
        assert_eq!(ends(&[]), Vec::<usize>::new());
    }

    #[test]
    fn what_still_comes_is_waited_for_and_not_for_ever() {
        let zero = Instant::now();
        let at = |second| zero + Duration::from_secs(second);
        let mut patience = Patience::new(Duration::from_secs(10), zero);
        for (case, missing, second, left) in [
            ("nothing could be read", None, 1, 9),
            ("the first look", Some(100), 4, 6),
            ("nothing came", Some(100), 9, 1),
            ("some came", Some(90), 9, 10),
            ("more are missing than before", Some(95), 15, 4),
            ("and fewer than that, but no fewer than ever", Some(92), 16, 3),
            ("some came", Some(80), 18, 10),
            ("the longest that is waited is near", Some(70), 57, 3),
            ("and over", Some(60), 61, 0),
        ] {
            assert_eq!(patience.left(missing, at(second)), Duration::from_secs(left), "{case}");
        }
    }

    #[test]
    fn the_estimate_follows_the_pace_and_is_not_made_without_one() {
        for (name, before, now, expected) in [
            ("half of it in a second", 100, 50, Some(1)),
            ("a tenth in a second", 100, 90, Some(9)),
            ("no progress", 100, 100, None),
            ("more than before", 100, 120, None),
        ] {
            assert_eq!(eta(before, now, Duration::from_secs(1)), expected.map(Duration::from_secs), "{name}");
        }
    }
}
