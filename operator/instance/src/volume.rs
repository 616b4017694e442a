//! The threads that touch the volume. I/O that may never come back.
//!
//! A thread that waits for a frozen volume sits in the kernel and cannot be cancelled. So everything on the volume happens
//! in threads of its own that nobody joins; what they found, and how long they have been at it, is read from outside.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use understudy_wire::evidence::{Fsync, Volume, millis};

use crate::datadir::{Note, PROBE, write_note};

/// Time between the end of a probe and the start of the next.
pub const EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Seen {
    started: Option<Instant>,
    succeeded: Option<Instant>,
    took: Option<Duration>,
    error: Option<String>,
    space: Option<Volume>,
    note: Note,
    /// Nothing is written before the volume has been looked at.
    may_note: bool,
}

/// What the probe thread of one volume has seen.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Starts the thread. It ends with the process.
    pub fn start(volume: &Path) -> io::Result<Self> {
        let watch = Self::default();
        let (seen, volume) = (watch.clone(), volume.to_owned());
        std::thread::Builder::new().name("fsync-probe".to_owned()).spawn(move || probe_for_ever(&seen, &volume))?;
        Ok(watch)
    }

    /// The fsync probe with ages as of now.
    pub fn fsync(&self, now: Instant) -> Fsync {
        let seen = self.seen();
        let age = |at: Instant| millis(now.saturating_duration_since(at));
        Fsync {
            succeeded: seen.succeeded.map(age),
            took: seen.took.map(millis),
            in_flight: seen.started.map(age),
            error: seen.error.clone(),
        }
    }

    /// Space, as last read.
    pub fn space(&self) -> Option<Volume> {
        self.seen().space
    }

    /// What shall survive a restart; the thread writes it when it changes.
    pub fn keep(&self, note: Note) {
        let mut seen = self.seen();
        (seen.note, seen.may_note) = (note, true);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn probe_for_ever(watch: &Watch, volume: &Path) {
    let mut written = Note::default();
    let mut file = None;
    loop {
        let (note, may_note) = {
            let mut seen = watch.seen();
            seen.started = Some(Instant::now());
            (seen.note, seen.may_note)
        };
        let begun = Instant::now();
        let outcome = probe(volume, &mut file);
        if outcome.is_ok() && may_note && note != written {
            match write_note(volume, &note) {
                Ok(()) => written = note,
                Err(e) => tracing::warn!(error = %e, "note not written"),
            }
        }
        let mut seen = watch.seen();
        seen.started = None;
        match outcome {
            Ok(space) => {
                seen.succeeded = Some(Instant::now());
                seen.took = Some(begun.elapsed());
                seen.error = None;
                seen.space = Some(space);
            }
            Err(e) => {
                file = None;
                let name = errno_name(&e);
                if seen.error.as_ref() != Some(&name) {
                    tracing::warn!(error = %e, "fsync probe failed");
                }
                seen.error = Some(name);
            }
        }
        drop(seen);
        std::thread::sleep(EVERY);
    }
}

fn probe(volume: &Path, file: &mut Option<File>) -> io::Result<Volume> {
    let file = match file {
        Some(file) => file,
        None => file.insert(OpenOptions::new().write(true).create(true).truncate(false).open(volume.join(PROBE))?),
    };
    file.write_all_at(b"understudy\n", 0)?;
    file.sync_all()?;
    let space = rustix::fs::fstatvfs(&*file)?;
    Ok(Volume { total: space.f_blocks * space.f_frsize, free: space.f_bavail * space.f_frsize })
}

fn errno_name(error: &io::Error) -> String {
    use rustix::io::Errno;
    let named = [
        (Errno::IO, "EIO"),
        (Errno::ROFS, "EROFS"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::DQUOT, "EDQUOT"),
        (Errno::ACCESS, "EACCES"),
    ];
    let errno = Errno::from_io_error(error);
    let name = named.iter().find(|(known, _)| Some(*known) == errno).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| error.to_string())
}

/// A job on the volume did not come back in time, or could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the volume did not answer within {0:?}")]
pub struct Hangs(pub Duration);

/// Jobs of one volume take turns, those that were given up included: what such a one still does must be over before the volume is looked
/// at again.
fn turn_on(volume: &Path) -> Arc<Mutex<()>> {
    static TURNS: Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
    TURNS.lock().unwrap_or_else(PoisonError::into_inner).entry(volume.to_owned()).or_default().clone()
}

/// Runs a job on the volume in a thread of its own, after all before it; gives up on it, without ending it, after `within`. One that
/// was given up before its turn came does nothing.
pub async fn on_volume<T: Send + 'static>(
    volume: &Path,
    within: Duration,
    job: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, Hangs> {
    let (done, answer) = oneshot::channel();
    let (turn, volume) = (turn_on(volume), volume.to_owned());
    let started = std::thread::Builder::new().name("volume".to_owned()).spawn(move || {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The one who asked may have given up.
        if !done.is_closed() {
            drop(done.send(job(&volume)));
        }
    });
    if let Err(e) = started {
        tracing::warn!(error = %e, "no thread for a job on the volume");
    }
    tokio::time::timeout(within, answer).await.ok().and_then(Result::ok).ok_or(Hangs(within))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::read_note;
    use understudy_wire::Epoch;

    fn until(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_healthy_volume_is_synced_and_measured_and_keeps_the_note() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::start(dir.path()).unwrap();
        let note = Note { known: Epoch(3), fenced_under: None };
        watch.keep(note);
        until("note written", || read_note(dir.path()) == note);
        until("synced", || watch.fsync(Instant::now()).succeeded.is_some());
        assert_eq!(watch.fsync(Instant::now()).error, None);
        let space = watch.space().unwrap();
        assert!(space.total > space.free && space.free > 0);
    }

    #[test]
    fn a_volume_that_is_gone_is_an_error_and_not_silence() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::start(&dir.path().join("nowhere")).unwrap();
        until("error seen", || watch.fsync(Instant::now()).error.is_some());
        assert_eq!(watch.fsync(Instant::now()).succeeded, None);
    }

    #[tokio::test]
    async fn a_job_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let within = Duration::from_millis(20);
        let outcome = on_volume(dir.path(), within, move |_| held.recv().is_ok()).await;
        assert_eq!(outcome, Err(Hangs(within)));
        drop(release);
        assert_eq!(on_volume(dir.path(), Duration::from_secs(5), |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn nothing_is_done_beside_a_job_that_was_given_up_nor_after_one_that_had_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let within = Duration::from_millis(20);
        let hanging = on_volume(dir.path(), within, move |volume| {
            held.recv().ok();
            std::fs::write(volume.join("first"), "").is_ok()
        });
        assert_eq!(hanging.await, Err(Hangs(within)));
        let next = on_volume(dir.path(), within, |volume| std::fs::write(volume.join("second"), "").is_ok());
        assert_eq!(next.await, Err(Hangs(within)), "the first is not over");
        drop(release);
        let seen = |volume: &Path| (volume.join("first").exists(), volume.join("second").exists());
        assert_eq!(on_volume(dir.path(), Duration::from_secs(5), seen).await, Ok((true, false)));
    }
}
