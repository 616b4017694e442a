//! The memory of another process, by `/proc/PID/mem`: what it takes to change a word of it, or its code, and to let it go on.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process::{self, Process};

/// How long all threads of a process may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// Another process's memory.
#[derive(Debug)]
pub struct Memory {
    file: File,
    process: Process,
}

impl Memory {
    /// Opens it; root may, whoever runs the process. None when the process is gone.
    pub fn of(process: &Process) -> Result<Option<Self>> {
        if !process.is_alive() {
            return Ok(None);
        }
        let path = format!("/proc/{}/mem", process.pid);
        let file = File::options().read(true).write(true).open(&path).with_context(|| format!("cannot open {path}"))?;
        // Opened, it stays the memory of that process, so the check holds from here on.
        Ok(process.is_alive().then(|| Self { file, process: process.clone() }))
    }

    /// Reads so many bytes.
    pub fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        self.file
            .read_exact_at(&mut buffer, at)
            .with_context(|| format!("cannot read memory of process {}", self.process.pid))?;
        Ok(buffer)
    }

    /// Writes over what is there, also over code.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, at)
            .with_context(|| format!("cannot write memory of process {}", self.process.pid))
    }

    /// Where the mapping with this name begins, and where it ends.
    pub fn mapping(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Option<Range<u64>>> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.process.pid))
            .with_context(|| format!("cannot read the mappings of process {}", self.process.pid))?;
        Ok(maps.lines().find(|line| is_wanted(line)).and_then(range))
    }

    /// Runs `work` while every thread stands still and none of them is within `code`. They go on afterwards, whatever came of it.
    pub fn while_stopped<T>(&self, code: &Range<u64>, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _going = Going(&self.process);
        let end = Instant::now() + STOPS_WITHIN;
        loop {
            self.process.signal(Signal::STOP);
            while !self.threads()?.iter().all(|thread| is_stopped(thread)) {
                if Instant::now() > end {
                    bail!("process {} does not stop: does a thread of it hang on its disk?", self.process.pid);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let places: Vec<_> = self.threads()?.iter().filter_map(|thread| place(thread)).collect();
            if !places.iter().any(|at| code.contains(at)) {
                return work();
            }
            if Instant::now() > end {
                bail!("process {} is always within the code that is to be changed", self.process.pid);
            }
            self.process.signal(Signal::CONT);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn threads(&self) -> Result<Vec<std::path::PathBuf>> {
        let dir = format!("/proc/{}/task", self.process.pid);
        let entries = fs::read_dir(&dir).with_context(|| format!("process {} ended", self.process.pid))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }

    /// Stops and continues it, by which everybody who waits for a futex looks at it again.
    pub fn nudge(&self) {
        self.process.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(20));
        self.process.signal(Signal::CONT);
    }
}

/// Lets the process go on when it is dropped.
struct Going<'a>(&'a Process);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// A thread that ended meanwhile counts as stopped.
fn is_stopped(thread: &std::path::Path) -> bool {
    let id = thread.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    id.and_then(process::stat).is_none_or(|stat| matches!(stat.state, 'T' | 'Z' | 'X'))
}

fn place(thread: &std::path::Path) -> Option<u64> {
    instruction(&fs::read_to_string(thread.join("syscall")).ok()?)
}

/// The address of the next instruction, the last field of `/proc/PID/task/TID/syscall`. Pure.
fn instruction(text: &str) -> Option<u64> {
    u64::from_str_radix(text.split_whitespace().last()?.strip_prefix("0x")?, 16).ok()
}

/// The addresses of a line of `/proc/PID/maps`. Pure.
fn range(line: &str) -> Option<Range<u64>> {
    let (from, to) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(range("7f1e-7f20 r-xp 00000000 00:00 0   [vdso]"), Some(0x7f1e..0x7f20));
        assert_eq!(range("junk"), None);
        assert_eq!(instruction("230 0x1 0x1 0x7ffc 0x0 0x0 0x0 0x7ffd 0x7f1e\n"), Some(0x7f1e));
        assert_eq!(instruction("-1 0x7ffd 0x7f1e\n"), Some(0x7f1e));
        assert_eq!(instruction("running\n"), None);
    }

    #[test]
    fn the_memory_of_a_process_that_is_gone_cannot_be_had() {
        let gone = Process { pid: i32::MAX, start: 1, recipe: String::new() };
        assert!(Memory::of(&gone).unwrap().is_none());
    }

    #[test]
    fn a_word_of_a_live_process_is_changed() {
        let me = Process::of_pid(i32::try_from(std::process::id()).unwrap()).unwrap();
        let Ok(Some(memory)) = Memory::of(&me) else { return };
        let word = Box::new(std::sync::atomic::AtomicU32::new(7));
        let at = std::ptr::from_ref(&*word) as u64;
        assert_eq!(memory.read(at, 4).unwrap(), 7_u32.to_le_bytes());
        memory.write(at, &8_u32.to_le_bytes()).unwrap();
        assert_eq!(word.load(std::sync::atomic::Ordering::SeqCst), 8);
    }
}
