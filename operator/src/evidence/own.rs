//! The operator's own probe of a shard's primary. I/O.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use understudy_api::names;
use understudy_decide::failover::snapshot::ReprobeOutcome;
use understudy_link::evidence::EVERY;
use understudy_mysql::probe::{self, Account, RowName, attempt};
use understudy_mysql::{Deadlines, Depth, Prober, Target, Trust};
use understudy_wire::evidence::millis;
use understudy_wire::{Epoch, Observer, ReplicaName, Report};

use super::Pulse;
use crate::context::Context;

/// The account that observers probe with.
const ACCOUNT: &str = understudy_wire::account::PROBE;
/// How soon the password is read again when it could not be.
const AGAIN: Duration = Duration::from_secs(2);
/// An instance that does not lead probes once in so many turns while all is well: what it sees decides nothing. From the first attempt that
/// fails it probes like the one that leads, so whoever takes over knows as much.
const ASIDE: u32 = 4;

/// How often and how patiently to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two attempts.
    pub interval: Duration,
    /// Of the stages.
    pub deadlines: Deadlines,
}

impl Pace {
    /// How soon one attempt follows the other. A success is never older than evidence may be, which is the deadline of a commit and two
    /// intervals at the least.
    fn attempts(self, leads: bool) -> probe::Pace {
        let aside = (ASIDE * self.interval).min(self.interval + self.deadlines.commit);
        probe::Pace { eager: self.interval, calm: if leads { self.interval } else { aside } }
    }
}

/// Whom to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The primary.
    pub replica: ReplicaName,
    /// Its `ip:port`.
    pub address: SocketAddr,
}

struct Running {
    pace: Pace,
    leads: bool,
    target: watch::Sender<Option<Target>>,
    _task: AbortOnDropHandle<()>,
}

/// The probe after a claim.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The claim.
    pub epoch: Epoch,
    /// When it began.
    pub since: Instant,
    /// How it ended.
    pub outcome: Option<ReprobeOutcome>,
}

/// The operator as an observer of one shard.
pub struct OwnObserver {
    context: Context,
    namespace: String,
    shard: String,
    pulse: Pulse,
    news: Arc<Notify>,
    prober: Prober,
    running: Option<Running>,
    subject: Option<Subject>,
    /// Made once: it is asked for in every pass, and remembers sessions, which spares a server most of a handshake.
    trust: Option<Trust>,
    account: Arc<Mutex<Option<Account>>>,
    reading: Option<(Instant, AbortOnDropHandle<()>)>,
    reprobe: Arc<Mutex<Option<Attempt>>>,
    reprobing: Option<AbortOnDropHandle<()>>,
    seq: u64,
}

impl OwnObserver {
    /// Probes nobody yet.
    pub fn new(context: &Context, namespace: &str, shard: &str, pulse: Pulse, news: Arc<Notify>) -> Self {
        Self {
            context: context.clone(),
            namespace: namespace.to_owned(),
            shard: shard.to_owned(),
            pulse,
            news,
            prober: Prober::new(),
            running: None,
            subject: None,
            trust: None,
            account: Arc::default(),
            reading: None,
            reprobe: Arc::default(),
            reprobing: None,
            seq: 0,
        }
    }

    /// Probes exactly this server at this pace. `leads`: whether this instance acts on what it sees.
    pub fn look_at(&mut self, subject: Option<Subject>, pace: Pace, leads: bool) {
        self.subject = subject;
        self.know_whom_to_trust();
        if self.running.as_ref().is_none_or(|running| running.pace != pace || running.leads != leads) {
            self.start(pace, leads);
        }
        let target = self.target();
        if target.is_none() && self.subject.is_some() {
            self.read_account();
        }
        if let Some(running) = &self.running {
            running.target.send_if_modified(|present| {
                let key = |target: &Target| (target.subject.clone(), target.address, target.account.clone());
                let same = present.as_ref().map(key) == target.as_ref().map(key);
                if !same {
                    present.clone_from(&target);
                }
                !same
            });
        }
    }

    fn know_whom_to_trust(&mut self) {
        if self.trust.is_some() {
            return;
        }
        match Trust::new(self.context.authority.cert(), &names::shard_san(&self.shard)) {
            Ok(trust) => self.trust = Some(trust),
            Err(error) => tracing::error!(shard = self.shard, %error, "the primary cannot be probed"),
        }
    }

