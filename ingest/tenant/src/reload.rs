//! Tokens from a mounted Secret, read again as they change. I/O: a directory of small files.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::table::{AuthError, TenantName, TokenTable};

/// How often the directory is read again.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// Longest file that is read, in bytes; a valid one has under 150.
const FILE_LIMIT: u64 = 4096;

/// Why the directory could not be read. One unreadable or malformed file is no reason: it is left out and logged.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The directory itself.
    #[error("read the token directory {path}")]
    Directory {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The tokens that are valid now; a clone sees the same table.
#[derive(Clone, Debug)]
pub struct Tokens {
    directory: Arc<Path>,
    table: Arc<RwLock<Arc<TokenTable>>>,
}

impl Tokens {
    /// Reads `directory` once; fails only when it cannot be listed.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let (table, problems) = read_table(directory)?;
        log_table(&table, &problems);
        Ok(Self { directory: directory.into(), table: Arc::new(RwLock::new(Arc::new(table))) })
    }

    /// A table that is given and never read again: for tests and embedding.
    pub fn fixed(table: TokenTable) -> Self {
        Self { directory: Path::new("").into(), table: Arc::new(RwLock::new(Arc::new(table))) }
    }

    /// The tenant that the value of an `Authorization` header proves.
    pub fn authenticate(&self, header: Option<&str>) -> Result<TenantName, AuthError> {
        self.current().authenticate(header).cloned()
    }

    /// Reads the directory every [`RELOAD_EVERY`] until cancelled. While it cannot be read the last table stays in force.
    pub async fn keep_current(self, cancel: CancellationToken) {
        let mut ticks = interval(RELOAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_problems = Vec::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let directory = Arc::clone(&self.directory);
            match tokio::task::spawn_blocking(move || read_table(&directory)).await {
                Ok(Ok((table, problems))) => {
                    if table.len() != self.current().len() || problems != last_problems {
                        log_table(&table, &problems);
                    }
                    last_problems = problems;
                    *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
                }
                Ok(Err(failure)) => error!(error = %failure, "tokens stay as they were"),
                Err(failure) => error!(error = %failure, "reading the tokens was cut off"),
            }
        }
    }

    fn current(&self) -> Arc<TokenTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn log_table(table: &TokenTable, problems: &[String]) {
    for problem in problems {
        warn!(problem, "a token is left out");
    }
    info!(tokens = table.len(), left_out = problems.len(), "tokens read");
}

fn read_table(directory: &Path) -> Result<(TokenTable, Vec<String>), LoadError> {
    let fail = |source| LoadError::Directory { path: directory.to_owned(), source };
    let mut table = TokenTable::default();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The kubelet keeps the files' real directory beside their links, under a name that starts with two dots.
        if name.starts_with('.') {
            continue;
        }
        let outcome = read_file(&entry.path()).map_err(|source| source.to_string());
        let outcome = outcome.and_then(|value| table.insert(&name, &value).map_err(|source| source.to_string()));
        if let Err(problem) = outcome {
            problems.push(format!("{name}: {problem}"));
        }
    }
    problems.sort();
    Ok((table, problems))
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The hash of the token "a.b".
    const HASH: &str = "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6";

    #[test]
    fn files_become_tokens_and_a_bad_one_does_not_stop_the_others() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("good"), format!("acme {HASH}\n")).unwrap();
        std::fs::write(directory.path().join("bad"), "acme").unwrap();
        std::fs::write(directory.path().join("binary"), [0xff, 0xfe]).unwrap();
        std::fs::create_dir(directory.path().join("..data")).unwrap();
        let (table, problems) = read_table(directory.path()).unwrap();
        assert_eq!(table.len(), 1);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_it() {
        let failure = Tokens::load(Path::new("/nonexistent/tokens")).unwrap_err();
        assert!(failure.to_string().contains("/nonexistent/tokens"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_removed_stops_working_at_the_next_reading() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = TokenTable::default();
        let hash: String =
            <sha2::Sha256 as sha2::Digest>::digest(b"k.secret").iter().map(|byte| format!("{byte:02x}")).collect();
        let value = format!("acme sha256:{hash}");
        table.insert("k", &value).unwrap();
        std::fs::write(directory.path().join("k"), value).unwrap();
        let tokens = Tokens::load(directory.path()).unwrap();
        assert!(tokens.authenticate(Some("Bearer k.secret")).is_ok());

        std::fs::remove_file(directory.path().join("k")).unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(tokens.clone().keep_current(cancel.clone()));
        while tokens.authenticate(Some("Bearer k.secret")).is_ok() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        task.await.unwrap();
    }
}
