//! Whom the manager probes: its own server the way clients reach it and through the admin port, and the shard's primary. I/O.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_mysql::probe::{Account, Pace, RowName};
use understudy_mysql::schema::{ADMIN, PROBE};
use understudy_mysql::{Deadlines, Depth, Prober, Target, Trust};
use understudy_wire::ReplicaName;

use crate::config::Config;
use crate::facts::{Facts, Life, Shared};

/// While all is well the admin port is probed once in so many turns: every commit costs the standbys too. From the first attempt that does not go
/// well it is as often as by the others, because how long nothing answers there tells a full server from one that hangs.
const ADMIN_PACE: u32 = 4;
/// While all is well the own server is probed once in so many turns. No signature of a dead primary counts failures of this probe: the manager
/// sees the process and the volume, and others see the server from outside. Its commits only speak for the server, and are still
/// four times as fresh as they must be.
const CALM_PACE: u32 = 2;

/// The three probers, running.
#[derive(Clone, Debug, Default)]
pub struct Probers {
    /// The own server, the way clients reach it.
    pub own: Prober,
    /// The own server through the admin port.
    pub admin: Prober,
    /// The shard's primary, where that is another replica.
    pub primary: Prober,
}

impl Probers {
    /// Starts them; each follows what is known and so finds its target.
    pub fn start(
        shared: &Arc<Shared>,
        config: &Arc<Config>,
        trust: &Trust,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let probers = Self::default();
        let aim = Aim { config: config.clone(), trust: trust.clone() };
        let every = config.probe_every;
        let own = Pace { eager: every, calm: CALM_PACE * every };
        let admin = Pace { eager: every, calm: ADMIN_PACE * every };
        for (prober, pace, target) in [
            (&probers.own, own, Aim::own as fn(&Aim, &Facts, &Shared) -> Option<Target>),
            (&probers.admin, admin, Aim::admin),
            (&probers.primary, Pace::from(every), Aim::primary),
        ] {
            let (targets, targeted) = watch::channel(None);
            tasks.spawn(follow_facts(shared.clone(), aim.clone(), target, targets, stop.clone()));
            let deadlines = Deadlines::new(config.stage_deadline, config.commit_deadline);
            let news = {
                let shared = shared.clone();
                move || shared.tell()
            };
            tasks.spawn(prober.clone().run(targeted, pace, deadlines, news, stop.clone()));
        }
        probers
    }
}

async fn follow_facts(
    shared: Arc<Shared>,
    aim: Aim,
    target: fn(&Aim, &Facts, &Shared) -> Option<Target>,
    targets: watch::Sender<Option<Target>>,
    stop: CancellationToken,
) {
    let mut news = shared.news();
    loop {
        let next = shared.read(|facts| target(&aim, facts, &shared));
        targets.send_if_modified(|present| {
            let changed = summary(present.as_ref()) != summary(next.as_ref());
            if changed {
                present.clone_from(&next);
            }
            changed
        });
        tokio::select! {
            () = stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

fn summary(target: Option<&Target>) -> Option<(&ReplicaName, std::net::SocketAddr, Depth)> {
    target.map(|t| (&t.subject, t.address, t.depth))
}

#[derive(Clone, Debug)]
struct Aim {
    config: Arc<Config>,
    trust: Trust,
}

impl Aim {
    fn account(&self, user: &str) -> Account {
        Account { user: user.to_owned(), password: self.config.passwords.of(user).to_owned() }
    }

    fn own(&self, facts: &Facts, shared: &Shared) -> Option<Target> {
        let is_there = matches!(facts.life, Life::Starting | Life::Running | Life::Exited(_));
        is_there.then(|| Target {
            subject: shared.me.clone(),
            address: self.config.mysql_address(),
            trust: self.trust.clone(),
            account: self.account(PROBE),
            row: RowName::new(shared.me.as_str()),
            depth: if facts.serving(&shared.me).is_some() { Depth::Commit } else { Depth::Select },
        })
    }

    fn admin(&self, facts: &Facts, shared: &Shared) -> Option<Target> {
        let own = self.own(facts, shared)?;
        Some(Target {
            address: self.config.mysql_admin_address(),
            account: self.account(ADMIN),
            row: RowName::new(&format!("{}:admin", shared.me)),
            ..own
        })
    }

    fn primary(&self, facts: &Facts, shared: &Shared) -> Option<Target> {
        let (subject, address) = facts.peers.as_ref()?.primary.clone()?;
        let address = address.parse().ok().filter(|_| subject != shared.me)?;
        Some(Target {
            subject,
            address,
            trust: self.trust.clone(),
            account: self.account(PROBE),
            row: RowName::new(shared.me.as_str()),
            depth: Depth::Commit,
        })
    }
}
