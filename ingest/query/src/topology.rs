//! The shards of a Datastore: where each is read, and what each holds. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use understudy_api::v1alpha1::{DatastoreStatus, Role, ShardStatus};
use understudy_model::{GroupId, partition_of};
use understudy_wire::{Epoch, ReplicaName, ShardName};

/// The port of MySQL in every replica.
const MYSQL_PORT: u16 = 3306;

/// A MySQL server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// The replica.
    pub replica: ReplicaName,
    /// Its MySQL.
    pub address: SocketAddr,
}

/// One shard, as its status was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardView {
    /// Who takes writes; None before the first one does.
    pub primary: Option<Server>,
    /// The epoch under which it does. Never goes down here, whatever a cache says.
    pub epoch: Epoch,
    /// The highest epoch that was claimed: above `epoch` while the primary is being changed.
    pub claimed: Epoch,
    /// Who replicates.
    pub standbys: Vec<Server>,
}

/// Offsets `from <= o < until` of a partition that feed a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: i64,
    /// The first that does not; None while it is open.
    pub until: Option<i64>,
}

/// Which offsets of which partition feed which shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placements(BTreeMap<i32, Vec<(i64, ShardName)>>);

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Whether all shards have been seen once.
    pub is_complete: bool,
    /// By name.
    pub shards: BTreeMap<ShardName, ShardView>,
    /// None until seen.
    pub placements: Option<Placements>,
}

impl ShardView {
    /// Whether another primary is on its way: the one known may be sick, and whoever stands under the epoch in office
    /// may answer until the next one is.
    pub fn is_changing(&self) -> bool {
        self.claimed > self.epoch
    }
}

impl Topology {
    /// Takes over a shard's status. What it says under a lower epoch than one known is old and changes nothing. An epoch
    /// that is only claimed is not in office yet, since no server is at it.
    pub fn apply_shard(&mut self, name: ShardName, status: &ShardStatus) {
        let claimed = Epoch(u64::try_from(status.epoch).unwrap_or(0));
        let view = self.shards.entry(name).or_default();
        if claimed < view.claimed {
            return;
        }
        let epoch = if status.transition.is_some() { view.epoch } else { claimed };
        let primary = status.primary.as_deref().filter(|name| !name.is_empty());
        let address = status.primary_address.as_deref().and_then(|address| address.parse().ok());
        let primary = primary.zip(address).map(|(name, address)| Server { replica: ReplicaName::new(name), address });
        let standbys = status.replicas.iter().filter(|replica| replica.role == Role::Standby);
        let standbys = standbys.filter_map(|replica| {
            let address: IpAddr = replica.address.as_deref()?.parse().ok()?;
            Some(Server { replica: ReplicaName::new(&replica.name), address: (address, MYSQL_PORT).into() })
        });
        *view = ShardView { standbys: standbys.collect(), primary, epoch, claimed };
        let primary = view.primary.as_ref().map(|server| server.replica.clone());
        view.standbys.retain(|standby| Some(&standby.replica) != primary.as_ref());
    }

    /// Takes over a Datastore's status. Placements are only ever added, so none at all is a status not yet written.
    pub fn apply_datastore(&mut self, status: &DatastoreStatus) {
        let mut placements: BTreeMap<i32, Vec<(i64, ShardName)>> = BTreeMap::new();
        // What is pending feeds nobody yet: the shard before is asked for it, and is complete only with it.
        for placement in status.placements.iter().filter(|placement| !placement.pending) {
            let entry = (placement.from_offset, ShardName::new(&placement.shard));
            placements.entry(placement.partition).or_default().push(entry);
        }
        placements.values_mut().for_each(|entries| entries.sort());
        if !placements.is_empty() {
            self.placements = Some(Placements(placements));
        }
    }

