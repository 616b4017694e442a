//! Against a real mysqld: the contract, and what a probe makes of a server in each of its states.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

mod contract;
mod mysqld;
mod valve;

use std::sync::Mutex;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysqld::{Mysqld, account, free_port};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use understudy_mysql::instance::{EpochRow, Source};
use understudy_mysql::probe::{Account, Failure, RowName, Success, attempt};
use understudy_mysql::{Deadlines, Depth, Instance, Prober, SqlError, Target, Trust, schema};
use understudy_wire::evidence::{Limit, ProbeError, Replication, Stage};
use understudy_wire::{Epoch, ReplicaName};
use valve::Valve;

const SOON: Duration = Duration::from_secs(10);
const STAGES: [Stage; 5] = [Stage::Tcp, Stage::Greeting, Stage::Auth, Stage::Select, Stage::Commit];

fn target(server: &Mysqld, depth: Depth) -> Target {
    Target {
        subject: ReplicaName::new("metrics-0-aaaa"),
        address: ([127, 0, 0, 1], server.port).into(),
        trust: server.trust.clone(),
        account: account(schema::PROBE),
        row: RowName::new("test"),
        depth,
    }
}

async fn try_once(target: &Target, deadlines: Deadlines) -> (Result<Success, Failure>, Vec<Stage>) {
    let seen = Mutex::new(Vec::new());
    let outcome = attempt(target, deadlines, |stage| seen.lock().unwrap().push(stage)).await;
    (outcome, seen.into_inner().unwrap())
}

fn quick() -> Deadlines {
    Deadlines { stage: Duration::from_millis(500), commit: Duration::from_millis(1500) }
}

async fn promoted(server: &Mysqld) {
    let admin = server.admin();
    admin.take_writes(SOON).await.unwrap();
    let row = EpochRow { epoch: Epoch(1), primary: ReplicaName::new("metrics-0-aaaa") };
    admin.write_epoch(&row, 0, SOON).await.unwrap();
}

#[tokio::test]
async fn a_real_server_keeps_the_contract() {
    let server = Mysqld::start(&[]).await;
    contract::holds(&server.admin(), &server.path("ca.crt"), [free_port(), free_port()]).await;
}

