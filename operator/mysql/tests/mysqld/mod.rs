//! A real mysqld for tests, out of an unpacked root file system, under an unprivileged user, with its own loader and libraries.

#![allow(dead_code, reason = "each test file that includes this uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Once, OnceLock};
use std::time::{Duration, SystemTime};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;
use understudy_link::issue::{LEAF_LIFETIME, Pem};
use understudy_link::{Authority, names};
use understudy_mysql::probe::Account;
use understudy_mysql::schema::{self, Passwords};
use understudy_mysql::{Connect, Instance, Server, Trust};
use understudy_wire::ShardName;

/// The user under which mysqld runs when the test runs as root.
pub const UID: u32 = 999;

/// Of the directories that these tests make; the process that made one follows.
const PREFIX: &str = "understudy-mysqld-";

const MISSING: &str = "MYSQLD_ROOT must name an unpacked root file system that holds usr/sbin/mysqld (8.4 or later); `cargo lab test --tier api` sets it";

/// Links or copies what mysqld needs to a place that an unprivileged user can reach, and gives a command that runs it there.
pub fn mysqld() -> &'static Path {
    static STAGED: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, command) = STAGED.get_or_init(|| {
        let root = PathBuf::from(std::env::var_os("MYSQLD_ROOT").expect(MISSING));
        assert!(root.join("usr/sbin/mysqld").exists(), "{MISSING}; it is {}", root.display());
        let dir = shared_dir();
        let at = dir.path();
        for part in ["usr/sbin/mysqld", "usr/lib/x86_64-linux-gnu", "usr/lib/mysql/plugin", "usr/share/mysql"] {
            stage(&root.join(part), &at.join(part));
        }
        let command = at.join("mysqld");
        let script = format!(
            "#!/bin/sh\nexec {0}/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path {0}/usr/lib/x86_64-linux-gnu {0}/usr/sbin/mysqld \
             \"$@\" --basedir={0}/usr --plugin-dir={0}/usr/lib/mysql/plugin --lc-messages-dir={0}/usr/share/mysql --character-sets-dir={0}/usr/share/mysql/charsets\n",
            at.display()
        );
        fs::write(&command, script).unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, command)
    });
    command
}

/// A directory that everybody may enter and, as root, the unprivileged user owns.
pub fn shared_dir() -> TempDir {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let everybody = fs::Permissions::from_mode(0o755);
    let dir = tempfile::Builder::new().prefix(&prefix).permissions(everybody).tempdir().unwrap();
    give(dir.path());
    dir
}

/// Takes away what processes left that have ended: what is shared by all tests of one lives in statics, which nobody drops.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another process may be sweeping too.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Makes the unprivileged user the owner.
pub fn give(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(UID), Some(UID)).unwrap();
    }
}

/// Runs as the unprivileged user.
pub fn unprivileged(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(UID).gid(UID);
    }
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn stage(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let kind = fs::symlink_metadata(from).unwrap().file_type();
    if kind.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            stage(&from.join(&name), &to.join(&name));
        }
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}

/// A port that was free a moment ago, and none from which a kernel makes connections (32768 and on): a client that asks for
/// such a port before a server listens may be connected to itself, and the server finds its port taken.
pub fn free_port() -> u16 {
    /// The first port of each block of 100; whoever listens there has the whole block for as long as the process lives.
    static BLOCK: LazyLock<TcpListener> = LazyLock::new(|| {
        let start = u16::try_from(std::process::id() % 200).unwrap();
        let blocks = (0..200).map(|n| 12_000 + (start + n) % 200 * 100);
        blocks.filter_map(|first| TcpListener::bind(("127.0.0.1", first)).ok()).next().expect("no free block of ports")
    });
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = BLOCK.local_addr().unwrap().port();
    let ports = std::iter::repeat_with(|| first + 1 + TAKEN.fetch_add(1, Ordering::Relaxed) % 99);
    ports.take(99).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no free port in a block of 100")
}

/// The same password for every account would hide a mix-up; these differ.
pub fn passwords() -> BTreeMap<String, String> {
    schema::ACCOUNTS.iter().map(|account| ((*account).to_owned(), format!("pw-'{account}\\"))).collect()
}

/// An account with its password.
pub fn account(name: &str) -> Account {
    Account { user: name.to_owned(), password: passwords()[name].clone() }
}

