//! What mysqld writes on its standard error, as structured events of the manager's own log. Its last error is kept as a fact,
//! since the log goes with the pod. The parser is pure.

use std::process::ChildStderr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::facts::Shared;

/// How much of an error is told with the evidence, in characters.
const MAX_ERROR: usize = 240;
/// The longest line that is kept whole, in bytes.
const MAX_LINE: u64 = 16 * 1024;

/// A line of mysqld's error log, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As mysqld wrote it.
    pub time: &'a str,
    /// mysqld's number of the thread.
    pub thread: &'a str,
    /// Priority.
    pub level: Level,
    /// `MY-010116`.
    pub code: &'a str,
    /// `Server`, `InnoDB`, `Repl` ...
    pub subsystem: &'a str,
    /// The rest.
    pub message: &'a str,
}

/// Priority of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may not work.
    Warning,
    /// Starting, stopping.
    System,
    /// Anything else.
    Note,
}

/// Takes a line apart; None when it is not of mysqld's form.
pub fn parse(line: &str) -> Option<Line<'_>> {
    let (time, rest) = line.split_once(' ')?;
    let (thread, rest) = rest.split_once(' ')?;
    if !time.contains('T') || !thread.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (level, rest) = bracketed(rest)?;
    let (code, rest) = bracketed(rest)?;
    let (subsystem, message) = bracketed(rest)?;
    let level = match level {
        "ERROR" => Level::Error,
        "Warning" => Level::Warning,
        "System" => Level::System,
        _ => Level::Note,
    };
    Some(Line { time, thread, level, code, subsystem, message })
}

fn bracketed(text: &str) -> Option<(&str, &str)> {
    let (inside, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((inside, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// Passes every line on until the pipe closes.
pub async fn pass_on(stderr: ChildStderr, shared: Arc<Shared>) {
    let stderr = match tokio::process::ChildStderr::from_std(stderr) {
        Ok(stderr) => stderr,
        Err(e) => return tracing::warn!(error = %e, "mysqld's log is lost"),
    };
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end is passed on in pieces instead of being collected without bound.
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) => return,
            Ok(_) => {
                let line = String::from_utf8_lossy(&line);
                if let Some(error) = error(line.trim_end()) {
                    shared.update(|facts| facts.last_error = Some(error));
                }
                emit(line.trim_end());
            }
            Err(e) => return tracing::warn!(error = %e, "mysqld's log is lost"),
        }
    }
}

/// What the line says, if it is an error. The line with which mysqld ends after any error tells nothing.
fn error(line: &str) -> Option<String> {
    const ER_ABORTING: &str = "MY-010119";
    let line = parse(line).filter(|line| line.level == Level::Error && line.code != ER_ABORTING)?;
    Some(format!("{} {}", line.code, line.message).chars().take(MAX_ERROR).collect())
}

fn emit(line: &str) {
    let Some(Line { time, thread, level, code, subsystem, message }) = parse(line) else {
        if !line.is_empty() {
            tracing::info!(target: "mysqld", "{line}");
        }
        return;
    };
    match level {
        Level::Error => tracing::error!(target: "mysqld", time, thread, code, subsystem, "{message}"),
        Level::Warning => tracing::warn!(target: "mysqld", time, thread, code, subsystem, "{message}"),
        Level::System | Level::Note => tracing::info!(target: "mysqld", time, thread, code, subsystem, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_error_log_is_taken_apart() {
        let line = "2026-11-23T09:23:19.735991Z 0 [ERROR] [MY-010095] [Server] Failed to access [x] directory";
        let expected = Line {
            time: "2026-11-23T09:23:19.735991Z",
            thread: "0",
            level: Level::Error,
            code: "MY-010095",
            subsystem: "Server",
            message: "Failed to access [x] directory",
        };
        assert_eq!(parse(line), Some(expected));
    }

    #[test]
    fn only_an_error_that_says_something_is_kept() {
        let line = |level: &str, code: &str| format!("2026-11-23T09:23:19.735991Z 0 [{level}] [{code}] [Server] words");
        for (case, line, kept) in [
            ("an error", line("ERROR", "MY-010262"), Some("MY-010262 words".to_owned())),
            ("a warning", line("Warning", "MY-010262"), None),
            ("the last line before the end", line("ERROR", "MY-010119"), None),
            ("another form", "mysqld: words".to_owned(), None),
        ] {
            assert_eq!(error(&line), kept, "{case}");
        }
        let long = format!("2026-11-23T09:23:19.735991Z 0 [ERROR] [MY-1] [Server] {}", "ä".repeat(2 * MAX_ERROR));
        assert_eq!(error(&long).map(|kept| kept.chars().count()), Some(MAX_ERROR));
    }

    #[test]
    fn what_is_of_another_form_is_left_as_it_is() {
        for line in [
            "",
            "mysqld: Error on realpath() on '/x'",
            "2026-11-23T09:23:19Z x [ERROR] [MY-1] [Server] m",
            "2026-11-23T09:23:19Z 0 [ERROR",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
