//! Whatever thresholds of detection may be set, a primary that is dead is called so: each signature ripens, and stays ripe, in a simulated run of
//! attempts at that pace and with those deadlines. And the page that says what each of them trades says what the types say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../decide/tests/support/mod.rs"]
mod scene;
mod support;

use proptest::prelude::*;
use scene::{Scene, commits, consumer, lock_wait, manager, name, no_connection_left, operator};
use serde_json::{Value, json};
use support::Base;
use understudy_api::v1alpha1::Detection;
use understudy_decide::{Cause, Verdict, assess};
use understudy_wire::evidence::*;

/// A second for which a probe waits for a lock.
const LOCK_WAIT: Millis = 1_000;
/// What a commit gets at the least, whatever was asked for.
const LEAST_COMMIT: Millis = 1_250;
/// A report comes this often when nothing makes it come at once.
const TOLD_EVERY: Millis = 250;

fn schema() -> &'static Value {
    let spec = &support::schema(Base::Shard)["properties"]["spec"];
    &spec["properties"]["failover"]["properties"]["detection"]
}

/// Whether the API server lets it in.
fn is_allowed(detection: &Value) -> bool {
    let is_within = schema()["properties"].as_object().unwrap().iter().all(|(name, field)| {
        let (value, bound) = (detection[name].as_f64().unwrap(), |of: &str| field[of].as_f64().unwrap());
        bound("minimum") <= value && value <= bound("maximum")
    });
    is_within && kube::core::cel::Validator::new().validate_with_defaults(schema(), detection, None).is_ok()
}

fn ms(of: i32) -> Millis {
    Millis::try_from(of).unwrap()
}

/// What befalls a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Emptied,
    ErrorsOfTheVolume,
    FullVolume,
    CameBackReadOnly,
    PodStops,
    NodeLost,
    SeenStopped,
    GreetsNobody,
    VolumeHangs,
    VolumeHangsBehindLocks,
    AnswersNoSelect,
    EndsNoCommit,
    HangsAndIsFull,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::Killed,
        Self::Emptied,
        Self::ErrorsOfTheVolume,
        Self::FullVolume,
        Self::CameBackReadOnly,
        Self::PodStops,
        Self::NodeLost,
        Self::SeenStopped,
        Self::GreetsNobody,
        Self::VolumeHangs,
        Self::VolumeHangsBehindLocks,
        Self::AnswersNoSelect,
        Self::EndsNoCommit,
        Self::HangsAndIsFull,
    ];

    fn verdict(self) -> Verdict {
        match self {
            Self::Killed => Verdict::Gone(Cause::ProcessExited),
            Self::Emptied => Verdict::Gone(Cause::DataLost),
            Self::ErrorsOfTheVolume => Verdict::Stuck(Cause::VolumeFailed),
            Self::FullVolume => Verdict::Stuck(Cause::VolumeFull),
            Self::CameBackReadOnly => Verdict::Gone(Cause::Restarted),
            Self::PodStops => Verdict::Gone(Cause::PodStopped),
            Self::NodeLost => Verdict::Gone(Cause::Unreachable),
            Self::SeenStopped | Self::GreetsNobody => Verdict::Stuck(Cause::Stopped),
            Self::VolumeHangs | Self::VolumeHangsBehindLocks => Verdict::Stuck(Cause::VolumeStalled),
            Self::AnswersNoSelect | Self::EndsNoCommit | Self::HangsAndIsFull => Verdict::Stuck(Cause::Deadlocked),
        }
    }

    /// How an attempt at it ends: where, how, and after how long.
    fn ends(self, pace: Pace) -> (Stage, ProbeError, Millis) {
        let refused = ProbeError::Refused { message: "connection refused".into() };
        match self {
            Self::Killed | Self::Emptied | Self::PodStops => (Stage::Tcp, refused, 0),
            Self::NodeLost => (Stage::Tcp, ProbeError::Timeout, pace.stage),
            Self::SeenStopped | Self::GreetsNobody => (Stage::Greeting, ProbeError::Timeout, pace.stage),
            Self::AnswersNoSelect => (Stage::Select, ProbeError::Timeout, pace.stage),
            Self::CameBackReadOnly => (Stage::Commit, ProbeError::ReadOnly, 0),
            Self::VolumeHangsBehindLocks => (Stage::Commit, lock_wait(), LOCK_WAIT),
            Self::HangsAndIsFull => (Stage::Auth, no_connection_left(), 0),
            Self::ErrorsOfTheVolume | Self::FullVolume | Self::VolumeHangs | Self::EndsNoCommit => {
                (Stage::Commit, ProbeError::Timeout, pace.commit)
            }
        }
    }
}

