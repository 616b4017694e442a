//! The verdict, case by case.

mod support;

use support::*;
use understudy_decide::failover::assess::phase_words;
use understudy_decide::failover::testimony_view::{Stance, observers};
use understudy_decide::{Cause, Verdict, assess};
use understudy_wire::evidence::*;

fn verdict(scene: &Scene) -> Verdict {
    assess(&scene.0, &name("a")).verdict
}

/// An attempt whose commit has taken so long, after one that succeeded.
fn commit_under_way(age: Millis) -> Probe {
    let in_flight = Some(InFlight { stage: Stage::Commit, age });
    Probe { committed: Some(age + 250), in_flight, ..commits() }
}

#[test]
fn each_signature_gives_its_verdict() {
    type Case = (&'static str, fn(&mut Scene), Verdict);
    let cases: &[Case] = &[
        ("all well", |_| {}, Verdict::Healthy),
        ("mysqld killed 50 ms ago and everybody refused", |s| s.kill_primary(50), Verdict::Gone(Cause::ProcessExited)),
        (
            "the manager alone says that mysqld ended",
            |s| s.server("a", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 500 }),
            Verdict::Healthy,
        ),
        (
            "the manager alone says so, and nobody has committed since",
            |s| {
                s.server("a", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 50 });
            },
            Verdict::Suspect(Cause::ProcessExited),
        ),
        (
            "one more domain bears it out",
            |s| {
                s.server("a", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 150 });
                s.says(&operator(), "a", Some(refused(20)), None);
            },
            Verdict::Gone(Cause::ProcessExited),
        ),
        ("the node went away 3.5 s ago", |s| s.lose_node(3_500), Verdict::Gone(Cause::Unreachable)),
        ("the node went away 2.2 s ago", |s| s.lose_node(2_200), Verdict::Suspect(Cause::Unreachable)),
        (
            "the manager is silent and only one other cannot reach it",
            |s| {
                s.silent("a", 10_000);
                s.says(&operator(), "a", Some(unreachable(9_000)), None);
            },
            Verdict::ObserverPartition,
        ),
        ("the manager is silent and everybody commits", |s| s.silent("a", 60_000), Verdict::Healthy),
        (
            "only the operator cannot reach it",
            |s| s.says(&operator(), "a", Some(unreachable(30_000)), None),
            Verdict::ObserverPartition,
        ),
        (
            "two domains cannot reach it, the manager is well, and a consumer commits",
            |s| {
                s.says(&operator(), "a", Some(unreachable(30_000)), None);
                s.says(&manager("b"), "a", Some(unreachable(30_000)), None);
            },
            Verdict::ObserverPartition,
        ),
        (
            "nobody can reach it and its manager says that it runs",
            |s| s.all_say(&unreachable(30_000)),
            Verdict::Suspect(Cause::Unexplained),
        ),
        (
            "one observer's pause is nobody's death",
            |s| {
                s.silent("a", 4_000);
                s.all_say(&unreachable(3_000));
                for observer in [manager("b"), manager("c"), consumer(), operator()] {
                    s.report(&observer).report.own_gap = 3_000;
                }
            },
            Verdict::Unknown,
        ),
        (
            "a pause explains no silence that is much longer",
            |s| {
                s.lose_node(4_000);
                for observer in [manager("b"), manager("c"), consumer(), operator()] {
                    s.report(&observer).report.own_gap = 700;
                }
            },
            Verdict::Gone(Cause::Unreachable),
        ),
        (
            "a refusal counts even from who was paused",
            |s| {
                s.kill_primary(100);
                for observer in [manager("b"), manager("c"), consumer(), operator()] {
                    s.report(&observer).report.own_gap = 3_000;
                }
            },
            Verdict::Gone(Cause::ProcessExited),
        ),
        (
            "old reports accuse nobody",
            |s| {
                s.silent("a", 4_000);
                s.all_say(&unreachable(3_000));
                for observer in [manager("b"), manager("c"), consumer(), operator()] {
                    s.report(&observer).age = 5_000;
                }
            },
            Verdict::Unknown,
        ),
        (
            "the operator has just woken up: nobody counts as silent",
            |s| {
                s.lose_node(3_500);
                s.0.memory.awake = 500;
            },
            Verdict::Suspect(Cause::Unreachable),
        ),
        (
            "two observers on one node are one voice",
            |s| {
                s.silent("a", 10_000);
                s.0.reports.retain(|r| r.report.observer != consumer() && r.report.observer != operator());
                s.says(&manager("b"), "a", Some(unreachable(9_000)), None);
                s.says(&manager("c"), "a", Some(unreachable(9_000)), None);
                s.report(&manager("c")).node = Some("node-2".into());
                s.says(&operator(), "a", None, None);
            },
            Verdict::Suspect(Cause::Unreachable),
        ),
        (
            "on a cluster of one node the kinds of observer are the domains",
            |s| {
                s.lose_node(3_500);
                for observer in [manager("b"), manager("c"), consumer(), operator()] {
                    s.report(&observer).node = Some("node-1".into());
                }
            },
            Verdict::Gone(Cause::Unreachable),
        ),
        (
            "restarted by itself and read-only",
            |s| {
                s.server("a", |server| {
                    server.serving = None;
                    server.read_only = Some(true);
                });
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
            },
            Verdict::Gone(Cause::Restarted),
        ),
        (
            "restarted and in crash recovery",
            |s| {
                s.server("a", |server| server.phase = Phase::Starting);
                s.all_say(&refused(300));
            },
            Verdict::Gone(Cause::Restarted),
        ),
        (
            "what the manager says of an office that has just begun is from before",
            |s| {
                s.0.memory.office_known = 300;
                s.server("a", |server| server.read_only = Some(true));
                s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 800));
            },
            Verdict::Healthy,
        ),
        (
            "an empty volume where the primary was",
            |s| {
                s.server("a", |server| server.phase = Phase::Empty);
                s.all_say(&refused(300));
            },
            Verdict::Gone(Cause::DataLost),
        ),
        (
            "the volume answers EIO",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("EIO".into()), ..Fsync::default() }));
                s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 1_000));
            },
            Verdict::Stuck(Cause::VolumeFailed),
        ),
        (
            "the volume answers EIO, and a commit has hung for a second",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("EIO".into()), ..Fsync::default() }));
                s.all_say(&commit_under_way(950));
            },
            Verdict::Stuck(Cause::VolumeFailed),
        ),
        (
            "the volume answers EIO, and a commit has taken less",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("EIO".into()), ..Fsync::default() }));
                s.all_say(&commit_under_way(949));
            },
            Verdict::Suspect(Cause::VolumeFailed),
        ),
        (
            "the pod stops and the server with it",
            |s| {
                s.server("a", |server| server.phase = Phase::Stopping);
                s.all_say(&refused(1_000));
            },
            Verdict::Gone(Cause::PodStopped),
        ),
        (
            "stopped for 3.5 s",
            |s| {
                s.server("a", |server| server.process_state = Some('T'));
                s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 3_500));
            },
            Verdict::Stuck(Cause::Stopped),
        ),
        (
            "stopped for 2 s",
            |s| {
                s.server("a", |server| server.process_state = Some('T'));
                s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 2_000));
            },
            Verdict::Suspect(Cause::Stopped),
        ),
        (
            "the volume hangs for 6 s",
            |s| {
                s.server("a", |server| {
                    server.fsync = Some(Fsync { succeeded: Some(6_500), in_flight: Some(6_200), ..Fsync::default() });
                    server.lsn = Some(Aged { age: 6_300, value: 1 });
                });
                s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 5_500));
            },
            Verdict::Stuck(Cause::VolumeStalled),
        ),
        (
            "the volume hangs for 6 s, and who asks waits for the lock of a commit that hangs",
            |s| {
                s.server("a", |server| {
                    server.fsync = Some(Fsync { succeeded: Some(6_500), in_flight: Some(6_200), ..Fsync::default() });
                    server.lsn = Some(Aged { age: 6_300, value: 1 });
                });
                s.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1205, message: "lock wait".into() }, 5_500));
            },
            Verdict::Stuck(Cause::VolumeStalled),
        ),
        (
            "nothing moves for 9 s on a volume that is well",
            |s| {
                s.server("a", |server| server.lsn = Some(Aged { age: 9_500, value: 1 }));
                s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 9_000));
            },
            Verdict::Stuck(Cause::Deadlocked),
        ),
        (
            "the volume is full, and commits have hung for 2 s",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() }));
                s.all_say(&waits(Stage::Commit, ProbeError::Timeout, 450, 1_950));
            },
            Verdict::Stuck(Cause::VolumeFull),
        ),
        (
            "the volume is full, and who asks waits for the lock of a commit that hangs",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() }));
                s.all_say(&waits(Stage::Commit, lock_wait(), 450, 1_950));
            },
            Verdict::Stuck(Cause::VolumeFull),
        ),
        (
            "the volume is full, and commits have hung for less",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() }));
                s.all_say(&waits(Stage::Commit, ProbeError::Timeout, 449, 1_949));
            },
            Verdict::Unknown,
        ),
        (
            "the volume is full, one commit has hung for 2 s, and others have ended meanwhile",
            |s| {
                s.server("a", |server| server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..Fsync::default() }));
                s.all_say(&Probe { committed: Some(400), ..commits() });
                s.says(&operator(), "a", Some(waits(Stage::Commit, ProbeError::Timeout, 450, 1_950)), None);
            },
            Verdict::Healthy,
        ),
        (
            "commits time out and the LSN moves: load, not death",
            |s| s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 20_000)),
            Verdict::Suspect(Cause::Unexplained),
        ),
        (
            "out of connections",
            |s| s.all_say(&fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Server }, 20_000)),
            Verdict::Saturated,
        ),
        (
            "the account of the observers has reached its limit, and that says nothing of the server",
            |s| s.all_say(&fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Account }, 20_000)),
            Verdict::Unknown,
        ),
        (
            "the heartbeat waits for a lock",
            |s| {
                s.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1205, message: "lock wait".into() }, 20_000))
            },
            Verdict::Saturated,
        ),
        ("commits take long", |s| s.all_say(&Probe { commit_took: Some(1_800), ..commits() }), Verdict::Slow),
        ("a failure of half a second is nothing yet", |s| s.all_say(&unreachable(500)), Verdict::Healthy),
        ("nobody says anything", |s| s.0.reports.clear(), Verdict::Unknown),
    ];
    for (case, spoil, expected) in cases {
        let mut scene = Scene::well();
        spoil(&mut scene);
        assert_eq!(verdict(&scene), *expected, "{case}: {}", assess(&scene.0, &name("a")).message());
    }
}

