//! What follows for a Drill. Pure.

use jiff::Timestamp;
use strum::{Display, EnumIter, EnumString, IntoStaticStr};
use understudy_wire::ShardName;

use super::snapshot::Run;

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum DrillDecision {
    /// Nothing is due.
    Wait {
        /// When something will be, if nobody changes anything.
        until: Option<Timestamp>,
        /// Why nothing could be begun if it were.
        because: Option<Hindrance>,
    },
    /// A run is due and is not begun.
    Skip {
        /// Which.
        due: Due,
        /// Why.
        why: Hindrance,
    },
    /// A run is begun: it is written down, and nothing else is done before everything was looked at again.
    Start {
        /// Which.
        due: Due,
        /// The run.
        run: Run,
    },
    /// These of the run's victims are hit now, by their place in the run.
    Strike(Vec<usize>),
    /// The run goes on by itself.
    GoOn {
        /// For a person.
        doing: String,
    },
    /// The run ends like this: it is written down, and these of its victims are told to let go, by their place in the run. It has ended when nobody
    /// is held any more.
    LetGo {
        /// How.
        end: End,
        /// Whom.
        places: Vec<usize>,
    },
    /// The run has ended.
    Finish(Report),
}

/// Why a run is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The schedule asks for it.
    Scheduled(Timestamp),
    /// A person asks for it.
    Requested(Timestamp),
}

impl Due {
    /// For when.
    pub fn at(self) -> Timestamp {
        let (Self::Scheduled(at) | Self::Requested(at)) = self;
        at
    }

    /// The name of the run; a run that is begun again after a restart has the same.
    pub fn run_of(self, drill: &str) -> String {
        format!("{drill}-{}", self.at().as_second())
    }
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The rule.
    pub rule: Rule,
    /// For a person: what stands in the way, and what may be done about it.
    pub message: String,
}

impl Hindrance {
    /// With words.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

/// What must hold for anything to be done. Each is called by what stands in the way when it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
pub enum Rule {
    /// The Drill is not being deleted.
    Deleted,
    /// What the spec names is there.
    Absent,
    /// `suspend` is not set.
    Suspended,
    /// Schedule and time zone can be read.
    ScheduleUnusable,
    /// The Datastore allows the fault.
    NotAllowed,
    /// It began in time.
    Missed,
    /// Somebody's primary is in the scope.
    NoVictim,
    /// Not more are hit at once than one run may, and what the fault leaves at so many shards at once would count.
    TooMany,
    /// A window is open.
    OutsideWindow,
    /// No other Drill of the Datastore has a run that goes on.
    AnotherRuns,
    /// The primary is the one that was chosen, under the same epoch.
    PrimaryChanged,
    /// The operator may act on the shard.
    Paused,
    /// The operator may change the primary by itself.
    LeftToPerson,
    /// The primary's manager was started with the permission for the fault.
    NotEquipped,
    /// No primary is being changed.
    ChangeUnderWay,
    /// The shards are Healthy.
    Unhealthy,
    /// The shards have their copies.
    NotRedundant,
    /// The shard had commits for long enough lately.
    BudgetSpent,
    /// The evidence that the fault leaves would count.
    CoolingDown,
}

impl Rule {
    /// Whether waiting for a while may help a run that was begun.
    pub fn passes_by_itself(self) -> bool {
        matches!(self, Self::ChangeUnderWay | Self::Unhealthy | Self::NotRedundant)
    }
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub ending: Ending,
    /// The rule that stood in the way, if one did.
    pub rule: Option<Rule>,
    /// For a person.
    pub message: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How.
    pub end: End,
    /// What each shard felt.
    pub gaps: Vec<Gap>,
}

/// How a run that was begun ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every victim was replaced.
    Succeeded,
    /// A rule stood in the way.
    Aborted,
    /// A victim could not be hit, or was not replaced.
    Failed,
}

/// What a shard felt.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// The shard.
    pub shard: ShardName,
    /// Name of the Failover object that records it.
    pub failover: Option<String>,
    /// Seconds without a commit; None: not measured.
    pub seconds: Option<f64>,
}
