//! What is known of a request before it is made: whether the operator would refuse it, and what a person should know. Pure.
//!
//! The operator decides. This only saves a person from asking for what cannot be, and says what to ask for instead.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::json;
use understudy_api::GROUP;
use understudy_api::v1alpha1::FailoverKind;

use crate::objects::Shard;
use crate::view::time::{ago, span};

/// Why nothing is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is done while the lever is pulled.
    #[error("nothing is done on {shard} while {lever} is paused: first `kubectl understudy resume {lever}`")]
    Paused {
        /// The Shard.
        shard: String,
        /// The Shard, or `datastore/NAME`.
        lever: String,
    },
    /// Nobody may change the primary.
    #[error(
        "failover.mode of {0} is Paused, in which the operator refuses every change of its primary: first \
         `kubectl patch shard {0} --type merge -p '{{\"spec\":{{\"failover\":{{\"mode\":\"Manual\"}}}}}}'`"
    )]
    Mode(String),
    /// The primary commits, so nothing is to be failed over.
    #[error(
        "{primary} commits, and the operator refuses to fail over a primary that does; ask for a planned change: \
         `kubectl understudy switchover {shard}`"
    )]
    Commits {
        /// The Shard.
        shard: String,
        /// Its primary.
        primary: String,
    },
    /// Another change is not over.
    #[error("the primary of {shard} is being changed already{to}{record}")]
    UnderWay {
        /// The Shard.
        shard: String,
        /// To whom, as a part of the sentence.
        to: String,
        /// The record, as a part of the sentence.
        record: String,
    },
    /// It is where it should go.
    #[error("{0} is the primary already")]
    PrimaryAlready(String),
    /// It is not one of the shard's.
    #[error("{shard} has no replica {to} that could take over; there are {known}")]
    NoSuchReplica {
        /// The Shard.
        shard: String,
        /// The name that was given.
        to: String,
        /// The names that could be.
        known: String,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The primary is dead: it is not waited for.
    Failover,
    /// The primary hands over.
    Switchover,
}

impl Ask {
    fn kind(self) -> FailoverKind {
        match self {
            Self::Failover => FailoverKind::Failover,
            Self::Switchover => FailoverKind::Switchover,
        }
    }
}

/// Whether the request makes sense, as far as the Shard's status tells.
pub fn check(ask: Ask, shard: &Shard, datastore_paused: bool, to: Option<&str>) -> Result<(), Refusal> {
    let name = || shard.name.clone();
    match &shard.datastore {
        Some(datastore) if datastore_paused => {
            return Err(Refusal::Paused { shard: name(), lever: format!("datastore/{datastore}") });
        }
        _ if shard.paused => return Err(Refusal::Paused { shard: name(), lever: name() }),
        _ => {}
    }
    if shard.mode.as_deref() == Some("Paused") {
        return Err(Refusal::Mode(name()));
    }
    if let Some(transition) = &shard.transition {
        let to = transition.to.as_deref().map(|to| format!(" to {to}")).unwrap_or_default();
        let record = transition.record.as_deref();
        let record = record.map(|name| format!(": `kubectl understudy timeline {name}`")).unwrap_or_default();
        return Err(Refusal::UnderWay { shard: name(), to, record });
    }
    if let Some(to) = to {
        check_target(shard, to)?;
    }
    if ask == Ask::Failover && shard.commits() {
        let primary = shard.primary.clone().unwrap_or_else(|| "the primary".into());
        return Err(Refusal::Commits { shard: name(), primary });
    }
    Ok(())
}

fn check_target(shard: &Shard, to: &str) -> Result<(), Refusal> {
    if shard.primary.as_deref() == Some(to) {
        return Err(Refusal::PrimaryAlready(to.to_owned()));
    }
    let others = shard.replicas.iter().filter(|replica| !replica.is_condemned());
    let others: Vec<_> = others.filter(|replica| Some(&replica.name) != shard.primary.as_ref()).collect();
    // Without a status nothing is known of its replicas, and the operator knows better.
    if others.is_empty() || others.iter().any(|replica| replica.name == to) {
        return Ok(());
    }
    let known: Vec<_> = others.iter().map(|replica| replica.name.as_str()).collect();
    Err(Refusal::NoSuchReplica { shard: shard.name.clone(), to: to.to_owned(), known: known.join(", ") })
}

/// What a person should know although nothing stands against it.
pub fn warnings(ask: Ask, shard: &Shard, to: Option<&str>) -> Vec<String> {
    let mut warnings = Vec::new();
    if ask == Ask::Switchover && !shard.commits() {
        warnings.push(format!(
            "the primary of {} is {}: if it is dead, the request is carried out as a failover",
            shard.name,
            shard.state()
        ));
    }
    let target = to.and_then(|to| shard.replicas.iter().find(|replica| replica.name == to));
    match target {
        Some(target) if !target.promotable => {
            let why = target.message.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            warnings.push(format!("{} could not take over now{why}", target.name));
        }
        None if shard.promotable == Some(0) => {
            warnings.push(format!("no standby of {} could take over now", shard.name));
        }
        _ => {}
    }
    warnings
}

/// What a person is asked before a primary is thrown away.
pub fn question(shard: &Shard, to: Option<&str>, now: Timestamp) -> String {
    let primary = shard.primary.as_deref().unwrap_or("no primary");
    let verdict = shard.verdict.as_ref();
    let words = verdict.map_or("Unknown".to_owned(), crate::objects::Verdict::words);
    let since =
        verdict.and_then(|verdict| ago(verdict.since, now)).map(|since| format!(" for {since}")).unwrap_or_default();
    let last = shard.last_failover.as_ref().and_then(|last| last.time);
    let last =
        last.map(|last| format!(" It was changed last {} ago.", span(crate::view::time::seconds_since(last, now))));
    format!(
        "{}: the primary {primary} is {words}{since}. It is condemned and built anew elsewhere, and {} takes over.{} Go on?",
        shard.name,
        to.unwrap_or("the best standby"),
        last.unwrap_or_default(),
    )
}

