//! What every `Instance` promises, whatever is behind it. The subject is a server with the schema, that has no source yet.

use std::time::Duration;

use understudy_mysql::SqlError;
use understudy_mysql::instance::{EpochRow, Instance, Source};
use understudy_mysql::probe::Account;
use understudy_wire::{Epoch, GtidSet, ReplicaName};

const SOON: Duration = Duration::from_secs(10);

fn row(epoch: u64, primary: &str) -> EpochRow {
    EpochRow { epoch: Epoch(epoch), primary: ReplicaName::new(primary) }
}

fn source(port: u16, ca_file: &str) -> Source {
    let account = Account { user: "understudy_repl".to_owned(), password: "secret".to_owned() };
    Source { address: ([127, 0, 0, 1], port).into(), account, ca_file: ca_file.to_owned() }
}

/// Runs the whole contract. `ca_file` is a path that the server can read, `silent` a port on which nobody answers.
pub async fn holds(server: &dyn Instance, ca_file: &str, silent: [u16; 2]) {
    a_new_server_has_no_epoch_no_offsets_and_no_source(server).await;
    nobody_holds_a_lock_where_nobody_waits(server).await;
    a_server_that_refuses_writes_says_so_and_takes_no_epoch(server).await;
    an_epoch_is_written_once_and_never_goes_back(server).await;
    writing_moves_the_executed_set_and_the_log(server).await;
    a_server_follows_and_forgets(server, ca_file, silent).await;
    waiting_tells_what_is_executed(server).await;
    cutting_clients_when_there_are_none_cuts_none(server).await;
    everything_may_be_done_twice(server).await;
}

async fn a_new_server_has_no_epoch_no_offsets_and_no_source(server: &dyn Instance) {
    assert_eq!(server.epoch(SOON).await, Ok(None));
    assert_eq!(server.offsets(SOON).await, Ok(Vec::new()));
    assert_eq!(server.replication(SOON).await, Ok(None));
}

async fn nobody_holds_a_lock_where_nobody_waits(server: &dyn Instance) {
    assert_eq!(server.lock_holder(SOON).await, Ok(None));
}

async fn a_server_that_refuses_writes_says_so_and_takes_no_epoch(server: &dyn Instance) {
    server.refuse_writes(SOON).await.unwrap();
    assert!(server.status(SOON).await.unwrap().read_only);
    let error = server.write_epoch(&row(1, "a"), 0, SOON).await.unwrap_err();
    assert_eq!(error.code(), Some(1290), "{error}");
    assert_eq!(server.epoch(SOON).await, Ok(None));
}

async fn an_epoch_is_written_once_and_never_goes_back(server: &dyn Instance) {
    server.take_writes(SOON).await.unwrap();
    assert!(!server.status(SOON).await.unwrap().read_only);
    server.write_epoch(&row(3, "a"), 1, SOON).await.unwrap();
    assert_eq!(server.epoch(SOON).await, Ok(Some(row(3, "a"))));
    let before = server.status(SOON).await.unwrap().executed;
    server.write_epoch(&row(3, "a"), 2, SOON).await.unwrap();
    assert_eq!(server.status(SOON).await.unwrap().executed, before, "the row that is there is not written again");
    let older = server.write_epoch(&row(2, "b"), 3, SOON).await;
    assert_eq!(older, Err(SqlError::OlderEpoch { given: 2, stored: 3 }));
    assert_eq!(server.epoch(SOON).await, Ok(Some(row(3, "a"))));
}

async fn writing_moves_the_executed_set_and_the_log(server: &dyn Instance) {
    let before = server.status(SOON).await.unwrap();
    server.write_epoch(&row(4, "b"), 4, SOON).await.unwrap();
    let after = server.status(SOON).await.unwrap();
    assert!(after.executed.contains(&before.executed) && after.executed != before.executed);
    assert_eq!(after.uuid, before.uuid);
    // A server may show its position in the log a moment after the commit that moved it.
    let moved = async { while server.status(SOON).await.unwrap().lsn <= before.lsn {} };
    tokio::time::timeout(SOON, moved).await.expect("the log moves when something is written");
}

async fn a_server_follows_and_forgets(server: &dyn Instance, ca_file: &str, silent: [u16; 2]) {
    server.refuse_writes(SOON).await.unwrap();
    for port in silent {
        server.follow(&source(port, ca_file), SOON).await.unwrap();
        let replication = server.replication(SOON).await.unwrap().unwrap();
        assert_eq!(replication.source, Some(format!("127.0.0.1:{port}")));
        assert!(replication.applying);
        assert_eq!(replication.delay, None, "nothing has arrived");
    }
    server.stop_receiving(SOON).await.unwrap();
    let replication = server.replication(SOON).await.unwrap().unwrap();
    assert!(!replication.receiving && replication.applying);
    server.stop_applying(SOON).await.unwrap();
    let replication = server.replication(SOON).await.unwrap().unwrap();
    assert!(!replication.receiving && !replication.applying);
    server.forget_source(SOON).await.unwrap();
    assert_eq!(server.replication(SOON).await, Ok(None));
}

async fn waiting_tells_what_is_executed(server: &dyn Instance) {
    let executed = server.status(SOON).await.unwrap().executed;
    assert_eq!(server.wait_executed(&executed, SOON).await, Ok(true));
    let never: GtidSet = "00000000-0000-0000-0000-0000000000ff:1".parse().unwrap();
    assert_eq!(server.wait_executed(&never, Duration::from_millis(100)).await, Ok(false));
}

async fn cutting_clients_when_there_are_none_cuts_none(server: &dyn Instance) {
    assert_eq!(server.cut_clients(SOON).await, Ok(0));
}

async fn everything_may_be_done_twice(server: &dyn Instance) {
    for _ in 0..2 {
        server.stop_receiving(SOON).await.unwrap();
        server.stop_applying(SOON).await.unwrap();
        server.forget_source(SOON).await.unwrap();
        server.refuse_writes(SOON).await.unwrap();
        server.reload_certificates(SOON).await.unwrap();
    }
    for _ in 0..2 {
        server.take_writes(SOON).await.unwrap();
    }
}
