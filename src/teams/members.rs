//! Members: joining by a code, leaving, who there is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Actor, Insist, JoinCode, KeySpec, Made, TeamError, Teams, audit};
use crate::{
    model::Grant,
    queue::{Invitation, KeyId, Member, Role, Team},
};

/// Longest life of a code, hours.
const HOURS: u64 = 720;
/// Longest life of the key that it becomes, days.
const DAYS: u64 = 365;
/// Most codes that are open at once.
const OPEN: usize = 1000;

/// What a join code is to be good for.
#[derive(Debug, Clone)]
pub struct InviteSpec {
    /// What whoever redeems it becomes.
    pub role: Role,
    /// Which ids it may take: one, or some of those that begin so. Any that are free if `None`.
    pub client: Option<Grant>,
    /// Good for so many hours, 1 to 720.
    pub hours: u64,
    /// The key that it becomes is good for so many days, 1 to 365.
    pub days: u64,
}

/// A join code that was made. The code is not shown again.
pub struct Invited {
    /// What is kept of it.
    pub invitation: Invitation,
    /// The code.
    pub code: JoinCode,
}

/// One member.
#[derive(Debug, Clone)]
pub struct ListedMember {
    /// Which ids its keys prove.
    pub client: Grant,
    /// What it is to the team.
    pub role: Role,
    /// When it joined, seconds since the Unix epoch. `None`: it holds a key and was never entered.
    pub since: Option<u64>,
    /// How many of its recorded keys are good.
    pub keys: usize,
}

/// Members, by their ids.
pub type Listing = Vec<ListedMember>;

impl Teams {
    /// Makes a join code.
    ///
    /// # Errors
    /// [`TeamError::Beyond`] for a role that may do more than who makes the code, and others.
    pub async fn invite(&self, by: &Actor, spec: &InviteSpec) -> Result<Invited, TeamError> {
        let subject = spec.client.as_ref();
        by.may_give(spec.role.scopes()).inspect_err(|_| audit::refused("invite", by, subject))?;
        spec.client.as_ref().map_or(Ok(()), Actor::may_name)?;
        if !(1..=HOURS).contains(&spec.hours) {
            return Err(TeamError::Value("hours", "1 to 720"));
        }
        if !(1..=DAYS).contains(&spec.days) {
            return Err(TeamError::Value("days", "1 to 365"));
        }
        self.masters()?;
        let (code, made_at) = (JoinCode::new(&by.tenant), self.now_ms() / 1000);
        let invitation = Invitation {
            id: KeyId::random().to_string(),
            digest: code.digest(),
            role: spec.role,
            client: spec.client.clone(),
            days: spec.days,
            by: by.grant().cloned(),
            made_at,
            expires_at: made_at.saturating_add(spec.hours.saturating_mul(3600)),
        };
        self.change(&by.tenant, async |team| {
            team.invitations.retain(|open| open.expires_at > made_at);
            if team.invitations.len() >= OPEN {
                return Err(TeamError::TooMuch { what: "open invitations", limit: OPEN });
            }
            if let Some(one @ Grant::One(_)) = &invitation.client {
                self.check_free(by, team, one).await?;
            }
            team.invitations.push(invitation.clone());
            Ok(())
        })
        .await?;
        audit::done("invite", by, subject);
        Ok(Invited { invitation, code })
    }

