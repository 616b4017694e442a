//! What comes next, case by case.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{ProbeError, Stage};

use super::*;
use Presence::{Absent, Connected};

fn route(primary: &str, epoch: u64) -> Route {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3306);
    Route { primary: ReplicaName::new(primary), address, epoch: Epoch(epoch) }
}

fn machine() -> Machine {
    Machine::new(OwnerId::new("me", "1"), Times::default(), false)
}

fn row(owner: &str, term: u64, beat: u64) -> OwnerRow {
    OwnerRow { owner: owner.to_owned(), term: Term(term), beat }
}

fn survey(epoch: u64, owner: Option<OwnerRow>) -> Survey {
    Survey { epoch: Some(Epoch(epoch)), owner, presence: Connected }
}

/// Connected to the primary `a` under epoch 1.
fn connected() -> Machine {
    let mut m = machine();
    m.follow(Some(route("a", 1)), 0);
    assert_eq!(m.step(0), Step::Open(route("a", 1)));
    m.opened(0);
    assert_eq!(m.step(0), Step::Survey);
    m
}

fn running() -> Machine {
    let mut m = connected();
    m.surveyed(survey(1, None), 0);
    m.claimed(Ok(Some(Term(1))), 0);
    m.loaded(Ok(()), 0);
    assert!(matches!(m.step(0), Step::Work { hold: None, .. }));
    m
}

#[test]
fn what_the_rows_say_decides_what_comes_next() {
    let claim = |seen: OwnerRow| Step::Claim { seen, epoch: Epoch(1) };
    for (case, epoch, found, expected, state) in [
        ("nobody owns it", Some(1), None, claim(row("", 0, 0)), "Claiming"),
        ("it was given up", Some(1), Some(row("", 3, 8)), claim(row("", 3, 8)), "Claiming"),
        (
            "mine of an older term: a replica that lags behind the takeover",
            Some(1),
            Some(row("me/1", 3, 8)),
            claim(row("me/1", 3, 8)),
            "Claiming",
        ),
        ("somebody's", Some(1), Some(row("other/1", 3, 8)), Step::Rest(Some(250)), "Claiming"),
        ("not promoted yet", Some(0), None, Step::Rest(Some(100)), "Fenced"),
        ("an old route", Some(2), Some(row("me/1", 3, 8)), Step::Rest(Some(100)), "Fenced"),
        ("never a primary", None, None, Step::Rest(Some(100)), "Fenced"),
    ] {
        let mut m = connected();
        m.surveyed(Survey { epoch: epoch.map(Epoch), ..survey(1, found) }, 0);
        assert_eq!(m.step(0), expected, "{case}");
        assert_eq!(m.state().word(), state, "{case}");
    }
}

#[test]
fn an_owner_is_replaced_only_after_its_beat_stood_still_under_our_own_eyes() {
    let looks = |beats: &[(Millis, u64)]| {
        let mut m = connected();
        for (at, beat) in beats {
            assert!(matches!(m.step(*at), Step::Survey), "at {at}");
            m.surveyed(survey(1, Some(row("other/1", 3, *beat))), *at);
        }
        matches!(m.phase, Phase::Claim(_))
    };
    let still: Vec<_> = (0..=12).map(|i| (i * 250, 7)).collect();
    assert!(looks(&still), "3 s");
    assert!(!looks(&still[..12]), "less than 3 s");
    let alive: Vec<_> = (0..=20).map(|i| (i * 250, i / 4)).collect();
    assert!(!looks(&alive), "slow, but alive");
    assert!(!looks(&[(0, 7), (250, 7), (9000, 7)]), "we were away ourselves");
}

#[test]
fn an_owner_that_is_not_connected_is_replaced_sooner() {
    type Looks = fn(Millis) -> (u64, Presence);
    let claims_at = |looks: Looks| {
        let mut m = connected();
        (0..40).map(|i| i * 250).find(|at| {
            let (beat, presence) = looks(*at);
            m.surveyed(Survey { presence, ..survey(1, Some(row("other/1", 3, beat))) }, *at);
            matches!(m.phase, Phase::Claim(_))
        })
    };
    let cases: [(&str, Looks, Option<Millis>); 6] = [
        ("gone", |_| (7, Absent), Some(1000)),
        ("gone after its last commit", |at| (at.min(500), Absent), Some(1500)),
        ("connected, and does nothing", |_| (7, Connected), Some(3000)),
        ("connected until its session ended", |at| (7, if at < 750 { Connected } else { Absent }), Some(1750)),
        ("comes and goes", |at| (7, if at % 1000 == 0 { Connected } else { Absent }), Some(3000)),
        ("not seen, but alive", |at| (at / 500, Absent), None),
    ];
    for (case, looks, expected) in cases {
        assert_eq!(claims_at(looks), expected, "{case}");
    }
}

#[test]
fn a_promoted_server_with_our_own_row_needs_no_claim() {
    let mut m = running();
    assert!(m.follow(Some(route("b", 2)), 10));
    assert_eq!(m.step(10), Step::Close);
    m.closed(10);
    assert_eq!(m.step(10), Step::Open(route("b", 2)));
    m.opened(11);
    m.surveyed(survey(2, Some(row("me/1", 1, 4))), 11);
    assert!(matches!(m.step(11), Step::Load(guard) if guard.epoch == Epoch(2) && guard.term == Term(1)));
}

