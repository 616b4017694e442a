//! One connection to one primary: looks at the rows that decide, takes ownership, commits. I/O.
//!
//! Each transaction locks the owner row first, so two consumers never wait for each other in a circle, then reads the epoch under a shared
//! lock, so that a promotion of this server is either before it or after it, then locks the offsets. What it finds is judged by
//! [`crate::guard`].

use std::collections::BTreeMap;
use std::time::Duration;

use understudy_kafka::Origin;
use understudy_sql::open::{MAX_PACKET, Unanswered, Unopened, open_or_keep, unanswered};
use understudy_sql::{Conn, Db, Insert, Limits, Login, Outcome, StepError, Value};
use understudy_wire::Epoch;
use understudy_wire::evidence::{ProbeError, Stage};

use crate::guard::{Diverged, Fenced, Guard, OwnerId, OwnerRow, Presence, Survey, Term, check_epoch, check_offsets};
use crate::hanging::Hanging;
use crate::lanes::Note;
use crate::route::Route;
use crate::view::{Placed, Tx, View, ViewError};

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first packet to a usable connection.
    pub connect: Duration,
    /// Each statement of a transaction, COMMIT included. A second longer than the server lets it wait for a lock.
    pub step: Duration,
    /// Each statement of the view's preparation, DDL included.
    pub prepare: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), step: Duration::from_secs(2), prepare: Duration::from_secs(10) }
    }
}

/// A connection's own settings. Idle time-outs are short so that a consumer that froze in the middle of a transaction does not keep its
/// locks from its successor; autocommit stays on outside of transactions.
///
/// A lock that somebody else holds is told of before a step is given up, so that the server is not accused of silence. A wait for a metadata lock, a
/// global one or that of COMMIT included, ends with its second. Who has waited for a row for too long InnoDB looks up once a second, and when
/// somebody begins to wait: for one alone its second is one, and with others in between it is mostly less than two.
const SETTINGS: &str = "SET SESSION wait_timeout = 3, SESSION net_read_timeout = 3, SESSION net_write_timeout = 3, \
     SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1, \
     SESSION transaction_isolation = 'READ-COMMITTED', SESSION autocommit = 1, \
     SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION time_zone = '+00:00'";

/// A process holds a lock of its own name for as long as it is connected, so that others see that it is. Names of locks are 64 characters
/// long at the most, those of owners are longer.
const SHOW: &str = "SELECT @@max_allowed_packet, GET_LOCK(CONCAT('owner.', SHA2(?, 224)), 0)";
const SURVEY: &str = "SELECT e.epoch, o.owner, o.term, o.beat, \
     IS_USED_LOCK(CONCAT('owner.', SHA2(COALESCE(o.owner, ''), 224))) IS NOT NULL FROM understudy.epoch e \
     LEFT JOIN understudy.consumer_owner o ON o.consumer = ? WHERE e.id = 1";
const LOCK_OWNER: &str = "SELECT owner, term, beat FROM understudy.consumer_owner WHERE consumer = ? FOR UPDATE";
const LOCK_EPOCH: &str = "SELECT epoch FROM understudy.epoch WHERE id = 1 FOR SHARE";
const MAKE_OWNER: &str = "INSERT INTO understudy.consumer_owner (consumer, owner, term, beat) VALUES (?, '', 0, 0) \
     ON DUPLICATE KEY UPDATE consumer = consumer";
const TAKE_OWNER: &str = "UPDATE understudy.consumer_owner SET owner = ?, term = ?, beat = beat + 1 WHERE consumer = ?";
const FREE_OWNER: &str =
    "UPDATE understudy.consumer_owner SET owner = '', beat = beat + 1 WHERE consumer = ? AND owner = ? AND term = ?";
const BEAT: &str = "UPDATE understudy.consumer_owner SET beat = beat + 1 WHERE consumer = ? AND owner = ? AND term = ?";
const OFFSETS: &str = "SELECT partition_id, next_offset, updated_ms, dead_letters, cluster_id, topic_id, cut_at, \
     until_offset, schema_name FROM understudy.consumer_offset WHERE consumer = ? AND topic = ?";
const LOCK_OFFSETS: &str = "SELECT partition_id, next_offset FROM understudy.consumer_offset \
     WHERE consumer = ? AND topic = ? FOR UPDATE";
