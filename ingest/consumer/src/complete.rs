//! Up to when a partition is complete: whatever of it feeds the shard and was acknowledged before is stored. Pure.
//!
//! Two things tell. Where the log ended when the broker was asked: once all below is stored, everything acknowledged before the question is.
//! And while there is more to read, the time of the last record that was taken, which is the clock of the gateway that sent it.

use crate::lanes::Lane;
use crate::log::End;

/// Up to when a partition is complete after the batch in hand, in milliseconds since 1970; 0 when nothing tells. `end` is what the lane
/// has heard of last, `last_ms` the time of its last record in the batch, `known` what its row says.
///
/// Never later than `now_ms`, whatever the clock of a gateway or of the consumer before this one said.
pub fn complete_until_ms(lane: &Lane, end: Option<&End>, last_ms: Option<i64>, known: Option<i64>, now_ms: i64) -> i64 {
    let asked_ms = end.filter(|end| has_all(lane, end.end)).map(|end| end.asked_ms);
    known.max(asked_ms.or(last_ms)).map_or(0, |until| until.min(now_ms))
}

/// Whether all of a log that ends here is stored, as far as it feeds the shard, or will be with the batch.
///
/// Not with a fault: the log below the offset may be another one than what is stored. And not once the log has gone on past the end of the last
/// span: whoever does not know yet that another shard is fed from there on would take this one for complete without that one.
fn has_all(lane: &Lane, end: i64) -> bool {
    let Some(next) = lane.next().filter(|_| lane.fault().is_none()) else { return false };
    let is_over = lane.until().is_some_and(|until| next >= until);
    // The next span begins where the log has not come to yet.
    let waits = lane.position().is_none() && !lane.is_paused() && !is_over;
    waits || next >= end
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::Instant;
    use understudy_kafka::Origin;

    use super::*;
    use crate::lanes::{Fault, Holes, Lanes, Note, Offer};
    use crate::placement::{Entry, Placement, placement_of};

    const ASKED: i64 = 5_000;
    const NOW: i64 = 6_000;

    fn placed(list: &[(&str, i64)]) -> Placement {
        let entry = |&(shard, from): &(&str, i64)| Entry { partition: 0, shard: shard.into(), from, pending: false };
        placement_of("a", &list.iter().map(entry).collect::<Vec<_>>())
    }

    fn end(end: i64) -> End {
        End { earliest: 0, end, asked: Instant::now(), asked_ms: ASKED }
    }

    /// The one partition, stored up to here, after it has heard of the end.
    fn lanes(list: &[(&str, i64)], stored: i64, log_end: i64) -> Lanes {
        let mut lanes = Lanes::default();
        lanes.load(&placed(list), &[], &BTreeMap::from([(0, stored)]));
        lanes.heard(0, 0, log_end);
        lanes
    }

    fn complete(lanes: &Lanes, log_end: i64, last_ms: Option<i64>) -> i64 {
        complete_until_ms(lanes.get(0).unwrap(), Some(&end(log_end)), last_ms, Some(1_000), NOW)
    }

    #[test]
    fn a_partition_is_complete_up_to_when_its_end_was_asked_for_or_up_to_its_last_record() {
        for (case, list, stored, log_end, expected) in [
            ("all of it is stored", &[("a", 0)][..], 10, 10, ASKED),
            ("there is more", &[("a", 0)], 9, 10, 2_000),
            ("it fed this shard, and the log has not gone on", &[("a", 0), ("b", 50)], 50, 50, ASKED),
            ("it fed this shard, and the log has gone on", &[("a", 0), ("b", 50)], 50, 51, 2_000),
            ("it will feed this shard", &[("b", 0), ("a", 50)], 0, 40, ASKED),
            ("it will feed this shard again", &[("a", 0), ("b", 50), ("a", 90)], 50, 60, ASKED),
            ("it feeds this shard again", &[("a", 0), ("b", 50), ("a", 90)], 50, 100, 2_000),
        ] {
            assert_eq!(complete(&lanes(list, stored, log_end), log_end, Some(2_000)), expected, "{case}");
        }
        assert_eq!(complete(&lanes(&[("a", 0)], 9, 10), 10, None), 1_000, "nothing was taken");
        assert_eq!(complete(&lanes(&[("a", 0)], 9, 10), 10, Some(500)), 1_000, "it was further already");
    }

    #[test]
    fn a_partition_whose_log_is_not_what_was_stored_stays_where_it_is() {
        let mut ended = lanes(&[("a", 0)], 10, 10);
        ended.heard(0, 0, 7);
        assert!(matches!(ended.get(0).unwrap().fault(), Some(Fault::Ended { .. })));
        assert_eq!(complete(&ended, 7, None), 1_000);

        let mut replaced = lanes(&[("a", 0)], 10, 10);
        let topic = |id: &str| Origin { cluster: None, topic: Some(id.to_owned()) };
        replaced.recall(0, Note { origin: topic("first"), ..Note::default() });
        assert!(replaced.is_of(&topic("second")));
        assert_eq!(complete(&replaced, 3, None), 1_000);

        let mut gap = lanes(&[("a", 0)], 10, 11);
        assert_eq!(gap.offer(0, 12, Holes::Refused), Offer::Fault);
        assert_eq!(complete(&gap, 11, None), 1_000);
    }

    #[test]
    fn no_clock_that_is_ahead_makes_a_partition_complete_beyond_now() {
        let lanes = lanes(&[("a", 0)], 9, 10);
        let lane = lanes.get(0).unwrap();
        let hour = 3_600_000;
        for (case, last_ms, known) in [
            ("a gateway's", Some(NOW + hour), Some(1_000)),
            ("that of the consumer before", None, Some(NOW + hour)),
            ("both", Some(NOW + hour), Some(NOW + hour)),
        ] {
            assert_eq!(complete_until_ms(lane, Some(&end(10)), last_ms, known, NOW), NOW, "{case}");
        }
        assert_eq!(complete_until_ms(lane, None, None, None, NOW), 0, "nothing is known");
    }

    #[test]
    fn a_partition_that_is_not_read_is_complete_only_while_nothing_new_comes() {
        let mut lanes = Lanes::default();
        lanes.load(&placed(&[("a", 0)]), &[0], &BTreeMap::from([(0, 10)]));
        assert_eq!(complete(&lanes, 10, None), ASKED);
        assert_eq!(complete(&lanes, 11, None), 1_000);
    }
}
