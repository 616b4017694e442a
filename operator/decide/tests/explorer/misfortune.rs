//! What befalls the world.

use understudy_decide::failover::snapshot::{Kind, Mode, Request};
use understudy_wire::evidence::Millis;
use understudy_wire::{Epoch, ReplicaName};

use super::cluster::Process;
use super::evidence::Lie;
use super::operator::Asleep;
use super::script::Misfortune;
use super::verb::Verb;
use super::world::{BEGUN, World};

/// Whoever is in office, in a script that was made by hand.
const PRIMARY: &str = "primary";

impl World {
    /// What befalls the world in this turn: drawn, unless the script has it already.
    pub fn misfortune(&mut self) {
        let at = self.now - BEGUN;
        if let Some(mut fate) = self.fate.take() {
            let drawn = if self.script.benign { self.draw_benign(&mut fate, at) } else { self.draw(&mut fate, at) };
            self.script.misfortunes.extend(drawn);
            self.fate = Some(fate);
        }
        while let Some(next) = self.script.misfortunes.get(self.befallen).filter(|next| next.at <= at).cloned() {
            self.befallen += 1;
            self.say(|| next.to_string());
            self.befall(&next);
        }
    }

    fn befall(&mut self, misfortune: &Misfortune) {
        let Misfortune { verb, about, amount, .. } = misfortune;
        let amount = amount.unwrap_or(0);
        let word = about.as_deref().unwrap_or_default();
        let (replica, node) = match word {
            "" => (None, None),
            PRIMARY => (self.status.primary.clone(), self.node_of_primary()),
            _ => (Some(ReplicaName::new(word)), self.nodes.iter().position(|node| node.name == word)),
        };
        match verb {
            Verb::NodeDown => node.into_iter().for_each(|node| self.nodes[node].up = false),
            Verb::NodeUp => node.into_iter().for_each(|node| self.node_back(node)),
            Verb::Cut | Verb::Join => {
                node.into_iter().for_each(|node| self.nodes[node].cut = *verb == Verb::Cut);
            }
            Verb::Blackout => {
                let names: Vec<_> = self.replicas.keys().cloned().collect();
                names.iter().for_each(|name| self.end_pod(name));
            }
            Verb::OperatorDies if self.operator.is_some() => {
                self.counts.crashes += 1;
                self.operator = None;
                self.operator_back = self.now + amount;
            }
            Verb::OperatorSleeps => self.operator_sleeps(amount),
            Verb::Ask | Verb::Insist => {
                let name = format!("request-{}", self.now);
                let kind = if *verb == Verb::Ask { Kind::Switchover } else { Kind::Failover };
                self.requests.push(Request { name, kind, target: replica, age: 0 });
            }
            Verb::StallNode => node.into_iter().for_each(|node| self.stall_node(node, amount)),
            Verb::Doze => self.doze(word, amount),
            Verb::Sever => self.severed.extend(places(word)),
            Verb::Mend => {
                let mended = places(word);
                self.severed.retain(|pair| Some(pair) != mended.as_ref());
            }
            Verb::Lie => self.liar = Some((word.to_owned(), Lie::Dead)),
            Verb::Flatter => self.liar = Some((word.to_owned(), Lie::Well)),
            Verb::Honest => self.liar = None,
            Verb::Roll => {
                let back_at = self.now + amount;
                let rolled = self.consumers.iter_mut().filter(|consumer| consumer.pod == word);
                rolled.for_each(|consumer| consumer.roll(back_at));
            }
            Verb::SlowAll => self.slow = amount,
            Verb::Load => self.load = amount,
            Verb::Mode => self.mode = mode_of(word),
            Verb::Fleet => {
                let count = usize::try_from(amount).expect("small").min(self.script.shards.saturating_sub(1));
                match word {
                    "slow" => self.others.slow = count,
                    "partitioned" => self.others.partitioned = count,
                    _ => self.others.suspect = count,
                }
            }
            Verb::Want => self.wanted = usize::try_from(amount).expect("small"),
            Verb::Drop => self.earliest = self.earliest.max(i64::try_from(amount).expect("an offset")),
            Verb::OperatorDies => {}
            Verb::Evict => replica.iter().for_each(|replica| self.end_pod(replica)),
            _ => replica.iter().for_each(|replica| self.befall_replica(replica, *verb, amount)),
        }
    }

