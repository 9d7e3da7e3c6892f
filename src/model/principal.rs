//! Who makes a call, and what it may do.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{ClientId, InvalidClientId, Tenant};

/// What a credential allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Reading one's own inbox.
    Read,
    /// Sending, and asking what became of it.
    Send,
    /// Seeing all inboxes of one's tenant from outside: who there is and how much waits.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Send, Self::Admin];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "mailbox:read",
            Self::Send => "mailbox:send",
            Self::Admin => "mailbox:admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some of the scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

/// The text names a scope that there is not, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be some of mailbox:read, mailbox:send, mailbox:admin (or read, send, admin)")]
pub struct InvalidScopes;

impl Scopes {
    /// Whether `scope` is one of them.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// These and those.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(scope.bit())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Names with or without `mailbox:`, separated by commas or white space. At least one.
impl FromStr for Scopes {
    type Err = InvalidScopes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let known = |word: &str| {
            let short = |scope: &Scope| scope.as_str().trim_start_matches("mailbox:") == word;
            Scope::ALL.into_iter().find(|scope| scope.as_str() == word || short(scope))
        };
        let scopes =
            words.map(|word| known(word).ok_or(InvalidScopes)).collect::<Result<_, _>>()?;
        if scopes == Self::default() { Err(InvalidScopes) } else { Ok(scopes) }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            f.write_str(if index > 0 { " " } else { "" })?;
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

/// Which client ids a credential proves. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grant {
    /// One client: `alice`.
    One(ClientId),
    /// All whose id begins with this, which ends with a dot: `alice.*`, for several windows of one
    /// person. `alice` itself is not among them.
    Below(ClientId),
    /// One client, and all whose id begins with it and a dot: `alice` and `alice.*`. A call that names
    /// none acts as the first. No text of a key is one; the tokens of an authorization server are.
    WithBelow(ClientId),
}

/// The text is neither a client id nor the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// Not a client id.
    #[error(transparent)]
    Client(#[from] InvalidClientId),
    /// A star after something else than a dot.
    #[error("must be a client id such as alice, or alice.* for all ids that begin with alice.")]
    Star,
}

impl Grant {
    /// Whether it proves this id.
    #[must_use]
    pub fn covers(&self, client: &ClientId) -> bool {
        match self {
            Self::One(one) => one == client,
            Self::Below(beginning) => {
                let rest = client.expose().strip_prefix(beginning.expose());
                rest.is_some_and(|rest| !rest.is_empty())
            }
            Self::WithBelow(one) => match client.expose().strip_prefix(one.expose()) {
                Some("") => true,
                Some(rest) => rest.len() > 1 && rest.starts_with('.'),
                None => false,
            },
        }
    }

    /// Whether it proves every id that the other one proves.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        match other {
            Self::One(client) => self.covers(client),
            Self::Below(beginning) => self.covers_below(beginning.expose()),
            Self::WithBelow(client) => {
                self.covers(client) && self.covers_below(&format!("{}.", client.expose()))
            }
        }
    }

    /// Whether there is an id that both prove.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.includes(other) || other.includes(self)
    }

    /// Whether it proves every id that begins with this, which ends with a dot.
    fn covers_below(&self, beginning: &str) -> bool {
        match self {
            Self::One(_) => false,
            Self::Below(own) => beginning.starts_with(own.expose()),
            Self::WithBelow(own) => {
                beginning.strip_prefix(own.expose()).is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }

    /// As it was written: `alice`, `alice.*`, or `alice,alice.*` for both. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        match self {
            Self::One(client) => client.expose().to_owned(),
            Self::Below(beginning) => format!("{}*", beginning.expose()),
            Self::WithBelow(client) => format!("{0},{0}.*", client.expose()),
        }
    }
}

impl TryFrom<String> for Grant {
    type Error = InvalidGrant;

