//! Who is asked, who may answer, and what an answer says about itself, over servers in memory.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use rstest::rstest;
use support::{Bench, Fakes, TOPIC, answer, get_request, labels, post_read, status, tenant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_api::v1alpha1::{DatastoreStatus, Placement};
use understudy_model::{Labels, Sample};
use understudy_query::ask::Asker;
use understudy_query::budget::Load;
use understudy_query::limits::Limits;
use understudy_query::metrics::Metrics;
use understudy_query::server::ServerError;
use understudy_query::topology::Topology;
use understudy_store::matcher::COMPILED_BYTES;
use understudy_wire::ShardName;

const A: &str = "10.0.0.1:3306";
const B: &str = "10.0.0.2:3306";
const C: &str = "10.0.0.3:3306";

fn up(job: &str) -> Labels {
    labels(&[("__name__", "up"), ("job", job)])
}

fn samples(list: &[(i64, u64)]) -> Vec<Sample> {
    list.iter().map(|&(timestamp_ms, bits)| Sample { timestamp_ms, bits }).collect()
}

/// One shard: primary a, standbys b and c, all with the same sample of `up`, but for the job that tells them apart.
fn one_shard() -> (Bench, Fakes) {
    let fakes = Fakes::default();
    for (address, job, applied) in [(A, "a", 30), (B, "b", 20), (C, "c", 25)] {
        fakes.change(address, |server| {
            server.epoch = 4;
            server.applied = applied;
            server.data = vec![(tenant("acme"), up(job), samples(&[(1000, 7)]))];
        });
    }
    let bench = Bench::new(fakes.clone(), Limits::default());
    bench.shard("s-0", &status(("s-0-a", A), 4, &[("s-0-b", B), ("s-0-c", C)]));
    (bench, fakes)
}

async fn served_by(bench: &Bench) -> (StatusCode, String) {
    let (status, headers, body) = bench.read("", "up").await;
    let text = match headers.get("x-understudy-served-by") {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => String::from_utf8(body).unwrap(),
    };
    (status, text)
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_only_slow_answers_when_no_standby_can() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.takes = Duration::from_secs(3));
    assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-c@4;standby".into()), "a standby is quicker");
    for standby in [B, C] {
        fakes.change(standby, |server| server.is_down = true);
    }
    assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-a@4;primary".into()));
}

#[tokio::test(start_paused = true)]
async fn the_primary_answers_while_it_can() {
    let (bench, fakes) = one_shard();
    let (status, headers, body) = bench.read("", "up").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer(&body), [("__name__=up,job=a".to_owned(), vec![(1000, 7)])]);
    assert_eq!(headers["x-understudy-served-by"], "s-0=s-0-a@4;primary");
    assert_eq!(headers["x-understudy-merged-samples"], "0");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["content-encoding"], "snappy");
    assert!(headers["x-understudy-fresh-until"].to_str().unwrap().starts_with("s-0=1"));
    assert_eq!((fakes.begun(B), fakes.begun(C)), (0, 0));
}

