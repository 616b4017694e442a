//! `match[]` selectors and remote read's matchers to the store's. Pure.

use promql_parser::label::{MatchOp, Matcher as Parsed};
use promql_parser::parser::{self, Expr};
use thiserror::Error;
use understudy_store::Matcher;
use understudy_store::matcher::RegexError;

use crate::limits::Limits;

/// Why a selector is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Longer than allowed.
    #[error("a selector, name or pattern has {0} bytes, at most {1} are allowed")]
    TooLong(usize, usize),
    /// More matchers than allowed.
    #[error("a selector has {0} matchers, at most {1} are allowed")]
    TooManyMatchers(usize, usize),
    /// Not PromQL.
    #[error("the selector {0:?} cannot be parsed: {1}")]
    Syntax(String, String),
    /// PromQL, but not a selector of series.
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

/// The matchers of a PromQL selector such as `up{job=~"node.*"}`.
pub fn parse_selector(text: &str, limits: &Limits) -> Result<Vec<Matcher>, SelectorError> {
    check_length(text, limits)?;
    let shown = || text.chars().take(200).collect::<String>();
    if !is_flat(text) {
        return Err(SelectorError::NotSeries(shown()));
    }
    let selector = match parser::parse(text) {
        Ok(Expr::VectorSelector(selector)) => selector,
        Ok(_) => return Err(SelectorError::NotSeries(shown())),
        Err(problem) => return Err(SelectorError::Syntax(shown(), problem)),
    };
    if selector.offset.is_some() || selector.at.is_some() || !selector.matchers.or_matchers.is_empty() {
        return Err(SelectorError::NotSeries(shown()));
    }
    let mut matchers: Vec<Matcher> = Vec::new();
    matchers.extend(selector.name.map(|name| Matcher::equal("__name__", name)));
    for Parsed { op, name, value } in selector.matchers.matchers {
        let matcher = match op {
            MatchOp::Equal => Matcher::equal(name, value),
            MatchOp::NotEqual => Matcher::not_equal(name, value),
            MatchOp::Re(_) => regex(Matcher::matches, &name, &value)?,
            MatchOp::NotRe(_) => regex(Matcher::not_matches, &name, &value)?,
        };
        matchers.push(matcher);
    }
    check_count(matchers.len(), limits)?;
    if matchers.iter().any(Matcher::needs_label) { Ok(matchers) } else { Err(SelectorError::MatchesAll) }
}

/// Whether a text can be a selector as far as its characters go. What can nest is kept from the parser, whose tree is
/// taken apart by recursion.
fn is_flat(text: &str) -> bool {
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"' | '\''), '\\') => drop(chars.next()),
            // Whether that ends the quote, parsers do not agree.
            (Some('`'), '\\') => return false,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, c) if "()[]+-*/^%@<>#".contains(c) => return false,
            (None, _) => {}
        }
    }
    true
}

/// A matcher of a remote read: its type by number, as the protocol has it.
pub fn remote_matcher(kind: i32, name: &str, value: &str, limits: &Limits) -> Result<Matcher, SelectorError> {
    check_length(name, limits)?;
    check_length(value, limits)?;
    match kind {
        0 => Ok(Matcher::equal(name, value)),
        1 => Ok(Matcher::not_equal(name, value)),
        2 => regex(Matcher::matches, name, value),
        3 => regex(Matcher::not_matches, name, value),
        other => Err(SelectorError::UnknownType(other)),
    }
}

/// Refuses more matchers than allowed.
pub fn check_count(count: usize, limits: &Limits) -> Result<(), SelectorError> {
    if count > limits.matchers { Err(SelectorError::TooManyMatchers(count, limits.matchers)) } else { Ok(()) }
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
) -> Result<Matcher, SelectorError> {
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

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        parse_selector(selector, &Limits::default()).unwrap().iter().all(|matcher| matcher.accepts(&labels))
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
    #[case::a_quote_that_may_have_ended(r"up{a=`\`,b=`((((`}")]
    #[case::deep(&"(".repeat(60_000))]
    #[case::deep_signs(&"-".repeat(60_000))]
    fn what_is_more_than_a_selector_is_refused(#[case] selector: &str) {
        let refused = parse_selector(selector, &Limits::default());
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
        assert!(parse_selector(selector, &Limits::default()).is_err());
    }

    #[test]
    fn length_and_number_are_limited() {
        let limits = Limits { text_bytes: 100, matchers: 2, ..Limits::default() };
        let long = format!("{{a=\"{}\"}}", "x".repeat(100));
        assert_eq!(parse_selector(&long, &limits).unwrap_err(), SelectorError::TooLong(106, 100));
        let refused = parse_selector(r#"a{b="c",d="e"}"#, &limits).unwrap_err();
        assert_eq!(refused, SelectorError::TooManyMatchers(3, 2));
        assert!(remote_matcher(0, &"x".repeat(101), "", &limits).is_err());
        assert_eq!(remote_matcher(4, "a", "b", &limits).unwrap_err(), SelectorError::UnknownType(4));
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
            let matcher = remote_matcher(kind, "l", &operand, &Limits::default()).unwrap();
            prop_assert_eq!(matcher.accepts(&labels), oracle(kind, value.as_deref(), &operand));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let parsed = parse_selector(&text, &Limits::default());
            prop_assert!(parsed.is_err() || parsed.is_ok_and(|matchers| !matchers.is_empty()));
            prop_assert!(escape_braces(&text).is_none_or(|escaped| escaped.len() > text.len()));
        }
    }
}
