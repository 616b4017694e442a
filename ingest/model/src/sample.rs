//! One measured value. Pure.

use std::fmt;

/// Bits of the NaN by which Prometheus says that a series has ended.
pub const STALE_MARKER: u64 = 0x7ff0_0000_0000_0002;

/// A value at a time. The value is kept as its IEEE 754 bits, never as arithmetic, because NaN payloads carry
/// meaning (see [`STALE_MARKER`]) and a sample must come back exactly as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sample {
    /// Milliseconds since 1970-01-01T00:00:00Z; may be negative.
    pub timestamp_ms: i64,
    /// The bits of a binary64 float.
    pub bits: u64,
}

impl Sample {
    /// A sample of a float that is already one.
    pub fn new(timestamp_ms: i64, value: f64) -> Self {
        Self { timestamp_ms, bits: value.to_bits() }
    }

    /// The value as a float.
    pub fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Whether this sample says that its series has ended.
    pub fn is_stale_marker(self) -> bool {
        self.bits == STALE_MARKER
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({:#018x})", self.value(), self.timestamp_ms, self.bits)
    }
}