#[rstest]
#[case::down(|server: &mut support::FakeServer| server.is_down = true)]
#[case::silent(|server: &mut support::FakeServer| server.is_silent = true)]
#[case::failing(|server: &mut support::FakeServer| server.refuses_work = Some(ServerError::Failed("broken".into())))]
#[case::lost(|server: &mut support::FakeServer| server.refuses_work = Some(ServerError::Unreachable("lost".into())))]
#[tokio::test(start_paused = true)]
async fn the_freshest_standby_answers_in_place_of_a_primary_that_does_not(#[case] fault: fn(&mut support::FakeServer)) {
    let (bench, fakes) = one_shard();
    fakes.change(A, fault);
    assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-c@4;standby".into()));
    fakes.change(C, |server| server.refuses_work = Some(ServerError::Unreachable("lost".into())));
    assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-b@4;standby".into()), "and the next, if that fails");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_did_not_answer_is_not_asked_first_for_a_while() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.is_silent = true);
    served_by(&bench).await;
    fakes.change(A, |server| server.is_silent = false);
    let began = tokio::time::Instant::now();
    assert_eq!(served_by(&bench).await.1, "s-0=s-0-c@4;standby");
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for it");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(served_by(&bench).await.1, "s-0=s-0-a@4;primary");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_ended_its_idle_connections_is_asked_on_a_fresh_one() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.ended = 8);
    for _ in 0..2 {
        assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-a@4;primary".into()), "and not shunned for it");
    }
    assert_eq!((fakes.begun(B), fakes.begun(C)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_to_servers_that_were_replaced_are_closed_before_they_are_a_minute_old() {
    let (topology, known) = watch::channel(Topology::default());
    let fakes = Fakes::default();
    let asker = Asker::new(fakes.clone(), known, Limits::default(), TOPIC.to_owned(), Metrics::default());
    let stop = CancellationToken::new();
    let replace = async {
        for standby in [("s-0-b", B), ("s-0-c", C)] {
            topology
                .send_modify(|known| known.apply_shard(ShardName::new("s-0"), &status(("s-0-a", A), 4, &[standby])));
            tokio::time::sleep(Duration::from_secs(59)).await;
        }
        stop.cancel();
    };
    tokio::join!(replace, asker.tidy(stop.clone()));
    let tidied = fakes.tidied.lock().unwrap();
    let servers = |standby: &str| -> BTreeSet<SocketAddr> {
        [A, standby].into_iter().map(|address| address.parse().unwrap()).collect()
    };
    assert_eq!(tidied.iter().filter(|told| **told == servers(B)).count(), 4);
    assert_eq!(tidied.last(), Some(&servers(C)));
}

#[tokio::test(start_paused = true)]
async fn a_shunned_primary_is_asked_all_the_same_when_no_standby_answers() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.is_silent = true);
    served_by(&bench).await;
    fakes.change(A, |server| server.is_silent = false);
    fakes.change(B, |server| server.is_down = true);
    fakes.change(C, |server| server.is_down = true);
    assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-a@4;primary".into()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_an_old_epoch_is_refused_from_whomever_it_is() {
    let (bench, fakes) = one_shard();
    bench.shard("s-0", &status(("s-0-a", A), 5, &[("s-0-b", B), ("s-0-c", C)]));
    let (refused, text) = served_by(&bench).await;
    assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("s-0-a: it is at epoch 4, the shard is at 5"), "{text}");
    fakes.change(B, |server| server.epoch = 5);
    assert_eq!(served_by(&bench).await, (StatusCode::OK, "s-0=s-0-b@5;standby".into()));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_ends_the_wait_for_the_old_primary() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.hangs_on_work = true);
    fakes.change(B, |server| server.epoch = 5);
    let began = tokio::time::Instant::now();
    let promote = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.shard("s-0", &status(("s-0-b", B), 5, &[("s-0-c", C)]));
    };
    let ((status, text), ()) = tokio::join!(served_by(&bench), promote);
    assert_eq!((status, text.as_str()), (StatusCode::OK, "s-0=s-0-b@5;primary"));
    assert_eq!(began.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_too_far_behind_does_not_answer() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.is_down = true);
    fakes.change(C, |server| server.behind = Duration::from_secs(3600));
    assert_eq!(served_by(&bench).await.1, "s-0=s-0-b@4;standby");
    fakes.change(B, |server| server.behind = Duration::from_secs(3600));
    let (refused, text) = served_by(&bench).await;
    assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("shard s-0 cannot answer") && text.contains("behind"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_cannot_say_how_far_behind_it_is_answers_only_when_no_other_server_can() {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.is_down = true);
    fakes.change(C, |server| server.is_unread = true);
    assert_eq!(served_by(&bench).await.1, "s-0=s-0-b@4;standby");
    fakes.change(B, |server| server.behind = Duration::from_secs(3600));
    fakes.change(A, |server| (server.is_down, server.takes) = (false, Duration::from_secs(3)));
    assert_eq!(served_by(&bench).await.1, "s-0=s-0-a@4;primary", "a slow primary is sure of what it has");
    fakes.change(A, |server| server.is_down = true);
    let (status, headers, _) = bench.read("", "up").await;
    assert_eq!((status, &headers["x-understudy-served-by"]), (StatusCode::OK, &"s-0=s-0-c@4;standby".parse().unwrap()));
    assert_eq!(headers["x-understudy-fresh-until"], "s-0=unknown");
}

#[rstest]
#[case::too_many(ServerError::TooMany { what: "samples", most: 5 }, StatusCode::UNPROCESSABLE_ENTITY)]
#[case::too_slow(ServerError::TooSlow, StatusCode::UNPROCESSABLE_ENTITY)]
#[case::no_memory(ServerError::Memory, StatusCode::SERVICE_UNAVAILABLE)]
#[tokio::test(start_paused = true)]
async fn a_query_that_is_too_much_is_not_put_to_the_next_server(
    #[case] refusal: ServerError,
    #[case] code: StatusCode,
) {
    let (bench, fakes) = one_shard();
    fakes.change(A, |server| server.refuses_work = Some(refusal));
    assert_eq!(served_by(&bench).await.0, code);
    assert_eq!((fakes.begun(B), fakes.begun(C)), (0, 0));
    fakes.change(A, |server| server.refuses_work = None);
    assert_eq!(served_by(&bench).await.1, "s-0=s-0-a@4;primary", "and nobody is shunned for it");
}

