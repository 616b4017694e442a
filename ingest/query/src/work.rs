//! What a server is asked and what it found. Pure.

use std::collections::BTreeSet;

use understudy_model::{GroupId, Labels, Tenant};
use understudy_store::matcher::Op;
use understudy_store::{Freshness, Matcher};
use understudy_wire::{Epoch, ReplicaName};

use crate::budget::Held;
use crate::merge::Selected;

/// Samples of the series that fulfil all matchers.
#[derive(Debug)]
pub struct Selection {
    /// All must be fulfilled.
    pub matchers: Vec<Matcher>,
    /// Milliseconds since 1970, both included.
    pub times_ms: (i64, i64),
}

/// What a request wants to know.
#[derive(Debug)]
pub enum Work {
    /// Samples, for each selection.
    Samples(Vec<Selection>),
    /// The label sets of the series of any selector.
    Series(Vec<Vec<Matcher>>),
    /// The names of labels, of the series of any selector or, without one, of all.
    LabelNames(Vec<Vec<Matcher>>),
    /// The values of a label, likewise.
    LabelValues(String, Vec<Vec<Matcher>>),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// By the kind of the work.
    pub results: Results,
    /// Samples left out because another one of the same series and time was given.
    pub duplicates: u64,
}

/// What was found, by the kind of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Results {
    /// For each selection of [`Work::Samples`].
    Samples(Vec<Selected>),
    /// For [`Work::Series`].
    Series(BTreeSet<Labels>),
    /// For [`Work::LabelNames`] and [`Work::LabelValues`].
    Texts(BTreeSet<String>),
}

/// Who answers in the name of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The one that takes writes.
    Primary,
    /// One that replicates from it.
    Standby,
}

impl Role {
    /// The word in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// What a server says before it is asked anything, of the moment that all its answers are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The epoch in its own table.
    pub epoch: Epoch,
    /// How far its data is complete.
    pub freshness: Freshness,
}

/// The answer of one shard.
#[derive(Debug)]
pub struct Answer {
    /// What it found.
    pub found: Found,
    /// Who answered.
    pub replica: ReplicaName,
    /// As what.
    pub role: Role,
    /// From where.
    pub standing: Standing,
    /// The memory set aside for it.
    pub held: Held,
}

impl Work {
    /// Nothing found, of the right kind.
    pub fn nothing(&self) -> Found {
        let results = match self {
            Self::Samples(selections) => Results::Samples(vec![Selected::new(); selections.len()]),
            Self::Series(_) => Results::Series(BTreeSet::new()),
            Self::LabelNames(_) | Self::LabelValues(..) => Results::Texts(BTreeSet::new()),
        };
        Found { results, duplicates: 0 }
    }

    /// The groups that all it can find belong to; None when it can be any.
    pub fn groups(&self, tenant: &Tenant) -> Option<BTreeSet<GroupId>> {
        let selectors: Vec<&Vec<Matcher>> = match self {
            Self::Samples(selections) => selections.iter().map(|selection| &selection.matchers).collect(),
            Self::Series(selectors) | Self::LabelNames(selectors) | Self::LabelValues(_, selectors) => {
                selectors.iter().collect()
            }
        };
        // No selector at all means every series, except for samples.
        if selectors.is_empty() && !matches!(self, Self::Samples(_)) {
            return None;
        }
        selectors.into_iter().map(|matchers| group_of(tenant, matchers)).collect()
    }
}

impl Found {
    /// Samples in it.
    pub fn samples(&self) -> usize {
        match &self.results {
            Results::Samples(results) => results.iter().flat_map(|selected| selected.values()).map(Vec::len).sum(),
            Results::Series(_) | Results::Texts(_) => 0,
        }
    }

    /// Series, or texts, in it.
    pub fn entries(&self) -> usize {
        match &self.results {
            Results::Samples(results) => results.iter().map(Selected::len).sum(),
            Results::Series(series) => series.len(),
            Results::Texts(texts) => texts.len(),
        }
    }
}

fn group_of(tenant: &Tenant, matchers: &[Matcher]) -> Option<GroupId> {
    let value = |name: &str| {
        matchers.iter().find_map(|matcher| match matcher.op() {
            Op::Equal(value) if matcher.name() == name => Some(value.as_str()),
            _ => None,
        })
    };
    Some(understudy_model::Group::new(tenant.clone(), value("job")?, value("instance")?).id())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use understudy_model::Group;

    use super::*;

    fn selection(matchers: Vec<Matcher>) -> Selection {
        Selection { matchers, times_ms: (0, 1) }
    }

    fn equal(pairs: &[(&str, &str)]) -> Vec<Matcher> {
        pairs.iter().map(|(name, value)| Matcher::equal(*name, *value)).collect()
    }

    #[rstest]
    #[case::both_equal(Work::Samples(vec![selection(equal(&[("job", "n"), ("instance", "a")]))]), Some(&[("n", "a")][..]))]
    #[case::missing_labels_are_empty(Work::Series(vec![equal(&[("job", ""), ("instance", "")])]), Some(&[("", "")][..]))]
    #[case::two_selections(
        Work::Samples(vec![
            selection(equal(&[("job", "n"), ("instance", "a")])), selection(equal(&[("job", "n"), ("instance", "b")])),
        ]), Some(&[("n", "a"), ("n", "b")][..]))]
    #[case::one_of_them_open(
        Work::Samples(vec![selection(equal(&[("job", "n"), ("instance", "a")])), selection(equal(&[("job", "n")]))]), None)]
    #[case::a_pattern(
        Work::Series(vec![vec![Matcher::equal("job", "n"), Matcher::matches("instance", "a").unwrap()]]), None)]
    #[case::all_label_names(Work::LabelNames(vec![]), None)]
    #[case::nothing_selected(Work::Samples(vec![]), Some(&[][..]))]
    fn only_job_and_instance_by_equality_name_the_group(#[case] work: Work, #[case] expected: Option<&[(&str, &str)]>) {
        let tenant = Tenant::new("acme").unwrap();
        let id = |(job, instance): &(&str, &str)| Group::new(tenant.clone(), job, instance).id();
        assert_eq!(work.groups(&tenant), expected.map(|groups| groups.iter().map(id).collect()));
    }
}
