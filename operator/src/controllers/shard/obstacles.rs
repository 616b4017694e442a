//! What keeps a shard's replicas from being made or started, in the words of who refuses: the API server, the scheduler, the
//! kubelet. Pure: the clock is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use understudy_api::conditions::{self, Claim};
use understudy_decide::Step;
use understudy_decide::decision::Subject;

use crate::cache::Held;
use crate::events::Reason;
use crate::troubles::Trouble;

/// What could not be done is not asked for again within this time, and twice as long after each further try, up to 20 s: it may be
/// the pod of the last copy.
const AGAIN: Duration = Duration::from_secs(5);
const AT_MOST: Duration = Duration::from_secs(20);
/// Waiting that is part of every start.
const ON_ITS_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// No condition says more than this.
const MESSAGE: usize = 2_000;

/// Something in the way of one replica, or of the whole shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The replica.
    pub replica: Option<String>,
    /// What it is.
    pub trouble: Trouble,
}

/// Steps that could not be taken.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Subject, Refusal>);

#[derive(Debug)]
struct Refusal {
    /// What stands in the way, when somebody said it.
    obstacle: Option<Obstacle>,
    /// How often in a row.
    times: u32,
    at: Instant,
}

impl Refusals {
    /// A step could not be taken; because of this, if that will stand until somebody changes something.
    pub fn note(&mut self, step: &Step, trouble: Option<Trouble>, now: Instant) {
        let replica = step.replica().map(ToString::to_string);
        let obstacle = trouble.map(|trouble| Obstacle { replica, trouble });
        if obstacle.is_none() && !step.can_wait() {
            return;
        }
        let refusal = self.0.entry(step.subject()).or_insert(Refusal { obstacle: None, times: 0, at: now });
        *refusal = Refusal { obstacle, times: refusal.times.saturating_add(1), at: now };
    }

    /// Whether it could not be taken the last time either.
    pub fn again(&self, step: &Step) -> bool {
        self.0.contains_key(&step.subject())
    }

    /// A step was taken.
    pub fn taken(&mut self, step: &Step) {
        self.0.remove(&step.subject());
    }

    /// What was tried in vain a moment ago. Nothing that a change of primary needs is held back because of it.
    pub fn held_back(&self, now: Instant) -> BTreeSet<Subject> {
        self.0.iter().filter(|(_, refusal)| refusal.holds(now)).map(|(subject, _)| subject.clone()).collect()
    }

    /// Forgets what is not asked for any more: it was made, or nobody wants it.
    pub fn keep<'a>(&mut self, wanted: impl IntoIterator<Item = &'a Step>) {
        let wanted: BTreeSet<_> = wanted.into_iter().map(Step::subject).collect();
        self.0.retain(|subject, _| wanted.contains(subject));
    }

    /// What stands.
    pub fn all(&self) -> impl Iterator<Item = &Obstacle> {
        self.0.values().filter_map(|refusal| refusal.obstacle.as_ref())
    }
}

impl Refusal {
    fn holds(&self, now: Instant) -> bool {
        let pause = AGAIN.saturating_mul(1 << self.times.saturating_sub(1).min(16)).min(AT_MOST);
        now.duration_since(self.at) < pause
    }
}

/// What stands in the way of the pods that are there.
pub fn of_pods(
    pods: &HashMap<String, Held<Pod>>,
    claims: &HashMap<String, Held<PersistentVolumeClaim>>,
) -> Vec<Obstacle> {
    let mut all: Vec<_> = pods
        .iter()
        .filter_map(|(name, pod)| {
            let trouble = of_pod(name, pod, claims.get(name).map(|claim| &**claim))?;
            Some(Obstacle { replica: Some(name.clone()), trouble })
        })
        .collect();
    all.sort_by(|one, other| one.replica.cmp(&other.replica));
    all
}

fn of_pod(name: &str, pod: &Pod, claim: Option<&PersistentVolumeClaim>) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if status.phase.as_deref() == Some("Failed") {
        let message = format!("the pod of {name} failed: {}: {}", text(&status.reason), text(&status.message));
        return Some(Trouble { reason: Reason::ContainerWaits, message });
    }
    let unplaced = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(unplaced) = unplaced {
        let volume = claim.and_then(unbound).unwrap_or_default();
        let message = format!("the pod of {name} cannot be placed: {}{volume}", text(&unplaced.message));
        return Some(Trouble { reason: Reason::Unschedulable, message });
    }
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let (container, why) = containers.find_map(|container| Some((&container.name, waits(container)?)))?;
    let message = format!("container {container} of {name} does not start: {why}");
    Some(Trouble { reason: Reason::ContainerWaits, message })
}

