//! Teams: who belongs to one, who invites and removes, who may write to whom.
//!
//! A tenant is a team. Its members hold keys, and an admin is who holds the scope `mailbox:admin`; what is done here
//! is done for a [`Principal`], whatever proved it, or for the operator. All of it is kept in the store as one
//! document a team, which is replaced as a whole: of two changes at the same time, the second looks again.
//!
//! Not here: making teams and master keys, which the operator does; letting calls in (`auth`); sending (`messaging`).

mod audit;
mod code;
mod contacts;
mod error;
mod keys;
mod members;
mod portable;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub use code::JoinCode;
pub use contacts::{Contacts, Unknown, Verdict};
pub use error::TeamError;
pub use keys::{Insist, KeySpec, ListedKey, Made};
pub use members::{InviteSpec, Invited, ListedMember, Listing};
pub use portable::Export;

use crate::{
    auth::MasterKeys,
    model::{Clock, Grant, Principal, Scopes, SystemClock, Tenant},
    queue::{ContactPolicy, Ending, IssuedKey, Revocations, Role, Team, TeamStore},
};

/// A change is tried so often when others change the team at the same time.
const ATTEMPTS: u32 = 40;
/// Longest document of a team, bytes.
const LONGEST: usize = 1 << 20;
/// Most entries of one list of a policy.
const LISTED: usize = 100;
/// Most other teams that one lists.
const TEAMS: usize = 1000;

/// What can be done about teams. Cheap to clone.
#[derive(Clone)]
pub struct Teams {
    store: Option<Arc<dyn TeamStore>>,
    masters: Option<Arc<MasterKeys>>,
    clock: Arc<dyn Clock>,
}

/// For whom something is done, and in which team.
#[derive(Debug, Clone)]
pub struct Actor {
    tenant: Tenant,
    /// `None`: the operator.
    holder: Option<Principal>,
}

impl Actor {
    /// Whoever runs the servers.
    #[must_use]
    pub fn operator(tenant: Tenant) -> Self {
        Self { tenant, holder: None }
    }

    /// Who called. `None`: nothing was proved, and so it belongs to no team.
    #[must_use]
    pub fn holder(principal: &Principal) -> Option<Self> {
        principal.grant()?;
        Some(Self { tenant: principal.tenant().clone(), holder: Some(principal.clone()) })
    }

    fn grant(&self) -> Option<&Grant> {
        self.holder.as_ref()?.grant()
    }

    /// A key is for one id, or for the beginning of some: both at once is what tokens prove.
    fn may_name(client: &Grant) -> Result<(), TeamError> {
        match client {
            Grant::One(_) | Grant::Below(_) => Ok(()),
            Grant::WithBelow(_) => {
                Err(TeamError::Value("client", "an id such as alice, or alice.*"))
            }
        }
    }

    /// Nobody gives more than it has.
    fn may_give(&self, scopes: Scopes) -> Result<(), TeamError> {
        let Some(holder) = &self.holder else { return Ok(()) };
        let all: Vec<_> = scopes.iter().collect();
        holder.lacks(&all).map_or(Ok(()), |scopes| Err(TeamError::Beyond(scopes)))
    }
}

/// What is known of the keys of a team.
struct Keys {
    recorded: Vec<IssuedKey>,
    revoked: Revocations,
    now_ms: u64,
}

impl Keys {
    fn is_good(&self, key: &IssuedKey) -> bool {
        let expired = key.expires_at.is_some_and(|at| at.saturating_mul(1000) <= self.now_ms);
        !expired && !self.revoked.refuses(&key.grant, key.generation, key.id, self.now_ms)
    }

    fn good(&self) -> impl Iterator<Item = &IssuedKey> {
        self.recorded.iter().filter(|key| self.is_good(key))
    }

    /// Refuses to take the last good key of an admin. One that a rotation lets be good for a while does not stay.
    fn keep_an_admin(&self, goes: impl Fn(&IssuedKey) -> bool) -> Result<(), TeamError> {
        let admins = || self.good().filter(|key| Role::of(key.scopes) == Role::Admin);
        let stays =
            |key: &IssuedKey| !goes(key) && self.revoked.ends(&key.grant, key.generation).is_none();
        if admins().any(&goes) && !admins().any(stays) {
            return Err(TeamError::LastAdmin);
        }
        Ok(())
    }

    /// The end of all keys of a grant, and the generation that follows.
    fn ending(&self, grant: &Grant, from_ms: u64) -> (Ending, u32) {
        // After the last one there is none: then it is one that was begun, and nothing is replaced.
        let generation = self.revoked.generation(grant).saturating_add(1);
        (Ending::Below { grant: grant.clone(), generation, from_ms }, generation)
    }
}

