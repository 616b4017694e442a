//! The samples of one landing row, packed in columns. Pure.
//!
//! ```text
//! series      count n, then n ids of 16 bytes, ascending, distinct
//! samples     0 and one count for every series, or 1 and n counts
//! times       0 and the times of the first series, which are those of every series; or 1 and the times of each series in turn;
//!             a time is the zigzag difference to the one before, of the first to t_min
//! values      8 bytes each, little endian, series by series; codec 1: first all lowest bytes, then all second ones ...
//! ```
//!
//! Integers are LEB128 varints. Codec 0 is these bytes as they are; codec 1 is their length (varint) and one zstd frame. Values are bits,
//! never arithmetic. The codec has a column of its own in the table, so that a new one needs no new table.

use understudy_model::{Sample, SeriesId};

use crate::bytes::{Cursor, Malformed, put_varint, unzigzag, zigzag};

/// The most samples in a block.
pub const MAX_SAMPLES: usize = 8192;
/// The most bytes a decoded body can have: 16 of id, 3 of count, 10 of time and 8 of value for each sample, and the counts.
const MAX_BODY: usize = MAX_SAMPLES * 37 + 32;
/// zstd's fastest regular level.
const LEVEL: i32 = 1;
/// Bodies below this are not worth a zstd frame.
const WORTH_PACKING: usize = 64;

/// Bytes as they are.
pub const CODEC_NONE: u8 = 0;
/// Value bytes by plane, then zstd.
pub const CODEC_ZSTD: u8 = 1;

/// Why stored bytes are not a block: the row was not written by this version, or was damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A codec that is not known here.
    #[error("codec {0} is not known here")]
    Codec(u8),
    /// zstd refused the bytes.
    #[error("the body cannot be unpacked")]
    Unpack,
    /// More than a block holds.
    #[error("a block of {0} bytes or samples is too large")]
    TooLarge(u64),
    /// Bytes end too early.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A flag that is neither 0 nor 1.
    #[error("flag {0} is not known here")]
    Flag(u8),
    /// Bytes after the end.
    #[error("{0} bytes follow the end of the block")]
    Trailing(usize),
}

/// A block in its stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// [`CODEC_NONE`] or [`CODEC_ZSTD`], whichever is smaller.
    pub codec: u8,
    /// The bytes.
    pub body: Vec<u8>,
    /// Earliest and latest time.
    pub times: (i64, i64),
    /// How many samples.
    pub samples: usize,
    /// How many series.
    pub series: usize,
}

/// A decoded block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Each id, ascending, and where its samples end.
    series: Vec<(SeriesId, u32)>,
    samples: Vec<Sample>,
}

impl Block {
    /// Encodes samples that are sorted by series; within a series they stay in the order given. None for no samples.
    pub fn encode(samples: &[(SeriesId, Sample)]) -> Option<Encoded> {
        debug_assert!(samples.len() <= MAX_SAMPLES && samples.is_sorted_by_key(|(id, _)| *id), "cut and sorted");
        let times = samples.iter().map(|(_, s)| s.timestamp_ms);
        let (first, last) = (times.clone().min()?, times.max()?);
        let series: Vec<&[(SeriesId, Sample)]> = samples.chunk_by(|a, b| a.0 == b.0).collect();
        let mut head = Vec::with_capacity(series.len() * 17 + samples.len() * 2 + 16);
        put_varint(&mut head, series.len() as u64);
        for one in &series {
            head.extend_from_slice(&one[0].0.0);
        }
        put_counts(&mut head, &series);
        put_times(&mut head, &series, first);

        let mut plain = head.clone();
        plain.extend(samples.iter().flat_map(|(_, s)| s.bits.to_le_bytes()));
        let encoded = |codec, body| {
            Some(Encoded { codec, body, times: (first, last), samples: samples.len(), series: series.len() })
        };
        if plain.len() >= WORTH_PACKING {
            for shift in (0..64).step_by(8) {
                head.extend(samples.iter().map(|(_, s)| (s.bits >> shift) as u8));
            }
            let mut packed = Vec::new();
            put_varint(&mut packed, head.len() as u64);
            // Without a smaller form the plain one is stored, whatever kept zstd from making one.
            if let Ok(body) = zstd::bulk::compress(&head, LEVEL) {
                packed.extend(body);
                if packed.len() < plain.len() {
                    return encoded(CODEC_ZSTD, packed);
                }
            }
        }
        encoded(CODEC_NONE, plain)
    }

