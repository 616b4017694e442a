//! What is shown: from objects and the present time to a screen, from a screen to text or JSON. Pure.

pub mod drill;
pub mod explain;
mod inaction;
pub mod progress;
mod runbook;
pub mod status;
pub mod text;
pub mod time;
pub mod timeline;

#[cfg(test)]
pub(crate) mod fixtures;

use serde::Serialize;
use understudy_api::v1alpha1::VerdictState;

use self::text::{Extent, Text, Tone};

/// An answer. As JSON it is always complete.
pub trait Screen: Serialize {
    /// For a person.
    fn text(&self, extent: Extent) -> Text;
}

/// How a state of a primary looks.
fn tone_of(state: Option<VerdictState>) -> Tone {
    match state {
        Some(VerdictState::Healthy) => Tone::Good,
        Some(VerdictState::Stuck | VerdictState::Gone) => Tone::Bad,
        // A word that is not known is no good news.
        Some(_) | None => Tone::Busy,
    }
}

/// How `2/3` looks: bad when something is missing.
fn tone_of_ready(ready: Option<&str>) -> Tone {
    match ready.and_then(|ready| ready.split_once('/')) {
        Some((there, asked)) if there == asked => Tone::Plain,
        Some(_) => Tone::Busy,
        None => Tone::Plain,
    }
}

/// How the result of a change of primary looks.
fn tone_of_result(result: &str) -> Tone {
    match result {
        "Succeeded" => Tone::Good,
        "Confirmed" | "Skipped" => Tone::Busy,
        _ => Tone::Bad,
    }
}

/// `1 shard`, `2 shards`.
fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