    /// Codes that were neither redeemed nor withdrawn and whose time is not over.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn invitations(&self, by: &Actor) -> Result<Vec<Invitation>, TeamError> {
        let (mut open, now) = (self.team(&by.tenant).await?.invitations, self.now_ms() / 1000);
        open.retain(|invitation| invitation.expires_at > now);
        Ok(open)
    }

    /// Takes a join code back.
    ///
    /// # Errors
    /// [`TeamError::Unknown`]: it was redeemed or withdrawn, or never was one.
    pub async fn withdraw(&self, by: &Actor, id: &str) -> Result<(), TeamError> {
        self.change(&by.tenant, async |team| {
            let before = team.invitations.len();
            team.invitations.retain(|invitation| invitation.id != id);
            if team.invitations.len() < before {
                Ok(())
            } else {
                Err(TeamError::Unknown("invitation"))
            }
        })
        .await?;
        audit::done("withdraw", by, None);
        Ok(())
    }

    /// Redeems a join code: its holder becomes a member, as `wish` if the code leaves a choice, and gets a key of its
    /// own. Of two at the same time one wins. If the store fails after the code was taken, the member has no key: an
    /// admin issues one.
    ///
    /// # Errors
    /// [`TeamError::BadCode`], [`TeamError::OtherClient`], [`TeamError::NoClient`], [`TeamError::Taken`] and others.
    pub async fn join(&self, code: &str, wish: Option<&Grant>) -> Result<Made, TeamError> {
        let joined = async {
            let code = JoinCode::read(code).ok_or(TeamError::BadCode)?;
            wish.map_or(Ok(()), Actor::may_name)?;
            self.masters()?;
            let team = Actor::operator(code.tenant().clone());
            let (spec, generation) = self.redeem(&team, &code.digest(), wish).await?;
            self.make(&team, &spec, generation).await
        };
        let joined = joined.await;
        match &joined {
            Ok(made) => audit::joined(Some(&made.key.tenant), Some(&made.key.grant), "ok"),
            Err(error) => {
                let result = match error {
                    TeamError::BadCode => "bad_code",
                    TeamError::OtherClient | TeamError::NoClient | TeamError::Taken => "refused",
                    TeamError::NoTeams
                    | TeamError::NoStore
                    | TeamError::NoMasterKey
                    | TeamError::NotYours
                    | TeamError::Beyond(_)
                    | TeamError::LastAdmin
                    | TeamError::Unknown(_)
                    | TeamError::TooMuch { .. }
                    | TeamError::Value(..)
                    | TeamError::Busy
                    | TeamError::Store(_) => "unavailable",
                };
                audit::joined(None, None, result);
            }
        }
        joined
    }

    /// Takes a code out and enters its member, in one step: whose key is to be made, and its generation.
    async fn redeem(
        &self,
        by: &Actor,
        digest: &str,
        wish: Option<&Grant>,
    ) -> Result<(KeySpec, u32), TeamError> {
        let now = self.now_ms() / 1000;
        self.change(&by.tenant, async |team| {
            let good = |open: &Invitation| open.digest == digest && open.expires_at > now;
            let at = team.invitations.iter().position(good).ok_or(TeamError::BadCode)?;
            let invitation = team.invitations.remove(at);
            let client = match (&invitation.client, wish) {
                (None, None) => return Err(TeamError::NoClient),
                (None, Some(wish)) => wish.clone(),
                (Some(fixed), None) => fixed.clone(),
                (Some(fixed), Some(wish)) if fixed.includes(wish) => wish.clone(),
                (Some(_), Some(_)) => return Err(TeamError::OtherClient),
            };
            self.check_free(by, team, &client).await?;
            let role = invitation.role;
            team.members.insert(client.clone(), Member { role, since: now });
            let revoked = self.store()?.revocations(&by.tenant).await?;
            let generation = revoked.generation(&client);
            Ok((KeySpec { client, scopes: role.scopes(), days: invitation.days }, generation))
        })
        .await
    }

    /// Refuses ids of which some are a member's, or of which somebody holds a good key.
    async fn check_free(&self, by: &Actor, team: &Team, client: &Grant) -> Result<(), TeamError> {
        let keys = self.keys_of(&by.tenant).await?;
        let mut held = team.members.keys().chain(keys.good().map(|key| &key.grant));
        if held.any(|grant| grant.meets(client)) { Err(TeamError::Taken) } else { Ok(()) }
    }

    /// Who belongs to the team: who was entered, and who holds a good key that was recorded.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn members(&self, by: &Actor) -> Result<Listing, TeamError> {
        let (team, keys) = (self.team(&by.tenant).await?, self.keys_of(&by.tenant).await?);
        let entered = team.members.into_iter().map(|(client, Member { role, since })| {
            (client.clone(), ListedMember { client, role, since: Some(since), keys: 0 })
        });
        let mut all: BTreeMap<Grant, ListedMember> = entered.collect();
        for key in keys.good() {
            // A further key of a member for some of its ids counts as that member's.
            let owner = all.keys().find(|grant| grant.includes(&key.grant)).cloned();
            let owner = owner.unwrap_or_else(|| key.grant.clone());
            let member = all.entry(owner.clone()).or_insert(ListedMember {
                client: owner,
                role: Role::Member,
                since: None,
                keys: 0,
            });
            member.keys += 1;
            if member.since.is_none() && Role::of(key.scopes) == Role::Admin {
                member.role = Role::Admin;
            }
        }
        Ok(all.into_values().collect())
    }

    /// Removes a member: its keys are taken back, for all of its ids, and the codes that it made. What lies in its
    /// inbox stays there until it expires.
    ///
    /// # Errors
    /// [`TeamError::Unknown`], [`TeamError::LastAdmin`] unless `insist`ed, and others.
    pub async fn remove(
        &self,
        by: &Actor,
        client: &Grant,
        insist: Insist,
    ) -> Result<(), TeamError> {
        let theirs = |grant: &Grant| client.includes(grant);
        self.change_and_end(&by.tenant, async |team, ends| {
            let keys = self.keys_of(&by.tenant).await?;
            let held = keys.good().map(|key| &key.grant).filter(|it| theirs(it));
            let held: BTreeSet<_> = held.collect();
            if !team.members.contains_key(client) && !held.contains(client) {
                return Err(TeamError::Unknown("member"));
            }
            if insist == Insist::No {
                keys.keep_an_admin(|key| theirs(&key.grant))?;
            }
            let all: BTreeSet<_> = held.into_iter().chain([client]).collect();
            ends.extend(all.into_iter().map(|grant| keys.ending(grant, 0).0));
            team.members.remove(client);
            team.contacts.retain(|grant, _| !theirs(grant));
            team.invitations.retain(|open| open.by.as_ref().is_none_or(|by| !theirs(by)));
            Ok(())
        })
        .await?;
        audit::done("member_remove", by, Some(client));
        Ok(())
    }
}
