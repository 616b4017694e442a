//! From what was decided to what is said: each note once, when it begins to hold. Pure: the clock is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use strum::IntoEnumIterator;
use understudy_decide::Reason as Why;
use understudy_decide::decision::Note;
use understudy_wire::ReplicaName;

use crate::events::Reason;

/// A note that stopped holding and holds again within this time is the same one.
const FLICKER: Duration = Duration::from_secs(10);

/// When each note held last.
#[derive(Debug, Default)]
pub struct Noted(HashMap<(Why, Option<ReplicaName>), Instant>);

impl Noted {
    /// What of these was not said yet.
    pub fn news<'a>(&mut self, notes: &'a [Note], now: Instant) -> Vec<(Reason, &'a str)> {
        let mut news = Vec::new();
        for note in notes {
            let last = self.0.insert((note.reason, note.about.clone()), now);
            if last.is_none_or(|last| now.duration_since(last) > FLICKER)
                && let Some(reason) = event(note.reason)
            {
                news.push((reason, note.message.as_str()));
            }
        }
        self.0.retain(|_, last| now.duration_since(*last) <= FLICKER);
        news
    }
}

/// Why something is not done that would be done else, as the events name it, and whether each holds now.
pub fn withheld(notes: &[Note]) -> BTreeMap<&'static str, bool> {
    let holds = |why: Why| notes.iter().any(|note| note.reason == why);
    let mut all = BTreeMap::new();
    for (why, reason) in Why::iter().filter(is_not_acting).filter_map(|why| Some((why, event(why)?))) {
        *all.entry(reason.into()).or_default() |= holds(why);
    }
    all
}

/// Something that is not done, and why.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// Why, as the event names it.
    pub reason: &'static str,
    /// What was noted.
    pub note: &'a Note,
    /// When it is looked at again, and what ends it.
    pub next_check: &'static str,
}

/// Everything that is not done now, the most binding first; each reason once for each replica.
pub fn not_done(notes: &[Note]) -> Vec<Refusal<'_>> {
    let mut all: Vec<Refusal<'_>> = Vec::new();
    for note in notes {
        let (Some(reason), Some(next_check)) = (event(note.reason), next_check(note.reason)) else { continue };
        let reason: &'static str = reason.into();
        if !all.iter().any(|known| known.reason == reason && known.note.about == note.about) {
            all.push(Refusal { reason, note, next_check });
        }
    }
    all
}

/// How often each reason for not acting began to hold, from how often each event was said; each from nought.
pub fn refusals(said: &BTreeMap<&'static str, u32>) -> BTreeMap<&'static str, u32> {
    let reasons = withheld(&[]).into_keys().chain([Reason::SwitchoverRefused.into()]);
    reasons.map(|reason| (reason, said.get(reason).copied().unwrap_or_default())).collect()
}

fn is_not_acting(why: &Why) -> bool {
    next_check(*why).is_some()
}

/// Of a reason for not acting, when it is looked at again and what ends it.
fn next_check(why: Why) -> Option<&'static str> {
    Some(match why {
        Why::FailoverLeftToPerson => "with every report; a person asks for the change, or the mode is changed",
        Why::Cooldown => {
            "with every report; at once when the evidence is a fact, else when the time that the message names is over"
        }
        Why::FailoverPaced => "when the time that the message names is over; a request of a person is taken up before",
        Why::FleetBreaker => "with every report; once fewer shards are suspect, or the evidence is a fact",
        Why::NoCandidate => "with every report; once a replica can be promoted",
        Why::RetentionViolated => {
            "with every report; once Kafka holds what a candidate needs, or another candidate comes forward"
        }
        Why::BootstrapHeld => "with every report; once what the message misses is there, or a person decides",
        Why::ObserverSuspect => "with every report; once these observers see what the others see",
        Why::LastCopyKept => "with every report; once another good copy is there",
        Why::QuarantineFull => "with every report; once a volume that is kept is deleted, or its time is over",
        Why::ReplacementWaits => {
            "with every report; once a rebuild has ended, or the time that the message names is over"
        }
        Why::WaitingForDonor => "with every report; once there is a donor, and room on its node",
        Why::BuildStalled => "with every report; once it comes further, or is begun anew or replaced",
        Why::SwitchoverWithheld => {
            "with every report; once the reason that the message names is gone, or nothing ails the primary"
        }
        _ => return None,
    })
}

