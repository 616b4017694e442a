//! Managers as plain processes, and what an operator does with them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use http::Method;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, SslOpts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use understudy_link::evidence::{Event, Reader};
use understudy_link::issue::LEAF_LIFETIME;
use understudy_link::{Authority, CallError, Client, Endpoint, Identity, names};
use understudy_mysql::schema;
use understudy_wire::evidence::{Probe, Server};
use understudy_wire::order::{
    BootstrapIntent, Build, DrillOrder, Fault, FenceOrder, Fenced, Follow, HealOrder, Origin, Peers, Promote, Promoted,
    Refusal, Struck,
};
use understudy_wire::{Epoch, GtidSet, ReplicaName, Report, ShardName};

use crate::mysqld::{self, free_port, give, passwords, put_pem, shared_dir, unprivileged};

const SHARD: &str = "metrics-0";
const UID: &str = "uid-1";
const WITHIN: Duration = Duration::from_secs(30);

/// What the operator's side needs.
pub struct Stage {
    authority: Authority,
    operator: Identity,
    /// Stands for the Kubernetes API: it only has to take connections.
    api_server: Mutex<Option<TcpListener>>,
    api_address: String,
}

/// A manager that runs.
pub struct Actor {
    pub name: ReplicaName,
    pub client: Client,
    off: Off,
    child: Child,
}

/// A manager that does not.
pub struct Off {
    name: ReplicaName,
    server_id: u32,
    dir: TempDir,
    api: u16,
    admin: u16,
    mysql: u16,
    mysql_admin: u16,
    identity: Identity,
}

/// The manager's binary where an unprivileged user can run it.
fn binary() -> &'static Path {
    static STAGED: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = STAGED.get_or_init(|| {
        let dir = shared_dir();
        let path = dir.path().join("understudy-instance");
        fs::copy(env!("CARGO_BIN_EXE_understudy-instance"), &path).unwrap();
        (dir, path)
    });
    path
}

impl Stage {
    pub fn set() -> Self {
        let authority = Authority::generate("test", SystemTime::now()).unwrap();
        let pem = authority.issue(&[names::OPERATOR], SystemTime::now(), LEAF_LIFETIME).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api_address = listener.local_addr().unwrap().to_string();
        Self {
            authority,
            operator: Identity::from_pem(pem).unwrap(),
            api_server: Mutex::new(Some(listener)),
            api_address,
        }
    }

    pub fn silence_api_server(&self) {
        *self.api_server.lock().unwrap() = None;
    }

    /// The certificates of this manager and of the operator are of another authority from now on.
    pub fn change_authority(&self, actor: &Actor) {
        let authority = Authority::generate("test", SystemTime::now()).unwrap();
        let issue = |name: &str| authority.issue(&[name], SystemTime::now(), LEAF_LIFETIME).unwrap();
        put_pem(&actor.off.dir.path().join("tls"), &issue(&names::shard(&ShardName::new(SHARD))));
        assert!(self.operator.replace(issue(names::OPERATOR)).unwrap());
    }

    pub async fn enter(&self, name: &str, server_id: u32) -> Actor {
        let dir = shared_dir();
        for sub in ["volume", "volume/lost+found", "run", "tls", "credentials", "config"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
            give(&dir.path().join(sub));
        }
        let shard = names::shard(&ShardName::new(SHARD));
        put_pem(&dir.path().join("tls"), &self.authority.issue(&[&shard], SystemTime::now(), LEAF_LIFETIME).unwrap());
        for (account, password) in passwords() {
            let file = dir.path().join("credentials").join(account);
            fs::write(&file, password).unwrap();
            give(&file);
        }
        let settings = "[mysqld]\nbinlog_format = ROW\nmax_connections = 50\ninnodb_buffer_pool_size = 32M\ninnodb_redo_log_capacity = 8M\n";
        fs::write(dir.path().join("config/my.cnf"), settings).unwrap();
        let [api, admin, mysql, mysql_admin] = [(); 4].map(|()| free_port());
        let off = Off {
            name: ReplicaName::new(name),
            server_id,
            dir,
            api,
            admin,
            mysql,
            mysql_admin,
            identity: self.operator.clone(),
        };
        self.run(off, UID).await
    }

