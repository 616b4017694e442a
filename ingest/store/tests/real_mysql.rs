//! The store in a real server: what is written comes back, bit by bit, to whom it belongs.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

#[path = "../../../operator/mysql/tests/mysqld/mod.rs"]
mod mysqld;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use mysqld::{Mysqld, passwords};
use understudy_model::frame::Full;
use understudy_model::{Frame, FrameBuilder, Group, Labels, STALE_MARKER, Sample, SeriesId, Tenant};
use understudy_mysql::{Instance, schema as accounts};
use understudy_sql::{Db, Limits, Login, Tls, Value};
use understudy_store::catalogue::{INSERT_LABEL, INSERT_SERIES};
use understudy_store::pack::{self, LandingInsert, LandingRow, Placed};
use understudy_store::range::{RANGE_MS, ROW_SPAN_MS};
use understudy_store::read::{freshness, newest_sample_ms, ranges};
use understudy_store::retention::{drop_table, expired};
use understudy_store::{
    Kept, Matcher, ReadError, SeriesRow, label_names, label_values, matching_series, read_samples, schema,
};
use understudy_wire::evidence::Stage;

const SOON: Duration = Duration::from_secs(10);
const START: i64 = 1_763_899_200_000;
const MOST: usize = 10_000;

struct Store {
    _server: Mysqld,
    writer: Conn,
    reader: Conn,
    offset: i64,
}

impl Store {
    async fn start() -> Self {
        let server = Mysqld::start(&[]).await;
        server.admin().take_writes(SOON).await.unwrap();
        let address = ([127, 0, 0, 1], server.port).into();
        let login = |user: &str| Login {
            user: user.to_owned(),
            password: passwords()[user].clone(),
            tls: Some(Tls { ca: server.path("ca.crt").into(), name: "metrics-0.shard.understudy.internal".into() }),
        };
        let writer = understudy_sql::open(address, &login(accounts::CONSUMER), "DO 0", SOON).await.unwrap();
        let reader = understudy_sql::open(address, &login(accounts::READER), "DO 0", SOON).await.unwrap();
        Self { _server: server, writer, reader, offset: 0 }
    }

    /// Stores frames as one flush, as the consumer does it.
    async fn put(&mut self, frames: &[Frame]) {
        let mut db = Db::new(&mut self.writer, SOON, Stage::Commit, Limits::default());
        for statement in schema::base() {
            db.text("tables", &statement).await.unwrap();
        }
        let first = self.offset;
        let placed = frames.iter().enumerate().map(|(i, frame)| Placed {
            partition: 0,
            offset: first + i as i64,
            frame,
            window: None,
        });
        let packed = pack::pack(placed);
        self.offset += frames.len() as i64;
        for range in packed.landing.keys() {
            db.text("landing table", &schema::landing(*range)).await.unwrap();
        }
        db.text("begin", "START TRANSACTION").await.unwrap();
        let mut series: BTreeMap<(Tenant, SeriesId), SeriesRow> = BTreeMap::new();
        for frame in frames {
            for one in frame.series() {
                let row = SeriesRow {
                    tenant: frame.tenant().clone(),
                    id: one.id,
                    group: frame.group().id(),
                    labels: one.labels.clone(),
                };
                series.insert((row.tenant.clone(), row.id), row);
            }
        }
        let rows = series.values().map(SeriesRow::values).collect();
        db.insert("series", &INSERT_SERIES, rows).await.unwrap();
        let rows = series.values().flat_map(SeriesRow::label_values).collect();
        db.insert("labels", &INSERT_LABEL, rows).await.unwrap();
        for (range, rows) in packed.landing {
            let rows: Vec<Vec<Value>> = rows.into_iter().map(LandingRow::values).collect();
            db.insert("rows", &LandingInsert::into_range(range).insert(), rows).await.unwrap();
        }
        db.text("commit", "COMMIT").await.unwrap();
    }

