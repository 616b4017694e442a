//! GTID sets and their algebra, so that comparing two servers needs no server. Pure.
//!
//! The text form is MySQL's: `uuid:1-5:7:tag:1-3,uuid2:1`. In memory a set is normal: intervals sorted, apart from each other
//! and not empty, so two sets are equal exactly when they hold the same transactions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest tag that MySQL accepts, in characters.
const MAX_TAG: usize = 32;
/// The highest transaction number that MySQL accepts.
const MAX_NUMBER: u64 = i64::MAX as u64 - 1;

/// `server_uuid` of the server on which a transaction was first committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId([u8; 16]);

impl SourceId {
    /// The identity in its sixteen bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SourceId {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let bad = || GtidError::Source(text.to_owned());
        let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
        if !dashed && text.len() != 32 {
            return Err(bad());
        }
        let mut digits = text.chars().filter(|c| !dashed || *c != '-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let mut digit = || digits.next().and_then(|c| c.to_digit(16)).ok_or_else(bad);
            let (high, low) = (digit()?, digit()?);
            *byte = u8::try_from(high << 4 | low).map_err(|_| bad())?;
        }
        match digits.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(bad()),
        }
    }
}

/// Why a text is not a GTID set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// Not 32 hexadecimal digits with or without dashes.
    #[error("{0:?} is not a server uuid")]
    Source(String),
    /// Neither `n`, `n-m` with 0 < n <= m, nor a tag.
    #[error("{0:?} is neither an interval nor a tag")]
    Interval(String),
    /// A server uuid with nothing behind it.
    #[error("no interval behind {0:?}")]
    Nothing(String),
}

/// One stream of transaction numbers: a source and a tag (empty for none).
type Stream = (SourceId, String);

/// A set of global transaction ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GtidSet {
    streams: BTreeMap<Stream, Intervals>,
}

impl GtidSet {
    /// The set without a transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the untagged transactions `first..=last` of a source; nothing when `last < first`.
    pub fn insert(&mut self, source: SourceId, first: u64, last: u64) {
        self.insert_tagged(source, String::new(), first, last);
    }

    fn insert_tagged(&mut self, source: SourceId, tag: String, first: u64, last: u64) {
        if first <= last {
            self.streams.entry((source, tag)).or_default().add(first, last);
        }
    }

    /// Whether it holds no transaction.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// How many transactions it holds.
    pub fn count(&self) -> u64 {
        self.streams.values().map(Intervals::count).fold(0, u64::saturating_add)
    }

    /// Whether every transaction of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .streams
            .iter()
            .all(|(stream, theirs)| self.streams.get(stream).is_some_and(|ours| theirs.minus(ours).is_empty()))
    }

    /// The transactions that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (stream, theirs) in &other.streams {
            let ours = all.streams.entry(stream.clone()).or_default();
            for (first, last) in &theirs.0 {
                ours.add(*first, *last);
            }
        }
        all
    }

    /// The transactions that are in this set and not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.map(|stream, ours| match other.streams.get(stream) {
            Some(theirs) => ours.minus(theirs),
            None => ours.clone(),
        })
    }

    /// The transactions that are in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        self.map(|stream, ours| match other.streams.get(stream) {
            Some(theirs) => ours.minus(&ours.minus(theirs)),
            None => Intervals::default(),
        })
    }

    /// The transactions that were first committed on `source`, tagged ones included.
    #[must_use]
    pub fn of(&self, source: SourceId) -> Self {
        self.map(|stream, ours| if stream.0 == source { ours.clone() } else { Intervals::default() })
    }

    /// Every source that has a transaction in the set.
    pub fn sources(&self) -> impl Iterator<Item = SourceId> + '_ {
        let mut before = None;
        self.streams.keys().map(|(source, _)| *source).filter(move |source| before.replace(*source) != Some(*source))
    }

    fn map(&self, change: impl Fn(&Stream, &Intervals) -> Intervals) -> Self {
        let streams = self.streams.iter().map(|(stream, ours)| (stream.clone(), change(stream, ours)));
        Self { streams: streams.filter(|(_, ours)| !ours.is_empty()).collect() }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = None;
        for ((source, tag), intervals) in &self.streams {
            if before != Some(source) {
                write!(f, "{}{source}", if before.is_some() { "," } else { "" })?;
                before = Some(source);
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (first, last) in &intervals.0 {
                match first == last {
                    true => write!(f, ":{first}")?,
                    false => write!(f, ":{first}-{last}")?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            set.parse_source(part)?;
        }
        Ok(set)
    }
}

impl GtidSet {
    /// Reads `uuid:1-5:7:tag:1-3`.
    fn parse_source(&mut self, part: &str) -> Result<(), GtidError> {
        let nothing = || GtidError::Nothing(part.to_owned());
        let (source, rest) = part.split_once(':').ok_or_else(nothing)?;
        let source = source.trim().parse()?;
        let mut tag = String::new();
        let mut awaited = true;
        for piece in rest.split(':').map(str::trim) {
            if is_tag(piece) {
                tag = piece.to_ascii_lowercase();
                awaited = true;
                continue;
            }
            let (first, last) = parse_interval(piece).ok_or_else(|| GtidError::Interval(piece.to_owned()))?;
            self.insert_tagged(source, tag.clone(), first, last);
            awaited = false;
        }
        if awaited { Err(nothing()) } else { Ok(()) }
    }
}

fn is_tag(piece: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    piece.len() <= MAX_TAG
        && piece.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && piece.chars().all(word)
}

fn parse_interval(piece: &str) -> Option<(u64, u64)> {
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten().filter(|n| (1..=MAX_NUMBER).contains(n))
    };
    let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

impl Serialize for GtidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GtidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = GtidSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a GTID set in MySQL's text form")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GtidSet, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Closed intervals, sorted, with a hole of at least one between two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).fold(0, u64::saturating_add)
    }

    fn add(&mut self, mut first: u64, mut last: u64) {
        // Everything that overlaps or touches the new interval melts into it.
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|(start, _)| *start <= last.saturating_add(1));
        if let Some((start, _)) = self.0[from..to].first() {
            first = first.min(*start);
        }
        if let Some((_, end)) = self.0[from..to].last() {
            last = last.max(*end);
        }
        self.0.splice(from..to, [(first, last)]);
    }

    fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        for (first, last) in &self.0 {
            let mut from = *first;
            let overlapping = other.0.partition_point(|(_, end)| *end < *first);
            for (start, end) in other.0[overlapping..].iter().take_while(|(start, _)| start <= last) {
                if from < *start {
                    left.push((from, start - 1));
                }
                from = end + 1;
            }
            if from <= *last {
                left.push((from, *last));
            }
        }
        Self(left)
    }
}
