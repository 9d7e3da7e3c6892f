//! Mode `proxy`: a proxy asks callers for their certificates, and says who each is in one header.
//!
//! The header is worth what its sender is: it counts from the addresses that are configured and from nobody else.
//! Whoever sends it from elsewhere tries to pass for somebody, and is refused as such.
//!
//! Not here: which certificate is whose, and which were revoked. The proxy knows, or nobody.

use std::{collections::HashSet, net::IpAddr, str::FromStr};

use super::Denied;
use crate::model::{Grant, InvalidGrant, InvalidTenant, Network, Principal, Scope, Scopes, Tenant};

/// Longest name that is looked at, bytes: a team, a slash, a client.
const LONGEST: usize = 256;

/// Who is believed, and what they say.
#[derive(Debug)]
pub struct ProxyRules {
    /// The proxies, by the other end of the connection.
    pub trusted: Vec<Network>,
    /// The header in which they name the caller.
    pub header: String,
    /// Who holds `mailbox:admin` too.
    pub admins: HashSet<ClientName>,
}

/// A client as a proxy names it: `alice`, or `acme/alice`; `alice.*` for all ids that begin so. `Debug` shows none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientName {
    tenant: Tenant,
    grant: Grant,
}

/// The text names no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Before the slash.
    #[error(transparent)]
    Tenant(#[from] InvalidTenant),
    /// The client.
    #[error(transparent)]
    Client(#[from] InvalidGrant),
    /// What proxies write where there is nothing to say, such as a dash.
    #[error("must have a letter or a digit")]
    Nothing,
}

impl FromStr for ClientName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tenant, client) = match text.split_once('/') {
            Some((tenant, client)) => (tenant.parse()?, client),
            None => (Tenant::default(), text),
        };
        if !client.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Err(InvalidName::Nothing);
        }
        Ok(Self { tenant, grant: client.parse()? })
    }
}

impl ProxyRules {
    /// Who asks: by the other end of the connection, and the values of the header, of which there may be one.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit<'a>(
        &self,
        peer: Option<IpAddr>,
        mut names: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Principal, Denied> {
        let believed = peer
            .map(|peer| peer.to_canonical())
            .is_some_and(|peer| self.trusted.iter().any(|network| network.contains(peer)));
        let name = match (names.next(), names.next()) {
            (None, _) => return Err(Denied::Unnamed),
            (Some(_), _) if !believed => return Err(Denied::NotTheProxy),
            (Some(_), Some(_)) => return Err(Denied::BadName),
            (Some(name), None) => name,
        };
        let name = Some(name).filter(|name| name.len() <= LONGEST);
        let name = name.and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
        let name: ClientName = name.ok_or(Denied::BadName)?;
        let mut scopes: Scopes = [Scope::Read, Scope::Send].into_iter().collect();
        if self.admins.contains(&name) {
            scopes = scopes.and(Scope::Admin.into());
        }
        Ok(Principal::proved(name.tenant, name.grant, scopes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ProxyRules {
        let trusted = ["10.0.0.0/8", "fd00::/16"].map(|network| network.parse().unwrap());
        let admins = ["root", "acme/root"].map(|name| name.parse().unwrap());
        ProxyRules {
            trusted: trusted.into(),
            header: "x-client-name".to_owned(),
            admins: admins.into(),
        }
    }

    fn admitted(peer: &str, names: &[&[u8]]) -> Result<(String, Scopes), Denied> {
        let principal = rules().admit(peer.parse().ok(), names.iter().copied())?;
        Ok((principal.name(), principal.scopes()))
    }

    #[test]
    fn who_the_proxy_names_is_let_in_as_that() {
        let usual: Scopes = "read,send".parse().unwrap();
        let all: Scopes = "read,send,admin".parse().unwrap();
        for (peer, name, expected, scopes) in [
            ("10.1.2.3", "alice", "default/alice", usual),
            ("::ffff:10.1.2.3", "acme/alice", "acme/alice", usual),
            ("fd00::1", "acme/alice.*", "acme/alice.*", usual),
            ("10.1.2.3", "root", "default/root", all),
            ("10.1.2.3", "acme/root", "acme/root", all),
            ("10.1.2.3", "other/root", "other/root", usual),
            ("10.1.2.3", "acme/root.*", "acme/root.*", usual),
        ] {
            let admitted = admitted(peer, &[name.as_bytes()]);
            assert_eq!(admitted, Ok((expected.to_owned(), scopes)), "{peer} {name}");
        }
    }

    #[test]
    fn nobody_else_names_anybody_and_a_proxy_names_one() {
        for (peer, names, expected) in [
            ("11.0.0.1", &[&b"alice"[..]][..], Denied::NotTheProxy),
            ("11.0.0.1", &[b""], Denied::NotTheProxy),
            ("::1", &[b"alice", b"bob"], Denied::NotTheProxy),
            ("nowhere", &[b"alice"], Denied::NotTheProxy),
            ("11.0.0.1", &[], Denied::Unnamed),
            ("10.0.0.1", &[], Denied::Unnamed),
            ("10.0.0.1", &[b"alice", b"alice"], Denied::BadName),
            ("10.0.0.1", &[b"alice, bob"], Denied::BadName),
            ("10.0.0.1", &[b""], Denied::BadName),
            ("10.0.0.1", &[b"-"], Denied::BadName),
            ("10.0.0.1", &[b"*"], Denied::BadName),
            ("10.0.0.1", &[b"/alice"], Denied::BadName),
            ("10.0.0.1", &[b"acme/"], Denied::BadName),
            ("10.0.0.1", &[b"acme/x/alice"], Denied::BadName),
            ("10.0.0.1", &[b"CN=alice,O=acme"], Denied::BadName),
            ("10.0.0.1", &[b"alice,alice.*"], Denied::BadName),
            ("10.0.0.1", &[b"al\xffice"], Denied::BadName),
            ("10.0.0.1", &[&[b'a'; 300]], Denied::BadName),
        ] {
            assert_eq!(admitted(peer, names), Err(expected), "{peer} {names:?}");
        }
    }
}