/// The request itself. The API server names it.
pub fn object(
    ask: Ask,
    shard: &str,
    to: Option<&str>,
    reason: Option<&str>,
) -> Result<DynamicObject, serde_json::Error> {
    let mut spec = json!({ "shard": shard, "kind": ask.kind() });
    for (field, value) in [("reason", reason), ("target", to)] {
        if let Some(value) = value {
            spec[field] = value.into();
        }
    }
    serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "Failover",
        "metadata": { "generateName": format!("{shard}-") },
        "spec": spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::{self, at, of_datastore, with};

    fn checked(ask: Ask, object: &DynamicObject, to: Option<&str>) -> Option<String> {
        check(ask, &Shard::read(object), false, to).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn what_the_operator_would_refuse_is_said_before_and_what_to_do_instead() {
        let healthy = fixtures::healthy();
        let withheld = fixtures::withheld();
        let partition = with(healthy.clone(), &[("/status/verdict/state", "ObserverPartition".into())]);
        let mode = with(withheld.clone(), &[("/spec/failover/mode", "Paused".into())]);
        for (case, ask, object, to, says) in [
            ("it commits", Ask::Failover, &healthy, None, Some("`kubectl understudy switchover m`")),
            ("others see it commit", Ask::Failover, &partition, None, Some("m-a commits")),
            ("it is dead", Ask::Failover, &withheld, None, None),
            ("it is dead, to a standby", Ask::Failover, &withheld, Some("m-b"), None),
            ("planned", Ask::Switchover, &healthy, Some("m-c"), None),
            ("planned while it is dead", Ask::Switchover, &withheld, None, None),
            (
                "under way",
                Ask::Failover,
                &fixtures::stuck(),
                None,
                Some("already to m-b: `kubectl understudy timeline m-5`"),
            ),
            ("paused", Ask::Switchover, &fixtures::paused(), None, Some("`kubectl understudy resume m`")),
            ("mode", Ask::Failover, &mode, None, Some("{\"spec\":{\"failover\":{\"mode\":\"Manual\"}}}")),
            ("to itself", Ask::Switchover, &healthy, Some("m-a"), Some("m-a is the primary already")),
            (
                "to nobody",
                Ask::Switchover,
                &healthy,
                Some("m-x"),
                Some("m has no replica m-x that could take over; there are m-b, m-c"),
            ),
            ("without a status", Ask::Failover, &fixtures::unseen(), Some("m-b"), None),
        ] {
            let refusal = checked(ask, object, to);
            assert_eq!(refusal.is_some(), says.is_some(), "{case}: {refusal:?}");
            assert!(refusal.unwrap_or_default().contains(says.unwrap_or_default()), "{case}");
        }
    }

    #[test]
    fn of_a_paused_datastore_the_datastore_is_to_be_resumed() {
        let shard = Shard::read(&of_datastore(fixtures::healthy(), "metrics"));
        let refusal = check(Ask::Switchover, &shard, true, None).unwrap_err().to_string();
        assert!(refusal.contains("`kubectl understudy resume datastore/metrics`"), "{refusal}");
    }

    #[test]
    fn what_may_not_come_as_expected_is_a_warning() {
        let lame = with(
            fixtures::healthy(),
            &[("/status/replicas/1/promotable", false.into()), ("/status/promotable", 0.into())],
        );
        for (case, ask, object, to, says) in [
            ("well", Ask::Switchover, &fixtures::healthy(), Some("m-b"), None),
            ("dead", Ask::Switchover, &fixtures::withheld(), None, Some("carried out as a failover")),
            ("target", Ask::Switchover, &lame, Some("m-b"), Some("m-b could not take over now")),
            ("nobody", Ask::Switchover, &lame, None, Some("no standby of m could take over now")),
            ("asked for by whoever knows", Ask::Failover, &fixtures::withheld(), None, None),
        ] {
            let said = warnings(ask, &Shard::read(object), to).join("; ");
            assert_eq!(said.is_empty(), says.is_none(), "{case}: {said}");
            assert!(said.contains(says.unwrap_or_default()), "{case}: {said}");
        }
    }

    #[test]
    fn the_question_says_what_becomes_of_whom() {
        let question = question(&Shard::read(&fixtures::withheld()), Some("m-c"), at(0));
        let expected = "m: the primary m-a is Stuck (Deadlocked) for 40s. It is condemned and built anew elsewhere, and m-c takes over. \
                        It was changed last 1m40s ago. Go on?";
        assert_eq!(question, expected);
    }

    #[test]
    fn a_request_is_one_that_the_operator_reads() {
        for (ask, kind) in [(Ask::Failover, FailoverKind::Failover), (Ask::Switchover, FailoverKind::Switchover)] {
            let object = object(ask, "m", Some("m-b"), Some("why")).unwrap();
            assert_eq!(object.metadata.generate_name.as_deref(), Some("m-"));
            let request: understudy_api::Failover = object.try_parse().unwrap();
            assert_eq!((request.spec.shard.as_str(), request.spec.kind), ("m", kind));
            assert_eq!(request.spec.reason.as_deref(), Some("why"));
            assert_eq!(request.spec.target.as_deref(), Some("m-b"));
            assert!(request.spec.epoch.is_none() && request.status.is_none());
        }
    }
}
