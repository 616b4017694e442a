//! How long a shard took no writes over the last 30 days and how often it failed, from the records of its changes of primary. Pure.
//!
//! Time counts in which a write would not have been taken, as far as that is known, whether or not there was one.
//!
//! A record lives no longer than the history lets it, so what it says is taken over into one entry a day. Which records the entries hold is
//! told by epochs in the same ledger, and so in the same write: a record counts once, whoever is restarted at whatever moment. What is not
//! taken over yet is added anew by each look.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use understudy_wire::Epoch;
use understudy_wire::evidence::Millis;

/// The days before the present one that count.
pub const WINDOW_DAYS: i64 = 30;
/// Seconds after the end of a record before it is taken over: what was measured may come in late, and so may the record of an earlier change.
pub const SETTLED: i64 = 600;

/// Seconds after a change for which its record stays open for the consumers' first commit, and for them to catch up: one that waits for the
/// new primary has committed by then. A busy one takes one or two.
pub const COMMIT_PATIENCE: i64 = 30;

/// Epochs whose records are remembered as not taken over; beyond these the first are forgotten. Few are open at once, but one whose record a
/// person deleted stays.
pub const MAX_OPEN: usize = 128;

const SECONDS_OF_DAY: i64 = 86_400;
const MILLIS_OF_DAY: i64 = 1_000 * SECONDS_OF_DAY;

/// A day of the calendar in UTC, by its number since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The one that a moment lies in.
    pub fn of(at: Timestamp) -> Self {
        Self(at.as_second().div_euclid(SECONDS_OF_DAY))
    }

    /// As it is displayed, `2026-01-31`; None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let midnight: Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
        Some(Self::of(midnight))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midnight = Timestamp::from_second(self.0.saturating_mul(SECONDS_OF_DAY)).map_err(|_| fmt::Error)?;
        f.write_str(midnight.to_string().split('T').next().unwrap_or_default())
    }
}

/// What a change of primary counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A failure.
    Failover,
    /// Planned.
    Switchover,
    /// Rehearsed, however it was done.
    Drill,
    /// The primary stayed, or another record tells of the same time: only what was measured counts.
    Confirmation,
}

/// The time without writes of one change of primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The latest epoch of its record, which no other record has.
    pub epoch: Epoch,
    /// What it counts as.
    pub sort: Sort,
    /// When writes ended.
    pub from: Timestamp,
    /// When they were taken again; None while they are not.
    pub until: Option<Timestamp>,
    /// When the record was closed; None while it is open.
    pub closed: Option<Timestamp>,
}

impl Incident {
    fn is_settled(&self, now: Timestamp) -> bool {
        self.closed.is_some_and(|closed| now.as_second().saturating_sub(closed.as_second()) >= SETTLED)
    }

    /// One that was closed is over, whatever was not measured.
    fn end(&self, now: Timestamp) -> Timestamp {
        self.until.or(self.closed).unwrap_or(now).max(self.from)
    }
}

/// The same incidents without time that two of them tell of: a primary that dies before anybody committed on it has a record of its own, and
/// writes ended with the one before it.
pub fn apart(mut incidents: Vec<Incident>, now: Timestamp) -> Vec<Incident> {
    incidents.sort_by_key(|incident| (incident.from, incident.epoch));
    let mut reached = None;
    for incident in &mut incidents {
        let end = incident.end(now);
        if let Some(reached) = reached {
            incident.from = incident.from.max(reached).min(end);
        }
        reached = reached.max(Some(end));
    }
    incidents
}

/// What happened on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Time without writes, milliseconds.
    pub unavailable: Millis,
    /// Of that, by failovers that began on the day: their whole length, also when it reaches into the next.
    pub repair: Millis,
    /// Failovers that began.
    pub failovers: u32,
    /// Switchovers that began.
    pub switchovers: u32,
    /// Drills that began.
    pub drills: u32,
}

/// What was taken over from records, and from which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By day; no more than [`WINDOW_DAYS`] and the present one.
    pub days: BTreeMap<Day, Tally>,
    /// All records up to this epoch are taken over,
    pub counted: Epoch,
    /// but for those of these epochs, which were not settled.
    pub open: BTreeSet<Epoch>,
}

impl Ledger {
    /// Whether the record of this epoch is in the entries, so that nothing is lost when it is deleted.
    pub fn has(&self, epoch: Epoch) -> bool {
        epoch <= self.counted && !self.open.contains(&epoch)
    }

