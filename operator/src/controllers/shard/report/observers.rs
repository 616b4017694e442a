//! What the status shows of each observer of the primary, and when that is written anew. Pure: the time is an argument.
//!
//! It is written with a change of verdict, and when one of them goes over to another side; while they go to and fro, once in a while.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use understudy_api::v1alpha1::{ObserverKind, ObserverSummary, Stance, Verdict, VerdictState};
use understudy_decide::failover::snapshot::Snapshot;
use understudy_decide::failover::testimony_view::{Seen, Stance as Side, domain_words, observers};
use understudy_wire::{Observer, ReplicaName};

/// A change that no change of verdict goes with is written no sooner than this after the last one.
const AT_MOST_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// What is shown, and on what occasion it was.
#[derive(Default)]
pub struct Observed {
    /// None before the first pass.
    shown: Option<Shown>,
}

struct Shown {
    observers: Vec<ObserverSummary>,
    of: Option<ReplicaName>,
    verdict: (VerdictState, Option<String>),
    at: Option<Timestamp>,
}

impl Observed {
    /// What to show after a pass. `present` is what the status says, `is_stale` whether words are due to be said anew.
    pub fn show(
        &mut self,
        present: &[ObserverSummary],
        s: &Snapshot,
        verdict: &Verdict,
        is_stale: bool,
    ) -> Vec<ObserverSummary> {
        let of = s.status.primary.as_ref();
        let seen = of.map(|primary| observers(s, primary)).unwrap_or_default();
        self.take(present, of, &seen, verdict, is_stale, s.now)
    }

    fn take(
        &mut self,
        present: &[ObserverSummary],
        of: Option<&ReplicaName>,
        seen: &[Seen],
        verdict: &Verdict,
        is_stale: bool,
        now: Timestamp,
    ) -> Vec<ObserverSummary> {
        let named = (verdict.state, verdict.cause.clone());
        // After a restart what was written goes on to hold.
        let shown = self.shown.get_or_insert_with(|| Shown {
            observers: present.to_vec(),
            of: of.cloned(),
            verdict: named.clone(),
            at: None,
        });
        let is_another = shown.of.as_ref() != of;
        let before = if is_another { &[][..] } else { &shown.observers[..] };
        let next: Vec<_> = seen.iter().map(|seen| summary(before, of, seen, now)).collect();
        let is_due = shown.at.is_none_or(|at| now.duration_since(at) >= AT_MOST_EVERY);
        let has_moved = !sides(&next).eq(sides(&shown.observers));
        let calm = matches!(verdict.state, VerdictState::Healthy | VerdictState::Slow);
        let has_words = is_stale && !calm && next != shown.observers;
        if is_another || shown.verdict != named || (has_moved && is_due) || has_words {
            *shown = Shown { observers: next, of: of.cloned(), verdict: named, at: Some(now) };
        }
        shown.observers.clone()
    }
}

/// What makes a change worth a write.
fn sides(
    observers: &[ObserverSummary],
) -> impl Iterator<Item = (ObserverKind, &str, Stance, Option<&str>, Option<&str>)> + '_ {
    observers.iter().map(|o| (o.kind, o.name.as_str(), o.stance, o.stage.as_deref(), o.not_counted.as_deref()))
}

fn summary(before: &[ObserverSummary], of: Option<&ReplicaName>, seen: &Seen, now: Timestamp) -> ObserverSummary {
    let (kind, name) = match &seen.observer {
        Observer::Manager { replica } if Some(replica) == of => (ObserverKind::Manager, replica.to_string()),
        Observer::Manager { replica } | Observer::Peer { replica } => (ObserverKind::Peer, replica.to_string()),
        Observer::Consumer { pod } => (ObserverKind::Consumer, pod.clone()),
        Observer::Operator { pod } => (ObserverKind::Operator, pod.clone()),
        Observer::Unknown => (ObserverKind::Unknown, String::new()),
    };
    let next = ObserverSummary {
        kind,
        name,
        node: seen.node.clone(),
        domain: domain_words(&seen.domain),
        stance: match seen.stance {
            Side::Commits => Stance::Commits,
            Side::Accuses => Stance::Accuses,
            Side::Abstains => Stance::Abstains,
            Side::Silent => Stance::Silent,
        },
        says: seen.says.clone(),
        stage: seen.stage.map(|stage| format!("{stage:?}")),
        since: None,
        counts: seen.not_counted.is_none(),
        not_counted: seen.not_counted.clone(),
    };
    // One that stands where it stood does so since then, though the age of its first failure is told a little differently each time.
    let same = before.iter().find(|b| (b.kind, &b.name, b.stance) == (next.kind, &next.name, next.stance));
    let since = same.and_then(|before| before.since.clone()).unwrap_or_else(|| began(seen, now));
    ObserverSummary { since: Some(since), ..next }
}

