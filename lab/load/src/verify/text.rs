//! How the figures of a run read. Pure.

use std::fmt;

use understudy_lab_outcome::Direct;

use super::report::{Pauses, Report, Spread};
use crate::gaps::Gap;

/// Why a run of which nothing was acknowledged is no success, whatever was found.
pub const NOTHING_ACKNOWLEDGED: &str =
    "nothing was acknowledged, so there is nothing to verify: this run shows nothing";

impl Report {
    /// Without the lines that only reading back can fill.
    pub fn before_reading_back(&self) -> impl fmt::Display + '_ {
        Unread(self)
    }

    fn write_sent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = &self.samples;
        let cut = if self.ledger_complete { "" } else { "  (the ledger was cut off)" };
        writeln!(f, "run {}: {} samples/s for {:.0} s{cut}", self.run, self.rate, self.sending_seconds)?;
        writeln!(f, "  sent          {:>12}", samples.sent)?;
        writeln!(f, "  acknowledged  {:>12}", samples.acknowledged)?;
        writeln!(f, "  unknown       {:>12}", samples.unknown)?;
        if samples.refused > 0 {
            writeln!(f, "  refused       {:>12}", samples.refused)?;
        }
        if samples.skipped_batches > 0 {
            writeln!(f, "  not sent      {:>12}  batches: too many were unanswered", samples.skipped_batches)?;
        }
        Ok(())
    }

    fn write_found(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = &self.samples;
        if samples.unknown > 0 {
            writeln!(f, "  unknown found {:>12}", samples.unknown_found)?;
        }
        if samples.refused > 0 {
            writeln!(f, "  refused found {:>12}", samples.refused_found)?;
        }
        if samples.unrecorded > 0 {
            writeln!(f, "  unrecorded    {:>12}  found, due when the ledger was cut off", samples.unrecorded)?;
        }
        writeln!(f, "  lost          {:>12}  of which found with other bits: {}", self.lost, samples.wrong)?;
        writeln!(f, "  doubled       {:>12}  merged by the service: {}", self.doubled, samples.merged)?;
        writeln!(f, "  explained     {:>12}  merged, by attempts of unknown outcome", samples.explained)?;
        if self.alien > 0 {
            writeln!(f, "  never sent    {:>12}  and found all the same", self.alien)?;
        }
        match self.settled_after_seconds {
            _ if !self.has_promise() => writeln!(f, "  {NOTHING_ACKNOWLEDGED}"),
            Some(seconds) => writeln!(f, "  everything acknowledged was readable after {seconds:.1} s of reading"),
            None => writeln!(f, "  acknowledged samples were still missing when the waiting ended"),
        }
    }

    fn write_gaps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_gap(f, "ack gap", self.ack_gap.as_ref())?;
        for (name, shard) in &self.shards {
            write_gap(f, &format!("write gap {name}"), Some(&shard.write_gap))?;
            if shard.visible_gap.is_some() {
                write_gap(f, &format!("visible gap {name}"), shard.visible_gap.as_ref())?;
            }
        }
        write_gap(f, "visible gap", self.visible_gap.as_ref())?;
        if let Some(seconds) = self.stale_read_seconds {
            let answers = self.stale_answers;
            writeln!(
                f,
                "  {:<28} {answers}, the last {seconds:.3} s after the next primary was published",
                "stale answers"
            )?;
        }
        write_spread(f, "ack delay", self.ack_delay)?;
        write_spread(f, "visible after", self.visible_delay)?;
        for (name, shard) in &self.shards {
            let (primaries, replayed) = (shard.primaries.join(" -> "), shard.replayed);
            writeln!(f, "  {name}: primary {primaries}; {replayed} records stored again")?;
            if let Some(Direct { reads, read_seconds, writes, write_seconds }) = shard.direct {
                writeln!(
                    f,
                    "  {name}: a client that stayed with the old primary read {reads} times for {read_seconds:.3} s and wrote \
                     {writes} times for {write_seconds:.3} s after the next was claimed"
                )?;
            }
        }
        if self.own_pauses.count > 0 {
            let Pauses { count, seconds, longest_seconds } = self.own_pauses;
            writeln!(
                f,
                "  this tool did not run {count} times, {seconds:.2} s in all, {longest_seconds:.2} s at most"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_sent(f)?;
        self.write_found(f)?;
        self.write_gaps(f)?;
        self.oddities.iter().try_for_each(|oddity| writeln!(f, "  ! {oddity}"))
    }
}

/// A report whose figures of what was found mean nothing yet.
struct Unread<'a>(&'a Report);

impl fmt::Display for Unread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_sent(f)?;
        self.0.write_gaps(f)
    }
}

fn write_gap(f: &mut fmt::Formatter<'_>, name: &str, gap: Option<&Gap>) -> fmt::Result {
    let Some(gap) = gap else { return writeln!(f, "  {name:<28} not watched") };
    write!(f, "  {name:<28} {:>7.3} s  at {:.1} s", gap.seconds, gap.from)?;
    if gap.at_most_seconds > gap.seconds {
        write!(f, ", up to {:.3} s with the tool's own pauses", gap.at_most_seconds)?;
    }
    writeln!(f, "{}", if gap.open { ", not over when the watching ended" } else { "" })
}

fn write_spread(f: &mut fmt::Formatter<'_>, name: &str, spread: Option<Spread>) -> fmt::Result {
    let Some(Spread { p50, p99, max }) = spread else { return Ok(()) };
    writeln!(f, "  {name:<28} p50 {p50:.3} s, p99 {p99:.3} s, max {max:.3} s")
}
