//! Where partitions are, case by case.

use super::*;
use crate::placement::{Entry, placement_of, within};

fn placed(list: &[(i32, &str, i64)]) -> Placement {
    let entries: Vec<_> = list
        .iter()
        .map(|&(partition, shard, from)| Entry { partition, shard: shard.into(), from, pending: false })
        .collect();
    placement_of("a", &entries)
}

fn stored(list: &[(i32, i64)]) -> BTreeMap<i32, i64> {
    list.iter().copied().collect()
}

/// Two partitions, stored up to 10 and 20, of which 10, 11 and 20 are taken.
fn with_batch() -> Lanes {
    let mut lanes = Lanes::default();
    let placement = placed(&[(0, "a", 0), (1, "a", 0)]);
    assert_eq!(lanes.load(&placement, &[], &stored(&[(0, 10), (1, 20)])), Resume::Rewind);
    for (partition, offset) in [(0, 10), (0, 11), (1, 20)] {
        assert_eq!(lanes.offer(partition, offset, Holes::Refused), Offer::Take);
    }
    lanes
}

#[test]
fn the_batch_in_hand_is_kept_dropped_or_read_again_by_what_is_stored() {
    use Resume::{DropBatch, KeepBatch, Rewind};
    for (case, found, expected, positions) in [
        ("nothing happened", &[(0, 10), (1, 20)][..], KeepBatch, [(0, 12), (1, 21)]),
        ("it was committed", &[(0, 12), (1, 21)], DropBatch, [(0, 12), (1, 21)]),
        ("a lagging replica", &[(0, 4), (1, 20)], Rewind, [(0, 4), (1, 20)]),
        ("somebody went on", &[(0, 15), (1, 21)], Rewind, [(0, 15), (1, 21)]),
        ("half of it, which no commit does", &[(0, 12), (1, 20)], Rewind, [(0, 12), (1, 20)]),
    ] {
        let mut lanes = with_batch();
        assert_eq!(lanes.load(&placed(&[(0, "a", 0), (1, "a", 0)]), &[], &stored(found)), expected, "{case}");
        assert_eq!(lanes.positions(), positions, "{case}");
        assert_eq!(lanes.taken().is_empty(), expected != KeepBatch, "{case}");
        assert_eq!(lanes.expected([0, 1])[&0], Some(found[0].1), "{case}");
    }
}

#[test]
fn a_replica_that_has_no_offset_yet_begins_where_the_span_or_the_log_does() {
    for (case, list, earliest, start, position, lost_from) in [
        ("from the beginning", &[(0, "a", 0)][..], 0, Start::Placement, Some(0), None),
        ("retention cut the log before anything was stored", &[(0, "a", 0)], 70, Start::Placement, None, Some(0)),
        ("the same, of a younger consumer", &[(0, "a", 0)], 70, Start::Earliest, Some(70), None),
        ("placed here later", &[(0, "b", 0), (0, "a", 100)], 70, Start::Placement, Some(100), None),
        ("placed here later, and too late", &[(0, "b", 0), (0, "a", 60)], 70, Start::Placement, None, Some(60)),
        ("placed here at the earliest", &[(0, "b", 0), (0, "a", 70)], 70, Start::Placement, Some(70), None),
        ("the whole span was cut", &[(0, "a", 0), (0, "b", 50)], 70, Start::Placement, None, Some(0)),
        ("the same, of a younger consumer", &[(0, "a", 0), (0, "b", 50)], 70, Start::Earliest, None, None),
    ] {
        let mut lanes = Lanes::new(start);
        lanes.load(&placed(list), &[], &BTreeMap::new());
        assert_eq!(lanes.positions(), [], "{case}");
        assert_eq!(lanes.heard(0, earliest, 1000), position.is_some(), "{case}");
        assert_eq!(lanes.positions(), position.map(|at| (0, at)).into_iter().collect::<Vec<_>>(), "{case}");
        let fault = lost_from.map(|wanted| Fault::Deleted { wanted, earliest });
        assert_eq!(lanes.get(0).unwrap().fault(), fault.as_ref(), "{case}");
        lanes.heard(0, earliest, 2000);
        assert_eq!(lanes.get(0).unwrap().fault(), fault.as_ref(), "{case}: as long as nobody does anything");
    }
}

