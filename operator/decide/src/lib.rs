//! What an operator of MySQL shards should do, as a function of what it sees. Pure: no I/O, no clock, no Kubernetes client.
//!
//! [`plan`] takes a [`Snapshot`] and gives a [`Decision`]; the same snapshot always gives the same decision. It is called
//! several times a second, and after every step; nothing is remembered between two calls but what is in the snapshot.
//! Terms, states, invariants and the flow: `operator/docs/failover.md`, under the same names.
//!
//! - [`failover`]: who is primary
//! - [`topology`]: which replicas there should be; `sick_standby`: who is of no use; [`placement`]: where; [`pace`]: how soon;
//!   [`rebuild`]: whether they get on; [`space`]: when their volumes fill up
//! - [`availability`]: how long no writes were taken, from records
//! - [`drill`]: whether a rehearsal begins, strikes, goes on or ends
//! - [`decision`]: steps, events and what the status shows

pub mod availability;
pub mod decision;
pub mod drill;
pub mod failover;
mod following;
mod ledger;
pub mod pace;
pub mod placement;
pub mod rebuild;
mod replication_error;
mod sick_standby;
pub mod space;
pub mod topology;
mod view;

pub use decision::{Decision, Note, Order, OrderKind, Reason, Role, Step};
pub use failover::assess::{Assessment, Cause, Verdict, assess};
pub use failover::snapshot::{Fact, Snapshot};

use decision::Draft;

/// Milliseconds until the next look when nothing is under way.
const CALM: u64 = 1_000;
/// Milliseconds until the next look while something is.
const BUSY: u64 = 100;

/// Decides what to do now.
pub fn plan(s: &Snapshot) -> Decision {
    let assessment = s.status.primary.as_ref().map_or_else(Assessment::nobody, |primary| assess(s, primary));
    let mut draft = Draft::new(s.memory.held_back.clone());
    if s.policy.paused {
        draft.doing("nothing: spec.paused");
        draft.note(Reason::ShardPaused, "spec.paused stops every action on this shard, failover included");
    } else {
        if s.status.paused {
            draft.note(Reason::ShardResumed, "spec.paused was taken away: the operator acts on this shard again");
        }
        act(s, &assessment, &mut draft);
    }
    let calm = s.status.transition.is_none() && draft.steps.is_empty();
    // A verdict that is a matter of time is not made late by the time of the next look.
    let ripens = assessment.ripens.unwrap_or(CALM);
    Decision {
        view: view::view(s, &assessment, draft.doing),
        assessment,
        steps: draft.steps,
        held: draft.held,
        notes: draft.notes,
        records: draft.records,
        requeue: ripens.min(if calm { CALM } else { BUSY }),
    }
}

fn act(s: &Snapshot, a: &Assessment, d: &mut Draft) {
    failover::plan::plan(s, a, d);
    if let Some(change) = &s.status.transition {
        ledger::under_way(s, change, d);
    }
    let office = s.status.primary.as_ref().filter(|_| s.status.transition.is_none());
    // With the primary in doubt, nothing is taken away.
    let sure = office.filter(|_| !a.verdict.is_dead());
    if let Some(primary) = office {
        following::plan(s, primary, d);
        ledger::close(s, a, primary, d);
        topology::label(s, d);
    }
    if let Some(primary) = sure {
        topology::shrink(s, a, primary, d);
    }
    if !topology::waits(s) {
        topology::grow(s, d);
    }
    // What is missing is worth more than what is left over.
    if let Some(primary) = sure {
        topology::clear_away(s, a, primary, d);
    }
    space::tell(s, d);
    rebuild::tell(s, d);
}
