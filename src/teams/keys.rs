//! Keys of a team, for whoever may make them: what `mcp-messaging keys` does, for admins.

use std::time::Duration;

use secrecy::SecretString;

use super::{Actor, Keys, TeamError, Teams, audit};
use crate::{
    auth::ApiKey,
    model::{Grant, Scopes},
    queue::{Ending, IssuedKey, KeyId, Member, Role, Team},
};

/// Longest life of a key that an admin makes, days. Those without an end are the operator's to make.
const DAYS: u64 = 365;
/// Longest time for which older keys stay good after a rotation.
const GRACE: Duration = Duration::from_secs(30 * 86_400);

/// For whom a key is to be.
#[derive(Debug, Clone)]
pub struct KeySpec {
    /// Which ids it proves.
    pub client: Grant,
    /// What it allows.
    pub scopes: Scopes,
    /// It expires after so many days, 1 to 365.
    pub days: u64,
}

/// A key that was made. It is not shown again.
#[derive(Debug)]
pub struct Made {
    /// What it proves.
    pub key: ApiKey,
    /// As its holder sends it.
    pub sealed: SecretString,
}

/// A key that was recorded when it was made.
#[derive(Debug, Clone)]
pub struct ListedKey {
    /// What it proves.
    pub key: IssuedKey,
    /// `good`, `ends` (rotated, good for a while), `expired` or `revoked`.
    pub state: &'static str,
    /// When it ends after a rotation, ms since the Unix epoch.
    pub ends_ms: Option<u64>,
}

impl Keys {
    fn listed(&self, key: &IssuedKey) -> ListedKey {
        let ends = self.revoked.ends(&key.grant, key.generation);
        let state = match ends {
            _ if self.is_good(key) && ends.is_some() => "ends",
            _ if self.is_good(key) => "good",
            _ if self.revoked.refuses(&key.grant, key.generation, key.id, self.now_ms) => "revoked",
            _ => "expired",
        };
        ListedKey { key: key.clone(), state, ends_ms: ends.filter(|_| state == "ends") }
    }
}

