//! Why tests failed, kept for the end of the run, where no other test's output follows it. I/O: files, the panic hook.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// The folder that `cargo lab test` reads when the tests have ended. Nothing is kept without it.
const FOLDER: &str = "UNDERSTUDY_E2E_FAILURES";

/// Keeps what the test of this thread failed with.
pub fn keep(what: impl Display) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed");
    if let Err(error) = write(&folder, test, &what) {
        eprintln!("cannot keep why {test} failed in {}: {error}", folder.display());
    }
}

/// Keeps each panic from now on, besides what was done with it before.
pub fn watch_panics() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            keep(panic);
            before(panic);
        }));
    });
}

fn write(folder: &Path, test: &str, what: &dyn Display) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join(test))?;
    writeln!(file, "{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_test_failed_with_is_kept_under_its_name() {
        let folder = std::env::temp_dir().join(format!("understudy-e2e-failures-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let error = anyhow::anyhow!("connection refused").context("the shard cannot be read");
        write(&folder, "levers::a_lever", &format_args!("{error:#}")).unwrap();
        write(&folder, "levers::a_lever", &"panicked").unwrap();
        let kept = std::fs::read_to_string(folder.join("levers::a_lever")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(kept, "the shard cannot be read: connection refused\npanicked\n");
    }
}