/// A server that runs, and ends with this value.
pub struct Mysqld {
    pub child: Child,
    pub port: u16,
    pub admin_port: u16,
    pub trust: Trust,
    pub dir: TempDir,
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

impl Mysqld {
    /// Initialises a data directory with the schema and starts a server on it, with these options more.
    pub async fn start(options: &[&str]) -> Self {
        let dir = shared_dir();
        let at = dir.path();
        let authority = Authority::generate("test", SystemTime::now()).unwrap();
        let name = names::shard(&ShardName::new("metrics-0"));
        let pem = authority.issue(&[&name], SystemTime::now(), LEAF_LIFETIME).unwrap();
        put_pem(at, &pem);
        copy(&template().join("data"), &at.join("data"));
        let log = fs::File::create(at.join("log")).unwrap();
        let (port, admin_port) = (free_port(), free_port());
        let path = |name: &str| at.join(name).display().to_string();
        let own = [
            "--no-defaults".to_owned(),
            format!("--datadir={}", path("data")),
            "--secure-file-priv=NULL".to_owned(),
            "--innodb-redo-log-capacity=8M".to_owned(),
            format!("--port={port}"),
            format!("--admin-port={admin_port}"),
            "--admin-address=127.0.0.1".to_owned(),
            "--create-admin-listener-thread=ON".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            "--mysqlx=0".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--server-id=7".to_owned(),
            "--gtid-mode=ON".to_owned(),
            "--enforce-gtid-consistency=ON".to_owned(),
            "--super-read-only=ON".to_owned(),
            "--skip-replica-start".to_owned(),
            "--innodb-buffer-pool-size=32M".to_owned(),
            "--require-secure-transport=ON".to_owned(),
            format!("--socket={}", path("sock")),
            format!("--pid-file={}", path("pid")),
            format!("--ssl-ca={}", path("ca.crt")),
            format!("--ssl-cert={}", path("tls.crt")),
            format!("--ssl-key={}", path("tls.key")),
        ];
        let all: Vec<&OsStr> = own.iter().map(OsStr::new).chain(options.iter().map(OsStr::new)).collect();
        let child = run(&all, &log);
        let mut mysqld = Self { child, port, admin_port, trust: Trust::new(authority.cert(), &name).unwrap(), dir };
        let admin = mysqld.admin();
        let answers = async {
            while admin.status(Duration::from_secs(1)).await.is_err() && matches!(mysqld.child.try_wait(), Ok(None)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answered = tokio::time::timeout(Duration::from_secs(60), answers).await;
        let runs = answered.is_ok() && matches!(mysqld.child.try_wait(), Ok(None));
        assert!(runs, "{}", fs::read_to_string(mysqld.dir.path().join("log")).unwrap());
        mysqld
    }

    /// The server as its manager sees it.
    pub fn admin(&self) -> Server {
        let address = ([127, 0, 0, 1], self.admin_port).into();
        Server::new(&Connect::Tcp(address, self.trust.clone()), &account(schema::ADMIN))
    }

    /// A session of the server's own manager, for what the contract has no word for.
    pub async fn session(&self) -> Conn {
        let options = OptsBuilder::default()
            .socket(Some(self.path("sock")))
            .user(Some(schema::ADMIN))
            .pass(Some(account(schema::ADMIN).password));
        Conn::new(options).await.unwrap()
    }

    /// Waits until the applier has read all that was received, and is within a transaction.
    pub async fn is_within_a_transaction(&self, within: Duration) {
        let sql = "SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_coordinator c \
                   JOIN performance_schema.threads t USING (THREAD_ID) \
                   WHERE c.PROCESSING_TRANSACTION <> '' AND t.PROCESSLIST_STATE LIKE 'Replica has read all relay log%'";
        let mut session = self.session().await;
        let is = async {
            while session.query_first::<u8, _>(sql).await.unwrap() != Some(1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(within, is).await.expect("within a transaction");
    }

    /// Sends a signal to the server.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// A file of this server's directory, as the server can open it.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// A data directory with the schema, made once.
fn template() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let dir = MADE.get_or_init(|| {
        let dir = shared_dir();
        let at = dir.path();
        let init = at.join("init.sql");
        let mut file = fs::File::create(&init).unwrap();
        for statement in schema::statements(&Passwords::new(passwords()).unwrap()) {
            writeln!(file, "{statement};").unwrap();
        }
        give(&init);
        let options = [
            "--no-defaults".to_owned(),
            "--initialize-insecure".to_owned(),
            "--secure-file-priv=NULL".to_owned(),
            "--innodb-redo-log-capacity=8M".to_owned(),
            format!("--datadir={}", at.join("data").display()),
            format!("--init-file={}", init.display()),
        ];
        let log = fs::File::create(at.join("log")).unwrap();
        let made = run(&options.each_ref().map(OsStr::new), &log).wait().unwrap();
        assert!(made.success(), "{}", fs::read_to_string(at.join("log")).unwrap());
        dir
    });
    dir.path()
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            // The identity of a server is its own.
            if name != "auto.cnf" {
                copy(&from.join(&name), &to.join(&name));
            }
        }
    } else {
        fs::copy(from, to).unwrap();
    }
    give(to);
}

/// Writes a certificate the way a mounted Secret has it.
pub fn put_pem(dir: &Path, pem: &Pem) {
    for (name, text) in [("ca.crt", &pem.ca), ("tls.crt", &pem.cert), ("tls.key", &pem.key)] {
        fs::write(dir.join(name), text).unwrap();
        give(&dir.join(name));
    }
}

fn run(arguments: &[&OsStr], log: &fs::File) -> Child {
    let mut command = Command::new(mysqld());
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
    unprivileged(&mut command).spawn().unwrap()
}
