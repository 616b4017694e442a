//! Bytes to a frame. Pure. Whatever the bytes are: no panic, and no allocation before its size was held against what
//! is left to read and against the limits of the version.

use super::encode::checksum;
use super::wire::{Cursor, unzigzag};
use super::{
    BatchId, Codec, Entry, Frame, HEADER_BYTES, MAGIC, MAX_AGENT_BYTES, MAX_BODY_BYTES, MAX_FRAME_BYTES,
    MAX_LABEL_BYTES, MAX_RATIO, MAX_SAMPLES, MAX_SERIES, VERSION,
};
use crate::identity::{Group, SeriesId};
use crate::labels::{LabelError, Labels};
use crate::tenant::{InvalidTenant, MAX_TENANT_BYTES, Tenant};

/// Why bytes are not a frame. The name of the variant ([`DecodeError::reason`]) labels dead letters and metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DecodeError {
    /// Longer than any frame.
    #[error("the record has {0} bytes, a frame has at most {MAX_FRAME_BYTES}")]
    Oversized(usize),
    /// Ends before it is complete.
    #[error("the frame ends too early")]
    Truncated,
    /// Does not start like a frame.
    #[error("this is not a frame")]
    Magic,
    /// A later version than this reader knows.
    #[error("version {0} of frames is not known here")]
    Version(u8),
    /// A codec this reader does not know.
    #[error("codec {0} is not known here")]
    Codec(u8),
    /// Flags of the header that must be zero are not.
    #[error("reserved flags are set: {0:#06x}")]
    Flags(u16),
    /// The bytes are not those that were written.
    #[error("the checksum is wrong")]
    Checksum,
    /// The declared length of the body is over the limit.
    #[error("the body claims {0} bytes, at most {MAX_BODY_BYTES} are allowed")]
    BodyLength(usize),
    /// The body claims to be far larger than its stored form.
    #[error("the body claims {body} bytes from {stored}")]
    Ratio {
        /// Claimed bytes.
        body: usize,
        /// Bytes there are.
        stored: usize,
    },
    /// The codec failed, or gave another length than declared.
    #[error("the body cannot be unpacked to its declared length")]
    Unpack,
    /// An integer of more than 64 bits.
    #[error("an integer has more than 64 bits")]
    Varint,
    /// More of something than the version allows.
    #[error("{count} {what}, at most {most} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were claimed.
        count: u64,
        /// The limit.
        most: usize,
    },
    /// Text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// Which text.
        what: &'static str,
    },
    /// The tenant's name is not one.
    #[error("tenant")]
    Tenant(#[from] InvalidTenant),
    /// Labels left out: safe only under conditions that do not hold (see the module's text).
    #[error("dictionary kind {0} is not known here")]
    Dictionary(u8),
    /// A label refers to a symbol that is not there.
    #[error("symbol {0} does not exist")]
    Symbol(u64),
    /// The labels are no label set.
    #[error("labels")]
    Labels(#[from] LabelError),
    /// The labels are not in canonical form.
    #[error("labels are not in canonical form")]
    NotCanonical,
    /// A series of another group than the frame's.
    #[error("a series is of another group than the frame")]
    ForeignSeries,
    /// No sample, or a series without one.
    #[error("there is a series without samples, or no series")]
    Empty,
    /// Bytes after the end.
    #[error("{0} bytes follow the end of the frame")]
    Trailing(usize),
}

impl DecodeError {
    /// A short name from a closed set.
    pub fn reason(&self) -> &'static str {
        self.into()
    }
}

/// Reads frames one after the other and keeps what zstd needs between them.
#[derive(Default)]
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Decoder {
    /// Reads a frame. Bytes from anywhere are safe to give: no panic, and memory bounded by the limits of the version.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Frame, DecodeError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(DecodeError::Oversized(bytes.len()));
        }
        let (codec, length, stored) = header(bytes)?;
        match codec {
            Codec::None if stored.len() == length => body(stored),
            Codec::None => Err(DecodeError::Unpack),
            Codec::Zstd => {
                if length > stored.len() * MAX_RATIO {
                    return Err(DecodeError::Ratio { body: length, stored: stored.len() });
                }
                let unpacked = self.zstd.decompress(stored, length).map_err(|_| DecodeError::Unpack)?;
                if unpacked.len() != length {
                    return Err(DecodeError::Unpack);
                }
                body(&unpacked)
            }
        }
    }
}