    async fn select(&mut self, tenant: &Tenant, matchers: &[Matcher]) -> Vec<String> {
        let found = matching_series(&mut self.reader, tenant, matchers, MOST, &mut |_| Ok(())).await.unwrap();
        let mut names: Vec<String> = found.iter().map(|s| s.labels.get("id").unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    }
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn frame(tenant_name: &str, series: &[(Labels, Vec<Sample>)]) -> Frame {
    let mut builder = FrameBuilder::new(Group::of(&tenant(tenant_name), &series[0].0));
    for (labels, samples) in series {
        assert_eq!(builder.push(labels, samples), Full::No);
    }
    builder.finish(None).unwrap()
}

fn bits(samples: &[(i64, u64)]) -> Vec<Sample> {
    samples.iter().map(|&(timestamp_ms, bits)| Sample { timestamp_ms, bits }).collect()
}

#[tokio::test]
async fn samples_come_back_bit_by_bit_from_every_table_they_lie_in() {
    let mut store = Store::start().await;
    let up = labels(&[("__name__", "up"), ("job", "node"), ("instance", "a")]);
    let nan = f64::NAN.to_bits() | 0xbeef;
    let sent = bits(&[
        (START - 1, 1),
        (START, STALE_MARKER),
        (START + 1, nan),
        (START + ROW_SPAN_MS, u64::MAX),
        (START + RANGE_MS, 1 << 63),
    ]);
    let late = bits(&[(START + 1, 7)]);
    store.put(&[frame("acme", &[(up.clone(), sent.clone())])]).await;
    store.put(&[frame("acme", &[(up.clone(), late)])]).await;
    store.put(&[frame("zenith", &[(up.clone(), bits(&[(START + 2, 9)]))])]).await;

    let up_alone = [Matcher::equal("__name__", "up")];
    let series = matching_series(&mut store.reader, &tenant("acme"), &up_alone, 10, &mut |_| Ok(())).await.unwrap();
    assert_eq!(series.len(), 1);
    let reader = &mut store.reader;
    let all = read_samples(reader, &tenant("acme"), &series, (i64::MIN, i64::MAX), MOST).await.unwrap();
    let mut expected = sent.clone();
    expected[2].bits = 7;
    assert_eq!(all.series[&series[0].id], expected);
    assert_eq!(all.duplicates, 1, "the sample sent again is told");

    let times = (START + 1, START + ROW_SPAN_MS);
    let part = read_samples(reader, &tenant("acme"), &series, times, MOST).await.unwrap();
    assert_eq!(part.series[&series[0].id], expected[2..4]);
    let refused = read_samples(reader, &tenant("acme"), &series, (i64::MIN, i64::MAX), 3).await;
    assert!(matches!(refused, Err(ReadError::TooMany { what: "samples", most: 3 })), "{refused:?}");
    assert_eq!(newest_sample_ms(reader).await.unwrap(), Some(START + RANGE_MS));
}

#[tokio::test]
async fn series_are_found_by_every_kind_of_matcher() {
    let mut store = Store::start().await;
    let (long_name, long_value) = ("n".repeat(400), "v".repeat(2000));
    type Labels<'a> = Vec<(&'a str, &'a str)>;
    let all: [(&str, &str, Labels<'_>); 5] = [
        ("acme", "1", vec![("job", "node"), ("zone", "a")]),
        ("acme", "2", vec![("job", "node"), ("zone", "b")]),
        ("acme", "3", vec![("job", "mysql")]),
        ("acme", "4", vec![("job", "node"), (&long_name, &long_value), ("pad", "x "), ("Pad", "X")]),
        ("zenith", "5", vec![("job", "node"), ("zone", "a")]),
    ];
    for (tenant, id, more) in &all {
        let mut pairs = vec![("__name__", "up"), ("id", *id)];
        pairs.extend(more.iter().copied());
        store.put(&[frame(tenant, &[(labels(&pairs), vec![Sample::new(START, 1.0)])])]).await;
    }
    let regex = |name: &str, pattern: &str| Matcher::matches(name, pattern).unwrap();
    let other_value = format!("{}w", "v".repeat(1999));
    let cases: Vec<(&str, Vec<Matcher>, Vec<&str>)> = vec![
        ("everything", vec![], vec!["1", "2", "3", "4"]),
        ("equal", vec![Matcher::equal("job", "node")], vec!["1", "2", "4"]),
        ("two equal", vec![Matcher::equal("job", "node"), Matcher::equal("zone", "b")], vec!["2"]),
        ("equal and not equal", vec![Matcher::equal("job", "node"), Matcher::not_equal("zone", "b")], vec!["1", "4"]),
        ("has no such label", vec![Matcher::equal("zone", "")], vec!["3", "4"]),
        ("has such a label", vec![Matcher::not_equal("zone", "")], vec!["1", "2"]),
        ("matches", vec![regex("zone", "a|c")], vec!["1"]),
        ("matches a part only", vec![regex("job", "nod")], vec![]),
        ("matches anything", vec![regex("zone", ".*")], vec!["1", "2", "3", "4"]),
        ("does not match", vec![Matcher::not_matches("job", "no.e").unwrap()], vec!["3"]),
        ("not there", vec![Matcher::equal("job", "nobody")], vec![]),
        ("a value longer than its column", vec![Matcher::equal(&long_name, &long_value)], vec!["4"]),
        ("another value that is equal where it is cut", vec![Matcher::equal(&long_name, &other_value)], vec![]),
        ("matches a value longer than its column", vec![regex(&long_name, "v{2000}")], vec!["4"]),
        ("blanks count", vec![Matcher::equal("pad", "x")], vec![]),
        ("case counts", vec![Matcher::equal("Pad", "x ")], vec![]),
    ];
    for (case, matchers, expected) in cases {
        assert_eq!(store.select(&tenant("acme"), &matchers).await, expected, "{case}");
    }
    assert_eq!(store.select(&tenant("zenith"), &[Matcher::equal("job", "node")]).await, ["5"]);

    let reader = &mut store.reader;
    let refused = matching_series(reader, &tenant("acme"), &[], 3, &mut |_| Ok(())).await;
    assert!(matches!(refused, Err(ReadError::TooMany { what: "series", most: 3 })), "{refused:?}");
    let names = label_names(reader, &tenant("acme"), &[], MOST, &mut |_| Ok(())).await.unwrap();
    assert!(names.contains(&long_name) && names.contains("Pad") && names.contains("pad"), "{names:?}");
    let names = label_names(reader, &tenant("zenith"), &[], MOST, &mut |_| Ok(())).await.unwrap();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["__name__", "id", "job", "zone"]);
    let values = async |reader: &mut Conn, name: &str, matchers: &[Matcher]| {
        let found = label_values(reader, &tenant("acme"), name, matchers, MOST, &mut |_| Ok(())).await;
        found.unwrap().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(values(reader, "job", &[]).await, ["mysql", "node"]);
    assert_eq!(values(reader, "zone", &[Matcher::equal("id", "2")]).await, ["b"]);
    assert_eq!(values(reader, &long_name, &[]).await, [long_value]);
    assert!(values(reader, "nothing", &[]).await.is_empty());
}

/// Lets so many things be kept and no more.
fn at_most(most: usize) -> impl FnMut(Kept<'_>) -> Result<(), ReadError> + Send {
    let mut count = 0;
    move |_| {
        count += 1;
        if count > most { Err(ReadError::TooMany { what: "things", most }) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_search_ends_where_no_more_may_be_kept() {
    let mut store = Store::start().await;
    for id in ["1", "2", "3", "4"] {
        let up = labels(&[("__name__", "up"), ("job", "node"), ("id", id)]);
        store.put(&[frame("acme", &[(up, vec![Sample::new(START, 1.0)])])]).await;
    }
    let (reader, acme) = (&mut store.reader, tenant("acme"));
    let digit = [Matcher::matches("id", "[0-9]").unwrap()];
    for (most, is_refused) in [(2, true), (8, false)] {
        let errors = [
            matching_series(reader, &acme, &[], MOST, &mut at_most(most)).await.err(),
            label_names(reader, &acme, &[], MOST, &mut at_most(most)).await.err(),
            label_values(reader, &acme, "id", &[], MOST, &mut at_most(most)).await.err(),
            label_values(reader, &acme, "id", &digit, MOST, &mut at_most(most)).await.err(),
        ];
        for error in errors {
            assert_eq!(matches!(error, Some(ReadError::TooMany { what: "things", .. })), is_refused, "{error:?}");
        }
    }
}

#[tokio::test]
async fn an_empty_shard_answers_with_nothing() {
    let mut store = Store::start().await;
    let reader = &mut store.reader;
    let acme = tenant("acme");
    assert_eq!(matching_series(reader, &acme, &[], MOST, &mut |_| Ok(())).await.unwrap(), []);
    assert!(label_values(reader, &acme, "job", &[], MOST, &mut |_| Ok(())).await.unwrap().is_empty());
    assert!(label_names(reader, &acme, &[], MOST, &mut |_| Ok(())).await.unwrap().is_empty());
    assert!(read_samples(reader, &acme, &[], (0, 1), MOST).await.unwrap().series.is_empty());
    assert_eq!(newest_sample_ms(reader).await.unwrap(), None);
    assert_eq!(freshness(reader, "metrics-store").await.unwrap().complete_until_ms(), None);
}

#[tokio::test]
async fn a_narrow_read_of_one_group_does_not_scan_its_table() {
    let mut store = Store::start().await;
    for minute in 0..20 {
        let frames: Vec<Frame> = (0..30)
            .map(|host| {
                let host = format!("h{host}");
                let up = labels(&[("__name__", "up"), ("job", "node"), ("instance", &host)]);
                frame("acme", &[(up, vec![Sample::new(START + minute * 60_000, 1.0)])])
            })
            .collect();
        store.put(&frames).await;
    }
    store.writer.query_drop("ANALYZE TABLE store.landing_v1_1763899200").await.unwrap();
    let h3 = [Matcher::equal("instance", "h3")];
    let series = matching_series(&mut store.reader, &tenant("acme"), &h3, 10, &mut |_| Ok(())).await.unwrap();
    let before = handler_reads(&mut store.reader).await;
    let times = (START + 600_000, START + 660_000);
    let read = read_samples(&mut store.reader, &tenant("acme"), &series, times, MOST).await.unwrap();
    let rows = handler_reads(&mut store.reader).await - before;
    assert_eq!(read.series[&series[0].id].len(), 2);
    assert!(rows < 60, "{rows} rows were looked at, of 600");
}

async fn handler_reads(conn: &mut Conn) -> i64 {
    let rows: Vec<(String, i64)> = conn.query("SHOW SESSION STATUS LIKE 'Handler_read%'").await.unwrap();
    rows.into_iter()
        .filter(|(name, _)| name == "Handler_read_next" || name == "Handler_read_rnd_next")
        .map(|r| r.1)
        .sum()
}

#[tokio::test]
async fn what_is_too_old_goes_with_its_table() {
    let mut store = Store::start().await;
    let up = labels(&[("__name__", "up")]);
    let times: Vec<(i64, u64)> = (0..4).map(|i| (START + i * RANGE_MS, 1)).collect();
    store.put(&[frame("acme", &[(up, bits(&times))])]).await;
    let tables = ranges(&mut store.reader).await.unwrap();
    for range in expired(&tables, START + 2 * RANGE_MS + 5) {
        store.writer.query_drop(drop_table(range)).await.unwrap();
    }
    let left: BTreeSet<i64> = ranges(&mut store.reader).await.unwrap().iter().map(|r| r.start_ms()).collect();
    assert_eq!(left, BTreeSet::from([START + 2 * RANGE_MS, START + 3 * RANGE_MS]));
}