/// Two shards with a primary each.
fn two_shards() -> (Bench, Fakes) {
    let fakes = Fakes::default();
    fakes.change(A, |server| {
        server.epoch = 1;
        server.data = vec![
            (tenant("acme"), up("a"), samples(&[(1, 1), (2, 2)])),
            (tenant("globex"), up("theirs"), samples(&[(1, 9)])),
        ];
    });
    fakes.change(B, |server| {
        server.epoch = 2;
        server.data = vec![(tenant("acme"), up("a"), samples(&[(2, 2), (3, 3)])), (tenant("acme"), up("b"), vec![])];
    });
    let bench = Bench::new(fakes.clone(), Limits::default());
    bench.shard("s-0", &status(("s-0-a", A), 1, &[]));
    bench.shard("s-1", &status(("s-1-b", B), 2, &[]));
    (bench, fakes)
}

#[tokio::test(start_paused = true)]
async fn shards_are_merged_and_what_both_have_is_given_once_and_counted() {
    let (bench, _) = two_shards();
    let (status, headers, body) = bench.read("", "up").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer(&body)[0], ("__name__=up,job=a".to_owned(), vec![(1, 1), (2, 2), (3, 3)]));
    assert_eq!(answer(&body).len(), 2, "nothing of another tenant");
    assert_eq!(headers["x-understudy-merged-samples"], "1");
    assert_eq!(headers["x-understudy-served-by"], "s-0=s-0-a@1;primary, s-1=s-1-b@2;primary");
}

#[tokio::test(start_paused = true)]
async fn of_two_values_of_one_time_that_of_the_shard_the_partition_moved_to_is_given() {
    let fakes = Fakes::default();
    for (address, bits) in [(A, 2), (B, 10)] {
        fakes.change(address, |server| {
            server.epoch = 1;
            server.data = vec![(tenant("acme"), up("a"), samples(&[(1, bits)]))];
        });
    }
    let bench = Bench::new(fakes, Limits::default());
    bench.shard("m-2", &status(("m-2-a", A), 1, &[]));
    bench.shard("m-10", &status(("m-10-b", B), 1, &[]));
    // Of every partition of the topic, so of that of the series too.
    for (moves, bits) in [([("m-2", 0), ("m-10", 100)], 10), ([("m-10", 0), ("m-2", 100)], 2)] {
        let entry = |partition, (shard, from_offset): (&str, i64)| Placement {
            partition,
            from_offset,
            shard: shard.to_owned(),
            pending: false,
        };
        let placements = (0..4).flat_map(|partition| moves.map(|to| entry(partition, to))).collect();
        let placed = DatastoreStatus { placements, ..DatastoreStatus::default() };
        bench.topology.send_modify(|topology| topology.apply_datastore(&placed));
        let (_, headers, body) = bench.read("", "up").await;
        assert_eq!(answer(&body), [("__name__=up,job=a".to_owned(), vec![(1, bits)])], "{moves:?}");
        assert_eq!(headers["x-understudy-merged-samples"], "1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_answer_fails_the_request_unless_partial_is_allowed() {
    let (bench, fakes) = two_shards();
    fakes.change(B, |server| server.is_down = true);
    let (status, headers, body) = bench.read("", "up").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "1");
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("shard s-1 cannot answer") && text.contains("partial=allow"), "{text}");

    let (status, headers, body) = bench.read("?partial=allow", "up").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["x-understudy-missing-shards"], "s-1");
    assert_eq!(answer(&body), [("__name__=up,job=a".to_owned(), vec![(1, 1), (2, 2)])]);

    let (status, json) = bench.get("/api/v1/series?match[]=up&partial=allow").await;
    assert_eq!(status, StatusCode::OK);
    assert!(json["warnings"][0].as_str().unwrap().contains("s-1 is missing"));
}

