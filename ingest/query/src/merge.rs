//! What several shards found, as one. Pure.
//!
//! A partition that moved leaves its old samples where they are, so a series may be on two shards. A sample may be on both when it was sent
//! again after the move, or when something went wrong; then the one of the shard that was fed later is given and the other counted. A
//! partition that came back to a shard it had left counts as fed there from its return on, whenever a sample was stored.

use std::collections::BTreeMap;

use understudy_model::{Labels, Sample};

use crate::work::{Found, Results};

/// The series of one selection, each with samples in order of time, no time twice.
pub type Selected = BTreeMap<Labels, Vec<Sample>>;

/// The samples of each series by the place of the shard that they are from.
type Parts = BTreeMap<Labels, Vec<(usize, Vec<Sample>)>>;

/// Puts what each shard found into `found`, which has nothing yet. `since` says of a series from when on the shard at this place was fed it: of
/// two samples of one series and time that of the greater is kept, of equal ones the later in place. Results of other work than `found` is
/// for are never put together; if they were, they are dropped.
pub fn merge<K: Ord>(found: &mut Found, answers: Vec<Found>, since: impl Fn(&Labels, usize) -> K) {
    match &mut found.results {
        Results::Samples(results) => {
            let mut parts = vec![Parts::new(); results.len()];
            for (place, answer) in answers.into_iter().enumerate() {
                found.duplicates += answer.duplicates;
                let Results::Samples(selections) = answer.results else { continue };
                for (parts, selected) in parts.iter_mut().zip(selections) {
                    for (labels, samples) in selected {
                        parts.entry(labels).or_default().push((place, samples));
                    }
                }
            }
            for (result, parts) in results.iter_mut().zip(parts) {
                for (labels, mut parts) in parts {
                    if parts.len() > 1 {
                        parts.sort_by_cached_key(|(place, _)| since(&labels, *place));
                    }
                    let mut parts = parts.into_iter().map(|(_, samples)| samples);
                    let mut samples = parts.next().unwrap_or_default();
                    found.duplicates += parts.map(|more| merge_samples(&mut samples, more)).sum::<u64>();
                    result.insert(labels, samples);
                }
            }
        }
        Results::Series(series) => {
            for answer in answers {
                if let Results::Series(more) = answer.results {
                    series.extend(more);
                }
            }
        }
        Results::Texts(texts) => {
            for answer in answers {
                if let Results::Texts(more) = answer.results {
                    texts.extend(more);
                }
            }
        }
    }
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

    /// Merges with the shards fed in this order, by place.
    fn merged(answers: Vec<Found>, order: &[usize]) -> Found {
        let mut all = Found { results: Results::Samples(vec![Selected::new()]), duplicates: 0 };
        merge(&mut all, answers, |_, place| order.iter().position(|fed| *fed == place));
        all
    }

    #[test]
    fn a_series_on_two_shards_is_one_series() {
        let all =
            merged(vec![found(&[(1, 10, 1), (1, 30, 3), (2, 5, 9)], 0), found(&[(1, 20, 2), (3, 1, 7)], 0)], &[0, 1]);
        assert_eq!(all, found(&[(1, 10, 1), (1, 20, 2), (1, 30, 3), (2, 5, 9), (3, 1, 7)], 0));
    }

    #[test]
    fn a_sample_on_both_is_given_once_and_counted_beside_what_each_shard_counted() {
        let all = merged(vec![found(&[(1, 10, 1), (1, 20, 2)], 3), found(&[(1, 20, 5), (1, 30, 6)], 4)], &[0, 1]);
        assert_eq!(all, found(&[(1, 10, 1), (1, 20, 5), (1, 30, 6)], 8));
    }

    #[test]
    fn of_a_sample_on_several_shards_that_of_the_shard_fed_last_is_given() {
        let answers = || vec![found(&[(1, 10, 0)], 0), found(&[(1, 10, 1)], 0), found(&[(1, 10, 2)], 0)];
        for (case, order, bits) in [
            ("in order of their places", &[0, 1, 2][..], 2),
            ("the other way round", &[2, 1, 0], 0),
            ("the middle one last", &[2, 0, 1], 1),
            ("not known of any", &[], 2),
            ("known of one alone", &[0], 0),
        ] {
            assert_eq!(merged(answers(), order), found(&[(1, 10, bits)], 2), "{case}");
        }
    }

    proptest! {
        #[test]
        fn merging_agrees_with_a_map(
            left in prop::collection::btree_map((0_u8..3, 0_i64..30), 0_u64..9, 0..40),
            right in prop::collection::btree_map((0_u8..3, 0_i64..30), 0_u64..9, 0..40),
        ) {
            let flat = |map: &BTreeMap<(u8, i64), u64>| map.iter().map(|((s, t), b)| (*s, *t, *b)).collect::<Vec<_>>();
            let all = merged(vec![found(&flat(&left), 0), found(&flat(&right), 0)], &[0, 1]);
            let mut expected = left.clone();
            expected.extend(&right);
            let duplicates = left.len() + right.len() - expected.len();
            prop_assert_eq!(all, found(&flat(&expected), duplicates as u64));
        }
    }
}
