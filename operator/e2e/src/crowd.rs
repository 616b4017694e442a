//! Clients that take all connections of a server and do nothing with them. I/O.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// More than the server of any test lets in.
const MOST: usize = 2_000;
/// "Too many connections".
const TOO_MANY: u16 = 1040;
/// For one connection and its greeting.
const GREETS_WITHIN: Duration = Duration::from_secs(10);

/// Connections that are held until this is dropped. A server counts each from its greeting on, and gives the client 10 s to log in.
#[derive(Debug)]
pub struct Crowd {
    server: SocketAddr,
    held: Vec<TcpStream>,
}

impl Crowd {
    /// Nobody yet.
    pub fn before(server: SocketAddr) -> Self {
        Self { server, held: Vec::new() }
    }

    /// Takes what is free, until the server says that nothing is. How many are held then.
    pub async fn fill(&mut self) -> Result<usize> {
        self.held.retain(is_open);
        loop {
            ensure!(self.held.len() < MOST, "{MOST} connections, and the server still greets");
            let connecting = async {
                let mut stream = TcpStream::connect(self.server).await?;
                let mut said = [0; 7];
                stream.read_exact(&mut said).await?;
                Ok::<_, std::io::Error>((stream, said))
            };
            let greeted = timeout(GREETS_WITHIN, connecting).await.context("the server does not greet")?;
            let (stream, said) = greeted.with_context(|| format!("no connection to {}", self.server))?;
            if !is_greeting(said)? {
                return Ok(self.held.len());
            }
            self.held.push(stream);
        }
    }
}

/// Whether the server has not hung up. What it said meanwhile is thrown away.
fn is_open(stream: &TcpStream) -> bool {
    let mut said = [0; 512];
    match stream.try_read(&mut said) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// The first bytes that a server sends: its greeting, or that it has no connection left.
fn is_greeting(said: [u8; 7]) -> Result<bool> {
    // Three bytes of length and one of sequence come first; then a version, or an error and its code.
    match said[4..] {
        [10, ..] => Ok(true),
        [0xff, low, high] if u16::from_le_bytes([low, high]) == TOO_MANY => Ok(false),
        _ => bail!("neither a greeting nor error {TOO_MANY}: {said:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_told_from_a_server_that_is_full_and_from_anything_else() {
        assert!(is_greeting([74, 0, 0, 0, 10, b'9', b'.']).unwrap());
        assert!(!is_greeting([23, 0, 0, 0, 0xff, 0x10, 0x04]).unwrap());
        assert!(is_greeting([23, 0, 0, 0, 0xff, 0x15, 0x04]).is_err(), "access denied");
    }
}
