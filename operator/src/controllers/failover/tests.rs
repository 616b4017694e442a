//! What is told of a change of primary, and what its record says then: [`record`] is what is merged, [`waiting`] what is told while
//! nothing can be written, [`registrar`] what is written.

mod record;
mod registrar;
mod waiting;

use k8s_openapi::jiff::Timestamp;
use understudy_api::v1alpha1::{FailoverSpec, FailoverStatus};
use understudy_api::{Failover, Shard};
use understudy_decide::failover::candidate::{Candidate, Ranking, Unfit};
use understudy_decide::failover::record::{Entry, Milestone, Phase, RecordUpdate};
use understudy_decide::failover::snapshot::Kind;
use understudy_wire::evidence::StoredOffset;
use understudy_wire::{Epoch, ReplicaName};

use super::{Job, Measured};

fn update(phase: Phase, entries: Vec<Entry>) -> RecordUpdate {
    RecordUpdate {
        name: "m-5".into(),
        kind: Kind::Failover,
        epoch: Epoch(5),
        from: Some(ReplicaName::new("m-a")),
        to: Some(ReplicaName::new("m-b")),
        cause: Some("ProcessExited".into()),
        message: None,
        phase,
        result: None,
        entries,
        grounds: None,
        offsets_after: None,
    }
}

fn job(update: RecordUpdate, second: i64) -> Job {
    let shard = Shard::new(
        "m",
        serde_json::from_value(serde_json::json!({
            "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" },
        }))
        .expect("a spec"),
    );
    let at = Timestamp::from_second(1_800_000_000 + second).expect("a time");
    Job { shard, update, at, measured: Measured::default() }
}

fn empty() -> Failover {
    Failover::new(
        "m-5",
        FailoverSpec {
            shard: "m".into(),
            kind: Default::default(),
            reason: None,
            target: None,
            drill: None,
            epoch: Some(5),
        },
    )
}

fn offset(next_offset: i64) -> StoredOffset {
    StoredOffset { consumer: "store".into(), topic: "t".into(), partition: 0, next_offset }
}

fn ranking() -> Ranking {
    let fit = |name: &str| Candidate {
        name: ReplicaName::new(name),
        executed: Default::default(),
        reach: Default::default(),
        offsets: 0,
        free: 0,
        elsewhere: false,
        delay: None,
    };
    Ranking { fit: vec![fit("m-b"), fit("m-c")], unfit: vec![(ReplicaName::new("m-d"), Unfit::Condemned)] }
}

/// The same, about another shard in a namespace.
fn of_shard(shard: &str, update: RecordUpdate, second: i64) -> Job {
    let mut job = job(RecordUpdate { name: format!("{shard}-5"), ..update }, second);
    job.shard.metadata.name = Some(shard.to_owned());
    job.shard.metadata.namespace = Some("prod".to_owned());
    job
}

fn steps(status: &FailoverStatus) -> Vec<&str> {
    status.timeline.iter().map(|entry| entry.step.as_str()).collect()
}

/// What is to be told of the first change of the Shard of this UID.
fn of_uid(uid: &str, phase: Phase, step: Milestone) -> Job {
    let mut job = of_shard("m", update(phase, vec![Entry::now(step, Epoch(5))]), 0);
    job.shard.metadata.uid = Some(uid.to_owned());
    job
}
