//! Asking a person before something is done that cannot be taken back. I/O.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::view::text::Piece;

/// How a person's word is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It was given on the command line.
    Given,
    /// Somebody can be asked.
    Ask,
    /// Nobody is there.
    Nobody,
}

impl Consent {
    /// From `--yes` and from whether somebody sits at a terminal.
    pub fn of(yes: bool, is_terminal: bool) -> Self {
        match (yes, is_terminal) {
            (true, _) => Self::Given,
            (false, true) => Self::Ask,
            (false, false) => Self::Nobody,
        }
    }
}

/// Whether somebody can be asked here: who reads a question must be able to answer it.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and waits for one line.
pub fn ask(question: &str) -> io::Result<bool> {
    write!(anstream::stderr(), "{} [y/N] ", Piece::from(question))?;
    anstream::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

/// Anything but a clear yes is a no; so is the end of the input.
fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_who_said_yes_or_is_not_there() {
        assert_eq!(Consent::of(true, true), Consent::Given);
        assert_eq!(Consent::of(true, false), Consent::Given);
        assert_eq!(Consent::of(false, true), Consent::Ask);
        assert_eq!(Consent::of(false, false), Consent::Nobody);
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "Y\n", "yes\n", " YES \r\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "yep\n", "yy\n", "j\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
