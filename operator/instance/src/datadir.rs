//! What lies on the volume, and what may be done with it. [`judge`] is pure; the rest reads and writes files and may block.
//!
//! Data is made in `building/` and only ever becomes `data/` by a rename, after the marker says that it is complete. So
//! `building/` has never served anybody and is all that this manager ever removes, and only when its own marker claims it.
//! Everything else that is unknown makes the volume unusable: it is never initialised over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use understudy_wire::{Epoch, ReplicaName};

/// mysqld's data directory.
pub const DATA: &str = "data";
/// A data directory that is being made.
pub const BUILDING: &str = "building";
/// Says whose data it is and how far it is.
pub const MARKER: &str = "understudy.json";
/// What must survive a restart of the manager.
pub const NOTE: &str = ".understudy-note";
/// The file of the fsync probe.
pub const PROBE: &str = ".understudy-probe";
/// mkfs makes it in the root of an ext4.
const LOST_FOUND: &str = "lost+found";
const NEW: &str = ".new";

/// A step on the volume that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", path.display())]
pub struct VolumeError {
    /// What was tried.
    pub step: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

fn at<T>(step: &'static str, path: &Path, outcome: io::Result<T>) -> Result<T, VolumeError> {
    outcome.map_err(|source| VolumeError { step, path: path.to_owned(), source })
}

/// Whose data it is and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The replica for which it was made.
    pub replica: ReplicaName,
    /// UID of its Shard.
    pub shard_uid: String,
    /// How far it is.
    pub state: State,
    /// `initialise`, or the donor of the clone.
    pub origin: String,
}

/// How far a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Being made in `building/`.
    Building,
    /// Complete.
    Complete,
}

/// What must survive a restart of the manager beside the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Highest epoch heard of.
    pub known: Epoch,
    /// The epoch under which this replica was ordered to stop serving.
    pub fenced_under: Option<Epoch>,
}

/// What was found, after what can be tidied has been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Empty,
    /// A data directory of this replica.
    Complete(Marker),
    /// Anything else.
    Unusable(String),
}

/// What to do with what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing lies there.
    Empty,
    /// A build of this replica was interrupted: what it left may go.
    ClearBuild,
    /// A build of this replica was complete but for the last rename.
    FinishBuild(Marker),
    /// Use it.
    Use(Marker),
    /// Leave it alone.
    Unusable(String),
}

/// Decides by the names in the volume's root and the marker (Err: there is one, and it cannot be understood).
pub fn judge(
    names: &[String],
    marker: Option<Result<Marker, String>>,
    replica: &ReplicaName,
    shard_uid: &str,
) -> Judgement {
    let unusable = |reason: String| Judgement::Unusable(reason);
    let has = |name: &str| names.iter().any(|n| n == name);
    let known = [DATA, BUILDING, MARKER, NOTE, PROBE, LOST_FOUND];
    let is_known =
        |name: &str| known.contains(&name) || name.strip_suffix(NEW).is_some_and(|n| n == MARKER || n == NOTE);
    if let Some(stranger) = names.iter().find(|name| !is_known(name)) {
        return unusable(format!("the volume holds {stranger:?}, which is not ours"));
    }
    let marker = match marker {
        None if has(DATA) || has(BUILDING) => {
            return unusable("the volume holds data without a marker that says whose".to_owned());
        }
        None => return Judgement::Empty,
        Some(Err(reason)) => return unusable(format!("marker: {reason}")),
        Some(Ok(marker)) => marker,
    };
    if marker.replica != *replica || marker.shard_uid != shard_uid {
        return unusable(format!(
            "the volume is of replica {} of the shard with UID {}",
            marker.replica, marker.shard_uid
        ));
    }
    match (marker.state, has(DATA), has(BUILDING)) {
        (State::Building, false, _) => Judgement::ClearBuild,
        (State::Building, true, _) => unusable("the volume holds data beside a build that was not complete".to_owned()),
        (_, true, false) => Judgement::Use(marker),
        (_, false, true) => Judgement::FinishBuild(marker),
        (_, true, true) => unusable("the volume holds data beside a complete build".to_owned()),
        (_, false, false) => unusable("the marker says complete, and there is no data".to_owned()),
    }
}

