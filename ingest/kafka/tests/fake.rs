//! The fake log keeps what a real one keeps, and breaks as it is told.

mod contract;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Log, record};
use tokio::time::Instant;
use understudy_kafka::fake::{MemoryLog, Mood};
use understudy_kafka::{OutRecord, Produce, SendError};

struct Fake(Arc<MemoryLog>);

#[async_trait]
impl Log for Fake {
    async fn with_partitions(count: u32) -> Self {
        Self(Arc::new(MemoryLog::new(count)))
    }

    fn producer(&self) -> Arc<dyn Produce> {
        self.0.clone()
    }

    async fn records(&self, partition: i32) -> Vec<OutRecord> {
        self.0.records(partition)
    }
}

contract!(Fake);

#[tokio::test(start_paused = true)]
async fn each_mood_fails_in_its_own_way() {
    let log = MemoryLog::new(1);
    let records = || vec![record(0, "a"), record(0, "b")];
    let deadline = || Instant::now() + Duration::from_secs(5);
    for (mood, stored, error) in [
        (Mood::Full, 0, SendError::Overloaded),
        (Mood::Refusing, 0, SendError::Refused { failed: 2, records: 2, first: "refused".to_owned() }),
        (Mood::Torn, 1, SendError::Refused { failed: 1, records: 2, first: "refused".to_owned() }),
        (Mood::Dead, 1, SendError::Deadline { unanswered: 2, records: 2 }),
        (Mood::Silent, 3, SendError::Deadline { unanswered: 2, records: 2 }),
    ] {
        log.set_mood(mood);
        assert_eq!(log.send(records(), deadline()).await, Err(error), "{mood:?}");
        assert_eq!(log.all().len(), stored, "{mood:?}");
    }
}