    fn befall_replica(&mut self, name: &ReplicaName, verb: Verb, amount: u64) {
        let now = self.now;
        let Some(rep) = self.replicas.get_mut(name) else { return };
        if verb == Verb::Delete {
            rep.pod = None;
            return;
        }
        if let Some(disk) = &mut rep.disk {
            match verb {
                Verb::FailVolume => disk.fails = true,
                Verb::RepairVolume => disk.fails = false,
                Verb::Slow => disk.slow = amount,
                Verb::Fill => {
                    disk.filled = if amount < disk.free { Some(now) } else { disk.filled };
                    disk.free = amount;
                }
                _ => {}
            }
        }
        let Some(pod) = &mut rep.pod else { return };
        let running = pod.process == Process::Running;
        match verb {
            Verb::Kill if running || matches!(pod.process, Process::Starting { .. }) => {
                pod.process = Process::Exited { at: now };
            }
            Verb::Freeze => (pod.frozen, pod.frozen_until) = (running, None),
            Verb::Thaw => (pod.frozen, pod.frozen_until) = (false, None),
            // One that is frozen for good does not go on by itself.
            Verb::Pause if running && (!pod.frozen || pod.frozen_until.is_some()) => {
                let until = pod.frozen_until.unwrap_or(0).max(now + amount);
                (pod.frozen, pod.frozen_until) = (true, Some(until));
                self.still_until = self.still_until.max(until);
            }
            Verb::Deadlock => pod.deadlocked = running,
            Verb::Release => pod.deadlocked = false,
            Verb::Lock if running => pod.locked_until = Some(now + amount),
            Verb::Stop => {
                pod.terminating_at = Some(now);
                self.offices.drained.insert(name.clone(), now);
            }
            Verb::Hang => rep.disk.iter_mut().for_each(|disk| disk.hangs = Some(now)),
            Verb::Unhang => rep.disk.iter_mut().for_each(|disk| disk.hangs = None),
            Verb::Lag => pod.lags = Some(now),
            Verb::CatchUp => pod.lags = None,
            Verb::Corrupt => pod.broken = true,
            Verb::Restart if running => {
                // A reboot of the pod: the data stays, the manager forgets what only it knew.
                pod.process = Process::Starting { until: now + 1_500 };
                (pod.frozen, pod.frozen_until) = (false, None);
                pod.read_only = true;
                pod.peers = None;
                pod.fenced = None;
                pod.known =
                    rep.disk.as_ref().and_then(|d| d.data.as_ref()?.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
            }
            _ => {}
        }
    }

    /// The operator is paused after it has decided; whoever begins in its place does not wait for it.
    fn operator_sleeps(&mut self, millis: Millis) {
        if self.asleep.is_some() {
            return;
        }
        let Some(mut operator) = self.operator.take() else { return };
        operator.listen(self);
        let (decision, snapshot) = operator.decide(self);
        self.counts.sleepers += 1;
        self.asleep = Some(Asleep { until: self.now + millis, operator, decision, snapshot });
        self.operator_back = self.now;
    }

    fn end_pod(&mut self, name: &ReplicaName) {
        let now = self.now;
        if let Some(pod) = self.replicas.get_mut(name).and_then(|rep| rep.pod.as_mut()) {
            pod.ended = true;
            (pod.frozen, pod.frozen_until) = (false, None);
            pod.process = Process::Exited { at: now };
            pod.probe = None;
        }
    }

    pub fn node_back(&mut self, at: usize) {
        if self.nodes[at].up {
            return;
        }
        self.nodes[at].up = true;
        let now = self.now;
        for rep in self.replicas.values_mut() {
            let Some(pod) = rep.pod.as_mut().filter(|pod| pod.node == at && !pod.ended) else { continue };
            (pod.frozen, pod.frozen_until) = (false, None);
            pod.read_only = true;
            pod.peers = None;
            pod.fenced = None;
            pod.probe = None;
            let data = rep.disk.as_ref().and_then(|disk| disk.data.as_ref());
            pod.known = data.and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
            let built = data.is_some();
            if let Process::Building { .. } = pod.process
                && let Some(disk) = &mut rep.disk
            {
                disk.unusable = true;
            }
            pod.process = if built { Process::Starting { until: now + 2_000 } } else { Process::None };
        }
    }
}

/// The place and the node of `PLACE/NODE`.
fn places(word: &str) -> Option<(String, String)> {
    let (place, node) = word.split_once('/')?;
    Some((place.to_owned(), node.to_owned()))
}

fn mode_of(word: &str) -> Mode {
    [Mode::Manual, Mode::Paused].into_iter().find(|mode| mode.to_string() == word).unwrap_or_default()
}
