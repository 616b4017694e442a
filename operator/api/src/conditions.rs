//! Setting `metav1.Condition`s so that nothing changes unless something did. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What the spec asks for can be done beside what is there already.
pub const ACCEPTED: &str = "Accepted";
/// Nothing that was to be made or started was refused.
pub const PROVISIONED: &str = "Provisioned";
/// Everything the object promises holds.
pub const READY: &str = "Ready";
/// Nothing runs as an earlier spec asked.
pub const UP_TO_DATE: &str = "UpToDate";
/// What was asked for has come to its end, well or not.
pub const COMPLETE: &str = "Complete";
/// Work towards the desired state is under way.
pub const PROGRESSING: &str = "Progressing";
/// Something is wrong that does not stop the object from serving.
pub const DEGRADED: &str = "Degraded";
/// The shard's primary takes writes.
pub const PRIMARY_HEALTHY: &str = "PrimaryHealthy";
/// The shard has at least one standby that could be promoted now.
pub const PROMOTABLE: &str = "Promotable";
/// The shard has as many intact copies as its spec asks for.
pub const REDUNDANT: &str = "Redundant";
/// The shard's consumers keep up with the topic.
pub const CONSUMERS_CURRENT: &str = "ConsumersCurrent";

/// Why [`PROGRESSING`] does not hold while `spec.paused` does.
pub const PAUSED: &str = "Paused";

/// What a condition says now; the caller does not deal with transition times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// One of the constants of this module.
    pub kind: &'static str,
    /// `None` is `Unknown`.
    pub holds: Option<bool>,
    /// PascalCase and stable.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

impl Claim {
    /// The condition holds.
    pub fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason, message: message.into() }
    }

    /// The condition does not hold.
    pub fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason, message: message.into() }
    }

    /// It is not known whether the condition holds.
    pub fn unknown(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: None, reason, message: message.into() }
    }

    fn status(&self) -> &'static str {
        match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Sets one condition. The transition time moves only when the status does; an equal claim changes nothing.
pub fn set(conditions: &mut Vec<Condition>, claim: Claim, generation: Option<i64>, now: &Time) {
    let status = claim.status();
    let fresh = Condition {
        type_: claim.kind.to_owned(),
        status: status.to_owned(),
        reason: claim.reason.to_owned(),
        message: claim.message,
        observed_generation: generation,
        last_transition_time: now.clone(),
    };
    match conditions.iter_mut().find(|c| c.type_ == claim.kind) {
        Some(old) if old.status == status => {
            let since = old.last_transition_time.clone();
            *old = Condition { last_transition_time: since, ..fresh };
        }
        Some(old) => *old = fresh,
        None => conditions.push(fresh),
    }
}

/// Whether the condition of this type is `True`.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.type_ == kind && c.status == "True")
}

/// Whether the status was written while `spec.paused` held.
pub fn is_paused(conditions: &[Condition]) -> bool {
    conditions.iter().any(|c| c.type_ == PROGRESSING && c.reason == PAUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("a small number of seconds is a timestamp"))
    }

    #[test]
    fn an_equal_claim_changes_nothing() {
        let mut conditions = Vec::new();
        set(&mut conditions, Claim::yes(READY, "AllReady", "3/3"), Some(1), &at(1));
        let before = conditions.clone();
        set(&mut conditions, Claim::yes(READY, "AllReady", "3/3"), Some(1), &at(9));
        assert_eq!(before, conditions);
    }

    #[test]
    fn paused_is_what_progressing_says_and_no_other() {
        let mut conditions = Vec::new();
        set(&mut conditions, Claim::no(READY, PAUSED, ""), Some(1), &at(1));
        assert!(!is_paused(&conditions));
        set(&mut conditions, Claim::no(PROGRESSING, PAUSED, ""), Some(1), &at(1));
        assert!(is_paused(&conditions));
        set(&mut conditions, Claim::no(PROGRESSING, "Settled", ""), Some(2), &at(2));
        assert!(!is_paused(&conditions));
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, Claim::yes(READY, "AllReady", "3/3"), Some(1), &at(1));
        set(&mut conditions, Claim::yes(READY, "AllReady", "5/5"), Some(2), &at(2));
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert_eq!(conditions[0].message, "5/5");
        set(&mut conditions, Claim::no(READY, "Waiting", "4/5"), Some(2), &at(3));
        assert_eq!(conditions[0].last_transition_time, at(3));
        assert!(!holds(&conditions, READY));
    }
}
