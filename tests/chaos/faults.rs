//! What goes wrong during a run.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    proxy::Way,
    site::{Running, Site},
    upgrade,
};

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// None: what is left is the price of the load itself.
    Calm,
    /// A replica is killed, and another one, and started again.
    KillReplica,
    /// Replicas are asked to end and started again, one after the other.
    RollReplicas,
    /// Redis is killed and started again.
    KillRedis,
    /// Redis stops in the middle, for longer than a command may take.
    HangRedis,
    /// Redis holds every command back for a while.
    PauseRedis,
    /// Connections are cut.
    Cut,
    /// Connections are cut, and new ones refused.
    Refuse,
    /// Bytes go another way for a while: to Redis, to the replica.
    Turn(Way, Way, Duration),
    /// Every subscription is cut, again and again.
    KillSubscriptions,
    /// The library is taken out of Redis.
    FlushFunctions,
    /// Redis has no memory left.
    OutOfMemory,
    /// The primary works on without its replica, and then it is gone; once.
    Partition,
    /// A primary is replaced by its replica.
    Failover(Failover),
    /// Slots of a cluster move.
    Migrate,
    /// The clock of Redis steps, forward and back; in the end it is ahead.
    StepClock,
    /// Another version of the functions comes, and replicas are restarted; in both orders, once.
    Upgrade,
}

/// How a primary ends its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failover {
    /// It is killed, and comes back later.
    Kill,
    /// It hangs (SIGSTOP), and goes on later.
    Hang,
    /// It is asked to hand over.
    Ask,
}

/// So many seconds a clock may be off.
const FURTHEST: i64 = 60;

/// Time to wait for, by chance.
fn within(chance: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(chance.random_range(range))
}

impl Fault {
    /// Makes trouble from now on for so long, and mends what can be mended in the end.
    pub(crate) async fn strike(
        self,
        site: &mut Site,
        chance: &mut StdRng,
        lasting: Duration,
    ) -> Outcome<()> {
        let end = Instant::now() + lasting;
        while Instant::now() < end {
            self.once(site, chance).await?;
            if matches!(self, Self::Partition | Self::Upgrade) {
                break;
            }
        }
        if self == Self::StepClock {
            // What was sent by a clock that is behind now would live on for the difference, and be missed.
            site.store.single()?.set_clock(FURTHEST)?;
        }
        for proxy in &site.proxies {
            proxy.mend();
        }
        Ok(())
    }

    /// Strikes once, and leaves some time until the next.
    async fn once(self, site: &mut Site, chance: &mut StdRng) -> Outcome<()> {
        let which = chance.random_range(0..site.replicas.len());
        match self {
            Self::Calm => sleep(Duration::from_millis(200)).await,
            Self::KillReplica => {
                site.replicas[which].kill();
                sleep(within(chance, 50..800)).await;
                site.replicas[which].restart().await?;
                sleep(within(chance, 200..1200)).await;
            }
            Self::RollReplicas => {
                site.replicas[which].terminate().await?;
                site.replicas[which].restart().await?;
                site.replicas[which].ready().await?;
                sleep(within(chance, 100..500)).await;
            }
            Self::KillRedis => {
                let redis = site.store.single()?;
                redis.kill();
                sleep(within(chance, 50..1500)).await;
                redis.restart().await?;
                sleep(within(chance, 500..2500)).await;
            }
            Self::HangRedis => {
                let redis = site.store.single()?;
                redis.hang(true)?;
                sleep(within(chance, 3000..5500)).await;
                redis.hang(false)?;
                sleep(within(chance, 1500..2500)).await;
            }
            Self::PauseRedis => {
                let length = within(chance, 1000..4000);
                let ms = length.as_millis().to_string();
                site.store.single()?.tell(&["CLIENT", "PAUSE", &ms, "ALL"]).await?;
                sleep(length + within(chance, 1000..2000)).await;
            }
            Self::Cut => {
                site.proxies[which].cut();
                sleep(within(chance, 50..600)).await;
            }
            Self::Refuse => {
                site.proxies[which].refuse(true);
                sleep(within(chance, 1000..3000)).await;
                site.proxies[which].refuse(false);
                sleep(within(chance, 500..1000)).await;
            }
            Self::Turn(to_redis, to_replica, length) => {
                site.proxies[which].turn(to_redis, to_replica);
                sleep(length.mul_f64(chance.random_range(0.7..1.3))).await;
                site.proxies[which].turn(Way::Clear, Way::Clear);
                sleep(within(chance, 200..1500)).await;
            }
            Self::KillSubscriptions => {
                site.store.single()?.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
                sleep(within(chance, 50..500)).await;
            }
            Self::FlushFunctions => {
                site.store.single()?.tell(&["FUNCTION", "FLUSH"]).await?;
                sleep(within(chance, 50..500)).await;
            }
            Self::OutOfMemory => {
                site.store.single()?.tell(&["CONFIG", "SET", "maxmemory", "1"]).await?;
                sleep(within(chance, 500..2000)).await;
                site.store.single()?.tell(&["CONFIG", "SET", "maxmemory", "0"]).await?;
                sleep(within(chance, 500..1500)).await;
            }
            Self::Partition => {
                let Running::Pair(pair) = &mut site.store else {
                    return Err("a partition is between two servers".into());
                };
                pair.lose_primary(&site.proxies, chance).await?;
            }
            Self::Failover(how) => {
                match &mut site.store {
                    Running::Sentinel(sentinel) => sentinel.fail_over(how, chance).await?,
                    Running::Cluster(cluster) => cluster.fail_over(how, chance).await?,
                    Running::Single(_) | Running::Pair(_) => return Err("no successor".into()),
                }
                sleep(within(chance, 1000..3000)).await;
            }
            Self::Migrate => {
                let Running::Cluster(cluster) = &mut site.store else {
                    return Err("slots are of a cluster".into());
                };
                cluster.migrate(chance).await?;
                sleep(within(chance, 5..50)).await;
            }
            Self::StepClock => {
                let by = chance.random_range(-FURTHEST..=FURTHEST);
                site.store.single()?.set_clock(by)?;
                sleep(within(chance, 300..1500)).await;
            }
            Self::Upgrade => upgrade::roll(site, chance).await?,
        }
        Ok(())
    }
}
