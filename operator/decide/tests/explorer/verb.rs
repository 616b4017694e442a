//! The verbs of a script.

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, strum::EnumIter)]
#[strum(serialize_all = "kebab-case")]
pub enum Verb {
    /// A process is killed.
    Kill,
    Freeze,
    Thaw,
    /// A server stands still for so many milliseconds, and its manager does not.
    Pause,
    /// The same of a machine and of everything on it.
    StallNode,
    /// The same of an observer alone: the manager of a replica, or a consumer.
    Doze,
    /// A server accepts work, and nothing moves in it.
    Deadlock,
    Release,
    /// Somebody else's session holds the lock that every commit on a server needs, for so many milliseconds.
    Lock,
    /// A pod is asked to stop.
    Stop,
    /// The volume of a replica hangs.
    Hang,
    Unhang,
    /// The volume of a replica answers writes with an error.
    FailVolume,
    RepairVolume,
    /// The volume of a replica takes so many milliseconds for an fsync; 0: as long as others.
    Slow,
    /// The same of all volumes, at least.
    SlowAll,
    /// The load makes commits take so many milliseconds, at least.
    Load,
    /// So many thousandths of the volume of a replica are free from now on.
    Fill,
    /// A pod is deleted by force.
    Delete,
    /// A pod is restarted in place.
    Restart,
    Evict,
    /// The applier of a standby stands still.
    Lag,
    CatchUp,
    /// The applier of a standby ends with an error.
    Corrupt,
    NodeDown,
    NodeUp,
    /// The operator cannot reach a node.
    Cut,
    Join,
    /// Nothing gets through between a place (a node, a consumer, the operator) and a node, which are named `PLACE/NODE`.
    Sever,
    Mend,
    /// An observer says of the primary that it has been dead for long, whatever it sees.
    Lie,
    /// An observer says of the primary that it commits, whatever it sees.
    Flatter,
    /// Nobody lies any more.
    Honest,
    /// A consumer ends, and another begins in its place after so many milliseconds.
    Roll,
    /// The mode of the shard is this one: Automatic, Manual or Paused.
    Mode,
    /// So many other shards are `suspect`, `slow` or `partitioned`.
    Fleet,
    /// Every node is shut down and comes back.
    Blackout,
    /// Another operator begins after so many milliseconds.
    OperatorDies,
    /// The operator is paused with what it has decided, another begins at once, and after so many milliseconds it goes on.
    OperatorSleeps,
    /// A person asks for a switchover.
    Ask,
    /// A person asks for a failover.
    Insist,
    /// So many replicas are asked for.
    Want,
    /// Kafka drops everything before this offset.
    Drop,
}
