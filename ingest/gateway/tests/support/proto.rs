//! Protobuf by hand, so that a test can also write what no library would.

use std::time::SystemTime;

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A length-delimited field.
pub fn field(tag: u32, bytes: &[u8]) -> Vec<u8> {
    [varint(u64::from(tag) << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

pub fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
    field(1, &[field(1, name), field(2, value)].concat())
}

pub fn sample_bits(timestamp_ms: i64, bits: u64) -> Vec<u8> {
    let value = [vec![0x09], bits.to_le_bytes().to_vec()].concat();
    field(2, &[value, vec![0x10], varint(timestamp_ms as u64)].concat())
}

pub fn sample(timestamp_ms: i64, value: f64) -> Vec<u8> {
    sample_bits(timestamp_ms, value.to_bits())
}

/// A series of a request.
pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let labels = labels.iter().flat_map(|(name, value)| label(name.as_bytes(), value.as_bytes()));
    let samples = samples.iter().flat_map(|&(at, value)| sample(at, value));
    field(1, &labels.chain(samples).collect::<Vec<_>>())
}

/// A series of a request from its parts.
pub fn series_of(parts: &[Vec<u8>]) -> Vec<u8> {
    field(1, &parts.concat())
}

/// A good series with one sample.
pub fn good(name: &str) -> Vec<u8> {
    series(&[("__name__", name), ("instance", "web-1:9100"), ("job", "node")], &[(now_ms(), 1.0)])
}

/// How the model shows the series of [`good`].
pub fn good_text(name: &str) -> String {
    format!(r#"{name}{{instance="web-1:9100", job="node"}}"#)
}

pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// A snappy block of the parts of a request.
pub fn packed(parts: &[Vec<u8>]) -> Vec<u8> {
    snappy(&parts.concat())
}
