//! What the status keeps of suspicions that came to nothing: the last one, and how many there were. Pure.
//!
//! A near miss after a claim has a record of its own. One that a commit ends before anything was claimed is an event, which is gone an
//! hour later; this is one write for each of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use understudy_api::v1alpha1::LastSuspicion;
use understudy_decide::failover::course::Cleared;
use understudy_decide::failover::snapshot::Snapshot;
use understudy_wire::ReplicaName;

use super::withheld::shortened;

/// What was told last.
#[derive(Debug, Default)]
pub struct Suspicions {
    /// What a pass says of it, for a few seconds.
    heard: Option<Cleared>,
    shown: Option<LastSuspicion>,
}

impl Suspicions {
    /// What to show after a pass. `present` is what the status says.
    pub fn show(&mut self, present: Option<LastSuspicion>, s: &Snapshot) -> Option<LastSuspicion> {
        self.take(present, s.status.primary.as_ref(), s.memory.past.cleared.as_ref(), s.now)
    }

    fn take(
        &mut self,
        present: Option<LastSuspicion>,
        of: Option<&ReplicaName>,
        cleared: Option<&Cleared>,
        now: Timestamp,
    ) -> Option<LastSuspicion> {
        let count = |shown: &Option<LastSuspicion>| shown.as_ref().map_or(0, |shown| shown.count);
        // What was counted here may not be written yet; what another one counted is.
        if count(&present) > count(&self.shown) {
            self.shown = present;
        }
        if self.heard.as_ref() != cleared {
            self.heard = cleared.cloned();
            if let (Some(cleared), Some(of)) = (cleared, of) {
                self.shown = Some(LastSuspicion {
                    replica: of.to_string(),
                    cleared_at: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
                    state: cleared.state.to_owned(),
                    cause: cleared.cause.to_owned(),
                    lasted_ms: i64::try_from(cleared.lasted).unwrap_or(i64::MAX),
                    message: Some(shortened(&cleared.message).to_owned()),
                    count: count(&self.shown).saturating_add(1),
                });
            }
        }
        self.shown.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn cleared(lasted: u64) -> Cleared {
        Cleared { state: "Suspect", cause: "VolumeStalled", lasted, message: "its volume does not answer".into() }
    }

    #[test]
    fn each_suspicion_that_came_to_nothing_counts_once_however_long_it_is_told() {
        let of = ReplicaName::new("m-a");
        let mut suspicions = Suspicions::default();
        assert_eq!(suspicions.take(None, Some(&of), None, at(0)), None);
        let first = cleared(2_100);
        let shown = suspicions.take(None, Some(&of), Some(&first), at(1)).expect("it is shown");
        assert_eq!((shown.count, shown.lasted_ms, shown.cause.as_str()), (1, 2_100, "VolumeStalled"));
        assert_eq!(shown.cleared_at, Some(Time(at(1))));
        // Not written yet, and told for some seconds.
        assert_eq!(suspicions.take(None, Some(&of), Some(&first), at(3)).as_ref(), Some(&shown));
        assert_eq!(suspicions.take(Some(shown.clone()), Some(&of), None, at(9)).as_ref(), Some(&shown));
        let again = suspicions.take(Some(shown), Some(&of), Some(&first), at(60)).expect("it is shown");
        assert_eq!(again.count, 2, "the same again is another one");
    }

    #[test]
    fn whoever_comes_later_counts_on() {
        let of = ReplicaName::new("m-a");
        let before = LastSuspicion { replica: "m-x".into(), count: 7, ..LastSuspicion::default() };
        let mut suspicions = Suspicions::default();
        assert_eq!(suspicions.take(Some(before.clone()), Some(&of), None, at(0)).as_ref(), Some(&before));
        let shown = suspicions.take(Some(before), Some(&of), Some(&cleared(900)), at(5)).expect("it is shown");
        assert_eq!((shown.count, shown.replica.as_str()), (8, "m-a"));
    }
}
