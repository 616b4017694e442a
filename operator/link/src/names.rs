//! The DNS names in certificates. Pure.
//!
//! They are never looked up; they only say who a peer is. The operator makes certificates for the names in `understudy_api::names`, and
//! one of its tests holds that they are these.

use understudy_wire::ShardName;

/// The operator, and the only name from which an instance manager takes orders.
pub const OPERATOR: &str = "operator.understudy.internal";

/// Every replica of a shard: instance manager and mysqld.
pub fn shard(shard: &ShardName) -> String {
    format!("{shard}.shard.understudy.internal")
}

/// Every pod of a consumer, by the name of the Consumer object.
pub fn consumer(consumer: &str) -> String {
    format!("{consumer}.consumer.understudy.internal")
}
