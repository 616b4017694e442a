//! The page of `operator/docs/runbooks` that belongs to what a shard shows, for whoever has this program and nothing else. Pure.
//!
//! The pages are part of the program, so they are those of its version, and can be read where nothing else can be reached.

use serde::Serialize;
use understudy_api::conditions;

use super::text::{Extent, Piece, Text, Tone};
use crate::objects::Shard;

/// What a verdict, a reason or a condition has its page under, by the name of the file.
const PAGES: [(&str, &str, &str); 13] = [
    ("Suspect", "suspect", include_str!("../../../docs/runbooks/suspect.md")),
    ("Stuck", "stuck", include_str!("../../../docs/runbooks/stuck.md")),
    ("Gone", "gone", include_str!("../../../docs/runbooks/gone.md")),
    ("Slow", "slow", include_str!("../../../docs/runbooks/slow.md")),
    ("Saturated", "saturated", include_str!("../../../docs/runbooks/saturated.md")),
    ("ObserverPartition", "observer-partition", include_str!("../../../docs/runbooks/observer-partition.md")),
    ("Unknown", "unknown", include_str!("../../../docs/runbooks/unknown.md")),
    ("BreakerOpen", "breaker-open", include_str!("../../../docs/runbooks/breaker-open.md")),
    ("FailoverWithheld", "failover-left-to-person", include_str!("../../../docs/runbooks/failover-left-to-person.md")),
    ("NoCandidate", "no-candidate", include_str!("../../../docs/runbooks/no-candidate.md")),
    ("BootstrapHeld", "not-bootstrapped", include_str!("../../../docs/runbooks/not-bootstrapped.md")),
    ("LastCopyKept", "replacement-held", include_str!("../../../docs/runbooks/replacement-held.md")),
    ("Redundant", "standbys-missing", include_str!("../../../docs/runbooks/standbys-missing.md")),
];
/// Reasons that share the page of another.
const SAME: [(&str, &str); 5] = [
    ("RetentionExceeded", "NoCandidate"),
    ("QuarantineFull", "LastCopyKept"),
    ("ReplacementWaits", "LastCopyKept"),
    ("BuildWaits", "Redundant"),
    ("ObserverSuspect", "ObserverPartition"),
];
/// Commands of one page that are shown.
const COMMANDS: usize = 3;

/// A page, for one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runbook {
    /// What it is about.
    title: String,
    /// Where it is in the repository of the operator.
    path: String,
    /// Why it is the one to read: a verdict, the reason of what is withheld, or a condition.
    because: String,
    /// What to look at; nothing is changed by it.
    commands: Vec<String>,
    /// The page itself.
    text: &'static str,
}

/// The pages to read, that of the verdict first. None for a shard of which nothing is wrong.
pub fn runbooks(shard: &Shard, namespace: &str) -> Vec<Runbook> {
    let state = shard.verdict.as_ref().map(|verdict| verdict.state.as_str());
    let lacks = |condition: &crate::objects::Condition| {
        condition.kind == conditions::REDUNDANT && condition.status.as_deref() == Some("False")
    };
    let held = shard.withheld.iter().map(|held| held.reason.as_str());
    let missing = shard.conditions.iter().filter(|condition| lacks(condition)).map(|condition| condition.kind.as_str());
    let mut found: Vec<Runbook> = Vec::new();
    for because in state.into_iter().chain(held).chain(missing) {
        let Some((file, text)) = page(because) else { continue };
        let path = format!("operator/docs/runbooks/{file}.md");
        if !found.iter().any(|known| known.path == path) {
            found.push(Runbook {
                title: text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned(),
                path,
                because: because.to_owned(),
                commands: commands(text, shard, namespace),
                text,
            });
        }
    }
    found
}

fn page(because: &str) -> Option<(&'static str, &'static str)> {
    let own = SAME.iter().find(|(reason, _)| *reason == because).map_or(because, |(_, other)| *other);
    PAGES.iter().find(|(key, ..)| *key == own).map(|(_, file, text)| (*file, *text))
}

