//! What a sender's series and tokens must be, case by case.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use rstest::rstest;
use understudy_model::rules::{LabelRules, Naming, Rejection, Rejections, TimeWindow};
use understudy_model::tokens::{InvalidToken, Tokens};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs(text: &[(&str, &str)]) -> Pairs {
    text.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn with(name: &[u8], value: &[u8]) -> Pairs {
    vec![(b"__name__".to_vec(), b"up".to_vec()), (name.to_vec(), value.to_vec())]
}

fn many(count: usize) -> Pairs {
    let mut labels = pairs(&[("__name__", "up")]);
    labels.extend((1..count).map(|index| (format!("l{index}").into_bytes(), b"v".to_vec())));
    labels
}

fn check(rules: LabelRules, labels: &Pairs) -> Result<String, Rejection> {
    let given = labels.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    rules.check(given).map(|labels| labels.to_string())
}

#[rstest]
#[case::sorted(pairs(&[("__name__", "up"), ("job", "node")]), "up{job=\"node\"}")]
#[case::unsorted(pairs(&[("job", "node"), ("__name__", "up")]), "up{job=\"node\"}")]
#[case::an_empty_value_counts_as_absent(pairs(&[("__name__", "up"), ("zone", "")]), "up{}")]
#[case::utf8_metric_name(pairs(&[("__name__", "温度 °C")]), "温度 °C{}")]
#[case::emoji(with("ort".as_bytes(), "🏔".as_bytes()), "up{ort=\"🏔\"}")]
#[case::nul_in_a_value(with(b"a", b"\0"), "up{a=\"\\0\"}")]
#[case::right_to_left_override(with(b"a", "\u{202e}x".as_bytes()), "up{a=\"\\u{202e}x\"}")]
#[case::zero_width_space(with(b"a", "x\u{200b}".as_bytes()), "up{a=\"x\\u{200b}\"}")]
#[case::sql_in_a_value(with(b"a", b"'; DROP TABLE series; --"), "up{a=\"'; DROP TABLE series; --\"}")]
#[case::as_many_labels_as_allowed(many(128), &check(LabelRules::default(), &many(128)).unwrap())]
#[case::as_long_a_value_as_allowed(with(b"a", &[b'x'; 2048]), &format!("up{{a=\"{}\"}}", "x".repeat(2048)))]
fn a_series_that_keeps_the_rules_is_taken(#[case] labels: Pairs, #[case] shown: &str) {
    assert_eq!(check(LabelRules::default(), &labels).as_deref(), Ok(shown));
}

#[rstest]
#[case::no_labels(vec![], Rejection::MissingName)]
#[case::no_metric_name(pairs(&[("job", "node")]), Rejection::MissingName)]
#[case::an_empty_metric_name(pairs(&[("__name__", "")]), Rejection::MissingName)]
#[case::a_label_without_a_name(with(b"", b"x"), Rejection::EmptyLabelName)]
#[case::a_name_twice(pairs(&[("__name__", "up"), ("a", "1"), ("a", "1")]), Rejection::DuplicateLabel)]
#[case::a_name_twice_apart(pairs(&[("a", "1"), ("__name__", "up"), ("a", "2")]), Rejection::DuplicateLabel)]
#[case::two_metric_names(pairs(&[("__name__", "up"), ("__name__", "down")]), Rejection::DuplicateLabel)]
#[case::a_value_that_is_not_utf8(with(b"a", b"\xff"), Rejection::InvalidUtf8)]
#[case::a_name_that_is_not_utf8(with(b"\xc3\x28", b"x"), Rejection::InvalidUtf8)]
#[case::an_overlong_slash(with(b"a", b"\xc0\xaf"), Rejection::InvalidUtf8)]
#[case::a_surrogate(with(b"a", b"\xed\xa0\x80"), Rejection::InvalidUtf8)]
#[case::one_label_too_many(many(129), Rejection::TooManyLabels)]
#[case::ten_thousand_labels(many(10_000), Rejection::TooManyLabels)]
#[case::a_name_too_long(with(&[b'n'; 1025], b"x"), Rejection::LabelNameTooLong)]
#[case::a_value_too_long(with(b"a", &[b'x'; 2049]), Rejection::LabelValueTooLong)]
#[case::a_value_of_a_mebibyte(with(b"a", &vec![b'x'; 1 << 20]), Rejection::LabelValueTooLong)]
#[case::all_too_long((0..9).map(|i| (vec![b'a' + i], vec![b'x'; 2048])).collect(), Rejection::LabelsTooLong)]
fn a_series_that_breaks_a_rule_is_refused_with_its_reason(#[case] labels: Pairs, #[case] reason: Rejection) {
    assert_eq!(check(LabelRules::default(), &labels), Err(reason));
}

#[rstest]
#[case::plain("up", "job", true)]
#[case::colon_in_the_metric_name("job:up:sum", "job", true)]
#[case::colon_in_a_label_name("up", "a:b", false)]
#[case::a_digit_first("1up", "job", false)]
#[case::a_dot("up.time", "job", false)]
#[case::beyond_ascii("温度", "job", false)]
fn legacy_naming_allows_what_prometheus_2_allowed(#[case] metric: &str, #[case] label: &str, #[case] allowed: bool) {
    let rules = LabelRules { naming: Naming::Legacy, ..LabelRules::default() };
    let outcome = check(rules, &pairs(&[("__name__", metric), (label, "x")]));
    assert_eq!(outcome.is_ok(), allowed);
    assert!(allowed || outcome == Err(Rejection::InvalidName));
}

#[rstest]
#[case::inside(500, Ok(()))]
#[case::at_the_start(0, Ok(()))]
#[case::at_the_end(1000, Ok(()))]
#[case::before(-1, Err(Rejection::TooOld))]
#[case::long_before(i64::MIN, Err(Rejection::TooOld))]
#[case::after(1001, Err(Rejection::TooFarInFuture))]
#[case::at_the_end_of_time(i64::MAX, Err(Rejection::TooFarInFuture))]
fn samples_outside_the_window_are_refused(#[case] at: i64, #[case] outcome: Result<(), Rejection>) {
    assert_eq!(TimeWindow { earliest_ms: 0, latest_ms: 1000 }.check(at), outcome);
}

#[test]
fn rejections_tell_counts_and_one_short_example_of_each() {
    let mut refused = Rejections::default();
    refused.add(Rejection::DuplicateLabel, 1, || "up{a=\"\n\u{1b}[31m\"}".to_owned());
    refused.add(Rejection::DuplicateLabel, 2, || panic!("one example is enough"));
    refused.add(Rejection::TooOld, 5, || "x".repeat(10_000));
    assert_eq!(refused.total(), 8);
    let text = refused.to_string();
    assert!(text.starts_with(r#"duplicate_label: 3 (such as up{a="\n\u{1b}[31m"}); too_old: 5"#), "{text}");
    assert!(text.len() < 400, "{} bytes", text.len());
}

/// sha256 of `agent.secret`.
const DIGEST: &str = "cecc05b29ae140bae8e9dc95877ec61e196273f1e2bed00495ca78650da2522d";

#[rstest]
#[case::right("Bearer agent.secret", true)]
#[case::scheme_in_another_case("bearer agent.secret", true)]
#[case::wrong_secret("Bearer agent.wrong", false)]
#[case::wrong_id("Bearer other.secret", false)]
#[case::id_alone("Bearer agent", false)]
#[case::empty_secret("Bearer agent.", false)]
#[case::no_token("Bearer ", false)]
#[case::basic("Basic agent.secret", false)]
#[case::no_scheme("agent.secret", false)]
#[case::empty("", false)]
#[case::the_digest_itself(&format!("Bearer agent.{DIGEST}"), false)]
#[case::over_long(&format!("Bearer agent.{}", "s".repeat(10_000)), false)]
fn only_the_whole_right_token_names_a_tenant(#[case] header: &str, #[case] known: bool) {
    let mut tokens = Tokens::default();
    tokens.insert("agent", &format!("acme sha256:{DIGEST}\n")).unwrap();
    assert_eq!(tokens.tenant_of_header(header).is_some(), known);
}

#[rstest]
#[case::no_digest("agent", "acme", InvalidToken::Form)]
#[case::a_plain_secret("agent", "acme secret", InvalidToken::Form)]
#[case::a_short_digest("agent", "acme sha256:00", InvalidToken::Form)]
#[case::a_digest_that_is_not_hex("agent", &format!("acme sha256:{}", "z".repeat(64)), InvalidToken::Form)]
#[case::too_many_words("agent", &format!("acme sha256:{DIGEST} x"), InvalidToken::Form)]
#[case::a_path_as_id("../agent", &format!("acme sha256:{DIGEST}"), InvalidToken::Id)]
#[case::no_id("", &format!("acme sha256:{DIGEST}"), InvalidToken::Id)]
fn an_entry_that_is_no_token_is_refused(#[case] id: &str, #[case] text: &str, #[case] why: InvalidToken) {
    assert_eq!(Tokens::default().insert(id, text), Err(why));
}

#[test]
fn a_dump_of_the_tokens_shows_no_digest() {
    let mut tokens = Tokens::default();
    tokens.insert("agent", &format!("acme sha256:{DIGEST}")).unwrap();
    assert_eq!(format!("{tokens:?}"), r#"{"agent": Tenant(acme)}"#);
}