/// Why a container waits for longer than every start takes.
fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !ON_ITS_WAY.contains(reason))?;
    Some(match waiting.message.as_deref() {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    })
}

/// That a volume is there for nobody yet, and of which class it is to be.
fn unbound(claim: &PersistentVolumeClaim) -> Option<String> {
    let phase = claim.status.as_ref()?.phase.as_deref()?;
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    let class = class.map_or("of the default StorageClass".to_owned(), |class| format!("of StorageClass {class}"));
    (phase == "Pending").then(|| format!("; its volume, {class}, is not bound"))
}

/// All of them in one line.
pub fn message<'a>(obstacles: impl IntoIterator<Item = &'a Obstacle>) -> Option<String> {
    let all: Vec<_> = obstacles.into_iter().map(|obstacle| obstacle.trouble.message.as_str()).collect();
    let mut message = all.join("; ");
    if let Some((end, _)) = message.char_indices().nth(MESSAGE) {
        message.truncate(end);
    }
    Some(message).filter(|message| !message.is_empty())
}

/// Whether everything that the spec asks for could be made and started.
pub fn provisioned(obstacles: &[Obstacle]) -> Claim {
    match (obstacles.first(), message(obstacles)) {
        (Some(first), Some(message)) => Claim::no(conditions::PROVISIONED, first.trouble.reason.into(), message),
        _ => Claim::yes(conditions::PROVISIONED, "NothingRefused", "nothing that was asked for was refused"),
    }
}

/// What was in the way at the last look, so that each obstacle is said when it appears.
#[derive(Debug, Default)]
pub struct Seen(BTreeSet<String>);