/// The commands of the page's `sh` blocks for this shard that are one line, but for the one that shows this.
fn commands(text: &str, shard: &Shard, namespace: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        match line.trim() {
            "```sh" => in_block = true,
            "```" => in_block = false,
            command if in_block && command.starts_with("kubectl ") => found.push(command.to_owned()),
            _ => {}
        }
    }
    let datastore = shard.datastore.as_deref();
    let fill = |command: String| {
        let filled = command.replace("$SHARD", &shard.name).replace("$NAMESPACE", namespace);
        match datastore {
            Some(datastore) => filled.replace("$DATASTORE", datastore),
            None => filled,
        }
    };
    let can_be_run = |command: &String| {
        let is_whole = !command.ends_with(['|', '\\']) && !command.starts_with("kubectl understudy explain");
        is_whole && (datastore.is_some() || !command.contains("$DATASTORE"))
    };
    found.into_iter().filter(can_be_run).take(COMMANDS).map(fill).collect()
}

/// As much of each page as is asked for.
pub fn show(runbooks: &[Runbook], text: &mut Text, extent: Extent) {
    for (number, runbook) in runbooks.iter().enumerate() {
        if number == 0 {
            text.head("What to look at next");
        }
        let Runbook { title, path, because, commands, text: page } = runbook;
        text.line([format!("  {title}").into(), Piece::new(format!(" ({because}): {path}"), Tone::Faint)]);
        if extent == Extent::All {
            page.lines().skip(1).for_each(|line| text.say(format!("    {line}")));
        } else {
            commands.iter().for_each(|command| text.say(format!("    {command}")));
        }
    }
    if !runbooks.is_empty() && extent == Extent::Screen {
        text.say(Piece::new("  --all shows the whole page", Tone::Faint));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::fixtures;

    #[test]
    fn every_page_is_the_one_that_names_its_verdict_reason_or_condition() {
        for (key, file, text) in PAGES {
            let is_named = text.contains(&format!("`{key}`")) || key == "Redundant";
            assert!(is_named && text.starts_with("# "), "{file} does not name {key}");
        }
        for (reason, _) in SAME.iter().filter(|(_, page)| ["NoCandidate", "LastCopyKept"].contains(page)) {
            assert!(page(reason).is_some_and(|(_, text)| text.contains(&format!("`{reason}`"))), "{reason}");
        }
        for (reason, other) in SAME {
            assert_eq!(page(reason), page(other), "{reason}");
            assert!(page(reason).is_some(), "{reason}");
        }
    }

    #[test]
    fn a_shard_has_the_page_of_its_verdict_and_those_of_what_is_withheld_each_once() {
        let held = json!([{ "reason": "LastCopyKept" }, { "reason": "QuarantineFull" }, { "reason": "Novel" }]);
        let shard = fixtures::shard(&fixtures::with(fixtures::stuck(), &[("/status/withheld", held)]));
        let found = runbooks(&shard, "prod");
        let told: Vec<_> = found.iter().map(|found| (found.because.as_str(), found.path.as_str())).collect();
        assert_eq!(
            told,
            [
                ("Stuck", "operator/docs/runbooks/stuck.md"),
                ("LastCopyKept", "operator/docs/runbooks/replacement-held.md"),
                ("Redundant", "operator/docs/runbooks/standbys-missing.md"),
            ]
        );
        assert_eq!(found[1].title, "A replica that is not replaced");
        assert!(runbooks(&fixtures::shard(&fixtures::healthy()), "prod").is_empty(), "nothing is wrong with it");
    }

    #[test]
    fn the_commands_can_be_run_as_they_stand() {
        for object in [fixtures::stuck(), fixtures::of_datastore(fixtures::stuck(), "metrics")] {
            for runbook in runbooks(&fixtures::shard(&object), "prod") {
                assert!((1..=COMMANDS).contains(&runbook.commands.len()), "{runbook:?}");
                for command in &runbook.commands {
                    assert!(command.starts_with("kubectl ") && !command.contains('$'), "{command}");
                }
            }
        }
    }

    #[test]
    fn the_whole_page_is_shown_when_everything_is_asked_for() {
        let found = runbooks(&fixtures::shard(&fixtures::stuck()), "prod");
        let shown = |extent| {
            let mut text = Text::default();
            show(&found, &mut text, extent);
            text.plain()
        };
        assert!(shown(Extent::All).contains("What you may do"));
        let screen = shown(Extent::Screen);
        assert!(screen.contains("operator/docs/runbooks/stuck.md") && !screen.contains("What you may do"), "{screen}");
    }
}
