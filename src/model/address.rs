//! How a client is named by another one: in its own team by its id alone, in another as `team/client`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use super::{ClientId, Grant, Inbox, InvalidClientId, InvalidGrant, InvalidTenant, Tenant};

/// Where a message goes, or who it is from, as seen from one team. Its `Debug` shows no id.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    /// Another team, and the whole as it is written.
    abroad: Option<(Tenant, Arc<str>)>,
    client: ClientId,
}

/// The text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// What stands alone, or after the slash.
    #[error(transparent)]
    Client(#[from] InvalidClientId),
    /// What stands before the slash.
    #[error("names a team before the slash, which {0}")]
    Team(#[from] InvalidTenant),
}

impl Address {
    /// The other team that it names.
    #[must_use]
    pub fn team(&self) -> Option<&Tenant> {
        self.abroad.as_ref().map(|(team, _)| team)
    }

    /// The client, in whichever team.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// What somebody of the team `from` calls the owner of an inbox.
    #[must_use]
    pub fn of(inbox: &Inbox, from: &Tenant) -> Self {
        let abroad = || (inbox.tenant().clone(), Arc::from(inbox.name()));
        let abroad = (inbox.tenant() != from).then(abroad);
        Self { abroad, client: inbox.client().clone() }
    }

    /// The inbox that somebody of the team `from` means by it.
    #[must_use]
    pub fn inbox(&self, from: &Tenant) -> Inbox {
        Inbox::new(self.team().unwrap_or(from).clone(), self.client.clone())
    }

    /// As it is written: `bob` or `team/bob`. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.abroad.as_ref().map_or(self.client.expose(), |(_, text)| text)
    }
}

impl From<ClientId> for Address {
    /// In one's own team.
    fn from(client: ClientId) -> Self {
        Self { abroad: None, client }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('/') {
            Some((team, client)) => {
                Self { abroad: Some((team.parse()?, text.into())), client: client.parse()? }
            }
            None => Self { abroad: None, client: text.parse()? },
        })
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.expose())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

/// Some clients, as an entry of a list names them: `bob`, `bob.*`, `team/bob`, `team/bob.*` or `team/*`.
/// Its `Debug` shows no id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Peers {
    team: Option<Tenant>,
    /// `None`: all of the team.
    clients: Option<Grant>,
}

/// The text names no clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeers {
    /// What stands alone, or after the slash.
    #[error("{0}, or team/bob, team/bob.* or team/* for clients of another team")]
    Clients(#[from] InvalidGrant),
    /// What stands before the slash.
    #[error("names a team before the slash, which {0}")]
    Team(#[from] InvalidTenant),
}

impl Peers {
    /// Whether the owner of an inbox is one of them, as somebody of the team `from` lists them.
    #[must_use]
    pub fn include(&self, inbox: &Inbox, from: &Tenant) -> bool {
        inbox.tenant() == self.team.as_ref().unwrap_or(from)
            && self.clients.as_ref().is_none_or(|clients| clients.covers(inbox.client()))
    }

    /// As they are written. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        let clients = self.clients.as_ref().map_or("*".to_owned(), Grant::expose);
        match &self.team {
            Some(team) => format!("{}/{clients}", team.as_str()),
            None => clients,
        }
    }
}

impl FromStr for Peers {
    type Err = InvalidPeers;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('/') {
            Some((team, "*")) => Self { team: Some(team.parse()?), clients: None },
            Some((team, clients)) => {
                Self { team: Some(team.parse()?), clients: Some(clients.parse()?) }
            }
            None => Self { team: None, clients: Some(text.parse()?) },
        })
    }
}

impl TryFrom<String> for Peers {
    type Error = InvalidPeers;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Peers> for String {
    fn from(peers: Peers) -> Self {
        peers.expose()
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(name: &str) -> Inbox {
        Inbox::from_name(name).unwrap()
    }

    #[test]
    fn an_address_means_the_same_inbox_on_its_way_there_and_back() {
        let (acme, beta): (Tenant, Tenant) = ("acme".parse().unwrap(), "beta".parse().unwrap());
        for (owner, from, written) in [
            ("acme/bob", &acme, "bob"),
            ("acme/bob", &beta, "acme/bob"),
            ("beta/bob.1", &beta, "bob.1"),
        ] {
            let address = Address::of(&inbox(owner), from);
            assert_eq!(address.expose(), written);
            assert_eq!(address.inbox(from), inbox(owner));
            assert_eq!(written.parse(), Ok(address));
        }
        let own: Address = "acme/bob".parse().unwrap();
        assert_eq!(own.inbox(&acme), inbox("acme/bob"), "one's own team may be named too");
        for bad in ["", "/", "a/", "/b", "a/b/c", "a b/c", "a/b*", "a{/b"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_entry_of_a_list_covers_those_of_the_team_that_it_names() {
        let acme: Tenant = "acme".parse().unwrap();
        for (entry, covers, others) in [
            ("bob", &["acme/bob"][..], &["beta/bob", "acme/bob.1"][..]),
            ("bob.*", &["acme/bob.1"], &["acme/bob", "beta/bob.1"]),
            ("beta/bob", &["beta/bob"], &["acme/bob", "beta/eve"]),
            ("beta/*", &["beta/bob", "beta/eve.1"], &["acme/bob", "betatwo/bob"]),
            ("acme/bob", &["acme/bob"], &["beta/bob"]),
        ] {
            let peers: Peers = entry.parse().unwrap();
            assert_eq!(peers.expose(), entry);
            assert!(covers.iter().all(|name| peers.include(&inbox(name), &acme)), "{entry}");
            assert!(!others.iter().any(|name| peers.include(&inbox(name), &acme)), "{entry}");
        }
        for bad in ["", "*", "/*", "a/", "bob*", "a/*b", "*/bob"] {
            assert!(bad.parse::<Peers>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_id() {
        let address: Address = "hidden/secret".parse().unwrap();
        let peers: Peers = "hidden/secret.*".parse().unwrap();
        let shown = format!("{address:?} {peers:?}");
        assert!(!shown.contains("secret") && !shown.contains("hidden"), "{shown}");
    }
}
