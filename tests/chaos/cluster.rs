//! A Redis Cluster: three primaries, a replica of each.

use std::{path::Path, time::Duration};

use rand::{Rng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    faults::Failover,
    process,
    redis::{Keeps, Server},
    resp::{self, Value},
};

/// The servers.
pub(crate) struct Cluster {
    servers: Vec<Server>,
}

const PRIMARIES: usize = 3;
const SLOTS: usize = 16384;
/// How long the nodes may take to agree.
const PATIENCE: Duration = Duration::from_secs(40);
/// A server that hangs is given up after two seconds, and replaced within a few.
const HANG: std::ops::Range<u64> = 6000..9000;

/// A line of `CLUSTER NODES`.
#[derive(Debug, Clone)]
struct Node {
    id: String,
    port: u16,
    primary: bool,
    well: bool,
    of: String,
    slots: Vec<(u16, u16)>,
}

fn nodes(text: &str) -> Vec<Node> {
    let node = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [id, address, flags, of, _, _, _, link, slots @ ..] = words.as_slice() else {
            return None;
        };
        let port = address.split('@').next()?.rsplit(':').next()?.parse().ok()?;
        let range = |slot: &&str| {
            let (from, to) = slot.split_once('-').unwrap_or((slot, slot));
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        let flag = |name| flags.split(',').any(|flag: &str| flag == name);
        Some(Node {
            id: (*id).to_owned(),
            port,
            primary: flag("master"),
            well: !flags.contains("fail") && !flag("handshake") && *link == "connected",
            of: (*of).to_owned(),
            slots: slots.iter().filter_map(range).collect(),
        })
    };
    text.lines().filter_map(node).collect()
}

