//! Pauses that end by themselves: of a server, of a whole machine, of an observer; and locks that somebody gives back.

use understudy_wire::evidence::Millis;

use super::world::World;

/// What an observer tells every so often.
pub const INTERVAL: Millis = 250;
/// For how long an observer tells of a gap in its loop.
const TOLD_FOR: Millis = 5_000;

/// The loop of an observer, which stands still now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rhythm {
    /// Since when and until when it stands still.
    still: Option<(Millis, Millis)>,
    /// When it last went on, and how long it had stood still.
    gap: Option<(Millis, Millis)>,
}

impl Rhythm {
    pub fn stand_still(&mut self, now: Millis, millis: Millis) {
        let (since, until) = self.still.unwrap_or((now, now));
        self.still = Some((since, until.max(now + millis)));
    }

    pub fn turns(&self) -> bool {
        self.still.is_none()
    }

    /// When it last went on, if it ever stood still.
    pub fn woke(&self) -> Option<Millis> {
        self.gap.map(|(woke, _)| woke)
    }

    fn go_on(&mut self, now: Millis) {
        if let Some((since, _)) = self.still.take_if(|(_, until)| *until <= now) {
            self.gap = Some((now, now - since));
        }
    }

    /// The longest gap of the last seconds, as the observer tells it.
    pub fn own_gap(&self, now: Millis) -> Millis {
        let recent = self.gap.filter(|(woke, _)| now - woke < TOLD_FOR);
        recent.map_or(INTERVAL, |(_, long)| long.max(INTERVAL))
    }
}

impl World {
    /// What ends by itself ends.
    pub fn wake(&mut self) {
        let now = self.now;
        for node in &mut self.nodes {
            node.stalls = node.stalls.filter(|until| *until > now);
        }
        for pod in self.replicas.values_mut().filter_map(|rep| rep.pod.as_mut()) {
            pod.rhythm.go_on(now);
            if pod.frozen_until.take_if(|until| *until <= now).is_some() {
                pod.frozen = false;
            }
            pod.locked_until = pod.locked_until.filter(|until| *until > now);
        }
        for consumer in &mut self.consumers {
            consumer.rhythm.go_on(now);
            consumer.away_until = consumer.away_until.filter(|until| *until > now);
        }
    }

    /// A machine stands still, and whatever runs on it.
    pub fn stall_node(&mut self, at: usize, millis: Millis) {
        let now = self.now;
        let until = self.nodes[at].stalls.unwrap_or(0).max(now + millis);
        self.nodes[at].stalls = Some(until);
        for pod in self.replicas.values_mut().filter_map(|rep| rep.pod.as_mut()).filter(|pod| pod.node == at) {
            pod.rhythm.stand_still(now, millis);
        }
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.node == Some(at)) {
            consumer.rhythm.stand_still(now, millis);
        }
        self.still_until = self.still_until.max(now + millis);
    }

    /// The loop of an observer stands still: of a replica's manager, or of a consumer.
    pub fn doze(&mut self, observer: &str, millis: Millis) {
        let now = self.now;
        for (_, rep) in self.replicas.iter_mut().filter(|(name, _)| name.as_str() == observer) {
            rep.pod.iter_mut().for_each(|pod| pod.rhythm.stand_still(now, millis));
        }
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.pod == observer) {
            consumer.rhythm.stand_still(now, millis);
        }
        self.still_until = self.still_until.max(now + millis);
    }
}
