//! The write gap of a change of primary, as the shard's consumers saw it. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use understudy_decide::failover::snapshot::Received;
use understudy_wire::{Epoch, Observer, ReplicaName};

/// Watches the consumers' commits.
#[derive(Debug, Default)]
pub struct GapWatch {
    /// The last commit on the primary that was in office.
    last: Option<Instant>,
    office: Option<(ReplicaName, Epoch)>,
    /// The change that is measured: its epoch and the last commit before it.
    open: Option<(Epoch, Instant)>,
}

/// A gap that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The change of primary it belongs to.
    pub epoch: Epoch,
    /// Between the last commit before and the first one after.
    pub length: Duration,
}

impl GapWatch {
    /// Takes in what consumers said, with who is in office. Gives the gap once the first commit after a change is known.
    pub fn see(&mut self, office: Option<(&ReplicaName, Epoch)>, reports: &[Received], now: Instant) -> Option<Gap> {
        let (primary, epoch) = office?;
        let before = |age: u64| now.checked_sub(Duration::from_millis(age));
        let probes = reports.iter().filter(|r| matches!(r.report.observer, Observer::Consumer { .. })).flat_map(|r| {
            let about = r.report.evidence.iter().filter(|evidence| evidence.subject == *primary);
            about.filter_map(move |evidence| Some((evidence.probe.as_ref()?, r.age)))
        });
        let (mut first, mut last) = (None, None);
        for (probe, age) in probes {
            first = first.max(probe.committing_since.and_then(|since| before(since + age)));
            last = last.max(probe.committed.and_then(|committed| before(committed + age)));
        }
        let known = (primary.clone(), epoch);
        if self.office.as_ref() != Some(&known) {
            // The same server under a new epoch has commits from before.
            self.open = self.office.as_ref().and(self.last).map(|last| (epoch, last));
            self.office = Some(known);
            self.last = None;
        }
        let gap = match (self.open, first) {
            (Some((epoch, before)), Some(after)) if after > before => {
                self.open = None;
                Some(Gap { epoch, length: after - before })
            }
            _ => None,
        };
        if self.open.is_none() {
            self.last = self.last.max(last);
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_wire::evidence::Probe;
    use understudy_wire::{Evidence, Report};

    fn says(subject: &str, committed: u64, since: Option<u64>) -> Vec<Received> {
        let probe = Probe { committed: Some(committed), committing_since: since, ..Probe::default() };
        let evidence = vec![Evidence { subject: ReplicaName::new(subject), probe: Some(probe), server: None }];
        let observer = Observer::Consumer { pod: "store-0".into() };
        let report = Report { observer, seq: 1, own_gap: 0, interval: 250, evidence, log: vec![] };
        vec![Received { report, age: 10, node: None }]
    }

    #[test]
    fn the_gap_is_between_the_last_commit_before_and_the_first_after() {
        let start = Instant::now() + Duration::from_secs(60);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (a, b) = (ReplicaName::new("a"), ReplicaName::new("b"));
        let mut watch = GapWatch::default();
        assert_eq!(watch.see(Some((&a, Epoch(4))), &says("a", 40, Some(9_000)), at(0)), None);
        // The last commit on a was at -50 ms; a died, b took office, and nothing was committed there yet.
        assert_eq!(watch.see(Some((&a, Epoch(4))), &says("a", 1_040, None), at(1_000)), None);
        assert_eq!(watch.see(Some((&b, Epoch(5))), &says("a", 2_040, None), at(2_000)), None);
        let gap = watch.see(Some((&b, Epoch(5))), &says("b", 20, Some(490)), at(2_500));
        assert_eq!(gap, Some(Gap { epoch: Epoch(5), length: Duration::from_millis(2_050) }));
        assert_eq!(watch.see(Some((&b, Epoch(5))), &says("b", 20, Some(990)), at(3_000)), None, "told once");
    }

    #[test]
    fn a_process_that_saw_no_commit_before_knows_no_gap() {
        let now = Instant::now() + Duration::from_secs(60);
        let b = ReplicaName::new("b");
        let mut watch = GapWatch::default();
        assert_eq!(watch.see(Some((&b, Epoch(5))), &says("b", 20, Some(490)), now), None);
    }
}