    /// As [`expose`](Grant::expose) wrote it: what is kept about a holder must be readable again.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once(',') {
            Some((client, below)) if below.strip_suffix(".*") == Some(client) => {
                Ok(Self::WithBelow(client.parse()?))
            }
            Some(_) | None => text.parse(),
        }
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.expose()
    }
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('*') {
            None => Ok(Self::One(text.parse()?)),
            Some(beginning) if beginning.len() > 1 && beginning.ends_with('.') => {
                Ok(Self::Below(beginning.parse()?))
            }
            Some(_) => Err(InvalidGrant::Star),
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant")
    }
}

/// Who makes a call. Cheap to clone; `Debug` shows no id.
#[derive(Clone)]
pub struct Principal(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    /// `None`: nothing was proved, and every id may be claimed.
    proved: Option<(Grant, Scopes)>,
}

impl Principal {
    /// Somebody who proved nothing, where nothing has to be proved: any client of the tenant `default`.
    #[must_use]
    pub fn anyone() -> Self {
        Self(Arc::new(Inner { tenant: Tenant::default(), proved: None }))
    }

    /// The holder of a credential.
    #[must_use]
    pub fn proved(tenant: Tenant, grant: Grant, scopes: Scopes) -> Self {
        Self(Arc::new(Inner { tenant, proved: Some((grant, scopes)) }))
    }

    /// Whose team. Nothing of another one can be reached.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// Which ids a credential proved, if one did.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.0.proved.as_ref().map(|(grant, _)| grant)
    }

    /// Whether it may act as this client.
    #[must_use]
    pub fn owns(&self, client: &ClientId) -> bool {
        self.grant().is_none_or(|grant| grant.covers(client))
    }

    /// As whom it acts when a call names nobody, if its credential says so.
    #[must_use]
    pub fn client(&self) -> Option<&ClientId> {
        match self.grant()? {
            Grant::One(client) | Grant::WithBelow(client) => Some(client),
            Grant::Below(_) => None,
        }
    }

    /// What its credential allows; nothing if it proved nothing.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.0.proved.as_ref().map_or(Scopes::default(), |(_, scopes)| *scopes)
    }

    /// Those of `needed` that its credential does not have; `None` if it may do all of them.
    #[must_use]
    pub fn lacks(&self, needed: &[Scope]) -> Option<Scopes> {
        let (_, scopes) = self.0.proved.as_ref()?;
        let lacking = needed.iter().copied().filter(|scope| !scopes.contains(*scope)).collect();
        (lacking != Scopes::default()).then_some(lacking)
    }

    /// What tells it apart from every other principal, for digests; nothing if it proved nothing.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = String::new();
        if let Some(grant) = self.grant() {
            // Writing to a String does not fail. No tenant and no grant has a slash.
            let _ = write!(name, "{}/{}", self.0.tenant.as_str(), grant.expose());
        }
        name
    }
}

