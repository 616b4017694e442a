//! What the operator hears: reports, some of which get lost on the way, and what a liar makes of them.

use understudy_decide::OrderKind;
use understudy_decide::failover::snapshot::OrderOutcome;
use understudy_wire::evidence::Millis;
use understudy_wire::{Evidence, Observer, ReplicaName, Report};

use super::cluster::NodeW;
use super::consumers::ConsumerW;
use super::evidence::{report, server, twist};
use super::network::OPERATOR;
use super::operator::Operator;
use super::pauses::INTERVAL;
use super::watch::Watch;
use super::world::World;

/// Turns for which a cache may be behind.
const BEHIND: usize = 4;

impl Operator {
    /// Takes in reports, some of which get lost on the way.
    pub fn listen(&mut self, world: &mut World) {
        let now = world.now;
        self.connected.clear();
        let mut reports = self.managers(world);
        reports.extend(consumers(world));
        if let Some(primary) = &world.status.primary {
            self.own.retain(|name, _| name == primary);
            let outcome = world.try_commit(primary, OPERATOR);
            self.own.entry(primary.clone()).or_default().saw(now, outcome);
        }
        let seen = self.own.iter().map(|seen| about(seen, now)).collect();
        let observer = Observer::Operator { pod: "understudy-0".into() };
        reports.push(("operator".into(), report(observer, INTERVAL, seen), Some("elsewhere".into())));
        for (key, mut report, node) in reports {
            if let (Some((liar, lie)), Some(primary)) = (&world.liar, &world.status.primary)
                && *liar == key
            {
                twist(&mut report, primary, *lie);
            }
            // Part of the status of a replica as soon as it is heard.
            let uuids = report.evidence.iter().filter_map(|e| Some((&e.subject, e.server.as_ref()?.uuid.as_ref()?)));
            let known: Vec<_> = uuids.map(|(name, _)| name.clone()).collect();
            let may_be_lost = world.faults && !world.script.benign;
            if !(may_be_lost && world.random.one_in(12)) {
                known.iter().for_each(|name| world.replicas.get_mut(name).expect("it was heard").is_known = true);
                self.heard.insert(key, (report, now, node));
            }
        }
        let connected = &self.connected;
        self.peers.retain(|name, (pod, _)| connected.get(name) == Some(pod));
        for (kind, sent) in &mut self.orders {
            let deadline = if kind.1 == OrderKind::Promote { 6_000 } else { 3_000 };
            if sent.outcome == OrderOutcome::InFlight && now - sent.at > deadline {
                sent.outcome = OrderOutcome::Failed("no answer".into());
            }
        }
        self.cached.push(world.replicas.clone());
        if self.cached.len() > BEHIND {
            self.cached.remove(0);
        }
    }

    /// Of the managers that are connected those whose loop turns say what they see.
    fn managers(&mut self, world: &World) -> Vec<Heard> {
        let now = world.now;
        let cut = |node: &NodeW| !node.up || node.cut;
        let mut reports = Vec::new();
        for (name, rep) in &world.replicas {
            let Some(pod) = rep.pod.as_ref().filter(|pod| !pod.ended && !cut(&world.nodes[pod.node])) else { continue };
            // A connection outlives a pause.
            self.connected.insert(name.clone(), pod.uid.clone());
            if !pod.rhythm.turns() {
                continue;
            }
            let source = pod.source.as_ref().and_then(|(source, _)| world.replicas.get(source)?.pod.as_ref());
            let node = &world.nodes[pod.node].name;
            let receives = source.is_none_or(|source| !world.is_severed(node, source.node));
            let server = Some(server(now, name, rep, pod, world.slow, receives));
            let mut evidence = vec![Evidence { subject: name.clone(), probe: None, server }];
            match &pod.probe {
                Some((head, watch)) if head == name => evidence[0].probe = Some(watch.probe(now)),
                Some((head, watch)) => evidence.push(about((head, watch), now)),
                None => {}
            }
            let observer = Observer::Manager { replica: name.clone() };
            reports.push((name.to_string(), report(observer, pod.rhythm.own_gap(now), evidence), Some(node.clone())));
        }
        reports
    }
}

/// By whom, what and from which node.
type Heard = (String, Report, Option<String>);

fn consumers(world: &World) -> Vec<Heard> {
    let one = |consumer: &ConsumerW| {
        let evidence = consumer.watch.iter().map(|seen| about(seen, world.now)).collect();
        let observer = Observer::Consumer { pod: consumer.pod.clone() };
        let node = consumer.node.map_or("outside", |node| world.nodes[node].name.as_str());
        let report = report(observer, consumer.rhythm.own_gap(world.now), evidence);
        (consumer.pod.clone(), report, Some(node.to_owned()))
    };
    world.consumers.iter().filter(|consumer| world.is_heard(consumer)).map(one).collect()
}

fn about((name, watch): (&ReplicaName, &Watch), now: Millis) -> Evidence {
    Evidence { subject: name.clone(), probe: Some(watch.probe(now)), server: None }
}
