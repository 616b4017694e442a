//! `match[]` selectors and remote read's matchers to the store's. Pure.

use thiserror::Error;
use understudy_store::Matcher;
use understudy_store::matcher::{COMPILED_BYTES, RegexError, list_bytes};

use crate::budget::{Exhausted, Held};
use crate::grammar::{GrammarError, Operator, Written, read};
use crate::limits::Limits;

/// Why a selector is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Longer than allowed.
    #[error("a selector, name or pattern has {0} bytes, at most {1} are allowed")]
    TooLong(usize, usize),
    /// More matchers than allowed.
    #[error("a selector has more than {0} matchers")]
    TooManyMatchers(usize),
    /// More patterns in all selectors of a request than allowed.
    #[error(
        "the request has more than {0} patterns that must be compiled: ask in several requests, or list whole values \
         as a|b, which need not be"
    )]
    TooManyPatterns(usize),
    /// The values that patterns list take more memory than there is.
    #[error(
        "the patterns of the request need more than the {0} bytes of memory that there are: ask in several requests"
    )]
    TooLargePatterns(usize),
    /// Other requests hold the memory for patterns.
    #[error("other queries use all the memory")]
    Memory,
    /// No selector.
    #[error("the selector {0:?} cannot be parsed: {1}")]
    Syntax(String, String),
    /// More than a selector of series.
    #[error("{0:?} is not a selector of series: give a name and matchers, without functions, ranges or offsets")]
    NotSeries(String),
    /// Every series of the tenant would match.
    #[error("at least one matcher must not match the empty value")]
    MatchesAll,
    /// A pattern that is not taken.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// A kind of matcher that does not exist.
    #[error("there is no matcher type {0}")]
    UnknownType(i32),
}

/// The patterns that one request has compiled, and the memory set aside for them and for lists of values until this is
/// dropped.
#[derive(Debug)]
pub struct Patterns {
    most: usize,
    count: usize,
    bytes: usize,
    held: Held,
}

impl Patterns {
    /// None yet. `held` is of the request and holds nothing else.
    pub fn new(limits: &Limits, held: Held) -> Self {
        Self { most: limits.patterns, count: 0, bytes: 0, held }
    }

    /// The memory set aside.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Sets aside the memory of one more.
    fn admit(&mut self, pattern: &str) -> Result<(), SelectorError> {
        let list = list_bytes(pattern);
        if list.is_none() && self.count == self.most {
            return Err(SelectorError::TooManyPatterns(self.most));
        }
        let bytes = self.bytes.saturating_add(list.unwrap_or(COMPILED_BYTES));
        self.held.grow_to(bytes).map_err(|exhausted| match exhausted {
            Exhausted::Now => SelectorError::Memory,
            Exhausted::Ever(_) if list.is_none() => SelectorError::TooManyPatterns(self.count),
            Exhausted::Ever(most) => SelectorError::TooLargePatterns(most),
        })?;
        self.bytes = bytes;
        self.count += usize::from(list.is_none());
        Ok(())
    }
}

/// The matchers of a PromQL selector such as `up{job=~"node.*"}`. Compiles its patterns, which takes a while.
pub fn parse_selector(text: &str, limits: &Limits, patterns: &mut Patterns) -> Result<Vec<Matcher>, SelectorError> {
    check_length(text, limits)?;
    let shown = || text.chars().take(200).collect::<String>();
    let written = read(text, limits.matchers).map_err(|e| match e {
        GrammarError::TooManyMatchers(most) => SelectorError::TooManyMatchers(most),
        GrammarError::More(_) => SelectorError::NotSeries(shown()),
        GrammarError::Syntax { .. } => SelectorError::Syntax(shown(), e.to_string()),
    })?;
    let matchers = written
        .iter()
        .map(|Written { name, operator, value }| matcher(*operator, name, value, patterns))
        .collect::<Result<Vec<Matcher>, _>>()?;
    if matchers.iter().any(Matcher::needs_label) { Ok(matchers) } else { Err(SelectorError::MatchesAll) }
}