#[test]
fn a_row_that_was_written_beside_a_batch_does_not_undo_it() {
    let mut lanes = Lanes::new(Start::Earliest);
    let placement = placed(&[(0, "a", 0), (1, "a", 0)]);
    lanes.load(&placement, &[], &stored(&[(0, 10)]));
    lanes.heard(1, 5, 5);
    assert_eq!(lanes.offer(0, 10, Holes::Refused), Offer::Take);
    assert_eq!(lanes.load(&placement, &[], &stored(&[(0, 11), (1, 5)])), Resume::DropBatch);
}

#[test]
fn records_are_taken_once_in_order_and_only_where_they_are_placed() {
    let mut lanes = Lanes::default();
    lanes.load(&placed(&[(0, "a", 0), (0, "b", 12), (0, "a", 20)]), &[1], &stored(&[(0, 10)]));
    lanes.heard(0, 0, 30);
    for (offset, expected) in [
        (9, Offer::Drop),
        (10, Offer::Take),
        (10, Offer::Drop),
        (11, Offer::Take),
        (12, Offer::Drop),
        (19, Offer::Drop),
        (20, Offer::Take),
        (22, Offer::Fault),
        (21, Offer::Drop),
    ] {
        assert_eq!(lanes.offer(0, offset, Holes::Refused), expected, "{offset}");
    }
    assert_eq!(lanes.offer(7, 0, Holes::Refused), Offer::Drop, "not placed");
    assert_eq!(lanes.get(0).unwrap().fault(), Some(&Fault::Gap { expected: 21, got: 22 }));
}

#[test]
fn a_gap_is_tried_again_and_ends_when_the_record_comes() {
    let mut lanes = with_batch();
    lanes.broke(0, Fault::Gap { expected: 12, got: 14 });
    assert_eq!(lanes.positions(), [(1, 21)]);
    assert!(lanes.try_again());
    assert_eq!(lanes.positions(), [(0, 12), (1, 21)]);
    assert!(lanes.get(0).unwrap().fault().is_some(), "until it is mended");
    assert_eq!(lanes.offer(0, 12, Holes::Refused), Offer::Take);
    assert_eq!(lanes.get(0).unwrap().fault(), None);
    assert!(!lanes.try_again());
}

#[test]
fn offsets_may_be_missing_where_that_is_expected() {
    let mut lanes = with_batch();
    assert_eq!(lanes.offer(0, 14, Holes::Expected), Offer::Take);
    assert_eq!(lanes.get(0).unwrap().next(), Some(15));
}

#[test]
fn the_ends_of_the_log_tell_what_was_lost() {
    let here = [(0, "a", 0)];
    let moved = [(0, "a", 0), (0, "b", 50)];
    let later = [(0, "a", 0), (0, "b", 50), (0, "a", 90)];
    for (case, list, at, earliest, end, fault) in [
        ("all there", &here[..], 10, 10, 10, None),
        ("deleted", &here, 10, 11, 99, Some(Fault::Deleted { wanted: 10, earliest: 11 })),
        ("cut", &here, 10, 0, 9, Some(Fault::Ended { wanted: 10, end: 9 })),
        ("moved away, then deleted", &moved, 50, 70, 99, None),
        ("moved away too late", &moved, 51, 0, 99, Some(Fault::Overrun { until: 50, stored: 51 })),
        ("comes back where the log is not yet", &later, 50, 0, 60, None),
    ] {
        let mut lanes = Lanes::default();
        lanes.load(&placed(list), &[], &stored(&[(0, at)]));
        lanes.heard(0, earliest, end);
        assert_eq!(lanes.get(0).unwrap().fault(), fault.as_ref(), "{case}");
        lanes.heard(0, 0, 1000);
        let stays = matches!(fault, Some(Fault::Overrun { .. } | Fault::Ended { .. }));
        assert_eq!(lanes.get(0).unwrap().fault().is_some(), stays, "{case}: heard better");
    }
}

