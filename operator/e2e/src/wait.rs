//! Waiting for a condition with a deadline. The only place that sleeps, and only between two looks.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What one look showed.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Done(T),
    /// Not yet; what there was instead, for the message of a timeout.
    NotYet(String),
}

impl<T> Seen<T> {
    /// `Done` when `holds`, else what was seen.
    pub fn when(holds: bool, value: T, instead: impl Display) -> Self {
        if holds { Self::Done(value) } else { Self::NotYet(instead.to_string()) }
    }
}

/// Looks until the condition holds. A look that fails is looked at again: the API server may be busy with the fault as well.
pub async fn until<T>(
    what: impl Display,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = String::from("nothing");
    loop {
        let left = limit.saturating_sub(began.elapsed());
        match tokio::time::timeout(left.max(BETWEEN_LOOKS), look()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(seen))) => last = seen,
            Ok(Err(error)) => last = format!("an error: {error:#}"),
            Err(_) => last = format!("no answer; before that: {last}"),
        }
        if began.elapsed() >= limit {
            bail!("{what}: not within {} s; last seen: {last}", limit.as_secs());
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Looks for as long as `window` and fails as soon as a look shows what must not be.
pub async fn never(
    what: impl Display,
    window: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < window {
        if let Some(seen) = look().await? {
            bail!("{what}: happened after {:.1} s: {seen}", began.elapsed().as_secs_f64());
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timeout_says_what_was_seen_last() {
        let mut looks = 0;
        let error = until("three looks", Duration::ZERO, async || {
            looks += 1;
            Ok(Seen::<()>::NotYet(format!("{looks} looks")))
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "three looks: not within 0 s; last seen: 1 looks");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_is_not_the_end() {
        let mut looks = 0;
        let value = until("two looks", Duration::from_secs(60), async || {
            looks += 1;
            if looks == 1 {
                bail!("busy");
            }
            Ok(Seen::when(true, looks, ""))
        })
        .await
        .unwrap();
        assert_eq!(value, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_must_not_be_ends_the_window_at_once() {
        let error =
            never("a promotion", Duration::from_secs(3600), async || Ok(Some("epoch 2".into()))).await.unwrap_err();
        assert!(error.to_string().ends_with("epoch 2"), "{error}");
    }
}
