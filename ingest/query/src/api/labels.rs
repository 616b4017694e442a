//! Series, label names, label values, build information: in Prometheus' JSON. I/O.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use understudy_model::Labels;
use understudy_store::Matcher;

use super::error::ApiError;
use super::held::held_body;
use super::{Shared, apart, headers_of};
use crate::gather::{Gathered, gather};
use crate::params::{Params, parse};
use crate::server::Servers;
use crate::work::{Results, Work};

#[derive(Serialize)]
struct Envelope<T> {
    status: &'static str,
    data: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// `/api/v1/series`.
pub async fn series<S: Servers>(
    State(service): State<Shared<S>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let work = |params: &mut Params| match std::mem::take(&mut params.selectors) {
        selectors if selectors.is_empty() => Err(ApiError::BadData("no match[] parameter provided".into())),
        selectors => Ok(Work::Series(selectors)),
    };
    answer(&service, query.as_deref(), &headers, body, work).await.unwrap_or_else(|refusal| refusal.json())
}

/// `/api/v1/labels`.
pub async fn names<S: Servers>(
    State(service): State<Shared<S>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let work = |params: &mut Params| Ok(Work::LabelNames(std::mem::take(&mut params.selectors)));
    answer(&service, query.as_deref(), &headers, body, work).await.unwrap_or_else(|refusal| refusal.json())
}

/// `/api/v1/label/<name>/values`.
pub async fn values<S: Servers>(
    State(service): State<Shared<S>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let most = service.limits.text_bytes;
    let work = |params: &mut Params| {
        let name = label_name(&name);
        if name.is_empty() || name.len() > most {
            return Err(ApiError::BadData(format!("a label name has 1 to {most} bytes")));
        }
        let mut selectors = std::mem::take(&mut params.selectors);
        // Only series that have the label have a value of it.
        selectors.iter_mut().for_each(|matchers| matchers.push(Matcher::not_equal(&*name, "")));
        Ok(Work::LabelValues(name, selectors))
    };
    answer(&service, query.as_deref(), &headers, body, work).await.unwrap_or_else(|refusal| refusal.json())
}

/// `/api/v1/status/buildinfo`.
pub async fn build<S: Servers>(State(service): State<Shared<S>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = service.admit(&headers).await {
        return refusal.json();
    }
    let data = json!({ "application": "Understudy", "version": env!("CARGO_PKG_VERSION"), "revision": "",
        "branch": "", "buildUser": "", "buildDate": "", "goVersion": "" });
    Json(json!({ "status": "success", "data": data })).into_response()
}

async fn answer<S: Servers>(
    service: &Shared<S>,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
    work: impl FnOnce(&mut Params) -> Result<Work, ApiError>,
) -> Result<Response, ApiError> {
    let (tenant, place) = service.admit(headers).await?;
    let form = service.body(body).await?;
    let (query, limits, mut patterns) = (query.map(str::to_owned), service.limits.clone(), service.patterns());
    // The place goes along: who hangs up does not get another one while this is still worked on.
    let (place, patterns, params) = apart(move || {
        let params = parse(query.as_deref(), &form, &limits, &mut patterns);
        (place, patterns, params)
    })
    .await?;
    let mut params = params?;
    let work = work(&mut params)?;
    let (scope, partitions, held) = (&params.scope, service.partitions, patterns.held());
    let gathered = gather(&service.asker, &tenant, &work, scope, partitions, &service.limits, held).await?;
    service.metrics.missing_shards.inc_by(gathered.missing.len() as u64);
    let limit = params.limit;
    apart(move || envelope(gathered, limit, place)).await?
}

fn envelope(gathered: Gathered, limit: Option<usize>, place: OwnedSemaphorePermit) -> Result<Response, ApiError> {
    let headers = headers_of(&gathered);
    let Gathered { found, missing, held, .. } = gathered;
    let mut warnings: Vec<String> =
        missing.iter().map(|(shard, why)| format!("shard {shard} is missing: {why}")).collect();
    let most = limit.unwrap_or(usize::MAX);
    if found.entries() > most {
        warnings.push("results truncated due to limit".into());
    }
    let text = match &found.results {
        Results::Series(series) => {
            let data = series.iter().take(most).map(Object).collect();
            serde_json::to_vec(&Envelope { status: "success", data, warnings })
        }
        Results::Texts(texts) => {
            let data = texts.iter().take(most).collect();
            serde_json::to_vec(&Envelope { status: "success", data, warnings })
        }
        Results::Samples(_) => {
            return Err(ApiError::Internal("names were asked for and samples were found".into()));
        }
    };
    drop(found);
    let text = text.map_err(|e| ApiError::Internal(format!("the answer cannot be written: {e}")))?;
    let body = held_body(text, held, place);
    Ok((headers, [(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Labels as JSON has them, without a copy of each.
struct Object<'a>(&'a Labels);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// The name as it is meant: names that do not fit into a path are sent as `U__` with escapes.
fn label_name(path: &str) -> String {
    path.strip_prefix("U__").and_then(unescape).unwrap_or_else(|| path.to_owned())
}

/// Prometheus' escaping of values: `__` is an underscore, `_XX_` the character with that hexadecimal number.
fn unescape(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('_') {
        name.push_str(before);
        if let Some(after) = after.strip_prefix('_') {
            name.push('_');
            rest = after;
        } else {
            let (digits, after) = after.split_once('_')?;
            name.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
            rest = after;
        }
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("job", "job")]
    #[case::escaped("U__http_2e_status__code", "http.status_code")]
    #[case::not_quite_escaped("U__http_zz_", "U__http_zz_")]
    #[case::unclosed("U__http_2e", "U__http_2e")]
    #[case::beyond_unicode("U__x_110000_", "U__x_110000_")]
    fn names_in_paths_are_unescaped(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(label_name(path), expected);
    }
}
