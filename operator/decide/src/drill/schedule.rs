//! When runs are due. Pure.

use cronexpr::{Crontab, MakeTimestamp};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::decision::{DrillDecision, Due};
use super::snapshot::{DrillSnapshot, Policy, Window};

/// What times are read in unless the spec says otherwise.
const UTC: &str = "UTC";

/// Five fields of cron in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule(Crontab);

impl Schedule {
    /// Reads both; else says what is wrong, for a person.
    pub fn parse(fields: &str, zone: Option<&str>) -> Result<Self, String> {
        let fields: Vec<_> = fields.split_whitespace().collect();
        if fields.len() != 5 {
            return Err(format!("schedule has {} fields and needs five", fields.len()));
        }
        let text = format!("{} {}", fields.join(" "), zone.unwrap_or(UTC));
        // The library draws an arrow below the text; one line is enough in a condition.
        let words = |e: cronexpr::Error| e.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        cronexpr::parse_crontab(&text).map(Self).map_err(words)
    }

    /// The first time after this; None: there is none in the next years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.0.find_next(MakeTimestamp(after)).ok().map(|zoned| zoned.timestamp())
    }
}

/// The time zone of the schedule and of the windows.
pub fn zone(policy: &Policy) -> Result<TimeZone, String> {
    let name = policy.zone.as_deref().unwrap_or(UTC);
    TimeZone::get(name).map_err(|_| format!("timeZone {name} is not in the tz database"))
}

/// What is wrong with the schedule or the time zone.
pub fn unusable(policy: &Policy) -> Option<String> {
    let of_schedule = || {
        let fields = policy.schedule.as_deref()?;
        match Schedule::parse(fields, policy.zone.as_deref()) {
            Err(words) => Some(words),
            // One such as the 30th of February.
            Ok(schedule) if schedule.next(Timestamp::UNIX_EPOCH).is_none() => {
                Some(format!("schedule {fields} asks for a day that never comes"))
            }
            Ok(_) => None,
        }
    };
    zone(policy).err().or_else(of_schedule)
}

/// What is due: first what a person asks for. The schedule's time is one that was announced: a spec that was just changed begins nothing at
/// once.
pub fn due(s: &DrillSnapshot, now: Timestamp) -> Option<Due> {
    let requested = requested(s).filter(|at| *at <= now).map(Due::Requested);
    requested.or_else(|| s.status.next_run.filter(|at| *at <= now).map(Due::Scheduled))
}

/// A request that was not taken up yet. Statuses hold whole seconds.
fn requested(s: &DrillSnapshot) -> Option<Timestamp> {
    let last = s.status.last_requested.map(Timestamp::as_second);
    s.policy.requested.filter(|at| last.is_none_or(|last| at.as_second() > last))
}

/// When something will be due.
pub fn wake(s: &DrillSnapshot, now: Timestamp) -> Option<Timestamp> {
    let ahead = |at: &Timestamp| *at > now;
    [requested(s).filter(ahead), fresh(s, now)].into_iter().flatten().min()
}

fn fresh(s: &DrillSnapshot, now: Timestamp) -> Option<Timestamp> {
    if s.policy.suspended {
        return None;
    }
    Schedule::parse(s.policy.schedule.as_deref()?, s.policy.zone.as_deref()).ok()?.next(now)
}

/// The run to announce, after this decision. One that was announced stays until it is begun or skipped, or one of the same name is: a person
/// may ask for a run at the very second.
pub fn announced(s: &DrillSnapshot, decision: &DrillDecision, now: Timestamp) -> Option<Timestamp> {
    let dealt_with = |due: &Due| s.status.next_run.is_some_and(|next| next.as_second() == due.at().as_second());
    match decision {
        DrillDecision::Start { due, .. } | DrillDecision::Skip { due, .. } if dealt_with(due) => fresh(s, now),
        _ if s.policy.suspended => None,
        _ => s.status.next_run.or_else(|| fresh(s, now)),
    }
}

/// Whether a run may begin now. A window that closes before it opens does so on the next day.
pub fn is_open(windows: &[Window], zone: &TimeZone, now: Timestamp) -> bool {
    let here = now.to_zoned(zone.clone());
    let (today, at) = (here.weekday(), here.time());
    let opens = |window: &Window, day| window.days.is_empty() || window.days.contains(&day);
    windows.is_empty()
        || windows.iter().any(|window| match window.hours {
            None => false,
            Some((from, to)) if from < to => opens(window, today) && from <= at && at < to,
            Some((from, to)) => (opens(window, today) && at >= from) || (opens(window, today.previous()) && at < to),
        })
}