impl Cluster {
    pub(crate) async fn start(dir: &Path) -> Outcome<Self> {
        let mut servers = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..PRIMARIES * 2 {
            let bus = process::free_port()?.to_string();
            let arguments = [
                ["--cluster-enabled", "yes"],
                ["--cluster-port", &bus],
                ["--cluster-node-timeout", "2000"],
                ["--cluster-replica-validity-factor", "0"],
                ["--repl-diskless-sync-delay", "0"],
            ];
            servers.push(Server::start(dir, Keeps::Nothing, arguments.as_flattened()).await?);
            buses.push(bus);
        }
        let cluster = Self { servers };
        let first = &cluster.servers[0];
        for (server, bus) in cluster.servers.iter().zip(&buses).skip(1) {
            let port = server.port.to_string();
            first.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await?;
        }
        for (index, server) in cluster.servers.iter().enumerate().take(PRIMARIES) {
            let from = (SLOTS * index / PRIMARIES).to_string();
            let to = (SLOTS * (index + 1) / PRIMARIES - 1).to_string();
            server.tell(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await?;
        }
        let everybody = cluster.servers.len();
        cluster.agreed(|nodes| nodes.iter().filter(|node| node.well).count() == everybody).await?;
        for (index, server) in cluster.servers.iter().enumerate().skip(PRIMARIES) {
            let id = cluster.servers[index - PRIMARIES].tell(&["CLUSTER", "MYID"]).await?;
            server.tell(&["CLUSTER", "REPLICATE", id.text()]).await?;
        }
        cluster.settled().await?;
        Ok(cluster)
    }

    /// Waits until every server sees the same, and this.
    async fn agreed(&self, condition: impl Fn(&[Node]) -> bool) -> Outcome<()> {
        let patience = Instant::now() + PATIENCE;
        for server in &self.servers {
            loop {
                let text = resp::ask(server.port, &["CLUSTER", "NODES"]).await;
                if text.as_ref().is_ok_and(|text| condition(&nodes(text.text()))) {
                    break;
                }
                if Instant::now() > patience {
                    return Err(format!("the cluster does not agree: {text:?}").into());
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until all slots are served and each primary has a replica that follows it.
    async fn settled(&self) -> Outcome<()> {
        let everybody = self.servers.len();
        self.agreed(|nodes| {
            let owns = |node: &Node| node.well && node.primary && !node.slots.is_empty();
            let follows = |node: &Node| node.well && !node.primary;
            let owners = nodes.iter().filter(|node| owns(node)).count();
            owners == PRIMARIES && nodes.iter().filter(|n| follows(n)).count() == everybody - owners
        })
        .await?;
        for server in &self.servers {
            let well = |answer: &Value| {
                let text = answer.text();
                text.contains("role:master") || text.contains("master_link_status:up")
            };
            server.until(&["INFO", "replication"], well).await?;
            let whole = |answer: &Value| answer.text().contains("cluster_state:ok");
            server.until(&["CLUSTER", "INFO"], whole).await?;
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        let [first, others @ ..] = self.servers.as_slice() else { return String::new() };
        let nodes: Vec<_> =
            others.iter().map(|other| format!("node=127.0.0.1:{}", other.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port, nodes.join("&"))
    }

    async fn nodes(&self) -> Outcome<Vec<Node>> {
        for server in &self.servers {
            if let Ok(text) = resp::tell(server.port, &["CLUSTER", "NODES"]).await {
                return Ok(nodes(text.text()));
            }
        }
        Err("no node of the cluster answers".into())
    }

    fn server(&mut self, port: u16) -> Outcome<&mut Server> {
        let server = self.servers.iter_mut().find(|server| server.port == port);
        server.ok_or_else(|| format!("no server on port {port}").into())
    }

    /// Ends the rule of one of the primaries in this way, and waits for its successor.
    pub(crate) async fn fail_over(&mut self, how: Failover, chance: &mut StdRng) -> Outcome<()> {
        let all = self.nodes().await?;
        let primaries: Vec<_> = all.iter().filter(|node| node.primary).collect();
        let old = primaries[chance.random_range(0..primaries.len())];
        let heir = all.iter().find(|node| node.of == old.id).ok_or("a primary has no replica")?;
        match how {
            Failover::Kill => self.server(old.port)?.kill(),
            Failover::Hang => {
                self.server(old.port)?.hang(true)?;
                sleep(Duration::from_millis(chance.random_range(HANG))).await;
                self.server(old.port)?.hang(false)?;
            }
            Failover::Ask => {
                self.server(heir.port)?.tell(&["CLUSTER", "FAILOVER"]).await?;
            }
        }
        let rules = |answer: &Value| {
            let nodes = nodes(answer.text());
            nodes.iter().any(|node| node.id == heir.id && node.primary && !node.slots.is_empty())
        };
        self.server(heir.port)?.until(&["CLUSTER", "NODES"], rules).await?;
        if how == Failover::Kill {
            sleep(Duration::from_millis(chance.random_range(500..2000))).await;
            self.server(old.port)?.restart().await?;
        }
        self.settled().await
    }

    /// Moves the slot of one of the buckets of the mailbox to another primary, as resharding does.
    pub(crate) async fn migrate(&mut self, chance: &mut StdRng) -> Outcome<()> {
        let all = self.nodes().await?;
        let tag = format!("{{b{}}}", chance.random_range(0..256));
        let Value::Integer(slot) = self.servers[0].tell(&["CLUSTER", "KEYSLOT", &tag]).await?
        else {
            return Err("a slot is a number".into());
        };
        let slot = u16::try_from(slot)?;
        let owns = |node: &&Node| node.slots.iter().any(|&(a, b)| (a..=b).contains(&slot));
        let from = all.iter().find(owns).ok_or("a slot has no owner")?;
        let others: Vec<_> = all.iter().filter(|n| n.primary && n.id != from.id).collect();
        let to = others[chance.random_range(0..others.len())];
        let (slot, port) = (slot.to_string(), to.port.to_string());
        let (source, target) = (from.port, to.port);
        resp::tell(target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]).await?;
        resp::tell(source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await?;
        loop {
            let keys = resp::tell(source, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await?;
            if keys.list().is_empty() {
                break;
            }
            let to = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let mut words: Vec<&[u8]> = to.iter().map(|word| word.as_bytes()).collect();
            words.extend(keys.list().iter().map(Value::bytes));
            resp::tell(source, &words).await?;
        }
        let others = all.iter().filter(|node| node.primary).map(|node| node.port);
        for port in [target, source].into_iter().chain(others) {
            resp::tell(port, &["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_a_cluster_are_read() {
        let text = "aaa 127.0.0.1:7001@17001 myself,master - 0 1 1 connected 0-5460 6000 [7->-bbb]\n\
                    bbb 127.0.0.1:7002@17002,host slave aaa 0 1 1 connected\n\
                    ccc 127.0.0.1:7003@17003 master,fail? - 0 1 1 disconnected 5461\n";
        let nodes = nodes(text);
        assert_eq!(nodes.len(), 3);
        assert!(nodes[0].primary && nodes[0].well);
        assert_eq!(nodes[0].slots, [(0, 5460), (6000, 6000)]);
        assert_eq!((nodes[1].port, nodes[1].primary, &*nodes[1].of), (7002, false, "aaa"));
        assert!(!nodes[2].well);
    }
}
