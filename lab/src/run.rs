//! Runs other programs to their end. Nothing started here outlives this process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Environment mark by which everything the lab started is known, whatever became of the record of it.
pub const MARK: &str = "UNDERSTUDY_LAB_STATE";

/// A command line from words.
pub fn cmd<I, S>(words: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a command line has a first word"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Splits a command line at white space; for lines that contain no quoting.
pub fn sh(line: &str) -> Command {
    cmd(line.split_whitespace())
}

/// Runs to the end; an exit code other than zero is an error that carries what the program said. Killed with this process.
pub fn output(command: &mut Command) -> Result<String> {
    let output = tied(command).output().with_context(|| missing(command))?;
    checked(command, output)
}

/// As [`output`], but the program ends by itself whatever becomes of this process: a package manager must not be cut short.
pub fn output_uncut(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| missing(command))?;
    checked(command, output)
}

/// As [`output`], with `input` on standard input.
pub fn output_with(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut tied = tied(command);
    tied.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tied.spawn().with_context(|| missing(command))?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let sent = std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output();
        (writer.join(), output)
    });
    let text = checked(command, sent.1?)?;
    match sent.0 {
        Ok(written) => written.with_context(|| format!("{} did not read its input", program(command)))?,
        Err(_) => bail!("writing to {} panicked", program(command)),
    }
    Ok(text)
}

/// Whether the program ran and exited with zero. What it prints is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    tied(command).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Runs to the end in a process tree of its own that dies with this process, also by SIGKILL. Each line of its output goes to
/// `log` and to `line`.
pub fn watched(command: &Command, log: &Path, mut line: impl FnMut(&str)) -> Result<()> {
    let mut inner = sh("unshare --mount --pid --fork --kill-child --mount-proc sh -c");
    inner.arg("exec \"$@\" 2>&1").arg("sh").arg(command.get_program()).args(command.get_args());
    copy_surroundings(command, &mut inner);
    let mut wrapped = tied(&inner);
    let mut child = wrapped.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().with_context(|| missing(command))?;
    let mut file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut tail = std::collections::VecDeque::new();
    let mut reader = BufReader::new(child.stdout.take().expect("stdout was asked for"));
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        file.write_all(&bytes)?;
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        line(&text);
        tail.push_back(text);
        if tail.len() > 15 {
            tail.pop_front();
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let tail: Vec<_> = tail.into();
        bail!(
            "`{}` failed ({status}); its last lines:\n{}\n(all of it: {})",
            words(command),
            tail.join("\n"),
            log.display()
        );
    }
    Ok(())
}

/// The same command, killed when the thread that runs it ends.
pub fn tied(command: &Command) -> Command {
    let mut tied = sh("setpriv --pdeathsig KILL");
    tied.arg(command.get_program()).args(command.get_args());
    copy_surroundings(command, &mut tied);
    tied
}

fn copy_surroundings(from: &Command, to: &mut Command) {
    for (key, value) in from.get_envs() {
        match value {
            Some(value) => to.env(key, value),
            None => to.env_remove(key),
        };
    }
    if let Some(dir) = from.get_current_dir() {
        to.current_dir(dir);
    }
}

fn checked(command: &Command, output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if said.is_empty() { String::from_utf8_lossy(&output.stdout).trim().to_owned() } else { said };
    bail!("`{}` failed ({}): {said}", words(command), output.status)
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn missing(command: &Command) -> String {
    format!("cannot run `{}`", program(command))
}

fn words(command: &Command) -> String {
    let mut text = program(command);
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    if text.len() > 400 { format!("{}…", text.chars().take(400).collect::<String>()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_says_what_and_why() {
        let error = output(cmd(["sh", "-c", "echo because >&2; exit 3"]).env("A", "b")).unwrap_err().to_string();
        assert!(error.contains("because") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_is_not_a_deadlock() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(output_with(&mut sh("cat"), &input).unwrap().len(), input.len());
    }
}