/// Looks at the volume and tidies what an interrupted build has left.
pub fn examine(volume: &Path, replica: &ReplicaName, shard_uid: &str) -> Result<Found, VolumeError> {
    let mut names = Vec::new();
    for entry in at("list", volume, fs::read_dir(volume))? {
        names.push(at("list", volume, entry)?.file_name().to_string_lossy().into_owned());
    }
    let path = volume.join(MARKER);
    let marker = match fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| e.to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(VolumeError { step: "read", path, source }),
    };
    match judge(&names, marker, replica, shard_uid) {
        Judgement::Empty => Ok(Found::Empty),
        Judgement::ClearBuild => clear_build(volume).map(|()| Found::Empty),
        Judgement::FinishBuild(marker) => {
            publish(volume)?;
            Ok(Found::Complete(marker))
        }
        Judgement::Use(marker) => Ok(Found::Complete(marker)),
        Judgement::Unusable(reason) => Ok(Found::Unusable(reason)),
    }
}

/// Writes the marker of a build that begins, if the volume is empty: whoever found it so may have done that long ago.
pub fn begin_build(volume: &Path, marker: &Marker) -> Result<(), VolumeError> {
    match examine(volume, &marker.replica, &marker.shard_uid)? {
        Found::Empty => write_json(volume, MARKER, marker),
        Found::Complete(_) | Found::Unusable(_) => {
            let source = io::Error::other("it is not empty, so nothing is built there");
            Err(VolumeError { step: "look at", path: volume.to_owned(), source })
        }
    }
}

/// Makes a complete build the data directory.
pub fn finish_build(volume: &Path, marker: &Marker) -> Result<(), VolumeError> {
    write_json(volume, MARKER, marker)?;
    publish(volume)
}

/// Removes what a build of this replica has left. `building/` goes first, so that the marker claims it to the end.
pub fn clear_build(volume: &Path) -> Result<(), VolumeError> {
    let building = volume.join(BUILDING);
    at("remove", &building, or_absent(fs::remove_dir_all(&building)))?;
    let marker = volume.join(MARKER);
    at("remove", &marker, or_absent(fs::remove_file(&marker)))?;
    sync_dir(volume)
}

