//! The series catalogue: its rows, and the memory of which series are in it already. Pure.
//!
//! A series is put in the catalogue by the transaction that stores its first samples, so that nothing stored is ever out of reach.

use std::collections::{HashMap, HashSet};

use mysql_async::Value;
use understudy_model::{GroupId, Labels, SeriesId, Tenant};
use understudy_sql::Insert;

use crate::bytes::{Cursor, Malformed, put_varint};
use crate::schema::{NAME_BYTES, VALUE_BYTES};

/// Inserts into `series`; a series that is there stays as it is.
pub const INSERT_SERIES: Insert<'static> = Insert {
    head: "INSERT INTO `store`.`series` (tenant, series_id, group_id, labels) VALUES",
    columns: 4,
    tail: "ON DUPLICATE KEY UPDATE tenant = tenant",
};

/// Inserts into `series_label`.
pub const INSERT_LABEL: Insert<'static> = Insert {
    head: "INSERT INTO `store`.`series_label` (tenant, name, value, series_id) VALUES",
    columns: 4,
    tail: "ON DUPLICATE KEY UPDATE tenant = tenant",
};

/// One series of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRow {
    /// Whose.
    pub tenant: Tenant,
    /// Its id; only together with the tenant does it name a series.
    pub id: SeriesId,
    /// Its group.
    pub group: GroupId,
    /// Its labels.
    pub labels: Labels,
}

impl SeriesRow {
    /// The row for [`INSERT_SERIES`].
    pub fn values(&self) -> Vec<Value> {
        vec![
            tenant_value(&self.tenant),
            Value::Bytes(self.id.0.to_vec()),
            Value::Bytes(self.group.0.to_vec()),
            Value::Bytes(encode_labels(&self.labels)),
        ]
    }

    /// The rows for [`INSERT_LABEL`], one for each label.
    pub fn label_values(&self) -> impl Iterator<Item = Vec<Value>> + '_ {
        let rows: HashSet<_> = self.labels.iter().map(|(name, value)| (cut_name(name), cut_value(value))).collect();
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable();
        rows.into_iter().map(|(name, value)| {
            vec![
                tenant_value(&self.tenant),
                Value::Bytes(name.to_vec()),
                Value::Bytes(value.to_vec()),
                Value::Bytes(self.id.0.to_vec()),
            ]
        })
    }
}

/// A tenant as the tables have it.
pub fn tenant_value(tenant: &Tenant) -> Value {
    Value::Bytes(tenant.as_str().as_bytes().to_vec())
}

/// What `series_label` has of a name.
pub fn cut_name(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(NAME_BYTES)]
}

/// What `series_label` has of a value.
pub fn cut_value(value: &str) -> &[u8] {
    &value.as_bytes()[..value.len().min(VALUE_BYTES)]
}

