//! The grammar of a selector such as `up{job=~"node.*"}`: text to matchers as they are written. Pure.
//!
//! It is read here and not by a parser of all PromQL, because that compiles each pattern while it reads, with no bound
//! but its own, and takes what nests apart by recursion. The tests hold this against one.

use std::str::Chars;

use thiserror::Error;
use understudy_model::labels::METRIC_NAME;

/// A matcher as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The label.
    pub name: String,
    /// How its value is compared.
    pub operator: Operator,
    /// With what.
    pub value: String,
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrammarError {
    /// It is not what it should be at this place.
    #[error("at byte {at}: {what}")]
    Syntax {
        /// The place.
        at: usize,
        /// What is wrong or missing there.
        what: &'static str,
    },
    /// More follows: a range, an offset, arguments of a function.
    #[error("at byte {0}: the selector has ended and more follows")]
    More(usize),
    /// It has more matchers than allowed.
    #[error("it has more than {0} matchers")]
    TooManyMatchers(usize),
}

const UNCLOSED: &str = "a quote that is not closed";
const ESCAPE: &str = "an escape that does not exist";

/// Words of the language, in any case, that name a metric only in quotes between braces; other words of it need none.
const RESERVED: [&str; 8] = ["inf", "nan", "atan2", "bool", "group_left", "group_right", "ignoring", "on"];

/// The matchers of a selector, `most` at most. A name before the braces is one.
pub fn read(text: &str, most: usize) -> Result<Vec<Written>, GrammarError> {
    let mut cursor = Cursor { rest: text };
    let read = cursor.selector(most);
    let at = text.len() - cursor.rest.len();
    match read {
        Ok(_) if !cursor.rest.is_empty() => Err(GrammarError::More(at)),
        Ok(written) => Ok(written),
        Err(Unread::TooMany) => Err(GrammarError::TooManyMatchers(most)),
        Err(Unread::Syntax(what)) => Err(GrammarError::Syntax { at, what }),
    }
}

enum Unread {
    TooMany,
    Syntax(&'static str),
}

impl From<&'static str> for Unread {
    fn from(what: &'static str) -> Self {
        Self::Syntax(what)
    }
}

/// What is still to be read.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn selector(&mut self, most: usize) -> Result<Vec<Written>, Unread> {
        let mut written = Vec::new();
        let name = self.word(true);
        if name.is_some_and(|name| RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word))) {
            return Err("before here a word of the language: as a name it is written {\"so\"}".into());
        }
        written.extend(name.map(Written::metric));
        if self.take("{") {
            while !self.take("}") {
                if written.len() == most {
                    return Err(Unread::TooMany);
                }
                let matcher = self.matcher()?;
                if name.is_some() && matcher.name == METRIC_NAME {
                    return Err("the name of the metric is given twice".into());
                }
                written.push(matcher);
                if !self.take(",") && !self.rest.starts_with('}') {
                    return Err("a comma or } should be here".into());
                }
            }
        } else if name.is_none() {
            return Err("a name or { should be here".into());
        }
        self.skip_space();
        Ok(written)
    }

    fn matcher(&mut self) -> Result<Written, Unread> {
        let quoted = self.quoted()?;
        let may_be_the_metric = quoted.is_some();
        let name =
            quoted.or_else(|| self.word(false).map(str::to_owned)).ok_or("the name of a label should be here")?;
        match self.operator() {
            Some(operator) => {
                let value = self.quoted()?.ok_or("a value in quotes should be here")?;
                Ok(Written { name, operator, value })
            }
            None if may_be_the_metric => Ok(Written::metric(&name)),
            None => Err("=, !=, =~ or !~ should be here".into()),
        }
    }

    fn operator(&mut self) -> Option<Operator> {
        let operators = [
            ("=~", Operator::Matches),
            ("!~", Operator::NotMatches),
            ("!=", Operator::NotEqual),
            ("=", Operator::Equal),
        ];
        operators.into_iter().find(|(token, _)| self.take(token)).map(|(_, operator)| operator)
    }

    /// A name without quotes; those of metrics may have colons.
    fn word(&mut self, is_metric: bool) -> Option<&'a str> {
        self.skip_space();
        let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric() || (is_metric && c == ':');
        let end = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.rest = rest;
        Some(word)
    }

    /// The meaning of a text in quotes, if there is one.
    fn quoted(&mut self) -> Result<Option<String>, &'static str> {
        self.skip_space();
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else { return Ok(None) };
        let rest = self.rest;
        let inside = &rest[1..];
        if quote == '`' {
            let (text, rest) = inside.split_once('`').ok_or(UNCLOSED)?;
            self.rest = rest;
            return Ok(Some(text.to_owned()));
        }
        let mut bytes = Vec::new();
        let mut chars = inside.chars();
        loop {
            match chars.next() {
                None | Some('\n') => return Err(UNCLOSED),
                Some('\\') => unescape(&mut chars, quote, &mut bytes)?,
                Some(c) if c == quote => break,
                Some(c) => push(&mut bytes, c),
            }
        }
        self.rest = chars.as_str();
        String::from_utf8(bytes).map(Some).map_err(|_| "bytes before here that are no text")
    }

    /// Whether this comes next; then it is read.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    }
}

