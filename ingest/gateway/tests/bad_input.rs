//! Truncated, oversized, mislabelled and hostile requests: each with its answer, and the good part kept where the
//! protocol allows it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rstest::rstest;
use support::proto::{field, good, good_text, label, now_ms, packed, sample, series, series_of, snappy, varint};
use support::{WAIT, exchange, metric, post, read_answer, request, start, stored};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A snappy block that declares a length and holds something else.
fn declares(length: u64, content: &[u8]) -> Vec<u8> {
    [varint(length), content.to_vec()].concat()
}

fn gzip_magic() -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 64]].concat()
}

/// Groups nested so deep that a recursive parser would run out of stack.
fn nested_groups(depth: usize) -> Vec<u8> {
    [vec![0x7b; depth], vec![0x7c; depth]].concat()
}

#[rstest]
#[case::an_empty_body(vec![], 400, "it is empty")]
#[case::one_byte(vec![0x01], 400, "damaged")]
#[case::a_truncated_length(vec![0x80], 400, "length is not readable")]
#[case::a_length_that_never_ends(vec![0xff; 20], 400, "length is not readable")]
#[case::declares_4_gib(declares(u64::from(u32::MAX), b"x"), 413, "4294967295 bytes decompressed")]
#[case::declares_256_mib(declares(256 << 20, b"x"), 413, "268435456 bytes decompressed")]
#[case::declares_more_than_u32(declares(1 << 33, b"x"), 400, "length is not readable")]
#[case::declares_just_over_the_limit(declares((1 << 20) + 1, &[0; 100_000]), 413, "1048577 bytes decompressed")]
#[case::declares_more_than_it_can_hold(declares(1 << 20, &[0; 100]), 400, "more than its bytes can hold")]
#[case::declares_nothing_with_data(declares(0, &good("up")), 400, "declares nothing")]
#[case::declares_less_than_it_holds([vec![0x05], snappy(&good("up"))[1..].to_vec()].concat(), 400, "damaged")]
#[case::cut_in_the_middle(snappy(&good("up"))[..20].to_vec(), 400, "damaged")]
#[case::bytes_after_the_end([snappy(&good("up")), vec![0; 10]].concat(), 400, "damaged")]
#[case::snappy_in_frames([b"\xff\x06\x00\x00sNaPpY".to_vec(), vec![0; 50]].concat(), 400, "framed format")]
#[case::gzip_called_snappy(gzip_magic(), 400, "not a snappy block")]
#[case::zstd_called_snappy(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0], 400, "not a snappy block")]
#[case::plain_protobuf(good("up"), 400, "not a snappy block")]
#[case::text(b"up 1 1700000000\n".to_vec(), 400, "not a snappy block")]
#[case::random_after_snappy(snappy(&[0xfe; 300]), 400, "not a prometheus.WriteRequest")]
#[case::a_field_beyond_the_end(snappy(&[0x0a, 0x7f, 0x00]), 400, "ends beyond its message")]
#[case::a_series_beyond_its_end(snappy(&field(1, &[0x0a, 0x7f])), 400, "ends beyond its message")]
#[case::a_length_of_2_to_the_63(snappy(&[vec![0x0a], varint(1 << 63)].concat()), 400, "ends beyond its message")]
#[case::a_varint_that_never_ends(snappy(&[0xff; 30]), 400, "not a prometheus.WriteRequest")]
#[case::field_number_zero(snappy(&[0x02, 0x00]), 400, "not a prometheus.WriteRequest")]
#[case::a_wire_type_that_is_none(snappy(&[0x0f]), 400, "not a prometheus.WriteRequest")]
#[case::an_end_of_group_alone(snappy(&[0x0c]), 400, "not a prometheus.WriteRequest")]
#[case::deeply_nested_groups(snappy(&nested_groups(100_000)), 400, "not a prometheus.WriteRequest")]
#[case::a_timestamp_with_the_wrong_type(
    packed(&[series_of(&[label(b"__name__", b"up"), field(2, &field(2, b"x"))])]), 400, "not a prometheus.WriteRequest")]
#[case::more_series_than_allowed(packed(&vec![field(1, &[]); 2001]), 413, "2001 series")]
#[case::more_samples_than_allowed(packed(&[series_of(&vec![field(2, &[]); 20_001])]), 413, "20001 samples")]
#[case::a_body_over_the_limit(vec![0; (256 << 10) + 1], 413, "compressed body")]
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_request_is_refused_whole(#[case] body: Vec<u8>, #[case] status: u16, #[case] says: &str) {
    let running = start().await;
    let answer = post(&running, &body).await;
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(says), "{:?} does not say {says:?}", answer.body);
    assert!(answer.body.len() < 500 && !answer.headers.contains_key("retry-after"), "{answer:?}");
    assert!(running.log.all().is_empty());
    assert_eq!(running.budget.used_bytes(), 0);
    assert_eq!(post(&running, &packed(&[good("up")])).await.status, 204, "the next request is not affected");
}