#[tokio::test(start_paused = true)]
async fn one_shard_can_be_asked_alone() {
    let (bench, fakes) = two_shards();
    fakes.change(B, |server| server.is_down = true);
    let (status, headers, _) = bench.read("?shard=s-0", "up").await;
    assert_eq!((status, &headers["x-understudy-served-by"]), (StatusCode::OK, &"s-0=s-0-a@1;primary".parse().unwrap()));
    assert_eq!(bench.read("?shard=s-9", "up").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn series_and_labels_are_answered_as_prometheus_does() {
    let (bench, _) = two_shards();
    let data = async |path: &str| {
        let (status, json) = bench.get(path).await;
        assert_eq!((status, json["status"].as_str()), (StatusCode::OK, Some("success")), "{path}: {json}");
        json["data"].to_string()
    };
    let series = r#"[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]"#;
    assert_eq!(data("/api/v1/series?match[]=up").await, series);
    assert_eq!(data("/api/v1/labels").await, r#"["__name__","job"]"#);
    assert_eq!(data("/api/v1/label/job/values").await, r#"["a","b"]"#);
    assert_eq!(data("/api/v1/label/job/values?limit=1").await, r#"["a"]"#);
    let (status, json) = bench.get("/api/v1/status/buildinfo").await;
    assert_eq!((status, json["data"]["application"].as_str()), (StatusCode::OK, Some("Understudy")));
}

#[rstest]
#[case::no_selector("/api/v1/series", StatusCode::BAD_REQUEST, "bad_data")]
#[case::a_bad_selector("/api/v1/series?match[]=up{", StatusCode::BAD_REQUEST, "bad_data")]
#[case::everything("/api/v1/series?match[]={a=~\".*\"}", StatusCode::BAD_REQUEST, "bad_data")]
#[case::not_served("/api/v1/query?query=up", StatusCode::NOT_FOUND, "not_found")]
#[tokio::test(start_paused = true)]
async fn a_bad_request_is_told_so_in_json(#[case] path: &str, #[case] code: StatusCode, #[case] kind: &str) {
    let (bench, _) = two_shards();
    let path = path.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    let (status, json) = bench.get(&path).await;
    assert_eq!((status, json["errorType"].as_str()), (code, Some(kind)), "{json}");
}

#[rstest]
#[case::no_token(None)]
#[case::another_secret(Some("Bearer acme.other"))]
#[case::basic(Some("Basic YWNtZQ=="))]
#[tokio::test(start_paused = true)]
async fn nobody_without_a_valid_token_is_answered(#[case] token: Option<&str>) {
    let (bench, fakes) = two_shards();
    for path in ["/api/v1/read", "/api/v1/series", "/api/v1/labels"] {
        let request = Request::post(path);
        let request = token.into_iter().fold(request, |request, token| request.header("authorization", token));
        let (status, headers, _) = bench.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, headers["www-authenticate"].to_str().unwrap()), (StatusCode::UNAUTHORIZED, "Bearer"));
    }
    assert_eq!(fakes.begun(A), 0);
}

#[rstest]
#[case::not_packed("gzip", vec![1, 2, 3], StatusCode::UNSUPPORTED_MEDIA_TYPE)]
#[case::empty("snappy", vec![], StatusCode::BAD_REQUEST)]
#[case::declares_too_much("snappy", vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0], StatusCode::PAYLOAD_TOO_LARGE)]
#[case::too_large("snappy", vec![0; 1 << 20], StatusCode::PAYLOAD_TOO_LARGE)]
#[tokio::test(start_paused = true)]
async fn a_hostile_body_is_refused(#[case] encoding: &str, #[case] body: Vec<u8>, #[case] code: StatusCode) {
    let (bench, _) = two_shards();
    let request = Request::post("/api/v1/read").header("authorization", "Bearer acme.secret");
    let request = request.header("content-encoding", encoding).body(Body::from(body)).unwrap();
    assert_eq!(bench.send(request).await.0, code);
}

#[tokio::test(start_paused = true)]
async fn a_request_with_too_many_patterns_is_refused_and_one_without_memory_for_them_is_told_to_come_again() {
    let (bench, fakes) = two_shards();
    let path = |patterns: usize| format!("/api/v1/series?{}", vec!["match[]=%7Ba%3D~%22b.%22%7D"; patterns].join("&"));
    assert_eq!(bench.get(&path(16)).await.0, StatusCode::OK);
    let (code, json) = bench.get(&path(17)).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(json["error"].as_str().unwrap().contains("more than 16 patterns"), "{json}");

    // Memory for three patterns, two of which a request holds that hangs.
    fakes.change(A, |server| server.hangs_on_work = true);
    let bench = Bench::new(fakes, Limits { memory_bytes: 3 * COMPILED_BYTES, ..Limits::default() });
    bench.shard("s-0", &status(("s-0-a", A), 1, &[]));
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.get(&path(2)).await
    };
    let two = path(2);
    let (_, (code, json)) = tokio::join!(bench.get(&two), later);
    assert_eq!((code, json["errorType"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("unavailable")), "{json}");
}

#[test]
fn what_a_request_says_is_worked_on_where_no_other_request_waits() {
    let one_worker =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    one_worker.block_on(async {
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let (bench, _) = two_shards();
        let read = Request::post("/api/v1/read").header("authorization", "Bearer acme.secret");
        let mut read = Box::pin(bench.send(read.body(Body::from("not snappy")).unwrap()));
        let mut series = Box::pin(bench.get("/api/v1/series?match[]=%7Ba%3D~%22(%22%7D"));
        assert!(futures::poll!(&mut read).is_pending() && futures::poll!(&mut series).is_pending());
        release.send(()).unwrap();
        assert_eq!((read.await.0, series.await.0), (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST));
        busy.await.unwrap().unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_tenant_has_a_number_of_places_and_another_tenant_its_own() {
    let (_, fakes) = two_shards();
    fakes.change(A, |server| server.hangs_on_work = true);
    let limits = Limits { tenant_requests: 1, ..Limits::default() };
    let bench = Bench::new(fakes, limits);
    bench.shard("s-0", &status(("s-0-a", A), 1, &[]));
    let (hanging, refused) = tokio::join!(bench.read("", "up"), bench.read("", "up"));
    assert_eq!(hanging.0, StatusCode::UNPROCESSABLE_ENTITY, "it took too long");
    assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8(refused.2).unwrap().contains("too many queries"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_keeps_its_place_until_it_is_read_or_its_client_is_gone() {
    let (_, fakes) = two_shards();
    let bench = Bench::new(fakes, Limits { tenant_requests: 1, ..Limits::default() });
    bench.shard("s-0", &status(("s-0-a", A), 1, &[]));
    type Ask = fn() -> Request<Body>;
    let questions: [(&str, Ask); 2] =
        [("series", || get_request("/api/v1/series?match[]=up")), ("a remote read", || post_read("", "up", (0, 10)))];
    for (case, question) in questions {
        let unread = bench.unread(question()).await;
        assert_eq!(unread.status(), StatusCode::OK, "{case}");
        assert_eq!(bench.read("", "up").await.0, StatusCode::SERVICE_UNAVAILABLE, "{case}");
        drop(unread);
        for _ in 0..2 {
            assert_eq!(bench.send(question()).await.0, StatusCode::OK, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_keeps_the_memory_of_its_body_until_it_is_read_or_its_client_is_gone() {
    const SAMPLES: i64 = 10_000;
    let noise = |n: i64| Sample { timestamp_ms: n, bits: n.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    let fakes = Fakes::default();
    fakes.change(A, |server| {
        server.epoch = 1;
        server.data = vec![(tenant("acme"), up("a"), (0..SAMPLES).map(noise).collect())];
    });
    // A body has the eight bytes of each value, which cannot be packed, and less than that beside them.
    let (found, values) = (Load { samples: 10_000, ..Load::default() }.bytes(), 80_000);
    for (case, memory_bytes, beside_it) in [
        ("less than the body is left", found + values / 2, StatusCode::SERVICE_UNAVAILABLE),
        ("the body fits too", found + 3 * values, StatusCode::OK),
    ] {
        let bench = Bench::new(fakes.clone(), Limits { memory_bytes, ..Limits::default() });
        bench.shard("s-0", &status(("s-0-a", A), 1, &[]));
        let unread = bench.unread(post_read("", "up", (0, SAMPLES))).await;
        assert_eq!(unread.status(), StatusCode::OK, "{case}");
        assert_eq!(bench.read("", "up").await.0, beside_it, "{case}");
        drop(unread);
        for _ in 0..2 {
            assert_eq!(bench.read("", "up").await.0, StatusCode::OK, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_shards_are_known_nothing_is_answered() {
    let (bench, _) = two_shards();
    bench.topology.send_modify(|topology| topology.is_complete = false);
    assert_eq!(bench.read("", "up").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn more_samples_than_allowed_in_all_are_refused() {
    let (_, fakes) = two_shards();
    let bench = Bench::new(fakes, Limits { samples: 2, ..Limits::default() });
    bench.shard("s-0", &status(("s-0-a", A), 1, &[]));
    assert_eq!(bench.read("", "up").await.0, StatusCode::OK);
    bench.shard("s-1", &status(("s-1-b", B), 2, &[]));
    assert_eq!(bench.read("", "up").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}