/// The codec, the length of the body, and the body as stored.
fn header(bytes: &[u8]) -> Result<(Codec, usize, &[u8]), DecodeError> {
    let (header, stored) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(DecodeError::Truncated)?;
    let [m0, m1, m2, m3, version, codec, f0, f1, l0, l1, l2, l3, sum @ ..] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(DecodeError::Magic);
    }
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    if checksum(&header[..12], stored) != u64::from_le_bytes(sum) {
        return Err(DecodeError::Checksum);
    }
    let codec = match codec {
        0 => Codec::None,
        1 => Codec::Zstd,
        other => return Err(DecodeError::Codec(other)),
    };
    match u16::from_le_bytes([f0, f1]) {
        0 => {}
        flags => return Err(DecodeError::Flags(flags)),
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_BODY_BYTES {
        return Err(DecodeError::BodyLength(length));
    }
    Ok((codec, length, stored))
}

fn body(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let mut cursor = Cursor(bytes);
    let tenant = Tenant::new(cursor.text("tenant", MAX_TENANT_BYTES)?)?;
    let job = cursor.text("job", MAX_BODY_BYTES)?;
    let instance = cursor.text("instance", MAX_BODY_BYTES)?;
    let group = Group::new(tenant, job, instance);
    let batch = match cursor.byte()? {
        0 => None,
        1 => Some(BatchId { agent: cursor.text("agent", MAX_AGENT_BYTES)?.into(), sequence: cursor.varint()? }),
        _ => return Err(DecodeError::NotCanonical),
    };
    match cursor.byte()? {
        0 => {}
        kind => return Err(DecodeError::Dictionary(kind)),
    }
    let series = dictionary(&mut cursor, &group)?;
    let samples = series.last().map_or(0, |entry| entry.end as usize);
    if samples == 0 {
        return Err(DecodeError::Empty);
    }
    if samples * 9 > cursor.0.len() {
        return Err(DecodeError::Truncated);
    }
    let mut timestamps = Vec::with_capacity(samples);
    let mut before = 0_i64;
    for _ in 0..samples {
        before = before.wrapping_add(unzigzag(cursor.varint()?));
        timestamps.push(before);
    }
    let values = cursor.take(samples * 8)?.as_chunks::<8>().0.iter().copied().map(u64::from_le_bytes).collect();
    match cursor.0.len() {
        0 => Ok(Frame { group, batch, series, timestamps, values }),
        left => Err(DecodeError::Trailing(left)),
    }
}

fn dictionary(cursor: &mut Cursor<'_>, group: &Group) -> Result<Vec<Entry>, DecodeError> {
    let count = cursor.count("symbols", MAX_BODY_BYTES, 1)?;
    let mut symbols = Vec::with_capacity(count);
    for _ in 0..count {
        symbols.push(cursor.text("symbol", MAX_BODY_BYTES)?);
    }
    // A series takes at least a count of labels, a count of samples, and nine bytes of columns.
    let count = cursor.count("series", MAX_SERIES, 11)?;
    let mut series = Vec::with_capacity(count);
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let (mut label_bytes, mut end) = (0_usize, 0_usize);
    for _ in 0..count {
        pairs.clear();
        for _ in 0..cursor.count("labels", MAX_BODY_BYTES, 2)? {
            let pair = (symbol(cursor, &symbols)?, symbol(cursor, &symbols)?);
            label_bytes += pair.0.len() + pair.1.len();
            pairs.push(pair);
        }
        if label_bytes > MAX_LABEL_BYTES {
            return Err(DecodeError::TooMany {
                what: "bytes of labels",
                count: label_bytes as u64,
                most: MAX_LABEL_BYTES,
            });
        }
        let canonical = pairs.is_sorted_by_key(|pair| pair.0) && pairs.iter().all(|pair| !pair.1.is_empty());
        if !canonical {
            return Err(DecodeError::NotCanonical);
        }
        let labels = Labels::from_unsorted(&mut pairs)?;
        if !group.holds(&labels) {
            return Err(DecodeError::ForeignSeries);
        }
        match cursor.count("samples", MAX_SAMPLES - end, 9)? {
            0 => return Err(DecodeError::Empty),
            samples => end += samples,
        }
        series.push(Entry { id: SeriesId::of(group.tenant(), &labels), labels, end: end as u32 });
    }
    Ok(series)
}

fn symbol<'a>(cursor: &mut Cursor<'_>, symbols: &[&'a str]) -> Result<&'a str, DecodeError> {
    let index = cursor.varint()?;
    let known = usize::try_from(index).ok().and_then(|index| symbols.get(index));
    known.copied().ok_or(DecodeError::Symbol(index))
}
