//! The certificate of mysqld, which keeps the one that it started with until it is told to read the files again; and the authority
//! that must have signed it. I/O.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use understudy_link::Identity;
use understudy_mysql::{Instance, Trust};

/// How long mysqld may take, and when it is told again if it did not do it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For one try.
    pub within: Duration,
    /// Between two tries.
    pub again: Duration,
}

/// A certificate is replaced weeks before the old one ends.
pub const PACE: Pace = Pace { within: Duration::from_secs(5), again: Duration::from_secs(10) };

/// Tells mysqld of each new certificate until it has read it, until stopped. A server that is in crash recovery or stuck when a
/// certificate comes would serve with the old one until that ends, and then nobody could connect.
pub async fn keep_fresh(identity: Identity, server: Arc<dyn Instance>, pace: Pace, ending: CancellationToken) {
    let mut replacements = identity.replacements();
    while let Some(Ok(())) = ending.run_until_cancelled(replacements.changed()).await {
        ending.run_until_cancelled(hand_over(&*server, pace)).await;
    }
}

async fn hand_over(server: &dyn Instance, pace: Pace) {
    let mut first = true;
    while let Err(error) = server.reload_certificates(pace.within).await {
        if std::mem::take(&mut first) {
            tracing::warn!(%error, "mysqld keeps its old certificate, and is told again");
        }
        tokio::time::sleep(pace.again).await;
    }
    tracing::info!("mysqld has the new certificate");
}

/// Has every new connection to a MySQL server trust the authority that this manager's own certificate is of now, until stopped.
pub async fn follow_authority(identity: Identity, trust: Trust, ending: CancellationToken) {
    let mut replacements = identity.replacements();
    loop {
        match trust.renew(&identity.pem().ca) {
            Ok(true) => tracing::info!("MySQL servers may have certificates of another authority from now on"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "MySQL servers need a certificate of the last authority still"),
        }
        let Some(Ok(())) = ending.run_until_cancelled(replacements.changed()).await else { return };
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use understudy_link::Authority;
    use understudy_mysql::fake::{Fake, Reloads};

    use super::*;

    async fn wait_for(fake: &Fake, is_so: impl Fn(Reloads) -> bool) {
        let turns = async {
            while !is_so(fake.reloads()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), turns).await.expect("it comes to that");
    }

    #[tokio::test]
    async fn mysqld_is_told_of_a_new_certificate_until_it_has_read_it() {
        let authority = Authority::generate("understudy", SystemTime::now()).unwrap();
        let issue = || authority.issue(&["m.example"], SystemTime::now(), Duration::from_secs(3_600)).unwrap();
        let identity = Identity::from_pem(issue()).unwrap();
        let fake = Arc::new(Fake::new());
        let pace = Pace { within: Duration::from_millis(1), again: Duration::from_millis(1) };
        let ending = CancellationToken::new();
        let task = tokio::spawn(keep_fresh(identity.clone(), fake.clone(), pace, ending.clone()));
        tokio::task::yield_now().await;
        assert_eq!(fake.reloads(), Reloads::default(), "it started with this one");

        fake.hang(true);
        identity.replace(issue()).unwrap();
        wait_for(&fake, |reloads| reloads.asked >= 3).await;
        assert_eq!(fake.reloads().done, 0);
        fake.hang(false);
        wait_for(&fake, |reloads| reloads.done == 1).await;

        identity.replace(issue()).unwrap();
        wait_for(&fake, |reloads| reloads.done == 2).await;
        ending.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn servers_are_trusted_by_the_authority_that_the_manager_has_now() {
        let [first, second] = [(); 2].map(|()| Authority::generate("understudy", SystemTime::now()).unwrap());
        let issue = |authority: &Authority| {
            authority.issue(&["m.example"], SystemTime::now(), Duration::from_secs(3_600)).unwrap()
        };
        let identity = Identity::from_pem(issue(&first)).unwrap();
        let trust = Trust::new(first.cert(), "m.example").unwrap();
        let ending = CancellationToken::new();
        let task = tokio::spawn(follow_authority(identity.clone(), trust.clone(), ending.clone()));
        identity.replace(issue(&second)).unwrap();
        let followed = async {
            while !trust.ca().contains(second.cert()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), followed).await.expect("it comes to that");
        ending.cancel();
        task.await.unwrap();
    }
}
