//! The label set of a series, in canonical order. Pure.

use std::fmt;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Labels of one series: sorted by name (byte order), names unique and not empty, values not empty.
///
/// A label with an empty value means the same as no label, so it is dropped when the set is made: that makes the
/// canonical form, and with it [`SeriesId`](crate::SeriesId), independent of how a sender spells it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels {
    /// All names and values, one after the other.
    text: Box<str>,
    /// Where each name and each value ends in `text`: name, value, name, value.
    ends: Box<[u32]>,
}

/// Why pairs are not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label without a name.
    #[error("a label has an empty name")]
    EmptyName,
    /// One name twice.
    #[error("label {0:?} occurs twice")]
    Duplicate(String),
    /// More text than a label set can index.
    #[error("the label set is larger than 4 GiB")]
    TooLarge,
}

impl Labels {
    /// Sorts the pairs, drops labels without a value and refuses duplicate or empty names.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, LabelError> {
        let mut pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
        Self::from_unsorted(&mut pairs)
    }

    /// As [`Labels::from_pairs`], for a caller that keeps its own buffer.
    pub fn from_unsorted(pairs: &mut [(&str, &str)]) -> Result<Self, LabelError> {
        if !pairs.is_sorted_by_key(|(name, _)| *name) {
            pairs.sort_unstable_by_key(|(name, _)| *name);
        }
        if pairs.iter().any(|(name, _)| name.is_empty()) {
            return Err(LabelError::EmptyName);
        }
        if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(LabelError::Duplicate(pair[0].0.to_owned()));
        }
        let kept = || pairs.iter().filter(|(_, value)| !value.is_empty());
        let bytes: usize = kept().map(|(name, value)| name.len() + value.len()).sum();
        u32::try_from(bytes).map_err(|_| LabelError::TooLarge)?;
        let mut text = String::with_capacity(bytes);
        let mut ends = Vec::with_capacity(kept().count() * 2);
        for (name, value) in kept() {
            for part in [name, value] {
                text.push_str(part);
                ends.push(text.len() as u32);
            }
        }
        Ok(Self { text: text.into_boxed_str(), ends: ends.into_boxed_slice() })
    }

    /// Name and value of each label, in order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        (0..self.len()).map(|index| (self.part(index * 2), self.part(index * 2 + 1)))
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// The metric's name: the value of `__name__`.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all names and values together.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn part(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }
}

/// As PromQL writes it: `name{label="value"}`, with values quoted and escaped.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_name().unwrap_or_default())?;
        f.write_str("{")?;
        let mut separator = "";
        for (name, value) in self.iter().filter(|(name, _)| *name != METRIC_NAME) {
            write!(f, "{separator}{name}={value:?}")?;
            separator = ", ";
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_in_order_of_their_names_however_they_arrive() {
        let sorted = Labels::from_pairs([("__name__", "up"), ("instance", "a:9100"), ("job", "node")]).unwrap();
        let shuffled = Labels::from_pairs([("job", "node"), ("__name__", "up"), ("instance", "a:9100")]).unwrap();
        assert_eq!(sorted, shuffled);
        assert_eq!(sorted.iter().collect::<Vec<_>>(), [("__name__", "up"), ("instance", "a:9100"), ("job", "node")]);
        assert_eq!(sorted.get("job"), Some("node"));
        assert_eq!(sorted.get("absent"), None);
        assert_eq!(sorted.to_string(), r#"up{instance="a:9100", job="node"}"#);
    }

    #[test]
    fn an_empty_value_is_the_same_as_no_label() {
        let with = Labels::from_pairs([("__name__", "up"), ("zone", "")]).unwrap();
        assert_eq!(with, Labels::from_pairs([("__name__", "up")]).unwrap());
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused_even_when_one_value_is_empty() {
        let refused = Labels::from_pairs([("a", "1"), ("b", "2"), ("a", "")]);
        assert_eq!(refused, Err(LabelError::Duplicate("a".into())));
    }

    #[test]
    fn a_label_without_a_name_is_refused() {
        assert_eq!(Labels::from_pairs([("", "1")]), Err(LabelError::EmptyName));
    }

    #[test]
    fn an_empty_set_is_a_set() {
        let none = Labels::from_pairs([]).unwrap();
        assert!(none.is_empty());
        assert_eq!(none.iter().len(), 0);
        assert_eq!(none.to_string(), "{}");
    }
}