#[test]
fn a_span_that_begins_where_the_log_is_not_yet_waits_for_it() {
    for (case, list, stored_up_to) in [
        ("new here", &[(0, "b", 0), (0, "a", 90)][..], None),
        ("back again", &[(0, "a", 0), (0, "b", 50), (0, "a", 90)], Some(50)),
    ] {
        let mut lanes = Lanes::default();
        let found: Vec<_> = stored_up_to.map(|at| (0, at)).into_iter().collect();
        lanes.load(&placed(list), &[], &stored(&found));
        lanes.heard(0, 0, 89);
        assert_eq!((lanes.positions(), lanes.get(0).unwrap().fault()), (vec![], None), "{case}");
        assert!(lanes.heard(0, 0, 90), "{case}");
        assert_eq!(lanes.positions(), [(0, 90)], "{case}");
        assert_eq!(lanes.offer(0, 90, Holes::Refused), Offer::Take, "{case}");
        lanes.heard(0, 0, 90);
        assert_eq!(lanes.positions(), [(0, 91)], "{case}: news of the end may be older than what came");
    }
}

#[test]
fn a_partition_that_fell_silent_is_asked_for_again() {
    let mut lanes = with_batch();
    let told = |lanes: &mut Lanes, times: u32| (0..times).filter(|_| lanes.heard(0, 0, 15)).count();
    assert_eq!(told(&mut lanes, SILENCES), 0);
    assert_eq!(lanes.offer(0, 12, Holes::Refused), Offer::Take);
    assert_eq!(told(&mut lanes, SILENCES), 0, "it spoke");
    assert_eq!(told(&mut lanes, 1), 1);
    assert_eq!((0..20).filter(|_| lanes.heard(1, 0, 21)).count(), 0, "nothing to say");
}

#[test]
fn a_partition_of_which_records_may_wait_unread_is_not_silent() {
    let mut lanes = with_batch();
    let told = |lanes: &mut Lanes, times: u32| (0..times).filter(|_| lanes.heard(0, 0, 15)).count();
    for _ in 0..5 {
        assert_eq!(told(&mut lanes, SILENCES), 0);
        lanes.are_waited_for();
    }
    assert_eq!(told(&mut lanes, SILENCES + 1), 1);
}

#[test]
fn a_paused_partition_is_not_read() {
    let mut lanes = Lanes::default();
    lanes.load(&placed(&[(0, "a", 0), (1, "a", 0)]), &[1], &stored(&[(0, 1), (1, 1)]));
    assert_eq!(lanes.positions(), [(0, 1)]);
    assert!(lanes.get(1).unwrap().is_paused());
    assert_eq!(lanes.offer(1, 1, Holes::Refused), Offer::Drop);
}

#[test]
fn a_commit_moves_what_it_wrote_and_nothing_else() {
    let mut lanes = with_batch();
    lanes.committed([0]);
    assert_eq!(lanes.expected([0, 1]), BTreeMap::from([(0, Some(12)), (1, Some(20))]));
    assert_eq!(lanes.taken(), [1]);
}

fn origin(topic: &str) -> Origin {
    Origin { cluster: Some("cluster".to_owned()), topic: Some(topic.to_owned()) }
}

/// One partition of topic `old`, stored up to 10, of which the row says so.
fn one_lane() -> Lanes {
    let mut lanes = Lanes::default();
    lanes.load(&placed(&[(0, "a", 0)]), &[], &stored(&[(0, 10)]));
    lanes.recall(0, Note { origin: origin("old"), ..Note::default() });
    assert!(!lanes.is_of(&origin("old")));
    lanes.heard(0, 0, 10);
    assert_eq!(lanes.positions(), [(0, 10)]);
    lanes
}

