//! What a run is about: a store, replicas on it, and the wires between them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

use crate::{
    Outcome,
    clock::Clock,
    cluster::Cluster,
    pair::Pair,
    proxy::{Proxy, Way},
    redis::{Keeps, Server},
    replica::Replica,
    rows::Row,
    sabotage::Sabotage,
    sentinel::Sentinel,
};

/// Replicas of every run.
pub(crate) const REPLICAS: usize = 3;

/// The store of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// One server.
    Single(Keeps),
    /// One server that keeps nothing, whose clock can be set.
    Clocked,
    /// A primary and a replica behind one address; `safe` with `min-replicas-to-write`.
    Pair { safe: bool },
    /// A primary, two replicas, three Sentinels.
    Sentinel,
    /// Three primaries, a replica of each.
    Cluster,
}

/// A running store.
pub(crate) enum Running {
    Single(Server),
    Pair(Pair),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

/// Everything that runs.
pub(crate) struct Site {
    pub store: Running,
    /// One for each replica, where the store's addresses allow for it.
    pub proxies: Vec<Proxy>,
    pub replicas: Vec<Replica>,
}

impl Site {
    /// Starts it all below `dir`; every replica is ready when this returns.
    pub(crate) async fn start(
        dir: &Path,
        program: &Path,
        row: &Row,
        sabotage: Option<Sabotage>,
        chance: &mut StdRng,
    ) -> Outcome<Self> {
        let dir: PathBuf = dir.to_owned();
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let mut store = match row.store {
            Store::Single(keeps) => Running::Single(Server::start(&dir, keeps, &[]).await?),
            Store::Clocked => Running::Single(Server::with_clock(&dir).await?),
            Store::Pair { safe } => Running::Pair(Pair::start(&dir, safe, chance).await?),
            Store::Sentinel => Running::Sentinel(Sentinel::start(&dir).await?),
            Store::Cluster => Running::Cluster(Cluster::start(&dir).await?),
        };
        if let Some(library) = sabotage.map(Sabotage::library).transpose()?.flatten() {
            store.single()?.tell(&["FUNCTION", "LOAD", &library]).await?;
        }
        let (mut proxies, mut replicas) = (Vec::new(), Vec::new());
        for number in 0..REPLICAS {
            let url = match &store {
                Running::Single(server) | Running::Pair(Pair { primary: server, .. }) => {
                    let proxy = Proxy::before(server.port, chance.random()).await?;
                    if sabotage == Some(Sabotage::Deaf) {
                        proxy.turn(Way::Clear, Way::Numb);
                    }
                    let url = format!("redis://127.0.0.1:{}", proxy.port);
                    proxies.push(proxy);
                    url
                }
                Running::Sentinel(sentinel) => sentinel.url(),
                Running::Cluster(cluster) => cluster.url(),
            };
            let log = dir.join(format!("replica-{number}.log"));
            let clock = match row.apart[number] {
                0 => None,
                hours => {
                    let clock = Clock::right(&dir, &format!("replica-{number}"))?;
                    clock.set(hours * 3600)?;
                    Some(clock)
                }
            };
            let settings = row.settings;
            replicas.push(Replica::with_clock(program, url, settings, log, clock).await?);
        }
        let site = Self { store, proxies, replicas };
        site.ready().await?;
        Ok(site)
    }

    /// Waits until every replica is ready.
    pub(crate) async fn ready(&self) -> Outcome<()> {
        for replica in &self.replicas {
            replica.ready().await?;
        }
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.address).collect()
    }
}

impl Running {
    /// The server, where there is one.
    pub(crate) fn single(&mut self) -> Outcome<&mut Server> {
        match self {
            Self::Single(server) => Ok(server),
            Self::Pair(_) | Self::Sentinel(_) | Self::Cluster(_) => {
                Err("this fault is for a single server".into())
            }
        }
    }
}
