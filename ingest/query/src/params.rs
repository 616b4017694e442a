//! What the query string and the form of a request say. Pure.

use thiserror::Error;
use understudy_store::Matcher;
use understudy_wire::ShardName;

use crate::limits::Limits;
use crate::selector::{Patterns, SelectorError, parse_selector};

/// Which shards are asked, and what happens when one cannot answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `shard=NAME`: this one alone.
    pub shard: Option<ShardName>,
    /// `partial=allow`: an answer without the shards that cannot answer, and it says which.
    pub partial: Partial,
}

/// What happens when a shard cannot answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partial {
    /// The request fails.
    #[default]
    Refuse,
    /// The answer lacks it and says so.
    Allow,
}

/// The parameters of a request for series or labels.
#[derive(Debug, Default)]
pub struct Params {
    /// Each `match[]`, parsed.
    pub selectors: Vec<Vec<Matcher>>,
    /// `limit`: the most entries to answer with.
    pub limit: Option<usize>,
    /// Which shards.
    pub scope: Scope,
}

/// A parameter that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParamError {
    /// A selector.
    #[error("match[]: {0}")]
    Selector(#[from] SelectorError),
    /// More selectors than allowed.
    #[error("more than {0} match[] selectors")]
    TooManySelectors(usize),
    /// Not a number.
    #[error("limit must be a number of entries, 0 for no limit")]
    Limit,
    /// Neither Unix seconds nor RFC 3339.
    #[error("{0} must be a time: seconds since 1970 or RFC 3339")]
    Time(&'static str),
    /// Not `allow`.
    #[error("partial can only be allow")]
    Partial,
    /// Not a shard's name.
    #[error("shard must be the name of a shard")]
    Shard,
}

/// The scope alone, from a query string.
pub fn parse_scope(query: Option<&str>) -> Result<Scope, ParamError> {
    let mut scope = Scope::default();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        take_scope(&mut scope, &name, &value)?;
    }
    Ok(scope)
}

/// All parameters, from a query string and a form. Those that are not known are ignored, as Prometheus does. Compiles the
/// patterns of all selectors, which takes a while.
pub fn parse(query: Option<&str>, form: &[u8], limits: &Limits, patterns: &mut Patterns) -> Result<Params, ParamError> {
    let mut params = Params::default();
    for (name, value) in
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).chain(form_urlencoded::parse(form))
    {
        match &*name {
            "match[]" => {
                if params.selectors.len() == limits.selections {
                    return Err(ParamError::TooManySelectors(limits.selections));
                }
                params.selectors.push(parse_selector(&value, limits, patterns)?);
            }
            "limit" => params.limit = Some(value.parse().map_err(|_| ParamError::Limit)?).filter(|limit| *limit > 0),
            // The catalogue knows no times yet, so they narrow nothing; a time that is none is refused all the same.
            "start" => check_time("start", &value)?,
            "end" => check_time("end", &value)?,
            name => take_scope(&mut params.scope, name, &value)?,
        }
    }
    Ok(params)
}

fn take_scope(scope: &mut Scope, name: &str, value: &str) -> Result<(), ParamError> {
    match (name, value) {
        ("partial", "allow") => scope.partial = Partial::Allow,
        ("partial", _) => return Err(ParamError::Partial),
        ("shard", name) => {
            let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || name.len() > 63 || !name.bytes().all(is_name) {
                return Err(ParamError::Shard);
            }
            scope.shard = Some(ShardName::new(name));
        }
        _ => {}
    }
    Ok(())
}

fn check_time(name: &'static str, value: &str) -> Result<(), ParamError> {
    let is_seconds = value.parse::<f64>().is_ok_and(f64::is_finite);
    let is_time = is_seconds || value.parse::<jiff::Timestamp>().is_ok();
    if is_time { Ok(()) } else { Err(ParamError::Time(name)) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::budget::Budget;

    /// Reads the parameters of a request that is alone.
    fn parse_alone(query: Option<&str>, form: &[u8], limits: &Limits) -> Result<Params, ParamError> {
        parse(query, form, limits, &mut Patterns::new(limits, Budget::new(limits.memory_bytes).hold_nothing()))
    }

    #[test]
    fn query_and_form_add_up() {
        let query = Some("match[]=up&start=1.5&shard=metrics-1");
        let params =
            parse_alone(query, b"match%5B%5D=%7Bjob%3D%22a%22%7D&limit=7&partial=allow&what=ever", &Limits::default());
        let params = params.unwrap();
        assert_eq!((params.selectors.len(), params.limit), (2, Some(7)));
        assert_eq!(params.scope, Scope { shard: Some(ShardName::new("metrics-1")), partial: Partial::Allow });
    }

    #[rstest]
    #[case::limit("limit=many", ParamError::Limit)]
    #[case::negative_limit("limit=-1", ParamError::Limit)]
    #[case::start("start=yesterday", ParamError::Time("start"))]
    #[case::end("end=NaN", ParamError::Time("end"))]
    #[case::partial("partial=yes", ParamError::Partial)]
    #[case::shard("shard=../x", ParamError::Shard)]
    #[case::no_shard("shard=", ParamError::Shard)]
    fn a_bad_parameter_is_named(#[case] query: &str, #[case] expected: ParamError) {
        assert_eq!(parse_alone(Some(query), b"", &Limits::default()).unwrap_err(), expected);
    }

    #[rstest]
    #[case::unix("start=1700000000")]
    #[case::fraction("start=1700000000.123")]
    #[case::rfc_3339("start=2026-01-02T03:04:05.678%2B01:00")]
    #[case::no_limit("limit=0")]
    fn what_prometheus_sends_is_taken(#[case] query: &str) {
        assert_eq!(parse_alone(Some(query), b"", &Limits::default()).unwrap().limit, None);
    }

    #[test]
    fn the_number_of_selectors_and_of_their_patterns_is_limited() {
        let limits = Limits { selections: 2, ..Limits::default() };
        let query = "match[]=a&match[]=b&match[]=c";
        assert_eq!(parse_alone(Some(query), b"", &limits).unwrap_err(), ParamError::TooManySelectors(2));
        let limits = Limits { patterns: 1, ..Limits::default() };
        let query = "match[]={a=~\"b.\"}&match[]={a=~\"b.\"}";
        let refused = parse_alone(Some(query), b"", &limits).unwrap_err();
        assert_eq!(refused, ParamError::Selector(SelectorError::TooManyPatterns(1)), "of all selectors together");
    }
}