/// The same after the log was seen to end at 7, which the row says too.
fn cut_lane() -> Lanes {
    let mut lanes = one_lane();
    lanes.heard(0, 0, 7);
    assert_eq!(lanes.note(0), (Note { origin: origin("old"), cut: Some(7), ..Note::default() }, true));
    lanes.committed([0]);
    assert!(!lanes.note(0).1, "the row says it");
    lanes
}

fn ended(lanes: &Lanes) -> bool {
    matches!(lanes.get(0).unwrap().fault(), Some(Fault::Ended { .. }))
}

#[test]
fn a_log_that_was_cut_stands_however_long_it_becomes() {
    let mut lanes = cut_lane();
    for end in [7, 10, 11, 1000] {
        lanes.heard(0, 0, end);
        assert_eq!(lanes.get(0).unwrap().fault(), Some(&Fault::Ended { wanted: 10, end: 7 }), "{end}");
        assert_eq!((lanes.positions(), lanes.offer(0, 10, Holes::Refused)), (vec![], Offer::Drop), "{end}");
    }
    lanes.heard(0, 20, 1000);
    lanes.heard(0, 0, 1000);
    assert!(ended(&lanes), "what retention does later changes nothing");
    assert!(!lanes.try_again());
}

#[test]
fn what_the_reader_says_of_a_cut_log_stands_too() {
    let mut lanes = one_lane();
    assert_eq!(lanes.offer(0, 10, Holes::Refused), Offer::Take);
    lanes.broke(0, Fault::Ended { wanted: 11, end: 10 });
    lanes.heard(0, 0, 1000);
    assert!(ended(&lanes));
    assert_eq!(lanes.taken(), [0], "what was read before is still to be stored");
    lanes.committed([0]);
    lanes.heard(0, 0, 1000);
    assert_eq!(lanes.get(0).unwrap().fault(), Some(&Fault::Ended { wanted: 11, end: 10 }));
}

#[test]
fn a_cut_is_remembered_until_a_person_takes_it_out_of_the_row() {
    let here = || placed(&[(0, "a", 0)]);
    let row = |cut| Note { origin: origin("old"), cut, ..Note::default() };
    for (case, at, elsewhere, cut, stands) in [
        ("read again", 10, false, Some(7), true),
        ("taken out, to go on from where it is", 10, false, None, false),
        ("taken out, to go on from another offset", 12, false, None, false),
        ("taken out, to read from the cut on", 7, false, None, false),
        ("only the offset was changed, to what is whole", 7, false, Some(7), false),
        ("a replica whose row does not have it yet", 10, true, None, true),
        ("a replica that lags, beyond the cut", 9, true, None, true),
        ("a replica that lags, to before the cut", 6, true, None, false),
    ] {
        let mut lanes = cut_lane();
        lanes.heard(0, 0, 1000);
        if elsewhere {
            lanes.elsewhere();
        }
        lanes.load(&here(), &[], &stored(&[(0, at)]));
        lanes.recall(0, row(cut));
        lanes.heard(0, 0, 1000);
        assert_eq!(ended(&lanes), stands, "{case}");
        let (note, news) = lanes.note(0);
        assert_eq!((note.cut, news), (stands.then_some(7), stands.then_some(7) != cut), "{case}");
        assert_eq!(lanes.positions().is_empty(), stands, "{case}");
    }
    let mut another = Lanes::default();
    another.load(&here(), &[], &stored(&[(0, 10)]));
    another.recall(0, row(Some(7)));
    another.heard(0, 0, 1000);
    assert!(ended(&another), "another process reads it in the row");
}

