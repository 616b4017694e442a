//! Plain HTTP for the kubelet and Prometheus: `/livez`, `/readyz`, `/metrics`; `operator/docs/metrics.md` has the table. I/O.
//!
//! Alive means that the manager's own loop turns; mysqld has no part in it, because a sick database must never get its pod
//! restarted. Ready means that mysqld answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use understudy_wire::Report;
use understudy_wire::evidence::{Phase, Pressure, PressureOf, Server};

use crate::facts::{Life, Sources};

/// The manager's own loop may stand still for this long before the kubelet may restart it.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
const READY_WITHIN: Duration = Duration::from_secs(3);

/// What the routes need.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Everything a report is made of.
    pub sources: Sources,
    /// Log lines that were dropped.
    pub dropped_lines: Arc<AtomicU64>,
}

/// All routes.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn livez(State(admin): State<Admin>) -> Response {
    let gap = admin.sources.shared.own_gap(Instant::now());
    let status = if gap < ALIVE_WITHIN { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, format!("longest pause of the loop lately: {gap:?}\n")).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let ready = admin.sources.shared.read(|facts| {
        let answered = facts.status.as_ref().is_some_and(|(at, _)| at.elapsed() < READY_WITHIN);
        facts.life == Life::Running && answered && !facts.stopping
    });
    if ready {
        (StatusCode::OK, "mysqld answers\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "mysqld does not answer\n").into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    let registry = registry(&admin.sources.report(), admin.dropped_lines.load(Ordering::Relaxed));
    match encode(&mut text, &registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// Made anew from a report for each scrape, so that it says what the evidence says.
fn registry(report: &Report, dropped_lines: u64) -> Registry {
    let mut registry = Registry::with_prefix("understudy_instance");
    let mut put = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        }
    };
    let seconds = |millis: u64| millis as f64 / 1000.0;
    let flag = |holds: bool| Some(f64::from(u8::from(holds)));
    put("own_gap_seconds", "Longest pause of the manager's own loop over the last 5 s", Some(seconds(report.own_gap)));
    put("dropped_log_lines", "Log lines dropped because nobody read them", Some(dropped_lines as f64));
    let own = report.evidence.first();
    if let Some(probe) = own.and_then(|e| e.probe.as_ref()) {
        put(
            "probe_commit_age_seconds",
            "Time since the last committed probe through the clients' port",
            probe.committed.map(seconds),
        );
        put("probe_commit_seconds", "Duration of the last committed probe", probe.commit_took.map(seconds));
        put("probe_failing", "Whether probes fail now", flag(probe.failing.is_some()));
    }
    let Some(server) = own.and_then(|e| e.server.as_ref()) else { return registry };
    put("up", "Whether mysqld runs and answers", flag(matches!(server.phase, Phase::Running)));
    put("epoch", "Highest epoch heard of", Some(server.epoch.0 as f64));
    put(
        "serving_epoch",
        "The epoch under which writes are taken; absent while they are not",
        server.serving.map(|e| e.0 as f64),
    );
    put("fenced", "Whether a fence holds", flag(server.fenced.is_some()));
    put("threads_in_uninterruptible_sleep", "mysqld's threads in state D", Some(f64::from(server.threads_in_d)));
    put_rest(&mut put, server, seconds, flag);
    if let Some(pressure) = &server.pressure {
        let help = "Share of the last ten seconds in which tasks waited, 0 to 1";
        registry.register("pressure_ratio", help, waited(pressure));
    }
    registry
}

/// Who waited for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    resource: &'static str,
    tasks: &'static str,
    of: &'static str,
}

fn waited(pressure: &Pressure) -> Family<Waited, Gauge<f64, AtomicU64>> {
    let family = Family::<Waited, Gauge<f64, AtomicU64>>::default();
    let of = match pressure.of {
        PressureOf::Container => "container",
        PressureOf::Node => "node",
        PressureOf::Unknown => return family,
    };
    for (resource, stall) in [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)] {
        let Some(stall) = stall else { continue };
        for (tasks, per_cent) in [("some", stall.some), ("full", stall.full)] {
            family.get_or_create(&Waited { resource, tasks, of }).set(per_cent / 100.0);
        }
    }
    family
}

