//! What the threads of a server are doing: the answer of `GET /v1/stacks`, which names the replica that it is about
//! ([`crate::order::ADDRESSEE`]). Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::Millis;

/// The most threads that are taken.
pub const MAX_THREADS: usize = 256;
/// The longest kernel stack that is taken of one thread, bytes.
pub const MAX_STACK: usize = 1024;
/// The longest digest of all of them together, bytes.
pub const MAX_DIGEST: usize = 4096;

/// The threads of mysqld as `/proc` shows them, taken within a bound: a thread that could not be read in time is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stacks {
    /// How long the taking took.
    pub took: Millis,
    /// Whether every thread is here.
    pub complete: bool,
    /// One entry per thread.
    pub threads: Vec<Thread>,
}

/// One thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thread {
    /// Thread id in the pod's own namespace.
    pub id: u32,
    /// Name of the thread.
    pub name: String,
    /// One letter of `/proc/PID/task/TID/stat` (R, S, D, T, Z ...).
    pub state: char,
    /// The kernel function it sleeps in; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_in: String,
    /// The number of the system call that it is in, or `running`; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub syscall: String,
    /// Its kernel stack, where the manager may read it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stack: String,
}

/// Threads that wait in the same place.
type Place<'a> = (u8, char, &'a str, &'a str, Vec<&'a str>);

impl Stacks {
    /// What a record keeps: threads that wait in the same place in one line, those that the kernel does not let go first; at most
    /// [`MAX_DIGEST`] bytes, line feeds included.
    pub fn digest(&self) -> Vec<String> {
        let mut places = BTreeMap::<Place<'_>, Vec<&str>>::new();
        for thread in &self.threads {
            let place =
                (rank(thread.state), thread.state, &*thread.waits_in, &*thread.syscall, functions(&thread.stack));
            places.entry(place).or_default().push(&thread.name);
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|((rank, ..), names)| (*rank, std::cmp::Reverse(names.len())));
        let mut lines = Vec::new();
        let mut left = MAX_DIGEST;
        for ((_, state, waits_in, syscall, stack), names) in places {
            let line = line(state, waits_in, syscall, &stack, &names);
            let Some(rest) = left.checked_sub(line.len() + 1) else { break };
            left = rest;
            lines.push(line);
        }
        lines
    }
}

/// Uninterruptible first, then stopped, then at work, then the rest.
fn rank(state: char) -> u8 {
    match state {
        'D' => 0,
        'T' | 't' => 1,
        'R' => 2,
        _ => 3,
    }
}

/// The functions of a kernel stack (`[<0>] function+0x1/0x2`), the innermost few.
fn functions(stack: &str) -> Vec<&str> {
    stack.lines().map(function).filter(|function| !function.is_empty()).take(6).collect()
}

fn function(line: &str) -> &str {
    let named = line.split_once("] ").map_or(line, |(_, named)| named);
    named.split('+').next().unwrap_or_default().trim()
}

fn line(state: char, waits_in: &str, syscall: &str, stack: &[&str], names: &[&str]) -> String {
    let mut named: Vec<_> = names.to_vec();
    named.sort_unstable();
    named.dedup();
    let more = if named.len() > 3 { ", ..." } else { "" };
    named.truncate(3);
    let mut line = format!("{} in {state}: {}{more}", names.len(), named.join(", "));
    if !waits_in.is_empty() {
        line.push_str("; waits in ");
        line.push_str(waits_in);
    }
    if !syscall.is_empty() {
        line.push_str("; system call ");
        line.push_str(syscall);
    }
    if !stack.is_empty() {
        line.push_str("; ");
        line.push_str(&stack.join(" < "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(name: &str, state: char, waits_in: &str) -> Thread {
        Thread { id: 1, name: name.to_owned(), state, waits_in: waits_in.to_owned(), ..Thread::default() }
    }

    #[test]
    fn threads_that_wait_in_one_place_share_a_line_and_those_in_the_kernel_come_first() {
        let mut stuck = thread("ib_log_writer", 'D', "jbd2_log_wait_commit");
        stuck.syscall = "74".to_owned();
        stuck.stack = "[<0>] jbd2_log_wait_commit+0x10/0x20\n[<0>] ext4_sync_file+0x1/0x2\n".to_owned();
        let idle = |name| thread(name, 'S', "futex_wait_queue");
        let threads =
            vec![idle("connection"), idle("connection"), idle("ib_io_rd-1"), thread("mysqld", 'S', ""), stuck];
        let stacks = Stacks { took: 3, complete: true, threads };
        assert_eq!(
            stacks.digest(),
            [
                "1 in D: ib_log_writer; waits in jbd2_log_wait_commit; system call 74; jbd2_log_wait_commit < ext4_sync_file",
                "3 in S: connection, ib_io_rd-1; waits in futex_wait_queue",
                "1 in S: mysqld",
            ]
        );
    }

    #[test]
    fn a_digest_stays_within_its_bound_whatever_the_threads_do() {
        let threads = (0..5_000).map(|n| thread(&format!("thread {n}"), 'S', &format!("function_{n}"))).collect();
        let stacks = Stacks { took: 3, complete: false, threads };
        let lines = stacks.digest();
        assert!(lines.len() > 10);
        assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() <= MAX_DIGEST);
        assert!(Stacks::default().digest().is_empty());
    }
}