#[test]
fn a_span_of_which_nothing_was_read_is_waited_for_even_if_its_row_is_there() {
    let mut lanes = Lanes::default();
    lanes.load(&placed(&[(0, "b", 0), (0, "a", 90)]), &[], &stored(&[(0, 90)]));
    assert_eq!(lanes.positions(), [], "whether the log has come to it is not known yet");
    lanes.heard(0, 0, 60);
    lanes.broke(0, Fault::Ended { wanted: 90, end: 60 });
    assert_eq!((lanes.positions(), lanes.get(0).unwrap().fault()), (vec![], None));
    assert!(lanes.heard(0, 0, 90));
    assert_eq!(lanes.positions(), [(0, 90)]);
}

#[test]
fn another_topic_of_the_same_name_is_not_read_on_from_what_was_stored_of_the_first() {
    let replaced = Fault::Replaced { stored: origin("old"), found: origin("new") };
    let mut lanes = one_lane();
    assert_eq!(lanes.offer(0, 10, Holes::Refused), Offer::Take);
    assert!(lanes.is_of(&origin("new")));
    assert!(!lanes.is_of(&origin("new")), "told once");
    lanes.rewind();
    for end in [3, 1000] {
        lanes.heard(0, 0, end);
        assert_eq!(lanes.get(0).unwrap().fault(), Some(&replaced), "{end}");
        assert_eq!((lanes.positions(), lanes.taken()), (vec![], vec![]), "{end}");
        assert_eq!(lanes.note(0).0.origin, origin("old"), "the row must not forget");
    }
    lanes.load(&placed(&[(0, "a", 0)]), &[], &stored(&[(0, 10)]));
    lanes.recall(0, Note { origin: origin("old"), ..Note::default() });
    assert_eq!(lanes.get(0).unwrap().fault(), Some(&replaced), "read again");

    lanes.load(&placed(&[(0, "a", 0)]), &[], &stored(&[(0, 0)]));
    lanes.recall(0, Note::default());
    lanes.heard(0, 0, 1000);
    assert_eq!((lanes.positions(), lanes.get(0).unwrap().fault()), (vec![(0, 0)], None), "a person said so");
    assert_eq!(lanes.note(0), (Note { origin: origin("new"), ..Note::default() }, true));
}

#[test]
fn rows_of_before_ids_were_kept_and_partitions_without_rows_take_the_topic_as_it_is() {
    let mut lanes = Lanes::default();
    lanes.load(&placed(&[(0, "a", 0), (1, "a", 0)]), &[], &stored(&[(0, 10)]));
    lanes.recall(0, Note::default());
    assert!(!lanes.is_of(&origin("any")));
    assert_eq!(lanes.faulty(), BTreeSet::new());
    assert_eq!(lanes.note(0), (Note { origin: origin("any"), ..Note::default() }, true));
}

/// Reads the row of partition 0 as a driver does: its offset, and the end that it says.
fn read(lanes: &mut Lanes, list: &[(i32, &str, i64)], at: Option<i64>, row: Option<i64>) -> Resume {
    let promised = row.map(|until| (0, until)).into_iter().collect();
    let found: Vec<_> = at.map(|at| (0, at)).into_iter().collect();
    let resume = lanes.load(&within(placed(list), &promised), &[], &stored(&found));
    if at.is_some() {
        lanes.recall(0, Note { until: row, ..Note::default() });
    }
    resume
}

