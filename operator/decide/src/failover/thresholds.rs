//! How soon what follows. Pure.

use understudy_wire::evidence::Millis;

/// How soon what follows; milliseconds. `operator/docs/failover.md` has the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Evidence older than this does not count.
    pub fresh: Millis,
    /// An accusation this old makes the primary Suspect.
    pub suspect_after: Millis,
    /// How long nobody may have reached a server whose manager is silent before it is Gone.
    pub gone_after: Millis,
    /// For how long nobody may be greeted before a server is Stuck. What else makes it so is counted from this.
    pub stuck_after: Millis,
    /// How long two domains must have waited in vain for a commit, and its manager been silent, before a server is Gone: it may be a lock.
    pub hung_unheard_after: Millis,
    /// How long the probe after the claim may take.
    pub reprobe_within: Millis,
    /// How long a promotion may take before the next candidate is tried.
    pub promote_within: Millis,
    /// How long a promotion may apply received transactions.
    pub apply_relay_log_within: Millis,
    /// How long a switchover may wait for its target to have everything.
    pub switchover_within: Millis,
    /// After a failover, how long only HARD evidence may cause another.
    pub cooldown: Millis,
    /// How long a standby may be silent before it is replaced.
    pub lost_standby_after: Millis,
    /// How long replication may be broken before the standby is replaced.
    pub broken_standby_after: Millis,
    /// How long the volume of a standby may hang, or its server not answer its own manager, before it is replaced.
    pub stuck_standby_after: Millis,
    /// How long a standby may be far behind without coming closer before it is replaced.
    pub lagging_standby_after: Millis,
    /// How long a replica that is filled or starts may come no further before it counts as no rebuild and nobody waits for it.
    pub idle_rebuild_after: Millis,
    /// How long the same may last within one try before it is replaced.
    pub hung_rebuild_after: Millis,
    /// How long a pod may be without a word from its manager before another is tried.
    pub unheard_after: Millis,
    /// The pause after a replacement failed as well; twice as long after each further one.
    pub replacement_pause: Millis,
    /// A primary is slow when the quickest of its newest commits took this long. A third of what a probe waits for a commit: what takes
    /// longer than that wait, a probe never sees end.
    pub slow_commit: Millis,
    /// A volume is slow when the last fsync on it took this long, some twenty times what a healthy one takes.
    pub slow_fsync: Millis,
    /// How long a primary must have been slow before it hands over to one that is not.
    pub slow_after: Millis,
}

impl Thresholds {
    /// For how long two domains must not have reached a server whose manager is silent: longer than a pause may be that is nobody's trouble.
    pub fn unreached_after(&self) -> Millis {
        self.gone_after.max(self.fresh)
    }

    /// For how long its manager must have seen a server stopped before it is Stuck. Half a second less than where that is only concluded from
    /// the want of a greeting.
    pub fn seen_stopped_after(&self) -> Millis {
        self.stuck_after.saturating_sub(500).max(self.stuck_after / 2)
    }

    /// For how long one other domain must accuse a server that its manager sees stopped.
    pub fn borne_out_after(&self) -> Millis {
        self.stuck_after / 2
    }

    /// For how long one write to the volume must not have come back before a server is Stuck.
    pub fn stalled_after(&self) -> Millis {
        self.stuck_after + 2_000
    }

    /// For how long nothing may have moved, and nobody been answered, before a server is Stuck.
    pub fn deadlocked_after(&self) -> Millis {
        self.stuck_after + 5_000
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            fresh: 2_000,
            suspect_after: 1_000,
            gone_after: 750,
            stuck_after: 3_000,
            hung_unheard_after: 60_000,
            reprobe_within: 500,
            promote_within: 5_000,
            apply_relay_log_within: 1_000,
            switchover_within: 10_000,
            cooldown: 600_000,
            lost_standby_after: 60_000,
            broken_standby_after: 15_000,
            stuck_standby_after: 60_000,
            lagging_standby_after: 600_000,
            idle_rebuild_after: 600_000,
            hung_rebuild_after: 1_800_000,
            unheard_after: 180_000,
            replacement_pause: 30_000,
            slow_commit: 500,
            slow_fsync: 200,
            slow_after: 60_000,
        }
    }
}
