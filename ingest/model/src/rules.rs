//! What a sender's series must satisfy. Pure. A series or sample that does not is refused by itself with a reason; the
//! rest of the request is kept.

use std::collections::BTreeMap;
use std::fmt;

use crate::labels::{Labels, METRIC_NAME};

/// Why a series or a sample is refused. The snake-case name is the metric label and the word in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// No `__name__`, or an empty one.
    MissingName,
    /// A label with an empty name.
    EmptyLabelName,
    /// A name that the naming rule does not allow.
    InvalidName,
    /// One label name twice.
    DuplicateLabel,
    /// A name or a value is not UTF-8.
    InvalidUtf8,
    /// More labels than allowed.
    TooManyLabels,
    /// A label name longer than allowed.
    LabelNameTooLong,
    /// A label value longer than allowed.
    LabelValueTooLong,
    /// All labels together longer than allowed.
    LabelsTooLong,
    /// A sample older than the store keeps.
    TooOld,
    /// A sample further in the future than allowed.
    TooFarInFuture,
    /// A native histogram; there is no place for one yet.
    NativeHistogram,
}

impl Rejection {
    /// The name as metrics and answers show it.
    pub fn reason(self) -> &'static str {
        self.into()
    }
}

/// Which names are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Any UTF-8, as Prometheus 3 does by default.
    Utf8,
    /// Metric names `[a-zA-Z_:][a-zA-Z0-9_:]*` and label names `[a-zA-Z_][a-zA-Z0-9_]*`, as Prometheus 2 does.
    Legacy,
}

/// Limits of one label set. All lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelRules {
    /// The most labels, `__name__` included.
    pub labels: usize,
    /// The longest name.
    pub name_bytes: usize,
    /// The longest value.
    pub value_bytes: usize,
    /// The most bytes of all names and values together.
    pub total_bytes: usize,
    /// Which names are allowed.
    pub naming: Naming,
}

impl Default for LabelRules {
    fn default() -> Self {
        Self { labels: 128, name_bytes: 1024, value_bytes: 2048, total_bytes: 16 * 1024, naming: Naming::Utf8 }
    }
}

impl LabelRules {
    /// Labels as a sender gave them, made canonical: order does not matter, a label with an empty value counts as
    /// absent.
    pub fn check<'a>(&self, pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Labels, Rejection> {
        if pairs.len() > self.labels {
            return Err(Rejection::TooManyLabels);
        }
        let mut checked = Vec::with_capacity(pairs.len());
        let mut total = 0;
        for (name, value) in pairs {
            if name.len() > self.name_bytes {
                return Err(Rejection::LabelNameTooLong);
            }
            if value.len() > self.value_bytes {
                return Err(Rejection::LabelValueTooLong);
            }
            total += name.len() + value.len();
            if total > self.total_bytes {
                return Err(Rejection::LabelsTooLong);
            }
            let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Rejection::InvalidUtf8);
            let (name, value) = (text(name)?, text(value)?);
            if name.is_empty() {
                return Err(Rejection::EmptyLabelName);
            }
            self.check_name(name, value)?;
            checked.push((name, value));
        }
        let labels = Labels::from_unsorted(&mut checked).map_err(|error| match error {
            crate::LabelError::EmptyName => Rejection::EmptyLabelName,
            crate::LabelError::Duplicate(_) => Rejection::DuplicateLabel,
            crate::LabelError::TooLarge => Rejection::LabelsTooLong,
        })?;
        if labels.metric_name().is_none() {
            return Err(Rejection::MissingName);
        }
        Ok(labels)
    }

    fn check_name(&self, name: &str, value: &str) -> Result<(), Rejection> {
        if self.naming == Naming::Utf8 {
            return Ok(());
        }
        let legacy = |text: &str, colon: bool| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':');
            text.bytes().all(allowed) && !text.as_bytes().first().is_some_and(u8::is_ascii_digit)
        };
        if !legacy(name, false) || (name == METRIC_NAME && !legacy(value, true)) {
            return Err(Rejection::InvalidName);
        }
        Ok(())
    }
}

/// The timestamps that are taken, both ends included, in milliseconds since 1970. Outside it lies what retention
/// would drop at once, and what a broken clock sent; each distinct time range costs a table, so this is also a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// The oldest.
    pub earliest_ms: i64,
    /// The newest.
    pub latest_ms: i64,
}

impl TimeWindow {
    /// Whether a sample of that time is taken.
    pub fn check(&self, timestamp_ms: i64) -> Result<(), Rejection> {
        if timestamp_ms < self.earliest_ms {
            return Err(Rejection::TooOld);
        }
        if timestamp_ms > self.latest_ms {
            return Err(Rejection::TooFarInFuture);
        }
        Ok(())
    }
}

/// How much was refused, why, and one example per reason. Displays as the text of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejections(BTreeMap<Rejection, Refused>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Refused {
    count: u64,
    example: String,
}

/// The longest example of a refused series in an answer, in characters.
const EXAMPLE_CHARS: usize = 160;

impl Rejections {
    /// Counts a refusal. `example` is called for the first of its kind only.
    pub fn add(&mut self, reason: Rejection, count: u64, example: impl FnOnce() -> String) {
        let refused = self.0.entry(reason).or_insert_with(|| Refused { count: 0, example: printable(&example()) });
        refused.count += count;
    }

    /// Reason and count of each kind.
    pub fn iter(&self) -> impl Iterator<Item = (Rejection, u64)> + '_ {
        self.0.iter().map(|(reason, refused)| (*reason, refused.count))
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many refusals there were.
    pub fn total(&self) -> u64 {
        self.0.values().map(|refused| refused.count).sum()
    }
}

/// Nothing that moves a cursor, colours a terminal or turns text around; quotes stay readable.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(EXAMPLE_CHARS) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

impl fmt::Display for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (reason, refused) in &self.0 {
            write!(f, "{separator}{}: {} (such as {})", reason.reason(), refused.count, refused.example)?;
            separator = "; ";
        }
        Ok(())
    }
}
