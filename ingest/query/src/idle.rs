//! Connections kept for the next request. Pure: what time it is and which servers there are are arguments.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Connections kept per server.
const KEPT: usize = 8;

/// Connections that nobody uses, each with the time since when.
#[derive(Debug)]
pub struct Idle<C> {
    by_server: HashMap<SocketAddr, Vec<(C, Instant)>>,
    most: Duration,
}

impl<C> Idle<C> {
    /// None yet. A connection is kept for less than `most`: one that was idle for longer may have been closed at the other end.
    pub fn new(most: Duration) -> Self {
        Self { by_server: HashMap::new(), most }
    }

    /// The connection to a server that was used last, unless that was too long ago.
    pub fn take(&mut self, server: SocketAddr, now: Instant) -> Option<C> {
        let (connection, since) = self.by_server.get_mut(&server)?.pop()?;
        (now.duration_since(since) < self.most).then_some(connection)
    }

    /// Keeps a connection, unless there are enough.
    pub fn keep(&mut self, server: SocketAddr, connection: C, now: Instant) {
        let kept = self.by_server.entry(server).or_default();
        if kept.len() < KEPT {
            kept.push((connection, now));
        }
    }

    /// Drops all connections to a server: what became of one while it was idle became of the others.
    pub fn forget(&mut self, server: SocketAddr) {
        self.by_server.remove(&server);
    }

    /// Drops what was idle for too long, and what is to servers that are not among these.
    pub fn tidy(&mut self, servers: &BTreeSet<SocketAddr>, now: Instant) {
        self.by_server.retain(|server, kept| {
            kept.retain(|(_, since)| now.duration_since(*since) < self.most);
            servers.contains(server) && !kept.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(60);

    fn server(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 3306).into()
    }

    /// The connections that are kept, in order of the servers.
    fn kept(idle: &Idle<&'static str>) -> Vec<&'static str> {
        let mut servers: Vec<_> = idle.by_server.iter().collect();
        servers.sort_by_key(|(server, _)| **server);
        servers.into_iter().flat_map(|(_, kept)| kept.iter().map(|(connection, _)| *connection)).collect()
    }

    #[test]
    fn the_connection_used_last_is_taken_while_it_is_young() {
        let (mut idle, began) = (Idle::new(MOST), Instant::now());
        idle.keep(server(1), "first", began);
        idle.keep(server(1), "second", began + MOST / 2);
        assert_eq!(idle.take(server(2), began), None);
        assert_eq!(idle.take(server(1), began + MOST), Some("second"));
        assert_eq!(idle.take(server(1), began + MOST), None, "the first is too old");
        assert_eq!(kept(&idle), [""; 0]);
    }

    #[test]
    fn connections_to_servers_that_are_gone_and_those_too_old_are_dropped() {
        let (mut idle, began) = (Idle::new(MOST), Instant::now());
        for (last, connection, at) in [(1, "old", 0), (1, "young", 30), (2, "replaced", 30), (3, "old too", 0)] {
            idle.keep(server(last), connection, began + Duration::from_secs(at));
        }
        let servers = BTreeSet::from([server(1), server(3), server(4)]);
        idle.tidy(&servers, began + Duration::from_secs(59));
        assert_eq!(kept(&idle), ["old", "young", "old too"]);
        idle.tidy(&servers, began + MOST);
        assert_eq!(kept(&idle), ["young"]);
        idle.tidy(&BTreeSet::new(), began + MOST);
        assert!(idle.by_server.is_empty());
    }

    #[test]
    fn of_one_server_there_are_only_so_many_and_all_are_forgotten_at_once() {
        let (mut idle, now) = (Idle::new(MOST), Instant::now());
        for _ in 0..KEPT + 1 {
            idle.keep(server(1), "one", now);
            idle.keep(server(2), "other", now);
        }
        idle.forget(server(1));
        assert_eq!(kept(&idle), ["other"; KEPT]);
    }
}
