//! When a volume is nearly full. Pure.
//!
//! Nothing is done about it but to say so: a full volume ends mysqld, and since a standby's volume is as large as its primary's and
//! holds the same, another primary is no way out. A person needs time to make room.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::Volume;

use crate::decision::{Draft, Reason};
use crate::failover::snapshot::{Replica, Snapshot};

/// A volume is nearly full when less than a tenth of it is free,
const SHARE: u64 = 10;
/// or less than 1 GiB, whichever is smaller.
const ENOUGH: u64 = 1 << 30;

/// Bytes that should be free on a volume of this size.
pub fn least(total: u64) -> u64 {
    (total / SHARE).min(ENOUGH)
}

/// Whether a volume is nearly full. One that was stays so until a quarter more than [`least`] is free: mysqld writes and deletes logs
/// all the time.
pub fn is_low(volume: Volume, was_low: bool) -> bool {
    let least = least(volume.total);
    volume.free < if was_low { least + least / 4 } else { least }
}

/// What is said of the volume of a replica that is nearly full: the same words for as long as it is.
pub(crate) fn low(s: &Snapshot, name: &ReplicaName, replica: &Replica) -> Option<String> {
    let heard = s.own_report(name).and_then(|(server, _)| server.volume);
    let volume = heard.or(replica.last_volume).filter(|_| replica.condemned.is_none())?;
    let mebibytes = |bytes: u64| bytes >> 20;
    is_low(volume, replica.was_low).then(|| {
        let (least, total) = (mebibytes(least(volume.total)), mebibytes(volume.total));
        format!("{least} MiB of its {total} MiB should be free")
    })
}

/// Says of each volume that it is nearly full.
pub(crate) fn tell(s: &Snapshot, d: &mut Draft) {
    for (name, replica) in &s.replicas {
        if let Some(low) = low(s, name, replica) {
            let message = format!(
                "the volume of {name} is nearly full: {low}. When it is full its server ends, and no other primary helps: keep data for \
                 less long, or raise spec.storage.size and replace the replicas one at a time"
            );
            d.note_about(Reason::VolumeLow, name, message);
        }
    }
}