/// In whole seconds, as a status keeps it.
fn began(seen: &Seen, now: Timestamp) -> Time {
    let ago = SignedDuration::from_millis(i64::try_from(seen.since.unwrap_or(0)).unwrap_or(0));
    let at = now.checked_sub(ago).unwrap_or(now);
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use understudy_decide::failover::testimony::Domain;
    use understudy_wire::evidence::Stage;

    use super::*;

    fn replica(name: &str) -> ReplicaName {
        ReplicaName::new(name)
    }

    fn seen(observer: Observer, stance: Side, since: Option<u64>) -> Seen {
        let accuses = stance == Side::Accuses;
        Seen {
            observer,
            node: None,
            domain: Domain::Node("node-1".to_owned()),
            stance,
            says: format!("{stance:?}"),
            stage: accuses.then_some(Stage::Commit),
            since,
            not_counted: None,
        }
    }

    fn peer(stance: Side, since: Option<u64>) -> Vec<Seen> {
        vec![seen(Observer::Manager { replica: replica("m-b") }, stance, since)]
    }

    fn verdict(state: VerdictState) -> Verdict {
        Verdict { state, ..Verdict::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn what_ages_is_written_once_and_what_flaps_no_more_than_once_in_a_while() {
        let (of, well) = (replica("m-a"), verdict(VerdictState::Healthy));
        let mut observed = Observed::default();
        let mut writes = 0;
        let mut present = Vec::new();
        for second in 0..600 {
            // To and fro every second for the first minute.
            let accuses = second < 60 && second % 2 == 1;
            let (stance, since) = if accuses { (Side::Accuses, Some(1_500)) } else { (Side::Commits, None) };
            let next = observed.take(&present, Some(&of), &peer(stance, since), &well, second % 30 == 0, at(second));
            writes += u32::from(next != present);
            present = next;
        }
        assert!((1..=8).contains(&writes), "{writes}");
        assert_eq!(present[0].stance, Stance::Commits);
    }

    #[test]
    fn a_change_of_verdict_shows_what_everybody_sees_now() {
        let of = replica("m-a");
        let mut observed = Observed::default();
        let well =
            observed.take(&[], Some(&of), &peer(Side::Commits, None), &verdict(VerdictState::Healthy), false, at(0));
        assert_eq!((well[0].kind, well[0].stance, well[0].counts), (ObserverKind::Peer, Stance::Commits, true));
        let accused = peer(Side::Accuses, Some(2_400));
        let early = observed.take(&well, Some(&of), &accused, &verdict(VerdictState::Healthy), false, at(3));
        assert_eq!(early, well, "a write was made a moment ago");
        let suspect = observed.take(&well, Some(&of), &accused, &verdict(VerdictState::Suspect), false, at(3));
        assert_eq!((suspect[0].stance, suspect[0].stage.as_deref()), (Stance::Accuses, Some("Commit")));
        assert_eq!(suspect[0].since, Some(Time(at(0))));
        let later = peer(Side::Accuses, Some(4_430));
        let stuck = observed.take(&suspect, Some(&of), &later, &verdict(VerdictState::Stuck), false, at(5));
        assert_eq!(stuck[0].since, suspect[0].since, "the run began when it began");
    }

    #[test]
    fn after_a_restart_and_after_a_change_of_primary_it_is_told_from_when_on_it_holds() {
        let (a, b, well) = (replica("m-a"), replica("m-b"), verdict(VerdictState::Healthy));
        let consumer = |since| vec![seen(Observer::Consumer { pod: "store-0".to_owned() }, Side::Commits, since)];
        let before = Observed::default().take(&[], Some(&a), &consumer(None), &well, false, at(0));
        let mut restarted = Observed::default();
        assert_eq!(restarted.take(&before, Some(&a), &consumer(None), &well, true, at(100)), before);
        let after = restarted.take(&before, Some(&b), &consumer(None), &well, false, at(101));
        assert_eq!(after[0].since, Some(Time(at(101))));
        assert!(restarted.take(&after, None, &[], &verdict(VerdictState::Unknown), false, at(102)).is_empty());
    }
}