impl Written {
    fn metric(name: &str) -> Self {
        Self { name: METRIC_NAME.to_owned(), operator: Operator::Equal, value: name.to_owned() }
    }
}

/// Adds what an escape means; its backslash has been read. As in Go, `\x` and octal numbers are bytes, `\u` characters.
fn unescape(chars: &mut Chars<'_>, quote: char, bytes: &mut Vec<u8>) -> Result<(), &'static str> {
    let kind = chars.next().ok_or(UNCLOSED)?;
    let mut number = |first: u32, digits: usize, radix: u32| {
        (0..digits).try_fold(first, |value, _| {
            let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or(ESCAPE)?;
            value.checked_mul(radix).and_then(|value| value.checked_add(digit)).ok_or(ESCAPE)
        })
    };
    let byte = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '\'' | '"' if kind == quote => kind as u8,
        'x' => u8::try_from(number(0, 2, 16)?).map_err(|_| ESCAPE)?,
        '0'..='7' => u8::try_from(number(kind as u32 - u32::from(b'0'), 2, 8)?).map_err(|_| ESCAPE)?,
        'u' | 'U' => {
            let digits = if kind == 'u' { 4 } else { 8 };
            push(bytes, char::from_u32(number(0, digits, 16)?).ok_or(ESCAPE)?);
            return Ok(());
        }
        _ => return Err(ESCAPE),
    };
    bytes.push(byte);
    Ok(())
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use promql_parser::label::MatchOp;
    use promql_parser::parser::{self, Expr};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const MOST: usize = 8;

    fn written(matchers: &[(&str, Operator, &str)]) -> Vec<Written> {
        let written = |(name, operator, value): &(&str, Operator, &str)| Written {
            name: (*name).to_owned(),
            operator: *operator,
            value: (*value).to_owned(),
        };
        matchers.iter().map(written).collect()
    }

    #[rstest]
    #[case::nothing_in_braces("{}", &[])]
    #[case::colons("a:b:c", &[("__name__", Operator::Equal, "a:b:c")])]
    #[case::a_word_of_the_language("sum{or=\"x\"}", &[("__name__", Operator::Equal, "sum"), ("or", Operator::Equal, "x")])]
    #[case::a_reserved_word_in_braces(r#"{"inf",on="x"}"#, &[("__name__", Operator::Equal, "inf"), ("on", Operator::Equal, "x")])]
    #[case::a_name_that_begins_with_a_reserved_word("inf:on", &[("__name__", Operator::Equal, "inf:on")])]
    #[case::two_names_in_braces(r#"{"a",__name__="b"}"#, &[("__name__", Operator::Equal, "a"), ("__name__", Operator::Equal, "b")])]
    #[case::space_and_a_comma_at_the_end(" a { b = 'c' , } ", &[("__name__", Operator::Equal, "a"), ("b", Operator::Equal, "c")])]
    #[case::a_label_in_quotes(r#"{"a.b"!~"c"}"#, &[("a.b", Operator::NotMatches, "c")])]
    #[case::a_metric_in_quotes(r#"{"a b", c!="d"}"#, &[("__name__", Operator::Equal, "a b"), ("c", Operator::NotEqual, "d")])]
    #[case::a_backslash_between_backticks(r"{a=~`\d`,b=`(`}", &[("a", Operator::Matches, r"\d"), ("b", Operator::Equal, "(")])]
    #[case::bytes_that_are_a_character_together(r#"{a="\xc3\xa9\303\251\u00e9"}"#, &[("a", Operator::Equal, "ééé")])]
    fn a_selector_is_read_as_it_is_written(#[case] text: &str, #[case] expected: &[(&str, Operator, &str)]) {
        assert_eq!(read(text, MOST), Ok(written(expected)));
    }

    #[rstest]
    #[case::nothing("", 0, "a name or {")]
    #[case::a_number("1", 0, "a name or {")]
    #[case::unbalanced("up{", 3, "the name of a label")]
    #[case::only_a_comma("{,}", 1, "the name of a label")]
    #[case::two_commas(r#"{a="b",,}"#, 7, "the name of a label")]
    #[case::no_comma(r#"{a="b" c="d"}"#, 7, "a comma or }")]
    #[case::a_second_name(r#"up{__name__="up"}"#, 16, "given twice")]
    #[case::a_second_name_in_quotes(r#"up{"up"}"#, 7, "given twice")]
    #[case::a_second_name_by_a_pattern(r#"up{__name__=~"u."}"#, 17, "given twice")]
    #[case::infinity("inf", 3, "a word of the language")]
    #[case::no_number(r#"NaN{a="b"}"#, 3, "a word of the language")]
    #[case::a_word_between_two_expressions("Group_Left", 10, "a word of the language")]
    #[case::no_operator("{a}", 2, "=~")]
    #[case::two_operators(r#"{a=="b"}"#, 3, "a value in quotes")]
    #[case::a_quote_not_closed(r#"{a="b}"#, 3, "not closed")]
    #[case::a_quote_over_two_lines("{a=\"b\n\"}", 3, "not closed")]
    #[case::an_escape_at_the_end(r#"{a="\"#, 3, "not closed")]
    #[case::an_escape_that_is_none(r#"{a="\d"}"#, 3, "escape")]
    #[case::the_other_quote_escaped(r#"{a="\'"}"#, 3, "escape")]
    #[case::a_surrogate(r#"{a="\ud800"}"#, 3, "escape")]
    #[case::half_a_character(r#"{a="\xc3"}"#, 9, "no text")]
    fn what_is_no_selector_is_told_with_its_place(#[case] text: &str, #[case] place: usize, #[case] why: &str) {
        let Err(GrammarError::Syntax { at, what }) = read(text, MOST) else { panic!("{text}") };
        assert!(at == place && what.contains(why), "{at}: {what}");
    }

    #[rstest]
    #[case::a_range("up[5m]", 2)]
    #[case::arguments("rate(up)", 4)]
    #[case::a_comment("up # ((", 3)]
    #[case::more_braces("up{}{}", 4)]
    fn what_follows_a_selector_is_told_with_its_place(#[case] text: &str, #[case] place: usize) {
        assert_eq!(read(text, MOST), Err(GrammarError::More(place)));
    }

    #[test]
    fn matchers_beyond_the_limit_are_not_even_read() {
        let text = r#"a{b="c",d="e",?"#;
        assert_eq!(read(text, 4), Err(GrammarError::Syntax { at: 14, what: "the name of a label should be here" }));
        assert_eq!(read(text, 3), Err(GrammarError::TooManyMatchers(3)));
    }

    /// What the parser of all PromQL makes of a text.
    fn oracle(text: &str) -> Option<Vec<Written>> {
        let Ok(Expr::VectorSelector(selector)) = parser::parse(text) else { return None };
        let mut written: Vec<Written> = selector.name.as_deref().map(Written::metric).into_iter().collect();
        written.extend(selector.matchers.matchers.into_iter().map(|matcher| {
            let operator = match matcher.op {
                MatchOp::Equal => Operator::Equal,
                MatchOp::NotEqual => Operator::NotEqual,
                MatchOp::Re(_) => Operator::Matches,
                MatchOp::NotRe(_) => Operator::NotMatches,
            };
            Written { name: matcher.name, operator, value: matcher.value }
        }));
        (selector.matchers.or_matchers.is_empty() && selector.offset.is_none() && selector.at.is_none())
            .then_some(written)
    }

    proptest! {
        #[test]
        fn what_a_parser_of_promql_reads_is_read_alike(
            name in "([a-z_:][a-z0-9_:]{0,5})?",
            // The first keeps the parser from refusing a selector that could match everything.
            matchers in prop::collection::vec(
                r#" ?([a-np-z_][a-z0-9_]{0,3}|"[a-z. ]{1,4}"|'[a-z]\\t') ?(=|!=|=~|!~) ?("([a-z{, ]|\\[nrt"\\]|\\x41|\\u00e9){0,4}"|'[a-z"=]{0,4}'|`[a-z"']{0,4}`)"#,
                0..5,
            ),
            end in ",? ?",
        ) {
            let end = if matchers.is_empty() { "" } else { end.as_str() };
            let text = format!("{name}{{zz=\"x\",{}{end}}}", matchers.join(","));
            if let Some(expected) = oracle(&text) {
                prop_assert_eq!(read(&text, MOST), Ok(expected), "{}", text);
            }
        }

        #[test]
        fn no_text_panics_and_none_is_taken_that_a_parser_of_promql_refuses(text in r#"[a-c{}=!~,"'` ]{0,12}"#) {
            let written = read(&text, MOST).unwrap_or_default();
            // What could match everything, and some patterns, only the parser refuses: here that is for those to do who use what was read.
            let narrows = written.iter().any(|one| one.operator == Operator::Equal && !one.value.is_empty());
            let is_plain = written.iter().all(|one| matches!(one.operator, Operator::Equal | Operator::NotEqual));
            prop_assert!(!(narrows && is_plain) || oracle(&text).is_some(), "{}", text);
        }
    }
}
