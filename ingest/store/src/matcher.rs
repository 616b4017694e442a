//! Which series a query means: Prometheus' label matchers. Pure.

use std::collections::BTreeSet;

use regex::{Error, RegexSet, RegexSetBuilder};
use understudy_model::Labels;

/// A condition on one label. A label that is missing counts as empty. There are no clones: that of a compiled pattern would take memory of its
/// own, which nothing counts.
#[derive(Debug)]
pub struct Matcher {
    name: String,
    op: Op,
}

/// What the value must be.
#[derive(Debug)]
pub enum Op {
    /// Equal to this.
    Equal(String),
    /// Not equal to this.
    NotEqual(String),
    /// Matched as a whole by this.
    Matches(Pattern),
    /// Not matched as a whole by this.
    NotMatches(Pattern),
}

/// A pattern, ready to be held against values.
#[derive(Debug)]
pub struct Pattern(Form);

#[derive(Debug)]
enum Form {
    /// It means one of these values.
    List(BTreeSet<String>),
    /// A set of one: unlike a single expression it does not remember where groups lie, which takes memory in the square of their number.
    Compiled(RegexSet),
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

/// The longest pattern that is compiled, in bytes. What is compiled has a bound of its own, but before that the pattern is unpacked: some
/// hundred bytes of memory for each of its own, and up to 64 KiB for a class, since `(?i)[\w]` holds each case of 140,000 characters in
/// thousands of ranges. So a class counts as [`CLASS_BYTES`], and what is unpacked takes a few MiB at most.
const PATTERN_BYTES: usize = 8 << 10;
/// What a class such as `[a-z]`, `\w` or `\pL` counts as in the length of a pattern.
const CLASS_BYTES: usize = 128;
/// The most memory of each of the two automata of a pattern, forwards and backwards, in bytes. A character takes 32 to 68, a `\w` more
/// than 45,000, so that `\w{150}` would take 7 MB.
const AUTOMATON_BYTES: usize = 256 << 10;
/// The most memory of what a thread remembers of the ways through an automaton, in bytes. Twice what the largest one needs at all; with less
/// than that the engine takes a slower way.
const CACHE_BYTES: usize = 512 << 10;

/// What a compiled pattern takes at its worst, in bytes: two automata of 256 KiB, 1 MiB for a form of its own that the engine makes of
/// some, and 0.8 MiB for each thread that matched with it, for three of them.
pub const COMPILED_BYTES: usize = 4 << 20;
/// What a value of a list takes beside its text, in bytes: its place in the set at its worst, and what the allocator adds to the text.
const VALUE_BYTES: usize = 96;

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
            Op::Matches(pattern) => pattern.is_match(value),
            Op::NotMatches(pattern) => !pattern.is_match(value),
        }
    }

    /// Whether only series that have the label can fulfil it, so that the label's index finds them all.
    pub fn needs_label(&self) -> bool {
        !self.accepts_value("")
    }
}

impl Pattern {
    /// Whether it matches the whole value.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.0 {
            Form::List(values) => values.contains(value),
            Form::Compiled(set) => set.is_match(value),
        }
    }
}

/// What the values take that a pattern such as `a|b` or `(a|b)` lists, at most, in bytes. None where it must be compiled, and takes up to
/// [`COMPILED_BYTES`]. Allocates nothing.
pub fn list_bytes(pattern: &str) -> Option<usize> {
    let mut bytes = 0;
    walk(pattern, |part| bytes += part.map_or(VALUE_BYTES, char::len_utf8))?;
    Some(bytes)
}

