//! Who may come in: the tokens of a mounted Secret, read again as they change. I/O: a directory of small files.
//!
//! One file a token: the file's name is the token's id, its content `<tenant> sha256:<hex of the whole token>`. What a
//! token is and how one is checked is [`understudy_model::tokens`]; this crate only keeps the table current, so that a
//! revoked token stops working within [`RELOAD_EVERY`] plus the kubelet's own delay. Gateway and query both use it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use understudy_model::Tenant;
use understudy_model::tokens::Tokens;

/// How often the directory is read again.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of a file that are read; a valid one has under 150.
const FILE_LIMIT: u64 = 4096;

/// The directory could not be listed. One unreadable or malformed file is no such failure: it is left out and logged.
#[derive(Debug, Error)]
#[error("read the token directory {path}")]
pub struct LoadError {
    /// Where it was looked for.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The tokens that are valid now; a clone sees the same table.
#[derive(Clone, Debug)]
pub struct TokenDirectory {
    directory: Arc<Path>,
    table: Arc<RwLock<Arc<Tokens>>>,
}

impl TokenDirectory {
    /// Reads `directory` once.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        let reading = read(directory)?;
        reading.log();
        Ok(Self { directory: directory.into(), table: Arc::new(RwLock::new(Arc::new(reading.tokens))) })
    }

    /// A table that is given and comes from no directory: for tests and for embedding.
    pub fn fixed(tokens: Tokens) -> Self {
        Self { directory: Path::new("").into(), table: Arc::new(RwLock::new(Arc::new(tokens))) }
    }

    /// The tenant that the value of an `Authorization` header proves.
    pub fn tenant_of_header(&self, header: &str) -> Option<Tenant> {
        self.current().tenant_of_header(header)
    }

    /// Reads the directory every [`RELOAD_EVERY`] until cancelled. While it cannot be read the last table stays.
    pub async fn keep_current(self, cancel: CancellationToken) {
        let mut ticks = interval(RELOAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = None;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let directory = Arc::clone(&self.directory);
            match tokio::task::spawn_blocking(move || read(&directory)).await {
                Ok(Ok(reading)) => {
                    let summary = (reading.tokens.len(), reading.problems.clone());
                    if known.replace(summary.clone()).is_some_and(|before| before != summary) {
                        reading.log();
                    }
                    *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reading.tokens);
                }
                Ok(Err(failure)) => {
                    let failure: &dyn std::error::Error = &failure;
                    error!(error = failure, "tokens stay as they were");
                }
                Err(failure) => error!(%failure, "the reading of the tokens was cut off"),
            }
        }
    }

    fn current(&self) -> Arc<Tokens> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Reading {
    tokens: Tokens,
    problems: Vec<String>,
}

impl Reading {
    fn log(&self) {
        for problem in &self.problems {
            warn!(problem, "a token is left out");
        }
        info!(tokens = self.tokens.len(), left_out = self.problems.len(), "tokens read");
    }
}

fn read(directory: &Path) -> Result<Reading, LoadError> {
    let fail = |source| LoadError { path: directory.to_owned(), source };
    let mut reading = Reading { tokens: Tokens::default(), problems: Vec::new() };
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The kubelet keeps the real files in a directory beside the links, under a name that starts with two dots.
        if name.starts_with('.') {
            continue;
        }
        let text = read_file(&entry.path()).map_err(|problem| problem.to_string());
        let outcome = text.and_then(|text| reading.tokens.insert(&name, &text).map_err(|problem| problem.to_string()));
        if let Err(problem) = outcome {
            reading.problems.push(format!("{name}: {problem}"));
        }
    }
    reading.problems.sort();
    Ok(reading)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of the token "agent.secret".
    const VALUE: &str = "acme sha256:cecc05b29ae140bae8e9dc95877ec61e196273f1e2bed00495ca78650da2522d";

    #[test]
    fn files_become_tokens_and_a_bad_one_does_not_stop_the_others() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("good"), VALUE).unwrap();
        std::fs::write(directory.path().join("bad"), "acme").unwrap();
        std::fs::write(directory.path().join("binary"), [0xff, 0xfe]).unwrap();
        std::fs::create_dir(directory.path().join("..data")).unwrap();
        let reading = read(directory.path()).unwrap();
        assert_eq!(reading.tokens.len(), 1);
        assert_eq!(reading.problems.len(), 2, "{:?}", reading.problems);
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_it() {
        let failure = TokenDirectory::load(Path::new("/nonexistent/tokens")).unwrap_err();
        assert!(failure.to_string().contains("/nonexistent/tokens"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_removed_stops_working_at_the_next_reading() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("agent"), VALUE).unwrap();
        let tokens = TokenDirectory::load(directory.path()).unwrap();
        assert_eq!(tokens.tenant_of_header("Bearer agent.secret").unwrap().as_str(), "acme");

        std::fs::remove_file(directory.path().join("agent")).unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(tokens.clone().keep_current(cancel.clone()));
        while tokens.tenant_of_header("Bearer agent.secret").is_some() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        task.await.unwrap();
    }
}
