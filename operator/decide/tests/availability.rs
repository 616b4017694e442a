//! What records say of a shard's availability: each record counts once, whatever happens between two looks.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use understudy_decide::availability::{
    Day, Incident, Ledger, MAX_OPEN, SETTLED, Sort, Summary, WINDOW_DAYS, apart, observed_days,
};
use understudy_wire::Epoch;

/// A noon, so that an hour more or less is the same day.
fn noon() -> Timestamp {
    "2026-11-30T12:00:00Z".parse().expect("a time")
}

fn ago(seconds: i64) -> Timestamp {
    noon() - SignedDuration::from_secs(seconds)
}

/// A failover that began then, took this long and was closed a minute later; seconds.
fn failover(epoch: u64, began: i64, took: i64) -> Incident {
    let until = began - took;
    Incident {
        epoch: Epoch(epoch),
        sort: Sort::Failover,
        from: ago(began),
        until: Some(ago(until)),
        closed: Some(ago(until - 60)),
    }
}

fn summary(ledger: &Ledger, incidents: &[Incident]) -> Summary {
    ledger.summary(incidents, None, ago(100 * 86_400), noon())
}

/// Seconds without writes, and failovers.
fn told(summary: &Summary) -> (u64, u32) {
    (summary.unavailable / 1_000, summary.failovers)
}

#[test]
fn a_record_counts_from_its_first_moment_and_once_when_it_is_taken_over_and_deleted() {
    let mut incident = failover(5, 3_000, 4);
    incident.until = None;
    incident.closed = None;
    let mut ledger = Ledger::default();
    assert_eq!(told(&summary(&ledger, &[incident])), (3_000, 1), "while it lasts, until now");
    let incident = failover(5, 3_000, 4);
    assert_eq!(told(&summary(&ledger, &[incident])), (4, 1), "as it was measured");
    ledger.take_over(&[incident], noon());
    assert!(ledger.has(Epoch(5)));
    assert_eq!(told(&summary(&ledger, &[incident])), (4, 1), "it is still there");
    ledger.take_over(&[incident], noon());
    assert_eq!(told(&summary(&ledger, &[])), (4, 1), "it was deleted");
}

#[test]
fn a_record_that_was_closed_a_moment_ago_or_is_open_is_not_taken_over_and_holds_up_no_later_one() {
    let (mut open, young, old) = (failover(5, 90_000, 1), failover(7, 400, 2), failover(6, 9_000, 3));
    open.closed = None;
    let mut ledger = Ledger::default();
    ledger.take_over(&[open, young, old], noon());
    assert_eq!([5, 6, 7].map(|epoch| ledger.has(Epoch(epoch))), [false, true, false]);
    assert_eq!(told(&summary(&ledger, &[open, young, old])), (6, 3));
    let closed = failover(5, 90_000, 1);
    ledger.take_over(&[closed, young, old], noon());
    assert_eq!([5, 6, 7].map(|epoch| ledger.has(Epoch(epoch))), [true, true, false]);
    assert_eq!(told(&summary(&ledger, &[young])), (6, 3));
}

#[test]
fn an_open_record_that_a_look_does_not_see_is_neither_forgotten_nor_taken_for_counted() {
    let (mut open, second, third) = (failover(5, 90_000, 1), failover(6, 9_000, 3), failover(7, 5_000, 2));
    open.closed = None;
    let mut ledger = Ledger::default();
    ledger.take_over(&[open, second], noon());
    ledger.take_over(&[second, third], noon());
    assert_eq!([5, 6, 7].map(|epoch| ledger.has(Epoch(epoch))), [false, true, true]);
    let closed = failover(5, 90_000, 1);
    assert_eq!(told(&summary(&ledger, &[closed])), (6, 3), "it is there again");
    ledger.take_over(&[closed], noon());
    assert!(ledger.has(Epoch(5)) && ledger.open.is_empty());
    assert_eq!(told(&summary(&ledger, &[])), (6, 3));
}

