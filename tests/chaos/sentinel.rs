//! A primary, two replicas and three Sentinels.

use std::{path::Path, time::Duration};

use rand::{Rng, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    Outcome,
    faults::Failover,
    redis::{Keeps, Server},
    resp::Value,
};

/// The set.
pub(crate) struct Sentinel {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

const NAME: &str = "mailbox";
/// A server that hangs is given up by the Sentinels after a second, and replaced within a few.
const HANG: std::ops::Range<u64> = 5000..8000;

impl Sentinel {
    pub(crate) async fn start(dir: &Path) -> Outcome<Self> {
        let primary = Server::start(dir, Keeps::Nothing, &[]).await?;
        let following = ["--replicaof", "127.0.0.1", &primary.port.to_string()];
        let (mut servers, mut sentinels) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            servers.push(Server::start(dir, Keeps::Nothing, &following).await?);
        }
        for replica in &servers {
            replica.replicates().await?;
        }
        for _ in 0..3 {
            sentinels.push(Server::sentinel(dir, primary.port).await?);
        }
        servers.push(primary);
        let set = Self { servers, sentinels };
        set.settled().await?;
        Ok(set)
    }

    /// Waits until every Sentinel knows everybody.
    async fn settled(&self) -> Outcome<()> {
        let knows = |answer: &Value, name: &str, count: &str| {
            let fields = answer.list().chunks(2);
            let mut found = fields.filter(|field| field[0].text() == name);
            found.any(|field| field.get(1).is_some_and(|value| value.text() == count))
        };
        for sentinel in &self.sentinels {
            let all = |answer: &Value| {
                knows(answer, "num-slaves", "2") && knows(answer, "num-other-sentinels", "2")
            };
            sentinel.until(&["SENTINEL", "MASTER", NAME], all).await?;
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        let [first, others @ ..] = self.sentinels.as_slice() else { return String::new() };
        let nodes: Vec<_> =
            others.iter().map(|other| format!("node=127.0.0.1:{}", other.port)).collect();
        let nodes = nodes.join("&");
        format!("redis-sentinel://127.0.0.1:{}?{nodes}&sentinelServiceName={NAME}", first.port)
    }

    /// The position of the primary, as the Sentinels see it.
    async fn primary(&self) -> Outcome<usize> {
        let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let answer = self.sentinels[0].tell(&asked).await?;
        let port = answer.list().get(1).map_or("", Value::text);
        let found = self.servers.iter().position(|server| server.port.to_string() == port);
        found.ok_or_else(|| format!("the Sentinels name {port:?}").into())
    }

    /// Ends the rule of the primary in this way, and waits for the next one.
    pub(crate) async fn fail_over(&mut self, how: Failover, chance: &mut StdRng) -> Outcome<()> {
        let old = self.primary().await?;
        match how {
            Failover::Kill => self.servers[old].kill(),
            Failover::Hang => {
                self.servers[old].hang(true)?;
                sleep(Duration::from_millis(chance.random_range(HANG))).await;
                self.servers[old].hang(false)?;
            }
            Failover::Ask => {
                self.sentinels[0].tell(&["SENTINEL", "FAILOVER", NAME]).await?;
            }
        }
        let former = self.servers[old].port.to_string();
        let replaced = |answer: &Value| answer.list().get(1).is_some_and(|p| p.text() != former);
        for sentinel in &self.sentinels {
            sentinel.until(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME], replaced).await?;
        }
        if how == Failover::Kill {
            sleep(Duration::from_millis(chance.random_range(500..2000))).await;
            self.servers[old].restart().await?;
        }
        // It comes back as a replica of the new one.
        self.servers[old].replicates().await?;
        self.settled().await
    }
}