    /// What was seen of the same server at another pace stays.
    fn start(&mut self, pace: Pace, leads: bool) {
        self.running = None;
        let (target, targets) = watch::channel(self.target());
        let news = self.news.clone();
        let probing = self.prober.clone().run(
            targets,
            pace.attempts(leads),
            pace.deadlines,
            move || news.notify_one(),
            CancellationToken::new(),
        );
        self.running = Some(Running { pace, leads, target, _task: AbortOnDropHandle::new(tokio::spawn(probing)) });
    }

    fn target(&self) -> Option<Target> {
        let subject = self.subject.as_ref()?;
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let trust = self.trust.clone()?;
        Some(Target {
            subject: subject.replica.clone(),
            address: subject.address,
            trust,
            account,
            row: RowName::new(&format!("operator/{}", self.context.settings.pod)),
            depth: Depth::Commit,
        })
    }

    /// Secrets are not watched, so that the operator needs no right to list them.
    fn read_account(&mut self) {
        if self.reading.as_ref().is_some_and(|(since, task)| !task.is_finished() || since.elapsed() < AGAIN) {
            return;
        }
        let (context, account, news) = (self.context.clone(), self.account.clone(), self.news.clone());
        let (namespace, secret) = (self.namespace.clone(), names::credentials_secret(&self.shard));
        let reading = async move {
            let password = match context.applier.get::<Secret>(&namespace, &secret).await {
                Ok(found) => found.and_then(|secret| secret.data?.remove(ACCOUNT)),
                Err(error) => {
                    tracing::warn!(secret, error = %crate::controllers::queue::chain(&error), "password of the probe not read");
                    None
                }
            };
            if let Some(password) = password.and_then(|bytes| String::from_utf8(bytes.0).ok()) {
                let read = Account { user: ACCOUNT.to_owned(), password };
                *account.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
                news.notify_one();
            }
        };
        self.reading = Some((Instant::now(), AbortOnDropHandle::new(tokio::spawn(reading))));
    }

    /// What the operator has to say as an observer.
    pub fn report(&mut self, now: Instant) -> Report {
        self.seq += 1;
        let interval = self.running.as_ref().map_or(EVERY, |running| running.pace.interval);
        Report {
            observer: Observer::Operator { pod: self.context.settings.pod.clone() },
            seq: self.seq,
            own_gap: millis(self.pulse.worst_gap(now)),
            interval: millis(interval),
            evidence: self.prober.evidence(now).into_iter().collect(),
            log: Vec::new(),
        }
    }

    /// Probes the present subject once more, beside everything else.
    pub fn reprobe(&mut self, epoch: Epoch, now: Instant) {
        let begun = |outcome| Some(Attempt { epoch, since: now, outcome });
        let (Some(target), Some(running)) = (self.target(), &self.running) else {
            let outcome = ReprobeOutcome::Failed("it cannot be probed: no address or no password".into());
            *self.reprobe.lock().unwrap_or_else(PoisonError::into_inner) = begun(Some(outcome));
            return;
        };
        *self.reprobe.lock().unwrap_or_else(PoisonError::into_inner) = begun(None);
        let (deadlines, slot, news) = (running.pace.deadlines, self.reprobe.clone(), self.news.clone());
        let probing = async move {
            let outcome = match attempt(&target, deadlines, |_| {}).await {
                Ok(_) => ReprobeOutcome::Committed,
                Err(failure) => ReprobeOutcome::Failed(format!("{:?}: {:?}", failure.stage, failure.error)),
            };
            if let Some(attempt) =
                slot.lock().unwrap_or_else(PoisonError::into_inner).as_mut().filter(|a| a.epoch == epoch)
            {
                attempt.outcome = Some(outcome);
            }
            news.notify_one();
        };
        self.reprobing = Some(AbortOnDropHandle::new(tokio::spawn(probing)));
    }

    /// The probe after the last claim.
    pub fn reprobed(&self) -> Option<Attempt> {
        self.reprobe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_lead_probes_less_often_and_its_successes_still_count() {
        let ms = Duration::from_millis;
        for (case, interval, calm) in [("as it is by default", 250, 1_000), ("slowly", 1_000, 2_500)] {
            let deadlines = Deadlines { stage: ms(1_000), commit: ms(1_500) };
            let pace = Pace { interval: ms(interval), deadlines };
            assert_eq!(pace.attempts(true), probe::Pace::from(ms(interval)), "{case}, leading");
            assert_eq!(pace.attempts(false), probe::Pace { eager: ms(interval), calm: ms(calm) }, "{case}");
            assert!(ms(calm) <= deadlines.commit + 2 * pace.interval, "{case}: the least that evidenceMaxAgeMs may be");
        }
    }
}