fn whole(name: &str, pattern: &str) -> Result<Pattern, RegexError> {
    if let Some(values) = listed(pattern) {
        return Ok(Pattern(Form::List(values)));
    }
    let refused = |reason: String| RegexError { name: name.to_owned(), reason };
    let length = length(pattern);
    if length > PATTERN_BYTES {
        return Err(refused(format!(
            "it counts as {length} bytes, at most {PATTERN_BYTES} are taken, and a class such as [a-z] counts as {CLASS_BYTES}: ask with \
             several shorter ones, or list whole values as a|b, which may be longer"
        )));
    }
    let compile = |pattern: &str| {
        let set = RegexSetBuilder::new([pattern]).size_limit(AUTOMATON_BYTES).dfa_size_limit(CACHE_BYTES).build();
        set.map_err(|e| match e {
            Error::CompiledTooBig(most) => refused(format!(
                "it takes more than {most} bytes once compiled: repeat less, and write [0-9A-Za-z_] for \\w and [0-9] for \\d, which \
                 mean the letters and digits of all scripts here"
            )),
            other => refused(other.to_string()),
        })
    };
    // Alone first: with brackets of its own that do not match it could break out of those around it.
    compile(pattern)?;
    // As Prometheus does: anchored, and a dot is any character.
    Ok(Pattern(Form::Compiled(compile(&format!("^(?s:{pattern})$"))?)))
}

/// The values that a pattern means if it only lists them.
fn listed(pattern: &str) -> Option<BTreeSet<String>> {
    let (mut values, mut value) = (BTreeSet::new(), String::new());
    walk(pattern, |part| match part {
        Some(c) => value.push(c),
        // A copy has no more room than it needs.
        None => {
            values.insert(value.clone());
            value.clear();
        }
    })?;
    Some(values)
}