#[test]
fn a_verdict_that_is_a_matter_of_time_is_looked_for_when_it_is_due() {
    type Spoil = fn(&mut Scene);
    let cases: &[(&str, Spoil)] = &[
        ("a node is lost", |s| s.lose_node(2_700)),
        ("nobody is greeted", |s| s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 2_900))),
        ("its manager sees it stopped", |s| {
            s.server("a", |server| (server.process_state, server.stopped) = (Some('T'), Some(2_400)));
            s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 2_000));
        }),
        ("a volume hangs", |s| {
            s.server("a", |server| {
                server.fsync = Some(Fsync { succeeded: Some(5_400), in_flight: Some(4_900), ..Fsync::default() });
                server.lsn = Some(Aged { age: 5_000, value: 1 });
            });
            s.all_say(&waits(Stage::Commit, ProbeError::Timeout, 3_500, 5_000));
        }),
        ("a server is full, and does not answer through its admin port", |s| {
            s.all_say(&fails(Stage::Auth, no_connection_left(), 60_000));
            s.server("a", |server| {
                server.lsn = Some(Aged { age: 60_000, value: 1 });
                server.admin = Some(waits(Stage::Select, ProbeError::Timeout, 7_400, 7_900));
            });
        }),
        ("a deadlock", |s| {
            s.server("a", |server| server.lsn = Some(Aged { age: 8_000, value: 1 }));
            s.all_say(&waits(Stage::Commit, ProbeError::Timeout, 6_400, 7_900));
        }),
    ];
    for (case, befall) in cases {
        let mut scene = Scene::well();
        befall(&mut scene);
        let older = |by: Millis| {
            let mut scene = scene.clone();
            scene.0.reports.iter_mut().for_each(|received| received.age += by);
            scene
        };
        let plan = scene.plan();
        assert_eq!((plan.assessment.ripens, plan.requeue), (Some(50), 50), "{case}");
        assert!(!verdict(&older(49)).is_dead(), "{case}");
        assert!(verdict(&older(50)).is_dead(), "{case}");
        assert_eq!(assess(&older(50).0, &name("a")).ripens, None, "{case}");
    }
    let well = assess(&Scene::well().0, &name("a"));
    assert_eq!(well.ripens, None);
}

