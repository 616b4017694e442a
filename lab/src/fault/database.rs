//! Faults that a database suffers from its clients. They come from the host, over the pods' network, with the accounts that the
//! product gives its own clients, and with the client programs of the replica's image.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::holder::Going;
use super::process::Victims;
use super::target::Pod;
use crate::api::Api;
use crate::run;

/// Port of clients.
pub const MYSQL_PORT: u16 = 3306;
/// More connections than this no server of a lab takes.
const MOST: usize = 4000;
/// "Too many connections".
const FULL: u16 = 1040;

/// A replica as a client needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    namespace: String,
    shard: String,
    uid: String,
    address: String,
}

impl Replica {
    /// The replica of this pod.
    pub fn of(pod: &Pod) -> Result<Self> {
        if pod.shard.is_empty() || pod.address.is_empty() {
            bail!("{} is no replica of a shard, or has no address yet", pod.what());
        }
        let (namespace, shard) = (pod.namespace.clone(), pod.shard.clone());
        Ok(Self { namespace, shard, uid: pod.uid.clone(), address: pod.address.clone() })
    }

    /// `mysql` of the replica's own image, as an account of the product's, outside the pod's cgroups; and outside its network, but for the
    /// administrator, who comes from nowhere else.
    fn client(&self, api: &Api, account: &str) -> Result<Command> {
        let path = format!("/api/v1/namespaces/{}/secrets/{}-credentials", self.namespace, self.shard);
        let secret = api.get(&path)?.with_context(|| format!("there is no Secret {}-credentials", self.shard))?;
        let password = secret["data"][account].as_str().with_context(|| format!("the Secret lacks {account}"))?;
        let password = run::output_with(&mut run::sh("base64 --decode"), password.as_bytes())?;
        let mysqld = Victims::Mysqld(self.uid.clone()).processes();
        let mysqld = mysqld.first().with_context(|| format!("no mysqld runs at {}", self.address))?;
        let (namespaces, host) = match account {
            ADMIN => ("--mount --net", "127.0.0.1"),
            _ => ("--mount", self.address.as_str()),
        };
        let mut command = run::sh(&format!("nsenter {namespaces} --target"));
        command.arg(mysqld.pid.to_string()).args(["--", "mysql", "--no-defaults", "--batch", "--skip-column-names"]);
        command.args(["--unbuffered", "--ssl-mode=REQUIRED", "--connect-timeout=5"]);
        command.arg(format!("--host={host}")).arg(format!("--user={account}")).env("MYSQL_PWD", password);
        Ok(command)
    }

    /// Runs statements to their end.
    pub fn run(&self, api: &Api, account: &str, statements: &str) -> Result<String> {
        run::output_with(&mut self.client(api, account)?, statements.as_bytes())
    }

