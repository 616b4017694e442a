//! Where partitions are, case by case.

use super::*;
use crate::placement::{Entry, placement_of};

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
    lanes.recall(0, Note { origin: origin("old"), cut: None });
    assert!(!lanes.is_of(&origin("old")));
    lanes.heard(0, 0, 10);
    assert_eq!(lanes.positions(), [(0, 10)]);
    lanes
}

/// The same after the log was seen to end at 7, which the row says too.
fn cut_lane() -> Lanes {
    let mut lanes = one_lane();
    lanes.heard(0, 0, 7);
    assert_eq!(lanes.note(0), (Note { origin: origin("old"), cut: Some(7) }, true));
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
    assert!(lanes.any_stands() && !lanes.try_again());
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
    let row = |cut| Note { origin: origin("old"), cut };
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
    lanes.recall(0, Note { origin: origin("old"), cut: None });
    assert_eq!(lanes.get(0).unwrap().fault(), Some(&replaced), "read again");

    lanes.load(&placed(&[(0, "a", 0)]), &[], &stored(&[(0, 0)]));
    lanes.recall(0, Note::default());
    lanes.heard(0, 0, 1000);
    assert_eq!((lanes.positions(), lanes.get(0).unwrap().fault()), (vec![(0, 0)], None), "a person said so");
    assert_eq!(lanes.note(0), (Note { origin: origin("new"), cut: None }, true));
}

#[test]
fn rows_of_before_ids_were_kept_and_partitions_without_rows_take_the_topic_as_it_is() {
    let mut lanes = Lanes::default();
    lanes.load(&placed(&[(0, "a", 0), (1, "a", 0)]), &[], &stored(&[(0, 10)]));
    lanes.recall(0, Note::default());
    assert!(!lanes.is_of(&origin("any")));
    assert_eq!(lanes.faulty(), BTreeSet::new());
    assert_eq!(lanes.note(0), (Note { origin: origin("any"), cut: None }, true));
}