#[test]
fn a_verdict_that_takes_another_word_is_not_waited_for() {
    let mut scene = Scene::well();
    scene.server("a", |server| (server.process_state, server.stopped) = (Some('T'), Some(1_000)));
    scene.all_say(&Probe::default());
    scene.says(&operator(), "a", Some(fails(Stage::Greeting, ProbeError::Timeout, 1_500)), None);
    let assessment = assess(&scene.0, &name("a"));
    assert_eq!((assessment.verdict, assessment.ripens), (Verdict::Suspect(Cause::Stopped), None));
}

#[test]
fn one_fresh_commit_vetoes_every_signature() {
    let deaths: &[fn(&mut Scene)] = &[
        |s| s.kill_primary(1_500),
        |s| s.lose_node(5_000),
        |s| {
            s.server("a", |server| server.process_state = Some('T'));
            s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 5_000));
        },
        |s| {
            s.server("a", |server| server.phase = Phase::Starting);
            s.all_say(&refused(5_000));
        },
    ];
    for (at, death) in deaths.iter().enumerate() {
        let mut scene = Scene::well();
        death(&mut scene);
        assert!(verdict(&scene).is_dead(), "death {at} without the commit");
        scene.says(&consumer(), "a", Some(Probe { committed: Some(200), ..Probe::default() }), None);
        assert!(!verdict(&scene).is_dead(), "death {at} with it: {:?}", verdict(&scene));
    }
}