impl Teams {
    /// The keys that were recorded, latest first. Whoever has a master key can make others.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn keys(&self, by: &Actor) -> Result<Vec<ListedKey>, TeamError> {
        let keys = self.keys_of(&by.tenant).await?;
        Ok(keys.recorded.iter().map(|key| keys.listed(key)).collect())
    }

    /// Makes a key. Its client becomes a member, if it is none.
    ///
    /// # Errors
    /// [`TeamError::Beyond`], [`TeamError::Taken`] for ids of which some are another member's, and others.
    pub async fn issue(&self, by: &Actor, spec: &KeySpec) -> Result<Made, TeamError> {
        self.may_make("keys_issue", by, spec)?;
        self.note_member(by, spec, Role::of(spec.scopes)).await?;
        let revoked = self.store()?.revocations(&by.tenant).await?;
        let made = self.make(by, spec, revoked.generation(&spec.client)).await?;
        audit::done("keys_issue", by, Some(&spec.client));
        Ok(made)
    }

    /// Makes a key of the next generation; older keys of the client end after `grace`.
    ///
    /// # Errors
    /// As [`issue`](Self::issue), and [`TeamError::LastAdmin`].
    pub async fn rotate(
        &self,
        by: &Actor,
        spec: &KeySpec,
        grace: Duration,
    ) -> Result<Made, TeamError> {
        self.may_make("keys_rotate", by, spec)?;
        if grace > GRACE {
            return Err(TeamError::Value("grace_hours", "0 to 720"));
        }
        let (role, since) = (Role::of(spec.scopes), self.now_ms() / 1000);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let from_ms = self.now_ms().saturating_add(grace_ms);
        let begin = async |team: &mut Team, ends: &mut Vec<Ending>| {
            let keys = self.keys_of(&by.tenant).await?;
            if role == Role::Member {
                keys.keep_an_admin(|key| key.grant == spec.client)?;
            }
            enter(team, &spec.client, Member { role, since })?;
            let (ending, generation) = keys.ending(&spec.client, from_ms);
            ends.push(ending);
            Ok(generation)
        };
        let generation = self.change_and_end(&by.tenant, begin).await?;
        let made = self.make(by, spec, generation).await?;
        audit::done("keys_rotate", by, Some(&spec.client));
        Ok(made)
    }

    /// Takes back all keys of a client. It stays a member.
    ///
    /// # Errors
    /// [`TeamError::LastAdmin`] unless `insist`ed, and others.
    pub async fn revoke_client(
        &self,
        by: &Actor,
        client: &Grant,
        insist: Insist,
    ) -> Result<(), TeamError> {
        self.change_and_end(&by.tenant, async |_team, ends| {
            let keys = self.keys_of(&by.tenant).await?;
            if insist == Insist::No {
                keys.keep_an_admin(|key| key.grant == *client)?;
            }
            ends.push(keys.ending(client, 0).0);
            Ok(())
        })
        .await?;
        audit::done("keys_revoke", by, Some(client));
        Ok(())
    }

    /// Takes back one key, recorded or not.
    ///
    /// # Errors
    /// [`TeamError::LastAdmin`] unless `insist`ed, and others.
    pub async fn revoke_key(&self, by: &Actor, id: KeyId, insist: Insist) -> Result<(), TeamError> {
        self.change_and_end(&by.tenant, async |_team, ends| {
            if insist == Insist::No {
                self.keys_of(&by.tenant).await?.keep_an_admin(|key| key.id == id)?;
            }
            ends.push(Ending::Key(id));
            Ok(())
        })
        .await?;
        audit::done("keys_revoke", by, None);
        Ok(())
    }

    fn may_make(&self, action: &'static str, by: &Actor, spec: &KeySpec) -> Result<(), TeamError> {
        by.may_give(spec.scopes).inspect_err(|_| audit::refused(action, by, Some(&spec.client)))?;
        Actor::may_name(&spec.client)?;
        if !(1..=DAYS).contains(&spec.days) {
            return Err(TeamError::Value("days", "1 to 365"));
        }
        self.store()?;
        self.masters()?;
        Ok(())
    }

    /// Enters the holder of a key into the list of members.
    async fn note_member(&self, by: &Actor, spec: &KeySpec, role: Role) -> Result<(), TeamError> {
        let since = self.now_ms() / 1000;
        self.change(&by.tenant, async |team| enter(team, &spec.client, Member { role, since }))
            .await
    }

    /// Makes a key and records that it was made.
    pub(super) async fn make(
        &self,
        by: &Actor,
        spec: &KeySpec,
        generation: u32,
    ) -> Result<Made, TeamError> {
        let master = self.masters()?.current();
        let issued_at = self.now_ms() / 1000;
        let expires_at = Some(issued_at.saturating_add(spec.days.saturating_mul(86_400)));
        let KeySpec { client, scopes, .. } = spec.clone();
        let key = ApiKey::new(by.tenant.clone(), client.clone(), scopes, generation, expires_at);
        let record = IssuedKey {
            id: key.id,
            master: master.name().to_string(),
            grant: client,
            scopes,
            generation,
            issued_at,
            expires_at,
        };
        self.store()?.record_key(&by.tenant, &record).await?;
        let sealed = key.seal(master);
        Ok(Made { key, sealed })
    }
}

/// Enters the holder of a key, or its new role.
fn enter(team: &mut Team, client: &Grant, new: Member) -> Result<(), TeamError> {
    if let Some(member) = team.members.get_mut(client) {
        member.role = new.role;
        return Ok(());
    }
    // A further key for some of its ids.
    if team.members.keys().any(|grant| grant.includes(client)) {
        return Ok(());
    }
    if team.members.keys().any(|grant| grant.meets(client)) {
        return Err(TeamError::Taken);
    }
    team.members.insert(client.clone(), new);
    Ok(())
}

/// Whether something is done although nobody else could run the team then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insist {
    /// No.
    No,
    /// Yes: the operator can make another admin.
    EvenTheLastAdmin,
}
