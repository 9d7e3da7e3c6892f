//! What the store keeps about a team: members, invitations, whom its clients take messages from. Never a
//! key, and of a join code its digest only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{CredentialStore, KeyId, QueueError};
use crate::model::{ClientId, Grant, Inbox, Peers, Scope, Scopes, Tenant};

/// What a member is to its team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and sends.
    Member,
    /// Also invites, removes, issues and revokes.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// What the keys of this role allow.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        let all = [Scope::Read, Scope::Send, Scope::Admin];
        all.into_iter().take(if self == Self::Admin { 3 } else { 2 }).collect()
    }

    /// The role of who holds a key with these scopes.
    #[must_use]
    pub fn of(scopes: Scopes) -> Self {
        if scopes.contains(Scope::Admin) { Self::Admin } else { Self::Member }
    }
}

/// Somebody who belongs to a team, known by the ids that its keys prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What it is to the team.
    pub role: Role,
    /// When it joined, seconds since the Unix epoch.
    pub since: u64,
}

/// A join code that is good still. The code itself is not known.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// Names it. Not a secret, and nothing that the code can be guessed from.
    pub id: String,
    /// SHA-256 of the code, in hexadecimal digits.
    pub digest: String,
    /// What whoever redeems it becomes.
    pub role: Role,
    /// Which ids it may take; any that are free if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Grant>,
    /// The key expires so many days after it was redeemed.
    pub days: u64,
    /// Who made it; the operator if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Grant>,
    /// When it was made, seconds since the Unix epoch.
    pub made_at: u64,
    /// When it is over, seconds since the Unix epoch.
    pub expires_at: u64,
}

impl fmt::Debug for Invitation {
    /// Its id only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whose messages a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Everybody's who can reach it.
    #[default]
    Open,
    /// Those of its own team.
    Team,
    /// Those of who is listed.
    Allow,
}

/// Whose messages a client takes, and whose never.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactPolicy {
    /// In general.
    #[serde(default)]
    pub policy: Policy,
    /// Who is listed, for [`Policy::Allow`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Peers>,
    /// Whose never, whatever else is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block: Vec<Peers>,
}

impl ContactPolicy {
    /// Says nothing that would not hold without it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.policy == Policy::Open && self.block.is_empty()
    }

    fn takes(&self, sender: &Inbox, own: &Tenant) -> bool {
        let listed = |list: &[Peers]| list.iter().any(|peers| peers.include(sender, own));
        !listed(&self.block)
            && match self.policy {
                Policy::Open => true,
                Policy::Team => sender.tenant() == own,
                Policy::Allow => listed(&self.allow),
            }
    }
}

/// All that is kept about one team.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Who joined, by the ids that its keys prove.
    #[serde(default)]
    pub members: BTreeMap<Grant, Member>,
    /// Codes that were not redeemed yet.
    #[serde(default)]
    pub invitations: Vec<Invitation>,
    /// By client, or by the beginning of ids.
    #[serde(default)]
    pub contacts: BTreeMap<Grant, ContactPolicy>,
    /// Other teams that messages may be exchanged with, if those list this one.
    #[serde(default)]
    pub teams: BTreeSet<Tenant>,
}

impl Team {
    /// The policy that holds for a client: its own, or that of the longest beginning of its id.
    #[must_use]
    pub fn contacts_of(&self, client: &ClientId) -> Option<&ContactPolicy> {
        let exact = self.contacts.get(&Grant::One(client.clone()));
        exact.or_else(|| {
            let covering = self.contacts.iter().filter(|(grant, _)| grant.covers(client));
            covering.max_by_key(|(grant, _)| closeness(grant)).map(|(_, policy)| policy)
        })
    }

    /// Whether a client of this team, `own`, takes messages of a sender of whatever team. What a client
    /// sends to itself it takes.
    #[must_use]
    pub fn takes(&self, recipient: &Inbox, sender: &Inbox) -> bool {
        recipient == sender
            || self
                .contacts_of(recipient.client())
                .is_none_or(|policy| policy.takes(sender, recipient.tenant()))
    }
}

/// How close to one client a grant is, among those that cover it: the longest beginning of its id, and of two that are
/// alike the one that covers less.
fn closeness(grant: &Grant) -> (usize, bool) {
    match grant {
        Grant::One(client) => (client.expose().len() + 1, true),
        Grant::Below(beginning) => (beginning.expose().len(), true),
        Grant::WithBelow(client) => (client.expose().len() + 1, false), // and the dot
    }
}

/// A team, and which state of it this is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptTeam {
    /// What is kept.
    pub team: Team,
    /// Counts its changes.
    pub revision: u64,
}

/// Keys that end together with a change of their team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Those of a grant below a generation that nobody has begun yet.
    Below {
        /// Whose.
        grant: Grant,
        /// The next one.
        generation: u32,
        /// From this time on, ms since the Unix epoch; 0: at once.
        from_ms: u64,
    },
    /// This one, at once.
    Key(KeyId),
}

