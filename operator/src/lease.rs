//! Which instance acts: a Lease that one of them holds. The Lease is efficiency; the epoch is safety.
//!
//! The algorithm is client-go's: time is counted on one's own clock from when a change of the Lease was *seen*, never
//! read from the Lease, and every write names the version it replaces. kube-lease-manager 0.13 was read and not taken: it
//! compares the holder's clock with its own, clears and renews the Lease without naming a version (two instances can both
//! believe they hold it), does not step down while the API server is out of its reach, and notices a release only when
//! the old term would have ended.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
/// Name of the Lease in the operator's namespace.
pub use understudy_api::names::lease as name;

/// A Lease that was not seen to change for this long may be taken.
pub const TERM: Duration = Duration::from_secs(4);
/// How often the holder renews it.
pub const RENEW: Duration = Duration::from_secs(1);
/// A holder that could not renew for this long stops acting: well before anybody else may begin.
pub const DEADLINE: Duration = Duration::from_millis(2500);
const RETRY: Duration = Duration::from_millis(250);
const CALL: Duration = Duration::from_millis(1500);

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// Who holds it; `None` after a release.
    pub holder: Option<String>,
    /// The version that a write must name; `None` when there is no Lease yet.
    pub version: Option<String>,
    /// How often it changed hands.
    pub transitions: i32,
}

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else wrote first.
    #[error("somebody else wrote the lease first")]
    Conflict,
    /// The API server answered with an error.
    #[error("the lease could not be reached")]
    Api(#[source] kube::Error),
    /// The API server did not answer.
    #[error("the API server did not answer within {CALL:?}")]
    Deadline,
}

/// Where the Lease is kept.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Reads it.
    async fn read(&self) -> Result<Seen, LeaseError>;
    /// Writes a holder (`None` releases) over exactly the version that was seen.
    async fn write(&self, over: &Seen, holder: Option<&str>) -> Result<Seen, LeaseError>;
}

/// The Lease in the cluster.
pub struct InCluster {
    api: Api<Lease>,
    name: String,
}

impl InCluster {
    /// `client` should not retry by itself: a late renewal is worse than a missed one.
    pub fn new(client: Client, namespace: &str, scope: Option<&str>) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name(scope) }
    }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.as_ref();
    Seen {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
        version: lease.resource_version(),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or(0),
    }
}

async fn called<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
            Err(LeaseError::Conflict)
        }
        Ok(Err(error)) => Err(LeaseError::Api(error)),
        Err(_) => Err(LeaseError::Deadline),
    }
}

#[async_trait]
impl Leases for InCluster {
    async fn read(&self) -> Result<Seen, LeaseError> {
        Ok(called(self.api.get_opt(&self.name)).await?.as_ref().map(seen).unwrap_or_default())
    }

    async fn write(&self, over: &Seen, holder: Option<&str>) -> Result<Seen, LeaseError> {
        let now = MicroTime(Timestamp::now());
        let changes_hands = holder.is_some() && over.holder.as_deref() != holder;
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: over.version.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.unwrap_or_default().to_owned()),
                lease_duration_seconds: Some(TERM.as_secs() as i32),
                acquire_time: changes_hands.then(|| now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(over.transitions + i32::from(changes_hands)),
                ..LeaseSpec::default()
            }),
        };
        let written = match over.version {
            Some(_) => called(self.api.replace(&self.name, &PostParams::default(), &lease)).await?,
            None => called(self.api.create(&PostParams::default(), &lease)).await?,
        };
        Ok(seen(&written))
    }
}

/// Whether this instance may act now.
#[derive(Clone, Debug)]
pub struct Leading {
    now: watch::Receiver<bool>,
}

impl Leading {
    /// Whether this instance may act. Ask again before each step.
    pub fn is_leading(&self) -> bool {
        *self.now.borrow()
    }

    /// Waits until it changes; false when it never will again.
    pub async fn changed(&mut self) -> bool {
        self.now.changed().await.is_ok()
    }

    /// One that never changes: for tests and for tools.
    pub fn fixed(leading: bool) -> Self {
        Self { now: watch::channel(leading).1 }
    }
}

/// For how long this instance has led without a break, as whoever asks now and then can tell: from when it was first asked since the last
/// change.
#[derive(Debug)]
pub struct Tenure {
    leading: Leading,
    since: Instant,
}

impl Tenure {
    /// Begins now.
    pub fn new(leading: &Leading) -> Self {
        let mut leading = leading.clone();
        leading.now.mark_unchanged();
        Self { leading, since: Instant::now() }
    }

