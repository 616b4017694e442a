//! The run that a manager took up last, as far as a manager that is started again in the same pod must know of it. I/O on the scratch directory, never
//! on the volume: a drill is where that may not answer.
//!
//! What it held is not written, because it does not outlive the manager: that is process 1 of its pod, and the kernel ends every process of the pod
//! with it, stopped and traced ones too. mysqld is gone by then, and the operator replaces the primary as it replaces any that died.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use understudy_wire::order::Fault;

/// Name of the file in the scratch directory.
const FILE: &str = "drill.json";
const NEW: &str = "drill.json.new";

/// The run that was taken up last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// Its name.
    pub run: String,
    /// What was done, or was about to be when the manager ended.
    pub fault: Fault,
}

/// Where it is remembered.
#[derive(Clone, Debug)]
pub struct Memory(PathBuf);

impl Memory {
    /// In this directory, which lives as long as the pod.
    pub fn within(scratch: &Path) -> Self {
        Self(scratch.to_owned())
    }

    /// What an earlier manager of this pod left. A file that cannot be read is told of: at worst a run is done twice.
    pub fn recall(&self) -> Option<Remembered> {
        let path = self.0.join(FILE);
        let read = fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match read {
            Ok(remembered) => Some(remembered),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last run of a drill is not known");
                None
            }
        }
    }

    /// Remembers this one in place of any other. May block.
    pub fn keep(&self, remembered: &Remembered) -> io::Result<()> {
        let new = self.0.join(NEW);
        fs::write(&new, serde_json::to_vec(remembered)?)?;
        fs::rename(new, self.0.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_is_remembered_and_half_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::within(dir.path());
        assert_eq!(memory.recall(), None);
        let run = |name: &str| Remembered { run: name.to_owned(), fault: Fault::Wedge };
        for name in ["weekly-1", "weekly-2"] {
            memory.keep(&run(name)).unwrap();
            assert_eq!(Memory::within(dir.path()).recall(), Some(run(name)));
        }
        fs::write(dir.path().join(FILE), "{\"run\":").unwrap();
        assert_eq!(memory.recall(), None);
        memory.keep(&run("weekly-3")).unwrap();
        assert_eq!(memory.recall(), Some(run("weekly-3")));
    }
}
