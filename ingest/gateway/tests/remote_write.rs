//! What a well-meaning sender gets: stored, exactly, and told so only then.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rstest::rstest;
use support::proto::{field, good, good_text, label, now_ms, packed, sample, sample_bits, series, series_of, varint};
use support::{
    PARTITIONS, WAIT, exchange, metric, post, read_answer, request, small_limits, start, start_on, stored, until,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use understudy_gateway::limits::Limits;
use understudy_kafka::fake::{MemoryLog, Mood};
use understudy_kafka::{Delivered, OutRecord, Produce, SendError};
use understudy_model::{STALE_MARKER, Sample};

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_is_stored_and_answered_204() {
    let running = start().await;
    let now = now_ms();
    let body = packed(&[
        series(&[("__name__", "up"), ("instance", "a:1"), ("job", "node")], &[(now, 1.0), (now + 15_000, 0.0)]),
        series(&[("__name__", "up"), ("instance", "b:1"), ("job", "node")], &[(now, 0.5)]),
    ]);
    let answer = post(&running, &body).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let stored = stored(&running.log);
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[r#"up{instance="a:1", job="node"}"#], [Sample::new(now, 1.0), Sample::new(now + 15_000, 0.0)]);
    assert_eq!(metric(&running.metrics, r#"understudy_gateway_samples_total{tenant="acme"}"#), Some(3.0));
    assert_eq!(running.budget.used_bytes(), 0);
}

#[rstest]
#[case::stale_marker(STALE_MARKER)]
#[case::quiet_nan(f64::NAN.to_bits())]
#[case::nan_with_payload(0xfff8_dead_beef_0001)]
#[case::signalling_nan(0x7ff0_0000_0000_0001)]
#[case::infinity(f64::INFINITY.to_bits())]
#[case::negative_infinity(f64::NEG_INFINITY.to_bits())]
#[case::negative_zero((-0.0_f64).to_bits())]
#[case::subnormal(1)]
#[tokio::test(flavor = "multi_thread")]
async fn every_bit_of_a_value_is_stored(#[case] bits: u64) {
    let running = start().await;
    let now = now_ms();
    let body = packed(&[series_of(&[label(b"__name__", b"up"), sample_bits(now, bits)])]);
    assert_eq!(post(&running, &body).await.status, 204);
    assert_eq!(stored(&running.log)["up{}"], [Sample { timestamp_ms: now, bits }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_kept_in_the_order_and_as_often_as_they_are_sent() {
    let running = start().await;
    let now = now_ms();
    let samples = [(now, 5.0), (now - 1000, 4.0), (now, 5.0), (now, 6.0), (now - 500, 0.0)];
    let body = packed(&[series(&[("__name__", "requests_total")], &samples)]);
    assert_eq!(post(&running, &body).await.status, 204);
    let expected = samples.map(|(at, value)| Sample::new(at, value));
    assert_eq!(stored(&running.log)["requests_total{}"], expected);
}

#[rstest]
#[case::labels_out_of_order(series(&[("job", "node"), ("__name__", "up")], &[(now_ms(), 1.0)]), r#"up{job="node"}"#)]
#[case::an_empty_value(series(&[("__name__", "up"), ("zone", "")], &[(now_ms(), 1.0)]), "up{}")]
#[case::utf8_names(series(&[("__name__", "Größe"), ("地区", "東京")], &[(now_ms(), 1.0)]), "Größe{地区=\"東京\"}")]
#[case::a_four_byte_emoji(series(&[("__name__", "up"), ("ort", "🏔")], &[(now_ms(), 1.0)]), "up{ort=\"🏔\"}")]
#[case::a_nul(series(&[("__name__", "up"), ("a", "\0")], &[(now_ms(), 1.0)]), r#"up{a="\0"}"#)]
#[case::sql(series(&[("__name__", "up"), ("a", "' OR 1=1; --")], &[(now_ms(), 1.0)]), r#"up{a="' OR 1=1; --"}"#)]
#[case::an_unknown_field(
    series_of(&[label(b"__name__", b"up"), sample(now_ms(), 1.0), field(99, b"later")]), "up{}")]
#[case::an_exemplar_beside(
    series_of(&[label(b"__name__", b"up"), sample(now_ms(), 1.0), field(3, &sample(0, 1.0))]), "up{}")]
#[tokio::test(flavor = "multi_thread")]
async fn what_remote_write_allows_is_taken(#[case] series: Vec<u8>, #[case] shown: &str) {
    let running = start().await;
    let answer = post(&running, &packed(&[series])).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(stored(&running.log).keys().collect::<Vec<_>>(), [shown]);
}

#[rstest]
#[case::no_series(vec![])]
#[case::metadata_only(vec![field(3, &[0x08, 0x01])])]
#[case::a_series_without_samples(vec![series(&[("__name__", "up")], &[])])]
#[case::exemplars_only(vec![series_of(&[label(b"__name__", b"up"), field(3, &sample(0, 1.0))])])]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_nothing_to_store_is_answered_without_kafka(#[case] parts: Vec<Vec<u8>>) {
    let running = start().await;
    running.log.set_mood(Mood::Refusing);
    assert_eq!(post(&running, &packed(&parts)).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_counted() {
    let running = start().await;
    let with_exemplar = series_of(&[label(b"__name__", b"up"), sample(now_ms(), 1.0), field(3, &sample(0, 1.0))]);
    let body = packed(&[with_exemplar, field(3, &[0x08, 0x01]), field(3, &[0x08, 0x02])]);
    assert_eq!(post(&running, &body).await.status, 204);
    assert_eq!(metric(&running.metrics, r#"understudy_gateway_ignored_total{kind="metadata"}"#), Some(2.0));
    assert_eq!(metric(&running.metrics, r#"understudy_gateway_ignored_total{kind="exemplar"}"#), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_becomes_many_frames_and_loses_nothing() {
    let running = support::start_with(Limits { header_timeout: WAIT, ..Limits::default() }).await;
    let now = now_ms();
    let samples: Vec<(i64, f64)> = (0..150_000_i32).map(|at| (now - i64::from(at), f64::from(at).sqrt())).collect();
    let parts: Vec<Vec<u8>> = (0..300)
        .map(|host| {
            let instance = format!("host-{host}");
            series(&[("__name__", "up"), ("instance", &instance), ("job", "node")], &[(now, f64::from(host))])
        })
        .chain([series(&[("__name__", "backfill")], &samples)])
        .collect();
    let answer = post(&running, &packed(&parts)).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    let stored = stored(&running.log);
    assert_eq!(stored.len(), 301);
    let expected: Vec<Sample> = samples.iter().map(|&(at, value)| Sample::new(at, value)).collect();
    assert_eq!(stored["backfill{}"], expected);
    let largest = running.log.all().iter().map(|record| record.value.len()).max().unwrap();
    assert!(running.log.all().len() > 301 && largest < 1_000_000, "{largest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_taken() {
    let running = start().await;
    let body = packed(&[good("up")]);
    let (first, second) = body.split_at(body.len() / 2);
    let mut bytes = request(&[], &[("content-length", None), ("transfer-encoding", Some("chunked"))]);
    for chunk in [first, second] {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(exchange(running.address, &bytes).await.status, 204);
    assert!(stored(&running.log).contains_key(&good_text("up")));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_requests_use_one_connection() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for name in ["one", "two", "three"] {
        stream.write_all(&request(&packed(&[good(name)]), &[])).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 204);
    }
    assert_eq!(stored(&running.log).len(), 3);
}

#[rstest]
#[case::full(Mood::Full)]
#[case::refusing(Mood::Refusing)]
#[case::torn(Mood::Torn)]
#[case::silent(Mood::Silent)]
#[case::dead(Mood::Dead)]
#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_did_not_confirm_is_never_acknowledged(#[case] mood: Mood) {
    let running = start().await;
    running.log.set_mood(mood);
    let hosts = ["a", "b", "c", "d"];
    let parts = hosts.map(|host| series(&[("__name__", "up"), ("instance", host)], &[(now_ms(), 1.0)]));
    let answer = post(&running, &packed(&parts)).await;
    assert_eq!((answer.status, answer.headers.get("retry-after").map(String::as_str)), (503, Some("1")), "{answer:?}");
    assert_eq!(answer.headers["connection"], "close", "another gateway may be able to");
    // A bad series in the same request does not turn "send it again" into "never send it again".
    let bad = series(&[("job", "nameless")], &[(now_ms(), 1.0)]);
    let answer = post(&running, &packed(&[parts.concat(), bad])).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    running.log.set_mood(Mood::Healthy);
    assert_eq!(post(&running, &packed(&parts)).await.status, 204);
    assert_eq!(running.budget.used_bytes(), 0);
}

/// Confirms only when it is let.
struct Gate {
    log: Arc<MemoryLog>,
    asked: Semaphore,
    open: Semaphore,
}

#[async_trait]
impl Produce for Gate {
    async fn send(&self, records: Vec<OutRecord>, deadline: Instant) -> Result<Vec<Delivered>, SendError> {
        self.asked.add_permits(1);
        self.open.acquire().await.unwrap().forget();
        self.log.send(records, deadline).await
    }

    async fn partitions(&self, within: Duration) -> Result<u32, SendError> {
        self.log.partitions(within).await
    }
}

impl Gate {
    async fn wait_for(&self, requests: u32) {
        timeout(WAIT, self.asked.acquire_many(requests)).await.expect("the requests in time").unwrap().forget();
    }
}

fn gate() -> Arc<Gate> {
    Arc::new(Gate { log: Arc::new(MemoryLog::new(PARTITIONS)), asked: Semaphore::new(0), open: Semaphore::new(0) })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_given_before_kafka_has_confirmed() {
    let gate = gate();
    let running = start_on(small_limits(), gate.log.clone(), gate.clone()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&request(&packed(&[good("up")]), &[])).await.unwrap();
    gate.wait_for(1).await;
    assert!(running.budget.used_bytes() > 0, "its memory stays reserved while it waits");
    assert!(timeout(Duration::from_millis(100), read_answer(&mut stream)).await.is_err());
    gate.open.add_permits(1);
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_request_under_way_end_and_takes_no_other() {
    let gate = gate();
    let mut running = start_on(small_limits(), gate.log.clone(), gate.clone()).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    busy.write_all(&request(&packed(&[good("up")]), &[])).await.unwrap();
    gate.wait_for(1).await;
    running.draining.cancel();
    running.stop.cancel();
    assert_eq!(timeout(WAIT, read_answer(&mut idle)).await.unwrap(), None);
    gate.open.add_permits(1);
    let answer = read_answer(&mut busy).await.unwrap();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (204, "close"));
    timeout(WAIT, &mut running.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
    assert_eq!(stored(&gate.log).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_tenants_own_quota_is_a_429() {
    let limits = Limits { tenant_samples_per_second: Some(10), ..small_limits() };
    let running = support::start_with(limits).await;
    let now = now_ms();
    let hundred: Vec<(i64, f64)> = (0..100).map(|at| (now + at, 1.0)).collect();
    let body = packed(&[series(&[("__name__", "up")], &hundred)]);
    assert_eq!(post(&running, &body).await.status, 204);
    let answer = post(&running, &body).await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((9..=10).contains(&wait), "{wait}");
    assert_eq!(stored(&running.log)["up{}"].len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_memory_for_all_are_told_to_come_back() {
    let limits = Limits { inflight_bytes: 640 << 10, body_timeout: WAIT, body_idle_timeout: WAIT, ..small_limits() };
    let running = support::start_with(limits).await;
    let body = packed(&[good("up")]);
    assert_eq!(post(&running, &body).await.status, 204);
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(&request(b"begun", &[("content-length", Some("200000"))])).await.unwrap();
    until(WAIT, "the memory is set aside", || running.budget.used_bytes() >= 200_000).await;
    let answer = post(&running, &body).await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"), "{answer:?}");
    drop(slow);
    timeout(WAIT, async { while post(&running, &body).await.status != 204 {} }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_could_never_be_held_is_not_told_to_come_back() {
    let running = support::start_with(Limits { inflight_bytes: 256 << 10, ..small_limits() }).await;
    let answer = post(&running, &packed(&[good("up")])).await;
    assert_eq!((answer.status, answer.headers.get("retry-after")), (413, None), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_wait_for_kafka_do_not_keep_others_out() {
    let gate = gate();
    let limits = Limits { inflight_bytes: 8 << 20, produce_timeout: WAIT, ..small_limits() };
    let running = start_on(limits, gate.log.clone(), gate.clone()).await;
    let mut waiting = Vec::new();
    for index in 0..50 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&request(&packed(&[good(&format!("m{index}"))]), &[])).await.unwrap();
        waiting.push(stream);
    }
    gate.wait_for(50).await;
    gate.open.add_permits(50);
    for stream in &mut waiting {
        assert_eq!(read_answer(stream).await.unwrap().status, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_its_memory_back() {
    let running = start().await;
    running.log.set_mood(Mood::Dead);
    for _ in 0..10 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&request(&packed(&[good("up")]), &[])).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&request(&varint(7), &[("content-length", Some("200000"))])).await.unwrap();
    drop(stream);
    until(WAIT, "the memory comes back", || running.budget.used_bytes() == 0).await;
}
