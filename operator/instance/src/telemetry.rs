//! The log: JSON lines on standard output. I/O.
//!
//! Standard output is a pipe that somebody else empties. When that stops, lines are dropped and counted; the manager never waits.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const WAITING: usize = 4096;

/// Hands lines to a thread of its own.
#[derive(Clone)]
struct Lines {
    to: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to.try_send(line.to_vec()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Starts the log, filtered by `UNDERSTUDY_LOG` (default `info`). What it gives counts the lines that were dropped.
pub fn start() -> io::Result<Arc<AtomicU64>> {
    let (to, lines) = sync_channel::<Vec<u8>>(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        let mut out = io::stdout();
        for line in lines {
            // Nobody is left to tell when writing the log fails.
            if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    })?;
    let filter = EnvFilter::try_from_env("UNDERSTUDY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(Lines { to, dropped: dropped.clone() })
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(dropped)
}
