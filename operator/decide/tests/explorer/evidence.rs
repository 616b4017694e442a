//! What a manager says of its server.

use understudy_wire::evidence::*;
use understudy_wire::{Epoch, Evidence, Observer, ReplicaName, Report};

use super::cluster::{PodW, Process, Rep};

pub fn report(observer: Observer, evidence: Vec<Evidence>) -> Report {
    Report { observer, seq: 0, own_gap: 250, interval: 250, evidence, log: vec![] }
}

pub fn server(now: Millis, name: &ReplicaName, rep: &Rep, pod: &PodW) -> Server {
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
    Server {
        phase,
        uuid: running.then(|| rep.source_id().to_string()),
        process_state: Some(if pod.frozen { 'T' } else { 'S' }),
        stopped: pod.frozen.then_some(read),
        threads_in_d: 0,
        sleepers: Vec::new(),
        pressure: None,
        lock_holder: None,
        epoch: pod.known.max(data.and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch)),
        serving: serves.map(|(epoch, _)| *epoch),
        read_only: (running && !pod.frozen).then_some(pod.read_only),
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
                receiving: true,
                applying: !pod.broken,
                received: pod.received.clone(),
                delay: (!pod.received.is_empty()).then(|| pod.lags.map_or(0, |since| now - since)),
                receive_error: None,
                apply_error: pod.broken.then(|| "1062: duplicate entry".to_owned()),
            },
        }),
        lsn: None,
        admin: None,
        fsync: Some(Fsync { in_flight: disk.and_then(|disk| disk.hangs).map(|since| now - since), ..Fsync::default() }),
        volume: None,
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
