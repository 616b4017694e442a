//! An internal deadlock: mutexes of mysqld itself that are taken and never given back. The word of glibc's mutex says whether it is
//! taken, so writing it is taking it, and no thread of mysqld stops for that. Every later comer waits for ever, on a futex, idle; the
//! process runs, takes connections, and its disk works.
//!
//! A mutex that somebody holds while its word is written is given back by that holder, by which the word is zero again; so it is
//! written until it stays. Giving back is writing zero, and then a stop and a continue: those who wait sleep in the kernel, and that
//! makes them look again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Scene;
use super::elf::Elf;
use super::memory::Memory;
use super::record::Active;
use super::target::Pod;
use crate::process::Process;

/// Which mutexes are taken. mysqld exports all of them for its plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those without which no table is opened or closed: logins go on.
    Tables,
    /// Also those that a new connection needs before it says a word.
    Greetings,
}

impl Reach {
    fn globals(self) -> &'static [&'static str] {
        match self {
            Self::Tables => &["LOCK_open"],
            Self::Greetings => &["LOCK_open", "LOCK_status", "LOCK_plugin", "LOCK_global_system_variables"],
        }
    }
}

/// An array of caches, each with a mutex as its first field: no statement opens or closes a table without one. So connections that
/// are there already hang too.
const CACHES: &str = "table_cache_manager";
const CACHE_COUNT: u64 = 64;

/// `pthread_mutex_t` of x86-64: the word at 0, its owner's thread id at 8, its kind at 16.
const SIZE: usize = 20;
const OWNER: u64 = 8;
const KIND: usize = 16;
/// Plain, and adaptive. Others keep more than the word.
const KINDS: [u32; 2] = [0, 3];
/// Bits of the kind that say only whether transactions of the processor may be used for it.
const ELISION: u32 = 0x300;
/// Taken, and somebody may wait.
const TAKEN: u32 = 2;
/// No thread has this id: a mutex with this owner is the lab's.
const NOBODY: u32 = 0x7fff_fffe;
/// A mutex that is the lab's at this many looks in a row, 10 ms apart, stays so.
const LOOKS: u32 = 5;
const TAKES_WITHIN: Duration = Duration::from_secs(20);

/// Takes the mutexes of a mysqld.
pub fn lock(scene: &Scene<'_>, pod: &Pod, process: Process, reach: Reach) -> Result<()> {
    let memory = Memory::of(&process)?.with_context(|| format!("mysqld of {} ended", pod.what()))?;
    let mutexes = find(&memory, &process, reach)?;
    for mutex in &mutexes {
        look(&memory, *mutex)?;
    }
    scene.record(Active::Unlock { what: pod.what(), process, mutexes: mutexes.clone() })?;
    take(&memory, &mutexes)
}

fn find(memory: &Memory, process: &Process, reach: Reach) -> Result<Vec<u64>> {
    let path = format!("/proc/{}/exe", process.pid);
    let file = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let elf = Elf::new(&file).with_context(|| format!("{path} is no ELF file"))?;
    let name = std::fs::read_link(&path)?;
    let start = memory.mapping(|line| is_first_of(line, &name))?;
    let start =
        start.with_context(|| format!("process {} does not have {} mapped", process.pid, name.display()))?.start;
    let base = if elf.is_fixed() { 0 } else { start };
    addresses(reach, |name| elf.symbol(name).map(|s| (base + s.at, s.size)))
}

/// The mapping of the beginning of a file. Pure.
fn is_first_of(line: &str, name: &Path) -> bool {
    let fields: Vec<_> = line.split_whitespace().collect();
    fields.get(2).is_some_and(|offset| offset.trim_matches('0').is_empty())
        && fields.get(5).is_some_and(|path| Path::new(path) == name)
}

/// Addresses of all mutexes, from those of symbols. Pure.
fn addresses(reach: Reach, symbol: impl Fn(&str) -> Option<(u64, u64)>) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for name in reach.globals() {
        let Some((at, _)) = symbol(name) else {
            bail!("this mysqld does not export {name}: `deadlock` does not know it")
        };
        found.push(at);
    }
    let Some((first, size)) = symbol(CACHES) else {
        bail!("this mysqld does not export {CACHES}: `deadlock` does not know it")
    };
    let each = size / CACHE_COUNT;
    if each * CACHE_COUNT != size || !(48..=1024).contains(&each) {
        bail!(
            "{CACHES} of this mysqld has {size} bytes, which are not {CACHE_COUNT} caches: `deadlock` does not know it"
        );
    }
    found.extend((0..CACHE_COUNT).map(|index| first + index * each));
    Ok(found)
}

