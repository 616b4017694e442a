//! Managers of different versions understand each other: a field that one does not know changes nothing, one that is missing has a default, and
//! a word that one does not know is a value of its own.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

use serde_json::{Value, json};
use understudy_wire::Report;
use understudy_wire::evidence::{Limit, LockHolder, ProbeError, Server, Sleeper};
use understudy_wire::order::{Build, DrillOrder, Refusal};
use understudy_wire::stacks::Stacks;

fn server(value: Value) -> Server {
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_an_earlier_manager_says_is_understood() {
    let earlier = server(json!({ "phase": { "is": "running" }, "epoch": 4, "threadsInD": 2 }));
    assert_eq!((earlier.threads_in_d, earlier.sleepers.len()), (2, 0));
    assert_eq!((earlier.pressure, earlier.lock_holder), (None, None));
    let full: ProbeError = serde_json::from_value(json!({ "how": "tooManyConnections" })).unwrap();
    assert_eq!(full, ProbeError::TooManyConnections { whose: Limit::Server });
    let stacks: Stacks = serde_json::from_value(json!({
        "took": 1, "complete": true, "threads": [{ "id": 7, "name": "mysqld", "state": "S" }],
    }))
    .unwrap();
    assert_eq!(stacks.threads[0].syscall, "");
}

#[test]
fn what_a_later_manager_says_more_is_passed_over() {
    let report: Report = serde_json::from_value(json!({
        "observer": { "kind": "manager", "replica": "m-a" }, "seq": 1, "ownGap": 250, "interval": 250, "mood": "fine",
        "evidence": [{ "subject": "m-a", "weather": {}, "server": {
            "phase": { "is": "running", "for": 3 }, "epoch": 4, "temperature": 40,
            "lockHolder": { "age": 1, "value": { "held": 3, "locked": "row", "color": "red" } },
        }}],
    }))
    .unwrap();
    assert!(report.evidence[0].server.is_some());
}

/// As a reader knew the error before it told whose limit was reached.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", tag = "how")]
enum Earlier {
    TooManyConnections,
}

#[test]
fn an_earlier_reader_understands_whose_limit_was_reached_as_too_many_connections() {
    for whose in [Limit::Server, Limit::Account] {
        let said = serde_json::to_value(ProbeError::TooManyConnections { whose }).unwrap();
        assert_eq!(serde_json::from_value::<Earlier>(said).unwrap(), Earlier::TooManyConnections);
    }
}

#[test]
fn what_is_new_comes_back_as_it_was_said() {
    let mut said = server(json!({ "phase": { "is": "running" }, "epoch": 4 }));
    said.sleepers = vec![Sleeper { id: 9, name: "ib_log_flush".into(), waits_in: "jbd2_log_wait_commit".into() }];
    said.lock_holder = serde_json::from_value(json!({ "age": 20, "value": {
        "connection": 12, "user": "someone@10.0.0.9", "held": 61_000, "locked": "TABLE store.series",
        "statement": "ALTER TABLE `store` . `series` ADD COLUMN ...",
    }}))
    .unwrap();
    said.pressure =
        serde_json::from_value(json!({ "of": "container", "io": { "some": 41.5, "full": 30.25 } })).unwrap();
    let heard = server(serde_json::to_value(&said).unwrap());
    assert_eq!(heard, said);
    assert_eq!(heard.lock_holder.unwrap().value.connection, Some(12));
    assert_eq!(LockHolder::default().connection, None);
}

/// A report in which each word that is one of a few is said.
fn wordy() -> Value {
    let failing = json!({ "since": 900, "latest": 100, "count": 3, "stage": "commit", "error": { "how": "timeout" } });
    json!({
        "observer": { "kind": "manager", "replica": "m-a" }, "seq": 1, "ownGap": 250, "interval": 250,
        "evidence": [{
            "subject": "m-a",
            "probe": { "committed": 40, "failing": failing, "inFlight": { "stage": "select", "age": 5 } },
            "server": {
                "phase": { "is": "running" }, "threadsInD": 0, "epoch": 4, "fenced": { "why": "isolated", "age": 3 },
                "pressure": { "of": "container" }, "admin": { "failing": failing },
            },
        }],
    })
}

#[test]
fn one_word_that_only_a_later_observer_knows_leaves_the_rest_of_its_report_as_it_was() {
    let read =
        |said: &Value| serde_json::from_value::<Report>(said.clone()).map(|heard| serde_json::to_value(heard).unwrap());
    assert_eq!(read(&wordy()).unwrap(), wordy(), "every word is known");
    let probe = "/evidence/0/probe";
    let admin = "/evidence/0/server/admin";
    for (at, word, heard) in [
        ("/observer".to_owned(), json!({ "kind": "oracle", "pod": "delphi-0" }), json!({ "kind": "unknown" })),
        (format!("{probe}/failing/stage"), json!("handshake"), json!("unknown")),
        (format!("{probe}/inFlight/stage"), json!("handshake"), json!("unknown")),
        (
            format!("{probe}/failing/error"),
            json!({ "how": "cut", "after": { "bytes": 7 } }),
            json!({ "how": "unknown" }),
        ),
        (
            format!("{probe}/failing/error"),
            json!({ "how": "tooManyConnections", "whose": "group" }),
            json!({ "how": "tooManyConnections", "whose": "unknown" }),
        ),
        (format!("{admin}/failing/stage"), json!("handshake"), json!("unknown")),
        (format!("{admin}/failing/error"), json!({ "how": "cut" }), json!({ "how": "unknown" })),
        ("/evidence/0/server/phase".to_owned(), json!({ "is": "asleep", "for": 9 }), json!({ "is": "unknown" })),
        ("/evidence/0/server/fenced".to_owned(), json!({ "why": "quota", "age": 3 }), json!({ "why": "unknown" })),
        ("/evidence/0/server/pressure/of".to_owned(), json!("pod"), json!("unknown")),
    ] {
        let with = |word: &Value| {
            let mut report = wordy();
            *report.pointer_mut(&at).unwrap() = word.clone();
            report
        };
        let read = read(&with(&word)).unwrap_or_else(|error| panic!("{at} = {word}: {error}"));
        assert_eq!(read, with(&heard), "{at}");
    }
}

#[test]
fn a_refusal_for_a_reason_that_only_a_later_manager_knows_is_a_refusal() {
    let refusal: Refusal = serde_json::from_value(json!({ "refused": "tooHot", "celsius": 90 })).unwrap();
    assert_eq!(refusal, Refusal::Unknown);
    assert!(refusal.to_string().contains("a later version"), "{refusal}");
}

#[test]
fn an_order_that_is_not_understood_whole_is_none() {
    let build = |from: &str| json!({ "epoch": 4, "replica": "m-b", "origin": { "from": from, "donor": "m-a", "address": "10.0.0.1:3306" } });
    let drill = |fault: &str| json!({ "epoch": 4, "run": "weekly-1", "fault": fault, "hold": 1_000 });
    assert!(serde_json::from_value::<Build>(build("clone")).is_ok());
    assert!(serde_json::from_value::<Build>(build("backup")).is_err());
    assert!(serde_json::from_value::<DrillOrder>(drill("Freeze")).is_ok());
    assert!(serde_json::from_value::<DrillOrder>(drill("Burn")).is_err());
}
