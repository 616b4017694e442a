//! A shard of real servers, one of them the primary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use understudy_consumer::{Change, Route, Transition};
use understudy_mysql::instance::{EpochRow, Source};
use understudy_mysql::{Instance, schema};
use understudy_sql::{Login, Tls};
use understudy_wire::{Epoch, ReplicaName};

use super::mysqld::{Mysqld, account, passwords};
use super::{SOON, TestLog, until};

/// Real servers, one primary at a time.
pub struct Shard {
    pub servers: Vec<Mysqld>,
    pub epoch: u64,
    routes: watch::Sender<Option<Route>>,
    transitions: watch::Sender<Option<Transition>>,
}

impl Shard {
    /// A primary under epoch 1 and this many replicas that follow it.
    pub async fn start(replicas: usize) -> Self {
        let mut servers = Vec::new();
        for id in 0..=replicas {
            servers.push(Mysqld::start(&[&format!("--server-id={}", id + 1)]).await);
        }
        let mut shard =
            Self { servers, epoch: 0, routes: watch::Sender::new(None), transitions: watch::Sender::new(None) };
        shard.promote(0).await;
        for replica in 1..=replicas {
            shard.follow(replica, 0).await;
        }
        shard
    }

    pub async fn follow(&self, replica: usize, source: usize) {
        let server = &self.servers[replica];
        let source = Source {
            address: ([127, 0, 0, 1], self.servers[source].port).into(),
            account: account(schema::REPLICATION),
            ca_file: self.servers[source].path("ca.crt"),
        };
        server.admin().follow(&source, SOON).await.unwrap();
    }

    /// Makes a server the primary under the next epoch, with whatever it has, and tells the route.
    pub async fn promote(&mut self, index: usize) {
        self.promote_quietly(index).await;
        self.tell(index);
    }

    pub async fn promote_quietly(&mut self, index: usize) {
        self.epoch += 1;
        let admin = self.servers[index].admin();
        admin.forget_source(SOON).await.unwrap();
        admin.take_writes(SOON).await.unwrap();
        let row = EpochRow { epoch: Epoch(self.epoch), primary: name(index) };
        admin.write_epoch(&row, 0, SOON).await.unwrap();
    }

    /// Tells consumers that this server is the primary under the highest epoch.
    pub fn tell(&self, index: usize) {
        self.routes.send_replace(Some(self.route(index, self.epoch)));
        self.transitions.send_replace(None);
    }

    /// Tells consumers that this server is to be the primary under the next epoch. What they follow stays.
    pub fn claim(&self, index: usize, change: Change) {
        let to = Some(self.route(index, self.epoch + 1));
        self.transitions.send_replace(Some(Transition { to, change }));
    }

    fn route(&self, index: usize, epoch: u64) -> Route {
        let address = ([127, 0, 0, 1], self.servers[index].port).into();
        Route { primary: name(index), address, epoch: Epoch(epoch) }
    }

    pub fn transitions(&self) -> watch::Receiver<Option<Transition>> {
        self.transitions.subscribe()
    }

    /// How many connections of consumers a server has.
    pub async fn connections(&self, index: usize) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM performance_schema.processlist WHERE USER = '{}'", schema::CONSUMER);
        self.admin(index).await.query_first(sql).await.unwrap().unwrap_or(0)
    }

    pub fn routes(&self) -> watch::Receiver<Option<Route>> {
        self.routes.subscribe()
    }

    pub fn login(&self) -> Login {
        login(&self.servers[0])
    }

    /// Every server's certificate has an authority of its own here, so all of them are in one file.
    pub fn logins(&self) -> impl Fn() -> Result<Login, String> + Send + Sync + 'static {
        let authorities = self.servers.iter().map(|s| std::fs::read_to_string(s.path("ca.crt")).unwrap());
        let all = PathBuf::from(self.servers[0].path("every-ca.crt"));
        std::fs::write(&all, authorities.collect::<Vec<_>>().join("\n")).unwrap();
        move || Ok(login_with(all.clone()))
    }

    /// A connection of an administrator.
    pub async fn admin(&self, index: usize) -> Conn {
        let server = &self.servers[index];
        let opts = mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(server.admin_port)
            .user(Some(schema::ADMIN))
            .pass(Some(passwords()[schema::ADMIN].clone()))
            .prefer_socket(false)
            .ssl_opts(Some(
                mysql_async::SslOpts::default()
                    .with_root_certs(vec![PathBuf::from(server.path("ca.crt")).into()])
                    .with_danger_tls_hostname_override(Some("metrics-0.shard.understudy.internal")),
            ));
        Conn::new(opts).await.unwrap()
    }

    /// What is stored on a server: offsets, and each line with how often it is there.
    pub async fn stored(&self, index: usize) -> (BTreeMap<i32, i64>, BTreeMap<(i32, i64), i64>) {
        let mut conn = self.admin(index).await;
        let offsets: Vec<(i32, i64)> =
            conn.query("SELECT partition_id, next_offset FROM understudy.consumer_offset").await.unwrap();
        let lines = "SELECT partition_id, kafka_offset, COUNT(*) FROM view_test.line GROUP BY 1, 2";
        let lines: Vec<(i32, i64, i64)> = conn.query(lines).await.unwrap_or_default();
        (offsets.into_iter().collect(), lines.into_iter().map(|(p, o, n)| ((p, o), n)).collect())
    }

    /// Waits until the log is stored on a server, then holds what is there against it: each record once, none missing, none more.
    pub async fn holds_exactly(&self, index: usize, log: &TestLog) {
        let ends = log.ends();
        until("all of the log is stored", || async {
            let (offsets, _) = self.stored(index).await;
            ends.iter().all(|(p, end)| *end == 0 || offsets.get(p) == Some(end))
        })
        .await;
        let (_, lines) = self.stored(index).await;
        let expected: BTreeMap<(i32, i64), i64> =
            ends.iter().flat_map(|(p, end)| (0..*end).map(|o| ((*p, o), 1))).collect();
        assert_eq!(lines, expected);
    }
}

fn name(index: usize) -> ReplicaName {
    ReplicaName::new(format!("metrics-0-{index:04}"))
}

fn login(server: &Mysqld) -> Login {
    login_with(server.path("ca.crt").into())
}

fn login_with(ca: PathBuf) -> Login {
    let tls = Tls { ca, name: "metrics-0.shard.understudy.internal".to_owned() };
    Login { user: schema::CONSUMER.to_owned(), password: passwords()[schema::CONSUMER].clone(), tls: Some(tls) }
}