    pub async fn enter_again(&self, off: Off) -> Actor {
        self.run(off, UID).await
    }

    pub async fn enter_again_as(&self, off: Off, shard_uid: &str) -> Actor {
        self.run(off, shard_uid).await
    }

    async fn run(&self, off: Off, shard_uid: &str) -> Actor {
        let at = |sub: &str| off.dir.path().join(sub);
        let log = fs::OpenOptions::new().append(true).create(true).open(at("log")).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("run")
            .env_clear()
            .env("POD_IP", "127.0.0.1")
            .env("UNDERSTUDY_REPLICA", off.name.as_str())
            .env("UNDERSTUDY_SHARD", SHARD)
            .env("UNDERSTUDY_SHARD_UID", shard_uid)
            .env("UNDERSTUDY_SERVER_ID", off.server_id.to_string())
            .env("UNDERSTUDY_VOLUME_DIR", at("volume"))
            .env("UNDERSTUDY_RUN_DIR", at("run"))
            .env("UNDERSTUDY_CONFIG_DIR", at("config"))
            .env("UNDERSTUDY_TLS_DIR", at("tls"))
            .env("UNDERSTUDY_CREDENTIALS_DIR", at("credentials"))
            .env("UNDERSTUDY_API_LISTEN", format!("127.0.0.1:{}", off.api))
            .env("UNDERSTUDY_ADMIN_LISTEN", format!("127.0.0.1:{}", off.admin))
            .env("UNDERSTUDY_MYSQL_PORT", off.mysql.to_string())
            .env("UNDERSTUDY_MYSQL_ADMIN_PORT", off.mysql_admin.to_string())
            .env("UNDERSTUDY_API_SERVER", &self.api_address)
            .env("UNDERSTUDY_MYSQLD", mysqld::mysqld())
            .env("UNDERSTUDY_DRILLS", "Kill,Wedge")
            .env("UNDERSTUDY_LOG", "debug,hyper=info,h2=info,rustls=info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = unprivileged(&mut command).spawn().unwrap();
        let endpoint =
            Endpoint { address: ([127, 0, 0, 1], off.api).into(), name: names::shard(&ShardName::new(SHARD)) };
        let actor = Actor { name: off.name.clone(), client: Client::new(endpoint, off.identity.clone()), off, child };
        actor
            .until("the manager answers", WITHIN, |server| {
                server.phase != understudy_wire::evidence::Phase::Starting || actor_has_data(&actor)
            })
            .await;
        actor
    }

    /// Tells everybody who is there and who is the primary.
    pub async fn introduce(&self, all: [&Actor; 3], primary: &Actor, epoch: u64) {
        for actor in all {
            let others = all.iter().filter(|other| other.name != actor.name);
            let order = Peers {
                epoch: Epoch(epoch),
                primary: Some((primary.name.clone(), primary.mysql_address())),
                peers: others.map(|other| (other.name.clone(), format!("127.0.0.1:{}", other.off.api))).collect(),
            };
            actor.send::<()>(Method::PUT, "/v1/peers", &order).await.unwrap();
        }
    }
}

fn actor_has_data(actor: &Actor) -> bool {
    actor.off.dir.path().join("volume/data").exists()
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
        self.off.end_mysqld();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.off.dir.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- last words of {}", self.off.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Off {
    /// Outside a pod, mysqld outlives a manager that was killed.
    fn end_mysqld(&self) {
        if let Ok(pid) = fs::read_to_string(self.dir.path().join("run/mysqld.pid")) {
            let pid = pid.trim().to_owned();
            // Its number may be another's by now; only one that runs in this directory is ours.
            let own = fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains(&self.dir.path().display().to_string()));
            if own {
                let _already_gone = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
                while Path::new(&format!("/proc/{pid}")).exists() {
                    std::thread::yield_now();
                }
            }
        }
    }
}

impl Actor {
    fn mysql_address(&self) -> String {
        format!("127.0.0.1:{}", self.off.mysql)
    }

