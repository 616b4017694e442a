//! What one observer remembers of its probes of one server.

use understudy_wire::evidence::*;

/// What an attempt has waited when it is given up.
const WAITED: Millis = 500;

/// What one observer remembers of its probes of one server.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub committed: Option<Millis>,
    pub committing_since: Option<Millis>,
    pub failing: Option<(Millis, Millis, u32, Stage, ProbeError)>,
    /// When the first attempt of the run that nobody answered began.
    pub unanswered: Option<Millis>,
}

impl Watch {
    pub fn saw(&mut self, now: Millis, outcome: Result<(), (Stage, ProbeError)>) {
        match outcome {
            Ok(()) => {
                (self.failing, self.unanswered) = (None, None);
                self.committed = Some(now);
                self.committing_since.get_or_insert(now);
            }
            Err((stage, error)) => {
                let (since, count) = self.failing.as_ref().map_or((now, 0), |(since, _, count, ..)| (*since, *count));
                if error == ProbeError::Timeout {
                    self.unanswered.get_or_insert(now - WAITED);
                }
                self.failing = Some((since, now, count + 1, stage, error));
                self.committing_since = None;
            }
        }
    }

    pub fn probe(&self, now: Millis) -> Probe {
        let ago = |at: Millis| now - at;
        Probe {
            committed: self.committed.map(ago),
            selected: self.committed.map(ago),
            commit_took: self.committed.map(|_| 2),
            committing_since: self.committing_since.map(ago),
            failing: self.failing.as_ref().map(|(since, latest, count, stage, error)| Failing {
                since: ago(*since),
                latest: ago(*latest),
                count: *count,
                stage: *stage,
                error: error.clone(),
                unanswered: self.unanswered.map(ago),
            }),
            in_flight: None,
        }
    }
}
