//! A volume of no pod, and how reads and writes of it fare.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::paths::Paths;
use crate::run;
use crate::topology::Node;
use crate::volume::Volume;

const VOLUME: &str = "selftest";
const VOLUME_BYTES: u64 = 64 << 20;
/// What does not answer for this long hangs.
const PATIENCE: Duration = Duration::from_secs(4);
/// What takes longer than this is slow.
const SLOW: Duration = Duration::from_millis(300);

/// The volume that is tried, freed at the end.
pub struct Scratch<'a> {
    paths: &'a Paths,
    /// It.
    pub volume: Volume,
    files: AtomicU32,
}

impl<'a> Scratch<'a> {
    /// Makes it on this node, with some data.
    pub fn make(paths: &'a Paths, node: &Node) -> Result<Self> {
        let volume = Volume { node: node.name(), name: VOLUME.to_owned() };
        volume.ensure_image(paths, VOLUME_BYTES)?;
        volume.ensure_mounted(paths)?;
        let scratch = Self { paths, volume, files: AtomicU32::new(0) };
        let mut dd = run::sh("dd if=/dev/zero bs=64k count=16 conv=fsync");
        run::output(dd.arg(format!("of={}", scratch.file("data"))))?;
        Ok(scratch)
    }

    fn file(&self, name: &str) -> String {
        self.volume.mount_point(self.paths).join(name).display().to_string()
    }

    /// How a read that no cache answers fares, and how a write of a new file.
    pub fn see(&self) -> String {
        let mut read = run::sh("dd of=/dev/null bs=4k count=4 iflag=direct");
        read.arg(format!("if={}", self.file("data")));
        let mut write = run::sh("dd if=/dev/zero bs=4k count=1 conv=fsync");
        write.arg(format!("of={}", self.file(&format!("new-{}", self.files.fetch_add(1, Ordering::Relaxed)))));
        format!("read {}, write {}", fares(&mut read), fares(&mut write))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        match self.volume.free(self.paths) {
            Ok(true) => {}
            Ok(false) => println!("the volume {VOLUME} is still used; `cargo lab down` takes it away"),
            Err(error) => println!("the volume {VOLUME} stays until `cargo lab down`: {error:#}"),
        }
    }
}

/// One word for how a command on a disk fares. One that hangs ends by itself when the disk goes again.
fn fares(command: &mut std::process::Command) -> &'static str {
    let began = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return "cannot run dd" };
    while began.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(status)) if status.success() && began.elapsed() < SLOW => return "answers",
            Ok(Some(status)) if status.success() => return "is slow",
            _ => return complaint(&mut child),
        }
    }
    child.kill().ok();
    // Reaped by a thread of its own: until the disk goes, even SIGKILL is not obeyed.
    std::thread::spawn(move || child.wait());
    "hangs"
}

fn complaint(child: &mut Child) -> &'static str {
    use std::io::Read as _;
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut said).ok();
    }
    for (text, word) in
        [("Input/output error", "EIO"), ("Read-only file system", "EROFS"), ("No space left on device", "ENOSPC")]
    {
        if said.contains(text) {
            return word;
        }
    }
    "fails otherwise"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_becomes_one_word() {
        for (script, want) in [
            ("exit 0", "answers"),
            ("echo dd: x: Input/output error >&2; exit 1", "EIO"),
            ("echo dd: x: Read-only file system >&2; exit 1", "EROFS"),
            ("echo dd: x: No space left on device >&2; exit 1", "ENOSPC"),
            ("exit 1", "fails otherwise"),
        ] {
            let word = fares(&mut run::cmd(["sh", "-c", script]));
            // A machine under load may be slow, and nothing else.
            assert!(word == want || (want == "answers" && word == "is slow"), "{script}: {word}");
        }
    }
}