/// How observers probe.
#[derive(Clone, Copy, Debug)]
struct Pace {
    every: Millis,
    stage: Millis,
    commit: Millis,
}

impl Pace {
    fn of(detection: &Detection) -> Self {
        Self {
            every: ms(detection.probe_interval_ms),
            stage: ms(detection.stage_deadline_ms),
            commit: ms(detection.commit_deadline_ms).max(LEAST_COMMIT),
        }
    }

    /// What an observer tells so long after the fault, and the age of that; `first`: when it began its first attempt after it.
    fn told(self, at: Millis, first: Millis, (stage, error, takes): (Stage, ProbeError, Millis)) -> (Probe, Millis) {
        // Silences are told at once, everything else with the next report.
        let begins_every = self.every.max(takes);
        let report = at.saturating_sub((at + first) % TOLD_EVERY);
        let ended = |by: Millis| by.checked_sub(first + takes).map(|long| long / begins_every);
        let last = |number: Millis| first + takes + number * begins_every;
        let told = match ended(at) {
            Some(number) if error == ProbeError::Timeout => report.max(last(number)),
            _ => report,
        };
        let committed = Some(told + self.every);
        let failing = ended(told).map(|number| Failing {
            since: told - last(0),
            latest: told - last(number),
            count: u32::try_from(number + 1).unwrap_or(u32::MAX),
            stage,
            answered: None,
            unanswered: (error == ProbeError::Timeout).then(|| told - first),
            error,
        });
        let selected = if stage < Stage::Commit { committed } else { commits().selected };
        (Probe { committed, selected, failing, ..commits() }, at - told)
    }
}