impl Teams {
    /// With a store that keeps teams, and master keys to make keys with, as far as there are any.
    #[must_use]
    pub fn new(
        store: Option<Arc<dyn TeamStore>>,
        masters: Option<Arc<MasterKeys>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, masters, clock }
    }

    /// Where there are no teams.
    #[must_use]
    pub fn none() -> Self {
        Self::new(None, None, Arc::new(SystemClock))
    }

    fn store(&self) -> Result<&dyn TeamStore, TeamError> {
        self.store.as_deref().ok_or(TeamError::NoStore)
    }

    fn masters(&self) -> Result<&MasterKeys, TeamError> {
        self.masters.as_deref().ok_or(TeamError::NoMasterKey)
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_us() / 1000
    }

    async fn keys_of(&self, tenant: &Tenant) -> Result<Keys, TeamError> {
        let store = self.store()?;
        let (recorded, revoked) =
            futures_util::try_join!(store.recorded_keys(tenant), store.revocations(tenant))?;
        Ok(Keys { recorded, revoked, now_ms: self.now_ms() })
    }

    async fn team(&self, tenant: &Tenant) -> Result<Team, TeamError> {
        Ok(self.store()?.team(tenant).await?.team)
    }

    /// Changes a team. `edit` may be called several times, each time with the team as it is then.
    async fn change<T>(
        &self,
        tenant: &Tenant,
        mut edit: impl AsyncFnMut(&mut Team) -> Result<T, TeamError>,
    ) -> Result<T, TeamError> {
        self.change_and_end(tenant, async |team, _ends| edit(team).await).await
    }

    /// Changes a team and ends keys of it, in one step. What `edit` asks of keys after it was called is of no other
    /// state: whoever ends keys so makes it look again.
    async fn change_and_end<T>(
        &self,
        tenant: &Tenant,
        mut edit: impl AsyncFnMut(&mut Team, &mut Vec<Ending>) -> Result<T, TeamError>,
    ) -> Result<T, TeamError> {
        let store = self.store()?;
        for attempt in 0..ATTEMPTS {
            let kept = store.team(tenant).await?;
            let (mut team, mut ends) = (kept.team.clone(), Vec::new());
            let result = edit(&mut team, &mut ends).await?;
            if team == kept.team && ends.is_empty() {
                return Ok(result);
            }
            // Fails for maps with keys that are no strings only: there are none.
            let size = serde_json::to_vec(&team).map_or(usize::MAX, |json| json.len());
            if size > LONGEST {
                return Err(TeamError::TooMuch {
                    what: "this team's document, bytes",
                    limit: LONGEST,
                });
            }
            if store.replace_team(tenant, kept.revision, &team, &ends).await? {
                return Ok(result);
            }
            // Not all of them again at the same moment.
            let pause = rand::random_range(0..10 * u64::from(attempt + 1));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Err(TeamError::Busy)
    }

    /// The policies that the caller set for its own ids.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn own_contacts(&self, by: &Actor) -> Result<Vec<(Grant, ContactPolicy)>, TeamError> {
        let team = self.team(&by.tenant).await?;
        let mine = |grant: &Grant| by.grant().is_none_or(|own| own.includes(grant));
        Ok(team.contacts.into_iter().filter(|(grant, _)| mine(grant)).collect())
    }

    /// Sets whose messages `client` takes, for one's own ids; its own if `None` and the credential proves but one.
    ///
    /// # Errors
    /// [`TeamError::NotYours`] and others.
    pub async fn set_own_contacts(
        &self,
        by: &Actor,
        client: Option<Grant>,
        policy: ContactPolicy,
    ) -> Result<Grant, TeamError> {
        let own = by.grant().ok_or(TeamError::NoTeams)?;
        let client = client.unwrap_or_else(|| own.clone());
        if !own.includes(&client) {
            audit::refused("set_contacts", by, Some(&client));
            return Err(TeamError::NotYours);
        }
        self.set_contacts(by, client, policy).await
    }

    /// Sets whose messages a client of the team takes.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn set_contacts(
        &self,
        by: &Actor,
        client: Grant,
        policy: ContactPolicy,
    ) -> Result<Grant, TeamError> {
        if policy.allow.len().max(policy.block.len()) > LISTED {
            return Err(TeamError::TooMuch { what: "entries of one list", limit: LISTED });
        }
        self.change(&by.tenant, async |team| {
            // Where a policy for more ids holds, what is as if there were none has to be said.
            let wider = |grant: &Grant| *grant != client && grant.includes(&client);
            if policy.is_default() && !team.contacts.keys().any(wider) {
                team.contacts.remove(&client);
            } else {
                team.contacts.insert(client.clone(), policy.clone());
            }
            Ok(())
        })
        .await?;
        audit::done("set_contacts", by, Some(&client));
        Ok(client)
    }

    /// All policies of the team, and the teams that it lists.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn policies(&self, by: &Actor) -> Result<Team, TeamError> {
        let team = self.team(&by.tenant).await?;
        Ok(Team { contacts: team.contacts, teams: team.teams, ..Team::default() })
    }

    /// Lists the teams that messages may be exchanged with, if those list this one.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn set_teams(
        &self,
        by: &Actor,
        teams: impl IntoIterator<Item = Tenant>,
    ) -> Result<(), TeamError> {
        let teams: BTreeSet<_> = teams.into_iter().filter(|team| *team != by.tenant).collect();
        if teams.len() > TEAMS {
            return Err(TeamError::TooMuch { what: "other teams", limit: TEAMS });
        }
        self.change(&by.tenant, async |team| {
            team.teams.clone_from(&teams);
            Ok(())
        })
        .await?;
        audit::done("set_teams", by, None);
        Ok(())
    }
}
