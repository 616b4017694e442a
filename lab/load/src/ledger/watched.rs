//! One shard, as the watcher saw it. Pure.

use std::collections::BTreeMap;

use super::{Act, Stamp};

/// What was seen of one shard.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// In order of the answers.
    pub observations: Vec<Stored>,
    /// Reads that failed.
    pub failures: u64,
    /// The primaries that its status named, in order.
    pub primaries: Vec<(Stamp, String, u64)>,
    /// What a client of its first primary could do, in order; what it could not is left out.
    pub direct: Vec<Done>,
}

/// Something that a client of one server could do.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// The server.
    pub replica: String,
    /// What.
    pub act: Act,
    /// When the answer was there.
    pub at: Stamp,
}

/// One answer of a shard's primary.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Who answered.
    pub replica: String,
    /// Under which epoch.
    pub epoch: u64,
    /// Partition to next offset.
    pub offsets: BTreeMap<String, i64>,
    /// When.
    pub at: Stamp,
}

impl Watched {
    /// When a commit was seen: an offset went forward between two answers of one server under one epoch. The first
    /// answer of another server, or under another epoch, shows only where that one stands. An answer under a lower epoch
    /// than one seen before comes from a server that was replaced, and shows nothing.
    pub fn commits(&self) -> Vec<u64> {
        let mut moments = Vec::new();
        let mut before: Option<&Stored> = None;
        for now in &self.observations {
            if before.is_some_and(|before| now.epoch < before.epoch) {
                continue;
            }
            let same_server = before.filter(|before| before.replica == now.replica && before.epoch == now.epoch);
            if same_server.is_some_and(|before| now.is_beyond(before)) {
                moments.push(now.at.0);
            }
            before = Some(now);
        }
        moments
    }

    /// Records that had to be stored again after changes of primary: how far the offsets of each new one lay behind the
    /// furthest seen before.
    pub fn replayed(&self) -> i64 {
        let mut furthest: BTreeMap<&str, i64> = BTreeMap::new();
        let mut server: Option<(&str, u64)> = None;
        let mut replayed = 0;
        for now in &self.observations {
            if server.is_some_and(|(_, epoch)| now.epoch < epoch) {
                continue;
            }
            let is_new = server.replace((&now.replica, now.epoch)).is_some_and(|s| s != (&now.replica, now.epoch));
            for (partition, offset) in &now.offsets {
                let known = furthest.entry(partition).or_insert(*offset);
                if is_new {
                    replayed += (*known - offset).max(0);
                }
                *known = (*known).max(*offset);
            }
        }
        replayed
    }
}

impl Stored {
    fn is_beyond(&self, before: &Self) -> bool {
        self.offsets.iter().any(|(partition, offset)| before.offsets.get(partition).is_none_or(|known| offset > known))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(ms: u64) -> Stamp {
        Stamp(ms * 1000, 1_700_000_000_000 + ms as i64)
    }

    fn stored(replica: &str, epoch: u64, offsets: &[(&str, i64)], ms: u64) -> Stored {
        let offsets = offsets.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect();
        Stored { replica: replica.into(), epoch, offsets, at: at(ms) }
    }

    #[rstest]
    #[case::advance(vec![stored("a", 1, &[("t/0", 5)], 0), stored("a", 1, &[("t/0", 6)], 50)], &[50])]
    #[case::standstill(vec![stored("a", 1, &[("t/0", 5)], 0), stored("a", 1, &[("t/0", 5)], 50)], &[])]
    #[case::one_of_several_partitions(
        vec![stored("a", 1, &[("t/0", 5), ("t/1", 1)], 0), stored("a", 1, &[("t/0", 5), ("t/1", 2)], 50)], &[50])]
    #[case::a_partitions_first_row(vec![stored("a", 1, &[], 0), stored("a", 1, &[("t/0", 1)], 50)], &[50])]
    #[case::the_first_answer_of_a_new_primary_is_no_commit(
        vec![stored("a", 1, &[("t/0", 5)], 0), stored("b", 2, &[("t/0", 9)], 50), stored("b", 2, &[("t/0", 10)], 100)],
        &[100])]
    #[case::a_new_primary_that_catches_up_commits(
        vec![stored("a", 1, &[("t/0", 9)], 0), stored("b", 2, &[("t/0", 3)], 50), stored("b", 2, &[("t/0", 4)], 100)],
        &[100])]
    #[case::a_replaced_primary_that_still_answers_shows_nothing(
        vec![stored("b", 2, &[("t/0", 5)], 0), stored("a", 1, &[("t/0", 5)], 50), stored("a", 1, &[("t/0", 6)], 100),
             stored("b", 2, &[("t/0", 6)], 150)],
        &[150])]
    #[case::the_same_primary_confirmed_under_a_new_epoch(
        vec![stored("a", 1, &[("t/0", 5)], 0), stored("a", 2, &[("t/0", 6)], 50), stored("a", 2, &[("t/0", 7)], 100)],
        &[100])]
    fn commits_are_seen_as_the_definition_says(#[case] observations: Vec<Stored>, #[case] expected_ms: &[u64]) {
        let watched = Watched { observations, ..Watched::default() };
        let expected: Vec<u64> = expected_ms.iter().map(|ms| ms * 1000).collect();
        assert_eq!(watched.commits(), expected);
    }

    #[test]
    fn records_stored_again_are_counted_per_change_of_primary() {
        let observations = vec![
            stored("a", 1, &[("t/0", 9), ("t/1", 4)], 0),
            stored("b", 2, &[("t/0", 3), ("t/1", 4)], 50),
            stored("a", 1, &[("t/0", 1)], 60),
            stored("b", 2, &[("t/0", 9), ("t/1", 6)], 100),
            stored("c", 3, &[("t/0", 8), ("t/1", 7)], 150),
        ];
        assert_eq!(Watched { observations, ..Watched::default() }.replayed(), 6 + 1);
    }
}
