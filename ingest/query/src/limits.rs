//! What one request and all of them together may cost. Pure.

use std::time::Duration;

/// All limits of the service. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body of a request as it is sent.
    pub request_bytes: usize,
    /// The largest body of a remote read once unpacked. Empty parts of a message cost two bytes here and a hundred in
    /// memory, so this stays small; a selection needs little.
    pub unpacked_bytes: usize,
    /// The most selections in a request.
    pub selections: usize,
    /// The most matchers in a selection.
    pub matchers: usize,
    /// The most patterns in all selections of a request, lists of values not counted: those only take memory. Each takes
    /// [`COMPILED_BYTES`](understudy_store::matcher::COMPILED_BYTES).
    pub patterns: usize,
    /// The longest selector, label name or pattern.
    pub text_bytes: usize,
    /// The most series that a request may find.
    pub series: usize,
    /// The most samples that a request may find.
    pub samples: usize,
    /// The largest answer before it is packed.
    pub answer_bytes: usize,
    /// The memory that patterns, series and samples of all requests together may take, and answers until they are sent.
    pub memory_bytes: usize,
    /// Requests of one tenant at once, until their answers are sent.
    pub tenant_requests: usize,
    /// How long a request may wait for those of its tenant before it.
    pub tenant_wait: Duration,
    /// How long a server may take to accept, log in and say its epoch.
    pub begin: Duration,
    /// The same for a primary that is asked once more because no standby can answer in its place.
    pub begin_at_last: Duration,
    /// How long a statement may run in MySQL.
    pub statement: Duration,
    /// How long a server may take for all it is asked.
    pub run: Duration,
    /// How long all shards together may take.
    pub request: Duration,
    /// How far behind a standby may be that answers in place of its primary.
    pub standby_behind: Duration,
    /// How long a primary that did not answer is not asked first.
    pub shun: Duration,
    /// How long a connection to a server is kept for the next request.
    pub idle: Duration,
    /// How long a client may take for its headers; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a client may take for its body.
    pub body_timeout: Duration,
    /// How long a client may take to read its answer, which keeps its memory and its place until then.
    pub send_timeout: Duration,
    /// The most connections at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 256 << 10,
            unpacked_bytes: 256 << 10,
            selections: 64,
            matchers: 64,
            patterns: 16,
            text_bytes: 64 << 10,
            series: 100_000,
            samples: 2_000_000,
            answer_bytes: 128 << 20,
            memory_bytes: 512 << 20,
            tenant_requests: 16,
            tenant_wait: Duration::from_secs(2),
            begin: Duration::from_millis(500),
            begin_at_last: Duration::from_secs(5),
            statement: Duration::from_secs(10),
            run: Duration::from_secs(12),
            request: Duration::from_secs(15),
            standby_behind: Duration::from_secs(300),
            shun: Duration::from_secs(1),
            idle: Duration::from_secs(60),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(10),
            // A Prometheus gives up after a minute by itself.
            send_timeout: Duration::from_secs(60),
            connections: 1024,
        }
    }
}
