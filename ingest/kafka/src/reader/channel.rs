//! The channel of a reader: bounded by records and by the bytes in them, whichever is met first. Pure, but for waiting.

use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Event;

/// A channel for so many records and so many bytes of their keys, values and headers. A record that is larger than that has the channel for
/// itself.
pub fn channel(records: usize, bytes: usize) -> (Outbox, Events) {
    let (sender, receiver) = mpsc::channel(records.max(1));
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(bytes as usize));
    (Outbox { sender, room, bytes }, Events { receiver })
}

/// Where events go in.
#[derive(Debug)]
pub struct Outbox {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    bytes: u32,
}

/// Where events come out.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Waiting>,
}

/// An event in the channel, with the room that it takes until it is taken out.
#[derive(Debug)]
struct Waiting {
    event: Event,
    _room: OwnedSemaphorePermit,
}

/// Room for one event.
#[derive(Debug)]
pub struct Place {
    slot: mpsc::OwnedPermit<Waiting>,
    room: OwnedSemaphorePermit,
}

impl Outbox {
    /// Waits for room for so many bytes; None when nobody will ever take anything out. Whoever gives up waiting has taken nothing.
    pub async fn reserve(&self, bytes: usize) -> Option<Place> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        let room = self.room.clone().acquire_many_owned(bytes).await.ok()?;
        let slot = self.sender.clone().reserve_owned().await.ok()?;
        Some(Place { slot, room })
    }

    /// Waits for room and puts the event in. Whether somebody may take it out.
    pub async fn send(&self, event: Event) -> bool {
        let place = self.reserve(event.bytes()).await;
        place.map(|place| place.put(event)).is_some()
    }
}

impl Place {
    /// Puts the event in.
    pub fn put(self, event: Event) {
        self.slot.send(Waiting { event, _room: self.room });
    }
}

impl Events {
    /// The next event; None when there will be none.
    pub async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await.map(|waiting| waiting.event)
    }

    /// The next event, if it is there already.
    pub fn try_recv(&mut self) -> Result<Event, TryRecvError> {
        self.receiver.try_recv().map(|waiting| waiting.event)
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::timeout;

    use super::*;
    use crate::reader::Broken;
    use crate::record::RawRecord;

    /// A key, a value and a header that take so many bytes together.
    fn record(bytes: usize) -> Event {
        let part = Bytes::from(vec![0; bytes / 4]);
        Event::Record(RawRecord {
            generation: 1,
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: part.clone(),
            value: Bytes::from(vec![0; bytes - bytes / 4 * 3]),
            headers: vec![("n".repeat(part.len()), part)],
        })
    }

    /// Whether it goes in without anything being taken out.
    async fn goes_in(outbox: &Outbox, event: Event) -> bool {
        timeout(Duration::from_secs(60), outbox.send(event)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_full_by_records_or_by_bytes_and_a_record_larger_than_all_of_it_has_it_for_itself() {
        for (case, records, bytes, each, fit) in [
            ("small ones", 3, 1000, 8, 3),
            ("large ones", 10, 100, 40, 2),
            ("one that fills it", 10, 100, 100, 1),
            ("one that is larger", 10, 100, 5000, 1),
            ("empty ones", 10, 100, 0, 10),
        ] {
            let (outbox, mut events) = channel(records, bytes);
            for index in 0..fit {
                assert!(goes_in(&outbox, record(each)).await, "{case}: {index}");
            }
            for _ in 0..3 {
                assert!(!goes_in(&outbox, record(each)).await, "{case}: one too many");
                assert_eq!(events.recv().await, Some(record(each)), "{case}");
                assert!(goes_in(&outbox, record(each)).await, "{case}: there is room for one again");
            }
            assert_eq!(events.len(), fit, "{case}: whoever gave up waiting left nothing behind");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_record_takes_no_bytes() {
        let (outbox, mut events) = channel(3, 100);
        assert!(goes_in(&outbox, record(100)).await);
        let broken = Event::Broken { generation: 1, partition: 0, why: Broken::Gap { expected: 1, got: 2 } };
        assert!(goes_in(&outbox, broken.clone()).await);
        assert_eq!((events.recv().await, events.recv().await), (Some(record(100)), Some(broken)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_room_hears_that_nobody_will_make_any() {
        let (outbox, events) = channel(10, 100);
        assert!(outbox.send(record(100)).await);
        let (sent, ()) = tokio::join!(outbox.send(record(100)), async { drop(events) });
        assert!(!sent);
    }
}
