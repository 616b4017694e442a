//! Plain progress lines: what is done, how far it is, how long it took, how long it may take. Writes to stdout.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two lines about the same running step.
const EVERY: Duration = Duration::from_secs(10);

/// Prints lines, each with the time since the command began. Shared by all threads.
#[derive(Debug)]
pub struct Ui {
    began: Instant,
    out: Mutex<()>,
}

impl Ui {
    /// Starts the clock.
    pub fn new() -> Self {
        Self { began: Instant::now(), out: Mutex::new(()) }
    }

    /// One line now.
    pub fn say(&self, text: &str) {
        let _guard = self.out.lock();
        println!("[{:>5}] {text}", clock(self.began.elapsed()));
    }

    /// Time since the command began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Begins a step; `expected` is how long it took the last time, where known.
    pub fn step(&self, name: &str, expected: Option<Duration>) -> Step<'_> {
        let mut line = name.to_owned();
        if let Some(expected) = expected.filter(|e| *e >= Duration::from_secs(2)) {
            line += &format!(": takes about {}", clock(expected));
        }
        self.say(&line);
        Step { ui: self, name: name.to_owned(), began: Instant::now(), expected, last: Mutex::new(Instant::now()) }
    }
}

/// Something that takes a while.
#[derive(Debug)]
pub struct Step<'a> {
    ui: &'a Ui,
    name: String,
    began: Instant,
    expected: Option<Duration>,
    last: Mutex<Instant>,
}

impl Step<'_> {
    /// How far the step is; printed at most every few seconds. `total` of zero means unknown.
    pub fn progress(&self, done: usize, total: usize, unit: &str) {
        let Ok(mut last) = self.last.lock() else { return };
        if last.elapsed() < EVERY {
            return;
        }
        *last = Instant::now();
        let elapsed = self.began.elapsed();
        let mut line = format!("{}: {done}", self.name);
        if total > 0 {
            line += &format!(" of {total}");
        }
        line += &format!(" {unit}, {}", clock(elapsed));
        if let Some(left) = remaining(elapsed, self.expected, done, total) {
            line += &format!(", about {} left", clock(left));
        }
        self.ui.say(&line);
    }

    /// A line about the step, always printed.
    pub fn note(&self, text: &str) {
        self.ui.say(&format!("{}: {text}", self.name));
    }

    /// Ends the step and says how long it took.
    pub fn done(self) -> Duration {
        let took = self.began.elapsed();
        self.ui.say(&format!("{}: done in {}", self.name, clock(took)));
        took
    }
}

/// What may be left: by the share done where the total is known, else by how long it took the last time.
fn remaining(elapsed: Duration, expected: Option<Duration>, done: usize, total: usize) -> Option<Duration> {
    if let Some(expected) = expected
        && expected > elapsed
    {
        return Some(expected - elapsed);
    }
    let share = done as f64 / total.max(1) as f64;
    (total > 0 && share > 0.1 && share <= 1.0).then(|| elapsed.mul_f64((1.0 - share) / share))
}

/// `m:ss`, or seconds with a decimal below ten.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 10 { format!("{:.1}s", time.as_secs_f64()) } else { format!("{}:{:02}", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_a_clock() {
        assert_eq!(clock(Duration::from_millis(1250)), "1.2s");
        assert_eq!(clock(Duration::from_secs(61)), "1:01");
        assert_eq!(clock(Duration::from_secs(615)), "10:15");
    }

    #[test]
    fn what_is_left_comes_from_the_last_run_or_the_share_done() {
        let s = Duration::from_secs;
        assert_eq!(remaining(s(60), Some(s(100)), 0, 0), Some(s(40)), "last run");
        assert_eq!(remaining(s(60), None, 50, 100), Some(s(60)), "share");
        assert_eq!(remaining(s(60), Some(s(30)), 75, 100), Some(s(20)), "the last run was shorter");
        assert_eq!(remaining(s(60), None, 0, 0), None, "nothing known");
        assert_eq!(remaining(s(60), None, 120, 100), None, "the total was wrong");
    }
}
