//! Managers of different versions understand each other: a field that one does not know changes nothing, and one that is missing has a default.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

use serde_json::{Value, json};
use understudy_wire::Report;
use understudy_wire::evidence::{Limit, LockHolder, ProbeError, Server, Sleeper};
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
