//! The screen's tables as text. Pure.

use super::{StatusScreen, unavailable};
use crate::objects::{Verdict, Withheld};
use crate::view::text::{Extent, Piece, Table, Text, Tone};
use crate::view::time::{ago, point, span};
use crate::view::{tone_of, tone_of_ready, tone_of_result};

impl StatusScreen {
    pub(super) fn datastores(&self, text: &mut Text, extent: Extent) {
        if self.datastores.is_empty() {
            return;
        }
        let heads =
            ["DATASTORE", "SHARDS", "VERDICT", "OF", "GATEWAY", "QUERY", "CONSUMER", "DELAY", "UNAVAILABLE", "PAUSED"];
        let mut table = Table::new(&heads).right("DELAY");
        for row in &self.datastores {
            let verdict = row.verdict.as_ref().map(|state| Verdict { state: state.clone(), ..Verdict::default() });
            let pods =
                |ready: &Option<String>| Piece::new(ready.clone().unwrap_or_default(), tone_of_ready(ready.as_deref()));
            table.row(vec![
                row.name.as_str().into(),
                pods(&row.shards_ready),
                Piece::new(
                    row.verdict.clone().unwrap_or_else(|| "Unknown".into()),
                    tone_of(verdict.and_then(|v| v.known())),
                ),
                (&row.verdict_of).into(),
                pods(&row.workloads.gateway),
                pods(&row.workloads.query),
                pods(&row.workloads.consumer),
                (&row.delay).into(),
                unavailable(row.availability.as_ref()).into(),
                paused(row.paused),
            ]);
        }
        text.line([]);
        text.table(table, extent);
    }

    pub(super) fn shards(&self, text: &mut Text, extent: Extent) {
        if self.shards.is_empty() {
            return;
        }
        let heads = [
            "SHARD",
            "PRIMARY",
            "EPOCH",
            "READY",
            "VERDICT",
            "FOR",
            "PROMOTABLE",
            "LAG",
            "LAST CHANGE",
            "GAP",
            "UNAVAILABLE",
            "MODE",
            "PAUSED",
            "WITHHELD",
            "DOING",
        ];
        let mut table = Table::new(&heads).right("EPOCH").right("PROMOTABLE").right("LAG");
        for row in &self.shards {
            let known = row.verdict.as_ref().and_then(Verdict::known);
            let words = row.verdict.as_ref().map_or("Unknown".to_owned(), Verdict::words);
            let last = row.last_failover.as_ref();
            table.row(vec![
                row.name.as_str().into(),
                (&row.primary).into(),
                row.epoch.into(),
                Piece::new(row.ready.clone().unwrap_or_default(), tone_of_ready(row.ready.as_deref())),
                Piece::new(words, tone_of(known)),
                row.for_seconds.map(span).into(),
                row.promotable.into(),
                (&row.lag).into(),
                last.and_then(|last| ago(last.time, self.at)).into(),
                last.and_then(|last| last.gap.clone()).into(),
                unavailable(row.availability.as_ref()).into(),
                mode(row.mode.as_deref()),
                paused(row.paused),
                withheld(&row.withheld),
                (&row.doing).into(),
            ]);
        }
        text.line([]);
        text.table(table, extent);
    }

    pub(super) fn replicas(&self, text: &mut Text, extent: Extent) {
        if self.replicas_not_ready.is_empty() {
            return;
        }
        text.head("Replicas that are not ready");
        let mut table = Table::new(&["REPLICA", "SHARD", "ROLE", "PHASE", "NODE", "DELAY", "BUILD", "AGE", "WHY"]);
        for row in &self.replicas_not_ready {
            table.row(vec![
                row.name.as_str().into(),
                (&row.shard).into(),
                (&row.role).into(),
                Piece::new(row.phase.clone().unwrap_or_else(|| "Pending".into()), Tone::Busy),
                (&row.node).into(),
                (&row.delay).into(),
                (&row.build).into(),
                row.age_seconds.map(span).into(),
                (&row.message).into(),
            ]);
        }
        text.table(table, extent);
    }

    pub(super) fn consumers(&self, text: &mut Text, extent: Extent) {
        if self.consumers.is_empty() {
            return;
        }
        text.line([]);
        let heads = ["CONSUMER", "READY", "PARTITIONS", "LAG", "RECORDS", "DEAD LETTERS", "PAUSED", "WHY"];
        let mut table = Table::new(&heads).right("LAG").right("RECORDS").right("DEAD LETTERS");
        for row in &self.consumers {
            let tone = if row.is_well { Tone::Plain } else { Tone::Bad };
            table.row(vec![
                Piece::new(row.name.as_str(), tone),
                Piece::new(row.ready.clone().unwrap_or_default(), tone_of_ready(row.ready.as_deref())),
                Piece::new(row.partitions.clone().unwrap_or_default(), tone_of_ready(row.partitions.as_deref())),
                (&row.lag).into(),
                row.lag_records.into(),
                row.dead_letters.into(),
                paused(row.paused),
                (&row.message).into(),
            ]);
        }
        text.table(table, extent);
    }

    pub(super) fn failovers(&self, text: &mut Text, extent: Extent) {
        if self.open_failovers.is_empty() {
            return;
        }
        text.head("Changes of primary under way");
        let mut table = Table::new(&["FAILOVER", "SHARD", "KIND", "PHASE", "CAUSE", "FROM", "TO", "FOR"]);
        for row in &self.open_failovers {
            table.row(vec![
                row.name.as_str().into(),
                (&row.shard).into(),
                (&row.kind).into(),
                Piece::new(row.phase.as_str(), Tone::Busy),
                (&row.cause).into(),
                (&row.from).into(),
                (&row.to).into(),
                row.for_seconds.map(span).into(),
            ]);
        }
        text.table(table, extent);
    }

    pub(super) fn drills(&self, text: &mut Text, extent: Extent) {
        if self.drills.is_empty() {
            return;
        }
        text.head("Drills");
        let mut table = Table::new(&["DRILL", "FAULT", "NEXT IN", "NEXT", "LAST RESULT", "LAST"]);
        for row in &self.drills {
            let result = row.last_result.clone().unwrap_or_default();
            let tone = tone_of_result(&result);
            table.row(vec![
                row.name.as_str().into(),
                (&row.fault).into(),
                row.in_seconds.map(span).into(),
                row.next_run.map(point).into(),
                Piece::new(result, tone),
                ago(row.last_run, self.at).map(|ago| format!("{ago} ago")).into(),
            ]);
        }
        text.table(table, extent);
    }
}

/// What is not as it is usually.
fn mode(mode: Option<&str>) -> Piece {
    mode.filter(|mode| *mode != "Automatic").map_or_else(Piece::default, |mode| Piece::new(mode, Tone::Busy))
}

/// The reasons, each once; `explain` has the words.
fn withheld(withheld: &[Withheld]) -> Piece {
    let mut reasons: Vec<&str> = withheld.iter().map(|withheld| withheld.reason.as_str()).collect();
    reasons.dedup();
    Piece::new(reasons.join(", "), Tone::Busy)
}

fn paused(paused: bool) -> Piece {
    if paused { Piece::new("paused", Tone::Busy) } else { Piece::default() }
}
