//! A view of one's own: JSON events into a table, and a running total for each kind of event.
//!
//! The totals are what would show a record applied twice or not at all: `UPDATE ... SET events = events + n` cannot be repeated without
//! harm. The core makes it safe: the update is in one transaction with the offset, and that transaction takes effect exactly once.
//!
//! An event is a JSON object with `kind` (text, 1 to 64 characters) and, if it has one, `amount` (an integer, at most a billion either way, so
//! that no total ever overflows); everything else in it is kept as it is. What is no such object goes to the dead-letter topic.
//!
//! The key over partition and offset is not unique. The core needs no help against a record that comes twice, and when a person lets a
//! partition be read from an earlier offset, other events come under offsets that are there: they are stored and counted beside the first.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use understudy_consumer::{Decoded, Placed, Record, Rows, Tx, View, ViewError};
use understudy_sql::{Db, Insert, Value};

/// Longest kind, in characters.
const KIND_CHARS: usize = 64;
/// Largest amount, either way. It takes nine billion of them to fill the column of a total, which would stop the view for good.
const MOST: i64 = 1_000_000_000;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: String,
    /// How much; 0 when the event says nothing.
    pub amount: i64,
    /// The whole object as it was sent.
    pub body: String,
}

/// The view.
#[derive(Debug)]
pub struct Events {
    schema: String,
    tables_are_there: bool,
}

/// A schema that the view may not use.
#[derive(Debug, PartialEq, Eq)]
pub struct NotOurs(pub String);

impl std::fmt::Display for NotOurs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is no schema for a view: it must be view_ and lower-case letters, digits, underscores", self.0)
    }
}

impl std::error::Error for NotOurs {}

impl Events {
    /// Writes into this schema, which `Consumer.spec.view.schema` names.
    pub fn new(schema: &str) -> Result<Self, NotOurs> {
        let rest = schema.strip_prefix("view_").ok_or_else(|| NotOurs(schema.to_owned()))?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if rest.is_empty() || !rest.chars().all(plain) {
            return Err(NotOurs(schema.to_owned()));
        }
        Ok(Self { schema: schema.to_owned(), tables_are_there: false })
    }

    /// What must be there, in order. Each may be run again at any time.
    fn tables(&self) -> [String; 3] {
        let schema = &self.schema;
        [
            format!("CREATE DATABASE IF NOT EXISTS `{schema}`"),
            format!(
                "CREATE TABLE IF NOT EXISTS `{schema}`.event (partition_id INT NOT NULL, kafka_offset BIGINT NOT NULL, \
                 kind VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL, amount BIGINT NOT NULL, \
                 body MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL, KEY (partition_id, kafka_offset))"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS `{schema}`.total (kind VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin \
                 NOT NULL PRIMARY KEY, events BIGINT NOT NULL, amount BIGINT NOT NULL)"
            ),
        ]
    }
}

#[derive(Deserialize)]
struct Fields {
    kind: String,
    #[serde(default)]
    amount: i64,
}

#[async_trait]
impl View for Events {
    type Item = Event;

    fn decode(&mut self, record: &Record) -> Decoded<Event> {
        // A sequence of the fields' values would be taken for them.
        if record.value.trim_ascii_start().first() != Some(&b'{') {
            return Decoded::reject("not_an_event", "it is no JSON object");
        }
        let fields: Fields = match serde_json::from_slice(&record.value) {
            Ok(fields) => fields,
            Err(e) => return Decoded::reject("not_an_event", e.to_string()),
        };
        if fields.kind.is_empty() || fields.kind.chars().count() > KIND_CHARS {
            return Decoded::reject("kind", format!("a kind has 1 to {KIND_CHARS} characters"));
        }
        if !(-MOST..=MOST).contains(&fields.amount) {
            return Decoded::reject("amount", format!("an amount is at most {MOST}, either way"));
        }
        match String::from_utf8(record.value.to_vec()) {
            Ok(body) => Decoded::item(Event { kind: fields.kind, amount: fields.amount, body }, 1),
            Err(e) => Decoded::reject("not_utf8", e.to_string()),
        }
    }

    async fn prepare(&mut self, db: &mut Db<'_>, _items: &[Placed<Event>]) -> Result<(), ViewError> {
        if !self.tables_are_there {
            for statement in self.tables() {
                db.text("create tables", &statement).await?;
            }
            self.tables_are_there = true;
        }
        Ok(())
    }

