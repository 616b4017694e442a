//! `kubectl get --watch` as a stream of objects. One child process and one thread a watch; both end with the value.

use std::io::BufReader;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::access::Access;

/// What happened to one object, and when this machine heard of it.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it was read from the stream.
    pub at: Instant,
    /// Whether the object is gone.
    pub deleted: bool,
    /// The object.
    pub object: Value,
}

/// Several kinds of one namespace, watched at once.
#[derive(Debug)]
pub struct Watches {
    children: Vec<Child>,
    threads: Vec<JoinHandle<()>>,
    events: Option<Receiver<Event>>,
}

impl Watches {
    /// Begins with every object there is.
    pub fn start(access: &Access, namespace: &str, kinds: &[&str]) -> Result<Self> {
        let (sender, events) = sync_channel(1024);
        let mut watches = Self { children: Vec::new(), threads: Vec::new(), events: Some(events) };
        for kind in kinds {
            let mut command =
                access.kubectl(&["get", "-n", namespace, kind, "--watch", "--output-watch-events", "-o", "json"]);
            let mut child =
                command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot run `kubectl`")?;
            let out = child.stdout.take().expect("stdout was asked for");
            let sender = sender.clone();
            watches.children.push(child);
            watches.threads.push(std::thread::spawn(move || forward(BufReader::new(out), &sender)));
        }
        Ok(watches)
    }

    /// The next event within `limit`; `None` when there is none.
    pub fn next(&self, limit: Duration) -> Result<Option<Event>> {
        let events = self.events.as_ref().context("the watches were stopped")?;
        match events.recv_timeout(limit) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("kubectl ended its watches"),
        }
    }
}

/// Ends when the program does, or when nobody listens any more.
fn forward(out: impl std::io::Read, sender: &SyncSender<Event>) {
    for value in serde_json::Deserializer::from_reader(out).into_iter::<Value>() {
        let Ok(mut value) = value else { return };
        let event = Event { at: Instant::now(), deleted: value["type"] == "DELETED", object: value["object"].take() };
        if sender.send(event).is_err() {
            return;
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        // Threads that wait to send must learn that nobody listens.
        self.events = None;
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_told_apart_without_separators() {
        let (sender, events) = sync_channel(8);
        let text = "{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n{\"type\":\"DELETED\",\"object\":{\"a\":2}}{\"type\":";
        forward(text.as_bytes(), &sender);
        drop(sender);
        let all: Vec<_> = events.into_iter().map(|e| (e.deleted, e.object["a"].clone())).collect();
        assert_eq!(all, [(false, 1.into()), (true, 2.into())]);
    }
}