fn many_labels(count: usize) -> Vec<u8> {
    let labels = (0..count).flat_map(|index| label(format!("l{index}").as_bytes(), b"v")).collect();
    series_of(&[label(b"__name__", b"up"), labels, sample(now_ms(), 1.0)])
}

fn at(timestamp_ms: i64) -> Vec<u8> {
    series(&[("__name__", "up")], &[(timestamp_ms, 1.0)])
}

fn with(name: &[u8], value: &[u8]) -> Vec<u8> {
    series_of(&[label(b"__name__", b"up"), label(name, value), sample(now_ms(), 1.0)])
}

#[rstest]
#[case::no_labels(series(&[], &[(now_ms(), 1.0)]), "missing_name")]
#[case::no_name(series(&[("job", "node")], &[(now_ms(), 1.0)]), "missing_name")]
#[case::an_empty_name(series(&[("__name__", "")], &[(now_ms(), 1.0)]), "missing_name")]
#[case::a_label_without_a_name(with(b"", b"x"), "empty_label_name")]
#[case::a_label_twice(series(&[("__name__", "up"), ("a", "1"), ("a", "2")], &[(now_ms(), 1.0)]), "duplicate_label")]
#[case::ten_thousand_labels(many_labels(10_000), "too_many_labels")]
#[case::ten_thousand_empty_labels(series_of(&[[0x0a, 0x00].repeat(10_000), sample(now_ms(), 1.0)]), "too_many_labels")]
#[case::a_value_of_half_a_mebibyte(with(b"a", &vec![b'x'; 1 << 19]), "label_value_too_long")]
#[case::a_name_of_half_a_mebibyte(with(&vec![b'x'; 1 << 19], b"a"), "label_name_too_long")]
#[case::not_utf8(with(b"a", b"\xff\xfe"), "invalid_utf8")]
#[case::an_overlong_form(with(b"a", b"\xc0\xaf"), "invalid_utf8")]
#[case::a_surrogate(with(b"a", b"\xed\xa0\x80"), "invalid_utf8")]
#[case::at_the_epoch(at(0), "too_old")]
#[case::before_the_epoch(at(-1), "too_old")]
#[case::at_the_start_of_time(at(i64::MIN), "too_old")]
#[case::at_the_end_of_time(at(i64::MAX), "too_far_in_future")]
#[case::next_week(at(now_ms() + 7 * 24 * 3_600_000), "too_far_in_future")]
#[case::a_native_histogram(series_of(&[label(b"__name__", b"up"), field(4, &[0x20, 0x01])]), "native_histogram")]
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_series_is_refused_by_itself_and_the_good_ones_are_kept(#[case] bad: Vec<u8>, #[case] reason: &str) {
    let running = start().await;
    let answer = post(&running, &packed(&[good("first"), bad, good("last")])).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let start = format!("2 samples were stored, 1 were refused: {reason}: 1 (such as ");
    assert!(answer.body.starts_with(&start), "{:?} does not start with {start:?}", answer.body);
    assert!(answer.body.len() < 1000 && !answer.body.trim_end().contains(char::is_control), "{:?}", answer.body);
    let stored = stored(&running.log);
    assert_eq!(stored.keys().collect::<Vec<_>>(), [&good_text("first"), &good_text("last")]);
    let counted = format!(r#"understudy_gateway_rejected_samples_total{{tenant="acme",reason="{reason}"}}"#);
    assert_eq!(metric(&running.metrics, &counted), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_good_samples_of_a_series_are_kept_beside_its_bad_ones() {
    let running = start().await;
    let now = now_ms();
    let samples = [(now, 1.0), (0, 2.0), (now + 1, 3.0), (i64::MAX, 4.0)];
    let answer = post(&running, &packed(&[series(&[("__name__", "up")], &samples)])).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("too_old: 1") && answer.body.contains("too_far_in_future: 1"), "{}", answer.body);
    assert_eq!(stored(&running.log)["up{}"].len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_echo_what_could_fool_a_terminal() {
    let running = start().await;
    let hostile = "\u{1b}[2J\u{202e}\r\nHTTP/1.1 204 No Content\r\n".to_owned() + &"x".repeat(100_000);
    let answer = post(&running, &packed(&[series(&[("job", &hostile)], &[(now_ms(), 1.0)])])).await;
    assert_eq!(answer.status, 400);
    let line = answer.body.trim_end_matches('\n');
    assert!(line.chars().all(|c| !c.is_control()) && answer.body.len() < 500, "{:?}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_unknown_fields_are_skipped() {
    let running = start().await;
    let body = packed(&[[0x78, 0x01].repeat(400_000), good("up"), [0x78, 0x01].repeat(100_000)]);
    assert_eq!(post(&running, &body).await.status, 204);
    assert!(stored(&running.log).contains_key(&good_text("up")));
}

#[rstest]
#[case::none(&[("authorization", None)])]
#[case::an_empty_one(&[("authorization", Some(""))])]
#[case::no_token(&[("authorization", Some("Bearer "))])]
#[case::a_wrong_secret(&[("authorization", Some("Bearer agent.wrong"))])]
#[case::an_unknown_id(&[("authorization", Some("Bearer other.secret"))])]
#[case::a_path_as_id(&[("authorization", Some("Bearer ../../etc/passwd.secret"))])]
#[case::another_scheme(&[("authorization", Some("Basic YWdlbnQuc2VjcmV0"))])]
#[case::bytes_that_are_no_text(&[("authorization", Some("Bearer \u{e9}"))])]
#[case::two_of_them(&[("+authorization", Some("Bearer agent.secret"))])]
#[case::two_that_differ(&[("+authorization", Some("Bearer other.secret"))])]
#[case::a_tenant_header_instead(&[("authorization", None), ("x-scope-orgid", Some("acme"))])]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_one_right_token_nothing_is_read(#[case] changed: &[(&str, Option<&str>)]) {
    let running = start().await;
    // The body is announced and not sent: the answer must not wait for it.
    let bytes = request(&[], &[changed, &[("content-length", Some("100000"))]].concat());
    let answer = exchange(running.address, &bytes).await;
    assert_eq!((answer.status, answer.headers["www-authenticate"].as_str()), (401, "Bearer"), "{answer:?}");
    assert!(running.log.all().is_empty());
}

#[rstest]
#[case::a_header("x-scope-orgid")]
#[case::another_header("thanos-tenant")]
#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_comes_from_the_token_and_from_nowhere_else(#[case] header: &str) {
    let running = start().await;
    let labels = [("__name__", "up"), ("__tenant_id__", "globex"), ("tenant", "globex")];
    let body = packed(&[series(&labels, &[(now_ms(), 1.0)])]);
    let answer = exchange(running.address, &request(&body, &[(header, Some("globex"))])).await;
    assert_eq!(answer.status, 204);
    // Holds every frame to tenant acme.
    assert_eq!(stored(&running.log).len(), 1);
}

#[rstest]
#[case::no_type(&[("content-type", None)], 415)]
#[case::json(&[("content-type", Some("application/json"))], 415)]
#[case::remote_write_2(&[("content-type", Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"))], 415)]
#[case::two_types(&[("+content-type", Some("application/json"))], 415)]
#[case::no_encoding(&[("content-encoding", None)], 415)]
#[case::gzip(&[("content-encoding", Some("gzip"))], 415)]
#[case::zstd(&[("content-encoding", Some("zstd"))], 415)]
#[case::br(&[("content-encoding", Some("br"))], 415)]
#[case::identity(&[("content-encoding", Some("identity"))], 415)]
#[case::snappy_twice(&[("content-encoding", Some("snappy, snappy"))], 415)]
#[case::two_encodings(&[("+content-encoding", Some("gzip"))], 415)]
#[case::named_in_full(&[("content-type", Some("application/x-protobuf; proto=prometheus.WriteRequest"))], 204)]
#[case::with_a_charset(&[("content-type", Some("application/x-protobuf; charset=utf-8"))], 204)]
#[case::in_capitals(&[("content-type", Some("Application/X-Protobuf")), ("content-encoding", Some("Snappy"))], 204)]
#[tokio::test(flavor = "multi_thread")]
async fn only_remote_write_1_in_snappy_is_taken(#[case] changed: &[(&str, Option<&str>)], #[case] status: u16) {
    let running = start().await;
    let answer = exchange(running.address, &request(&packed(&[good("up")]), changed)).await;
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(running.log.all().len(), usize::from(status == 204));
}

#[rstest]
#[case::another_method("GET /api/v1/write", 405)]
#[case::another_path("POST /api/v1/push", 404)]
#[case::a_path_that_climbs("POST /api/v1/../v1/write", 404)]
#[case::an_encoded_path("POST /api/v1/%77rite", 404)]
#[tokio::test(flavor = "multi_thread")]
async fn only_one_path_and_one_method_exist(#[case] line: &str, #[case] status: u16) {
    let running = start().await;
    let text = String::from_utf8_lossy(&request(&[], &[])).replace("POST /api/v1/write", line);
    assert_eq!(exchange(running.address, text.as_bytes()).await.status, status);
}

#[rstest]
#[case::a_length_that_is_no_number(&[("content-length", Some("abc"))])]
#[case::a_negative_length(&[("content-length", Some("-1"))])]
#[case::a_length_with_a_sign(&[("content-length", Some("+5"))])]
#[case::a_length_beyond_64_bits(&[("content-length", Some("99999999999999999999999"))])]
#[case::two_lengths_that_differ(&[("+content-length", Some("3"))])]
#[case::an_encoding_that_hides_chunked(&[("content-length", None), ("transfer-encoding", Some("xchunked"))])]
#[case::chunked_not_last(&[("content-length", None), ("transfer-encoding", Some("chunked, identity"))])]
#[case::a_header_name_with_a_space(&[("content-length ", Some("5"))])]
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_two_servers_could_read_differently_end_the_connection(#[case] changed: &[(&str, Option<&str>)]) {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&request(&packed(&[good("up")]), changed)).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 400);
    assert_eq!(read_answer(&mut stream).await, None);
    assert!(running.log.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_an_ambiguous_one_is_never_read() {
    let running = start().await;
    let smuggled = request(&packed(&[good("smuggled")]), &[]);
    let mut bytes = request(&[], &[("content-length", Some("5")), ("+transfer-encoding", Some("chunked"))]);
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes.extend_from_slice(&smuggled);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 400);
    assert_eq!(read_answer(&mut stream).await, None);
    assert!(running.log.all().is_empty());
}

#[rstest]
#[case::a_chunk_size_that_is_no_number(b"zz\r\nabc\r\n0\r\n\r\n".as_slice())]
#[case::a_chunk_size_beyond_64_bits(b"fffffffffffffffff\r\nabc\r\n".as_slice())]
#[case::a_chunk_without_its_end(b"3\r\nabcdef\r\n0\r\n\r\n".as_slice())]
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_lie_are_refused(#[case] chunks: &[u8]) {
    let running = start().await;
    let head = request(&[], &[("content-length", None), ("transfer-encoding", Some("chunked"))]);
    let answer = exchange(running.address, &[head, chunks.to_vec()].concat()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_beyond_the_limit_are_refused_as_they_come() {
    let running = start().await;
    let mut bytes = request(&[], &[("content-length", None), ("transfer-encoding", Some("chunked"))]);
    for _ in 0..5 {
        bytes.extend_from_slice(b"10000\r\n");
        bytes.extend_from_slice(&vec![0; 0x10000]);
        bytes.extend_from_slice(b"\r\n");
    }
    // No end is sent: the answer must not wait for one.
    assert_eq!(exchange(running.address, &bytes).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_over_the_limit_is_refused_before_the_body() {
    let running = start().await;
    let answer = exchange(running.address, &request(&[], &[("content-length", Some("10000000000"))])).await;
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_shorter_than_announced_is_not_taken() {
    let running = start().await;
    let body = packed(&[good("up")]);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let longer = (body.len() + 1).to_string();
    stream.write_all(&request(&body, &[("content-length", Some(&longer))])).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert!(running.log.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_within_its_headers_is_cut_off() {
    let running = start().await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"POST /api/v1/write HTTP/1.1\r\nhost: gate").await.unwrap();
    let answer = timeout(WAIT, read_answer(&mut stream)).await.unwrap();
    assert!(answer.is_none_or(|answer| answer.status == 408));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_within_its_body_is_told_to_send_it_again() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&request(b"abc", &[("content-length", Some("1000"))])).await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (503, "close"));
    assert_eq!(read_answer(&mut stream).await, None);
    assert_eq!(running.budget.used_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_byte_now_and_then_is_told_to_send_it_again_as_well() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(&request(b"", &[("content-length", Some("1000"))])).await.unwrap();
    let started = Instant::now();
    let mut drip = tokio::time::interval(Duration::from_millis(100));
    let answer = loop {
        tokio::select! {
            answer = read_answer(&mut stream) => break answer.unwrap(),
            _ = drip.tick() => {}
        }
        // Fails once the gateway has closed, and then the answer is there.
        stream.write_all(b"x").await.unwrap_or(());
    };
    assert_eq!(answer.status, 503);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused() {
    let running = start().await;
    let value = "x".repeat(100_000);
    let answer = exchange(running.address, &request(&[], &[("x-long", Some(&value))])).await;
    assert_eq!(answer.status, 431);
    let many: Vec<(String, Option<&str>)> = (0..200).map(|index| (format!("x-{index}"), Some("v"))).collect();
    let many: Vec<(&str, Option<&str>)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(exchange(running.address, &request(&[], &many)).await.status, 431);
}
