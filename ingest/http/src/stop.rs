//! When a service stops, and in which order. I/O.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A signal cannot be waited for.
#[derive(Debug, thiserror::Error)]
#[error("listen for {name}")]
pub struct ListenError {
    name: &'static str,
    source: io::Error,
}

/// Returns on SIGTERM or SIGINT.
pub async fn stop_signal() -> Result<(), ListenError> {
    let listen = |kind, name| signal(kind).map_err(|source| ListenError { name, source });
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// What runs in a service that answers requests, told apart by when it ends.
#[derive(Debug, Default)]
pub struct Running {
    /// Cancelled first: the service says that it is not ready, and goes on answering.
    pub draining: CancellationToken,
    /// Cancelled second: no new requests.
    pub stop: CancellationToken,
    /// Cancelled last, for [`Self::tasks`]: what requests need, and the admin port, which tells of all this.
    pub background: CancellationToken,
    /// What runs until [`Self::background`] is cancelled.
    pub tasks: TaskTracker,
}

impl Running {
    /// Stops without cutting anybody off. `front` answers requests until [`Self::stop`]; for `drain` it still gets new ones, because
    /// those who send take a while to learn that this process is leaving. An error when `front` panicked.
    pub async fn end(self, front: JoinHandle<()>, drain: Duration) -> Result<(), JoinError> {
        self.draining.cancel();
        tokio::time::sleep(drain).await;
        self.stop.cancel();
        front.await?;
        self.background.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_first_then_requests_end_and_what_they_need_ends_last() {
        let running = Running::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let (seen, began) = (seen.clone(), Instant::now());
            move || seen.lock().unwrap().push((what, began.elapsed().as_secs()))
        };
        let (stop, draining, background) = (running.stop.clone(), running.draining.clone(), running.background.clone());
        let (requests_end, requests_ended) = (note("requests end"), note("requests ended"));
        let front = tokio::spawn(async move {
            stop.cancelled().await;
            requests_end();
            tokio::time::sleep(Duration::from_secs(3)).await;
            requests_ended();
        });
        let (said, over) = (note("said"), note("over"));
        running.tasks.spawn(async move {
            draining.cancelled().await;
            said();
            background.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            over();
        });
        running.end(front, Duration::from_secs(5)).await.unwrap();
        let expected = [("said", 0), ("requests end", 5), ("requests ended", 8), ("over", 9)];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
