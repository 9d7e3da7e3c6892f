//! A primary and a replica of Redis behind one address, as a virtual IP has it.

use std::{path::Path, time::Duration};

use rand::{Rng, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    Outcome,
    proxy::{Proxy, Way},
    redis::{Keeps, Server},
};

/// Both, and the wire between them.
pub(crate) struct Pair {
    pub primary: Server,
    replica: Server,
    wire: Proxy,
}

impl Pair {
    /// `safe`: the primary takes writes only while its replica follows within a second.
    pub(crate) async fn start(dir: &Path, safe: bool, chance: &mut StdRng) -> Outcome<Self> {
        let safety = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"];
        let safety = if safe { safety.as_slice() } else { &[] };
        let primary = Server::start(dir, Keeps::Nothing, safety).await?;
        let wire = Proxy::before(primary.port, chance.random()).await?;
        let following = ["--replicaof", "127.0.0.1", &wire.port.to_string()];
        let replica = Server::start(dir, Keeps::Nothing, &following).await?;
        replica.replicates().await?;
        Ok(Self { primary, replica, wire })
    }

    /// Cuts the replica off, lets the primary work on, ends it, and puts the replica in its place.
    pub(crate) async fn lose_primary(
        &mut self,
        clients: &[Proxy],
        chance: &mut StdRng,
    ) -> Outcome<()> {
        self.wire.turn(Way::Hole, Way::Hole);
        sleep(Duration::from_millis(chance.random_range(3000..6000))).await;
        self.primary.kill();
        self.replica.tell(&["REPLICAOF", "NO", "ONE"]).await?;
        for client in clients {
            client.lead_to(self.replica.port);
        }
        Ok(())
    }
}
