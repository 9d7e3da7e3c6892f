//! The matrix: one row a fault, and what is promised under it.

use std::time::Duration;

use crate::{
    faults::{Failover, Fault},
    load::Crew,
    proxy::Way,
    redis::Keeps,
    sabotage::Sabotage,
    site::{REPLICAS, Store},
};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing is lost, made up, out of order or copied unmarked, and no wake-up is missed.
    Everything,
    /// `Everything`, and no call is answered with an error.
    Unnoticed,
    /// What the store forgot is gone, and so is what it knew of copies: these are measured. Nothing is
    /// made up, and no wake-up is missed.
    Measured,
    /// As `Measured`, but nothing that was acknowledged is lost.
    Kept,
    /// This is broken on purpose: it must be found.
    Broken(Sabotage),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub store: Store,
    pub fault: Fault,
    pub crew: Crew,
    pub promise: Promise,
    /// Part of the short form.
    pub short: bool,
    /// How long the fault strikes.
    pub lasting: Duration,
    /// How the replicas differ from their defaults.
    pub settings: Settings,
    /// By how many hours the clocks of the replicas are wrong.
    pub apart: [i64; REPLICAS],
}

impl Row {
    /// Some clock is to be wrong.
    pub(crate) fn needs_clock(&self) -> bool {
        self.store == Store::Clocked || self.apart != [0; REPLICAS]
    }
}

/// Variables of the environment.
pub(crate) type Settings = &'static [(&'static str, &'static str)];

/// A send is answered when one replica of Redis has it, or all of two.
const CONFIRMED: Settings = &[("MCP_MESSAGING__REDIS__DURABILITY", "replicated")];
const CONFIRMED_BY_TWO: Settings = &[
    ("MCP_MESSAGING__REDIS__DURABILITY", "replicated"),
    ("MCP_MESSAGING__REDIS__CONFIRM_REPLICAS", "2"),
];

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const ALWAYS: Store = Store::Single(Keeps::Always);
const NOTHING: Store = Store::Single(Keeps::Nothing);