#[test]
fn records_that_were_deleted_while_they_were_open_fill_no_status() {
    let mut ledger = Ledger::default();
    for epoch in 0..1_000 {
        let mut open = failover(2 * epoch + 1, 9_000, 1);
        open.closed = None;
        ledger.take_over(&[open, failover(2 * epoch + 2, 8_000, 1)], noon());
    }
    assert_eq!(ledger.open.len(), MAX_OPEN);
    assert!(!ledger.has(Epoch(1_999)), "the last ones may come back");
}

#[test]
fn each_sort_of_change_counts_as_its_own() {
    let of = |epoch: u64, sort| Incident { sort, ..failover(epoch, 9_000 + i64::try_from(epoch).unwrap() * 100, 2) };
    let all = [
        of(1, Sort::Failover),
        of(2, Sort::Switchover),
        of(3, Sort::Drill),
        of(4, Sort::Confirmation),
        of(5, Sort::Failover),
    ];
    let sum = summary(&Ledger::default(), &all);
    assert_eq!((sum.failovers, sum.switchovers, sum.drills, sum.unavailable), (2, 1, 1, 10_000));
    assert_eq!(sum.mttr(), Some(2_000), "of failovers only");
    assert_eq!(sum.mtbf_seconds(), Some((31 * 86_400 - 10) / 2));
    let none = Summary { failovers: 0, ..sum };
    assert_eq!((none.mtbf_seconds(), none.mttr()), (None, None));
}

#[test]
fn time_without_writes_is_of_the_days_that_it_lies_in() {
    let mut ledger = Ledger::default();
    // From 23:50 of the 28th until 00:20 of the 30th.
    ledger.take_over(&[failover(5, 36 * 3_600 + 600, 86_400 + 1_800)], noon());
    let days: Vec<_> = ledger.days.iter().map(|(day, tally)| (day.to_string(), tally.unavailable / 1_000)).collect();
    assert_eq!(days, [("2026-11-28".into(), 600), ("2026-11-29".into(), 86_400), ("2026-11-30".into(), 1_200)]);
    assert_eq!(ledger.days.values().map(|tally| tally.failovers).collect::<Vec<_>>(), [1, 0, 0]);
}

#[test]
fn days_before_the_window_are_forgotten() {
    let mut ledger = Ledger::default();
    let day = |days: i64| days * 86_400;
    ledger.take_over(&[failover(5, day(WINDOW_DAYS + 1), 7), failover(6, day(WINDOW_DAYS), 5)], noon());
    assert_eq!(told(&summary(&ledger, &[])), (5, 1));
    assert!(ledger.has(Epoch(5)), "and not counted again");
    ledger.outage(ago(day(WINDOW_DAYS + 5)), noon());
    assert_eq!(i64::try_from(ledger.days.len()).unwrap(), WINDOW_DAYS + 1, "however long it lasted");
    for (born, expected) in [(0, 1), (day(1), 2), (day(500), WINDOW_DAYS + 1), (-day(1), 1)] {
        assert_eq!(observed_days(ago(born), noon()), expected, "{born} s ago");
    }
}

#[test]
fn a_clock_that_went_ahead_and_came_back_leaves_no_more_days_than_there_are() {
    let mut ledger = Ledger::default();
    ledger.outage(noon(), ago(-40 * 86_400));
    ledger.take_over(&[failover(5, 86_400, 7)], noon());
    let days: Vec<_> = ledger.days.keys().map(ToString::to_string).collect();
    assert_eq!(days, ["2026-11-29"], "a status takes 31");
    assert_eq!(told(&summary(&ledger, &[])), (7, 1));
}

#[test]
fn a_primary_that_is_dead_and_has_no_record_yet_counts_until_now() {
    let sum = Ledger::default().summary(&[], Some(ago(90)), ago(0), noon());
    assert_eq!(told(&sum), (90, 0));
}

#[test]
fn time_that_two_records_tell_of_counts_once() {
    // The second primary died before anybody committed on it; commits went on 10 s after the first sign.
    let (first, mut second) = (failover(5, 1_000, 10), failover(6, 995, 5));
    second.until = first.until;
    let mut open = failover(7, 50, 1);
    open.until = None;
    open.closed = None;
    let all = apart(vec![second, open, first], noon());
    let lengths: Vec<_> =
        all.iter().map(|i| (i.epoch.0, i.until.map(|until| (until - i.from).get_seconds()))).collect();
    assert_eq!(lengths, [(5, Some(10)), (6, Some(0)), (7, None)]);
    assert_eq!(told(&summary(&Ledger::default(), &all)), (60, 3));
}

