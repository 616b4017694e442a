//! What the kernel says of mysqld: state of the process and its threads. Reads `/proc`; never what needs the process's help.

use std::fs;
use std::time::{Duration, Instant};

use understudy_wire::evidence::{MAX_SLEEPERS, Sleeper};
use understudy_wire::stacks::{MAX_STACK, MAX_THREADS, Stacks, Thread};

/// State of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// One letter (R, S, D, T, Z ...) of the main thread.
    pub main: char,
    /// Threads in uninterruptible sleep.
    pub threads_in_d: u32,
    /// The first few of those.
    pub sleepers: Vec<Sleeper>,
}

/// Reads the state of a process; None when there is none.
pub fn state(pid: u32) -> Option<ProcessState> {
    let (_, main) = stat(&format!("/proc/{pid}/stat"))?;
    let (mut threads_in_d, mut sleepers) = (0_u32, Vec::new());
    for id in threads(pid) {
        let Some((name, 'D')) = stat(&format!("/proc/{pid}/task/{id}/stat")) else { continue };
        threads_in_d = threads_in_d.saturating_add(1);
        if sleepers.len() < MAX_SLEEPERS {
            sleepers.push(Sleeper { id, name, waits_in: waits_in(pid, id) });
        }
    }
    Some(ProcessState { main, threads_in_d, sleepers })
}

/// The kernel function that a thread sleeps in; empty when it does not sleep or may not be looked at.
fn waits_in(pid: u32, id: u32) -> String {
    let function = fs::read_to_string(format!("/proc/{pid}/task/{id}/wchan")).unwrap_or_default();
    Some(function).filter(|function| function != "0").unwrap_or_default()
}

/// What each thread does, as far as it can be read within the bound.
pub fn stacks(pid: u32, within: Duration) -> Stacks {
    let begun = Instant::now();
    let mut taken = Stacks { complete: true, ..Stacks::default() };
    for id in threads(pid) {
        if begun.elapsed() >= within || taken.threads.len() >= MAX_THREADS {
            taken.complete = false;
            break;
        }
        let of = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{id}/{name}")).unwrap_or_default();
        // A thread that ended between the listing and here is no thread any more.
        let Some((name, state)) = stat(&format!("/proc/{pid}/task/{id}/stat")) else { continue };
        // The number comes first; the rest are arguments and addresses.
        let syscall = of("syscall").split_whitespace().next().unwrap_or_default().to_owned();
        let stack = shortened(of("stack"));
        taken.threads.push(Thread { id, name, state, waits_in: waits_in(pid, id), syscall, stack });
    }
    taken.took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    taken
}

fn shortened(mut stack: String) -> String {
    let whole = stack.len().min(MAX_STACK);
    let end = (0..=whole).rev().find(|end| stack.is_char_boundary(*end)).unwrap_or(0);
    stack.truncate(end);
    stack
}

/// The threads of a process whose names are wanted, but for its first one.
pub fn threads_named(pid: u32, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let is_wanted =
        |id: &u32| stat(&format!("/proc/{pid}/task/{id}/stat")).is_some_and(|(name, _)| *id != pid && wanted(&name));
    threads(pid).filter(is_wanted).collect()
}

/// State of one thread, as one letter; None when there is none.
pub fn thread_state(pid: u32, id: u32) -> Option<char> {
    stat(&format!("/proc/{pid}/task/{id}/stat")).map(|(_, state)| state)
}

fn threads(pid: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(path: &str) -> Option<(String, char)> {
    parse_stat(&fs::read_to_string(path).ok()?)
}

/// Name and state out of a `stat` line. A name may hold anything, a closing bracket too.
fn parse_stat(line: &str) -> Option<(String, char)> {
    let (before, after) = line.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    Some((name.to_owned(), after.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_state() {
        assert_eq!(parse_stat("7 (my) D (sqld) T 1 7"), Some(("my) D (sqld".to_owned(), 'T')));
        assert_eq!(parse_stat("7 mysqld"), None);
    }

    #[test]
    fn a_stack_is_cut_to_its_bound_and_never_within_a_letter() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = format!("{}é", "a".repeat(MAX_STACK - 1));
        assert_eq!(shortened(long), "a".repeat(MAX_STACK - 1));
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (named, begun) = std::sync::mpsc::channel();
        let body = move || {
            named.send(()).unwrap();
            wait.recv().ok();
        };
        let thread = std::thread::Builder::new().name("ib_log_writer".to_owned()).spawn(body).unwrap();
        begun.recv().unwrap();
        let me = std::process::id();
        let found = threads_named(me, |name| name == "ib_log_writer");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(matches!(thread_state(me, found[0]), Some('R' | 'S')));
        drop(go);
        thread.join().unwrap();
        assert_eq!(thread_state(me, u32::MAX), None);
    }

    #[test]
    fn this_very_process_can_be_seen() {
        let me = std::process::id();
        assert!(matches!(state(me).unwrap().main, 'R' | 'S'));
        let stacks = stacks(me, Duration::from_secs(5));
        assert!(stacks.complete && stacks.threads.iter().any(|t| t.id == me));
        assert!(!super::stacks(me, Duration::ZERO).complete);
        assert_eq!(state(u32::MAX), None);
    }
}