/// Reads the note; a volume without one knows nothing.
pub fn read_note(volume: &Path) -> Note {
    // What cannot be read is no reason not to start: the epoch table holds nearly the same.
    fs::read(volume.join(NOTE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes the note.
pub fn write_note(volume: &Path, note: &Note) -> Result<(), VolumeError> {
    write_json(volume, NOTE, note)
}

fn publish(volume: &Path) -> Result<(), VolumeError> {
    let building = volume.join(BUILDING);
    at("rename", &building, fs::rename(&building, volume.join(DATA)))?;
    sync_dir(volume)
}

fn write_json(volume: &Path, name: &str, value: &impl Serialize) -> Result<(), VolumeError> {
    let (path, new) = (volume.join(name), volume.join(format!("{name}{NEW}")));
    let text = at("write", &new, serde_json::to_vec(value).map_err(io::Error::other))?;
    let mut file = at("create", &new, File::create(&new))?;
    at("write", &new, file.write_all(&text))?;
    at("sync", &new, file.sync_all())?;
    at("rename", &path, fs::rename(&new, &path))?;
    sync_dir(volume)
}

fn sync_dir(dir: &Path) -> Result<(), VolumeError> {
    at("sync", dir, File::open(dir).and_then(|dir| dir.sync_all()))
}

fn or_absent(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> ReplicaName {
        ReplicaName::new("metrics-0-k7x2")
    }

    fn marker(state: State) -> Marker {
        Marker { replica: me(), shard_uid: "uid-1".to_owned(), state, origin: "initialise".to_owned() }
    }

    #[test]
    fn a_volume_is_judged_by_what_lies_on_it() {
        use State::{Building, Complete};
        let other_replica = Marker { replica: ReplicaName::new("metrics-0-zzzz"), ..marker(Complete) };
        let other_shard = Marker { shard_uid: "uid-2".to_owned(), ..marker(Complete) };
        let unusable = "unusable";
        for (case, names, marker_there, expected) in [
            ("new", vec![], None, "empty"),
            ("made by mkfs", vec![LOST_FOUND], None, "empty"),
            ("probed and noted", vec![LOST_FOUND, PROBE, NOTE, ".understudy-note.new"], None, "empty"),
            ("somebody's file", vec!["ibdata1"], None, unusable),
            ("data of nobody", vec![DATA], None, unusable),
            ("a build of nobody", vec![BUILDING], None, unusable),
            ("a marker that is no marker", vec![MARKER], Some(Err("?".to_owned())), unusable),
            ("a build that was interrupted before it began", vec![MARKER], Some(Ok(marker(Building))), "clear"),
            ("an interrupted build", vec![MARKER, BUILDING, LOST_FOUND], Some(Ok(marker(Building))), "clear"),
            (
                "an interrupted build of another replica",
                vec![MARKER, BUILDING],
                Some(Ok(Marker { state: Building, ..other_replica.clone() })),
                unusable,
            ),
            ("data beside an interrupted build", vec![MARKER, BUILDING, DATA], Some(Ok(marker(Building))), unusable),
            ("a build before its last rename", vec![MARKER, BUILDING], Some(Ok(marker(Complete))), "finish"),
            ("data", vec![MARKER, DATA, LOST_FOUND, NOTE, PROBE], Some(Ok(marker(Complete))), "use"),
            ("data of another replica", vec![MARKER, DATA], Some(Ok(other_replica)), unusable),
            ("data of another shard of that name", vec![MARKER, DATA], Some(Ok(other_shard)), unusable),
            ("data that is gone", vec![MARKER], Some(Ok(marker(Complete))), unusable),
            ("data and a stranger", vec![MARKER, DATA, "backup"], Some(Ok(marker(Complete))), unusable),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let judged = match judge(&names, marker_there, &me(), "uid-1") {
                Judgement::Empty => "empty",
                Judgement::ClearBuild => "clear",
                Judgement::FinishBuild(_) => "finish",
                Judgement::Use(_) => "use",
                Judgement::Unusable(_) => unusable,
            };
            assert_eq!(judged, expected, "{case}");
        }
    }

    #[test]
    fn a_build_that_is_interrupted_at_any_point_ends_empty_or_complete() {
        for (case, steps, expected) in [
            ("at once", 0, Found::Empty),
            ("after the marker", 1, Found::Empty),
            ("while data is made", 2, Found::Empty),
            ("after it was marked complete", 3, Found::Complete(marker(State::Complete))),
            ("after the rename", 4, Found::Complete(marker(State::Complete))),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let volume = dir.path();
            if steps > 0 {
                begin_build(volume, &marker(State::Building)).unwrap();
            }
            if steps > 1 {
                fs::create_dir(volume.join(BUILDING)).unwrap();
                fs::write(volume.join(BUILDING).join("ibdata1"), "x").unwrap();
            }
            match steps {
                3 => write_json(volume, MARKER, &marker(State::Complete)).unwrap(),
                4 => finish_build(volume, &marker(State::Complete)).unwrap(),
                _ => {}
            }
            for _ in 0..2 {
                assert_eq!(examine(volume, &me(), "uid-1").unwrap(), expected, "{case}");
            }
            assert_eq!(volume.join(DATA).join("ibdata1").exists(), steps > 2, "{case}");
        }
    }

    #[test]
    fn nothing_is_built_over_what_came_to_lie_there_meanwhile() {
        let ours = |volume: &Path| {
            begin_build(volume, &marker(State::Building)).unwrap();
            fs::create_dir(volume.join(BUILDING)).unwrap();
            finish_build(volume, &marker(State::Complete)).unwrap();
        };
        let somebodys = |volume: &Path| fs::create_dir(volume.join(DATA)).unwrap();
        for (case, come) in [("ours", &ours as &dyn Fn(&Path)), ("somebody's", &somebodys)] {
            let dir = tempfile::tempdir().unwrap();
            come(dir.path());
            let before = fs::read(dir.path().join(MARKER)).ok();
            assert!(begin_build(dir.path(), &marker(State::Building)).is_err(), "{case}");
            assert!(dir.path().join(DATA).exists(), "{case}");
            assert_eq!(fs::read(dir.path().join(MARKER)).ok(), before, "{case}");
        }
    }

    #[test]
    fn unusable_volumes_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ibdata1"), "x").unwrap();
        assert!(matches!(examine(dir.path(), &me(), "uid-1").unwrap(), Found::Unusable(_)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_note_survives_and_a_broken_one_is_no_note() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_note(dir.path()), Note::default());
        let note = Note { known: Epoch(7), fenced_under: Some(Epoch(6)) };
        write_note(dir.path(), &note).unwrap();
        assert_eq!(read_note(dir.path()), note);
        fs::write(dir.path().join(NOTE), "{").unwrap();
        assert_eq!(read_note(dir.path()), Note::default());
    }
}