const PUT_OFFSETS: Insert<'static> = Insert {
    head: "INSERT INTO understudy.consumer_offset \
           (consumer, topic, partition_id, next_offset, epoch, term, updated_ms, dead_letters, cluster_id, topic_id, cut_at, \
           until_offset, schema_name) VALUES",
    columns: 13,
    tail: "AS new ON DUPLICATE KEY UPDATE next_offset = new.next_offset, epoch = new.epoch, term = new.term, \
           updated_ms = new.updated_ms, dead_letters = new.dead_letters, cluster_id = new.cluster_id, \
           topic_id = new.topic_id, cut_at = new.cut_at, until_offset = new.until_offset, \
           schema_name = new.schema_name",
};

/// Whose rows these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The consumer, as in the columns.
    pub consumer: String,
    /// The topic.
    pub topic: String,
    /// The schema that the view writes.
    pub schema: String,
}

/// A stored offset and what is known with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The offset of the next record.
    pub next_offset: i64,
    /// Everything acknowledged before this time is stored; milliseconds since 1970.
    pub complete_until_ms: i64,
    /// How many records, or parts of records, below the offset were put aside.
    pub dead_letters: u64,
    /// What else the row says.
    pub note: Note,
}

/// What a transaction writes for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What must be stored before; None for nothing.
    pub expected: Option<i64>,
    /// What is stored after.
    pub stored: Stored,
}

/// Why nothing was committed, or why it is not known whether.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// The rows say no; nothing was written.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The offsets are not as this process left them; nothing was written.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// The view could not do its part; nothing was written.
    #[error(transparent)]
    View(ViewError),
    /// A step of the core's own failed. After COMMIT the outcome is not known.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// An open connection.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    deadlines: Deadlines,
    limits: Limits,
    owner: OwnerId,
    /// It has the lock of its process. Until then a connection that the server has not missed yet may have it.
    is_shown: bool,
}

type OwnerColumns = (String, u64, u64);

impl Session {
    /// Connects a process to the primary of a route. What does not come about in time is kept in `hanging`, if the server has taken it.
    pub async fn open(
        route: &Route,
        login: &Login,
        owner: &OwnerId,
        deadlines: Deadlines,
        hanging: &mut Hanging,
    ) -> Result<Self, StepError> {
        let conn = match open_or_keep(route.address, login, SETTINGS, deadlines.connect).await {
            Ok(conn) => conn,
            Err(Unopened { error, unanswered }) => {
                if let Some(unanswered) = unanswered {
                    hanging.keep(error.stage, unanswered);
                }
                return Err(error);
            }
        };
        let mut session = Self { conn, deadlines, limits: Limits::default(), owner: owner.clone(), is_shown: false };
        let shown = match session.show().await {
            Ok(shown) => shown,
            Err(e) => {
                if e.error == ProbeError::Timeout {
                    hanging.keep(e.stage, session.unanswered());
                }
                return Err(e);
            }
        };
        // Half of what the server takes, so that counting bytes roughly is exact enough.
        let packet = (shown.unwrap_or(4 << 20) / 2) as usize;
        let packet = packet.min(MAX_PACKET / 2);
        session.limits = Limits { packet, bytes: session.limits.bytes.min(packet), ..session.limits };
        Ok(session)
    }

    /// One that missed a deadline, for as long as the server does not answer.
    pub fn unanswered(self) -> Unanswered {
        unanswered(self.conn)
    }

    /// Lets others see that the process is connected; the server's limit of a packet.
    async fn show(&mut self) -> Result<Option<u64>, StepError> {
        let owner = self.owner.clone();
        let shown: Option<(u64, Option<u8>)> =
            self.db(Stage::Select).first("take the lock of the process", SHOW, (owner.as_str(),)).await?;
        self.is_shown = shown.is_some_and(|(_, lock)| lock == Some(1));
        Ok(shown.map(|(packet, _)| packet))
    }

    /// Asks whether the server still answers, which keeps an idle connection from being closed.
    pub async fn look(&mut self) -> Result<(), StepError> {
        self.db(Stage::Select).text("look after the connection", "DO 0").await.map(drop)
    }

    /// Reads the rows that decide.
    pub async fn survey(&mut self, names: &Names) -> Result<Survey, StepError> {
        type Columns = (u64, Option<String>, Option<u64>, Option<u64>, bool);
        let found: Option<Columns> = self.db(Stage::Select).first("survey", SURVEY, (&names.consumer,)).await?;
        let Some((epoch, owner, term, beat, is_connected)) = found else {
            return Ok(Survey { epoch: None, owner: None, presence: Presence::Absent });
        };
        let owner = match (owner, term, beat) {
            (Some(owner), Some(term), Some(beat)) => Some(OwnerRow { owner, term: Term(term), beat }),
            _ => None,
        };
        let presence = if is_connected { Presence::Connected } else { Presence::Absent };
        Ok(Survey { epoch: Some(Epoch(epoch)), owner, presence })
    }