#[tokio::test]
async fn how_far_behind_a_replica_is_stays_unknown_until_something_arrived() {
    let (source, replica) = (Mysqld::start(&[]).await, Mysqld::start(&["--server-id=8"]).await);
    let admin = replica.admin();
    let from = Source {
        address: ([127, 0, 0, 1], source.port).into(),
        account: account(schema::REPLICATION),
        ca_file: source.path("ca.crt"),
    };
    admin.follow(&from, SOON).await.unwrap();
    let read = async |is_there: &dyn Fn(&Replication) -> bool| {
        let read = async {
            loop {
                let read = admin.replication(SOON).await.unwrap().unwrap();
                if is_there(&read) {
                    return read;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, read).await.unwrap()
    };
    let connected = read(&|read| read.receiving).await;
    assert_eq!((connected.received.is_empty(), connected.delay), (true, None));
    promoted(&source).await;
    let applied = source.admin().status(SOON).await.unwrap().executed;
    assert_eq!(admin.wait_executed(&applied, SOON).await, Ok(true));
    let current = read(&|read| read.received.contains(&applied)).await;
    assert_eq!(current.delay, Some(0));
}

#[tokio::test]
async fn a_replica_whose_source_died_within_a_transaction_stops_at_once_and_keeps_nothing_of_it() {
    let source = Mysqld::start(&[]).await;
    promoted(&source).await;
    let mut writer = source.session().await;
    writer.query_drop("CREATE TABLE understudy.big (id INT PRIMARY KEY, bytes LONGBLOB NOT NULL)").await.unwrap();
    let whole = source.admin().status(SOON).await.unwrap().executed;
    let mut replicas = Vec::new();
    for id in ["--server-id=8", "--server-id=9", "--server-id=10"] {
        let (replica, valve) = (Mysqld::start(&[id]).await, Valve::to(source.port).await);
        let from =
            Source { address: valve.address, account: account(schema::REPLICATION), ca_file: source.path("ca.crt") };
        replica.admin().follow(&from, SOON).await.unwrap();
        assert_eq!(replica.admin().wait_executed(&whole, SOON).await, Ok(true));
        replicas.push((replica, valve));
    }

    for (_, valve) in &replicas {
        valve.shut_after(3 << 20);
    }
    let rows: Vec<_> = (0..16).map(|id| format!("({id}, REPEAT('x', 500000))")).collect();
    writer.query_drop(format!("INSERT INTO understudy.big VALUES {}", rows.join(", "))).await.unwrap();
    for (replica, valve) in &mut replicas {
        valve.is_shut(SOON).await;
        replica.is_within_a_transaction(SOON).await;
    }
    let [a, b, c] = &replicas[..] else { panic!("three") };
    let other = Source {
        address: ([127, 0, 0, 1], free_port()).into(),
        account: account(schema::REPLICATION),
        ca_file: source.path("ca.crt"),
    };

    a.0.admin().stop_receiving(SOON).await.unwrap();
    a.0.admin().stop_applying(SOON).await.unwrap();
    // Told to stop once, the applier waits for the rest even when it is killed.
    let stopped = b.0.session().await.query_drop("SET GLOBAL rpl_stop_replica_timeout = 2; STOP REPLICA").await;
    assert!(matches!(stopped, Err(mysql_async::Error::Server(ref e)) if e.code == 1875), "{stopped:?}");
    b.0.admin().forget_source(SOON).await.unwrap();
    c.0.admin().follow(&other, SOON).await.unwrap();
    for (replica, _) in &replicas {
        assert_eq!(replica.admin().status(SOON).await.unwrap().executed, whole);
    }
    let direct = Source { address: ([127, 0, 0, 1], source.port).into(), ..other };
    let all = source.admin().status(SOON).await.unwrap().executed;
    for (replica, _) in [b, c] {
        replica.admin().follow(&direct, SOON).await.unwrap();
        assert_eq!(replica.admin().wait_executed(&all, SOON).await, Ok(true), "it is sent again");
        assert_eq!(replica.admin().replication(SOON).await.unwrap().unwrap().apply_error, None);
    }
    promoted(&a.0).await;
    let write = "INSERT INTO understudy.big VALUES (0, 'of the next primary')";
    a.0.session().await.query_drop(write).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_applies_a_whole_transaction_is_waited_for_however_often_the_server_says_that_it_is_busy() {
    let (source, replica) = (Mysqld::start(&[]).await, Mysqld::start(&["--server-id=8"]).await);
    promoted(&source).await;
    let mut writer = source.session().await;
    writer.query_drop("CREATE TABLE understudy.held (id INT PRIMARY KEY, n INT NOT NULL)").await.unwrap();
    writer.query_drop("INSERT INTO understudy.held VALUES (1, 0)").await.unwrap();
    let from = Source {
        address: ([127, 0, 0, 1], source.port).into(),
        account: account(schema::REPLICATION),
        ca_file: source.path("ca.crt"),
    };
    let admin = replica.admin();
    admin.follow(&from, SOON).await.unwrap();
    let before = source.admin().status(SOON).await.unwrap().executed;
    assert_eq!(admin.wait_executed(&before, SOON).await, Ok(true));
    let mut holder = replica.session().await;
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("SELECT n FROM understudy.held FOR SHARE").await.unwrap();
    writer.query_drop("UPDATE understudy.held SET n = 1").await.unwrap();
    let whole = source.admin().status(SOON).await.unwrap().executed;
    let waits = "SELECT COUNT(*) FROM performance_schema.data_lock_waits";
    let stops = "SELECT COUNT_STAR FROM performance_schema.events_statements_summary_global_by_event_name \
                 WHERE EVENT_NAME = 'statement/sql/replica_stop'";
    let mut watcher = replica.session().await;
    let is_held = async {
        while watcher.query_first::<u64, _>(waits).await.unwrap() != Some(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, is_held).await.expect("the applier waits for the row");
    let begun = watcher.query_first::<u64, _>(stops).await.unwrap().unwrap();
    let release = async {
        // Twice the server said that the applier is busy.
        while watcher.query_first::<u64, _>(stops).await.unwrap().unwrap() < begun + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        holder.query_drop("ROLLBACK").await.unwrap();
    };
    // Each time it took the server up to 4 s.
    let long = 3 * SOON;
    let (stopped, released) = tokio::join!(admin.stop_applying(long), tokio::time::timeout(long, release));
    released.expect("it said so");
    stopped.unwrap();
    assert_eq!(admin.status(SOON).await.unwrap().executed, whole);
}

#[tokio::test]
async fn a_receiver_on_its_way_to_a_source_that_does_not_answer_keeps_no_applier_from_being_stopped() {
    let (silent, replica) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Mysqld::start(&[]).await);
    let from = Source {
        address: silent.local_addr().unwrap(),
        account: account(schema::REPLICATION),
        ca_file: replica.path("ca.crt"),
    };
    let admin = replica.admin();
    admin.follow(&from, SOON).await.unwrap();
    // The kernel accepts, and nobody greets: so it is with a source whose process is stopped.
    let (held, _) = tokio::time::timeout(SOON, silent.accept()).await.unwrap().unwrap();
    let mut watcher = replica.session().await;
    // The table of states has the thread only of a receiver that is connected.
    let on_its_way = "SELECT threads.THREAD_ID FROM performance_schema.threads, performance_schema.replication_connection_status AS receiver \
                      WHERE NAME IN ('thread/sql/replica_io', 'thread/sql/slave_io') AND receiver.SERVICE_STATE = 'CONNECTING'";
    let receiver: Option<u64> = watcher.query_first(on_its_way).await.unwrap();
    assert!(receiver.is_some());

    admin.follow(&from, SOON).await.unwrap();
    assert_eq!(watcher.query_first::<u64, _>(on_its_way).await.unwrap(), receiver, "it goes on trying by itself");
    admin.stop_applying(SOON).await.unwrap();
    assert_eq!(watcher.query_first::<u64, _>(on_its_way).await.unwrap(), receiver, "nobody waited for its end");
    let left = admin.replication(SOON).await.unwrap().unwrap();
    assert!(!left.applying && !left.receiving, "{left:?}");
    promoted(&replica).await;
    drop((held, silent));
    admin.forget_source(SOON).await.unwrap();
    assert_eq!(admin.replication(SOON).await, Ok(None));
}

#[tokio::test]
async fn a_probe_goes_through_every_stage_and_is_told_who_is_read_only() {
    let server = Mysqld::start(&[]).await;
    let commit = target(&server, Depth::Commit);
    let (outcome, stages) = try_once(&commit, quick()).await;
    assert_eq!(outcome, Err(Failure { stage: Stage::Commit, error: ProbeError::ReadOnly }));
    assert_eq!(stages, STAGES);

    promoted(&server).await;
    // The first login asks for the password itself, the later ones are answered from the server's cache.
    for _ in 0..3 {
        let (outcome, stages) = try_once(&commit, quick()).await;
        assert!(matches!(outcome, Ok(Success { commit_took: Some(_) })), "{outcome:?}");
        assert_eq!(stages, STAGES);
    }
    let (outcome, stages) = try_once(&target(&server, Depth::Select), quick()).await;
    assert_eq!(outcome, Ok(Success { commit_took: None }));
    assert_eq!(stages, STAGES[..4]);
}

#[tokio::test]
async fn a_probe_tells_a_stranger_from_a_server() {
    let server = Mysqld::start(&[]).await;
    let good = target(&server, Depth::Select);

    let other_name = Trust::new(&std::fs::read_to_string(server.path("ca.crt")).unwrap(), "other.example").unwrap();
    let (outcome, _) = try_once(&Target { trust: other_name, ..good.clone() }, quick()).await;
    assert!(
        matches!(&outcome, Err(Failure { stage: Stage::Auth, error: ProbeError::Other { message } }) if message.contains("TLS")),
        "{outcome:?}"
    );

    let wrong = Account { password: "wrong".to_owned(), ..account(schema::PROBE) };
    let (outcome, _) = try_once(&Target { account: wrong, ..good.clone() }, quick()).await;
    assert!(
        matches!(outcome, Err(Failure { stage: Stage::Auth, error: ProbeError::Server { code: 1045, .. } })),
        "{outcome:?}"
    );

    let nobody = Target { address: ([127, 0, 0, 1], free_port()).into(), ..good };
    let (outcome, _) = try_once(&nobody, quick()).await;
    assert!(matches!(outcome, Err(Failure { stage: Stage::Tcp, error: ProbeError::Refused { .. } })), "{outcome:?}");
}

#[tokio::test]
async fn a_full_server_is_told_from_a_dead_one_and_still_answers_on_its_admin_port() {
    let server = Mysqld::start(&["--max-connections=10"]).await;
    promoted(&server).await;
    let reader = account(schema::READER);
    let options = || {
        let tls = mysql_async::SslOpts::default()
            .with_disable_built_in_roots(true)
            .with_root_certs(vec![std::path::PathBuf::from(server.path("ca.crt")).into()])
            .with_danger_tls_hostname_override(Some("metrics-0.shard.understudy.internal"));
        mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(server.port)
            .user(Some(reader.user.clone()))
            .pass(Some(reader.password.clone()))
            .prefer_socket(false)
            .ssl_opts(Some(tls))
    };
    let mut held = Vec::new();
    while let Ok(conn) = mysql_async::Conn::new(options()).await {
        held.push(conn);
    }
    assert!(held.len() >= 9, "{}", held.len());
    let (outcome, _) = try_once(&target(&server, Depth::Commit), quick()).await;
    assert!(
        matches!(outcome, Err(Failure { error: ProbeError::TooManyConnections { whose: Limit::Server }, .. })),
        "{outcome:?}"
    );

    let through_admin_port = Target {
        address: ([127, 0, 0, 1], server.admin_port).into(),
        account: account(schema::ADMIN),
        ..target(&server, Depth::Commit)
    };
    let (outcome, _) = try_once(&through_admin_port, quick()).await;
    assert!(outcome.is_ok(), "{outcome:?}");

    assert_eq!(server.admin().cut_clients(SOON).await, Ok(u32::try_from(held.len()).unwrap()));
    let (outcome, _) = try_once(&target(&server, Depth::Commit), quick()).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn a_stopped_server_accepts_and_never_greets_and_leaves_no_socket_behind() {
    let server = Mysqld::start(&[]).await;
    promoted(&server).await;
    let commit = target(&server, Depth::Commit);
    assert!(try_once(&commit, quick()).await.0.is_ok());
    let admin = server.admin();
    admin.status(SOON).await.unwrap();

    server.signal("STOP");
    let quick = Deadlines { stage: Duration::from_millis(100), commit: Duration::from_millis(100) };
    let before = open_sockets();
    for _ in 0..20 {
        let (outcome, stages) = try_once(&commit, quick).await;
        assert_eq!(outcome, Err(Failure { stage: Stage::Greeting, error: ProbeError::Timeout }));
        assert_eq!(stages, STAGES[..2]);
        let within = Duration::from_millis(50);
        assert!(matches!(admin.status(within).await, Err(SqlError::Deadline { .. })));
    }
    // What was given up is closed by a task of the client library's own, hence a moment later.
    let closed = async {
        while open_sockets() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, closed).await.unwrap();

    server.signal("CONT");
    assert!(admin.status(SOON).await.is_ok());
    assert!(try_once(&commit, self::quick()).await.0.is_ok());
}

fn open_sockets() -> usize {
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    links.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
}

#[tokio::test]
async fn a_locked_heartbeat_row_is_an_error_of_the_server_and_no_stall() {
    let server = Mysqld::start(&[]).await;
    promoted(&server).await;
    let commit = target(&server, Depth::Commit);
    assert!(try_once(&commit, quick()).await.0.is_ok());
    let mut holder = server.session().await;
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("UPDATE understudy.heartbeat SET seq = 0").await.unwrap();
    let (outcome, _) = try_once(&commit, quick()).await;
    assert!(
        matches!(outcome, Err(Failure { stage: Stage::Commit, error: ProbeError::Server { code: 1205, .. } })),
        "{outcome:?}"
    );
    holder.query_drop("ROLLBACK").await.unwrap();
    assert!(try_once(&commit, quick()).await.0.is_ok());
}

#[tokio::test]
async fn who_holds_what_a_probe_waits_for_is_named() {
    let server = Mysqld::start(&[]).await;
    promoted(&server).await;
    let commit = target(&server, Depth::Commit);
    assert!(try_once(&commit, quick()).await.0.is_ok());
    let admin = server.admin();
    let mut holder = server.session().await;
    let connection: u64 = holder.query_first("SELECT CONNECTION_ID()").await.unwrap().unwrap();
    for (case, take, give, locked) in [
        ("a row", "BEGIN", "ROLLBACK", "row"),
        ("a table", "LOCK TABLES understudy.heartbeat READ", "UNLOCK TABLES", "TABLE understudy.heartbeat"),
        ("everything", "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES", "GLOBAL"),
    ] {
        holder.query_drop(take).await.unwrap();
        if case == "a row" {
            holder.query_drop("UPDATE understudy.heartbeat SET seq = 0").await.unwrap();
        }
        let probing = async { while try_once(&commit, quick()).await.0.is_err() {} };
        let named = async {
            loop {
                if let Some(found) = admin.lock_holder(SOON).await.unwrap() {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(SOON, async {
            tokio::select! {
                found = named => found,
                () = probing => panic!("{case}: the probe does not wait"),
            }
        });
        let found = found.await.unwrap_or_else(|_| panic!("{case}: nobody is named"));
        assert_eq!((found.connection, found.locked.as_str()), (Some(connection), locked), "{case}: {found:?}");
        assert!(!found.statement.is_empty(), "{case}");
        holder.query_drop(give).await.unwrap();
        assert!(try_once(&commit, quick()).await.0.is_ok(), "{case}");
    }
}

#[tokio::test]
async fn an_order_is_carried_out_although_the_server_closed_the_idle_connection() {
    let server = Mysqld::start(&["--wait-timeout=1"]).await;
    let admin = server.admin();
    admin.refuse_writes(SOON).await.unwrap();
    let mut watcher = server.session().await;
    let others = "SELECT COUNT(*) FROM performance_schema.processlist \
                  WHERE USER = 'understudy_admin' AND ID <> CONNECTION_ID()";
    let closed = async {
        while watcher.query_first::<u64, _>(others).await.unwrap() != Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, closed).await.unwrap();
    assert_eq!(admin.cut_clients(SOON).await, Ok(0));
    admin.refuse_writes(SOON).await.unwrap();
}

#[tokio::test]
async fn a_prober_reports_a_freeze_and_its_end_as_news() {
    let server = Mysqld::start(&[]).await;
    promoted(&server).await;
    let prober = Prober::new();
    let (news, mut heard) = watch::channel(0_u32);
    let (_target, targets) = watch::channel(Some(target(&server, Depth::Commit)));
    let deadlines = Deadlines { stage: Duration::from_millis(200), commit: Duration::from_millis(500) };
    let running = prober.clone().run(
        targets,
        Duration::from_millis(20),
        deadlines,
        move || news.send_modify(|n| *n += 1),
        CancellationToken::new(),
    );
    let _running = AbortOnDropHandle::new(tokio::spawn(running));
    let now = std::time::Instant::now;
    let committed = async {
        while prober.probe(now()).and_then(|p| p.committed).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, committed).await.unwrap();

    server.signal("STOP");
    tokio::time::timeout(SOON, heard.changed()).await.unwrap().unwrap();
    let failing = prober.probe(now()).unwrap().failing.unwrap();
    assert_eq!(failing.error, ProbeError::Timeout);

    server.signal("CONT");
    let recovered = async {
        while prober.probe(now()).is_some_and(|p| p.failing.is_some()) {
            heard.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, recovered).await.unwrap();
}
