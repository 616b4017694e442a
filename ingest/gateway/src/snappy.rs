//! The snappy block around a remote-write request. Pure. Nothing is allocated by what a body says about itself before
//! that was held against the limit and against what the format can do.

use std::fmt;

/// No element of the format yields more than 64 bytes from 3.
const MOST_PER_BYTE: usize = 22;
/// What the framed format starts with; a block that starts so would declare 895 bytes and fail at the next byte.
const STREAM_START: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Why a body is not a snappy block within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It declares more than allowed.
    TooLarge {
        /// What it declares.
        declared: usize,
        /// What is allowed.
        most: usize,
    },
    /// It is not what it claims to be.
    Malformed(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { declared, most } => {
                write!(f, "the body declares {declared} bytes decompressed, at most {most} are allowed")
            }
            Self::Malformed(why) => write!(f, "the body is not a snappy block: {why}"),
        }
    }
}

/// The length that the body declares, if it is allowed and possible.
pub fn declared_length(body: &[u8], most: usize) -> Result<usize, Refused> {
    if body.is_empty() {
        return Err(Refused::Malformed("it is empty"));
    }
    if body.starts_with(STREAM_START) {
        return Err(Refused::Malformed("it is in snappy's framed format, remote write takes the block format"));
    }
    let declared = snap::raw::decompress_len(body).map_err(|_| Refused::Malformed("its length is not readable"))?;
    if declared > most {
        return Err(Refused::TooLarge { declared, most });
    }
    if declared > body.len().saturating_mul(MOST_PER_BYTE) {
        return Err(Refused::Malformed("it declares more than its bytes can hold"));
    }
    if declared == 0 && body.len() > 1 {
        return Err(Refused::Malformed("it declares nothing and holds something"));
    }
    Ok(declared)
}

/// Decompresses a body whose length was declared as `declared`.
pub fn decompress(body: &[u8], declared: usize) -> Result<Vec<u8>, Refused> {
    let mut out = vec![0; declared];
    match snap::raw::Decoder::new().decompress(body, &mut out) {
        Ok(written) if written == declared => Ok(out),
        Ok(_) | Err(_) => Err(Refused::Malformed("its content is damaged")),
    }
}
