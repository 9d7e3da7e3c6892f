//! Teams: one document each, replaced as a whole by a function if it is still the one that was read.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{
    RedisQueue, count, credentials::refusal, functions::Operation, keys, reply, reply::contract,
    text,
};
use crate::{
    model::{MessageId, Tenant},
    queue::{Ending, KeptTeam, QueueError, Team, TeamStore},
};

/// The layout of what is kept. Raised when older replicas would misread it.
const VERSION: &str = "1";

#[async_trait]
impl TeamStore for RedisQueue {
    async fn team(&self, tenant: &Tenant) -> Result<KeptTeam, QueueError> {
        let fields: HashMap<_, _> = self.hash(tenant, "t").await?.into_iter().collect();
        let Some(version) = fields.get("v") else { return Ok(KeptTeam::default()) };
        if version != VERSION {
            return Err(contract(&format!("a team is of version {version}, not {VERSION}")));
        }
        let read = || {
            let revision = fields.get("r")?.parse().ok()?;
            Some(KeptTeam { team: serde_json::from_str(fields.get("d")?).ok()?, revision })
        };
        // A rule that is not understood must not be overlooked.
        read().ok_or_else(|| contract("a team is unreadable"))
    }

    async fn replace_team(
        &self,
        tenant: &Tenant,
        revision: u64,
        team: &Team,
        ends: &[Ending],
    ) -> Result<bool, QueueError> {
        // Fails for maps with keys that are no strings only: there are none.
        let json = serde_json::to_string(team).map_err(|error| contract(&error.to_string()))?;
        let (key, slot) = keys::credentials(tenant, "t");
        // Names this change, so that its repetition is known as one.
        let change = MessageId::new();
        let mut args = vec![text(VERSION), count(revision), text(&change.to_string()), text(&json)];
        let mut names = vec![key];
        if !ends.is_empty() {
            names.push(keys::credentials(tenant, "k").0);
            args.extend(ends.iter().flat_map(refusal));
        }
        let answer = self.link.call(Operation::TeamReplace, slot, names, args).await?;
        match usize::try_from(reply::integer(&answer)?) {
            Ok(0) => Ok(false),
            Ok(done) if done == 1 + ends.len() => Ok(true),
            // An older function took the document and overlooked the keys.
            _ => Err(contract("the functions in Redis are older than this server")),
        }
    }
}