impl Default for Principal {
    fn default() -> Self {
        Self::anyone()
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.grant().is_some() { "Principal(proved)" } else { "Principal(anyone)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> ClientId {
        id.parse().unwrap()
    }

    #[test]
    fn a_grant_covers_its_client_or_those_below_it_and_nobody_else() {
        let covers = |grant: &str, id: &str| grant.parse::<Grant>().unwrap().covers(&client(id));
        assert!(covers("alice", "alice"));
        for other in ["alic", "alice2", "alice.1", "Alice", "bob"] {
            assert!(!covers("alice", other), "{other}");
        }
        assert!(covers("alice.*", "alice.1") && covers("alice.*", "alice.laptop.2"));
        for other in ["alice", "alice.", "alice2", "alicex.1", "Alice.1", "bob.alice.1"] {
            assert!(!covers("alice.*", other), "{other}");
        }
    }

    #[test]
    fn who_is_one_client_and_all_below_it_acts_as_the_first() {
        let grant = Grant::WithBelow(client("alice"));
        for own in ["alice", "alice.1", "alice.laptop.2"] {
            assert!(grant.covers(&client(own)), "{own}");
        }
        for other in ["alic", "alice.", "alice2", "alice-1", "Alice.1", "bob.alice", "bob"] {
            assert!(!grant.covers(&client(other)), "{other}");
        }
        let alice = Principal::proved(Tenant::default(), grant, Scopes::default());
        assert_eq!(alice.client(), Some(&client("alice")));
        // Not to be taken for either of the others.
        assert_eq!(alice.name(), "default/alice,alice.*");
        assert!("alice,alice.*".parse::<Grant>().is_err(), "no key is made for it");
    }

    #[test]
    fn a_star_stands_after_a_dot_and_at_the_end_only() {
        for bad in ["*", ".*", "alice*", "al*ice", "*.alice", "a.**", "", "a/b", "a/.*"] {
            assert!(bad.parse::<Grant>().is_err(), "{bad:?}");
        }
        for good in ["alice", "alice.*", "a.b.*"] {
            assert_eq!(good.parse::<Grant>().unwrap().expose(), good);
        }
    }

    #[test]
    fn two_grants_meet_where_one_id_is_both_of_theirs() {
        let grant = |text: &str| Grant::try_from(text.to_owned()).unwrap();
        for (one, other, includes, meets) in [
            ("alice,alice.*", "alice", true, true),
            ("alice,alice.*", "alice.1", true, true),
            ("alice,alice.*", "alice.*", true, true),
            ("alice,alice.*", "alice.b.*", true, true),
            ("alice,alice.*", "alice,alice.*", true, true),
            ("alice,alice.*", "alicia", false, false),
            ("alice,alice.*", "alicia.*", false, false),
            ("alice.*", "alice,alice.*", false, true),
            ("alice", "alice,alice.*", false, true),
            ("a.*", "a.b,a.b.*", true, true),
            ("alice", "alice", true, true),
            ("alice", "alice.*", false, false),
            ("alice.*", "alice.1", true, true),
            ("alice.1", "alice.*", false, true),
            ("alice.*", "alice.b.*", true, true),
            ("alice.b.*", "alice.*", false, true),
            ("alice.*", "alicia.*", false, false),
            ("alice", "bob", false, false),
        ] {
            let (one, other) = (grant(one), grant(other));
            for grant in [&one, &other] {
                assert_eq!(Grant::try_from(grant.expose()).as_ref(), Ok(grant));
            }
            assert_eq!(one.includes(&other), includes, "{} {}", one.expose(), other.expose());
            assert_eq!(one.meets(&other), meets && other.meets(&one));
        }
    }

    #[test]
    fn scopes_are_named_in_short_or_in_full() {
        let all: Scopes = "read, mailbox:send admin".parse().unwrap();
        assert_eq!(all.to_string(), "mailbox:read mailbox:send mailbox:admin");
        for bad in ["", " , ", "write", "read,write", "mailbox:"] {
            assert_eq!(bad.parse::<Scopes>(), Err(InvalidScopes), "{bad:?}");
        }
    }

    #[test]
    fn who_proved_something_may_do_that_and_no_more() {
        let scopes = "send".parse().unwrap();
        let alice = Principal::proved(Tenant::default(), "alice".parse().unwrap(), scopes);
        assert!(alice.owns(&client("alice")) && !alice.owns(&client("bob")));
        assert_eq!(alice.client(), Some(&client("alice")));
        assert_eq!(alice.lacks(&[Scope::Send]), None);
        assert_eq!(alice.lacks(&[Scope::Send, Scope::Read]), Some("read".parse().unwrap()));
        assert_eq!(alice.lacks(&Scope::ALL), Some("read,admin".parse().unwrap()));
        assert_eq!(alice.scopes(), scopes);
        assert_eq!(alice.name(), "default/alice");
        let anyone = Principal::anyone();
        assert!(anyone.owns(&client("bob")) && anyone.client().is_none());
        assert_eq!((anyone.lacks(&Scope::ALL), anyone.name()), (None, String::new()));
    }

    #[test]
    fn debug_shows_no_id() {
        let grant: Grant = "secret.*".parse().unwrap();
        let principal =
            Principal::proved("hidden".parse().unwrap(), grant.clone(), Scopes::default());
        let shown = format!("{grant:?} {principal:?} {:?}", principal.tenant());
        assert!(!shown.contains("secret") && !shown.contains("hidden"), "{shown}");
    }
}