/// The event that belongs to a note; none for what another one says already.
fn event(why: Why) -> Option<Reason> {
    Some(match why {
        Why::ShardPaused => Reason::Paused,
        Why::ShardResumed => Reason::Resumed,
        Why::FailoverLeftToPerson | Why::Cooldown | Why::FailoverPaced => Reason::FailoverWithheld,
        Why::NoCandidate => Reason::NoCandidate,
        Why::RetentionViolated => Reason::RetentionExceeded,
        Why::FleetBreaker => Reason::BreakerOpen,
        Why::SwitchoverWithheld => Reason::SwitchoverWithheld,
        Why::FailoverBegun => Reason::FailoverStarted,
        Why::SwitchoverBegun => Reason::SwitchoverStarted,
        Why::ConfirmBegun => Reason::ConfirmationStarted,
        Why::PrimaryFenced => Reason::PrimaryFenced,
        Why::PrimaryUnreachable => Reason::PrimaryUnreachable,
        Why::NearMiss => Reason::NearMiss,
        Why::SuspicionCleared => Reason::SuspicionCleared,
        Why::CandidateFailed => Reason::CandidateFailed,
        Why::LastResort => Reason::LastResort,
        // It follows the claim at once, and publication follows it.
        Why::Promoting => return None,
        Why::Bootstrapped => Reason::Bootstrapped,
        Why::FailoverDone => Reason::FailoverSucceeded,
        Why::SwitchoverDone => Reason::SwitchoverSucceeded,
        Why::PrimaryConfirmed => Reason::PrimaryConfirmed,
        Why::SwitchoverAborted | Why::RequestRefused => Reason::SwitchoverRefused,
        Why::BootstrapHeld => Reason::BootstrapHeld,
        Why::BootstrapIntended | Why::BootstrapAgain => Reason::BootstrapIntended,
        Why::Initialising | Why::Cloning => Reason::BuildStarted,
        Why::WaitingForDonor | Why::BuildStalled => Reason::BuildWaits,
        Why::BuildFailed => Reason::BuildFailed,
        Why::ReplicasAdded => Reason::ReplicaCreated,
        Why::ReplicaJoined => Reason::ReplicaJoined,
        Why::ReplicaCondemned => Reason::ReplicaCondemned,
        Why::ReplicaRemoved => Reason::ReplicaRemoved,
        Why::ReplacementWaits => Reason::ReplacementWaits,
        Why::QuarantineFull => Reason::QuarantineFull,
        Why::LastCopyKept => Reason::LastCopyKept,
        Why::LastCopyRestarted => Reason::LastCopyRestarted,
        Why::VolumeQuarantined => Reason::VolumeQuarantined,
        Why::VolumeDeleted => Reason::VolumeDeleted,
        Why::VolumeLow => Reason::VolumeLow,
        Why::Unschedulable => Reason::Unschedulable,
        Why::StatusLost => Reason::StatusLost,
        Why::ObserverSuspect => Reason::ObserverSuspect,
        Why::RedundancyBack => Reason::RedundancyRestored,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn note(reason: Why, about: Option<&str>, message: &str) -> Note {
        Note { reason, about: about.map(ReplicaName::new), message: message.into() }
    }

    fn said(noted: &mut Noted, notes: &[Note], now: Instant) -> Vec<String> {
        noted.news(notes, now).into_iter().map(|(reason, message)| format!("{reason}: {message}")).collect()
    }

    #[test]
    fn what_holds_for_many_passes_is_said_once() {
        let start = Instant::now();
        let mut noted = Noted::default();
        let mut passes = (0..300).map(|pass| {
            let notes = [note(Why::PrimaryFenced, Some("m-a"), &format!("m-a refuses writes, pass {pass}"))];
            said(&mut noted, &notes, start + Duration::from_millis(200) * pass)
        });
        assert_eq!(passes.next().unwrap(), ["PrimaryFenced: m-a refuses writes, pass 0"]);
        assert!(passes.all(|said| said.is_empty()), "other words are no other event");
    }

    #[test]
    fn what_begins_to_hold_again_is_said_again_unless_it_only_flickered() {
        let start = Instant::now();
        let mut noted = Noted::default();
        let notes = [note(Why::ReplicaJoined, Some("m-c"), "m-c is a standby")];
        assert_eq!(said(&mut noted, &notes, start).len(), 1);
        assert_eq!(said(&mut noted, &[], start + FLICKER / 2), [""; 0]);
        assert_eq!(said(&mut noted, &notes, start + FLICKER), [""; 0]);
        assert_eq!(said(&mut noted, &[], start + 3 * FLICKER), [""; 0]);
        assert_eq!(said(&mut noted, &notes, start + 3 * FLICKER).len(), 1);
    }

    #[test]
    fn the_same_of_two_replicas_is_two_events() {
        let mut noted = Noted::default();
        let notes = ["m-b", "m-c"].map(|name| note(Why::ReplicaJoined, Some(name), name));
        assert_eq!(said(&mut noted, &notes, Instant::now()), ["ReplicaJoined: m-b", "ReplicaJoined: m-c"]);
    }

    #[test]
    fn what_is_withheld_is_told_by_the_name_of_its_event() {
        let notes = [note(Why::Cooldown, None, "m"), note(Why::ReplicaJoined, Some("m-b"), "m-b")];
        let holding: Vec<_> = withheld(&notes).into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect();
        assert_eq!(holding, ["FailoverWithheld"]);
        assert_eq!(withheld(&[]).len(), withheld(&notes).len(), "the others are told as not holding");
    }

    #[test]
    fn what_is_not_done_is_told_once_for_each_reason_and_replica_with_what_ends_it() {
        let notes = [
            note(Why::FailoverLeftToPerson, None, "the mode is Manual"),
            note(Why::Cooldown, None, "until then"),
            note(Why::ReplicaJoined, Some("m-b"), "m-b"),
            note(Why::LastCopyKept, Some("m-b"), "m-b is kept"),
            note(Why::LastCopyKept, Some("m-c"), "m-c is kept"),
        ];
        let told: Vec<_> = not_done(&notes).iter().map(|held| (held.reason, held.note.message.as_str())).collect();
        let expected = [
            ("FailoverWithheld", "the mode is Manual"),
            ("LastCopyKept", "m-b is kept"),
            ("LastCopyKept", "m-c is kept"),
        ];
        assert_eq!(told, expected);
        assert!(not_done(&notes).iter().all(|held| !held.next_check.is_empty()));
    }

    #[test]
    fn a_refusal_is_counted_by_the_name_of_its_event_and_what_is_none_is_not() {
        let said =
            BTreeMap::from([("NoCandidate", 2), ("ReplicaJoined", 5), ("SwitchoverRefused", 1), ("BuildWaits", 3)]);
        let counted = refusals(&said);
        assert_eq!((counted["NoCandidate"], counted["SwitchoverRefused"], counted["BreakerOpen"]), (2, 1, 0));
        assert_eq!(counted["BuildWaits"], 3, "the budget of a node is a gate as well");
        assert!(!counted.contains_key("ReplicaJoined"), "{counted:?}");
    }

    #[test]
    fn the_table_of_metrics_names_every_reason_for_which_something_is_held_back_and_no_other() {
        let table = include_str!("../../../docs/metrics.md");
        let row = table.lines().find(|line| line.starts_with("| `understudy_operator_shard_withheld`")).unwrap();
        let (_, named) = row.trim_end_matches(" |").split_once("the name of the event: ").unwrap();
        let named: BTreeSet<&str> = named.split(", ").collect();
        let told: BTreeSet<&str> = withheld(&[]).into_keys().collect();
        assert_eq!(named, told);
    }

    #[test]
    fn a_change_of_primary_is_called_by_its_kind() {
        for (why, reason) in [
            (Why::FailoverBegun, Reason::FailoverStarted),
            (Why::FailoverDone, Reason::FailoverSucceeded),
            (Why::SwitchoverBegun, Reason::SwitchoverStarted),
            (Why::SwitchoverDone, Reason::SwitchoverSucceeded),
            (Why::ConfirmBegun, Reason::ConfirmationStarted),
            (Why::PrimaryConfirmed, Reason::PrimaryConfirmed),
            (Why::ReplicaRemoved, Reason::ReplicaRemoved),
            (Why::ShardResumed, Reason::Resumed),
            (Why::PrimaryUnreachable, Reason::PrimaryUnreachable),
        ] {
            assert_eq!(event(why), Some(reason), "{why}");
        }
    }

    #[test]
    fn where_a_reason_not_to_act_has_another_name_as_an_event_the_page_says_which() {
        let page = include_str!("../../../docs/failover.md");
        for why in Why::iter().filter(is_not_acting) {
            let said = event(why).unwrap();
            let row = format!("| `{why}` | `{said}` |");
            assert_eq!(page.contains(&row), why.to_string() != said.to_string(), "{row}");
        }
    }
}
