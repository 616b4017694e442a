//! [`Instance`] in memory, for tests of what is built on it. Pure.
//!
//! It passes the same contract as a real server. Beside that it can be told to hang, which a real one only does when it is sick.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use understudy_wire::GtidSet;
use understudy_wire::evidence::{LockHolder, Replication, StoredOffset};
use understudy_wire::gtid::SourceId;

use crate::error::SqlError;
use crate::instance::{CloneProgress, Donor, EpochRow, Instance, Source, Status};

const UUID: [u8; 16] = [0xfa; 16];

#[derive(Debug, Default)]
struct State {
    hangs: bool,
    takes_writes: bool,
    executed: GtidSet,
    own: u64,
    lsn: u64,
    epoch: Option<EpochRow>,
    offsets: Vec<StoredOffset>,
    source: Option<Source>,
    receives: bool,
    applies: bool,
    received: GtidSet,
    clients: u32,
    reloads: Reloads,
    lock_holder: Option<LockHolder>,
    takes: Duration,
    asked: Vec<&'static str>,
}

/// How often the server was to read its certificate files again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// How often it was told to.
    pub asked: u32,
    /// How often it did.
    pub done: u32,
}

/// A server that exists in memory only. Starts read-only, like a real one.
#[derive(Debug, Default)]
pub struct Fake {
    state: Mutex<State>,
}

impl Fake {
    /// An empty server.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on nothing is answered, or again is.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// From now on each answer takes so long.
    pub fn slow_down(&self, by: Duration) {
        self.state().takes = by;
    }

    /// Transactions arrive from the source and wait to be applied.
    pub fn receive(&self, gtids: &GtidSet) {
        let mut state = self.state();
        state.received = state.received.union(gtids);
    }

    /// The receiver has lost its connection, and tries to get another one.
    pub fn lose_source(&self) {
        self.state().receives = false;
    }

    /// Everything received is applied, unless the applier was stopped.
    pub fn apply(&self) {
        let mut state = self.state();
        if state.source.is_some() && !state.applies {
            return;
        }
        state.executed = state.executed.union(&state.received);
    }

    /// Clients that are connected.
    pub fn connect_clients(&self, clients: u32) {
        self.state().clients = clients;
    }

    /// How many clients are connected.
    pub fn clients(&self) -> u32 {
        self.state().clients
    }

    /// Somebody holds a lock that others wait for, or nobody does any more.
    pub fn hold_lock(&self, holder: Option<LockHolder>) {
        self.state().lock_holder = holder;
    }

    /// How often its certificate files were read again.
    pub fn reloads(&self) -> Reloads {
        self.state().reloads
    }

    /// What it was asked since the last call, in order; the same several times in a row counts once.
    pub fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state().asked)
    }

    /// Offsets that consumers have stored.
    pub fn store_offsets(&self, offsets: Vec<StoredOffset>) {
        self.state().offsets = offsets;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run<T>(
        &self,
        step: &'static str,
        within: Duration,
        work: impl FnOnce(&mut State) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let hangs = {
            let mut state = self.state();
            if state.asked.last() != Some(&step) {
                state.asked.push(step);
            }
            state.hangs
        };
        if hangs {
            tokio::time::sleep(within).await;
            return Err(SqlError::Deadline { step, within });
        }
        let takes = self.state().takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        work(&mut self.state())
    }
}

impl State {
    fn transaction(&mut self, step: &'static str) -> Result<(), SqlError> {
        if !self.takes_writes {
            let message =
                "The MySQL server is running with the --super-read-only option so it cannot execute this statement"
                    .to_owned();
            return Err(SqlError::Refused { step, code: 1290, message });
        }
        self.own += 1;
        self.lsn += 100;
        self.executed.insert(SourceId::from_bytes(UUID), self.own, self.own);
        Ok(())
    }
}

#[async_trait]
impl Instance for Fake {
    async fn status(&self, within: Duration) -> Result<Status, SqlError> {
        self.run("status", within, |state| {
            let uuid = SourceId::from_bytes(UUID).to_string();
            Ok(Status { uuid, read_only: !state.takes_writes, executed: state.executed.clone(), lsn: Some(state.lsn) })
        })
        .await
    }