/// A matcher of a remote read: its type by number, as the protocol has it. Compiles its pattern.
pub fn remote_matcher(
    kind: i32,
    name: &str,
    value: &str,
    limits: &Limits,
    patterns: &mut Patterns,
) -> Result<Matcher, SelectorError> {
    check_length(name, limits)?;
    check_length(value, limits)?;
    let operator = match kind {
        0 => Operator::Equal,
        1 => Operator::NotEqual,
        2 => Operator::Matches,
        3 => Operator::NotMatches,
        other => return Err(SelectorError::UnknownType(other)),
    };
    matcher(operator, name, value, patterns)
}

fn matcher(operator: Operator, name: &str, value: &str, patterns: &mut Patterns) -> Result<Matcher, SelectorError> {
    match operator {
        Operator::Equal => Ok(Matcher::equal(name, value)),
        Operator::NotEqual => Ok(Matcher::not_equal(name, value)),
        Operator::Matches => regex(Matcher::matches, name, value, patterns),
        Operator::NotMatches => regex(Matcher::not_matches, name, value, patterns),
    }
}

/// Refuses more matchers than allowed.
pub fn check_count(count: usize, limits: &Limits) -> Result<(), SelectorError> {
    if count > limits.matchers { Err(SelectorError::TooManyMatchers(limits.matchers)) } else { Ok(()) }
}

fn check_length(text: &str, limits: &Limits) -> Result<(), SelectorError> {
    if text.len() > limits.text_bytes {
        return Err(SelectorError::TooLong(text.len(), limits.text_bytes));
    }
    Ok(())
}

/// Patterns are written for Go's RE2. What it takes as text and this engine takes as a mistake, a brace that begins no
/// repetition, is tried once more as text.
fn regex(
    build: impl Fn(String, &str) -> Result<Matcher, RegexError>,
    name: &str,
    pattern: &str,
    patterns: &mut Patterns,
) -> Result<Matcher, SelectorError> {
    patterns.admit(pattern)?;
    build(name.to_owned(), pattern).or_else(|failure| match escape_braces(pattern) {
        Some(escaped) => Ok(build(name.to_owned(), &escaped)?),
        None => Err(failure.into()),
    })
}

/// The pattern with every brace escaped that begins no repetition such as `{2}`, `{2,}` or `{2,3}`; None if there is none.
fn escape_braces(pattern: &str) -> Option<String> {
    let mut escaped = String::with_capacity(pattern.len() + 2);
    let mut rest = pattern;
    let mut is_changed = false;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            // The next character stands for itself, or begins a class such as \p{Greek}.
            '\\' if rest[1..].starts_with(['p', 'P', 'x']) && rest[2..].starts_with('{') => 3,
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '{' if !is_repetition(rest) => {
                escaped.push('\\');
                is_changed = true;
                1
            }
            c => c.len_utf8(),
        };
        escaped.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    is_changed.then_some(escaped)
}