/// A mutex as it is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    word: u32,
    owner: u32,
}

impl Look {
    fn is_ours(self) -> bool {
        self.word != 0 && self.owner == NOBODY
    }

    /// None when these bytes are no mutex that can be taken. Pure.
    fn of(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (word, owner, kind) = (number(0)?, number(8)?, number(KIND)?);
        (word <= TAKEN && KINDS.contains(&(kind & !ELISION))).then_some(Self { word, owner })
    }
}

fn look(memory: &Memory, mutex: u64) -> Result<Look> {
    Look::of(&memory.read(mutex, SIZE)?).with_context(|| format!("at {mutex:#x} there is no mutex of glibc"))
}

fn take(memory: &Memory, mutexes: &[u64]) -> Result<()> {
    let end = Instant::now() + TAKES_WITHIN;
    let mut looks = 0;
    while looks < LOOKS {
        let mut are_ours = true;
        for mutex in mutexes {
            if !look(memory, *mutex)?.is_ours() {
                are_ours = false;
                // The owner first: a word that is ours with another owner would look like a thread's.
                memory.write(mutex + OWNER, &NOBODY.to_le_bytes())?;
                memory.write(*mutex, &TAKEN.to_le_bytes())?;
            }
        }
        looks = if are_ours { looks + 1 } else { 0 };
        if Instant::now() > end {
            bail!("the mutexes are not to be had within {} s", TAKES_WITHIN.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Gives back those that the lab holds.
pub fn unlock(process: &Process, mutexes: &[u64]) -> Result<()> {
    let Some(memory) = Memory::of(process)? else { return Ok(()) };
    for mutex in mutexes {
        if look(&memory, *mutex)?.is_ours() {
            memory.write(mutex + OWNER, &0_u32.to_le_bytes())?;
            memory.write(*mutex, &0_u32.to_le_bytes())?;
        }
    }
    memory.nudge();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(name: &str) -> Option<(u64, u64)> {
        match name {
            CACHES => Some((0x1000, 64 * 0x90)),
            _ => Reach::Greetings.globals().iter().position(|m| *m == name).map(|i| (0x100 * (i as u64 + 1), 0x30)),
        }
    }

    #[test]
    fn the_mutexes_are_the_global_ones_and_one_of_each_cache() {
        for (reach, globals) in [(Reach::Tables, 1), (Reach::Greetings, 4)] {
            let found = addresses(reach, symbols).unwrap();
            assert_eq!(found[..globals], [0x100, 0x200, 0x300, 0x400][..globals], "{reach:?}");
            assert_eq!(found.len(), globals + 64, "{reach:?}");
            assert_eq!(
                (found[globals], found[globals + 1], found[globals + 63]),
                (0x1000, 0x1090, 0x1000 + 63 * 0x90),
                "{reach:?}"
            );
        }
    }

    #[test]
    fn a_mysqld_that_is_built_otherwise_is_left_alone() {
        for (case, name, symbol) in [
            ("no such mutex", "LOCK_plugin", None),
            ("no caches", CACHES, None),
            ("another number of caches", CACHES, Some((0, 63 * 0x90))),
            ("a pointer to the caches", CACHES, Some((0, 8))),
        ] {
            let changed = |asked: &str| if asked == name { symbol } else { symbols(asked) };
            assert!(addresses(Reach::Greetings, changed).is_err(), "{case}");
        }
    }

    #[test]
    fn bytes_that_are_no_mutex_are_not_written_over() {
        let bytes = |word: u32, owner: u32, kind: u32| {
            [word, 0, owner, 1, kind].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()
        };
        assert_eq!(Look::of(&bytes(1, 42, 3)), Some(Look { word: 1, owner: 42 }));
        assert!(Look::of(&bytes(2, NOBODY, 0)).unwrap().is_ours());
        assert!(!Look::of(&bytes(0, NOBODY, 0)).unwrap().is_ours(), "it was given back");
        assert_eq!(Look::of(&bytes(77, 0, 0)), None, "no word of a mutex");
        assert_eq!(Look::of(&bytes(0, 0, 1)), None, "a recursive one");
        assert_eq!(Look::of(&[0; 8]), None);
    }

    #[test]
    fn the_programs_first_mapping_is_told_from_others() {
        let name = Path::new("/usr/sbin/mysqld");
        assert!(is_first_of("55e0-55f0 r--p 00000000 fe:00 17   /usr/sbin/mysqld", name));
        assert!(!is_first_of("55f0-56f0 r-xp 00010000 fe:00 17   /usr/sbin/mysqld", name));
        assert!(!is_first_of("7f00-7f10 r--p 00000000 fe:00 18   /usr/lib/libc.so.6", name));
    }
}
