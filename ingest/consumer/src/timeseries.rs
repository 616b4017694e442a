//! The time-series view: frames into the store of `understudy-store`. I/O through the core's connection only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use understudy_model::frame::Codec;
use understudy_model::rules::TimeWindow;
use understudy_model::{Frame, SeriesId, Tenant};
use understudy_sql::{Db, Value};
use understudy_store::catalogue::{INSERT_LABEL, INSERT_SERIES, tenant_value};
use understudy_store::pack::{self, LandingInsert};
use understudy_store::{Acceptance, KnownSeries, Range, SeriesRow, place, retention, schema, window};

use crate::view::{Decoded, Placed, Record, Reject, Rows, Tx, View, ViewError};

/// Series looked up in one statement.
const LOOK_UP: usize = 1024;
/// Series whose labels are made into rows at once.
const LABELLED: usize = 256;
/// Series remembered to be in the catalogue, by default.
pub const KNOWN_SERIES: usize = 500_000;
/// Time between two tables that are dropped.
const DROP_EVERY: Duration = Duration::from_secs(60);
/// What a frame takes in memory for each of its series beside the text of the labels, for each label, and for each sample.
const SERIES_BYTES: usize = 96;
const LABEL_BYTES: usize = 8;
const SAMPLE_BYTES: usize = 16;
/// The server's code for a key that is there already.
const DUPLICATE_KEY: u16 = 1062;
const SERVER_CLOCK: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

/// Stores frames.
#[derive(Debug)]
pub struct TimeSeries {
    acceptance: Acceptance,
    known: KnownSeries,
    /// Tables that are there; None until they were looked at.
    tables: Option<BTreeSet<Range>>,
    /// Series that the next transaction puts into the catalogue.
    fresh: Vec<SeriesRow>,
    /// Series that the next transaction writes of and the catalogue had: what was there before a commit is on each server that has the commit.
    seen: Vec<(Tenant, SeriesId)>,
    /// How long samples are kept; None for ever.
    keep: Option<Duration>,
    /// When a table was dropped, or none was found to drop.
    dropped: Option<Instant>,
    /// Rows were there under the key of new ones, so it is asked first. It costs a look, and nothing relies on it.
    ask_first: bool,
}

/// A frame, and what of it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    frame: Frame,
    window: Option<TimeWindow>,
}

impl TimeSeries {
    /// Takes samples as near to their record's time as `acceptance` says; remembers about `known` series.
    pub fn new(acceptance: Acceptance, known: usize) -> Self {
        Self {
            acceptance,
            known: KnownSeries::new(known),
            tables: None,
            fresh: Vec::new(),
            seen: Vec::new(),
            keep: None,
            dropped: None,
            ask_first: false,
        }
    }

    /// Drops what is older than this, and takes nothing that is.
    #[must_use]
    pub fn keeping(mut self, keep: Duration) -> Self {
        self.acceptance.past = self.acceptance.past.min(keep);
        self.keep = Some(keep);
        self
    }

    fn weigh(&mut self, frame: &Frame) -> usize {
        let unknown = frame.series().filter(|series| !self.known.contains(frame.tenant(), series.id));
        let catalogue: usize = unknown.map(|series| series.labels.len() + 1).sum();
        1 + catalogue + frame.samples_len() / 100
    }

    /// Makes sure that the tables of these ranges are there.
    async fn make_tables(&mut self, db: &mut Db<'_>, ranges: &BTreeSet<Range>) -> Result<(), ViewError> {
        let tables = match &mut self.tables {
            Some(tables) => tables,
            None => {
                let found: Vec<String> = db.rows("list tables", schema::TABLES, ()).await?;
                // Asked before told: a statement that changes nothing would still be written to the log of every replica.
                if !["series", "series_label"].iter().all(|table| found.iter().any(|name| name == table)) {
                    for statement in schema::base() {
                        db.text("create tables", &statement).await?;
                    }
                }
                self.tables.insert(found.iter().filter_map(|name| Range::from_table(name)).collect())
            }
        };
        for range in ranges.difference(&tables.clone()) {
            db.text("create landing table", &schema::landing(*range)).await?;
            tables.insert(*range);
            tracing::info!(table = %range.table(), "landing table made");
        }
        Ok(())
    }

