//! A frame to bytes. Pure.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3;

use super::wire::{put_text, put_varint, zigzag};
use super::{Codec, Frame, HEADER_BYTES, MAGIC, MAX_AGENT_BYTES, MAX_BODY_BYTES, MAX_RATIO, VERSION};

/// zstd's fastest regular level: the body is columns of nearly equal numbers and interned text, higher ones gain little.
const ZSTD_LEVEL: i32 = 1;
/// Bodies below this many bytes are stored plain.
const WORTH_PACKING: usize = 256;

/// Why a frame cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The name of the agent is longer than [`MAX_AGENT_BYTES`].
    #[error("the name of the agent has {0} bytes, at most {MAX_AGENT_BYTES} are allowed")]
    Agent(usize),
    /// The body is over its limit; a frame from a builder never is.
    #[error("the body has {0} bytes, at most {MAX_BODY_BYTES} are allowed")]
    Body(usize),
    /// zstd refused.
    #[error("compress the body")]
    Compress(#[source] std::io::Error),
}

/// Writes frames one after the other and keeps what zstd needs between them: some hundred kilobytes that would
/// otherwise be made and thrown away for each frame.
pub struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    /// An encoder for a codec.
    pub fn new(codec: Codec) -> Result<Self, EncodeError> {
        let zstd = match codec {
            Codec::None => None,
            Codec::Zstd => Some(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(EncodeError::Compress)?),
        };
        Ok(Self { zstd })
    }

    /// The bytes of a frame. The body is stored plain where the codec would not make it smaller, or so small that a
    /// reader would take it for a bomb.
    pub fn encode(&mut self, frame: &Frame) -> Result<Vec<u8>, EncodeError> {
        let body = body(frame)?;
        if let Some(zstd) = &mut self.zstd
            && body.len() >= WORTH_PACKING
        {
            let packed = zstd.compress(&body).map_err(EncodeError::Compress)?;
            if packed.len() < body.len() && body.len() <= packed.len() * MAX_RATIO {
                return Ok(assemble(Codec::Zstd, body.len(), &packed));
            }
        }
        Ok(assemble(Codec::None, body.len(), &body))
    }
}

fn assemble(codec: Codec, length: usize, stored: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + stored.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, codec as u8, 0, 0]);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    let checksum = checksum(&out, stored);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(stored);
    out
}

/// Over the header up to the checksum and the body as stored, so that damage is seen before anything is unpacked.
pub(super) fn checksum(header: &[u8], stored: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(header);
    hasher.update(stored);
    hasher.digest()
}

fn body(frame: &Frame) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(frame.values.len() * 10 + 1024);
    let group = &frame.group;
    for text in [group.tenant().as_str(), group.job(), group.instance()] {
        put_text(&mut out, text);
    }
    match &frame.batch {
        None => out.push(0),
        Some(batch) if batch.agent.len() > MAX_AGENT_BYTES => return Err(EncodeError::Agent(batch.agent.len())),
        Some(batch) => {
            out.push(1);
            put_text(&mut out, &batch.agent);
            put_varint(&mut out, batch.sequence);
        }
    }
    out.push(0);
    put_dictionary(&mut out, frame);
    let mut before = 0_i64;
    for &timestamp in &frame.timestamps {
        put_varint(&mut out, zigzag(timestamp.wrapping_sub(before)));
        before = timestamp;
    }
    for value in &frame.values {
        out.extend_from_slice(&value.to_le_bytes());
    }
    if out.len() > MAX_BODY_BYTES {
        return Err(EncodeError::Body(out.len()));
    }
    Ok(out)
}

fn put_dictionary(out: &mut Vec<u8>, frame: &Frame) {
    let mut symbols: Vec<&str> = Vec::new();
    let mut known: HashMap<&str, u64> = HashMap::new();
    let mut series = Vec::new();
    let mut start = 0;
    for entry in &frame.series {
        put_varint(&mut series, entry.labels.len() as u64);
        for symbol in entry.labels.iter().flat_map(|(name, value)| [name, value]) {
            let index = *known.entry(symbol).or_insert_with(|| {
                symbols.push(symbol);
                symbols.len() as u64 - 1
            });
            put_varint(&mut series, index);
        }
        put_varint(&mut series, u64::from(entry.end - start));
        start = entry.end;
    }
    put_varint(out, symbols.len() as u64);
    for symbol in symbols {
        put_text(out, symbol);
    }
    put_varint(out, frame.series.len() as u64);
    out.extend_from_slice(&series);
}
