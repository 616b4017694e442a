//! What several test files need: an allocator that counts, and frames that lie well.
#![allow(dead_code, clippy::unwrap_used, reason = "tests: each target uses a part of this, and a failure may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use understudy_model::Labels;
use xxhash_rust::xxh3::xxh3_64;

/// Counts what each thread has allocated and not freed, and the most that was.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counter any more, and nothing to assert either.
    NOW.try_with(|now| {
        now.set(now.get() + bytes);
        MOST.with(|most| most.set(most.get().max(now.get())));
    })
    .unwrap_or(());
}

#[allow(unsafe_code, reason = "an allocator cannot be written without; it only adds up what the system's does")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were allocated at one time by the call, above what was before it.
pub fn allocations<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    MOST.set(before);
    let result = call();
    (result, usize::try_from(MOST.get() - before).unwrap_or(0))
}

/// A label set.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// Bits of floats, strange ones more often than chance would have them.
pub fn sample_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<f64>().prop_map(f64::to_bits),
        Just(0x7ff0_0000_0000_0002),
        Just((-0.0_f64).to_bits()),
    ]
}

/// A frame with a right checksum over whatever header and body.
pub fn checksummed(codec: u8, length: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"USFR\x01".to_vec();
    bytes.extend_from_slice(&[codec, 0, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    let sum = xxh3_64(&[&bytes, body].concat());
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}