fn is_repetition(text: &str) -> bool {
    let Some((inside, _)) = text[1..].split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use understudy_model::Labels;

    use super::*;
    use crate::budget::Budget;

    fn patterns(limits: &Limits) -> Patterns {
        Patterns::new(limits, Budget::new(limits.memory_bytes).hold_nothing())
    }

    /// Reads the one selector of a request.
    fn parse_alone(selector: &str, limits: &Limits) -> Result<Vec<Matcher>, SelectorError> {
        parse_selector(selector, limits, &mut patterns(limits))
    }

    fn remote_alone(kind: i32, name: &str, value: &str, limits: &Limits) -> Result<Matcher, SelectorError> {
        remote_matcher(kind, name, value, limits, &mut patterns(limits))
    }

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        parse_alone(selector, &Limits::default()).unwrap().iter().all(|matcher| matcher.accepts(&labels))
    }

    #[rstest]
    #[case::name("up", true)]
    #[case::other_name("down", false)]
    #[case::name_as_label(r#"{__name__="up"}"#, true)]
    #[case::quoted_name(r#"{"up"}"#, true)]
    #[case::equal(r#"up{job="node"}"#, true)]
    #[case::not_equal(r#"up{job!="node"}"#, false)]
    #[case::not_equal_of_a_missing_label(r#"up{zone!="a"}"#, true)]
    #[case::equal_to_nothing(r#"up{zone=""}"#, true)]
    #[case::regex(r#"up{job=~"no.e"}"#, true)]
    #[case::regex_is_anchored(r#"up{job=~"nod"}"#, false)]
    #[case::alternatives_are_anchored_as_a_whole(r#"up{job=~"a|nod"}"#, false)]
    #[case::regex_of_a_missing_label(r#"up{zone=~".*"}"#, true)]
    #[case::regex_that_wants_something(r#"up{zone=~".+"}"#, false)]
    #[case::not_regex(r#"up{job!~"n.*"}"#, false)]
    #[case::not_regex_of_a_missing_label(r#"up{zone!~"a.*"}"#, true)]
    #[case::a_brace_is_text_where_go_takes_it_as_text(r#"up{path=~"/a/{id}"}"#, true)]
    #[case::escapes(r#"up{quote="a\"b\n"}"#, true)]
    #[case::what_would_nest_is_text_in_quotes(r#"up{job!='(-"',quote!=`((`}"#, true)]
    #[case::a_backslash_between_backticks(r"up{job=~`n\S+`,path!=`\`}", true)]
    #[case::sql_is_text(r#"up{job="node' OR 1=1 -- "}"#, false)]
    fn a_selector_means_what_prometheus_means(#[case] selector: &str, #[case] expected: bool) {
        let labels = [("__name__", "up"), ("job", "node"), ("path", "/a/{id}"), ("quote", "a\"b\n")];
        assert_eq!(matches(selector, &labels), expected);
    }

    #[rstest]
    #[case::a_range("up[5m]")]
    #[case::an_offset("up offset 5m")]
    #[case::a_moment("up @ 0")]
    #[case::a_function("rate(up[5m])")]
    #[case::a_number("1")]
    #[case::a_sum("up + up")]
    #[case::alternatives(r#"{job="a" or job="b"}"#)]
    #[case::a_comment("up # ((")]
    #[case::deep(&"(".repeat(60_000))]
    #[case::deep_signs(&"-".repeat(60_000))]
    fn what_is_more_than_a_selector_is_refused(#[case] selector: &str) {
        let refused = parse_alone(selector, &Limits::default());
        assert!(matches!(refused, Err(SelectorError::NotSeries(_) | SelectorError::Syntax(..))), "{refused:?}");
    }

    #[rstest]
    #[case::nothing("{}")]
    #[case::only_empty(r#"{job=~".*"}"#)]
    #[case::unbalanced("up{")]
    #[case::not_a_pattern(r#"up{job=~"("}"#)]
    #[case::a_pattern_that_explodes(r#"up{job=~"(\\w{500}){500}"}"#)]
    #[case::a_pattern_that_breaks_out(r#"up{job=~"a)|(b"}"#)]
    fn a_bad_selector_is_refused(#[case] selector: &str) {
        assert!(parse_alone(selector, &Limits::default()).is_err());
    }

    #[test]
    fn length_and_number_are_limited() {
        let limits = Limits { text_bytes: 100, matchers: 2, ..Limits::default() };
        let long = format!("{{a=\"{}\"}}", "x".repeat(100));
        assert_eq!(parse_alone(&long, &limits).unwrap_err(), SelectorError::TooLong(106, 100));
        assert!(remote_alone(0, &"x".repeat(101), "", &limits).is_err());
        assert_eq!(remote_alone(4, "a", "b", &limits).unwrap_err(), SelectorError::UnknownType(4));
        // A bracket that does not close is found once the pattern is compiled.
        let refused = parse_alone(r#"a{b=~"(",c="d"}"#, &limits).unwrap_err();
        assert_eq!(refused, SelectorError::TooManyMatchers(2), "before any pattern is compiled");
    }

    #[test]
    fn patterns_of_all_selectors_of_a_request_count_together_and_lists_do_not() {
        let limits = Limits { patterns: 2, ..Limits::default() };
        let mut patterns = patterns(&limits);
        for selector in [r#"a{b=~"c.",d=~"e|f"}"#, r#"a{b!~"c.",d!~"e|f"}"#, r#"a{d=~"e|f"}"#] {
            assert!(parse_selector(selector, &limits, &mut patterns).is_ok(), "{selector}");
        }
        let refused = parse_selector(r#"a{b=~"("}"#, &limits, &mut patterns).unwrap_err();
        assert_eq!(refused, SelectorError::TooManyPatterns(2), "before it is compiled");
        assert_eq!(remote_matcher(2, "a", "(", &limits, &mut patterns).unwrap_err(), refused);
        assert!(remote_matcher(3, "a", "b|c", &limits, &mut patterns).is_ok());
    }

    #[test]
    fn patterns_take_memory_that_other_requests_then_do_not_have() {
        let limits = Limits { memory_bytes: 2 * COMPILED_BYTES, ..Limits::default() };
        let budget = Budget::new(limits.memory_bytes);
        let mut first = Patterns::new(&limits, budget.hold_nothing());
        let mut second = Patterns::new(&limits, budget.hold_nothing());
        let ask = |patterns: &mut Patterns| parse_selector(r#"{a=~"b."}"#, &limits, patterns).map(|_| ());
        assert_eq!((ask(&mut first), ask(&mut second)), (Ok(()), Ok(())));
        assert_eq!(ask(&mut second), Err(SelectorError::Memory));
        drop(first);
        assert_eq!(ask(&mut second), Ok(()));
        assert_eq!(ask(&mut second), Err(SelectorError::TooManyPatterns(2)), "more than there is memory for at all");
    }

    #[test]
    fn lists_of_values_take_memory_that_other_requests_then_do_not_have() {
        let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
        let budget = Budget::new(limits.memory_bytes);
        let mut first = Patterns::new(&limits, budget.hold_nothing());
        let mut second = Patterns::new(&limits, budget.hold_nothing());
        // 5,000 values of 100 bytes each with all that they take: half of what there is, nearly.
        let list = (0..5000).map(|value| format!("{value:04}")).collect::<Vec<_>>().join("|");
        let ask = |patterns: &mut Patterns| remote_matcher(2, "a", &list, &limits, patterns).map(|_| ());
        assert_eq!((ask(&mut first), ask(&mut second)), (Ok(()), Ok(())));
        assert_eq!(ask(&mut second), Err(SelectorError::Memory), "lists of one request count together");
        drop(first);
        assert_eq!(ask(&mut second), Ok(()));
        assert_eq!(ask(&mut second), Err(SelectorError::TooLargePatterns(1 << 20)), "more than there is for all");
    }

    #[rstest]
    #[case::repetitions("a{2}b{2,}c{2,3}", None)]
    #[case::text("a{b}c", Some(r"a\{b}c"))]
    #[case::no_least("a{,3}", Some(r"a\{,3}"))]
    #[case::unclosed("a{2", Some(r"a\{2"))]
    #[case::escaped_already(r"a\{b}", None)]
    #[case::a_class(r"\p{Greek}+", None)]
    #[case::at_the_end("é{", Some(r"é\{"))]
    fn braces_are_escaped_only_where_they_begin_no_repetition(#[case] pattern: &str, #[case] expected: Option<&str>) {
        assert_eq!(escape_braces(pattern).as_deref(), expected);
    }

    /// What Prometheus' documentation says, written down naively.
    fn oracle(kind: i32, value: Option<&str>, operand: &str) -> bool {
        let value = value.unwrap_or_default();
        let alternatives = || operand.split('|').any(|alternative| alternative == value);
        match kind {
            0 => value == operand,
            1 => value != operand,
            2 => alternatives(),
            _ => !alternatives(),
        }
    }

    proptest! {
        #[test]
        fn matchers_agree_with_the_oracle(
            kind in 0_i32..4, value in prop::option::of("[ab]{0,3}"), operand in "[ab]{0,3}(\\|[ab]{0,3}){0,2}",
        ) {
            let pairs = value.as_deref().map(|value| ("l", value));
            let labels = Labels::from_pairs(pairs).unwrap();
            let matcher = remote_alone(kind, "l", &operand, &Limits::default()).unwrap();
            prop_assert_eq!(matcher.accepts(&labels), oracle(kind, value.as_deref(), &operand));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let parsed = parse_alone(&text, &Limits::default());
            prop_assert!(parsed.is_err() || parsed.is_ok_and(|matchers| !matchers.is_empty()));
            prop_assert!(escape_braces(&text).is_none_or(|escaped| escaped.len() > text.len()));
        }
    }
}
