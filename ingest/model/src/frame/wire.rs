//! Varints, and a cursor that never reads past its end. Pure.

use super::decode::DecodeError;

/// Appends an integer as LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Small numbers for small differences of either sign.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// What is left to read.
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A count of things of which each takes at least `least` bytes of what is left, and of which there may be `most`.
    pub fn count(&mut self, what: &'static str, most: usize, least: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        if count > most as u64 {
            return Err(DecodeError::TooMany { what, count, most });
        }
        let count = count as usize;
        if count.saturating_mul(least) > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    pub fn text(&mut self, what: &'static str, most: usize) -> Result<&'a str, DecodeError> {
        let length = self.count(what, most, 1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::NotUtf8 { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_comes_back(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut cursor = Cursor(&bytes);
            prop_assert_eq!(cursor.varint(), Ok(value));
            prop_assert!(cursor.0.is_empty());
        }

        #[test]
        fn a_difference_comes_back(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn a_varint_that_overflows_64_bits_is_refused() {
        let overflowing = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Cursor(&overflowing).varint(), Err(DecodeError::Varint));
        assert_eq!(Cursor(&[0x80; 11]).varint(), Err(DecodeError::Varint));
        assert_eq!(Cursor(&[0x80; 3]).varint(), Err(DecodeError::Truncated));
    }
}
