//! The operator's own pauses. I/O: a clock.
//!
//! Who was stopped, or starved of processor time, sees everybody else as silent. The pulse beats in a task of its own, so it
//! measures the process and not the pass that happens to be slow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use understudy_link::gap::LoopGap;

/// How often the pulse beats.
pub const BEAT: Duration = Duration::from_millis(100);
/// A gap longer than this means that nothing heard before it says anything about now.
const PAUSE: Duration = Duration::from_secs(1);

struct State {
    gap: LoopGap,
    last: Instant,
    awake_since: Instant,
}

/// How this process itself is doing.
#[derive(Clone)]
pub struct Pulse(Arc<Mutex<State>>);

impl Pulse {
    /// The handle, and the task that beats until stopped.
    pub fn new(stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let now = Instant::now();
        let pulse = Self(Arc::new(Mutex::new(State { gap: LoopGap::new(now), last: now, awake_since: now })));
        let beating = pulse.clone();
        let task = async move {
            while stop.run_until_cancelled(tokio::time::sleep(BEAT)).await.is_some() {
                beating.beat(Instant::now());
            }
        };
        (pulse, task)
    }

    fn beat(&self, now: Instant) {
        let mut state = self.state();
        if now.saturating_duration_since(state.last) > PAUSE {
            state.awake_since = now;
        }
        state.last = now;
        state.gap.tick(now);
    }

    /// The longest pause of the last seconds.
    pub fn worst_gap(&self, now: Instant) -> Duration {
        self.state().gap.worst(now)
    }

    /// Time since this process started or last had a long pause; zero in the middle of one.
    pub fn awake(&self, now: Instant) -> Duration {
        let state = self.state();
        if now.saturating_duration_since(state.last) > PAUSE {
            return Duration::ZERO;
        }
        now.saturating_duration_since(state.awake_since)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_paused_is_awake_only_since_then() {
        let (pulse, _task) = Pulse::new(CancellationToken::new());
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        for at in [100, 200, 300] {
            pulse.beat(after(at));
        }
        assert!(pulse.awake(after(350)) >= Duration::from_millis(340));
        assert_eq!(pulse.awake(after(2_000)), Duration::ZERO, "in the middle of a pause");
        pulse.beat(after(3_000));
        assert_eq!(pulse.awake(after(3_200)), Duration::from_millis(200));
        assert!(pulse.worst_gap(after(3_200)) >= Duration::from_millis(2_700));
    }
}
