//! The certificate of mysqld: it keeps the one that it started with until it is told to read the files again. I/O.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use understudy_link::Identity;
use understudy_mysql::Instance;

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
}