/// Gives each character of each value to `each`, and None at a value's end, if the pattern only lists values, with a backslash before what
/// would mean something else. There may be a group around all of them: Grafana writes what is chosen of a variable as `(a|b)`, with an
/// apostrophe or a quote escaped too.
fn walk(pattern: &str, mut each: impl FnMut(Option<char>)) -> Option<()> {
    let group = pattern.strip_prefix("(?:").or_else(|| pattern.strip_prefix('('));
    // What is no group, such as (a)(b), has a bracket inside; where the last bracket is escaped, its backslash is the last character.
    let inside = group.and_then(|group| group.strip_suffix(')')).unwrap_or(pattern);
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '|' => each(None),
            '\\' => each(Some(chars.next().filter(|c| r#".+*?()|[]{}^$\-/'""#.contains(*c))?)),
            c if ".+*?()[]{}^$".contains(c) => return None,
            c => each(Some(c)),
        }
    }
    each(None);
    Some(())
}

/// How long a pattern is, classes counted. An escaped bracket counts as one too.
fn length(pattern: &str) -> usize {
    let bytes = pattern.as_bytes();
    let brackets = bytes.iter().filter(|byte| **byte == b'[').count();
    let named = bytes.windows(2).filter(|pair| pair[0] == b'\\' && b"dDsSwWpP".contains(&pair[1])).count();
    bytes.len() + CLASS_BYTES * (brackets + named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_compiled(pattern: &str) -> bool {
        list_bytes(pattern).is_none()
    }

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

    #[test]
    fn an_expression_that_would_take_too_much_memory_is_refused_and_told_what_to_do() {
        for (case, pattern, why) in [
            ("repeats letters of all scripts", r"\w{10}".to_owned(), "more than 262144 bytes once compiled"),
            ("repeats them without end", r"(\w{500}){500}".to_owned(), "more than 262144 bytes once compiled"),
            ("is longer than it may be", format!(".*{}", "x".repeat(8191)), "at most 8192"),
            ("has many classes", "[a-c]".repeat(100), "counts as 13300 bytes"),
            ("has many classes by name", r"\d".repeat(64), "counts as 8320 bytes"),
            ("has classes that hold each case of everything", format!("(?i){}", r"[\w]".repeat(1000)), "at most 8192"),
        ] {
            let refused = Matcher::matches("job", &pattern).unwrap_err();
            assert!(refused.reason.contains(why) && refused.reason.contains(": "), "{case}: {refused}");
        }
    }

    #[test]
    fn what_people_ask_for_is_compiled() {
        let names: Vec<String> = (0..100).map(|name| format!("deployment-{name:03}-with-a-name")).collect();
        for pattern in [
            ".*".to_owned(),
            r"(?i)node-\d+\.example\.(com|org):9\d{3}".to_owned(),
            "v{2000}".to_owned(),
            format!("({}).*", ["[a-z0-9-]+"; 50].join("|")),
            format!("(?:{})-[0-9]+", names.join("|")),
        ] {
            assert!(is_compiled(&pattern) && Matcher::matches("job", &pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn a_list_of_values_is_not_compiled_and_may_be_long() {
        let pods: Vec<String> = (0..2000).map(|pod| format!("a-pod-with-a-long-name-{pod:06}")).collect();
        let pattern = pods.join("|");
        assert!(!is_compiled(&pattern));
        let matcher = Matcher::matches("pod", &pattern).unwrap();
        assert!(pods.iter().all(|pod| matcher.accepts_value(pod)));
        assert!(!matcher.accepts_value("a-pod-with-a-long-name") && matcher.needs_label());
    }

    #[test]
    fn a_list_takes_memory_by_its_values_and_their_text() {
        for (case, pattern, bytes) in [
            ("nothing, which is a value too", "", Some(VALUE_BYTES)),
            ("one value", "ab", Some(VALUE_BYTES + 2)),
            ("several, one of them empty", "(a|é||d)", Some(4 * VALUE_BYTES + 4)),
            ("an escape is not in the value", r"a\.b", Some(VALUE_BYTES + 3)),
            ("no list", "a|b.", None),
        ] {
            assert_eq!(list_bytes(pattern), bytes, "{case}");
        }
    }

    #[test]
    fn a_list_may_have_a_group_around_it_as_grafana_writes_it() {
        let pods: Vec<String> = (0..2000).map(|pod| format!(r"a-pod\.with\(a\)-long-name\'{pod:06}")).collect();
        for pattern in [format!("({})", pods.join("|")), format!("(?:{})", pods.join("|"))] {
            assert!(!is_compiled(&pattern));
            let matcher = Matcher::matches("pod", &pattern).unwrap();
            let accepted = |pod: usize| matcher.accepts_value(&format!("a-pod.with(a)-long-name'{pod:06}"));
            assert_eq!((0..2001).filter(|pod| accepted(*pod)).count(), 2000);
        }
    }

    #[test]
    fn brackets_that_do_not_belong_together_are_no_group_around_a_list() {
        for (case, pattern, accepted, refused) in [
            ("a group and more values", "(a|b)|c", "c", "(a"),
            ("two groups", "(a)(b)", "ab", "a)(b"),
            ("a group in a value", "(a|b)c", "bc", "c"),
            ("a value and a group", "(a)|(b)", "b", "a)"),
            ("a group with a flag", "(?i:a)", "A", "?i:a"),
            ("a group with a name", "(?P<n>a)", "a", "?P<n>a"),
        ] {
            assert!(is_compiled(pattern), "{case}");
            let matcher = Matcher::matches("job", pattern).unwrap();
            assert!(matcher.accepts_value(accepted) && !matcher.accepts_value(refused), "{case}");
        }
        for (case, pattern) in
            [("an escaped bracket at the end", r"(a\)"), ("nothing closed", "(a"), ("no inside", "(")]
        {
            assert!(is_compiled(pattern) && Matcher::matches("job", pattern).is_err(), "{case}");
        }
    }

    proptest! {
        #[test]
        fn a_list_means_what_the_engine_makes_of_it(
            parts in prop::collection::vec(r#"[ab|/]|\\[.+*?()|{}^$/\[\]\\'"-]"#, 0..8), value in r#"[ab|/.+)'\\\[-]{0,4}"#,
        ) {
            let list = parts.concat();
            let twice = format!("(?:(?:{list}))");
            prop_assert!(is_compiled(&twice));
            let compiled = Matcher::matches("l", &twice).unwrap();
            let values: Vec<String> = list.split('|').map(|one| one.replace('\\', "")).chain([value]).collect();
            for pattern in [list.clone(), format!("({list})"), format!("(?:{list})")] {
                prop_assert!(!is_compiled(&pattern), "{}", pattern);
                let looked_up = Matcher::matches("l", &pattern).unwrap();
                for value in &values {
                    let accepts = looked_up.accepts_value(value);
                    prop_assert_eq!(accepts, compiled.accepts_value(value), "{} {}", pattern, value);
                }
            }
        }
    }
}
