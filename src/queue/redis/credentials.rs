//! Revocations and records of keys, under plain commands: no replica writes here, and whoever runs
//! `mcp-messaging keys` does so rarely.

use std::time::Duration;

use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    RedisQueue, keys,
    reply::{self, Failure, contract},
    text,
};
use crate::{
    model::{Grant, Tenant},
    queue::{CredentialStore, Ending, IssuedKey, KeyId, QueueError, Revocations},
};

/// An [`IssuedKey`] as it stands in Redis.
#[derive(Serialize, Deserialize)]
struct Record {
    master: String,
    client: String,
    scopes: String,
    generation: u32,
    issued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// How the end of keys stands among what is refused: field and value.
pub(super) fn refusal(ending: &Ending) -> [Value; 2] {
    match ending {
        Ending::Below { grant, generation, from_ms } => {
            [text(&below(grant, *generation)), text(&from_ms.to_string())]
        }
        Ending::Key(id) => [text(&format!("r:{id}")), text("1")],
    }
}

fn below(grant: &Grant, generation: u32) -> String {
    format!("g:{}:{generation}", grant.expose())
}

impl RedisQueue {
    /// A command that may be repeated, on a key of one slot.
    async fn plain(
        &self,
        command: &'static str,
        slot: u16,
        args: Vec<Value>,
    ) -> Result<Value, QueueError> {
        let (link, started) = (&self.link, Instant::now());
        let mut delay = Duration::from_millis(20);
        loop {
            let command = CustomCommand::new_static(command, ClusterHash::Custom(slot), false);
            let error: Error = match link.client.custom(command, args.clone()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match reply::sort(&error) {
                Failure::Passing(error) if started.elapsed() + delay > link.retry_for => {
                    return Err(error);
                }
                Failure::Passing(_) => tokio::time::sleep(delay).await,
                Failure::Final(error) => return Err(error),
                Failure::FunctionMissing | Failure::NoFunctions => {
                    return Err(QueueError::Unavailable { detail: error.to_string() });
                }
            }
            delay = (delay * 2).min(Duration::from_millis(500));
        }
    }

    /// The fields and values of a hash of the tenant's keys.
    pub(super) async fn hash(
        &self,
        tenant: &Tenant,
        part: &str,
    ) -> Result<Vec<(String, String)>, QueueError> {
        let (key, slot) = keys::credentials(tenant, part);
        let value = self.plain("HGETALL", slot, vec![key]).await?;
        let map = value.into_map().map_err(|_| contract("a hash of keys is none"))?;
        let pairs = map.inner().into_iter().map(|(field, value)| {
            let (field, value) = (field.as_str().map(str::to_owned), value.as_string());
            field.zip(value).ok_or_else(|| contract("a hash of keys holds what is no text"))
        });
        pairs.collect()
    }
}

#[async_trait]
impl CredentialStore for RedisQueue {
    async fn revocations(&self, tenant: &Tenant) -> Result<Revocations, QueueError> {
        let mut rules = Revocations::default();
        for (field, value) in self.hash(tenant, "k").await? {
            let read = (|| {
                match field.split_at_checked(2)? {
                    ("g:", rest) => {
                        let (grant, generation) = rest.rsplit_once(':')?;
                        rules.limit(
                            grant.parse().ok()?,
                            generation.parse().ok()?,
                            value.parse().ok()?,
                        );
                    }
                    ("r:", id) => rules.revoke(id.parse().ok()?),
                    _ => return None,
                }
                Some(())
            })();
            // A revocation that is not understood must not be overlooked.
            read.ok_or_else(|| contract("a revocation is unreadable"))?;
        }
        Ok(rules)
    }

    async fn begin_generation(
        &self,
        tenant: &Tenant,
        grant: &Grant,
        from_ms: u64,
    ) -> Result<u32, QueueError> {
        let (key, slot) = keys::credentials(tenant, "k");
        let mut generation = self.revocations(tenant).await?.generation(grant);
        loop {
            generation = generation
                .checked_add(1)
                .ok_or_else(|| contract("generations have come to their end"))?;
            let field = text(&below(grant, generation));
            let args = vec![key.clone(), field, text(&from_ms.to_string())];
            // Not set: somebody began this one at the same time, and then the next is ours.
            if self.plain("HSETNX", slot, args).await?.as_i64() == Some(1) {
                return Ok(generation);
            }
        }
    }

    async fn revoke_key(&self, tenant: &Tenant, id: KeyId) -> Result<(), QueueError> {
        let (key, slot) = keys::credentials(tenant, "k");
        let [field, value] = refusal(&Ending::Key(id));
        self.plain("HSET", slot, vec![key, field, value]).await?;
        Ok(())
    }

    async fn record_key(&self, tenant: &Tenant, key: &IssuedKey) -> Result<(), QueueError> {
        let record = Record {
            master: key.master.clone(),
            client: key.grant.expose(),
            scopes: key.scopes.to_string(),
            generation: key.generation,
            issued_at: key.issued_at,
            expires_at: key.expires_at,
        };
        // Fails for maps with keys that are no strings only: there are none.
        let json = serde_json::to_string(&record).map_err(|error| contract(&error.to_string()))?;
        let (name, slot) = keys::credentials(tenant, "i");
        self.plain("HSET", slot, vec![name, text(&key.id.to_string()), text(&json)]).await?;
        Ok(())
    }

    async fn recorded_keys(&self, tenant: &Tenant) -> Result<Vec<IssuedKey>, QueueError> {
        let read = |(id, json): &(String, String)| {
            let record: Record = serde_json::from_str(json).ok()?;
            Some(IssuedKey {
                id: id.parse().ok()?,
                master: record.master,
                grant: record.client.parse().ok()?,
                scopes: record.scopes.parse().ok()?,
                generation: record.generation,
                issued_at: record.issued_at,
                expires_at: record.expires_at,
            })
        };
        let all = self.hash(tenant, "i").await?;
        let keys = all.iter().map(|field| read(field).ok_or_else(|| contract("a record of a key")));
        let mut keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        keys.sort_by_key(|key| (std::cmp::Reverse(key.issued_at), key.id.to_string()));
        Ok(keys)
    }
}