/// Where teams are kept, so that every replica knows them. They live for ever.
#[async_trait]
pub trait TeamStore: CredentialStore {
    /// What is kept about a team: nothing at all of one that nobody wrote about.
    ///
    /// # Errors
    /// [`QueueError::Contract`] for what a newer version wrote: it must not be misread.
    async fn team(&self, tenant: &Tenant) -> Result<KeptTeam, QueueError>;

    /// Replaces a team and ends keys of it in one step, if it is still the one of this revision: of two changes at the
    /// same time one happens. `false`: it is another one by now, or somebody else began one of these generations, and
    /// nothing happened. (It may also be that this very change happened, its answer was lost, and another one followed
    /// before it was repeated.)
    async fn replace_team(
        &self,
        tenant: &Tenant,
        revision: u64,
        team: &Team,
        ends: &[Ending],
    ) -> Result<bool, QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(name: &str) -> Inbox {
        Inbox::from_name(name).unwrap()
    }

    fn policy(json: &str) -> ContactPolicy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_policy_says_whose_messages_are_taken_and_the_block_list_has_the_last_word() {
        for (said, takes, refuses) in [
            ("{}", &["acme/bob", "beta/bob"][..], &[][..]),
            (r#"{"policy":"team"}"#, &["acme/bob"], &["beta/bob"]),
            (r#"{"policy":"allow","allow":["bob"]}"#, &["acme/bob"], &["acme/eve", "beta/bob"]),
            (r#"{"policy":"allow"}"#, &[], &["acme/bob", "beta/bob"]),
            (r#"{"policy":"team","allow":["beta/bob"]}"#, &["acme/x"], &["beta/bob"]),
            (r#"{"block":["eve"]}"#, &["acme/bob", "beta/eve"], &["acme/eve"]),
            (r#"{"block":["beta/*"]}"#, &["acme/bob"], &["beta/eve"]),
            (
                r#"{"policy":"allow","allow":["x.*"],"block":["x.1"]}"#,
                &["acme/x.2"],
                &["acme/x.1", "acme/x"],
            ),
        ] {
            let mut team = Team::default();
            team.contacts.insert("alice".parse().unwrap(), policy(said));
            for name in takes {
                assert!(team.takes(&inbox("acme/alice"), &inbox(name)), "{said} {name}");
            }
            for name in refuses {
                assert!(!team.takes(&inbox("acme/alice"), &inbox(name)), "{said} {name}");
                assert!(team.takes(&inbox("acme/other"), &inbox(name)), "nobody else's business");
            }
            assert!(team.takes(&inbox("acme/alice"), &inbox("acme/alice")), "to itself");
        }
    }

    #[test]
    fn the_closest_policy_holds() {
        let mut team = Team::default();
        for (grant, block) in [("a.*", "x"), ("a.b.*", "y"), ("a.b.c", "z")] {
            let said = format!(r#"{{"block":["{block}"]}}"#);
            team.contacts.insert(grant.parse().unwrap(), policy(&said));
        }
        for (client, refused) in [("a.1", "x"), ("a.b.1", "y"), ("a.b.c", "z")] {
            let recipient = inbox(&format!("acme/{client}"));
            for sender in ["x", "y", "z"] {
                let takes = team.takes(&recipient, &inbox(&format!("acme/{sender}")));
                assert_eq!(takes, sender != refused, "{client} {sender}");
            }
        }
    }

    #[test]
    fn a_policy_of_all_of_a_persons_windows_gives_way_to_that_of_some() {
        let mut team = Team::default();
        let all = Grant::WithBelow("alice".parse().unwrap());
        team.contacts.insert(all, policy(r#"{"block":["eve"]}"#));
        let takes = |team: &Team, client: &str| {
            team.takes(&inbox(&format!("acme/{client}")), &inbox("acme/bob"))
        };
        assert!(takes(&team, "alice.b.1") && takes(&team, "alice"));
        team.contacts.insert("alice.b.*".parse().unwrap(), policy(r#"{"policy":"allow"}"#));
        assert!(!takes(&team, "alice.b.1"), "the closer one holds");
        assert!(takes(&team, "alice.c") && takes(&team, "alice"));
        team.contacts.insert("alice.*".parse().unwrap(), policy(r#"{"policy":"allow"}"#));
        assert!(!takes(&team, "alice.c") && takes(&team, "alice"));
    }

    #[test]
    fn what_is_not_understood_is_not_read() {
        for unknown in [r#"{"members":{},"more":1}"#, r#"{"contacts":{"a":{"policy":"closed"}}}"#] {
            assert!(serde_json::from_str::<Team>(unknown).is_err(), "{unknown}");
        }
    }
}