    async fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        order: &impl Serialize,
    ) -> Result<A, Refusal> {
        self.send_to(&self.name, method, path, order).await
    }

    async fn send_to<A: DeserializeOwned>(
        &self,
        addressee: &ReplicaName,
        method: Method,
        path: &str,
        order: &impl Serialize,
    ) -> Result<A, Refusal> {
        match self.client.order(addressee, method, path, order, WITHIN).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused { refusal, .. }) => Err(refusal),
            Err(e) => panic!("{path}: {e}"),
        }
    }

    pub async fn initialise(&self, epoch: u64) -> Result<(), Refusal> {
        self.initialise_as(UID, epoch).await
    }

    pub async fn initialise_as(&self, shard_uid: &str, epoch: u64) -> Result<(), Refusal> {
        let intent = BootstrapIntent { shard_uid: shard_uid.to_owned(), replica: self.name.clone() };
        self.build(epoch, Origin::Initialise { intent }).await
    }

    pub async fn clone_from(&self, donor: &Actor, epoch: u64) -> Result<(), Refusal> {
        self.build(epoch, Origin::Clone { donor: donor.name.clone(), address: donor.mysql_address() }).await
    }

    pub async fn clone_from_address(&self, donor: &str, port: u16, epoch: u64) -> Result<(), Refusal> {
        self.build(epoch, Origin::Clone { donor: ReplicaName::new(donor), address: format!("127.0.0.1:{port}") }).await
    }

    async fn build(&self, epoch: u64, origin: Origin) -> Result<(), Refusal> {
        self.send(Method::POST, "/v1/build", &Build { epoch: Epoch(epoch), replica: self.name.clone(), origin }).await
    }

    pub async fn promote(&self, epoch: u64) -> Result<Promoted, Refusal> {
        self.promote_after(epoch, None).await
    }

    pub async fn promote_after(&self, epoch: u64, after: Option<GtidSet>) -> Result<Promoted, Refusal> {
        let order = Promote { epoch: Epoch(epoch), apply_relay_log_within: 5000, after };
        self.send(Method::POST, "/v1/promote", &order).await
    }

    /// The order reaches this manager and is meant for another.
    pub async fn promote_another(&self, addressee: &Actor, epoch: u64) -> Result<Promoted, Refusal> {
        let order = Promote { epoch: Epoch(epoch), apply_relay_log_within: 5000, after: None };
        self.send_to(&addressee.name, Method::POST, "/v1/promote", &order).await
    }

    pub async fn follow(&self, source: &Actor, epoch: u64) -> Result<(), Refusal> {
        let order = Follow { epoch: Epoch(epoch), source: source.name.clone(), address: source.mysql_address() };
        self.send(Method::POST, "/v1/follow", &order).await
    }

    pub async fn fence(&self, epoch: u64, planned: bool) -> Result<Fenced, Refusal> {
        self.send(Method::POST, "/v1/fence", &FenceOrder { epoch: Epoch(epoch), planned }).await
    }

    pub async fn drill(&self, run: &str, epoch: u64, fault: Fault, hold: Duration) -> Result<Struck, Refusal> {
        let hold = u64::try_from(hold.as_millis()).unwrap();
        let order = DrillOrder { epoch: Epoch(epoch), run: run.to_owned(), fault, hold };
        self.send(Method::POST, "/v1/drill", &order).await
    }

    pub async fn heal(&self, run: &str, epoch: u64) -> Result<(), Refusal> {
        self.send(Method::POST, "/v1/heal", &HealOrder { epoch: Epoch(epoch), run: run.to_owned() }).await
    }

    /// Of the manager alone: mysqld lives on, as it would not in a pod.
    pub fn kill_manager(&self) {
        let sent = Command::new("kill").args(["-KILL", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn watch(&self) -> Watch {
        Watch {
            name: self.name.clone(),
            reader: Reader::new(self.client.endpoint().clone(), self.off.identity.clone()),
        }
    }

    /// The present state as its manager tells it.
    pub async fn server(&self) -> Server {
        self.until("any report", WITHIN, |_| true).await
    }

    pub async fn until(&self, what: &str, within: Duration, holds: impl Fn(&Server) -> bool) -> Server {
        self.watch().until(what, within, holds).await
    }

    /// Waits until this manager's probe of another (or its own) server is as said.
    pub async fn until_sees(&self, what: &str, whom: &Actor, within: Duration, holds: impl Fn(&Probe) -> bool) {
        let seen = |report: &Report| {
            report.evidence.iter().filter(|e| e.subject == whom.name).filter_map(|e| e.probe.as_ref()).any(&holds)
        };
        self.watch().report(what, within, seen).await;
    }

    fn mysqld_pid(&self) -> String {
        fs::read_to_string(self.off.dir.path().join("run/mysqld.pid")).unwrap().trim().to_owned()
    }

    pub async fn signal_mysqld(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.mysqld_pid()]).status().unwrap();
        assert!(sent.success());
    }

    /// A signal to manager and mysqld at once: `STOP` as when a pod is frozen, `CONT` as when it thaws.
    pub async fn signal_all(&self, signal: &str) {
        for pid in [self.child.id().to_string(), self.mysqld_pid()] {
            let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
            assert!(sent.success());
        }
    }

    /// SIGTERM, and the end within its bound.
    pub async fn ask_to_stop(mut self, within: Duration) -> (Off, ExitStatus) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let ended = tokio::time::timeout(within, async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let status = ended.await.unwrap();
        (self.into_off(), status)
    }

    /// SIGKILL of manager and mysqld at once, as when a pod goes.
    pub async fn kill(mut self) -> Off {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.off.end_mysqld();
        self.into_off()
    }

    fn into_off(mut self) -> Off {
        let dir = std::mem::replace(&mut self.off.dir, tempfile::tempdir().unwrap());
        let Off { name, server_id, api, admin, mysql, mysql_admin, identity, .. } = &self.off;
        Off {
            name: name.clone(),
            server_id: *server_id,
            dir,
            api: *api,
            admin: *admin,
            mysql: *mysql,
            mysql_admin: *mysql_admin,
            identity: identity.clone(),
        }
    }

    pub async fn connect(&self, user: &str) -> Result<Conn, mysql_async::Error> {
        let tls = SslOpts::default()
            .with_disable_built_in_roots(true)
            .with_root_certs(vec![self.off.dir.path().join("tls/ca.crt").into()])
            .with_danger_tls_hostname_override(Some(names::shard(&ShardName::new(SHARD))));
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.off.mysql)
            .user(Some(user))
            .pass(Some(passwords()[user].clone()))
            .prefer_socket(false)
            .ssl_opts(Some(tls));
        Conn::new(options).await
    }

    pub async fn write(&self, sql: &str) {
        self.connect(schema::CONSUMER).await.unwrap().query_drop(sql).await.unwrap();
    }

    pub async fn can_write(&self) -> bool {
        let Ok(mut conn) = self.connect(schema::PROBE).await else { return false };
        conn.query_drop("INSERT INTO understudy.heartbeat VALUES ('test', 1, 1) ON DUPLICATE KEY UPDATE seq = seq + 1")
            .await
            .is_ok()
    }

    pub async fn count(&self, sql: &str) -> u64 {
        self.connect(schema::READER).await.unwrap().query_first(sql).await.unwrap().unwrap()
    }
}

/// One manager's stream of evidence.
pub struct Watch {
    name: ReplicaName,
    reader: Reader,
}

impl Watch {
    pub async fn until(&mut self, what: &str, within: Duration, holds: impl Fn(&Server) -> bool) -> Server {
        let server = |report: &Report| report.evidence.iter().find_map(|e| e.server.clone());
        let report = self.report(what, within, |report| server(report).is_some_and(|s| holds(&s))).await;
        server(&report).unwrap()
    }

    async fn report(&mut self, what: &str, within: Duration, holds: impl Fn(&Report) -> bool) -> Report {
        let mut last = None;
        let found = tokio::time::timeout(within, async {
            loop {
                match self.reader.next().await {
                    Event::Report { report, .. } if holds(&report) => return report,
                    event => last = Some(event),
                }
            }
        });
        match found.await {
            Ok(report) => *report,
            Err(_) => panic!("{}: not within {within:?}: {what}; last: {last:#?}", self.name),
        }
    }
}