    /// Takes over what is settled, and forgets days that are too long ago. An open record that is not among the incidents stays open: it may
    /// be one that this look could not see or read.
    pub fn take_over(&mut self, incidents: &[Incident], now: Timestamp) {
        let new: BTreeMap<_, _> = incidents.iter().map(|incident| (incident.epoch, incident)).collect();
        let new = new.into_values().filter(|incident| !self.has(incident.epoch));
        let (settled, rest): (Vec<_>, Vec<_>) = new.partition(|incident| incident.is_settled(now));
        if let Some(last) = settled.last() {
            settled.iter().for_each(|incident| self.add(incident, now));
            self.counted = self.counted.max(last.epoch);
            let counted = self.counted;
            self.open.extend(rest.iter().map(|incident| incident.epoch).filter(|epoch| *epoch < counted));
            self.open.retain(|epoch| settled.iter().all(|incident| incident.epoch != *epoch));
            while self.open.len() > MAX_OPEN {
                self.open.pop_first();
            }
        }
        self.forget(now);
    }

    /// Time without writes that no record tells of: a primary that was dead and came back.
    pub fn outage(&mut self, from: Timestamp, until: Timestamp) {
        self.pass(from, until);
        self.forget(until);
    }

    fn pass(&mut self, from: Timestamp, until: Timestamp) {
        let (from, until) = (from.as_millisecond(), until.as_millisecond());
        for day in from.div_euclid(MILLIS_OF_DAY)..=until.div_euclid(MILLIS_OF_DAY) {
            let begin = from.max(day.saturating_mul(MILLIS_OF_DAY));
            let end = until.min((day + 1).saturating_mul(MILLIS_OF_DAY));
            if let Ok(length @ 1..) = u64::try_from(end - begin) {
                self.days.entry(Day(day)).or_default().unavailable += length;
            }
        }
    }

    /// Everything together, with what is not taken over yet.
    pub fn summary(
        &self,
        incidents: &[Incident],
        dead_since: Option<Timestamp>,
        born: Timestamp,
        now: Timestamp,
    ) -> Summary {
        let mut all = self.clone();
        incidents.iter().filter(|incident| !self.has(incident.epoch)).for_each(|incident| all.add(incident, now));
        if let Some(since) = dead_since {
            all.outage(since, now);
        }
        all.forget(now);
        let mut sum = Summary { observed_days: observed_days(born, now), ..Summary::default() };
        for tally in all.days.values() {
            sum.unavailable += tally.unavailable;
            sum.repair += tally.repair;
            sum.failovers += tally.failovers;
            sum.switchovers += tally.switchovers;
            sum.drills += tally.drills;
        }
        sum
    }

    fn add(&mut self, incident: &Incident, now: Timestamp) {
        let end = incident.end(now);
        self.pass(incident.from, end);
        let tally = self.days.entry(Day::of(incident.from)).or_default();
        match incident.sort {
            Sort::Failover => {
                tally.failovers += 1;
                let length = end.as_millisecond() - incident.from.as_millisecond();
                tally.repair += u64::try_from(length).unwrap_or(0);
            }
            Sort::Switchover => tally.switchovers += 1,
            Sort::Drill => tally.drills += 1,
            Sort::Confirmation => {}
        }
    }

    /// Days to come are none of the window: a clock that went ahead and came back left them, and a status takes no more days than the window has.
    fn forget(&mut self, now: Timestamp) {
        let today = Day::of(now);
        let window = Day(today.0 - WINDOW_DAYS)..=today;
        self.days.retain(|day, tally| window.contains(day) && *tally != Tally::default());
    }
}

/// How many days something that was made then has been seen, the present one included: all of the window at most.
pub fn observed_days(born: Timestamp, now: Timestamp) -> i64 {
    (Day::of(now).0 - Day::of(born).0 + 1).clamp(1, WINDOW_DAYS + 1)
}

/// The present day and the [`WINDOW_DAYS`] before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many of these days there are.
    pub observed_days: i64,
    /// Time without writes, milliseconds.
    pub unavailable: Millis,
    /// Of that, by failovers.
    pub repair: Millis,
    /// Failovers.
    pub failovers: u32,
    /// Switchovers.
    pub switchovers: u32,
    /// Drills.
    pub drills: u32,
}

impl Summary {
    /// Mean time between failures, seconds: time with writes, by failovers. None without a failover.
    pub fn mtbf_seconds(&self) -> Option<u64> {
        let observed = u64::try_from(self.observed_days.saturating_mul(SECONDS_OF_DAY)).unwrap_or(0);
        observed.saturating_sub(self.unavailable / 1_000).checked_div(self.failovers.into())
    }

    /// Mean time to repair, milliseconds: time without writes of a failover. None without one.
    pub fn mttr(&self) -> Option<Millis> {
        self.repair.checked_div(self.failovers.into())
    }

    /// Of several shards together; `observed_days` is that of the store they are of.
    pub fn of_all(shards: impl IntoIterator<Item = Self>, observed_days: i64) -> Self {
        let mut sum = Self { observed_days, ..Self::default() };
        for shard in shards {
            sum.unavailable += shard.unavailable;
            sum.repair += shard.repair;
            sum.failovers += shard.failovers;
            sum.switchovers += shard.switchovers;
            sum.drills += shard.drills;
        }
        sum
    }
}
