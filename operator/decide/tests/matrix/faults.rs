//! What befalls a shard that is well.

use jiff::SignedDuration;
use understudy_decide::Fact;
use understudy_decide::failover::snapshot::*;
use understudy_wire::evidence::*;

use super::support::*;

pub fn probed(scene: &mut Scene, letter: &str, fsync: Fsync) {
    scene.server(letter, |server| server.fsync = Some(fsync));
}

pub fn answers(error: &str) -> Fsync {
    Fsync { error: Some(error.into()), ..Fsync::default() }
}

/// A volume on which nothing has been written for so long.
pub fn stalls(scene: &mut Scene, since: Millis) {
    probed(scene, "a", Fsync { succeeded: Some(since + 500), in_flight: Some(since), ..Fsync::default() });
    scene.server("a", |server| {
        server.lsn = Some(Aged { age: since, value: 1 });
        server.threads_in_d = 1;
    });
    scene.all_say(&Probe { selected: Some(100), ..fails(Stage::Commit, ProbeError::Timeout, since) });
}

/// No write of any volume of the shard has come back for a while.
pub fn all_hang(scene: &mut Scene) {
    stalls(scene, 30_000);
    for letter in ["b", "c"] {
        probed(
            scene,
            letter,
            Fsync { succeeded: Some(2_000), took: Some(900), in_flight: Some(1_500), ..Fsync::default() },
        );
    }
}

/// A write to the volume has not come back for so long, and commits have failed for so long.
pub fn hangs(scene: &mut Scene, write: Millis, commits: Millis) {
    stalls(scene, write);
    scene.all_say(&fails(Stage::Commit, ProbeError::Timeout, commits));
}

/// Commits have failed like this for `since`, and nobody has been answered since `begun`, nor has anything moved.
pub fn waits_in_vain(scene: &mut Scene, error: ProbeError, since: Millis, begun: Millis) {
    scene.server("a", |server| server.lsn = Some(Aged { age: begun + 100, value: 1 }));
    scene.all_say(&waits(Stage::Commit, error, since, begun));
}

pub fn holds_lock(scene: &mut Scene, user: &str) {
    let holder = LockHolder { user: user.into(), locked: "row".into(), ..LockHolder::default() };
    scene.server("a", |server| server.lock_holder = Some(Aged { age: 50, value: holder }));
}

pub fn deadlocks(scene: &mut Scene, since: Millis) {
    scene.server("a", |server| server.lsn = Some(Aged { age: since + 100, value: 1 }));
    scene.all_say(&fails(Stage::Commit, ProbeError::Timeout, since));
}

/// Nothing of the primary gets to the operator, its manager's word included.
pub fn cut_off_operator(scene: &mut Scene) {
    scene.says(&operator(), "a", Some(unreachable(900_000)), None);
    scene.silent("a", 900_000);
}

/// The same, and the server answered so long ago that something was in the way.
pub fn after_answers(mut probe: Probe, answered: Millis) -> Probe {
    probe.failing.as_mut().expect("it fails").answered = Some(answered);
    probe
}

pub fn stops(scene: &mut Scene, since: Millis) {
    scene.server("a", |server| server.process_state = Some('T'));
    scene.all_say(&fails(Stage::Greeting, ProbeError::Timeout, since));
}

/// Its manager has seen mysqld stopped for so long, and the others have not been greeted for so long.
pub fn seen_stopped(scene: &mut Scene, seen: Millis, ungreeted: Millis) {
    stops(scene, ungreeted);
    scene.server("a", |server| server.stopped = Some(seen));
}

/// Commits have taken 800 ms for this long; an fsync takes so long.
pub fn slow(scene: &mut Scene, since: Millis, fsync: Millis) {
    scene.all_say(&Probe { commit_took: Some(800), ..commits() });
    probed(scene, "a", Fsync { succeeded: Some(100), took: Some(fsync), ..Fsync::default() });
    (scene.0.memory.past.slow_for, scene.0.memory.past.quicker_for) = (since, since);
    scene.0.fleet.slow = 1;
}

pub fn free(scene: &mut Scene, letter: &str, free: u64) {
    scene.server(letter, |server| server.volume = Some(Volume { total: 1_000, free: free * 10 }));
}

pub fn locked(scene: &mut Scene) {
    scene.all_say(&fails(Stage::Commit, lock_wait(), 600_000));
}

pub fn out_of_connections(scene: &mut Scene) {
    scene.all_say(&fails(Stage::Auth, no_connection_left(), 20_000));
}

/// Nobody has got a connection for `since`, and nothing has moved meanwhile; through the admin port it is like this.
pub fn full_with_admin(scene: &mut Scene, since: Millis, admin: Probe) {
    scene.all_say(&fails(Stage::Auth, no_connection_left(), since));
    scene.server("a", |server| {
        server.admin = Some(admin);
        server.lsn = Some(Aged { age: since + 100, value: 1 });
    });
}

/// The same, of everybody who was not answered since `begun` before that; the admin port last answered so long ago.
pub fn full_after_silence(scene: &mut Scene, begun: Millis, answered: Millis) {
    let admin = waits(Stage::Select, ProbeError::Timeout, begun - 1_500, begun - 1_000);
    full_with_admin(scene, begun, Probe { committed: Some(answered), ..admin });
    scene.all_say(&waits(Stage::Auth, no_connection_left(), begun - 500, begun));
}

/// The consumer has nothing to store, and knows nothing of Kafka.
pub fn no_kafka(scene: &mut Scene) {
    scene.says(&consumer(), "a", Some(Probe::default()), None);
    scene.0.log.clear();
}

/// So many failovers went before, the last one five seconds ago.
pub fn row_of(scene: &mut Scene, in_a_row: u32) {
    scene.kill_primary(300);
    scene.0.status.in_a_row = in_a_row;
    let (kind, epoch, from) = (Kind::Failover, EPOCH, Some(name("gone")));
    let at = Some(scene.0.now - SignedDuration::from_secs(5));
    scene.0.status.last_change =
        Some(LastChange { kind, epoch, from: from.clone(), record: Some("m-4".into()), cause: None, at });
    scene.0.records.push(Record {
        name: "m-4".into(),
        kind,
        epoch,
        from,
        to: Some(name("a")),
        steps: vec![],
        claimed: vec![],
    });
}

pub fn lags(scene: &mut Scene) {
    scene.far_behind();
    scene.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(900)] }));
    for letter in ["b", "c"] {
        scene.server(letter, |server| server.replication.as_mut().expect("replicates").value.delay = Some(600_000));
    }
}

/// `b` took over from `a`, and `a` says what it said before.
pub fn thawed(scene: &mut Scene) {
    scene.0.status.primary = Some(name("b"));
    scene.0.status.primary_address = Some("10.0.0.2:3306".into());
    scene.0.status.epoch = EPOCH.next();
    scene.0.memory.office_known = 5_000;
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: EPOCH.next(),
        from: Some(name("a")),
        record: Some("m-5".into()),
        cause: Some("Stopped".into()),
        at: Some(scene.0.now - SignedDuration::from_secs(5)),
    });
    scene.server("b", |server| {
        server.serving = Some(EPOCH.next());
        server.epoch = EPOCH.next();
        server.read_only = Some(false);
        server.replication = None;
    });
    for observer in [manager("a"), manager("c"), consumer(), operator()] {
        scene.says(&observer, "b", Some(commits()), None);
    }
}

pub fn drained(scene: &mut Scene) {
    scene.replica("a", |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.terminating = true;
        }
    });
}