fn put_rest(
    put: &mut impl FnMut(&str, &str, Option<f64>),
    server: &Server,
    seconds: impl Fn(u64) -> f64,
    flag: impl Fn(bool) -> Option<f64>,
) {
    if let Some(replication) = server.replication.as_ref().map(|r| &r.value) {
        put("replication_receiving", "Whether the receiver is connected", flag(replication.receiving));
        put("replication_applying", "Whether the applier runs", flag(replication.applying));
        put("replication_delay_seconds", "How far the applier is behind the source", replication.delay.map(&seconds));
    }
    if let Some(fsync) = &server.fsync {
        put("fsync_age_seconds", "Time since the last fsync of the volume", fsync.succeeded.map(&seconds));
        put("fsync_seconds", "Duration of the last fsync of the volume", fsync.took.map(&seconds));
        put("fsync_in_flight_seconds", "How long the present fsync has taken", fsync.in_flight.map(&seconds));
    }
    if let Some(volume) = server.volume {
        put("volume_bytes", "Size of the volume", Some(volume.total as f64));
        put("volume_free_bytes", "Space left on the volume", Some(volume.free as f64));
    }
    if let Some(build) = &server.build {
        put("build_done_bytes", "Bytes copied by the build", Some(build.done as f64));
        put("build_total_bytes", "Bytes to copy by the build, estimated", Some(build.total as f64));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    /// One that knows everything there is to know, of a server that does everything at once.
    fn report() -> Report {
        serde_json::from_value(json!({
            "observer": { "kind": "manager", "replica": "m-0-a" }, "seq": 1, "ownGap": 260, "interval": 250,
            "evidence": [{
                "subject": "m-0-a",
                "probe": { "committed": 100, "commitTook": 3 },
                "server": {
                    "phase": { "is": "running" }, "epoch": 4, "serving": 4,
                    "replication": { "age": 50, "value": {
                        "receiving": true, "applying": true, "received": "", "delay": 0,
                    }},
                    "fsync": { "succeeded": 100, "took": 2, "inFlight": 5 },
                    "volume": { "total": 100, "free": 50 },
                    "build": { "stage": "FILE COPY", "done": 1, "total": 2 },
                    "pressure": { "of": "node", "io": { "some": 97.5, "full": 90.0 } },
                },
            }],
        }))
        .unwrap()
    }

    #[test]
    fn pressure_is_told_as_a_share_by_what_was_waited_for() {
        let mut text = String::new();
        encode(&mut text, &registry(&report(), 0)).unwrap();
        let told: BTreeSet<_> = text.lines().filter(|line| line.starts_with("understudy_instance_pressure")).collect();
        let expected = [
            r#"understudy_instance_pressure_ratio{resource="io",tasks="some",of="node"} 0.975"#,
            r#"understudy_instance_pressure_ratio{resource="io",tasks="full",of="node"} 0.9"#,
        ];
        assert_eq!(told, BTreeSet::from(expected));
    }

    #[test]
    fn the_table_has_every_metric_of_the_instance_manager_and_no_other() {
        let mut text = String::new();
        encode(&mut text, &registry(&report(), 0)).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let rendered: BTreeSet<_> = types.map(|(name, kind)| format!("{name} {kind}")).collect();
        let rows = include_str!("../../docs/metrics.md").lines();
        let rows = rows.filter_map(|line| line.strip_prefix("| `understudy_instance_")?.split_once("` | "));
        let kind = |rest: &str| rest.split(" |").next().unwrap_or_default().to_owned();
        let table: BTreeSet<_> =
            rows.map(|(name, rest)| format!("understudy_instance_{name} {}", kind(rest))).collect();
        assert_eq!(rendered, table);
    }
}
