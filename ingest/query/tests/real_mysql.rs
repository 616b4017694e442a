//! The same service over a real server: what the store wrote is what remote read gives.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

#[path = "../../../operator/mysql/tests/mysqld/mod.rs"]
mod mysqld;
mod support;

use std::time::Duration;

use axum::http::StatusCode;
use mysql_async::Conn;
use mysqld::{Mysqld, passwords};
use support::{Bench, TOPIC, answer, labels, status, tenant};
use understudy_model::frame::Full;
use understudy_model::{Frame, FrameBuilder, Group, Labels, STALE_MARKER, Sample};
use understudy_mysql::instance::EpochRow;
use understudy_mysql::{Instance, schema as accounts};
use understudy_query::limits::Limits;
use understudy_query::server::MysqlServers;
use understudy_sql::{Db, Limits as SqlLimits, Login, Tls, Value};
use understudy_store::catalogue::{INSERT_LABEL, INSERT_SERIES};
use understudy_store::pack::{self, LandingInsert, LandingRow, Placed};
use understudy_store::{SeriesRow, schema};
use understudy_wire::evidence::Stage;
use understudy_wire::{Epoch, ReplicaName};

const SOON: Duration = Duration::from_secs(10);
const START: i64 = 1_763_899_200_000;

fn frame(owner: &str, labels: &Labels, samples: &[(i64, u64)]) -> Frame {
    let samples: Vec<Sample> = samples.iter().map(|&(t, bits)| Sample { timestamp_ms: START + t, bits }).collect();
    let mut builder = FrameBuilder::new(Group::of(&tenant(owner), labels));
    assert_eq!(builder.push(labels, &samples), Full::No);
    builder.finish(None).unwrap()
}

/// Stores frames at these offsets on, as the consumer does it.
async fn put(writer: &mut Conn, frames: &[Frame], first: i64) {
    let mut db = Db::new(writer, SOON, Stage::Commit, SqlLimits::default());
    for statement in schema::base() {
        db.text("tables", &statement).await.unwrap();
    }
    let placed = frames.iter().zip(first..).map(|(frame, offset)| Placed { partition: 0, offset, frame, window: None });
    let packed = pack::pack(placed);
    for range in packed.landing.keys() {
        db.text("landing table", &schema::landing(*range)).await.unwrap();
    }
    db.text("begin", "START TRANSACTION").await.unwrap();
    for frame in frames {
        for one in frame.series() {
            let (tenant, group) = (frame.tenant().clone(), frame.group().id());
            let row = SeriesRow { tenant, id: one.id, group, labels: one.labels.clone() };
            db.insert("series", &INSERT_SERIES, vec![row.values()]).await.unwrap();
            db.insert("labels", &INSERT_LABEL, row.label_values().collect()).await.unwrap();
        }
    }
    for (range, rows) in packed.landing {
        let rows: Vec<Vec<Value>> = rows.into_iter().map(LandingRow::values).collect();
        db.insert("rows", &LandingInsert::into_range(range).insert(), rows).await.unwrap();
    }
    let offset = "REPLACE INTO understudy.consumer_offset \
                  (consumer, topic, partition_id, next_offset, epoch, term, updated_ms) \
                  VALUES ('metrics-store', ?, 0, ?, 1, 1, ?)";
    db.exec("offset", offset, (TOPIC, first + frames.len() as i64, START)).await.unwrap();
    db.text("commit", "COMMIT").await.unwrap();
}

