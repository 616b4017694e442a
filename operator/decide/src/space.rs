//! When a volume is nearly full, and whether another one has room. Pure.
//!
//! As a rule a standby's volume is as large as its primary's and holds the same, so another primary is no way out and a person needs
//! time to make room. Where a standby does have room (something else filled the primary's, or the standby was made with a larger one),
//! the primary hands over before it is full, and is failed over when it is.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Server, Volume};

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

/// Of so many parts of a volume less than one is free when its server is about to end,
const FILLING: u64 = 20;
/// and when there is none left for it: InnoDB takes some megabytes at a time.
const FULL: u64 = 1_000;
/// One of so many parts must be free, and more, for a volume to be a way out.
const ROOM: u64 = 5;

/// Whether a primary had better hand over before its volume is full: 95 % of it are used.
pub(crate) fn is_filling(volume: Volume) -> bool {
    volume.total > 0 && volume.free.saturating_mul(FILLING) <= volume.total
}

/// Whether a volume has so much room that a primary may be changed for it: more than 20 % of it are free.
pub(crate) fn has_room(volume: Volume) -> bool {
    volume.free.saturating_mul(ROOM) > volume.total
}

/// Whether the volume answers that it is full.
pub(crate) fn answers_full(server: &Server) -> Option<&str> {
    server.fsync.as_ref()?.error.as_deref().filter(|error| matches!(*error, "ENOSPC" | "EDQUOT"))
}

/// Whether there is no room for anything on a volume: it says so, or so little is left. The probe writes where something is already,
/// which most file systems let it do when they are full.
pub(crate) fn is_full(server: &Server) -> bool {
    let none_left = |volume: Volume| volume.total > 0 && volume.free.saturating_mul(FULL) < volume.total;
    answers_full(server).is_some() || server.volume.is_some_and(none_left)
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
                "the volume of {name} is nearly full: {low}. When it is full its server ends, and another primary helps only if its volume \
                 has more room: keep data for less long, or raise spec.storage.size and replace the replicas one at a time"
            );
            d.note_about(Reason::VolumeLow, name, message);
        }
    }
}
