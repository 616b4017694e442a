//! What several shards found, as one. Pure.
//!
//! A partition that moved leaves its old samples where they are, so a series may be on two shards. No sample is on both,
//! unless something went wrong; where it did, one is given and the other counted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use understudy_model::{Labels, Sample};

use crate::work::{Found, Results};

/// The series of one selection, each with samples in order of time, no time twice.
pub type Selected = BTreeMap<Labels, Vec<Sample>>;

/// Puts `more` into `found`. Returns how many samples were left out because `found` had one of the same series and time:
/// the one that came later is kept. Results of different work are never put together; if they were, `more` is dropped.
pub fn merge(found: &mut Found, more: Found) -> u64 {
    found.duplicates += more.duplicates;
    let merged = match (&mut found.results, more.results) {
        (Results::Samples(found), Results::Samples(more)) => {
            found.iter_mut().zip(more).map(|(found, more)| merge_selected(found, more)).sum()
        }
        (Results::Series(found), Results::Series(more)) => {
            found.extend(more);
            0
        }
        (Results::Texts(found), Results::Texts(more)) => {
            found.extend(more);
            0
        }
        _ => 0,
    };
    found.duplicates += merged;
    merged
}

fn merge_selected(found: &mut Selected, more: Selected) -> u64 {
    let mut duplicates = 0;
    for (labels, samples) in more {
        match found.entry(labels) {
            Entry::Vacant(entry) => drop(entry.insert(samples)),
            Entry::Occupied(mut entry) => duplicates += merge_samples(entry.get_mut(), samples),
        }
    }
    duplicates
}

fn merge_samples(found: &mut Vec<Sample>, more: Vec<Sample>) -> u64 {
    let total = found.len() + more.len();
    let mut merged = Vec::with_capacity(total);
    let mut left = std::mem::take(found).into_iter().peekable();
    let mut right = more.into_iter().peekable();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.timestamp_ms.cmp(&b.timestamp_ms) {
            std::cmp::Ordering::Less => merged.extend(left.next()),
            std::cmp::Ordering::Greater => merged.extend(right.next()),
            std::cmp::Ordering::Equal => {
                left.next();
                merged.extend(right.next());
            }
        }
    }
    merged.extend(left);
    merged.extend(right);
    let duplicates = total - merged.len();
    *found = merged;
    duplicates as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(name: u8) -> Labels {
        Labels::from_pairs([("__name__", format!("m{name}").as_str())]).unwrap()
    }

    fn found(samples: &[(u8, i64, u64)], duplicates: u64) -> Found {
        let mut selected = Selected::new();
        for (series, timestamp_ms, bits) in samples {
            selected.entry(labels(*series)).or_default().push(Sample { timestamp_ms: *timestamp_ms, bits: *bits });
        }
        Found { results: Results::Samples(vec![selected]), duplicates }
    }

    #[test]
    fn a_series_on_two_shards_is_one_series() {
        let mut all = found(&[(1, 10, 1), (1, 30, 3), (2, 5, 9)], 0);
        assert_eq!(merge(&mut all, found(&[(1, 20, 2), (3, 1, 7)], 0)), 0);
        assert_eq!(all, found(&[(1, 10, 1), (1, 20, 2), (1, 30, 3), (2, 5, 9), (3, 1, 7)], 0));
    }

    #[test]
    fn a_sample_on_both_is_given_once_and_counted_beside_what_each_shard_counted() {
        let mut all = found(&[(1, 10, 1), (1, 20, 2)], 3);
        assert_eq!(merge(&mut all, found(&[(1, 20, 5), (1, 30, 6)], 4)), 1);
        assert_eq!(all, found(&[(1, 10, 1), (1, 20, 5), (1, 30, 6)], 8));
    }

    proptest! {
        #[test]
        fn merging_agrees_with_a_map(
            left in prop::collection::btree_map((0_u8..3, 0_i64..30), 0_u64..9, 0..40),
            right in prop::collection::btree_map((0_u8..3, 0_i64..30), 0_u64..9, 0..40),
        ) {
            let flat = |map: &BTreeMap<(u8, i64), u64>| map.iter().map(|((s, t), b)| (*s, *t, *b)).collect::<Vec<_>>();
            let mut all = found(&flat(&left), 0);
            let duplicates = merge(&mut all, found(&flat(&right), 0));
            let mut expected = left.clone();
            expected.extend(&right);
            prop_assert_eq!(duplicates as usize, left.len() + right.len() - expected.len());
            prop_assert_eq!(all, found(&flat(&expected), duplicates));
        }
    }
}
