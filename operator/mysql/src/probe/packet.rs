//! MySQL packets over one connection: four bytes of header, then the payload. I/O.

use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::ErrPacket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use understudy_wire::evidence::ProbeError;

use crate::error::classify;

/// The longest packet that a probe takes; its own answers are tiny.
const MAX_PACKET: usize = 64 * 1024;

pub(super) const OK: u8 = 0x00;
pub(super) const MORE: u8 = 0x01;
pub(super) const END: u8 = 0xfe;
pub(super) const ERR: u8 = 0xff;

/// One connection and the number that the next packet must carry.
pub(super) struct Channel<S> {
    stream: S,
    next: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, next: 0 }
    }

    /// The stream below, and the number to go on with above whatever is put on it.
    pub(super) fn into_parts(self) -> (S, u8) {
        (self.stream, self.next)
    }

    pub(super) fn with_next(stream: S, next: u8) -> Self {
        Self { stream, next }
    }

    /// Reads one packet. An error packet comes as the error that it says.
    pub(super) async fn read(&mut self) -> Result<Vec<u8>, ProbeError> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.map_err(|e| broken(&e))?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        if length == 0 || length > MAX_PACKET {
            return Err(other(format!("packet of {length} bytes")));
        }
        self.next = header[3].wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.map_err(|e| broken(&e))?;
        if payload[0] == ERR {
            return Err(error_packet(&payload));
        }
        Ok(payload)
    }

    pub(super) async fn write(&mut self, payload: &[u8]) -> Result<(), ProbeError> {
        let length = u32::try_from(payload.len()).map_err(|_| other("packet too long".to_owned()))?.to_le_bytes();
        let mut packet = Vec::with_capacity(4 + payload.len());
        packet.extend_from_slice(&[length[0], length[1], length[2], self.next]);
        packet.extend_from_slice(payload);
        self.next = self.next.wrapping_add(1);
        self.stream.write_all(&packet).await.map_err(|e| broken(&e))?;
        self.stream.flush().await.map_err(|e| broken(&e))
    }

    /// Runs one statement in text form and reads its answer to the end.
    pub(super) async fn query(&mut self, sql: &str) -> Result<(), ProbeError> {
        const COM_QUERY: u8 = 0x03;
        self.next = 0;
        self.write(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        let first = self.read().await?;
        if first[0] == OK {
            return Ok(());
        }
        // A result set: columns and rows up to the packet that ends it. No row of a probe is as long as its mark allows.
        loop {
            let packet = self.read().await?;
            if packet[0] == END && packet.len() < 0xff_ffff {
                return Ok(());
            }
        }
    }

    /// Says goodbye, so that the server does not count the connection as aborted.
    pub(super) async fn quit(&mut self) -> Result<(), ProbeError> {
        const COM_QUIT: u8 = 0x01;
        self.next = 0;
        self.write(&[COM_QUIT]).await?;
        self.stream.shutdown().await.map_err(|e| broken(&e))
    }
}

/// Before the capabilities are agreed on, an error carries no SQL state; the parser tells by the marker that is there or not.
fn error_packet(payload: &[u8]) -> ProbeError {
    let with_state = payload.get(3) == Some(&b'#');
    let capabilities = if with_state { CapabilityFlags::CLIENT_PROTOCOL_41 } else { CapabilityFlags::empty() };
    match ParseBuf(payload).parse::<ErrPacket<'_>>(capabilities) {
        Ok(ErrPacket::Error(e)) => classify(e.error_code(), &e.message_str()),
        Ok(ErrPacket::Progress(_)) => other("progress report".to_owned()),
        Err(e) => other(format!("error packet not understood: {e}")),
    }
}

pub(super) fn other(message: String) -> ProbeError {
    ProbeError::Other { message }
}

pub(super) fn broken(error: &std::io::Error) -> ProbeError {
    ProbeError::Refused { message: error.to_string() }
}