#[test]
fn a_day_is_read_as_it_is_written() {
    let day = Day::of(noon());
    assert_eq!((day.to_string(), Day::parse("2026-11-30")), ("2026-11-30".to_owned(), Some(day)));
    assert_eq!(Day::parse("yesterday"), None);
}

/// What happens to a shard and its operators. Times pass between two of them.
#[derive(Clone, Debug)]
enum Event {
    /// A change of primary begins: its record is made.
    Begin,
    /// The oldest, or the newest, open record is closed.
    Close { oldest: bool },
    /// An operator looks: it takes over what it sees, and writes the ledger over the version that it read.
    Look,
    /// The same, and does not see the records that it knows as open.
    LookAway,
    /// It looks and dies before it writes, or another write came first.
    LookAndDie,
    /// One that looked long ago writes what it made of that version, if nobody wrote meanwhile.
    LateWrite,
    /// The history deletes records that were taken over.
    Prune,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Begin),
        any::<bool>().prop_map(|oldest| Event::Close { oldest }),
        Just(Event::Look),
        Just(Event::LookAway),
        Just(Event::LookAndDie),
        Just(Event::LateWrite),
        Just(Event::Prune),
    ]
}

proptest! {
    #[test]
    fn no_record_is_lost_or_doubled_wherever_operators_die(
        events in prop::collection::vec((event(), 1_i64..1_200), 1..120),
    ) {
        let mut now = ago(2 * 86_400);
        // The ledger as the API server has it, with its version; and what somebody made of a version that it read.
        let (mut ledger, mut version) = (Ledger::default(), 0_u32);
        let mut late: Option<(Ledger, u32)> = None;
        let mut records: Vec<Incident> = Vec::new();
        let mut begun = 0_u64;
        for (event, pause) in events {
            now += SignedDuration::from_secs(pause);
            match event {
                Event::Begin => {
                    begun += 1;
                    let until = Some(now + SignedDuration::from_secs(1));
                    let sort = Sort::Failover;
                    records.push(Incident { epoch: Epoch(begun), sort, from: now, until, closed: None });
                }
                Event::Close { oldest } => {
                    let mut open = records.iter_mut().filter(|record| record.closed.is_none());
                    let one = if oldest { open.next() } else { open.next_back() };
                    if let Some(record) = one {
                        record.closed = Some(now);
                    }
                }
                Event::Look => {
                    ledger.take_over(&records, now);
                    version += 1;
                }
                Event::LookAway => {
                    let seen: Vec<_> =
                        records.iter().filter(|record| !ledger.open.contains(&record.epoch)).copied().collect();
                    ledger.take_over(&seen, now);
                    version += 1;
                }
                Event::LookAndDie => {
                    let mut seen = ledger.clone();
                    seen.take_over(&records, now);
                    late = Some((seen, version));
                }
                Event::LateWrite => {
                    if let Some((seen, of)) = late.take().filter(|(_, of)| *of == version) {
                        ledger = seen;
                        version = of + 1;
                    }
                }
                Event::Prune => records.retain(|record| !ledger.has(record.epoch)),
            }
            let sum = ledger.summary(&records, None, ago(100 * 86_400), now + SignedDuration::from_secs(1));
            prop_assert_eq!((sum.unavailable, u64::from(sum.failovers)), (begun * 1_000, begun));
        }
        // Once all is over, everything is in the ledger.
        for record in &mut records {
            record.closed = record.closed.or(Some(now));
        }
        ledger.take_over(&records, now + SignedDuration::from_secs(SETTLED));
        prop_assert!((1..=begun).all(|epoch| ledger.has(Epoch(epoch))));
        prop_assert_eq!(ledger.days.values().map(|tally| u64::from(tally.failovers)).sum::<u64>(), begun);
        prop_assert!(ledger.open.is_empty());
        prop_assert!(i64::try_from(ledger.days.len()).expect("few") <= WINDOW_DAYS + 1);
    }
}