#[test]
fn the_message_says_who_saw_what() {
    let mut scene = Scene::well();
    scene.kill_primary(400);
    let message = assess(&scene.0, &name("a")).message();
    assert_eq!(
        message,
        "its manager says mysqld was ended by signal 9 0.4 s ago; accused by peer m-b: refused at tcp, peer m-c: refused at tcp, \
         consumer store-m-0: refused at tcp, operator understudy-0: refused at tcp; committed by peer m-b: commits, \
         peer m-c: commits, consumer store-m-0: commits, operator understudy-0: commits"
    );
}

#[test]
fn a_full_server_that_does_not_answer_through_its_admin_port_is_accused_by_whoever_finds_it_full() {
    let mut scene = Scene::well();
    scene.all_say(&fails(Stage::Auth, no_connection_left(), 20_000));
    let assessment = assess(&scene.0, &name("a"));
    assert_eq!((assessment.verdict, assessment.votes.len(), assessment.abstained.len()), (Verdict::Saturated, 0, 4));
    scene.server("a", |server| server.admin = Some(waits(Stage::Select, ProbeError::Timeout, 5_000, 5_500)));
    let assessment = assess(&scene.0, &name("a"));
    assert_eq!(assessment.verdict, Verdict::Suspect(Cause::Unexplained), "its log moves");
    assert_eq!((assessment.votes.len(), assessment.abstained.len()), (4, 0), "{assessment:?}");
    let said = "too many connections, and no answer at select through the admin port";
    assert!(assessment.votes.iter().all(|vote| vote.says == said && vote.age == 5_050), "{:?}", assessment.votes);
    let seen = observers(&scene.0, &name("a"));
    let accuse =
        seen.iter().filter(|seen| seen.stance == Stance::Accuses && seen.not_counted.is_none() && seen.says == said);
    assert_eq!(accuse.count(), 4, "{seen:?}");
}

#[test]
fn the_message_names_who_holds_the_lock_that_commits_wait_for() {
    let mut scene = Scene::well();
    scene.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1205, message: "lock wait".into() }, 20_000));
    let holder = LockHolder {
        connection: Some(7),
        user: "someone@10.0.0.9".into(),
        locked: "GLOBAL".into(),
        ..LockHolder::default()
    };
    scene.server("a", |server| server.lock_holder = Some(Aged { age: 10, value: holder }));
    let assessment = assess(&scene.0, &name("a"));
    assert_eq!(assessment.verdict, Verdict::Saturated);
    let said = "commits wait for someone@10.0.0.9 (connection 7), who holds a lock: GLOBAL";
    assert!(assessment.own.ends_with(said), "{}", assessment.own);
}

#[test]
fn what_a_server_said_last_is_told_with_its_end_unless_it_was_killed() {
    let ended = |code, signal| Phase::Exited { code, signal, age: 0 };
    for (case, phase, words) in [
        ("it gave up", ended(Some(1), None), "mysqld exited with code 1, its last error: MY-010262 no port"),
        ("it crashed", ended(None, Some(6)), "mysqld was ended by signal 6, its last error: MY-010262 no port"),
        ("it was killed", ended(None, Some(9)), "mysqld was ended by signal 9"),
        ("it runs", Phase::Running, "mysqld runs and refuses writes"),
    ] {
        let mut server = server("a", phase);
        server.last_error = Some("MY-010262 no port".into());
        assert_eq!(phase_words(&server, None), words, "{case}");
    }
}