#[tokio::test]
async fn what_was_stored_is_read_back_bit_by_bit_by_whom_it_belongs_to() {
    let server = Mysqld::start(&[]).await;
    server.admin().take_writes(SOON).await.unwrap();
    let row = EpochRow { epoch: Epoch(1), primary: ReplicaName::new("metrics-0-a") };
    server.admin().write_epoch(&row, 0, SOON).await.unwrap();
    let address = ([127, 0, 0, 1], server.port).into();
    let login = Login {
        user: accounts::CONSUMER.to_owned(),
        password: passwords()[accounts::CONSUMER].clone(),
        tls: Some(Tls { ca: server.path("ca.crt").into(), name: "metrics-0.shard.understudy.internal".into() }),
    };
    let mut writer = understudy_sql::open(address, &login, "DO 0", SOON).await.unwrap();

    let secrets = tempfile::tempdir().unwrap();
    std::fs::create_dir(secrets.path().join("metrics-0")).unwrap();
    std::fs::write(secrets.path().join("metrics-0/understudy_reader"), &passwords()[accounts::READER]).unwrap();
    let limits = Limits { begin: SOON, samples: 6, ..Limits::default() };
    let servers = MysqlServers::new(
        secrets.path().to_owned(),
        Some(server.path("ca.crt").into()),
        "metrics-store".to_owned(),
        limits.clone(),
    );
    let bench = Bench::new(servers, limits);
    let route = format!("127.0.0.1:{}", server.port);
    bench.shard("metrics-0", &status(("metrics-0-a", &route), 1, &[]));

    let (code, _, body) = bench.read("", "up").await;
    assert_eq!((code, answer(&body)), (StatusCode::OK, vec![]), "before anything is stored, nothing is found");

    let (a, b) = (labels(&[("__name__", "up"), ("job", "a")]), labels(&[("__name__", "up"), ("job", "b")]));
    let odd = [(0, STALE_MARKER), (1, 1 << 63), (2, 0x7ff8_0000_0000_1234), (3, 0)];
    let frames = [frame("acme", &a, &odd), frame("acme", &b, &[(0, 5)]), frame("globex", &a, &[(0, 6)])];
    put(&mut writer, &frames, 0).await;
    let (code, headers, body) = bench.read("", "up").await;
    assert_eq!(code, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let expected_a: Vec<(i64, u64)> = odd.iter().map(|(t, bits)| (START + t, *bits)).collect();
    let expected = [("__name__=up,job=a".to_owned(), expected_a), ("__name__=up,job=b".to_owned(), vec![(START, 5)])];
    assert_eq!(answer(&body), expected);
    assert_eq!(headers["x-understudy-served-by"], "metrics-0=metrics-0-a@1;primary");
    assert_eq!(headers["x-understudy-fresh-until"], format!("metrics-0={START}").as_str());
    assert_eq!(headers["x-understudy-merged-samples"], "0");
    let (_, _, body) = bench.read_range("", "up", (START + 1, START + 2)).await;
    assert_eq!(answer(&body)[0].1.len(), 2, "both ends of the range are in it");

    put(&mut writer, &[frame("acme", &b, &[(0, 5)])], 3).await;
    let (_, headers, _) = bench.read("", "up").await;
    assert_eq!(headers["x-understudy-merged-samples"], "1", "stored twice, given once, and counted");

    for (path, expected) in [
        ("/api/v1/series?match[]=up", r#"[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]"#),
        ("/api/v1/labels", r#"["__name__","job"]"#),
        ("/api/v1/labels?match[]=down", "[]"),
        ("/api/v1/label/job/values", r#"["a","b"]"#),
        ("/api/v1/label/job/values?match[]=up%7Bjob!%3D%22a%22%7D", r#"["b"]"#),
        ("/api/v1/label/nothing/values", "[]"),
    ] {
        let (code, json) = bench.get(path).await;
        assert_eq!((code, json["data"].to_string()), (StatusCode::OK, expected.to_owned()), "{path}");
    }

    put(&mut writer, &[frame("acme", &b, &[(10, 1), (11, 1), (12, 1)])], 4).await;
    assert_eq!(bench.read("", "up").await.0, StatusCode::UNPROCESSABLE_ENTITY, "more samples than allowed");

    server.admin().write_epoch(&EpochRow { epoch: Epoch(3), ..row }, 0, SOON).await.unwrap();
    bench.shard("metrics-0", &status(("metrics-0-a", &route), 3, &[]));
    let (code, headers, _) = bench.read_range("", "up", (START, START)).await;
    assert_eq!(
        (code, &headers["x-understudy-served-by"]),
        (StatusCode::OK, &"metrics-0=metrics-0-a@3;primary".parse().unwrap())
    );
    bench.shard("metrics-0", &status(("metrics-0-a", &route), 4, &[]));
    let (code, _, body) = bench.read_range("", "up", (START, START)).await;
    let text = String::from_utf8(body).unwrap();
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("it is at epoch 3, the shard is at 4"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_gone_or_stopped_is_told_within_the_deadline() {
    let server = Mysqld::start(&[]).await;
    let secrets = tempfile::tempdir().unwrap();
    std::fs::create_dir(secrets.path().join("metrics-0")).unwrap();
    std::fs::write(secrets.path().join("metrics-0/understudy_reader"), &passwords()[accounts::READER]).unwrap();
    let limits = Limits { begin: Duration::from_secs(1), shun: Duration::ZERO, ..Limits::default() };
    let ca = Some(server.path("ca.crt").into());
    let servers = MysqlServers::new(secrets.path().to_owned(), ca, "metrics-store".to_owned(), limits.clone());
    let bench = Bench::new(servers, limits);
    bench.shard("metrics-0", &status(("metrics-0-a", &format!("127.0.0.1:{}", server.port)), 1, &[]));
    for (signal, reason) in [("STOP", "no answer within"), ("KILL", "not reachable")] {
        server.signal(signal);
        let began = std::time::Instant::now();
        let (code, _, body) = bench.read("", "up").await;
        let text = String::from_utf8(body).unwrap();
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        assert!(text.contains(reason) && began.elapsed() < Duration::from_secs(5), "{:?} {text}", began.elapsed());
    }
}
