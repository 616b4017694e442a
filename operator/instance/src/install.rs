//! Copies this binary into a directory that the init container shares with the main one. I/O.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Name of the binary in the directory.
pub const NAME: &str = "understudy-instance";

/// Copies the running binary. Replaces one that is there at once, so that an interrupted copy is never run.
pub fn install(directory: &Path) -> io::Result<()> {
    let new = directory.join(format!(".{NAME}.new"));
    fs::copy("/proc/self/exe", &new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(new, directory.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_binary_is_copied_and_may_be_run() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            install(dir.path()).unwrap();
        }
        let copy = fs::metadata(dir.path().join(NAME)).unwrap();
        assert_eq!(copy.len(), fs::metadata("/proc/self/exe").unwrap().len());
        assert_eq!(copy.permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
