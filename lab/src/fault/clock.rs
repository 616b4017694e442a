//! Processes that see another time of day. They ask for it through the vDSO, code that the kernel maps into each of them; its
//! functions are written over, in these processes alone, with some that ask the kernel and add to the answer. Clocks that only count
//! are left as they are. A process that is started later has a vDSO of its own, and the right time.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Scene;
use super::elf::Elf;
use super::memory::Memory;
use super::process;
use super::record::Active;
use super::target::Pod;
use crate::process::Process;

/// Code of a process that was written over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Whose.
    pub process: Process,
    /// Where.
    pub at: u64,
    /// What was there.
    pub was: Vec<u8>,
}

/// Makes all processes of a pod see a clock that is `by` seconds ahead.
pub fn jump(scene: &Scene<'_>, pod: &Pod, by: i32) -> Result<()> {
    if by == 0 {
        bail!("a jump of 0 s is none; say --by, as in --by 1h or --by=-5m");
    }
    let processes = process::all(pod)?;
    let mut patches = Vec::new();
    for process in &processes {
        let Some(memory) = Memory::of(process)? else { continue };
        let (range, image) = vdso(&memory, process)?;
        let elf = Elf::new(&image).context("the vDSO is no ELF image")?;
        for (name, code) in functions(by) {
            let symbol = elf.symbol(name).with_context(|| format!("the vDSO has no {name}"))?;
            if (code.len() as u64) > symbol.size {
                bail!("{name} of this kernel has {} bytes, too few for `clock-jump`", symbol.size);
            }
            let at = range.start + symbol.at;
            patches.push(Patch { process: process.clone(), at, was: memory.read(at, code.len())? });
        }
    }
    if patches.iter().any(|patch| functions(by).iter().any(|(_, code)| code[..7] == patch.was[..7])) {
        bail!("the clock of {} is changed already; run `cargo lab heal` first", pod.what());
    }
    scene.record(Active::ResetClock { what: pod.what(), by, patches: patches.clone() })?;
    write(&patches, |index| functions(by)[index % functions(by).len()].1.clone())
}

/// Puts the code back.
pub fn reset(patches: &[Patch]) -> Result<()> {
    write(patches, |index| patches[index].was.clone())
}

/// Writes code over each place, all places of a process while it stands still.
fn write(patches: &[Patch], code: impl Fn(usize) -> Vec<u8>) -> Result<()> {
    let mut from = 0;
    while let Some(first) = patches.get(from) {
        let count = patches[from..].iter().take_while(|p| p.process == first.process).count();
        if let Some(memory) = Memory::of(&first.process)? {
            let (range, _) = vdso(&memory, &first.process)?;
            memory.while_stopped(&range, || {
                (from..from + count).try_for_each(|index| memory.write(patches[index].at, &code(index)))
            })?;
        }
        from += count;
    }
    Ok(())
}

fn vdso(memory: &Memory, process: &Process) -> Result<(Range<u64>, Vec<u8>)> {
    let range = memory.mapping(|line| line.ends_with("[vdso]"))?;
    let range = range.with_context(|| format!("process {} has no vDSO", process.pid))?;
    let image = memory.read(range.start, usize::try_from(range.end - range.start)?)?;
    Ok((range, image))
}

/// The functions by which a program learns the time of day, and x86-64 code for each that adds `by` seconds. Pure.
fn functions(by: i32) -> [(&'static str, Vec<u8>); 3] {
    let seconds = by.to_le_bytes();
    let code = |parts: [&[u8]; 3]| parts.concat();
    [
        (
            "__vdso_clock_gettime",
            code([
                // mov eax, 228; syscall; test eax, eax; jnz end; test edi, edi; jz add; cmp edi, 5; jne end
                b"\xb8\xe4\0\0\0\x0f\x05\x85\xc0\x75\x10\x85\xff\x74\x05\x83\xff\x05\x75\x07",
                // add: add qword [rsi], seconds
                &[b"\x48\x81\x06".as_slice(), seconds.as_slice()].concat(),
                // end: ret
                b"\xc3",
            ]),
        ),
        (
            "__vdso_gettimeofday",
            code([
                // mov eax, 96; syscall; test eax, eax; jnz end; test rdi, rdi; jz end
                b"\xb8\x60\0\0\0\x0f\x05\x85\xc0\x75\x0c\x48\x85\xff\x74\x07",
                // add qword [rdi], seconds
                &[b"\x48\x81\x07".as_slice(), seconds.as_slice()].concat(),
                // end: ret
                b"\xc3",
            ]),
        ),
        (
            "__vdso_time",
            code([
                // mov eax, 201; syscall
                b"\xb8\xc9\0\0\0\x0f\x05",
                // add rax, seconds
                &[b"\x48\x05".as_slice(), seconds.as_slice()].concat(),
                // test rdi, rdi; jz end; mov [rdi], rax; end: ret
                b"\x48\x85\xff\x74\x03\x48\x89\x07\xc3",
            ]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a short jump at `at` ends.
    fn lands(code: &[u8], at: usize) -> usize {
        at + 2 + usize::from(code[at + 1])
    }

    #[test]
    fn jumps_land_on_the_addition_or_on_the_return() {
        let functions = functions(-300);
        let (clock, day, time) = (&functions[0].1, &functions[1].1, &functions[2].1);
        let end = |code: &[u8]| code.len() - 1;
        assert_eq!([lands(clock, 9), lands(clock, 13), lands(clock, 18)], [end(clock), 20, end(clock)]);
        assert_eq!([lands(day, 9), lands(day, 14)], [end(day), end(day)]);
        assert_eq!(lands(time, 16), end(time));
        for (name, code) in &functions {
            assert_eq!(code.last(), Some(&0xc3), "{name}");
            assert!(code.windows(4).any(|w| w == (-300_i32).to_le_bytes()), "{name}");
        }
        assert_eq!(clock[20..23], *b"\x48\x81\x06");
    }

    #[test]
    fn each_function_fits_where_the_kernel_has_the_least_room() {
        // __vdso_time has 40 bytes in Linux 6.18.
        assert!(functions(1).iter().all(|(_, code)| code.len() <= 40));
    }
}