    /// Where the servers of all shards are.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        let servers = self.shards.values().flat_map(|view| view.primary.iter().chain(&view.standbys));
        servers.map(|server| server.address).collect()
    }

    /// The epoch of a shard; 0 when it is not known.
    pub fn epoch(&self, shard: &ShardName) -> Epoch {
        self.shards.get(shard).map(|view| view.epoch).unwrap_or_default()
    }

    /// The shards that can hold something of these groups, or of any. A shard that no partition ever fed holds nothing.
    pub fn holders(&self, groups: Option<&BTreeSet<GroupId>>, partitions: u32) -> BTreeSet<ShardName> {
        let Some(placements) = &self.placements else { return self.shards.keys().cloned().collect() };
        let of = |partition: &i32| placements.0.get(partition).into_iter().flatten().map(|(_, shard)| shard.clone());
        match groups {
            None => placements.0.keys().flat_map(of).collect(),
            Some(groups) => {
                let partition = |group: &GroupId| i32::try_from(partition_of(*group, partitions)).unwrap_or(-1);
                groups.iter().map(partition).collect::<BTreeSet<i32>>().iter().flat_map(of).collect()
            }
        }
    }

    /// The first offset of the last span that a partition feeds a shard; None when there is none, or placements are not known. Of two
    /// shards the one with the greater is fed later.
    pub fn fed_since(&self, shard: &ShardName, partition: i32) -> Option<i64> {
        let entries = self.placements.as_ref()?.0.get(&partition)?;
        entries.iter().rev().find(|(_, owner)| owner == shard).map(|(from, _)| *from)
    }

    /// What each partition feeds a shard; None when placements are not known.
    pub fn spans(&self, shard: &ShardName) -> Option<BTreeMap<i32, Vec<Span>>> {
        let placements = self.placements.as_ref()?;
        let mut spans: BTreeMap<i32, Vec<Span>> = BTreeMap::new();
        for (partition, entries) in &placements.0 {
            for (index, (from, owner)) in entries.iter().enumerate() {
                let until = entries.get(index + 1).map(|(next, _)| *next);
                if owner == shard && until != Some(*from) {
                    spans.entry(*partition).or_default().push(Span { from: *from, until });
                }
            }
        }
        Some(spans)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use understudy_api::v1alpha1::{Placement, ReplicaSummary, Transition};
    use understudy_model::{Group, Tenant};

    use super::*;

    fn replica(name: &str, role: Role, address: Option<&str>) -> ReplicaSummary {
        ReplicaSummary { name: name.into(), role, address: address.map(str::to_owned), ..ReplicaSummary::default() }
    }

    pub(crate) fn status(primary: &str, epoch: i64, standbys: &[(&str, &str)]) -> ShardStatus {
        let replicas = standbys.iter().map(|(name, address)| replica(name, Role::Standby, Some(address)));
        ShardStatus {
            primary: Some(primary.into()),
            primary_address: Some(format!("10.0.0.{epoch}:3306")),
            epoch,
            replicas: replicas.collect(),
            ..ShardStatus::default()
        }
    }

    pub(crate) fn placements(entries: &[(i32, i64, &str)]) -> DatastoreStatus {
        let placements = entries.iter().map(|(partition, from_offset, shard)| Placement {
            partition: *partition,
            from_offset: *from_offset,
            shard: (*shard).into(),
            pending: false,
        });
        DatastoreStatus { placements: placements.collect(), ..DatastoreStatus::default() }
    }

    fn name(name: &str) -> ShardName {
        ShardName::new(name)
    }

    #[test]
    fn a_move_that_is_pending_changes_nothing() {
        let mut topology = Topology::default();
        let mut status = placements(&[(0, 0, "s-0"), (0, 100, "s-1")]);
        status.placements[1].pending = true;
        topology.apply_datastore(&status);
        assert_eq!(topology.holders(None, 1), [name("s-0")].into());
        let open = topology.spans(&name("s-0")).unwrap();
        topology.apply_datastore(&placements(&[(0, 0, "s-0")]));
        assert_eq!(topology.spans(&name("s-0")).unwrap(), open);
    }

    #[test]
    fn a_status_of_a_lower_epoch_changes_nothing() {
        let mut topology = Topology::default();
        topology.apply_shard(name("s-0"), &status("b", 2, &[("c", "10.0.0.9")]));
        let before = topology.clone();
        topology.apply_shard(name("s-0"), &status("a", 1, &[]));
        assert_eq!(topology, before);
        topology.apply_shard(name("s-0"), &status("b", 2, &[]));
        assert_eq!(topology.shards[&name("s-0")].standbys, [], "the same epoch is news");
    }

    #[test]
    fn an_epoch_that_is_only_claimed_is_not_in_office_until_the_primary_is_routed() {
        let claim = |epoch| ShardStatus { transition: Some(Transition::default()), ..status("a", epoch, &[]) };
        let mut topology = Topology::default();
        let mut seen = |status: &ShardStatus| {
            topology.apply_shard(name("s-0"), status);
            let view = &topology.shards[&name("s-0")];
            (view.epoch, view.is_changing())
        };
        assert_eq!(seen(&status("a", 2, &[])), (Epoch(2), false));
        assert_eq!(seen(&claim(3)), (Epoch(2), true));
        assert_eq!(seen(&status("a", 2, &[])), (Epoch(2), true), "a cache that is behind changes nothing");
        assert_eq!(seen(&claim(4)), (Epoch(2), true), "a second claim after one that failed");
        assert_eq!(seen(&status("b", 4, &[])), (Epoch(4), false));
    }

    #[test]
    fn only_standbys_with_an_address_stand_by_and_the_primary_does_not() {
        let mut status = status("a", 1, &[("b", "10.0.0.2"), ("a", "10.0.0.1"), ("bad", "nowhere")]);
        status.replicas.push(replica("spare", Role::Spare, Some("10.0.0.3")));
        status.replicas.push(replica("old", Role::Condemned, Some("10.0.0.4")));
        status.replicas.push(replica("new", Role::Standby, None));
        let mut topology = Topology::default();
        topology.apply_shard(name("s-0"), &status);
        let standbys: Vec<&str> = topology.shards[&name("s-0")].standbys.iter().map(|s| s.replica.as_str()).collect();
        assert_eq!(standbys, ["b"]);
    }

    #[test]
    fn a_replica_that_is_replaced_leaves_no_address() {
        let mut topology = Topology::default();
        topology.apply_shard(name("s-0"), &status("a", 1, &[("b", "10.0.0.8")]));
        topology.apply_shard(name("s-1"), &status("c", 2, &[]));
        topology.apply_shard(name("s-0"), &status("a", 1, &[("d", "10.0.0.9")]));
        let expected = ["10.0.0.1:3306", "10.0.0.2:3306", "10.0.0.9:3306"];
        let expected: BTreeSet<SocketAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(topology.addresses(), expected);
    }

    #[test]
    fn a_shard_without_a_primary_or_with_a_malformed_address_has_no_primary() {
        let mut topology = Topology::default();
        topology.apply_shard(name("s-0"), &ShardStatus::default());
        topology.apply_shard(name("s-1"), &ShardStatus { primary_address: Some("x".into()), ..status("a", 1, &[]) });
        assert!(topology.shards.values().all(|view| view.primary.is_none()));
    }

    #[test]
    fn a_partition_that_moved_is_asked_of_both_shards_and_a_shard_that_nothing_feeds_of_nobody() {
        let mut topology = Topology::default();
        for shard in ["s-0", "s-1", "s-2"] {
            topology.apply_shard(name(shard), &status("a", 1, &[]));
        }
        assert_eq!(topology.holders(None, 4).len(), 3, "before placements are known, all");
        let group = Group::new(Tenant::new("acme").unwrap(), "node", "a").id();
        let p = partition_of(group, 4) as i32;
        let others = (0..4).filter(|other| *other != p).map(|other| (other, 0, "s-1"));
        let entries: Vec<_> = others.chain([(p, 0, "s-0"), (p, 100, "s-1")]).collect();
        topology.apply_datastore(&placements(&entries));
        topology.apply_datastore(&placements(&[]));
        let both: BTreeSet<ShardName> = [name("s-0"), name("s-1")].into();
        assert_eq!(topology.holders(Some(&[group].into()), 4), both);
        assert_eq!(topology.holders(None, 4), both);
        assert_eq!(topology.holders(Some(&BTreeSet::new()), 4), BTreeSet::new());
        assert_eq!(topology.spans(&name("s-0")).unwrap(), [(p, vec![Span { from: 0, until: Some(100) }])].into());
        assert_eq!(topology.spans(&name("s-2")).unwrap(), BTreeMap::new());
        assert_eq!((topology.fed_since(&name("s-0"), p), topology.fed_since(&name("s-1"), p)), (Some(0), Some(100)));
        assert_eq!(topology.fed_since(&name("s-2"), p), None);
    }
}