#[test]
fn a_server_that_takes_no_writes_is_looked_at_again_over_the_same_connection() {
    let mut m = running();
    let error = StepError { step: "begin", stage: Stage::Commit, error: ProbeError::ReadOnly };
    m.refused(error.clone(), 10);
    assert_eq!(m.state(), State::Cut(error));
    assert_eq!(m.step(10), Step::Rest(Some(10 + Times::default().look)));
    assert_eq!(m.step(10 + Times::default().look), Step::Survey, "and no connection is made");
    m.surveyed(survey(1, Some(row("me/1", 1, 4))), 300);
    assert!(matches!(m.step(300), Step::Load(_)));
    assert!(m.follow(Some(route("b", 2)), 310));
    assert_eq!(m.step(310), Step::Close, "another primary is another connection");
}

#[test]
fn a_claimed_epoch_stops_the_writing_before_the_new_primary_is_known() {
    let mut m = running();
    assert!(m.follow(Some(route("a", 2)), 10), "the same server, under an epoch it has not heard of");
    m.closed(10);
    m.opened(10);
    m.surveyed(survey(1, Some(row("me/1", 1, 4))), 10);
    assert_eq!(m.state(), State::Fenced(Fenced::Epoch { wanted: Epoch(2), found: Epoch(1) }));
    assert_eq!(m.step(10), Step::Rest(Some(110)));
    m.surveyed(survey(2, Some(row("me/1", 1, 4))), 110);
    assert!(matches!(m.step(110), Step::Load(_)), "it was confirmed");
}

#[test]
fn a_lost_connection_is_sought_again_at_once_and_then_less_often() {
    let mut m = running();
    let mut pauses = Vec::new();
    let mut now = 0;
    for _ in 0..6 {
        m.failed(StepError::timeout("commit", Stage::Commit));
        assert_eq!(m.step(now), Step::Close);
        m.closed(now);
        assert_eq!(m.state().word(), "Cut");
        let Step::Rest(Some(at)) = m.step(now) else { panic!("pauses") };
        pauses.push(at - now);
        now = at;
    }
    assert_eq!(pauses, [50, 100, 200, 400, 500, 500]);
}

#[test]
fn a_new_route_is_followed_without_a_pause() {
    let mut m = running();
    for _ in 0..5 {
        m.failed(StepError::timeout("connect", Stage::Tcp));
        m.closed(0);
    }
    m.follow(Some(route("b", 2)), 7);
    assert_eq!(m.step(7), Step::Open(route("b", 2)));
    assert!(!m.follow(Some(route("b", 2)), 8), "the same again changes nothing");
}

#[test]
fn a_view_that_fails_is_tried_less_and_less_often_and_the_canary_goes_on() {
    let mut m = running();
    m.worked(Worked::Held("table is full".into()), 100);
    assert!(matches!(m.step(100), Step::Work { hold: Some(600), .. }));
    assert_eq!(m.state(), State::Stuck("table is full".into()));
    m.worked(Worked::Canary, 300);
    assert_eq!(m.state().word(), "Stuck", "a canary mends nothing");
    assert!(matches!(m.step(600), Step::Work { hold: None, .. }));
    m.worked(Worked::Held("table is full".into()), 600);
    assert!(matches!(m.step(600), Step::Work { hold: Some(1600), .. }));
    m.worked(Worked::Batch, 1700);
    assert_eq!(m.state(), State::Running);
}

#[test]
fn fenced_by_another_owner_it_looks_again_and_waits() {
    let mut m = running();
    let fenced = Fenced::Owner { found: "other/1".into(), term: Term(2), mine: Term(1) };
    m.worked(Worked::Fenced(fenced.clone()), 5);
    assert_eq!(m.state(), State::Fenced(fenced));
    assert_eq!(m.step(5), Step::Survey);
    m.surveyed(survey(1, Some(row("other/1", 2, 1))), 5);
    assert_eq!(m.step(5), Step::Rest(Some(255)));
    assert_eq!(m.state(), State::Claiming { owner: Some("other/1".into()) });
}

#[test]
fn a_claim_that_somebody_else_won_is_looked_at_again() {
    let mut m = connected();
    m.surveyed(survey(1, None), 0);
    m.claimed(Ok(None), 3);
    assert_eq!(m.step(3), Step::Survey);
    assert_eq!(m.term(), None);
}

#[test]
fn stopping_gives_up_what_it_holds_and_nothing_else() {
    let mut owner = running();
    owner.stop();
    assert!(matches!(owner.step(0), Step::Release(_)));
    owner.released();
    assert_eq!(owner.step(0), Step::End);

    let mut waiting = connected();
    waiting.stop();
    assert_eq!(waiting.step(0), Step::Close);
    waiting.closed(0);
    assert_eq!(waiting.step(0), Step::End);

    let mut idle = machine();
    idle.stop();
    assert_eq!(idle.step(0), Step::End);
}

#[test]
fn without_a_route_there_is_nothing_to_do() {
    let mut m = running();
    m.follow(None, 0);
    assert_eq!((m.step(0), m.state()), (Step::Close, State::Idle));
    m.closed(0);
    assert_eq!(m.step(0), Step::Rest(None));
}

#[test]
fn a_paused_consumer_owns_and_beats() {
    let mut m = Machine::new(OwnerId::new("me", "1"), Times::default(), true);
    m.follow(Some(route("a", 1)), 0);
    m.opened(0);
    m.surveyed(survey(1, None), 0);
    m.claimed(Ok(Some(Term(1))), 0);
    m.loaded(Ok(()), 0);
    assert_eq!(m.state(), State::Paused);
    assert!(matches!(m.step(0), Step::Work { .. }));
}
