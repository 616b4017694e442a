//! Names that an ELF file of 64 bits exports, and where they are. Pure.

/// A name's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Address, from the start of the file's image in memory where that may lie anywhere.
    pub at: u64,
    /// Size in bytes.
    pub size: u64,
}

/// An ELF file, or an image of one.
#[derive(Debug, Clone, Copy)]
pub struct Elf<'a>(&'a [u8]);

const DYNSYM: u64 = 11;
const SYMBOL_SIZE: usize = 24;
/// An image that lies where its headers say, not where there is room.
const FIXED: u64 = 2;

impl<'a> Elf<'a> {
    /// None when this is no ELF file of 64 bits, least byte first.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(b"\x7fELF\x02\x01").then_some(Self(bytes))
    }

    /// Whether its addresses are final.
    pub fn is_fixed(self) -> bool {
        self.number(16, 2) == Some(FIXED)
    }

    /// The exported symbol of that name.
    pub fn symbol(self, name: &str) -> Option<Symbol> {
        let sections = usize::try_from(self.number(40, 8)?).ok()?;
        let (size, count) = (usize::try_from(self.number(58, 2)?).ok()?, usize::try_from(self.number(60, 2)?).ok()?);
        let section = |index: usize| sections.checked_add(index.checked_mul(size)?);
        let table = (0..count).filter_map(section).find(|at| self.number(at + 4, 4) == Some(DYNSYM))?;
        let names = section(usize::try_from(self.number(table + 40, 4)?).ok()?)?;
        let (symbols, names) = (self.content(table)?, self.content(names)?);
        symbols.chunks_exact(SYMBOL_SIZE).find_map(|symbol| {
            let symbol = Elf(symbol);
            let offset = usize::try_from(symbol.number(0, 4)?).ok()?;
            let rest = names.get(offset..)?;
            let is_it = rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
            // Section 0: used here, but found elsewhere.
            let is_defined = symbol.number(6, 2)? != 0;
            (is_it && is_defined).then_some(Symbol { at: symbol.number(8, 8)?, size: symbol.number(16, 8)? })
        })
    }

    fn content(self, section: usize) -> Option<&'a [u8]> {
        let offset = usize::try_from(self.number(section + 24, 8)?).ok()?;
        let size = usize::try_from(self.number(section + 32, 8)?).ok()?;
        self.0.get(offset..offset.checked_add(size)?)
    }

    fn number(self, at: usize, bytes: usize) -> Option<u64> {
        let bytes = self.0.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two sections: names, and the symbols `a` (elsewhere), `lock` and `locks`.
    fn file() -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16] = 3;
        let names = file.len() as u64;
        file.extend(b"\0a\0lock\0locks\0");
        let names_size = file.len() as u64 - names;
        let symbols = file.len() as u64;
        for (name, section, at, size) in [(1_u32, 0_u16, 1_u64, 1_u64), (8, 9, 0x30, 0x80), (3, 9, 0x10, 0x28)] {
            file.extend(name.to_le_bytes());
            file.extend([0, 0]);
            file.extend(section.to_le_bytes());
            file.extend(at.to_le_bytes());
            file.extend(size.to_le_bytes());
        }
        let symbols_size = file.len() as u64 - symbols;
        let sections = file.len() as u64;
        for (kind, offset, size) in [(3_u32, names, names_size), (11, symbols, symbols_size)] {
            let mut header = vec![0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            file.extend(header);
        }
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&2_u16.to_le_bytes());
        file
    }

    #[test]
    fn a_symbol_is_found_by_its_whole_name_where_it_is_defined() {
        let file = file();
        let elf = Elf::new(&file).unwrap();
        assert_eq!(elf.symbol("lock"), Some(Symbol { at: 0x10, size: 0x28 }));
        assert_eq!(elf.symbol("locks"), Some(Symbol { at: 0x30, size: 0x80 }));
        assert_eq!(elf.symbol("loc"), None);
        assert_eq!(elf.symbol("a"), None, "it is only used here");
        assert!(!elf.is_fixed());
    }

    #[test]
    fn a_file_that_is_cut_short_or_none_has_no_symbols() {
        assert!(Elf::new(b"#!/bin/sh").is_none());
        let file = file();
        // All that is asked for lies before the last 20 bytes.
        for length in 6..file.len() - 20 {
            let symbol = Elf::new(&file[..length]).unwrap().symbol("lock");
            assert_eq!(symbol, None, "cut at {length}");
        }
    }

    #[test]
    fn this_programs_own_file_is_read() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(Elf::new(&own).unwrap().symbol("no_such_name_in_any_program"), None);
    }
}