/// Labels as `series.labels` has them: a length (varint) and the text of each name and value in canonical order.
pub fn encode_labels(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::with_capacity(labels.text_bytes() + labels.len() * 4);
    for part in labels.iter().flat_map(|(name, value)| [name, value]) {
        put_varint(&mut out, part.len() as u64);
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// The inverse of [`encode_labels`].
pub fn decode_labels(bytes: &[u8]) -> Result<Labels, Malformed> {
    let mut cursor = Cursor(bytes);
    let mut parts = Vec::new();
    while !cursor.0.is_empty() {
        let length = cursor.count(1)?;
        parts.push(std::str::from_utf8(cursor.take(length)?).map_err(|_| Malformed)?);
    }
    let pairs = parts.chunks(2).map(|pair| if let [name, value] = pair { Ok((*name, *value)) } else { Err(Malformed) });
    let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
    Labels::from_pairs(pairs).map_err(|_| Malformed)
}

/// Which series are certainly in the catalogue of one server, bounded in size.
///
/// It forgets: half of it at a time, the half that was not asked for lately. Forgetting costs a lookup, remembering wrongly would cost
/// data, so it belongs to one (primary, epoch) and is [cleared](KnownSeries::clear) with it.
#[derive(Debug)]
pub struct KnownSeries {
    tenants: HashMap<Tenant, u32>,
    recent: HashSet<(u32, SeriesId)>,
    older: HashSet<(u32, SeriesId)>,
    half: usize,
}

impl KnownSeries {
    /// Remembers about `most` series; 20 bytes each and what the set adds.
    pub fn new(most: usize) -> Self {
        Self { tenants: HashMap::new(), recent: HashSet::new(), older: HashSet::new(), half: (most / 2).max(1) }
    }

    /// Whether it is certainly in the catalogue.
    pub fn contains(&mut self, tenant: &Tenant, id: SeriesId) -> bool {
        let Some(&tenant) = self.tenants.get(tenant) else { return false };
        let key = (tenant, id);
        if self.recent.contains(&key) {
            return true;
        }
        let known = self.older.remove(&key);
        if known {
            self.put(key);
        }
        known
    }

    /// To be told only once a transaction is committed that put it there, or began after it was read from there.
    pub fn insert(&mut self, tenant: &Tenant, id: SeriesId) {
        let next = self.tenants.len() as u32;
        let tenant = *self.tenants.entry(tenant.clone()).or_insert(next);
        self.put((tenant, id));
    }

    /// Forgets all: the next server may not have what this one has.
    pub fn clear(&mut self) {
        self.tenants.clear();
        self.recent.clear();
        self.older.clear();
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&mut self, key: (u32, SeriesId)) {
        if self.recent.len() >= self.half {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u32) -> SeriesId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        SeriesId(bytes)
    }

    #[test]
    fn the_same_id_of_another_tenant_is_another_series() {
        let (a, b) = (Tenant::new("a").unwrap(), Tenant::new("b").unwrap());
        let mut known = KnownSeries::new(10);
        known.insert(&a, id(1));
        assert!(known.contains(&a, id(1)));
        assert!(!known.contains(&b, id(1)));
        known.clear();
        assert!(known.is_empty() && !known.contains(&a, id(1)));
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_in_use() {
        let tenant = Tenant::new("a").unwrap();
        let mut known = KnownSeries::new(100);
        known.insert(&tenant, id(0));
        for n in 1..10_000 {
            known.insert(&tenant, id(n));
            assert!(known.contains(&tenant, id(0)), "asked for each time, yet forgotten after {n}");
            assert!(known.len() <= 100);
        }
    }

    #[test]
    fn a_label_longer_than_its_column_is_cut_there_and_whole_in_the_catalogue() {
        let (name, value) = ("n".repeat(NAME_BYTES + 1), "v".repeat(VALUE_BYTES + 1));
        let labels = Labels::from_pairs([(name.as_str(), value.as_str())]).unwrap();
        let row = SeriesRow { tenant: Tenant::new("a").unwrap(), id: id(1), group: GroupId([0; 16]), labels };
        let columns: Vec<_> = row.label_values().next().unwrap();
        assert_eq!(columns[1], Value::Bytes(vec![b'n'; NAME_BYTES]));
        assert_eq!(columns[2], Value::Bytes(vec![b'v'; VALUE_BYTES]));
        assert_eq!(decode_labels(&encode_labels(&row.labels)), Ok(row.labels));
    }

    #[test]
    fn two_labels_that_are_equal_once_cut_are_one_row() {
        let long = "n".repeat(NAME_BYTES);
        let (one, two) = (format!("{long}1"), format!("{long}2"));
        let labels = Labels::from_pairs([(one.as_str(), "v"), (two.as_str(), "v")]).unwrap();
        let row = SeriesRow { tenant: Tenant::new("a").unwrap(), id: id(1), group: GroupId([0; 16]), labels };
        assert_eq!(row.label_values().count(), 1);
    }

    proptest! {
        #[test]
        fn labels_come_back(pairs in prop::collection::btree_map("[a-zé]{1,8}", "[ -~ü]{1,12}", 0..8)) {
            let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
            prop_assert_eq!(decode_labels(&encode_labels(&labels)), Ok(labels));
        }

        #[test]
        fn any_bytes_are_safe_to_decode(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let labels = decode_labels(&bytes).map_or(0, |labels| labels.len());
            prop_assert!(labels * 4 <= bytes.len());
        }
    }
}