#[test]
fn an_end_is_told_once_the_row_says_it_and_a_row_only_ever_says_a_later_one() {
    let open = &[(0, "a", 0)][..];
    let moved = &[(0, "a", 0), (0, "b", 50)][..];
    let back = &[(0, "a", 0), (0, "b", 50), (0, "a", 90)][..];
    let again = &[(0, "a", 0), (0, "b", 50), (0, "a", 90), (0, "b", 150)][..];
    for (case, list, at, row, note, told) in [
        ("never moved", open, Some(10), None, None, None),
        ("heard of, not in the row", moved, Some(10), None, Some(50), None),
        ("in the row", moved, Some(10), Some(50), Some(50), Some(50)),
        ("in the row, not heard of", open, Some(10), Some(50), Some(50), Some(50)),
        ("moved on since", &[(0, "a", 0), (0, "b", 70)], Some(60), Some(50), Some(70), None),
        ("moved on, not heard of", moved, Some(10), Some(70), Some(70), None),
        ("given back", back, Some(50), Some(50), Some(50), None),
        ("moved again, and the part before is still read", again, Some(49), Some(50), Some(50), None),
        ("moved again, and nothing of the part is read", again, Some(50), Some(50), Some(50), None),
        ("moved again", again, Some(91), Some(50), Some(150), None),
        ("moved again, in the row", again, Some(91), Some(150), Some(150), Some(150)),
        ("moved again, not heard of", back, Some(91), Some(150), Some(150), Some(150)),
        ("nothing stored", moved, None, None, Some(50), None),
    ] {
        let mut lanes = Lanes::default();
        read(&mut lanes, list, at, row);
        lanes.heard(0, 0, 200);
        assert_eq!(lanes.note(0).0.until, note, "{case}");
        assert_eq!(lanes.note(0).1, at.is_some() && note != row, "{case}: news");
        assert_eq!(lanes.get(0).unwrap().promised(), told, "{case}");
        lanes.committed([0]);
        let written = lanes.get(0).unwrap().promised();
        assert_eq!(written, lanes.get(0).unwrap().until().filter(|until| Some(*until) == note), "{case}: written");
    }
}

#[test]
fn who_has_not_heard_of_a_move_stops_where_the_row_says_until_it_has() {
    let (open, moved) = (&[(0, "a", 0)][..], &[(0, "a", 0), (0, "b", 12)][..]);
    let mut lanes = Lanes::default();
    read(&mut lanes, open, Some(10), None);
    for offset in [10, 11, 12] {
        assert_eq!(lanes.offer(0, offset, Holes::Refused), Offer::Take);
    }
    let resume = read(&mut lanes, open, Some(10), Some(12));
    assert_eq!(resume, Resume::Rewind, "what is in hand goes beyond what somebody promised meanwhile");
    assert_eq!(lanes.get(0).unwrap().to_store(30), 2, "the others are another shard's");
    for (offset, expected) in [(10, Offer::Take), (11, Offer::Take), (12, Offer::Drop)] {
        assert_eq!(lanes.offer(0, offset, Holes::Refused), expected, "{offset}");
    }
    lanes.committed([0]);
    lanes.heard(0, 0, 30);
    assert_eq!(lanes.get(0).unwrap().fault(), Some(&Fault::Moved { until: 12 }));

    let mut heard = lanes.clone();
    read(&mut heard, moved, Some(12), Some(12));
    heard.heard(0, 0, 30);
    assert_eq!((heard.get(0).unwrap().fault(), heard.positions()), (None, vec![]));
    read(&mut lanes, open, Some(12), None);
    lanes.heard(0, 0, 30);
    assert_eq!((lanes.get(0).unwrap().fault(), lanes.positions()), (None, vec![(0, 12)]), "a person did");
    assert_eq!(lanes.note(0).0.until, None);
}

#[test]
fn what_cannot_begin_or_has_nothing_left_to_read_does_not_hold_up_a_move() {
    let moved = &[(0, "a", 0), (0, "b", 50)][..];
    let mut cannot = Lanes::default();
    read(&mut cannot, moved, None, None);
    cannot.heard(0, 70, 100);
    assert!(matches!(cannot.get(0).unwrap().fault(), Some(Fault::Deleted { .. })));
    assert_eq!(cannot.get(0).unwrap().promised(), Some(50), "without a row");

    let mut younger = Lanes::new(Start::Earliest);
    read(&mut younger, moved, None, None);
    younger.heard(0, 70, 100);
    assert_eq!((younger.get(0).unwrap().next(), younger.get(0).unwrap().promised()), (Some(50), None));
    younger.committed([0]);
    assert_eq!((younger.positions(), younger.get(0).unwrap().promised()), (vec![], Some(50)));
}