    /// Decodes a row. `t_min` is the row's column. Any bytes are safe to give.
    pub fn decode(codec: u8, body: &[u8], t_min: i64) -> Result<Self, BlockError> {
        match codec {
            CODEC_NONE => Self::parse(body, t_min, Planes::No),
            CODEC_ZSTD => {
                let mut cursor = Cursor(body);
                let length = cursor.varint()?;
                if length > MAX_BODY as u64 {
                    return Err(BlockError::TooLarge(length));
                }
                let plain = zstd::bulk::decompress(cursor.0, length as usize).map_err(|_| BlockError::Unpack)?;
                if plain.len() as u64 != length {
                    return Err(BlockError::Unpack);
                }
                Self::parse(&plain, t_min, Planes::Yes)
            }
            other => Err(BlockError::Codec(other)),
        }
    }

    /// Each series with its samples.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &[Sample])> + '_ {
        (0..self.series.len()).map(|index| (self.series[index].0, self.of_index(index)))
    }

    /// The samples of one series; empty when it has none here.
    pub fn samples_of(&self, id: SeriesId) -> &[Sample] {
        self.series.binary_search_by_key(&id, |(id, _)| *id).map_or(&[], |index| self.of_index(index))
    }

    /// How many samples there are.
    pub fn samples_len(&self) -> usize {
        self.samples.len()
    }

    fn of_index(&self, index: usize) -> &[Sample] {
        let start = if index == 0 { 0 } else { self.series[index - 1].1 as usize };
        &self.samples[start..self.series[index].1 as usize]
    }

    fn parse(bytes: &[u8], t_min: i64, planes: Planes) -> Result<Self, BlockError> {
        let mut cursor = Cursor(bytes);
        let count = cursor.count(16)?;
        let ids: Vec<SeriesId> = cursor.take(count * 16)?.as_chunks::<16>().0.iter().map(|id| SeriesId(*id)).collect();
        let counts = counts(&mut cursor, count)?;
        let total: usize = counts.iter().sum();
        let mut samples = Vec::with_capacity(total);
        times(&mut cursor, &counts, t_min, &mut samples)?;
        let values = cursor.take(total * 8)?;
        if !cursor.0.is_empty() {
            return Err(BlockError::Trailing(cursor.0.len()));
        }
        for (index, sample) in samples.iter_mut().enumerate() {
            let at = |byte: usize| match planes {
                Planes::No => values[index * 8 + byte],
                Planes::Yes => values[byte * total + index],
            };
            sample.bits = (0..8).fold(0, |bits, byte| bits | u64::from(at(byte)) << (8 * byte));
        }
        let mut end = 0;
        let series = ids
            .into_iter()
            .zip(counts)
            .map(|(id, count)| {
                end += count as u32;
                (id, end)
            })
            .collect();
        Ok(Self { series, samples })
    }
}

#[derive(Clone, Copy)]
enum Planes {
    No,
    Yes,
}

fn put_counts(out: &mut Vec<u8>, series: &[&[(SeriesId, Sample)]]) {
    let uniform = series.windows(2).all(|pair| pair[0].len() == pair[1].len());
    out.push(u8::from(!uniform));
    for one in series.iter().take(if uniform { 1 } else { series.len() }) {
        put_varint(out, one.len() as u64);
    }
}

fn counts(cursor: &mut Cursor<'_>, series: usize) -> Result<Vec<usize>, BlockError> {
    let flag = cursor.byte()?;
    let mut counts = Vec::with_capacity(series);
    let mut total = 0_u64;
    for index in 0..series {
        let count = match (flag, index) {
            (0, 1..) => counts[0] as u64,
            (0 | 1, _) => cursor.varint()?,
            (other, _) => return Err(BlockError::Flag(other)),
        };
        total = total.saturating_add(count);
        if total > MAX_SAMPLES as u64 {
            return Err(BlockError::TooLarge(total));
        }
        counts.push(count as usize);
    }
    Ok(counts)
}

fn put_times(out: &mut Vec<u8>, series: &[&[(SeriesId, Sample)]], t_min: i64) {
    let times = |one: &[(SeriesId, Sample)]| one.iter().map(|(_, s)| s.timestamp_ms).collect::<Vec<_>>();
    let shared = series.windows(2).all(|pair| times(pair[0]) == times(pair[1]));
    out.push(u8::from(!shared));
    for one in series.iter().take(if shared { 1 } else { series.len() }) {
        let mut before = t_min;
        for time in times(one) {
            put_varint(out, zigzag(time.wrapping_sub(before)));
            before = time;
        }
    }
}

