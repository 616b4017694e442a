//! Reads through the query API, as any user would. I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Client, Url};

use crate::ledger::Server;
use crate::prom::{TimeSeries, parse_answer, read_body};

/// How many samples of an answer were there more than once and given once.
const MERGED: &str = "x-understudy-merged-samples";
/// Which server of each shard answered, under which epoch, as what.
const SERVED_BY: &str = "x-understudy-served-by";
/// Up to when each shard's data is complete.
const FRESH: &str = "x-understudy-fresh-until";

/// A client of the query API. With several addresses it stays with one until that fails, then takes the next.
#[derive(Clone)]
pub struct Query {
    client: Client,
    urls: Arc<[Url]>,
    current: Arc<AtomicUsize>,
    token: String,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The series found.
    pub series: Vec<TimeSeries>,
    /// Samples that were stored more than once.
    pub merged: u64,
    /// Shard to the server that answered for it; empty when the header is not there.
    pub served: BTreeMap<String, Server>,
    /// Per shard, as the header says it.
    pub fresh_until: Option<String>,
}

impl Query {
    /// `urls` are full addresses of the remote-read endpoint, at least one; `token` is `<id>.<secret>`.
    pub fn new(urls: Vec<Url>, token: String, deadline: Duration) -> anyhow::Result<Self> {
        anyhow::ensure!(!urls.is_empty(), "no address of the query API");
        let client = Client::builder().connect_timeout(Duration::from_secs(1)).timeout(deadline).tcp_nodelay(true);
        let client = client.build().context("make the HTTP client")?;
        Ok(Self { client, urls: urls.into(), current: Arc::default(), token })
    }

    /// All samples in a range of milliseconds, both ends included, of the series with these labels; of one shard alone if
    /// one is named.
    pub async fn read(
        &self,
        range_ms: (i64, i64),
        equal: &[(&str, &str)],
        shard: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let current = self.current.load(Ordering::Relaxed);
        let answer = self.read_from(&self.urls[current % self.urls.len()], range_ms, equal, shard).await;
        if answer.is_err() {
            let next = current.wrapping_add(1);
            // Another read may have moved on already; then this failure says nothing about where it moved to.
            self.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        answer
    }

    async fn read_from(
        &self,
        url: &Url,
        range_ms: (i64, i64),
        equal: &[(&str, &str)],
        shard: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let mut request = self
            .client
            .post(url.clone())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Read-Version", "0.1.0")
            .body(read_body(range_ms, equal)?);
        if let Some(shard) = shard {
            request = request.query(&[("shard", shard)]);
        }
        let response = request.send().await.context("ask the query API")?;
        let status = response.status();
        if !status.is_success() {
            bail!("{} {}", status.as_u16(), response.text().await.unwrap_or_default().trim());
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let merged = header(MERGED).context("the answer does not say how many samples were merged")?;
        let merged = merged.parse().with_context(|| format!("{MERGED} is not a number: {merged}"))?;
        let fresh_until = header(FRESH);
        let served = header(SERVED_BY).map_or_else(|| Ok(BTreeMap::new()), |text| servers(&text))?;
        let body = response.bytes().await.context("read the answer")?;
        Ok(Answer { series: parse_answer(&body)?, merged, served, fresh_until })
    }
}

/// `shard=replica@epoch;role` with commas between them.
fn servers(header: &str) -> anyhow::Result<BTreeMap<String, Server>> {
    let server = |entry: &str| {
        let (shard, rest) = entry.trim().split_once('=')?;
        let (server, role) = rest.rsplit_once(';')?;
        let (replica, epoch) = server.rsplit_once('@')?;
        let epoch = epoch.parse().ok()?;
        Some((shard.to_owned(), Server { replica: replica.to_owned(), epoch, is_primary: role == "primary" }))
    };
    let all = header.split(',').filter(|entry| !entry.trim().is_empty());
    all.map(|entry| server(entry).with_context(|| format!("{SERVED_BY} is not understood: {header}"))).collect()
}

/// The address of an endpoint: `path` under the address given, unless that has a path of its own.
pub fn endpoint(base: &str, path: &str) -> anyhow::Result<Url> {
    let mut url: Url = base.parse().with_context(|| format!("{base} is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("{base} is not an http or https address");
    }
    if url.path() == "/" {
        url.set_path(path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_server_of_each_shard() {
        let served = servers("m-0=m-0-k7x2@4;primary, m-1=m-1-a-b@12;standby").unwrap();
        let server = |replica: &str, epoch, is_primary| Server { replica: replica.into(), epoch, is_primary };
        let expected =
            [("m-0".to_owned(), server("m-0-k7x2", 4, true)), ("m-1".to_owned(), server("m-1-a-b", 12, false))];
        assert_eq!(served, expected.into());
        assert_eq!(servers("").unwrap(), BTreeMap::new());
        for broken in ["m-0", "m-0=a", "m-0=a;primary", "m-0=a@x;primary"] {
            assert!(servers(broken).is_err(), "{broken}");
        }
    }
}