    async fn apply(&mut self, tx: &mut Tx<'_>, items: &[Placed<Event>]) -> Result<(), ViewError> {
        let mut totals: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        let mut rows = Vec::with_capacity(items.len());
        for Placed { record, item } in items {
            let total = totals.entry(&item.kind).or_default();
            *total = (total.0 + 1, total.1 + item.amount);
            rows.push(vec![
                Value::from(record.partition),
                Value::from(record.offset),
                Value::from(item.kind.as_str()),
                Value::from(item.amount),
                Value::from(item.body.as_str()),
            ]);
        }
        let head =
            format!("INSERT INTO `{}`.event (partition_id, kafka_offset, kind, amount, body) VALUES", self.schema);
        tx.insert("insert events", &Insert { head: &head, columns: 5, tail: "" }, rows).await?;

        let head = format!("INSERT INTO `{}`.total (kind, events, amount) VALUES", self.schema);
        let add = Insert {
            head: &head,
            columns: 3,
            tail: "AS new ON DUPLICATE KEY UPDATE events = total.events + new.events, amount = total.amount + new.amount",
        };
        let totals = totals
            .into_iter()
            .map(|(kind, (events, amount))| vec![Value::from(kind), Value::from(events), Value::from(amount)]);
        tx.insert("add to totals", &add, totals.collect()).await?;
        Ok(())
    }

    fn route_changed(&mut self, _: Rows) {
        self.tables_are_there = false;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;

    use super::*;

    fn record(value: &[u8]) -> Record {
        Record {
            generation: 1,
            topic: "events".into(),
            partition: 0,
            offset: 3,
            timestamp_ms: Some(0),
            key: Bytes::new(),
            value: Bytes::copy_from_slice(value),
            headers: Vec::new(),
        }
    }

    #[rstest]
    #[case::whole(br#"{"kind":"sale","amount":12,"who":"a"}"#, Ok(("sale", 12)))]
    #[case::without_amount(br#"{"kind":"visit"}"#, Ok(("visit", 0)))]
    #[case::no_json(b"kind=sale", Err("not_an_event"))]
    #[case::after_blanks(b" \n{\"kind\":\"visit\"}", Ok(("visit", 0)))]
    #[case::no_object(b"[1]", Err("not_an_event"))]
    #[case::a_sequence_of_its_fields(br#"["sale",12]"#, Err("not_an_event"))]
    #[case::no_kind(br#"{"amount":12}"#, Err("not_an_event"))]
    #[case::empty_kind(br#"{"kind":""}"#, Err("kind"))]
    #[case::amount_too_large(br#"{"kind":"sale","amount":99999999999999999999}"#, Err("not_an_event"))]
    #[case::the_largest_amount(br#"{"kind":"sale","amount":1000000000}"#, Ok(("sale", 1_000_000_000)))]
    #[case::the_least_amount(br#"{"kind":"sale","amount":-1000000000}"#, Ok(("sale", -1_000_000_000)))]
    #[case::beyond_the_largest(br#"{"kind":"sale","amount":1000000001}"#, Err("amount"))]
    #[case::beyond_the_least(br#"{"kind":"sale","amount":-9223372036854775808}"#, Err("amount"))]
    #[case::not_utf8(b"{\"kind\":\"\xff\"}", Err("not_an_event"))]
    #[case::nothing(b"", Err("not_an_event"))]
    fn an_event_is_an_object_with_a_kind(#[case] value: &[u8], #[case] expected: Result<(&str, i64), &str>) {
        let decoded = Events::new("view_events").unwrap().decode(&record(value));
        match expected {
            Ok((kind, amount)) => {
                let event = decoded.item.unwrap();
                assert_eq!((event.kind.as_str(), event.amount), (kind, amount));
                assert_eq!(event.body.as_bytes(), value);
            }
            Err(reason) => assert_eq!(decoded.rejects[0].reason, reason),
        }
    }

    #[rstest]
    #[case("view_events", true)]
    #[case("view_", false)]
    #[case("store", false)]
    #[case("view_a`; DROP DATABASE store", false)]
    fn only_a_schema_for_views_is_taken(#[case] schema: &str, #[case] taken: bool) {
        assert_eq!(Events::new(schema).is_ok(), taken);
    }
}
