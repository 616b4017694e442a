//! Logs as JSON lines on standard output. I/O.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is an EnvFilter directive, such as `info` or `understudy=debug`.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("{filter:?} is no log filter"))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .try_init()
        .map_err(|e| anyhow::anyhow!("logging was started twice: {e}"))
}