    /// Its length. One that ended and began anew since this was asked last begins now.
    pub fn so_far(&mut self) -> Duration {
        if self.leading.now.has_changed().unwrap_or(false) {
            *self = Self::new(&self.leading);
        }
        self.since.elapsed()
    }
}

/// Takes part in the election until stopped, and then releases the Lease.
pub fn elect(
    leases: impl Leases + 'static,
    me: String,
    stop: CancellationToken,
) -> (Leading, impl Future<Output = ()> + Send) {
    let (sender, receiver) = watch::channel(false);
    let election =
        Election { leases, me, leading: sender, seen: Seen::default(), since: Instant::now(), renewed: None };
    (Leading { now: receiver }, election.run(stop))
}

struct Election<L> {
    leases: L,
    me: String,
    leading: watch::Sender<bool>,
    seen: Seen,
    /// When `seen` was first seen.
    since: Instant,
    /// When the last renewal that succeeded was sent.
    renewed: Option<Instant>,
}

impl<L: Leases> Election<L> {
    async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.turn()).await.is_some() {}
        if self.renewed.take().is_some() {
            // First nobody acts, then others may.
            self.leading.send_replace(false);
            if let Err(error) = self.leases.write(&self.seen, None).await {
                tracing::info!(%error, "lease not released, the next instance waits for its term");
            }
        }
    }

    async fn turn(&mut self) {
        match self.renewed {
            Some(renewed) => {
                tokio::time::sleep_until(renewed + RENEW).await;
                self.renew(renewed).await;
            }
            None => {
                self.look().await;
                if self.may_take() {
                    self.take().await;
                }
                if self.renewed.is_none() {
                    tokio::time::sleep(RENEW).await;
                }
            }
        }
    }

    /// Reads the Lease and notes when it was first seen as it is.
    async fn look(&mut self) {
        match self.leases.read().await {
            Ok(seen) if seen != self.seen => {
                self.seen = seen;
                self.since = Instant::now();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "lease not read");
                // What could not be read may have changed: the term is counted anew.
                self.since = Instant::now();
            }
        }
    }

    /// Free, expired before our eyes, or left behind by an earlier process of this very instance.
    fn may_take(&self) -> bool {
        match &self.seen.holder {
            None => true,
            Some(holder) => *holder == self.me || self.since.elapsed() >= TERM,
        }
    }

    async fn take(&mut self) {
        let sent = Instant::now();
        match self.leases.write(&self.seen, Some(&self.me)).await {
            Ok(seen) => {
                tracing::info!(instance = %self.me, "leading");
                self.seen = seen;
                self.renewed = Some(sent);
                self.leading.send_replace(true);
            }
            Err(LeaseError::Conflict) => {}
            Err(error) => tracing::warn!(%error, "lease not taken"),
        }
    }

    /// Goes on trying until it succeeds, somebody else has it, or the deadline is over.
    async fn renew(&mut self, renewed: Instant) {
        let deadline = renewed + DEADLINE;
        loop {
            let sent = Instant::now();
            match tokio::time::timeout_at(deadline, self.leases.write(&self.seen, Some(&self.me))).await {
                Ok(Ok(seen)) => {
                    self.seen = seen;
                    self.renewed = Some(sent);
                    return;
                }
                // Another one has it, or an earlier write of ours arrived late; the next turn finds out which.
                Ok(Err(LeaseError::Conflict)) => return self.step_down("somebody else wrote the lease"),
                Ok(Err(error)) => tracing::warn!(%error, "lease not renewed"),
                Err(_) => {}
            }
            if Instant::now() + RETRY >= deadline {
                return self.step_down("the lease could not be renewed in time");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn step_down(&mut self, reason: &str) {
        tracing::warn!(instance = %self.me, reason, "not leading any more");
        self.renewed = None;
        self.since = Instant::now();
        self.leading.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A Lease in memory, with the API server's rule that a write must name the present version.
    #[derive(Clone, Default)]
    struct Fake {
        lease: Arc<Mutex<Seen>>,
        /// Whether this instance can reach it.
        cut_off: Arc<AtomicBool>,
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leads_again_has_not_led_for_long() {
        let (sender, now) = watch::channel(true);
        let mut tenure = Tenure::new(&Leading { now });
        tokio::time::advance(TERM).await;
        assert_eq!(tenure.so_far(), TERM);
        // Nobody asked while another instance led.
        sender.send_replace(false);
        sender.send_replace(true);
        assert_eq!(tenure.so_far(), Duration::ZERO);
        tokio::time::advance(RENEW).await;
        assert_eq!(tenure.so_far(), RENEW);
        drop(sender);
        assert_eq!(tenure.so_far(), RENEW, "an election that has ended changes nothing");
    }

    #[test]
    fn instances_that_look_after_different_objects_do_not_wait_for_each_other() {
        assert_eq!(name(None), name(None));
        let names = [name(None), name(Some("one")), name(Some("other"))];
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), 3, "{names:?}");
    }

    impl Fake {
        fn beside(&self) -> Self {
            Self { lease: self.lease.clone(), cut_off: Arc::default() }
        }

        async fn reach(&self) -> Result<(), LeaseError> {
            if self.cut_off.load(Ordering::SeqCst) {
                tokio::time::sleep(CALL).await;
                return Err(LeaseError::Deadline);
            }
            Ok(())
        }
    }

    #[async_trait]
    impl Leases for Fake {
        async fn read(&self) -> Result<Seen, LeaseError> {
            self.reach().await?;
            Ok(self.lease.lock().unwrap().clone())
        }

        async fn write(&self, over: &Seen, holder: Option<&str>) -> Result<Seen, LeaseError> {
            self.reach().await?;
            let mut lease = self.lease.lock().unwrap();
            if lease.version != over.version {
                return Err(LeaseError::Conflict);
            }
            let version = lease.version.as_ref().map_or(1, |version| version.parse::<u64>().unwrap() + 1);
            *lease = Seen {
                holder: holder.map(str::to_owned),
                version: Some(version.to_string()),
                transitions: lease.transitions,
            };
            Ok(lease.clone())
        }
    }

    struct Instance {
        leading: Leading,
        stop: CancellationToken,
    }

    fn start(fake: Fake, name: &str) -> Instance {
        let stop = CancellationToken::new();
        let (leading, task) = elect(fake, name.to_owned(), stop.clone());
        tokio::spawn(task);
        Instance { leading, stop }
    }

    async fn until(instance: &mut Instance, leading: bool) -> Duration {
        let started = Instant::now();
        instance.leading.now.wait_for(|now| *now == leading).await.unwrap();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_leads() {
        let fake = Fake::default();
        let mut first = start(fake.clone(), "a");
        until(&mut first, true).await;
        let second = start(fake.beside(), "b");
        tokio::time::sleep(TERM * 5).await;
        assert!(first.leading.is_leading() && !second.leading.is_leading());
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_is_taken_at_the_next_look() {
        let fake = Fake::default();
        let mut first = start(fake.clone(), "a");
        until(&mut first, true).await;
        let mut second = start(fake.beside(), "b");
        tokio::time::sleep(TERM).await;
        first.stop.cancel();
        assert!(until(&mut second, true).await <= RENEW * 2);
        assert!(!first.leading.is_leading());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_is_cut_off_stops_before_another_begins() {
        let fake = Fake::default();
        let mut first = start(fake.clone(), "a");
        until(&mut first, true).await;
        let mut second = start(fake.beside(), "b");
        tokio::time::sleep(TERM).await;
        fake.cut_off.store(true, Ordering::SeqCst);
        let stopped = until(&mut first, false).await;
        assert!(stopped <= DEADLINE + RENEW, "{stopped:?}");
        assert!(!second.leading.is_leading());
        assert!(until(&mut second, true).await > Duration::ZERO);
        fake.cut_off.store(false, Ordering::SeqCst);
        tokio::time::sleep(TERM * 3).await;
        assert!(!first.leading.is_leading() && second.leading.is_leading());
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_instance_goes_on_at_once() {
        let fake = Fake::default();
        let holder = Seen { holder: Some("a".to_owned()), version: Some("7".to_owned()), transitions: 1 };
        *fake.lease.lock().unwrap() = holder;
        let mut first = start(fake, "a");
        assert_eq!(until(&mut first, true).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_term_of_a_dead_holder_is_waited_for() {
        let fake = Fake::default();
        let holder = Seen { holder: Some("dead".to_owned()), version: Some("7".to_owned()), transitions: 1 };
        *fake.lease.lock().unwrap() = holder;
        let mut first = start(fake, "a");
        let waited = until(&mut first, true).await;
        assert!(waited >= TERM && waited <= TERM + RENEW * 2, "{waited:?}");
    }
}
