//! Writing the ledger: one thread appends, another makes it durable each second, so that a slow disk delays neither a
//! send nor an observation. I/O.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use thiserror::Error;

use super::{Record, Stamp};

/// Records that may wait to be written. At the rates of a run that is many seconds of a disk that does not answer.
const WAITING: usize = 65_536;
/// How often the file is made durable.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The ledger cannot be kept, so the run must end.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file exists already, or cannot be made.
    #[error("create the ledger {path} (an existing one is never overwritten)")]
    Create {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("start a thread for the ledger")]
    Thread(#[source] io::Error),
    /// Writing or syncing failed.
    #[error("write the ledger")]
    Write(#[source] io::Error),
    /// More than [`WAITING`] records wait, or writing has failed.
    #[error("the ledger does not keep up")]
    Behind,
}

/// The two clocks of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// Begins at 0 now.
    pub fn start() -> Self {
        Self { zero: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Stamp {
        self.at(Instant::now())
    }

    /// The wall clock is read now whatever `instant` is; both are only apart when the caller looks back.
    fn at(&self, instant: Instant) -> Stamp {
        let since = instant.saturating_duration_since(self.zero);
        Stamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX), Timestamp::now().as_millisecond())
    }

    /// A moment in the past, by the monotonic clock; its wall time is computed back from now.
    pub fn past(&self, instant: Instant) -> Stamp {
        let now = self.now();
        let micros = self.at(instant).0.min(now.0);
        Stamp(micros, now.1 - i64::try_from((now.0 - micros) / 1000).unwrap_or(0))
    }
}

/// A ledger that is being written. Clones write the same one.
#[derive(Clone)]
pub struct Ledger {
    records: SyncSender<Record>,
    broken: Arc<AtomicBool>,
    /// The clocks every stamp in it must come from.
    pub clock: Clock,
}

/// The threads behind a [`Ledger`]; [`Closing::close`] waits for them.
pub struct Closing {
    writer: JoinHandle<io::Result<()>>,
}

impl Ledger {
    /// Makes the file; it must not exist.
    pub fn create(path: &Path, clock: Clock) -> Result<(Self, Closing), LedgerError> {
        let create = |source| LedgerError::Create { path: path.to_owned(), source };
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(create)?;
        let (records, waiting) = sync_channel(WAITING);
        let broken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&broken);
        let work = move || {
            let outcome = write_all(file, &waiting);
            flag.store(outcome.is_err(), Ordering::Release);
            outcome
        };
        let writer = std::thread::Builder::new().name("ledger".into()).spawn(work).map_err(LedgerError::Thread)?;
        Ok((Self { records, broken, clock }, Closing { writer }))
    }

    /// Hands a record over without waiting. An error means that the run may not go on: what follows would be unrecorded.
    pub fn record(&self, record: Record) -> Result<(), LedgerError> {
        self.records.try_send(record).map_err(|failure| match failure {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => LedgerError::Behind,
        })
    }

    /// Whether writing has failed.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

impl Closing {
    /// Waits until all that was recorded is durable. Every clone of the ledger must have been dropped before.
    pub fn close(self) -> Result<(), LedgerError> {
        match self.writer.join() {
            Ok(outcome) => outcome.map_err(LedgerError::Write),
            Err(_) => Err(LedgerError::Write(io::Error::other("the ledger's thread panicked"))),
        }
    }
}

fn write_all(file: File, waiting: &Receiver<Record>) -> io::Result<()> {
    let syncing = Syncing::start(file.try_clone()?)?;
    let mut out = BufWriter::new(file);
    loop {
        match waiting.recv_timeout(Duration::from_millis(200)) {
            Ok(record) => {
                write_line(&mut out, &record)?;
                while let Ok(record) = waiting.try_recv() {
                    write_line(&mut out, &record)?;
                }
                // Out of this process before anything else: its crash then loses nothing that was handed over.
                out.flush()?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        syncing.check()?;
    }
    out.flush()?;
    syncing.stop()?;
    out.get_ref().sync_all()
}

fn write_line(out: &mut impl Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

struct Syncing {
    failure: Arc<Mutex<Option<io::Error>>>,
    ending: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Syncing {
    fn start(file: File) -> io::Result<Self> {
        let failure = Arc::new(Mutex::new(None));
        let (ending, ended) = sync_channel::<()>(1);
        let report = Arc::clone(&failure);
        let work = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SYNC_EVERY) {
                if let Err(problem) = file.sync_data() {
                    *report.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("ledger-sync".into()).spawn(work)?;
        Ok(Self { failure, ending, thread })
    }

    fn check(&self) -> io::Result<()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn stop(self) -> io::Result<()> {
        drop(self.ending);
        let joined = self.thread.join();
        joined.map_err(|_| io::Error::other("the ledger's syncing thread panicked"))?;
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::reader::read_lines;

    #[test]
    fn what_was_recorded_is_in_the_file_and_the_file_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (ledger, closing) = Ledger::create(&path, Clock::start()).unwrap();
        let records: Vec<Record> = (0..1000).map(|n| Record::End { at: Stamp(n, 0) }).collect();
        records.iter().for_each(|record| ledger.record(record.clone()).unwrap());
        drop(ledger);
        closing.close().unwrap();
        let text = std::fs::read(&path).unwrap();
        assert_eq!(read_lines(text.as_slice()).collect::<Result<Vec<_>, _>>().unwrap(), records);
        assert!(matches!(Ledger::create(&path, Clock::start()), Err(LedgerError::Create { .. })));
    }

    #[test]
    fn a_moment_in_the_past_has_the_wall_time_it_had() {
        let clock = Clock { zero: Instant::now() - Duration::from_secs(10) };
        let past = clock.past(Instant::now() - Duration::from_secs(4));
        let now = clock.now();
        assert!((5_900_000..6_100_000).contains(&past.0), "{past:?}");
        assert!((3_900..4_100).contains(&(now.1 - past.1)), "{past:?} {now:?}");
    }
}