    /// Takes the owner row if it still is as seen. None when somebody else was there meanwhile.
    pub async fn claim(
        &mut self,
        names: &Names,
        owner: &str,
        seen: &OwnerRow,
        epoch: Epoch,
    ) -> Result<Option<Term>, TxError> {
        let mut db = self.db(Stage::Commit);
        // Only while there is none: even an insert that changes nothing waits for whoever holds the row.
        if *seen == OwnerRow::default() {
            db.exec("make owner row", MAKE_OWNER, (&names.consumer,)).await?;
        }
        db.text("begin", "START TRANSACTION").await?;
        let row = lock_owner(&mut db, names).await?;
        if let Err(fenced) = check_epoch(epoch, lock_epoch(&mut db).await?) {
            rollback(&mut db).await?;
            return Err(fenced.into());
        }
        if row.as_ref() != Some(seen) {
            rollback(&mut db).await?;
            return Ok(None);
        }
        let term = Term(seen.term.0 + 1);
        db.exec("take owner row", TAKE_OWNER, (owner, term.0, &names.consumer)).await?;
        db.text("commit", "COMMIT").await?;
        Ok(Some(term))
    }

    /// Makes the owner row free, so that another takes it without waiting.
    pub async fn release(&mut self, names: &Names, guard: &Guard) -> Result<(), StepError> {
        let params = (&names.consumer, guard.owner.as_str(), guard.term.0);
        self.db(Stage::Commit).exec("free owner row", FREE_OWNER, params).await.map(drop)
    }

    /// The stored offsets.
    pub async fn offsets(&mut self, names: &Names) -> Result<BTreeMap<i32, Stored>, StepError> {
        type Columns = (i32, i64, i64, u64, String, String, Option<i64>, Option<i64>, String);
        let rows: Vec<Columns> =
            self.db(Stage::Select).rows("read offsets", OFFSETS, (&names.consumer, &names.topic)).await?;
        let stored =
            |(partition, next_offset, complete_until_ms, dead_letters, cluster, topic, cut, until, schema): Columns| {
                let known = |text: String| Some(text).filter(|text| !text.is_empty());
                let origin = Origin { cluster: known(cluster), topic: known(topic) };
                let note = Note { origin, schema: known(schema), cut, until };
                (partition, Stored { next_offset, complete_until_ms, dead_letters, note })
            };
        Ok(rows.into_iter().map(stored).collect())
    }

    /// Leaves whatever transaction is open.
    pub async fn leave(&mut self) -> Result<(), StepError> {
        rollback(&mut self.db(Stage::Commit)).await
    }

    /// Lets the view prepare, outside of a transaction.
    pub async fn prepare<V: View>(&mut self, view: &mut V, items: &[Placed<V::Item>]) -> Result<(), ViewError> {
        let mut db = Db::new(&mut self.conn, self.deadlines.prepare, Stage::Commit, self.limits);
        view.prepare(&mut db, items).await
    }

    /// The transaction. With no items and no progress it is a canary: it proves that this process owns and the server commits.
    pub async fn commit<V: View>(
        &mut self,
        names: &Names,
        guard: &Guard,
        progress: &BTreeMap<i32, Progress>,
        view: &mut V,
        items: &[Placed<V::Item>],
    ) -> Result<(), TxError> {
        if !self.is_shown {
            self.show().await?;
        }
        self.db(Stage::Commit).text("begin", "START TRANSACTION").await?;
        if let Err(e) = self.write(names, guard, progress, view, items).await {
            return Err(undo(&mut self.db(Stage::Commit), e).await);
        }
        // The server rolls back what it could not commit. Whether that holds for each of its errors nobody relies on: the next transaction
        // finds out by the offsets.
        match self.db(Stage::Commit).text("commit", "COMMIT").await {
            Ok(_) => Ok(()),
            Err(e) => Err(undo(&mut self.db(Stage::Commit), e.into()).await),
        }
    }

