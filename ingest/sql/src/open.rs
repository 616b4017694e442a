//! Opening a connection: TCP, greeting, authentication, settings. I/O.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use understudy_wire::evidence::Stage;

use crate::error::StepError;

/// The most that this client sends or takes in one packet, in bytes; the server's own limit may be lower.
pub const MAX_PACKET: usize = 32 << 20;
/// Prepared statements kept per connection: a statement per table and number of rows.
const STATEMENTS: usize = 128;
/// How long a part of the search for the silent stage may take.
const DIAGNOSE: Duration = Duration::from_millis(300);

/// Who logs in, and how the server proves who it is.
#[derive(Clone)]
pub struct Login {
    /// Account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// None: the connection is not encrypted; for tests against a server without certificates.
    pub tls: Option<Tls>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What the server's certificate must be.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file of the authority that signed it. Read again for each connection, so that it can be rotated.
    pub ca: PathBuf,
    /// The DNS name in it; addresses are never in certificates.
    pub name: String,
}

/// What a server has taken and not answered. Ends when the server has answered or closed the connection; dropped, it is closed here.
pub type Unanswered = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that was not made.
pub struct Unopened {
    /// Why, and in which stage.
    pub error: StepError,
    /// What the server has of it; None when it has nothing.
    pub unanswered: Option<Unanswered>,
}

impl From<StepError> for Unopened {
    fn from(error: StepError) -> Self {
        Self { error, unanswered: None }
    }
}

/// Opens a connection to `address` and runs `settings` on it, all within `deadline`. On failure says which stage it was.
pub async fn open(address: SocketAddr, login: &Login, settings: &str, deadline: Duration) -> Result<Conn, StepError> {
    open_or_keep(address, login, settings, deadline).await.map_err(|unopened| unopened.error)
}

/// The same, for whoever bounds how many sessions it leaves at a server that hangs.
pub async fn open_or_keep(
    address: SocketAddr,
    login: &Login,
    settings: &str,
    deadline: Duration,
) -> Result<Conn, Unopened> {
    let started = tokio::time::Instant::now();
    let mut connecting = Conn::new(options(address, login));
    let mut conn = match timeout(deadline, &mut connecting).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(e)) => {
            let refused = matches!(&e, mysql_async::Error::Io(mysql_async::IoError::Io(e)) if is_refusal(e));
            let stage = if refused { Stage::Tcp } else { Stage::Auth };
            return Err(StepError::of("connect", stage, &e).into());
        }
        Err(_) => {
            let stage = silent_stage(address).await;
            // Nothing of it is at the server before it is connected.
            let unanswered = (stage != Stage::Tcp).then(|| Box::pin(async { drop(connecting.await) }) as Unanswered);
            return Err(Unopened { error: StepError::timeout("connect", stage), unanswered });
        }
    };
    let left = deadline.saturating_sub(started.elapsed()).max(Duration::from_millis(50));
    match timeout(left, conn.query_drop(settings)).await {
        Ok(Ok(())) => Ok(conn),
        Ok(Err(e)) => Err(StepError::of("settings", Stage::Select, &e).into()),
        Err(_) => {
            Err(Unopened { error: StepError::timeout("settings", Stage::Select), unanswered: Some(unanswered(conn)) })
        }
    }
}

/// A connection that missed a deadline, for as long as the server does not answer. It is of no use for anything else.
pub fn unanswered(mut conn: Conn) -> Unanswered {
    // What comes first is the answer that is due, whatever the driver takes it for.
    Box::pin(async move { drop(conn.ping().await) })
}

fn options(address: SocketAddr, login: &Login) -> Opts {
    let tls = login.tls.as_ref().map(|tls| {
        SslOpts::default()
            .with_root_certs(vec![tls.ca.clone().into()])
            .with_disable_built_in_roots(true)
            .with_danger_tls_hostname_override(Some(tls.name.clone()))
    });
    OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .resolved_ips(Some(vec![address.ip()]))
        .tcp_port(address.port())
        .user(Some(login.user.clone()))
        .pass(Some(login.password.clone()))
        .ssl_opts(tls)
        .tcp_nodelay(true)
        .prefer_socket(false)
        .stmt_cache_size(STATEMENTS)
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(28_800))
        .into()
}

fn is_refusal(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut | AddrNotAvailable)
}

/// Which stage keeps silent: asked with bare sockets once a connection has not come about in time.
async fn silent_stage(address: SocketAddr) -> Stage {
    let mut byte = [0_u8; 1];
    match timeout(DIAGNOSE, TcpStream::connect(address)).await {
        Ok(Ok(mut socket)) => match timeout(DIAGNOSE, socket.read(&mut byte)).await {
            Ok(Ok(1)) => Stage::Auth,
            _ => Stage::Greeting,
        },
        _ => Stage::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use understudy_wire::evidence::ProbeError;

    use super::*;

    fn login() -> Login {
        Login { user: "u".into(), password: "p".into(), tls: None }
    }

    #[tokio::test]
    async fn the_stage_that_keeps_silent_is_named() {
        let deadline = Duration::from_millis(100);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = open(silent.local_addr().unwrap(), &login(), "DO 0", deadline).await.unwrap_err();
        assert_eq!((error.stage, error.error), (Stage::Greeting, ProbeError::Timeout));

        let talker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = talker.local_addr().unwrap();
        let serve = async {
            let mut open = Vec::new();
            loop {
                let (mut socket, _) = talker.accept().await.unwrap();
                socket.write_all(b"\x4a").await.unwrap();
                open.push(socket);
            }
        };
        let login = login();
        let error = tokio::select! {
            () = serve => unreachable!("serves for ever"),
            opened = open(address, &login, "DO 0", deadline) => opened.unwrap_err(),
        };
        assert_eq!((error.stage, error.error), (Stage::Auth, ProbeError::Timeout));
    }

    #[tokio::test]
    async fn what_a_server_took_and_did_not_answer_lasts_until_it_closes_the_connection() {
        let deadline = Duration::from_millis(100);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unopened = open_or_keep(silent.local_addr().unwrap(), &login(), "DO 0", deadline).await.err().unwrap();
        let mut unanswered = unopened.unanswered.expect("the kernel took it for the server");
        assert!(timeout(deadline, &mut unanswered).await.is_err());
        let (taken, _) = silent.accept().await.unwrap();
        drop(taken);
        timeout(Duration::from_secs(10), unanswered).await.expect("it has ended");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refusal_at_tcp() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = port.local_addr().unwrap();
        drop(port);
        let Unopened { error, unanswered } =
            open_or_keep(address, &login(), "DO 0", Duration::from_secs(1)).await.err().unwrap();
        assert_eq!(error.stage, Stage::Tcp);
        assert!(matches!(error.error, ProbeError::Refused { .. }), "{error:?}");
        assert!(unanswered.is_none());
    }
}