    /// Sends statements on a connection that stays open until it is dropped.
    fn open(&self, api: &Api, account: &str, statements: &str) -> Result<Session> {
        let mut command = run::tied(&self.client(api, account)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("cannot run `nsenter`")?;
        child.stdin.as_mut().context("no way to the client")?.write_all(statements.as_bytes())?;
        Ok(Session(child))
    }
}

/// The account of the instance manager.
pub const ADMIN: &str = "understudy_admin";
const CONSUMER: &str = "understudy_consumer";
const READER: &str = "understudy_reader";

/// A client with an open connection; it ends with this.
struct Session(Child);

impl Session {
    /// Waits for a line of what it prints, such as the first result.
    fn wait_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let out = self.0.stdout.as_mut().context("no way from the client")?;
        let mut byte = [0];
        while byte[0] != b'\n' {
            if out.read(&mut byte)? == 0 {
                bail!("the client ended without an answer");
            }
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The newest table of the store or a view: the one that is written to. Not one that [`heavy_queries`] left behind, for which nobody waits.
const NEWEST: &str = "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
    WHERE table_type = 'BASE TABLE' AND (table_schema = 'store' OR table_schema LIKE 'view\\_%') AND table_schema <> 'view_lab_fault' \
    ORDER BY create_time DESC, table_name DESC LIMIT 1;\n";

/// An open transaction that has read a table, an ALTER TABLE that waits for it, and behind that everybody else. The ALTER TABLE sets
/// a default that the table has, so that nothing is changed should it ever have its turn.
pub fn long_ddl(replica: &Replica, going: &Going<'_>) -> Result<()> {
    let api = Api::new(going.paths());
    let table = replica.run(&api, READER, NEWEST)?.trim().to_owned();
    if table.is_empty() {
        bail!("the replica at {} has no table of the store or of a view yet", replica.address);
    }
    let mut reader =
        replica.open(&api, READER, &format!("BEGIN; SELECT COUNT(*) FROM (SELECT 1 FROM {table} LIMIT 1) one;\n"))?;
    reader.wait_line()?;
    println!("{table}: read in an open transaction");
    let wait = "SELECT CONNECTION_ID(); SET SESSION lock_wait_timeout = 86400;";
    let mut altering =
        replica.open(&api, CONSUMER, &format!("{wait} ALTER TABLE {table} STATS_AUTO_RECALC = DEFAULT;\n"))?;
    let id: u64 = altering.wait_line()?.parse().context("the server gave no connection id")?;
    while going.rest(Duration::from_secs(1)) {}
    // The one that waits goes first, and the server hears of it: else it would have its turn now.
    if let Err(error) = replica.run(&api, CONSUMER, &format!("KILL {id};\n")) {
        println!("{table}: the ALTER TABLE was not ended: {error:#}");
    }
    drop(altering);
    drop(reader);
    Ok(())
}

/// Where big transactions are written and rolled back; the name makes it one that the consumer's account may make.
const SCRATCH: &str = "view_lab_fault";

/// Four clients that sort and group a million rows that do not fit into memory, and one that fills a table and rolls back.
pub fn heavy_queries(replica: &Replica, going: &Going<'_>) -> Result<()> {
    let sort = "SET SESSION cte_max_recursion_depth = 1000000, sort_buffer_size = 32768, tmp_table_size = 1048576; \
         WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 500000) \
         SELECT COUNT(*), MAX(h) FROM (SELECT MD5(i) AS h, REPEAT('x', 400) AS filler FROM n GROUP BY h, filler ORDER BY h, filler) s;\n";
    let double = format!("INSERT INTO {SCRATCH}.heavy (filler) SELECT filler FROM {SCRATCH}.heavy;");
    let rollback = format!(
        "CREATE DATABASE IF NOT EXISTS {SCRATCH}; \
         CREATE TABLE IF NOT EXISTS {SCRATCH}.heavy (id BIGINT AUTO_INCREMENT PRIMARY KEY, filler VARCHAR(400), KEY (filler)); \
         BEGIN; INSERT INTO {SCRATCH}.heavy (filler) VALUES (REPEAT('y', 400)); {} ROLLBACK;\n",
        double.repeat(16)
    );
    let api = Api::new(going.paths());
    std::thread::scope(|scope| {
        for (account, statements) in
            [(READER, sort), (READER, sort), (READER, sort), (READER, sort), (CONSUMER, rollback.as_str())]
        {
            let api = &api;
            scope.spawn(move || {
                while going.rest(Duration::from_millis(100)) {
                    if let Err(error) = run_while_wanted(replica, api, account, statements, going) {
                        println!("{account}: {error:#}");
                        going.rest(Duration::from_secs(2));
                    }
                }
            });
        }
    });
    replica.run(&api, CONSUMER, &format!("DROP DATABASE IF EXISTS {SCRATCH};\n")).map(drop)
}

fn run_while_wanted(replica: &Replica, api: &Api, account: &str, statements: &str, going: &Going<'_>) -> Result<()> {
    let mut session = replica.open(api, account, statements)?;
    // Without more input the client ends after the last statement.
    drop(session.0.stdin.take());
    while session.0.try_wait()?.is_none() {
        if !going.rest(Duration::from_millis(200)) {
            break;
        }
    }
    Ok(())
}

/// Keeps as many connections open as the server takes. Each says nothing, so the server ends it after its `connect_timeout` (10 s),
/// and the next one has its place.
pub fn exhaust(address: &str, going: &Going<'_>) -> Result<()> {
    let address: SocketAddr = address.parse().with_context(|| format!("`{address}` is no address"))?;
    let limit = getrlimit(Resource::Nofile);
    // With fewer files there are fewer connections, which may be enough.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap_or(());
    let mut open: Vec<TcpStream> = Vec::new();
    let mut told = false;
    while going.rest(Duration::from_millis(50)) {
        open.retain_mut(is_open);
        while open.len() < MOST {
            match connect(address) {
                Greeting::Taken(stream) => open.push(stream),
                Greeting::Full => {
                    if !told {
                        println!("{address}: takes no more than {} connections of ours", open.len());
                        told = true;
                    }
                    break;
                }
                Greeting::Nobody => break,
            }
        }
    }
    Ok(())
}

/// How a server takes a new connection.
#[derive(Debug)]
pub enum Greeting {
    /// It greets.
    Taken(TcpStream),
    /// It says that it has too many.
    Full,
    /// It says nothing, or something else.
    Nobody,
}

/// Connects and reads the first packet.
pub fn connect(address: SocketAddr) -> Greeting {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return Greeting::Nobody };
    let mut packet = [0; 7];
    let read = stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .and_then(|()| stream.read_exact(&mut packet))
        .and_then(|()| stream.set_nonblocking(true));
    match (read, packet[4]) {
        (Err(_), _) => Greeting::Nobody,
        (Ok(()), 0xff) if u16::from_le_bytes([packet[5], packet[6]]) == FULL => Greeting::Full,
        (Ok(()), 0xff) => Greeting::Nobody,
        (Ok(()), _) => Greeting::Taken(stream),
    }
}

/// Reads what came meanwhile, and says whether more may come.
fn is_open(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that sends these bytes on its first connection and closes it.
    fn answering(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(bytes).unwrap();
        });
        address
    }

    #[test]
    fn a_full_server_is_told_from_one_that_greets_and_from_one_that_is_silent() {
        assert!(matches!(connect(answering(b"\x4a\0\0\0\x0a9.7.4\0")), Greeting::Taken(_)));
        assert!(matches!(connect(answering(b"\x17\0\0\0\xff\x10\x04Too many")), Greeting::Full));
        assert!(matches!(connect(answering(b"\x17\0\0\0\xff\x6a\x04not allowed")), Greeting::Nobody));
        assert!(matches!(connect(answering(b"")), Greeting::Nobody));
    }

    #[test]
    fn a_connection_that_the_server_ended_makes_room() {
        let Greeting::Taken(mut stream) = connect(answering(b"\x4a\0\0\0\x0a9.7.4\0")) else { panic!("it greets") };
        while is_open(&mut stream) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_table_that_is_locked_is_not_one_of_a_fault() {
        assert!(NEWEST.contains(&format!("table_schema <> '{SCRATCH}'")));
    }

    #[test]
    fn only_a_pod_of_a_shard_is_a_replica() {
        let pod = Pod { namespace: "n".into(), name: "p".into(), ..Pod::default() };
        assert!(Replica::of(&pod).unwrap_err().to_string().contains("n/p is no replica"));
    }
}
