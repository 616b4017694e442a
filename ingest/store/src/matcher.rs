//! Which series a query means: Prometheus' label matchers. Pure.

use regex::{Regex, RegexBuilder};
use understudy_model::Labels;

/// A condition on one label. A label that is missing counts as empty.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: Op,
}

/// What the value must be.
#[derive(Clone, Debug)]
pub enum Op {
    /// Equal to this.
    Equal(String),
    /// Not equal to this.
    NotEqual(String),
    /// Matched as a whole by this.
    Matches(Regex),
    /// Not matched as a whole by this.
    NotMatches(Regex),
}

/// Why a regular expression is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regular expression of label {name:?}: {reason}")]
pub struct RegexError {
    /// The label.
    pub name: String,
    /// Why, with the place.
    pub reason: String,
}

/// The most memory that a compiled expression may take, in bytes.
const REGEX_BYTES: usize = 1 << 20;

impl Matcher {
    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: Op::Equal(value.into()) }
    }

    /// `name!="value"`.
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: Op::NotEqual(value.into()) }
    }

    /// `name=~"pattern"`; the pattern must match the whole value.
    pub fn matches(name: impl Into<String>, pattern: &str) -> Result<Self, RegexError> {
        let name = name.into();
        Ok(Self { op: Op::Matches(whole(&name, pattern)?), name })
    }

    /// `name!~"pattern"`.
    pub fn not_matches(name: impl Into<String>, pattern: &str) -> Result<Self, RegexError> {
        let name = name.into();
        Ok(Self { op: Op::NotMatches(whole(&name, pattern)?), name })
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the value must be.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// Whether the series fulfils it.
    pub fn accepts(&self, labels: &Labels) -> bool {
        self.accepts_value(labels.get(&self.name).unwrap_or_default())
    }

    /// Whether a value fulfils it.
    pub fn accepts_value(&self, value: &str) -> bool {
        match &self.op {
            Op::Equal(wanted) => wanted == value,
            Op::NotEqual(unwanted) => unwanted != value,
            Op::Matches(regex) => regex.is_match(value),
            Op::NotMatches(regex) => !regex.is_match(value),
        }
    }

    /// Whether only series that have the label can fulfil it, so that the label's index finds them all.
    pub fn needs_label(&self) -> bool {
        !self.accepts_value("")
    }
}

fn whole(name: &str, pattern: &str) -> Result<Regex, RegexError> {
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES)
            .build()
            .map_err(|e| RegexError { name: name.to_owned(), reason: e.to_string() })
    };
    // Alone first: with brackets of its own that do not match it could break out of those around it.
    compile(pattern)?;
    // As Prometheus does: anchored, and a dot is any character.
    compile(&format!("^(?s:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_label_counts_as_empty() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "node\nx")]).unwrap();
        for (case, matcher, accepts, needs) in [
            ("equal", Matcher::equal("job", "node\nx"), true, true),
            ("not the whole value", Matcher::equal("job", "node"), false, true),
            ("equal to nothing", Matcher::equal("zone", ""), true, false),
            ("not equal to nothing", Matcher::not_equal("zone", ""), false, true),
            ("not equal, missing", Matcher::not_equal("zone", "a"), true, false),
            ("a dot matches a line break", Matcher::matches("job", "no.*").unwrap(), true, true),
            ("matches only as a whole", Matcher::matches("job", "node|x").unwrap(), false, true),
            ("may be empty", Matcher::matches("zone", ".*").unwrap(), true, false),
            ("must not be empty", Matcher::matches("zone", ".+").unwrap(), false, true),
            ("not matched", Matcher::not_matches("job", "x").unwrap(), true, false),
            ("not matched, must be there", Matcher::not_matches("zone", "").unwrap(), false, true),
        ] {
            assert_eq!((matcher.accepts(&labels), matcher.needs_label()), (accepts, needs), "{case}");
        }
    }

    #[test]
    fn an_expression_that_breaks_out_of_its_group_or_is_too_large_is_refused() {
        for pattern in ["a)|(b", "(", "\\w{1000}{1000}"] {
            assert!(Matcher::matches("job", pattern).is_err(), "{pattern}");
        }
    }
}
