//! What kind of thing a step is. Pure.

use std::fmt;

use understudy_wire::ReplicaName;
use understudy_wire::order::Origin;

use super::{Order, Step};

/// What a step is about: the same for the same thing, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// The kind of step.
    pub step: &'static str,
    /// Of what.
    pub about: Option<String>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = self.about.as_deref().map_or(String::new(), |about| format!(" of {about}"));
        write!(f, "{}{about}", self.step)
    }
}

impl Step {
    /// Whether it cannot be taken back. One pass takes at most one such step, and looks again before the next.
    pub fn is_irreversible(&self) -> bool {
        match self {
            Self::Grow { .. }
            | Self::IntendBootstrap { .. }
            | Self::Claim(_)
            | Self::Publish { .. }
            | Self::Condemn { .. }
            | Self::DeletePod { .. }
            | Self::StartQuarantine { .. }
            | Self::DeleteVolume { .. }
            | Self::DeleteReplica { .. } => true,
            Self::Order { order: Order::Promote(_), .. } => true,
            Self::Order { order: Order::Build(build), .. } => matches!(build.origin, Origin::Initialise { .. }),
            Self::MakeVolume { .. }
            | Self::MakePod { .. }
            | Self::Label { .. }
            | Self::Reprobe { .. }
            | Self::Order { .. }
            | Self::Refuse { .. } => false,
        }
    }

    /// Whether it is a call to the API server that a change of primary does not need.
    pub fn can_wait(&self) -> bool {
        match self {
            Self::MakeVolume { .. }
            | Self::MakePod { .. }
            | Self::Grow { .. }
            | Self::Label { .. }
            | Self::Condemn { .. }
            | Self::DeletePod { .. }
            | Self::StartQuarantine { .. }
            | Self::DeleteVolume { .. }
            | Self::DeleteReplica { .. }
            | Self::Refuse { .. } => true,
            Self::IntendBootstrap { .. }
            | Self::Claim(_)
            | Self::Publish { .. }
            | Self::Reprobe { .. }
            | Self::Order { .. } => false,
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        let about = match self {
            Self::Label { replica, role } => Some(format!("{replica} {role}")),
            Self::Refuse { request, .. } => Some(request.clone()),
            _ => self.replica().map(ToString::to_string),
        };
        Subject { step: self.into(), about }
    }

    /// The replica that it is done to.
    pub fn replica(&self) -> Option<&ReplicaName> {
        match self {
            Self::IntendBootstrap { replica }
            | Self::Publish { primary: replica, .. }
            | Self::MakeVolume { replica }
            | Self::MakePod { replica }
            | Self::Label { replica, .. }
            | Self::Condemn { replica, .. }
            | Self::DeletePod { replica, .. }
            | Self::StartQuarantine { replica }
            | Self::DeleteVolume { replica, .. }
            | Self::DeleteReplica { replica, .. }
            | Self::Reprobe { replica, .. }
            | Self::Order { replica, .. } => Some(replica),
            Self::Claim(claim) => Some(&claim.to),
            Self::Grow { .. } | Self::Refuse { .. } => None,
        }
    }
}
