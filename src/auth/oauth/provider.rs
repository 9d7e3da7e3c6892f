//! An authorization server, as far as a mailbox knows it: where its keys are (RFC 8414, OpenID Connect
//! Discovery), and the keys.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{keys::KeySet, signing::KeySource};
use crate::web::{NoAnswer, Reader, SafeUrl};

/// Longest document, bytes.
const LONGEST: usize = 256 * 1024;
/// How long one may take.
const WITHIN: Duration = Duration::from_secs(5);

/// An authorization server.
pub struct Provider {
    issuer: SafeUrl,
    /// Where its keys are; `None`: its metadata says so.
    keys: Option<SafeUrl>,
    reader: Reader,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Option<String>,
}

impl Provider {
    /// The server with this issuer identifier, which finds its keys at `keys` or else by its metadata.
    #[must_use]
    pub fn new(issuer: SafeUrl, keys: Option<SafeUrl>, reader: Reader) -> Self {
        Self { issuer, keys, reader }
    }

    /// Where metadata may be: RFC 8414 puts its name before the path of the issuer, OpenID Connect after it.
    fn places(&self) -> [String; 3] {
        let path = self.issuer.path();
        [
            self.issuer.at(&format!("/.well-known/oauth-authorization-server{path}")),
            self.issuer.at(&format!("{path}/.well-known/openid-configuration")),
            self.issuer.at(&format!("/.well-known/openid-configuration{path}")),
        ]
    }

    async fn read(&self, url: &SafeUrl) -> Result<bytes::Bytes, NoAnswer> {
        self.reader.read(url, LONGEST, WITHIN).await
    }

    /// The place of the keys, by the first metadata that is of this very issuer.
    async fn discover(&self) -> Result<SafeUrl, String> {
        let mut told = String::new();
        for place in self.places() {
            match self.metadata_at(&place).await {
                Ok(keys) => return Ok(keys),
                // That it is not at one of the places says less than anything else.
                Err(why) if told.is_empty() || told.ends_with("HTTP 404") => {
                    told = format!("{place}: {why}");
                }
                Err(_) => {}
            }
        }
        Err(told)
    }

    async fn metadata_at(&self, place: &str) -> Result<SafeUrl, String> {
        let url = SafeUrl::parse(place).map_err(|error| error.to_string())?;
        let document = self.read(&url).await.map_err(|error| error.to_string())?;
        let metadata: Metadata =
            serde_json::from_slice(&document).map_err(|_| "not metadata of an issuer")?;
        if metadata.issuer != self.issuer.as_str() {
            return Err("metadata of another issuer than oauth.issuer, to the letter".to_owned());
        }
        let keys = metadata.jwks_uri.ok_or("its metadata names no jwks_uri")?;
        let keys = SafeUrl::parse(&keys).map_err(|error| format!("its jwks_uri {error}"))?;
        if self.issuer.has_tls() && !keys.has_tls() {
            return Err("its jwks_uri must begin with https:// as it does".to_owned());
        }
        Ok(keys)
    }
}

#[async_trait]
impl KeySource for Provider {
    async fn look(&self) -> Result<KeySet, String> {
        let url = match &self.keys {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let document = self.read(&url).await.map_err(|error| format!("{url:?}: {error}"))?;
        KeySet::read(&document).map_err(|error| format!("{url:?}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_standards_put_it() {
        let places = |issuer| {
            let reader = Reader::new(false).unwrap();
            Provider::new(SafeUrl::parse(issuer).unwrap(), None, reader).places()
        };
        assert_eq!(
            places("https://id.example.com/realms/agents"),
            [
                "https://id.example.com/.well-known/oauth-authorization-server/realms/agents",
                "https://id.example.com/realms/agents/.well-known/openid-configuration",
                "https://id.example.com/.well-known/openid-configuration/realms/agents",
            ]
        );
        for root in ["https://id.example.com", "https://id.example.com/"] {
            let [oauth, openid, _] = places(root);
            assert_eq!(oauth, "https://id.example.com/.well-known/oauth-authorization-server");
            assert_eq!(openid, "https://id.example.com/.well-known/openid-configuration");
        }
    }
}
