//! The faults that the product is for, row by row: what each is called, and what is done about it.
//!
//! Rows that begin with S are the signatures, with A what must end an office, with B what must not. What a pass cannot see is there in the
//! nearest form of it that a snapshot has.

mod faults;
mod must;
mod must_not;
mod signatures;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Order, Reason, Step, Verdict};

use must::MUST;
use must_not::MUST_NOT;
use signatures::SIGNATURES;

/// What a pass does about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// Another one takes over without the old primary.
    FailsOver(&'static str),
    /// Another one takes over from it.
    SwitchesOver(&'static str),
    /// Only a standby, or what was primary before, is replaced.
    Replaces(&'static str),
    /// Nothing is done to any server.
    Stays,
}

use Then::{FailsOver, Replaces, Stays, SwitchesOver};

/// Its name, what happens, what is concluded, what is done, and which event tells it.
pub type Row = (&'static str, fn(&mut Scene), Verdict, Then, Option<Reason>);

fn letter(of: &understudy_wire::ReplicaName) -> &'static str {
    ["a", "b", "c"].into_iter().find(|letter| name(letter) == *of).expect("a replica of the scene")
}

/// What is really done.
fn done(scene: &Scene) -> Then {
    let steps = scene.steps();
    let claimed = steps.iter().find_map(|step| match step {
        Step::Claim(claim) => Some((claim.kind, letter(&claim.to))),
        _ => None,
    });
    match claimed {
        Some((Kind::Failover, to)) => return FailsOver(to),
        Some((Kind::Switchover, to)) => return SwitchesOver(to),
        Some(other) => panic!("{other:?}"),
        None => {}
    }
    let changes = |step: &Step| {
        matches!(step, Step::Publish { .. } | Step::Order { order: Order::Promote(_) | Order::Fence(_), .. })
    };
    assert!(!steps.iter().any(changes), "{steps:?}");
    let condemned = steps.iter().find_map(|step| match step {
        Step::Condemn { replica, .. } => Some(letter(replica)),
        _ => None,
    });
    condemned.map_or(Stays, Replaces)
}

fn hold(rows: &[Row]) {
    for (row, spoil, verdict, then, reason) in rows {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let plan = scene.plan();
        assert_eq!(plan.assessment.verdict, *verdict, "{row}: {}", plan.assessment.message());
        assert_eq!(done(&scene), *then, "{row}: {:?}", plan.notes);
        if let Some(reason) = reason {
            let note = plan.notes.iter().find(|note| note.reason == *reason);
            assert!(note.is_some_and(|note| !note.message.is_empty()), "{row}: {:?}", plan.notes);
        }
    }
}

#[test]
fn each_signature_is_called_by_its_name_and_acted_on_in_its_time() {
    hold(SIGNATURES);
}

#[test]
fn what_must_end_an_office_ends_it() {
    hold(MUST);
}

#[test]
fn what_must_not_end_an_office_does_not() {
    hold(MUST_NOT);
    for (row, _, _, then, _) in MUST_NOT {
        assert!(!matches!(then, FailsOver(_)), "{row}");
    }
}

#[test]
fn no_row_is_missing() {
    let rows: BTreeSet<_> = [SIGNATURES, MUST, MUST_NOT]
        .into_iter()
        .flatten()
        .filter_map(|(row, ..)| row.split(' ').next().map(ToOwned::to_owned))
        .collect();
    let all = |kind: &'static str, count: u32| (1..=count).map(move |number| format!("{kind}{number}"));
    let missing: Vec<_> =
        all("S", 10).chain(all("A", 18)).chain(all("B", 18)).filter(|row| !rows.contains(row)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