    /// All that happens between START TRANSACTION and COMMIT.
    async fn write<V: View>(
        &mut self,
        names: &Names,
        guard: &Guard,
        progress: &BTreeMap<i32, Progress>,
        view: &mut V,
        items: &[Placed<V::Item>],
    ) -> Result<(), TxError> {
        let mut db = self.db(Stage::Commit);
        let row = lock_owner(&mut db, names).await?;
        guard.check(lock_epoch(&mut db).await?, row.as_ref())?;
        if !progress.is_empty() {
            let rows: Vec<(i32, i64)> = db.rows("lock offsets", LOCK_OFFSETS, (&names.consumer, &names.topic)).await?;
            let expected = progress.iter().map(|(p, progress)| (*p, progress.expected)).collect();
            check_offsets(&expected, &rows.into_iter().collect())?;
        }
        if !items.is_empty() {
            let mut tx = Tx::new(self.db(Stage::Commit));
            let applied = view.apply(&mut tx, items).await;
            tx.outcome(applied).map_err(TxError::View)?;
        }
        // The beat goes first, as the proof that this still is the transaction that began above: outside of it a beat does no harm, and an
        // offset would move without its data.
        let mut db = self.db(Stage::Commit);
        let beat = db.exec("beat", BEAT, (&names.consumer, guard.owner.as_str(), guard.term.0)).await?;
        if beat.affected != 1 {
            return Err(not_ours("beat", format!("it changed {} rows", beat.affected)));
        }
        still_in_transaction("beat", beat)?;
        if !progress.is_empty() {
            let rows = progress.iter().map(|(partition, progress)| offset_row(names, guard, *partition, progress));
            let moved = db.insert("move offsets", &PUT_OFFSETS, rows.collect()).await?;
            still_in_transaction("move offsets", moved)?;
        }
        Ok(())
    }

    fn db(&mut self, stage: Stage) -> Db<'_> {
        Db::new(&mut self.conn, self.deadlines.step, stage, self.limits)
    }
}

fn still_in_transaction(step: &'static str, outcome: Outcome) -> Result<(), TxError> {
    if outcome.in_transaction {
        return Ok(());
    }
    Err(not_ours(step, "the transaction is no longer open".to_owned()))
}

/// The transaction is not what it should be. What of it holds is read again on another connection.
fn not_ours(step: &'static str, message: String) -> TxError {
    TxError::Step(StepError { step, stage: Stage::Commit, error: ProbeError::Other { message } })
}

fn offset_row(names: &Names, guard: &Guard, partition: i32, progress: &Progress) -> Vec<Value> {
    vec![
        Value::from(names.consumer.as_str()),
        Value::from(names.topic.as_str()),
        Value::from(partition),
        Value::from(progress.stored.next_offset),
        Value::from(guard.epoch.0),
        Value::from(guard.term.0),
        Value::from(progress.stored.complete_until_ms),
        Value::from(progress.stored.dead_letters),
        Value::from(progress.stored.note.origin.cluster.as_deref().unwrap_or_default()),
        Value::from(progress.stored.note.origin.topic.as_deref().unwrap_or_default()),
        Value::from(progress.stored.note.cut),
        Value::from(progress.stored.note.until),
        Value::from(progress.stored.note.schema.as_deref().unwrap_or_default()),
    ]
}

async fn lock_owner(db: &mut Db<'_>, names: &Names) -> Result<Option<OwnerRow>, StepError> {
    let row: Option<OwnerColumns> = db.first("lock owner row", LOCK_OWNER, (&names.consumer,)).await?;
    Ok(row.map(|(owner, term, beat)| OwnerRow { owner, term: Term(term), beat }))
}

async fn lock_epoch(db: &mut Db<'_>) -> Result<Option<Epoch>, StepError> {
    let epoch: Option<u64> = db.first("lock epoch", LOCK_EPOCH, ()).await?;
    Ok(epoch.map(Epoch))
}

async fn rollback(db: &mut Db<'_>) -> Result<(), StepError> {
    db.text("roll back", "ROLLBACK").await.map(drop)
}

/// Rolls back after an error, unless the connection is of no more use: then the server does it. After a lock that was not given in time that is
/// not the same: unless `innodb_rollback_on_timeout` is set, the server has rolled back the statement alone.
async fn undo(db: &mut Db<'_>, error: TxError) -> TxError {
    let usable = match &error {
        TxError::Step(step) | TxError::View(ViewError::Step(step)) => step.is_answer(),
        _ => true,
    };
    if !usable {
        return error;
    }
    match rollback(db).await {
        Ok(()) => error,
        Err(lost) => TxError::Step(lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds that a setting has here.
    fn seconds(name: &str) -> Option<u64> {
        let settings =
            SETTINGS.split(',').filter_map(|setting| setting.rsplit(' ').nth(2).zip(setting.rsplit(' ').next()));
        settings.filter(|(found, _)| *found == name).find_map(|(_, value)| value.parse().ok())
    }

    #[test]
    fn a_lock_is_told_of_before_a_step_is_given_up() {
        for name in ["innodb_lock_wait_timeout", "lock_wait_timeout"] {
            let wait = Duration::from_secs(seconds(name).unwrap());
            // InnoDB may look a second late.
            assert!(wait + Duration::from_secs(1) <= Deadlines::default().step, "{name}");
        }
    }
}