    async fn epoch(&self, within: Duration) -> Result<Option<EpochRow>, SqlError> {
        self.run("epoch", within, |state| Ok(state.epoch.clone())).await
    }

    async fn offsets(&self, within: Duration) -> Result<Vec<StoredOffset>, SqlError> {
        self.run("offsets", within, |state| Ok(state.offsets.clone())).await
    }

    async fn replication(&self, within: Duration) -> Result<Option<Replication>, SqlError> {
        self.run("replication", within, |state| {
            Ok(state.source.as_ref().map(|source| Replication {
                source: Some(source.address.to_string()),
                receiving: state.receives,
                applying: state.applies,
                received: state.received.clone(),
                delay: (state.receives && !state.received.is_empty()).then_some(0),
                receive_error: None,
                apply_error: None,
            }))
        })
        .await
    }

    async fn lock_holder(&self, within: Duration) -> Result<Option<LockHolder>, SqlError> {
        self.run("lock holder", within, |state| Ok(state.lock_holder.clone())).await
    }

    async fn refuse_writes(&self, within: Duration) -> Result<(), SqlError> {
        self.run("refuse writes", within, |state| {
            state.takes_writes = false;
            Ok(())
        })
        .await
    }

    async fn take_writes(&self, within: Duration) -> Result<(), SqlError> {
        self.run("take writes", within, |state| {
            state.takes_writes = true;
            Ok(())
        })
        .await
    }

    async fn cut_clients(&self, within: Duration) -> Result<u32, SqlError> {
        self.run("cut clients", within, |state| Ok(std::mem::take(&mut state.clients))).await
    }

    async fn follow(&self, source: &Source, within: Duration) -> Result<(), SqlError> {
        self.run("follow", within, |state| {
            if state.source.as_ref() != Some(source) {
                state.source = Some(source.clone());
                state.received = GtidSet::new();
            }
            (state.receives, state.applies) = (true, true);
            Ok(())
        })
        .await
    }

    async fn stop_receiving(&self, within: Duration) -> Result<(), SqlError> {
        self.run("stop receiving", within, |state| {
            state.receives = false;
            Ok(())
        })
        .await
    }

    async fn stop_applying(&self, within: Duration) -> Result<(), SqlError> {
        self.run("stop applying", within, |state| {
            state.applies = false;
            Ok(())
        })
        .await
    }

    async fn wait_executed(&self, gtids: &GtidSet, within: Duration) -> Result<bool, SqlError> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if self.run("wait for execution", within, |state| Ok(state.executed.contains(gtids))).await? {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn forget_source(&self, within: Duration) -> Result<(), SqlError> {
        self.run("forget source", within, |state| {
            (state.source, state.receives, state.applies, state.received) = (None, false, false, GtidSet::new());
            Ok(())
        })
        .await
    }

    async fn write_epoch(&self, row: &EpochRow, _at_ms: i64, within: Duration) -> Result<(), SqlError> {
        self.run("write epoch", within, |state| {
            if let Some(stored) = &state.epoch {
                if stored.epoch > row.epoch {
                    return Err(SqlError::OlderEpoch { given: row.epoch.0, stored: stored.epoch.0 });
                }
                if stored == row {
                    return Ok(());
                }
            }
            state.transaction("write epoch")?;
            state.epoch = Some(row.clone());
            Ok(())
        })
        .await
    }

    async fn use_log_writers(&self, within: Duration) -> Result<(), SqlError> {
        self.run("use log writers", within, |_| Ok(())).await
    }

    async fn reload_certificates(&self, within: Duration) -> Result<(), SqlError> {
        self.state().reloads.asked += 1;
        self.run("reload certificates", within, |state| {
            state.reloads.done += 1;
            Ok(())
        })
        .await
    }

    async fn clone_from(&self, _donor: &Donor, within: Duration) -> Result<(), SqlError> {
        self.run("clone", within, |_| Ok(())).await
    }

    async fn clone_progress(&self, within: Duration) -> Result<Option<CloneProgress>, SqlError> {
        self.run("clone progress", within, |_| Ok(None)).await
    }
}