/// Every row of the matrix.
#[expect(clippy::too_many_lines, reason = "one entry a row")]
pub(crate) fn rows() -> Vec<Row> {
    let crew = Crew::default();
    let row = |name, what, store, fault| Row {
        name,
        what,
        store,
        fault,
        crew,
        promise: Promise::Everything,
        short: false,
        lasting: secs(10),
        settings: &[],
        apart: [0; REPLICAS],
    };
    let turn = |to_redis, to_replica, seconds| Fault::Turn(to_redis, to_replica, secs(seconds));
    let short = |row: Row| Row { short: true, ..row };
    let kept = |settings, row: Row| Row { promise: Promise::Kept, settings, ..row };
    let measured = |row: Row| Row { promise: Promise::Measured, ..row };
    let pair = |safe| Store::Pair { safe };
    let failover = |name, what, store, how| measured(row(name, what, store, Fault::Failover(how)));
    let clear = Way::Clear;
    let rude = Crew { rude: true, ..crew };
    let crowd = Crew { readers: 8, ..crew };
    let slow = |ms| Way::Slow(Duration::from_millis(ms));
    let numb = Sabotage::Deaf;
    vec![
        row("calm", "no fault", NOTHING, Fault::Calm),
        short(row(
            "kill-replica",
            "replicas killed (`kill -9`) and started again",
            NOTHING,
            Fault::KillReplica,
        )),
        row(
            "roll-replicas",
            "replicas restarted one by one (SIGTERM)",
            NOTHING,
            Fault::RollReplicas,
        ),
        Row {
            crew: rude,
            ..short(row(
                "hang-up",
                "readers hang up in the middle of waits and answers",
                NOTHING,
                Fault::Calm,
            ))
        },
        Row {
            crew: crowd,
            ..row("crowd", "eight readers of one inbox, connections cut", NOTHING, Fault::Cut)
        },
        short(row(
            "eat",
            "answers of Redis lost, connections with them",
            NOTHING,
            turn(clear, Way::Eaten(0.05), 3),
        )),
        row("cut", "connections to Redis cut", NOTHING, Fault::Cut),
        row("refuse", "Redis refuses connections for 1-3 s", NOTHING, Fault::Refuse),
        row(
            "hole",
            "half-open connections: both ways swallowed",
            NOTHING,
            turn(Way::Hole, Way::Hole, 3),
        ),
        row(
            "hole-requests",
            "half-open: what goes to Redis is swallowed",
            NOTHING,
            turn(Way::Hole, clear, 3),
        ),
        short(row(
            "hole-answers",
            "half-open: what Redis says is swallowed",
            NOTHING,
            turn(clear, Way::Hole, 3),
        )),
        row(
            "stall",
            "answers of Redis stall for 3 s and come then",
            NOTHING,
            turn(clear, Way::Stalled, 3),
        ),
        row("slow-50", "50 ms more each way", NOTHING, turn(slow(50), slow(50), 8)),
        row("slow-500", "500 ms more each way", NOTHING, turn(slow(500), slow(500), 8)),
        row(
            "pause",
            "Redis holds commands back (`CLIENT PAUSE`, 1-4 s)",
            NOTHING,
            Fault::PauseRedis,
        ),
        row("hang-redis", "Redis hangs (SIGSTOP, 3-5 s)", NOTHING, Fault::HangRedis),
        short(row(
            "kill-redis-always",
            "Redis killed and restarted, `appendfsync always`",
            ALWAYS,
            Fault::KillRedis,
        )),
        row(
            "kill-redis-everysec",
            "Redis killed and restarted, `appendfsync everysec`",
            Store::Single(Keeps::Everysec),
            Fault::KillRedis,
        ),
        measured(row(
            "kill-redis-nothing",
            "Redis killed and restarted, no persistence",
            NOTHING,
            Fault::KillRedis,
        )),
        row(
            "kill-subscriptions",
            "every subscription killed, again and again",
            NOTHING,
            Fault::KillSubscriptions,
        ),
        short(row(
            "deaf",
            "subscriptions deaf on healthy connections",
            NOTHING,
            turn(clear, Way::Deaf, 4),
        )),
        row(
            "flush-functions",
            "the function library removed under load",
            NOTHING,
            Fault::FlushFunctions,
        ),
        Row {
            promise: Promise::Unnoticed,
            ..short(row(
                "upgrade",
                "the function library of an older and a newer version, replicas restarted, `migrate` twice at once",
                NOTHING,
                Fault::Upgrade,
            ))
        },
        Row {
            apart: [0, 1, -1],
            ..short(row(
                "clocks-differ",
                "the clocks of two replicas an hour ahead and an hour behind, connections to Redis cut",
                NOTHING,
                Fault::Cut,
            ))
        },
        short(row(
            "clock-steps",
            "the clock of Redis steps by up to two minutes, forward and back",
            Store::Clocked,
            Fault::StepClock,
        )),
        row("out-of-memory", "Redis out of memory (`noeviction`)", NOTHING, Fault::OutOfMemory),
        measured(row(
            "partition",
            "replication cut for 3-6 s, then the primary lost",
            pair(false),
            Fault::Partition,
        )),
        measured(row(
            "partition-min-replicas",
            "the same with `min-replicas-to-write 1`, `min-replicas-max-lag 1`",
            pair(true),
            Fault::Partition,
        )),
        kept(
            CONFIRMED,
            row(
                "partition-replicated",
                "the same with `redis.durability = replicated`",
                pair(false),
                Fault::Partition,
            ),
        ),
        failover("sentinel-kill", "Sentinel: the primary killed", Store::Sentinel, Failover::Kill),
        kept(
            CONFIRMED_BY_TWO,
            failover(
                "sentinel-kill-replicated",
                "the same with `redis.durability = replicated`, both replicas",
                Store::Sentinel,
                Failover::Kill,
            ),
        ),
        failover(
            "sentinel-hang",
            "Sentinel: the primary hangs (SIGSTOP)",
            Store::Sentinel,
            Failover::Hang,
        ),
        failover(
            "sentinel-graceful",
            "Sentinel: `SENTINEL FAILOVER`",
            Store::Sentinel,
            Failover::Ask,
        ),
        kept(
            CONFIRMED_BY_TWO,
            failover(
                "sentinel-graceful-replicated",
                "the same with `redis.durability = replicated`, both replicas",
                Store::Sentinel,
                Failover::Ask,
            ),
        ),
        row("cluster-calm", "Cluster: no fault", Store::Cluster, Fault::Calm),
        row(
            "cluster-migrate",
            "Cluster: slots move between primaries",
            Store::Cluster,
            Fault::Migrate,
        ),
        failover("cluster-kill", "Cluster: a primary killed", Store::Cluster, Failover::Kill),
        kept(
            CONFIRMED,
            failover(
                "cluster-kill-replicated",
                "the same with `redis.durability = replicated`",
                Store::Cluster,
                Failover::Kill,
            ),
        ),
        failover(
            "cluster-hang",
            "Cluster: a primary hangs (SIGSTOP)",
            Store::Cluster,
            Failover::Hang,
        ),
        failover("cluster-graceful", "Cluster: `CLUSTER FAILOVER`", Store::Cluster, Failover::Ask),
        Row {
            crew: rude,
            promise: Promise::Broken(Sabotage::Pop),
            ..short(row(
                "sabotage-pop",
                "fetch pops in place of leasing; readers hang up",
                NOTHING,
                turn(clear, Way::Eaten(0.05), 3),
            ))
        },
        Row {
            promise: Promise::Broken(Sabotage::EarlyAck),
            ..short(row(
                "sabotage-early-ack",
                "sends answered before they are written; Redis killed",
                ALWAYS,
                Fault::KillRedis,
            ))
        },
        Row {
            promise: Promise::Broken(numb),
            lasting: secs(30),
            ..short(row(
                "sabotage-deaf",
                "wake-ups dropped, probes of the subscription let through",
                NOTHING,
                Fault::Calm,
            ))
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = rows().iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows().len());
    }
}