/// What everybody says so long after the fault. `phases`: when each begins its first attempt after it, in parts of the interval.
fn scene_at(well: &Scene, fault: Fault, detection: &Detection, at: Millis, phases: [u8; 4]) -> Scene {
    let pace = Pace::of(detection);
    let first = |phase: u8, interval: Millis| interval * Millis::from(phase) / 256;
    let mut scene = well.clone();
    let t = &mut scene.0.policy.thresholds;
    (t.fresh, t.suspect_after) = (ms(detection.evidence_max_age_ms), ms(detection.suspect_after_ms));
    (t.gone_after, t.stuck_after) = (ms(detection.gone_after_ms), ms(detection.stuck_after_ms));
    scene.says(&consumer(), "a", Some(Probe::default()), None);
    for (observer, phase) in [manager("b"), manager("c"), operator()].into_iter().zip(phases) {
        let (probe, age) = pace.told(at, first(phase, pace.every), fault.ends(pace));
        scene.says(&observer, "a", Some(probe), None);
        scene.report(&observer).age = age;
    }
    // Its manager tells what it saw a moment ago, and nothing when its node is lost.
    let age = if fault == Fault::NodeLost { at } else { at % TOLD_EVERY };
    let seen = at - age;
    scene.report(&manager("a")).age = age;
    let (admin, admin_age) =
        pace.told(seen, first(phases[3], 4 * pace.every), (Stage::Select, ProbeError::Timeout, pace.stage));
    scene.server("a", |server| {
        let well = server.fsync.clone().unwrap();
        let still = Some(Aged { age: seen, value: 1 });
        match fault {
            Fault::Killed => server.phase = Phase::Exited { code: None, signal: Some(9), age: seen },
            Fault::Emptied => server.phase = Phase::Empty,
            Fault::ErrorsOfTheVolume => server.fsync = Some(Fsync { error: Some("EIO".into()), ..well }),
            Fault::FullVolume => server.fsync = Some(Fsync { error: Some("ENOSPC".into()), ..well }),
            Fault::CameBackReadOnly => server.read_only = Some(true),
            Fault::PodStops => server.phase = Phase::Stopping,
            Fault::NodeLost => {}
            Fault::SeenStopped => (server.process_state, server.stopped) = (Some('T'), Some(seen)),
            Fault::GreetsNobody | Fault::AnswersNoSelect | Fault::EndsNoCommit => server.lsn = still,
            Fault::VolumeHangs | Fault::VolumeHangsBehindLocks => {
                server.lsn = still;
                server.fsync = Some(Fsync { succeeded: Some(seen + 500), in_flight: Some(seen), ..well });
            }
            Fault::HangsAndIsFull => {
                server.lsn = still;
                let failing = admin.failing.map(|failing| Failing {
                    since: failing.since + admin_age,
                    latest: failing.latest + admin_age,
                    unanswered: failing.unanswered.map(|begun| begun + admin_age),
                    ..failing
                });
                server.admin = Some(Probe { committed: Some(seen + 4 * pace.every), failing, ..commits() });
            }
        }
    });
    scene
}

/// The time after which every signature has ripened: all holds, and what it takes to see and to tell of it.
fn at_the_latest(detection: &Detection) -> Millis {
    let pace = Pace::of(detection);
    let holds = ms(detection.stuck_after_ms) + 5_000 + ms(detection.gone_after_ms) + 2 * ms(detection.suspect_after_ms);
    holds + ms(detection.evidence_max_age_ms) + 5 * pace.every + 2 * pace.stage.max(pace.commit) + 1_000
}

/// Values between the bounds, the small ones as likely as the large.
fn between(field: &'static str) -> impl Strategy<Value = f64> {
    let bound = |of: &str| schema()["properties"][field][of].as_f64().unwrap().ln();
    (bound("minimum")..=bound("maximum")).prop_map(f64::exp)
}

prop_compose! {
    /// Any, and often ones that are barely allowed or barely not.
    fn detections()(
        every in between("probeIntervalMs"),
        stage in between("stageDeadlineMs"),
        commit in prop_oneof![between("commitDeadlineMs"), Just(1_000.0), Just(1_250.0), Just(1_500.0)],
        fresh in between("evidenceMaxAgeMs"),
        suspect in between("suspectAfterMs"),
        gone in between("goneAfterMs"),
        stuck in between("stuckAfterMs"),
        narrow in any::<[bool; 4]>(),
        aside in prop_oneof![Just(0.0), Just(1.0), Just(-1.0), Just(-500.0)],
    ) -> Value {
        let pick = |narrow: bool, tight: f64, free: f64| if narrow { tight + aside } else { free };
        json!({
            "probeIntervalMs": every.round() as i64,
            "stageDeadlineMs": stage.round() as i64,
            "commitDeadlineMs": commit.round() as i64,
            "evidenceMaxAgeMs": pick(narrow[0], commit.max(stage + 250.0) + 2.0 * every, fresh).round() as i64,
            "suspectAfterMs": pick(narrow[1], 2.0 * every, suspect).round() as i64,
            "goneAfterMs": pick(narrow[2], 2.0 * every, gone).round() as i64,
            "stuckAfterMs": pick(narrow[3], commit.max(2.0 * stage), stuck).round() as i64,
        })
    }
}

