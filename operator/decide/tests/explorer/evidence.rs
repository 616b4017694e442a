//! What a manager says of its server.

use understudy_wire::evidence::*;
use understudy_wire::{Epoch, Evidence, Observer, ReplicaName, Report};

use super::cluster::{PodW, Process, Rep};
use super::pauses::INTERVAL;

/// How long an fsync on a healthy volume takes.
const QUICK: Millis = 2;

/// What somebody who lies says of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It has been dead for a minute.
    Dead,
    /// It commits.
    Well,
}

pub fn report(observer: Observer, own_gap: Millis, evidence: Vec<Evidence>) -> Report {
    Report { observer, seq: 0, own_gap, interval: INTERVAL, evidence, log: vec![] }
}

/// Puts the words of a liar in the place of what was seen of the primary.
pub fn twist(report: &mut Report, primary: &ReplicaName, lie: Lie) {
    const LONG: Millis = 60_000;
    for evidence in report.evidence.iter_mut().filter(|evidence| evidence.subject == *primary) {
        let error = ProbeError::Refused { message: "refused".into() };
        evidence.probe = Some(match lie {
            Lie::Dead => Probe {
                failing: Some(Failing {
                    since: LONG,
                    latest: 0,
                    count: 240,
                    stage: Stage::Tcp,
                    error,
                    unanswered: None,
                    answered: None,
                }),
                ..Probe::default()
            },
            Lie::Well => Probe { committed: Some(0), selected: Some(0), commit_took: Some(QUICK), ..Probe::default() },
        });
        if let Some(server) = evidence.server.as_mut().filter(|_| lie == Lie::Dead) {
            server.phase = Phase::Exited { code: None, signal: Some(11), age: LONG };
            server.serving = None;
        }
    }
}

/// `slow`: what an fsync takes everywhere; `receives`: whether anything comes through from its source.
pub fn server(now: Millis, name: &ReplicaName, rep: &Rep, pod: &PodW, slow: Millis, receives: bool) -> Server {
    let disk = rep.disk.as_ref();
    let data = disk.and_then(|disk| disk.data.as_ref());
    let phase = match &pod.process {
        Process::None if disk.is_some_and(|disk| disk.unusable) => Phase::Unusable { reason: "interrupted".into() },
        Process::None => Phase::Empty,
        Process::Building { .. } => Phase::Building,
        Process::Starting { .. } => Phase::Starting,
        Process::Running => Phase::Running,
        Process::Exited { at } => Phase::Exited { code: None, signal: Some(9), age: now - at },
    };
    let running = phase == Phase::Running;
    let serves = data.and_then(|data| data.row.as_ref()).filter(|(_, head)| head == name && running && !pod.read_only);
    let read = now - pod.last_read;
    // One that was paused itself begins to count anew.
    let seen = read.min(pod.rhythm.woke().map_or(read, |woke| now - woke));
    // The probe of the manager itself is the one who waits, unless somebody else was there first.
    let own = pod.probe.as_ref().filter(|(subject, watch)| subject == name && watch.holds_lock() && pod.answers());
    let holder = match pod.locked_until {
        Some(_) if pod.answers() => Some("backup@10.0.0.9"),
        _ => own.map(|_| "understudy_probe@127.0.0.1"),
    };
    let hangs = disk.and_then(|disk| disk.hangs);
    let fails = disk.is_some_and(|disk| disk.fails);
    Server {
        phase,
        uuid: running.then(|| rep.source_id().to_string()),
        process_state: Some(if pod.frozen { 'T' } else { 'S' }),
        stopped: pod.frozen.then_some(seen),
        threads_in_d: 0,
        sleepers: Vec::new(),
        pressure: None,
        lock_holder: holder.map(|user| Aged {
            age: 0,
            value: LockHolder {
                connection: Some(7),
                user: user.into(),
                held: 0,
                locked: "row".into(),
                statement: String::new(),
            },
        }),
        epoch: pod.known.max(data.and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch)),
        serving: serves.map(|(epoch, _)| *epoch),
        read_only: pod.answers().then_some(pod.read_only),
        fenced: pod.fenced.map(|epoch| Fence::Epoch { epoch, age: 0 }),
        executed: data.filter(|_| running).map(|data| Aged { age: read, value: data.executed.clone() }),
        offsets: data.filter(|_| running).map(|data| Aged {
            age: read,
            value: vec![StoredOffset {
                consumer: "store".into(),
                topic: "samples".into(),
                partition: 0,
                next_offset: data.offset,
            }],
        }),
        replication: pod.source.as_ref().filter(|_| running).map(|(_, address)| Aged {
            age: read,
            value: Replication {
                source: Some(address.clone()),
                receiving: receives,
                applying: !pod.broken,
                received: pod.received.clone(),
                delay: (!pod.received.is_empty()).then(|| pod.lags.map_or(0, |since| now - since)),
                receive_error: None,
                apply_error: pod.broken.then(|| "1062: duplicate entry".to_owned()),
            },
        }),
        lsn: running.then(|| Aged { age: now - pod.moved, value: pod.moved }),
        admin: None,
        fsync: Some(Fsync {
            succeeded: if fails { None } else { Some(hangs.map_or(0, |since| now - since)) },
            took: Some(disk.map_or(slow, |disk| disk.slow.max(slow)).max(QUICK)),
            in_flight: hangs.map(|since| now - since),
            error: fails.then(|| "EIO".to_owned()),
        }),
        volume: disk.map(|disk| Volume { total: 1_000 << 20, free: disk.free << 20 }),
        build: match &pod.process {
            Process::Building { donor, .. } => Some(BuildProgress {
                stage: "FILE COPY".into(),
                done: 0,
                total: 0,
                eta: None,
                donor: Some(donor.clone()),
                error: None,
            }),
            _ => None,
        },
        last_error: None,
    }
}
