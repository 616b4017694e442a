//! Labels on pods, volumes, Services and workloads that tools outside may rely on. Pure.

/// The Datastore something belongs to; absent on what belongs to a Shard made by hand.
pub const DATASTORE: &str = "understudy.dev/datastore";
/// The Shard something belongs to.
pub const SHARD: &str = "understudy.dev/shard";
/// UID of the Shard that a volume was made for: another Shard of the same name has another. On passwords, as an annotation: of
/// the Shard that uses them.
pub const SHARD_UID: &str = "understudy.dev/shard-uid";
/// `true` on a volume that its Shard's deletion policy has kept.
pub const RETAINED: &str = "understudy.dev/retained";
/// The Replica something belongs to.
pub const REPLICA: &str = "understudy.dev/replica";
/// `primary`, `standby`, `spare` or `condemned`.
pub const ROLE: &str = "understudy.dev/role";
/// The Consumer something belongs to.
pub const CONSUMER: &str = "understudy.dev/consumer";
/// The Drill that a Failover rehearses; absent on one that nobody rehearsed.
pub const DRILL: &str = "understudy.dev/drill";
/// `replica`, `gateway`, `query` or `consumer`.
pub const COMPONENT: &str = "understudy.dev/component";
