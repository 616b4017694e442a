//! Standard output and standard error. I/O.
//!
//! Answers go to standard output, whatever is said on the way to standard error. Colours are left out where nobody would see
//! them: when it is no terminal, and when `NO_COLOR` is set.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use crate::args::Output;
use crate::view::Screen;
use crate::view::text::{Extent, Piece, Tone};

/// Shows an answer.
pub fn show(screen: &impl Screen, output: Output, extent: Extent) -> io::Result<()> {
    match output {
        Output::Text => closed_is_enough(write!(anstream::stdout(), "{}", screen.text(extent))),
        Output::Json => json(screen),
    }
}

/// Shows something as JSON, whole.
pub fn json(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    closed_is_enough(writeln!(io::stdout(), "{text}"))
}

/// One line for a person.
pub fn say(words: &str) -> io::Result<()> {
    closed_is_enough(writeln!(anstream::stdout(), "{}", Piece::from(words)))
}

/// One line on the way, with the time since the beginning.
pub fn progress(since: Duration, words: &str) {
    let time = Piece::new(format!("{:>7.1} s", since.as_secs_f64()), Tone::Faint);
    aside(&format!("{time}  {}", Piece::from(words)));
}

/// Something that a person should know.
pub fn warn(words: &str) {
    aside(&format!("{} {}", Piece::new("warning:", Tone::Busy), Piece::from(words)));
}

/// Why nothing more was done.
pub fn error(words: &str) {
    aside(&format!("{} {}", Piece::new("error:", Tone::Bad), Piece::from(words)));
}

/// Nobody may be there to read it, and that is no reason to stop.
fn aside(line: &str) {
    writeln!(anstream::stderr(), "{line}").ok();
}

/// Whoever reads only the beginning (`| head`) has what they wanted.
fn closed_is_enough(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