    /// Drops the oldest table that holds only what is older than is kept, at most one a minute: a wrong setting or clock must not
    /// empty a store before somebody sees it. `needed` are tables that a partition that is behind still writes.
    async fn drop_expired(&mut self, db: &mut Db<'_>, at_ms: i64, needed: &BTreeSet<Range>) -> Result<(), ViewError> {
        let (Some(keep), Some(tables)) = (self.keep, &mut self.tables) else { return Ok(()) };
        if self.dropped.is_some_and(|at| at.elapsed() < DROP_EVERY) {
            return Ok(());
        }
        self.dropped = Some(Instant::now());
        // The log's time is a gateway's or a broker's. No single clock that is ahead may make samples old.
        let server_ms: Option<i64> = db.first("read clock", SERVER_CLOCK, ()).await?;
        let own_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
        let now_ms = server_ms.unwrap_or(0).min(at_ms).min(i64::try_from(own_ms).unwrap_or(i64::MAX));
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let expired = retention::expired(tables, now_ms.saturating_sub(keep_ms));
        let Some(range) = expired.into_iter().find(|range| !needed.contains(range)) else { return Ok(()) };
        match db.text("drop expired table", &retention::drop_table(range)).await {
            Ok(_) => {
                tables.remove(&range);
                tracing::info!(table = %range.table(), "landing table dropped: all of it is older than is kept");
                Ok(())
            }
            // Somebody reads it. The samples that are waiting do not wait for that.
            Err(e) if e.is_answer() => {
                tracing::warn!(table = %range.table(), error = %e, "landing table not dropped yet");
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Finds out which of the unknown series are in the catalogue; the others are fresh.
    async fn look_up(
        &mut self,
        db: &mut Db<'_>,
        unknown: BTreeMap<Tenant, BTreeMap<SeriesId, SeriesRow>>,
    ) -> Result<(), ViewError> {
        self.fresh.clear();
        self.seen.clear();
        for (tenant, mut series) in unknown {
            let ids: Vec<SeriesId> = series.keys().copied().collect();
            for ids in ids.chunks(LOOK_UP) {
                for id in found(db, &tenant, ids).await? {
                    series.remove(&id);
                    self.seen.push((tenant.clone(), id));
                }
            }
            self.fresh.extend(series.into_values());
        }
        Ok(())
    }
}

impl Default for TimeSeries {
    fn default() -> Self {
        Self::new(Acceptance::default(), KNOWN_SERIES)
    }
}

async fn found(db: &mut Db<'_>, tenant: &Tenant, ids: &[SeriesId]) -> Result<Vec<SeriesId>, ViewError> {
    let Some(last) = ids.last() else { return Ok(Vec::new()) };
    // A power of two of marks, so that few distinct statements are prepared; the last id is listed again.
    let marks = ids.len().next_power_of_two();
    let sql = format!(
        "SELECT series_id FROM `store`.`series` WHERE tenant = ? AND series_id IN ({})",
        vec!["?"; marks].join(",")
    );
    let listed = ids.iter().chain(std::iter::repeat(last)).take(marks);
    let mut params = vec![tenant_value(tenant)];
    params.extend(listed.map(|id| Value::Bytes(id.0.to_vec())));
    let rows: Vec<Vec<u8>> = db.rows("look up series", &sql, params).await?;
    let id = |bytes: Vec<u8>| {
        bytes
            .try_into()
            .map(SeriesId)
            .map_err(|_| ViewError::Other("an id in the catalogue has not 16 bytes".to_owned()))
    };
    rows.into_iter().map(id).collect()
}

#[async_trait]
impl View for TimeSeries {
    type Item = Samples;

    fn decode(&mut self, record: &Record) -> Decoded<Samples> {
        let frame = match Frame::decode(&record.value) {
            Ok(frame) => frame,
            Err(e) => return Decoded::reject(e.reason(), e.to_string()),
        };
        let Some(at) = record.timestamp_ms else {
            return Decoded::reject("no_timestamp", "the record has no time to hold its samples against");
        };
        let bounds = self.acceptance.window(at);
        let (rejects, window) = if window::is_within(&frame, bounds) {
            (Vec::new(), None)
        } else {
            let (rejects, outside) = put_aside(&frame, bounds);
            if outside == frame.samples_len() {
                return Decoded { item: None, weight: 0, memory: 0, rejects };
            }
            (rejects, Some(bounds))
        };
        let (weight, memory) = (self.weigh(&frame), memory(&frame));
        Decoded { item: Some(Samples { frame, window }), weight, memory, rejects }
    }

    async fn prepare(&mut self, db: &mut Db<'_>, items: &[Placed<Samples>]) -> Result<(), ViewError> {
        let ranges: BTreeSet<Range> =
            items.iter().flat_map(|placed| pack::ranges(&placed.item.frame, placed.item.window)).collect();
        self.make_tables(db, &ranges).await?;
        if let Some(at_ms) = items.iter().filter_map(|placed| placed.record.timestamp_ms).min() {
            self.drop_expired(db, at_ms, &ranges).await?;
        }
        let mut unknown: BTreeMap<Tenant, BTreeMap<SeriesId, SeriesRow>> = BTreeMap::new();
        for frame in items.iter().map(|placed| &placed.item.frame) {
            let (tenant, group) = (frame.tenant(), frame.group().id());
            for series in frame.series() {
                if !self.known.contains(tenant, series.id) {
                    let of_tenant = unknown.entry(tenant.clone()).or_default();
                    of_tenant.entry(series.id).or_insert_with(|| SeriesRow {
                        tenant: tenant.clone(),
                        id: series.id,
                        group,
                        labels: series.labels.clone(),
                    });
                }
            }
        }
        self.look_up(db, unknown).await
    }

    async fn apply(&mut self, tx: &mut Tx<'_>, items: &[Placed<Samples>]) -> Result<(), ViewError> {
        let series = self.fresh.iter().map(SeriesRow::values).collect();
        tx.insert("insert series", &INSERT_SERIES, series).await?;
        // A record may have hundreds of thousands of labels, and a row of parameters takes many times a short one.
        for series in self.fresh.chunks(LABELLED) {
            let labels = series.iter().flat_map(SeriesRow::label_values).collect();
            tx.insert("insert labels", &INSERT_LABEL, labels).await?;
        }
        let frames = items.iter().map(|placed| pack::Placed {
            partition: placed.record.partition,
            offset: placed.record.offset,
            frame: &placed.item.frame,
            window: placed.item.window,
        });
        for (range, mut rows) in pack::pack(frames).landing {
            if self.ask_first {
                let mut taken: Vec<place::Taken> = Vec::new();
                for (sql, params) in place::questions(range, &rows) {
                    taken.extend(tx.rows::<place::Taken>("look for rows", &sql, params).await?);
                }
                place::step_aside(&mut rows, taken);
            }
            let into = LandingInsert::into_range(range);
            let rows = rows.into_iter().map(pack::LandingRow::values).collect();
            let inserted = tx.insert("insert samples", &into.insert(), rows).await;
            if let Err(ViewError::Step(e)) = &inserted
                && e.code() == Some(DUPLICATE_KEY)
            {
                tracing::warn!(error = %e, "offsets come again that were stored; their samples are kept beside those");
                self.ask_first = true;
            }
            inserted?;
        }
        Ok(())
    }

    fn committed(&mut self) {
        for series in self.fresh.drain(..) {
            self.known.insert(&series.tenant, series.id);
        }
        for (tenant, series) in self.seen.drain(..) {
            self.known.insert(&tenant, series);
        }
    }

    fn route_changed(&mut self, rows: Rows) {
        // To look up tens of thousands again would take longer than the change of primary.
        if rows == Rows::Unknown {
            self.known.clear();
        }
        self.tables = None;
        self.fresh.clear();
        self.seen.clear();
    }
}

/// About how many bytes a frame takes in memory: many times those of its record, which is packed and has each text once.
fn memory(frame: &Frame) -> usize {
    let labels = frame.series().map(|series| series.labels.text_bytes() + series.labels.len() * LABEL_BYTES);
    labels.sum::<usize>() + frame.series_len() * SERIES_BYTES + frame.samples_len() * SAMPLE_BYTES
}

/// What lies outside, to be put aside, and how many samples that is.
fn put_aside(frame: &Frame, bounds: TimeWindow) -> (Vec<Reject>, usize) {
    let times = frame.series().flat_map(|series| series.timestamps_ms.iter());
    let count = times.filter(|&&at| bounds.check(at).is_err()).count();
    let reject = |value| Reject {
        reason: "outside_window",
        detail: format!("samples older than {} or newer than {} (ms since 1970)", bounds.earliest_ms, bounds.latest_ms),
        value,
    };
    let frames = window::outside(frame, bounds).map(|(frames, _)| frames);
    let encoded =
        frames.and_then(|frames| frames.iter().map(|f| f.encode(Codec::Zstd).ok()).collect::<Option<Vec<_>>>());
    match encoded {
        Some(parts) => (parts.into_iter().map(|part| reject(Some(Bytes::from(part)))).collect(), count),
        // Then the whole record is put aside, beside what of it is stored.
        None => (vec![reject(None)], count),
    }
}

/// Settings of this view.
#[derive(Clone, Debug, clap::Args)]
pub struct TimeSeriesSettings {
    /// How much older than its record a sample may be, in seconds; no more than is kept.
    #[arg(long, env = "UNDERSTUDY_ACCEPT_PAST_SECONDS", default_value_t = 32 * 24 * 3600)]
    pub accept_past_seconds: u64,
    /// How much newer than its record a sample may be, in seconds.
    #[arg(long, env = "UNDERSTUDY_ACCEPT_FUTURE_SECONDS", default_value_t = 25 * 3600)]
    pub accept_future_seconds: u64,
    /// How long samples are kept, by their own time, in seconds; for ever by default.
    #[arg(long, env = "UNDERSTUDY_KEEP_SECONDS")]
    pub keep_seconds: Option<u64>,
    /// Series remembered to be in the catalogue.
    #[arg(long, env = "UNDERSTUDY_KNOWN_SERIES", default_value_t = KNOWN_SERIES)]
    pub known_series: usize,
}

impl TimeSeriesSettings {
    /// The view.
    pub fn view(&self) -> TimeSeries {
        let acceptance = Acceptance {
            past: Duration::from_secs(self.accept_past_seconds),
            future: Duration::from_secs(self.accept_future_seconds),
        };
        let view = TimeSeries::new(acceptance, self.known_series);
        match self.keep_seconds {
            Some(seconds) => view.keeping(Duration::from_secs(seconds)),
            None => view,
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_model::{FrameBuilder, Group, Labels, Sample};

    use super::*;
    use crate::batch::{Batch, Limits};

    const NOW: i64 = 1_763_900_000_000;

    fn frame(times: &[i64]) -> Frame {
        let mut builder = FrameBuilder::new(Group::new(Tenant::new("acme").unwrap(), "node", "a"));
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "node"), ("instance", "a")]).unwrap();
        let samples: Vec<Sample> = times.iter().map(|&t| Sample::new(t, 1.0)).collect();
        assert_eq!(builder.push(&labels, &samples), understudy_model::frame::Full::No);
        builder.finish(None).unwrap()
    }

    fn record(value: Vec<u8>, timestamp_ms: Option<i64>) -> Record {
        Record {
            generation: 1,
            topic: "t".into(),
            partition: 0,
            offset: 7,
            timestamp_ms,
            key: Bytes::new(),
            value: value.into(),
            headers: Vec::new(),
        }
    }

    fn encoded(times: &[i64]) -> Vec<u8> {
        frame(times).encode(Codec::Zstd).unwrap()
    }

    #[test]
    fn what_cannot_be_stored_is_put_aside_with_its_reason() {
        let mut view = TimeSeries::default();
        for (case, value, at, stored, reasons) in [
            ("a frame", encoded(&[NOW]), Some(NOW), 1, &[][..]),
            ("no frame", b"hello".to_vec(), Some(NOW), 0, &["truncated"]),
            ("a record without a time", encoded(&[NOW]), None, 0, &["no_timestamp"]),
            ("all of it too new", encoded(&[NOW + 10_000_000_000]), Some(NOW), 0, &["outside_window"]),
            ("some of it too old", encoded(&[NOW, 0]), Some(NOW), 1, &["outside_window"]),
        ] {
            let decoded = view.decode(&record(value, at));
            let kept = decoded.item.map_or(0, |item| {
                let times = item.frame.series().flat_map(|s| s.timestamps_ms.to_vec());
                times.filter(|&t| item.window.is_none_or(|w| w.check(t).is_ok())).count()
            });
            assert_eq!(kept, stored, "{case}");
            assert_eq!(decoded.rejects.iter().map(|r| r.reason).collect::<Vec<_>>(), reasons, "{case}");
        }
    }

    #[test]
    fn the_part_that_is_put_aside_is_a_frame_that_can_be_sent_again() {
        let decoded = TimeSeries::default().decode(&record(encoded(&[NOW, 0, 5]), Some(NOW)));
        let part = decoded.rejects[0].value.clone().unwrap();
        assert_eq!(Frame::decode(&part).unwrap(), frame(&[0, 5]));
    }

    #[test]
    fn series_that_the_catalogue_may_lack_weigh_more() {
        let mut view = TimeSeries::default();
        let before = view.decode(&record(encoded(&[NOW]), Some(NOW))).weight;
        let frame = frame(&[NOW]);
        view.known.insert(frame.tenant(), frame.series().next().unwrap().id);
        let after = view.decode(&record(encoded(&[NOW]), Some(NOW))).weight;
        assert_eq!((before, after), (5, 1));
        view.route_changed(Rows::Kept);
        assert_eq!(view.decode(&record(encoded(&[NOW]), Some(NOW))).weight, 1);
        view.route_changed(Rows::Unknown);
        assert_eq!(view.decode(&record(encoded(&[NOW]), Some(NOW))).weight, 5);
    }

    #[test]
    fn a_batch_of_frames_that_pack_well_is_bounded_by_what_they_take_in_memory() {
        let mut builder = FrameBuilder::new(Group::new(Tenant::new("acme").unwrap(), "node", "a"));
        for n in 0..2000 {
            let path = format!("{}{n}", "x".repeat(200));
            let labels = [("__name__", "up"), ("job", "node"), ("instance", "a"), ("path", path.as_str())];
            let labels = Labels::from_pairs(labels).unwrap();
            assert_eq!(builder.push(&labels, &[Sample::new(NOW, 1.0)]), understudy_model::frame::Full::No);
        }
        let frame = builder.finish(None).unwrap();
        let mut view = TimeSeries::default();
        for series in frame.series() {
            view.known.insert(frame.tenant(), series.id);
        }
        let value = frame.encode(Codec::Zstd).unwrap();
        let (limits, mut batch) = (Limits::default(), Batch::default());
        while !batch.is_full(limits) {
            let record = record(value.clone(), Some(NOW));
            let decoded = view.decode(&record);
            batch.push(record, decoded, tokio::time::Instant::now());
        }
        let labels: usize = frame.series().map(|series| series.labels.text_bytes()).sum();
        let one = labels + 16 * frame.samples_len();
        let held = batch.items().len() * one;
        assert!(held < limits.bytes + one, "{held} bytes of labels and samples in a batch of {} bytes", limits.bytes);
    }
}
