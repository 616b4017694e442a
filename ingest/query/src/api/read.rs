//! Remote read. I/O.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::held::held_body;
use super::{Shared, apart, headers_of};
use crate::gather::gather;
use crate::params::parse_scope;
use crate::remote::{decode_request, encode_response};
use crate::server::Servers;
use crate::work::{Results, Work};

/// `POST /api/v1/read`.
pub async fn read<S: Servers>(
    State(service): State<Shared<S>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&service, query.as_deref(), &headers, body).await.unwrap_or_else(|refusal| refusal.text())
}

async fn answer<S: Servers>(
    service: &Shared<S>,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (tenant, place) = service.admit(headers).await?;
    let encoding = headers.get(CONTENT_ENCODING).map_or(b"snappy".as_slice(), |value| value.as_bytes());
    if encoding != b"snappy" {
        return Err(ApiError::Unsupported("remote read is packed with snappy".into()));
    }
    let scope = parse_scope(query)?;
    let body = service.body(body).await?;
    let (limits, mut patterns) = (service.limits.clone(), service.patterns());
    // The place goes along: who hangs up does not get another one while this is still worked on.
    let (place, patterns, selections) = apart(move || {
        let selections = decode_request(&body, &limits, &mut patterns);
        (place, patterns, selections)
    })
    .await?;
    let work = Work::Samples(selections?);
    let (partitions, held) = (service.partitions, patterns.held());
    let gathered = gather(&service.asker, &tenant, &work, &scope, partitions, &service.limits, held).await?;
    let described = headers_of(&gathered);
    service.metrics.gave(gathered.found.samples(), gathered.found.duplicates);
    service.metrics.missing_shards.inc_by(gathered.missing.len() as u64);
    let Results::Samples(results) = gathered.found.results else {
        return Err(ApiError::Internal("samples were asked for and something else was found".into()));
    };
    let (held, limits) = (gathered.held, service.limits.clone());
    let body = apart(move || encode_response(results, &limits).map(|body| held_body(body, held, place))).await??;
    let fixed = [(CONTENT_TYPE, "application/x-protobuf"), (CONTENT_ENCODING, "snappy")];
    Ok((fixed, described, body).into_response())
}