fn ripens(detection: &Detection, phases: [u8; 4]) -> Result<(), String> {
    let (pace, well) = (Pace::of(detection), Scene::well());
    // Over two rounds of attempts, at steps that are in step with nothing.
    let step = (pace.every.max(pace.stage).max(pace.commit) / 20).max(37) | 1;
    for fault in Fault::ALL {
        for number in 0..50 {
            let at = at_the_latest(detection) + number * step;
            let scene = scene_at(&well, fault, detection, at, phases);
            let assessment = assess(&scene.0, &name("a"));
            if assessment.verdict != fault.verdict() {
                let verdict = assessment.verdict;
                return Err(format!("{fault:?} after {at} ms is {verdict:?}: {}", assessment.message()));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_global_rejects: 65_536, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_signature_ripens_with_every_detection_that_may_be_set(detection in detections(), phases in any::<[u8; 4]>()) {
        prop_assume!(is_allowed(&detection));
        let parsed: Detection = serde_json::from_value(detection).unwrap();
        ripens(&parsed, phases).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn each_signature_ripens_at_the_defaults_and_at_the_bounds() {
    let default = serde_json::to_value(Detection::default()).unwrap();
    let with = |fields: Value| {
        let mut detection = default.clone();
        detection.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        detection
    };
    for (case, detection) in [
        ("the defaults", default.clone()),
        ("an earlier default", with(json!({"commitDeadlineMs": 1000}))),
        (
            "the quickest",
            with(json!({
                "probeIntervalMs": 100, "stageDeadlineMs": 100, "commitDeadlineMs": 1250, "evidenceMaxAgeMs": 1450,
                "suspectAfterMs": 200, "goneAfterMs": 200, "stuckAfterMs": 1250,
            })),
        ),
        (
            "the most patient",
            with(json!({
                "probeIntervalMs": 10000, "stageDeadlineMs": 30000, "commitDeadlineMs": 40000, "evidenceMaxAgeMs": 60000,
                "suspectAfterMs": 60000, "goneAfterMs": 60000, "stuckAfterMs": 600000,
            })),
        ),
    ] {
        assert!(is_allowed(&detection), "{case}");
        let parsed: Detection = serde_json::from_value(detection).unwrap();
        for phases in [[0; 4], [255; 4], [0, 85, 170, 255]] {
            ripens(&parsed, phases).unwrap_or_else(|why| panic!("{case}: {why}"));
        }
    }
}

#[test]
fn what_breaks_detection_may_not_be_set() {
    let default = serde_json::to_value(Detection::default()).unwrap();
    for (case, field, value) in [
        ("a lock looks like a deadlock", "commitDeadlineMs", 200),
        ("a lock looks like a deadlock, nearly", "commitDeadlineMs", 1249),
        ("silences are old before they are told of again", "stageDeadlineMs", 30000),
        ("evidence is old at once", "evidenceMaxAgeMs", 1449),
        ("one silence is enough", "stuckAfterMs", 999),
    ] {
        let mut detection = default.clone();
        detection[field] = json!(value);
        assert!(!is_allowed(&detection), "{case}");
    }
}

/// A row of the table in `operator/docs/evidence.md`: the field, its default and its bounds.
#[test]
fn the_page_on_evidence_has_every_threshold_with_its_default_and_bounds() {
    let page = include_str!("../../docs/evidence.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| *line != "## Thresholds")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let fields = schema()["properties"].as_object().unwrap();
    assert_eq!(rows.len(), fields.len(), "{rows:?}");
    for (name, field) in fields {
        let number = |of: &str| field[of].as_f64().unwrap();
        let bounds = format!("{} to {}", number("minimum"), number("maximum"));
        let row = rows.iter().find(|row| row[0] == format!("`{name}`")).unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!((row[1], row[2]), (number("default").to_string().as_str(), bounds.as_str()), "{name}");
        assert!(row.len() == 5 && !row[3].is_empty() && !row[4].is_empty(), "{name}: what does it trade? {row:?}");
    }
}
