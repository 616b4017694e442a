//! The body of an answer, together with what it takes until it is sent. Pure.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::budget::Held;

struct HeldBody {
    text: Box<[u8]>,
    _held: Option<Held>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// A body that gives back the place of its request, and the memory that it takes itself, once nobody has it any more: when it is sent, or
/// its connection has ended. Of what the request holds, that which the body does not take is given back at once.
pub fn held_body(text: Vec<u8>, held: Vec<Held>, place: OwnedSemaphorePermit) -> Bytes {
    // Without the room that was left for more.
    let text = text.into_boxed_slice();
    let mut held = held.into_iter().reduce(|mut all, part| {
        all.absorb(part);
        all
    });
    if let Some(held) = &mut held {
        held.cut_to(text.len());
    }
    Bytes::from_owner(HeldBody { text, _held: held, _place: place })
}
