//! What a later version says and this one does not know: the rest of the report counts, it accuses nobody, and nothing that cannot be taken
//! back rests on it.

mod support;

use support::*;
use understudy_decide::{Cause, Step, Verdict};
use understudy_wire::evidence::{Aged, Limit, Phase, ProbeError, Stage};

fn verdict(scene: &Scene) -> Verdict {
    scene.plan().assessment.verdict
}

fn condemns(scene: &Scene) -> bool {
    scene.steps().iter().any(|step| matches!(step, Step::Condemn { .. }))
}

#[test]
fn what_observers_met_and_nobody_here_knows_is_no_accusation() {
    for (case, error) in [
        ("an error", ProbeError::Unknown),
        ("a limit of connections", ProbeError::TooManyConnections { whose: Limit::Unknown }),
    ] {
        let mut scene = Scene::well();
        scene.all_say(&fails(Stage::Commit, error, 60_000));
        assert!(!matches!(verdict(&scene), Verdict::Suspect(_) | Verdict::Stuck(_) | Verdict::Gone(_)), "{case}");
        assert_eq!((scene.claim(), condemns(&scene)), (None, false), "{case}");
        let assessment = scene.plan().assessment;
        assert_eq!((assessment.votes.len(), assessment.abstained.len()), (0, 4), "{case}: {assessment:?}");
    }
}

#[test]
fn a_full_server_whose_admin_port_says_what_nobody_here_knows_is_no_dead_one() {
    let mut scene = Scene::well();
    scene.all_say(&fails(Stage::Auth, no_connection_left(), 60_000));
    scene.server("a", |server| {
        server.admin = Some(waits(Stage::Select, ProbeError::Unknown, 60_000, 60_500));
        server.lsn = Some(Aged { age: 60_000, value: 1 });
    });
    assert_eq!((verdict(&scene), scene.claim(), condemns(&scene)), (Verdict::Saturated, None, false));
}

#[test]
fn no_answer_is_an_accusation_at_a_stage_that_nobody_here_knows_too() {
    let mut scene = Scene::well();
    scene.all_say(&fails(Stage::Unknown, ProbeError::Timeout, 3_000));
    assert_eq!(verdict(&scene), Verdict::Suspect(Cause::Unexplained));
    let votes = scene.plan().assessment.votes;
    assert!(votes.iter().all(|vote| vote.says == "no answer at a stage that is not known here"), "{votes:?}");
}

#[test]
fn a_primary_that_commits_stays_in_office_whatever_its_manager_says_beside() {
    let mut scene = Scene::well();
    let before = (verdict(&scene), scene.steps());
    scene.server("a", |server| server.phase = Phase::Unknown);
    assert_eq!((verdict(&scene), scene.steps()), before);
}

#[test]
fn a_standby_of_which_nobody_here_knows_how_it_is_stays_and_is_not_promoted() {
    let mut scene = Scene::well();
    scene.server("b", |server| server.phase = Phase::Unknown);
    assert!(!condemns(&scene), "{:?}", scene.steps());
    scene.kill_primary(500);
    assert_eq!(scene.claim().map(|(_, to)| to), Some("m-c".into()));
}
