//! One staged attempt on a fresh connection. I/O.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use mysql_common::scramble::scramble_sha256;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use understudy_wire::evidence::{ProbeError, Stage};

use super::packet::{Channel, MORE, OK, broken, other};
use super::{Account, Deadlines, Depth, Target};
use crate::tls::Trust;

/// An attempt that went as far as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success {
    /// How long the commit took; None when the attempt was not to commit.
    pub commit_took: Option<Duration>,
}

/// An attempt that did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// How.
    pub error: ProbeError,
}

const MAX_PACKET_SIZE: u32 = 1 << 20;
const UTF8MB4: u8 = 45;
/// Locks are waited for this long: what holds one longer is somebody's statement, not a stall.
const LOCK_WAIT: &str = "SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1";
/// For the goodbye of an attempt that has no deadlines of its own.
const GOODBYE: Duration = Duration::from_millis(500);
const SELECT: &str = "SELECT epoch FROM understudy.epoch WHERE id = 1";

/// Goes through the stages, calling `enter` at the start of each. Never takes longer than the sum of the deadlines.
pub async fn attempt(target: &Target, deadlines: Deadlines, mut enter: impl FnMut(Stage)) -> Result<Success, Failure> {
    let enter = |stage| {
        enter(stage);
        ControlFlow::Continue(())
    };
    go(target, Some(deadlines), enter).await
}

/// The same without deadlines, to be given up from outside: `enter` says whether to go on to the stage, and one that must not ends there.
pub(super) async fn unhurried(
    target: &Target,
    enter: impl FnMut(Stage) -> ControlFlow<()>,
) -> Result<Success, Failure> {
    go(target, None, enter).await
}

async fn go(
    target: &Target,
    deadlines: Option<Deadlines>,
    mut enter: impl FnMut(Stage) -> ControlFlow<()>,
) -> Result<Success, Failure> {
    let deadline = |stage| deadlines.map(|deadlines| deadlines.of(stage));
    let mut enter = |stage| match enter(stage) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Failure { stage, error: ProbeError::Timeout }),
    };
    enter(Stage::Tcp)?;
    let socket = within(Stage::Tcp, deadline(Stage::Tcp), connect(target)).await?;

    enter(Stage::Greeting)?;
    let mut channel = Channel::new(socket);
    let greeting = within(Stage::Greeting, deadline(Stage::Greeting), channel.read()).await?;

    enter(Stage::Auth)?;
    let login = authenticate(channel, &greeting, &target.trust, &target.account);
    let mut channel = within(Stage::Auth, deadline(Stage::Auth), login).await?;

    enter(Stage::Select)?;
    within(Stage::Select, deadline(Stage::Select), async {
        channel.query(LOCK_WAIT).await?;
        channel.query(SELECT).await
    })
    .await?;

    let commit_took = match target.depth {
        Depth::Select => None,
        Depth::Commit => {
            enter(Stage::Commit)?;
            let begun = Instant::now();
            let heartbeat = heartbeat(target.row.as_str());
            within(Stage::Commit, deadline(Stage::Commit), channel.query(&heartbeat)).await?;
            Some(begun.elapsed())
        }
    };
    // The findings are in; a goodbye that fails takes nothing from them.
    let goodbye = deadline(Stage::Select).unwrap_or(GOODBYE);
    if within(Stage::Select, Some(goodbye), channel.quit()).await.is_err() {
        tracing::trace!(address = %target.address, "probe connection closed without a goodbye");
    }
    Ok(Success { commit_took })
}

async fn within<T>(
    stage: Stage,
    deadline: Option<Duration>,
    step: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, Failure> {
    let done = match deadline {
        Some(deadline) => tokio::time::timeout(deadline, step).await.unwrap_or(Err(ProbeError::Timeout)),
        None => step.await,
    };
    done.map_err(|error| Failure { stage, error })
}

async fn connect(target: &Target) -> Result<TcpStream, ProbeError> {
    let socket = TcpStream::connect(target.address).await.map_err(|e| broken(&e))?;
    socket.set_nodelay(true).map_err(|e| broken(&e))?;
    Ok(socket)
}

async fn authenticate(
    mut plain: Channel<TcpStream>,
    greeting: &[u8],
    trust: &Trust,
    account: &Account,
) -> Result<Channel<TlsStream<TcpStream>>, ProbeError> {
    let greeting = ParseBuf(greeting)
        .parse::<HandshakePacket<'_>>(())
        .map_err(|e| other(format!("greeting not understood: {e}")))?;
    let capabilities = CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
        | CapabilityFlags::CLIENT_TRANSACTIONS
        | CapabilityFlags::CLIENT_DEPRECATE_EOF
        | CapabilityFlags::CLIENT_SSL;
    if !greeting.capabilities().contains(capabilities) {
        return Err(other("server offers no TLS or lacks a part of the protocol".to_owned()));
    }
    let mut packet = Vec::new();
    SslRequest::new(capabilities, MAX_PACKET_SIZE, UTF8MB4).serialize(&mut packet);
    plain.write(&packet).await?;
    let (socket, next) = plain.into_parts();
    let tls = TlsConnector::from(trust.config())
        .connect(trust.server_name.clone(), socket)
        .await
        .map_err(|e| other(format!("TLS: {e}")))?;
    let mut channel = Channel::with_next(tls, next);

    let scrambled = scramble_sha256(&greeting.nonce(), account.password.as_bytes()).map(|s| s.to_vec());
    packet.clear();
    HandshakeResponse::new(
        scrambled,
        greeting.server_version_parsed().unwrap_or((8, 0, 0)),
        Some(account.user.as_bytes()),
        None::<&[u8]>,
        Some(AuthPlugin::CachingSha2Password),
        capabilities,
        None,
        MAX_PACKET_SIZE,
    )
    .serialize(&mut packet);
    channel.write(&packet).await?;
    finish_login(&mut channel, &account.password).await?;
    Ok(channel)
}

/// `caching_sha2_password`: the server knows the hash already, or asks for the password itself, which TLS protects.
async fn finish_login(channel: &mut Channel<TlsStream<TcpStream>>, password: &str) -> Result<(), ProbeError> {
    const FAST: u8 = 0x03;
    const FULL: u8 = 0x04;
    let answer = channel.read().await?;
    match answer[..] {
        [OK, ..] => return Ok(()),
        [MORE, FAST] => {}
        [MORE, FULL] => channel.write(&[password.as_bytes(), &[0]].concat()).await?,
        _ => return Err(other(format!("authentication step {:#04x} not understood", answer[0]))),
    }
    match channel.read().await?[..] {
        [OK, ..] => Ok(()),
        ref answer => Err(other(format!("authentication step {:#04x} not understood", answer[0]))),
    }
}

fn heartbeat(row: &str) -> String {
    // A clock of the server would make replaying the log give other data than the first time; the observer's own is only for people.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    format!(
        "INSERT INTO understudy.heartbeat (observer, seq, at_ms) VALUES ('{row}', 1, {now}) AS new \
         ON DUPLICATE KEY UPDATE seq = heartbeat.seq + 1, at_ms = new.at_ms"
    )
}