impl Seen {
    /// What was not in the way before. What decisions say themselves is left out.
    pub fn news<'a>(&mut self, obstacles: &'a [Obstacle]) -> Vec<&'a Obstacle> {
        let before = std::mem::take(&mut self.0);
        self.0 = obstacles.iter().map(|obstacle| obstacle.trouble.message.clone()).collect();
        let is_news = |obstacle: &&Obstacle| {
            obstacle.trouble.reason != Reason::Unschedulable && !before.contains(&obstacle.trouble.message)
        };
        obstacles.iter().filter(is_news).collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::{Value, json};
    use understudy_wire::ReplicaName;

    use super::*;
    use crate::fake::FakeApi;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "m-a", "namespace": "prod" }, "status": status })).unwrap()
    }

    fn container(name: &str, state: Value) -> Value {
        json!([{ "name": name, "state": state, "image": "i", "imageID": "", "ready": false, "restartCount": 0 }])
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({ "waiting": { "reason": reason, "message": message } })
    }

    #[test]
    fn what_keeps_a_pod_from_starting_is_said_in_the_kubelets_words() {
        let unplaced = json!([{ "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }]);
        for (case, status, says) in [
            (
                "an image that is not there",
                json!({ "containerStatuses": container("mysql", waiting("ImagePullBackOff", "Back-off pulling image \"no:1\"")) }),
                Some("container mysql of m-a does not start: ImagePullBackOff: Back-off pulling image \"no:1\""),
            ),
            (
                "of the init container",
                json!({ "initContainerStatuses": container("install", waiting("ErrImagePull", "denied")), "containerStatuses": container("mysql", waiting("PodInitializing", "")) }),
                Some("container install of m-a"),
            ),
            (
                "a configuration that is not there",
                json!({ "containerStatuses": container("mysql", waiting("CreateContainerConfigError", "secret \"x\" not found")) }),
                Some("secret \"x\" not found"),
            ),
            ("starting", json!({ "containerStatuses": container("mysql", waiting("ContainerCreating", "")) }), None),
            ("running", json!({ "containerStatuses": container("mysql", json!({ "running": {} })) }), None),
            (
                "put out by its node",
                json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory" }),
                Some("failed: Evicted: The node was low on memory"),
            ),
            ("no room", json!({ "conditions": unplaced }), Some("cannot be placed: 0/3 nodes are available")),
            ("nothing known", json!({}), None),
        ] {
            let trouble = of_pod("m-a", &pod(status), None);
            let message = trouble.as_ref().map(|trouble| trouble.message.as_str());
            assert!(message.is_some() == says.is_some(), "{case}: {message:?}");
            assert!(message.unwrap_or_default().contains(says.unwrap_or_default()), "{case}: {message:?}");
        }
    }

    #[test]
    fn a_pod_that_waits_for_a_volume_names_the_class_of_it() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": { "name": "m-a" }, "spec": { "storageClassName": "there-is-none" }, "status": { "phase": "Pending" },
        }))
        .unwrap();
        let unplaced = json!([{ "type": "PodScheduled", "status": "False", "message": "unbound" }]);
        let trouble = of_pod("m-a", &pod(json!({ "conditions": unplaced })), Some(&claim)).unwrap();
        assert_eq!(
            trouble.message,
            "the pod of m-a cannot be placed: unbound; its volume, of StorageClass there-is-none, is not bound"
        );
    }

    #[tokio::test]
    async fn what_the_api_server_refuses_is_kept_in_its_words_until_it_is_made_or_nobody_wants_it() {
        let api = FakeApi::default();
        api.refuse("POST pods", 403, "pods \"m-a\" is forbidden: exceeded quota: small, requested: memory=1Gi");
        let error = api.applier().create("x", &pod(json!({}))).await.unwrap_err();
        let now = Instant::now();
        let make = |name: &str| Step::MakePod { replica: ReplicaName::new(name) };
        let mut refusals = Refusals::default();
        refusals.note(&make("m-a"), Trouble::of(&error), now);
        let said: Vec<_> = refusals.all().cloned().collect();
        assert_eq!(said[0].replica.as_deref(), Some("m-a"));
        assert!(said[0].trouble.message.contains("exceeded quota: small"), "{said:?}");
        assert_eq!(said[0].trouble.reason, Reason::Refused);
        let claim = provisioned(&said);
        assert!(claim.holds == Some(false) && claim.message.contains("exceeded quota: small"), "{claim:?}");

        assert_eq!(refusals.held_back(now), [make("m-a").subject()].into());
        assert!(refusals.held_back(now + AGAIN).is_empty(), "it is tried again");
        let office = Step::IntendBootstrap { replica: ReplicaName::new("m-a") };
        refusals.note(&office, Trouble::of(&error), now);
        assert_eq!(refusals.all().count(), 2, "it is said, though nothing holds it back");
        refusals.keep(&[make("m-a"), make("m-b")]);
        assert_eq!(refusals.all().count(), 1);
        refusals.keep(&[make("m-b")]);
        assert_eq!(refusals.all().count(), 0);
        assert_eq!(provisioned(&[]).holds, Some(true));
    }

    #[test]
    fn what_was_tried_in_vain_is_tried_more_and_more_slowly() {
        let now = Instant::now();
        let replica = ReplicaName::new("m-a");
        let slow = Step::MakePod { replica: replica.clone() };
        let mut refusals = Refusals::default();
        for pause in [5, 10, 20, 20] {
            refusals.note(&slow, None, now);
            let pause = Duration::from_secs(pause);
            assert_eq!(
                refusals.held_back(now + pause - Duration::from_millis(1)),
                [slow.subject()].into(),
                "{pause:?}"
            );
            assert!(refusals.held_back(now + pause).is_empty(), "{pause:?}");
        }
        assert_eq!(refusals.all().count(), 0, "nobody said what is in the way");
        refusals.taken(&slow);
        assert!(refusals.held_back(now).is_empty());
        refusals.note(&Step::IntendBootstrap { replica }, None, now);
        assert!(refusals.held_back(now).is_empty(), "a change of primary waits for nothing");
    }

    #[tokio::test]
    async fn what_may_be_better_when_tried_again_is_no_refusal() {
        let api = FakeApi::default();
        for (code, refused) in
            [(422, true), (403, true), (400, true), (500, true), (429, false), (503, false), (409, false)]
        {
            api.refuse("POST pods", code, "words");
            let error = api.applier().create("x", &pod(json!({}))).await.unwrap_err();
            assert_eq!(Trouble::of(&error).is_some(), refused, "{code} for {}", pod(json!({})).name_any());
        }
    }

    #[test]
    fn an_obstacle_is_said_when_it_appears() {
        let obstacle = |reason, message: &str| Obstacle {
            replica: Some("m-a".to_owned()),
            trouble: Trouble { reason, message: message.to_owned() },
        };
        let (one, other) = (obstacle(Reason::Refused, "quota"), obstacle(Reason::ContainerWaits, "image"));
        let mut seen = Seen::default();
        assert_eq!(seen.news(std::slice::from_ref(&one)), [&one]);
        assert_eq!(seen.news(&[one.clone(), other.clone()]), [&other]);
        assert!(seen.news(&[]).is_empty());
        assert_eq!(seen.news(std::slice::from_ref(&one)), [&one], "it is back");
        assert!(seen.news(&[obstacle(Reason::Unschedulable, "no room")]).is_empty(), "the decision says it");
    }
}
