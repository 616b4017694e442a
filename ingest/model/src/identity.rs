//! Names that are computed: series, groups, partitions. Pure and stable for ever: golden tests hold the values,
//! because stored data is found by them.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::labels::Labels;
use crate::tenant::Tenant;

/// Between the parts of a hash input. No UTF-8 text holds this byte, so different parts never read alike.
const SEPARATOR: u8 = 0xff;

/// xxh3_128 (big endian) of `tenant FF name FF value FF name FF value FF ...`, labels in canonical order, each part
/// ended by the byte FF.
///
/// Not a cryptographic hash: a tenant can construct two label sets with one id. The tenant is part of the input but
/// that does not stop a hostile one from aiming at somebody else's id, so whoever stores by this id **must** key by
/// tenant and id together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub [u8; 16]);

/// xxh3_128 (big endian) of `tenant FF job FF instance FF`. The same caution as for [`SeriesId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub [u8; 16]);

/// The series of a tenant that share `job` and `instance`: what one scrape yields, stored as one block.
/// A label that is missing counts as empty. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    tenant: Tenant,
    job: Arc<str>,
    instance: Arc<str>,
}

impl SeriesId {
    /// The id of a series.
    pub fn of(tenant: &Tenant, labels: &Labels) -> Self {
        let parts = labels.iter().flat_map(|(name, value)| [name, value]);
        let room = tenant.as_str().len() + labels.text_bytes() + labels.len() * 2 + 1;
        Self(hash(room, std::iter::once(tenant.as_str()).chain(parts)))
    }
}

impl Group {
    /// A group by its parts.
    pub fn new(tenant: Tenant, job: &str, instance: &str) -> Self {
        Self { tenant, job: job.into(), instance: instance.into() }
    }

    /// The group a series belongs to.
    pub fn of(tenant: &Tenant, labels: &Labels) -> Self {
        let (job, instance) = group_labels(labels);
        Self::new(tenant.clone(), job, instance)
    }

    /// Whose data it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Whether a series of the same tenant belongs to this group.
    pub fn holds(&self, labels: &Labels) -> bool {
        group_labels(labels) == (self.job(), self.instance())
    }

    /// The `job` label; empty where the series have none.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The `instance` label; empty where the series have none.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The id of the group, which is also the key of its Kafka records.
    pub fn id(&self) -> GroupId {
        let parts = [self.tenant.as_str(), &self.job, &self.instance];
        let room = parts.iter().map(|part| part.len() + 1).sum();
        GroupId(hash(room, parts))
    }
}

/// `job` and `instance` of a series, empty where missing.
fn group_labels(labels: &Labels) -> (&str, &str) {
    (labels.get("job").unwrap_or_default(), labels.get("instance").unwrap_or_default())
}

/// The partition that a group's records go to, of `partitions` (which must not be 0): the last 8 bytes of the id,
/// big endian, modulo the number of partitions.
pub fn partition_of(group: GroupId, partitions: u32) -> u32 {
    assert_ne!(partitions, 0, "a topic has at least one partition");
    let low = u128::from_be_bytes(group.0) as u64;
    (low % u64::from(partitions)) as u32
}

fn hash<'a>(room: usize, parts: impl IntoIterator<Item = &'a str>) -> [u8; 16] {
    let mut input = Vec::with_capacity(room);
    for part in parts {
        input.extend_from_slice(part.as_bytes());
        input.push(SEPARATOR);
    }
    xxh3_128(&input).to_be_bytes()
}

macro_rules! hex_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}

hex_text!(SeriesId);
hex_text!(GroupId);