fn times(cursor: &mut Cursor<'_>, counts: &[usize], t_min: i64, samples: &mut Vec<Sample>) -> Result<(), BlockError> {
    let shared = match cursor.byte()? {
        0 => true,
        1 => false,
        other => return Err(BlockError::Flag(other)),
    };
    for (index, &count) in counts.iter().enumerate() {
        if shared && index > 0 {
            if count != counts[0] {
                return Err(BlockError::Flag(0));
            }
            samples.extend_from_within(..count);
            continue;
        }
        let mut before = t_min;
        for _ in 0..count {
            before = before.wrapping_add(unzigzag(cursor.varint()?));
            samples.push(Sample { timestamp_ms: before, bits: 0 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use understudy_model::STALE_MARKER;

    use super::*;

    fn id(byte: u8) -> SeriesId {
        SeriesId([byte; 16])
    }

    fn round_trip(samples: &[(SeriesId, Sample)]) -> Encoded {
        let encoded = Block::encode(samples).unwrap();
        let block = Block::decode(encoded.codec, &encoded.body, encoded.times.0).unwrap();
        let back: Vec<_> = block.iter().flat_map(|(id, all)| all.iter().map(move |s| (id, *s))).collect();
        assert_eq!(back, samples);
        assert_eq!((encoded.samples, encoded.series), (samples.len(), block.iter().count()));
        encoded
    }

    fn sample(at: i64, bits: u64) -> Sample {
        Sample { timestamp_ms: at, bits }
    }

    #[test]
    fn every_bit_of_a_value_comes_back() {
        let bits = [
            0,
            1 << 63,
            STALE_MARKER,
            f64::NAN.to_bits(),
            f64::NAN.to_bits() | 0xdead,
            f64::INFINITY.to_bits(),
            f64::NEG_INFINITY.to_bits(),
            1,
            u64::MAX,
        ];
        let samples: Vec<_> = bits.iter().enumerate().map(|(i, &b)| (id(1), sample(i as i64, b))).collect();
        round_trip(&samples);
    }

    #[test]
    fn a_scrape_takes_little_more_than_its_ids_and_its_values() {
        let scrape: Vec<_> = (0..=255_u8).map(|i| (id(i), Sample::new(1_763_900_000_000, f64::from(i)))).collect();
        let encoded = round_trip(&scrape);
        assert_eq!(encoded.codec, CODEC_ZSTD);
        assert!(encoded.body.len() < 256 * 24, "{} bytes", encoded.body.len());
    }

    #[test]
    fn times_from_one_end_of_time_to_the_other_come_back() {
        round_trip(&[(id(1), sample(i64::MAX, 1)), (id(1), sample(i64::MIN, 2)), (id(2), sample(0, 3))]);
    }

    #[test]
    fn no_samples_are_no_block() {
        assert_eq!(Block::encode(&[]), None);
    }

    #[test]
    fn a_series_that_is_not_there_has_no_samples() {
        let encoded = Block::encode(&[(id(1), sample(5, 1)), (id(3), sample(5, 2))]).unwrap();
        let block = Block::decode(encoded.codec, &encoded.body, 5).unwrap();
        assert_eq!(block.samples_of(id(3)), [sample(5, 2)]);
        assert!(block.samples_of(id(2)).is_empty());
    }

    #[test]
    fn bytes_that_are_no_block_are_refused() {
        let encoded = Block::encode(&[(id(1), sample(5, 1))]).unwrap();
        assert_eq!(encoded.codec, CODEC_NONE);
        let mut longer = encoded.body.clone();
        longer.push(0);
        let mut claims = Vec::new();
        put_varint(&mut claims, u64::MAX);
        let cases: [(&str, u8, &[u8], BlockError); 5] = [
            ("unknown codec", 9, &encoded.body, BlockError::Codec(9)),
            ("cut short", 0, &encoded.body[..20], BlockError::Malformed(Malformed)),
            ("too long", 0, &longer, BlockError::Trailing(1)),
            ("claims the world", 1, &claims, BlockError::TooLarge(u64::MAX)),
            ("no zstd", 1, &[10, 1, 2, 3], BlockError::Unpack),
        ];
        for (case, codec, body, expected) in cases {
            assert_eq!(Block::decode(codec, body, 5), Err(expected), "{case}");
        }
    }

    proptest! {
        #[test]
        fn blocks_come_back(mut samples in prop::collection::vec((0_u8..20, any::<i64>(), any::<u64>()), 1..300)) {
            samples.sort_by_key(|s| s.0);
            let samples: Vec<_> = samples.into_iter().map(|(s, t, b)| (id(s), sample(t, b))).collect();
            round_trip(&samples);
        }

        #[test]
        fn any_bytes_are_safe_to_decode(codec in 0_u8..2, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let samples = Block::decode(codec, &bytes, 0).map_or(0, |block| block.samples_len());
            prop_assert!(samples <= MAX_SAMPLES);
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0_usize..2000, bit in 0_u8..8) {
            let scrape: Vec<_> = (0..60_u8).map(|i| (id(i), Sample::new(77, f64::from(i)))).collect();
            let mut encoded = Block::encode(&scrape).unwrap();
            let at = at % encoded.body.len();
            encoded.body[at] ^= 1 << bit;
            let samples = Block::decode(encoded.codec, &encoded.body, 77).map_or(0, |block| block.samples_len());
            prop_assert!(samples <= MAX_SAMPLES);
        }
    }
}