#[test]
fn an_end_gets_into_the_row_while_the_batch_must_wait() {
    let mut lanes = Lanes::default();
    let moved = &[(0, "a", 0), (0, "b", 50)][..];
    read(&mut lanes, moved, Some(10), None);
    assert_eq!(lanes.offer(0, 10, Holes::Refused), Offer::Take);
    lanes.noted([0]);
    let lane = lanes.get(0).unwrap();
    assert_eq!((lane.promised(), lane.stored(), lane.next(), lane.is_taken()), (Some(50), Some(10), Some(11), true));
    assert_eq!(read(&mut lanes, moved, Some(10), Some(50)), Resume::KeepBatch);
    read(&mut lanes, moved, Some(10), None);
    assert_eq!(lanes.get(0).unwrap().promised(), None, "a replica whose row does not have it yet");
}

/// One partition, stored up to 10, whose row says this schema, as who writes `view_b` reads it.
fn of_schema(lanes: &mut Lanes, schema: Option<&str>) -> Resume {
    let resume = lanes.load(&placed(&[(0, "a", 0)]), &[], &stored(&[(0, 10)]));
    let schema = schema.map(str::to_owned);
    lanes.recall(0, Note { origin: origin("old"), schema, ..Note::default() });
    lanes.is_of(&origin("old"));
    lanes.heard(0, 0, 20);
    resume
}

#[test]
fn an_offset_that_counts_what_is_in_another_schema_is_not_gone_on_from() {
    let fault = Fault::Schema { stored: "view_a".to_owned(), written: "view_b".to_owned() };
    for (case, row, stands, says) in [
        ("a row of before it was kept", None, false, "view_b"),
        ("its own", Some("view_b"), false, "view_b"),
        ("another one", Some("view_a"), true, "view_a"),
    ] {
        let mut lanes = Lanes::default().writing("view_b");
        of_schema(&mut lanes, row);
        assert_eq!(lanes.get(0).unwrap().fault(), stands.then_some(&fault), "{case}");
        assert_eq!(lanes.positions().is_empty(), stands, "{case}");
        let (note, news) = lanes.note(0);
        assert_eq!((note.schema.as_deref(), news), (Some(says), row.is_none()), "{case}: filled in, never changed");
        lanes.committed([0]);
        assert!(!lanes.note(0).1, "{case}: written");
    }
}

#[test]
fn a_partition_of_another_schema_stands_whatever_becomes_of_its_log_and_forgets_nothing_of_it() {
    let mut lanes = Lanes::default().writing("view_b");
    of_schema(&mut lanes, Some("view_a"));
    assert!(!lanes.is_of(&origin("new")), "nothing of it is in hand");
    lanes.heard(0, 15, 20);
    assert_eq!(lanes.get(0).unwrap().fault().map(Fault::word), Some("schema"));
    assert_eq!((lanes.note(0).0.origin, lanes.try_again()), (origin("old"), false));

    let resume = lanes.load(&placed(&[(0, "a", 0)]), &[], &stored(&[(0, 10)]));
    lanes.recall(0, Note { origin: origin("old"), ..Note::default() });
    assert_eq!(resume, Resume::KeepBatch);
    assert_eq!(lanes.get(0).unwrap().fault().map(Fault::word), Some("replaced"), "a person took the schema out alone");
    lanes.recall(0, Note::default());
    lanes.heard(0, 0, 20);
    assert_eq!((lanes.get(0).unwrap().fault(), lanes.positions()), (None, vec![(0, 10)]), "a person said so");
}

#[test]
fn a_partition_of_which_nothing_is_stored_is_nobodys_yet() {
    let mut lanes = Lanes::default().writing("view_b");
    lanes.load(&placed(&[(0, "a", 0)]), &[], &BTreeMap::new());
    lanes.heard(0, 0, 20);
    assert_eq!((lanes.get(0).unwrap().fault(), lanes.positions()), (None, vec![(0, 0)]));
    assert_eq!(lanes.note(0).0.schema.as_deref(), Some("view_b"));
}
