//! The server in memory keeps the contract of a real one.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod contract;

use std::time::Duration;

use understudy_mysql::fake::Fake;
use understudy_mysql::{Instance, SqlError};
use understudy_wire::GtidSet;

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    contract::holds(&Fake::new(), "ca.crt", [1, 2]).await;
}

#[tokio::test]
async fn a_fake_that_hangs_answers_nothing_within_the_deadline() {
    let fake = Fake::new();
    fake.hang(true);
    let within = Duration::from_millis(20);
    assert_eq!(fake.status(within).await, Err(SqlError::Deadline { step: "status", within }));
    fake.hang(false);
    assert!(fake.status(within).await.is_ok());
}

#[tokio::test]
async fn what_a_fake_received_is_executed_once_it_is_applied() {
    let fake = Fake::new();
    let gtids: GtidSet = "00000000-0000-0000-0000-0000000000ff:1-5".parse().unwrap();
    fake.receive(&gtids);
    assert_eq!(fake.wait_executed(&gtids, Duration::from_millis(20)).await, Ok(false));
    let (waited, ()) = tokio::join!(fake.wait_executed(&gtids, Duration::from_secs(5)), async { fake.apply() });
    assert_eq!(waited, Ok(true));
}
