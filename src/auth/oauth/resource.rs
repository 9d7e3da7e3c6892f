//! What clients are told of this server (protected resource metadata, RFC 9728).

use serde_json::{Value, json};

use crate::{
    model::{Scope, Scopes},
    web::SafeUrl,
};

/// Where such documents are.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// This server, as a resource that an authorization server gives access to.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its identifier: the public URL of the endpoint.
    url: SafeUrl,
    issuer: SafeUrl,
}

impl Resource {
    /// The endpoint at `url`, to which `issuer` gives access.
    #[must_use]
    pub fn new(url: SafeUrl, issuer: SafeUrl) -> Self {
        Self { url, issuer }
    }

    /// The scopes that a client needs to send and to receive. `mailbox:admin` is for whoever asks for it.
    #[must_use]
    pub fn usual_scopes() -> Scopes {
        [Scope::Read, Scope::Send].into_iter().collect()
    }

    /// Where the document is (RFC 9728, section 3.1: its name stands before the path of the resource).
    #[must_use]
    pub fn metadata_url(&self) -> String {
        self.url.at(&format!("{WELL_KNOWN}{}", self.url.path()))
    }

    /// Whether the document is at this path: also without the path of the resource, where clients look
    /// next, and under the path by which this server knows its endpoint, for proxies that change it.
    #[must_use]
    pub fn is_described_at(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(WELL_KNOWN) else { return false };
        ["", "/mcp", self.url.path()].contains(&rest.trim_end_matches('/'))
    }

    /// The document.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let scopes: Vec<_> = Self::usual_scopes().iter().map(Scope::as_str).collect();
        json!({
            "resource": self.url.as_str(),
            "resource_name": "mcp-messaging",
            "authorization_servers": [self.issuer.as_str()],
            "scopes_supported": scopes,
            "bearer_methods_supported": ["header"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(at: &str) -> Resource {
        let url = |text| SafeUrl::parse(text).unwrap();
        Resource::new(url(at), url("https://id.example.com/"))
    }

    #[test]
    fn its_document_is_where_clients_look_for_it() {
        let usual = resource("https://mail.example.com/mcp");
        assert_eq!(
            usual.metadata_url(),
            "https://mail.example.com/.well-known/oauth-protected-resource/mcp"
        );
        let below = resource("https://example.com:8443/mail/mcp/");
        assert_eq!(
            below.metadata_url(),
            "https://example.com:8443/.well-known/oauth-protected-resource/mail/mcp"
        );
        for (path, at_usual, at_below) in [
            ("/.well-known/oauth-protected-resource", true, true),
            ("/.well-known/oauth-protected-resource/", true, true),
            ("/.well-known/oauth-protected-resource/mcp", true, true),
            ("/.well-known/oauth-protected-resource/mcp/", true, true),
            ("/.well-known/oauth-protected-resource/mail/mcp", false, true),
            ("/.well-known/oauth-protected-resource/mail", false, false),
            ("/.well-known/oauth-protected-resourcemcp", false, false),
            ("/.well-known/oauth-authorization-server", false, false),
            ("/mcp", false, false),
        ] {
            assert_eq!(usual.is_described_at(path), at_usual, "{path}");
            assert_eq!(below.is_described_at(path), at_below, "{path}");
        }
    }

    #[test]
    fn its_document_says_what_was_configured_to_the_letter() {
        let said = resource("https://mail.example.com/mcp").metadata();
        assert_eq!(
            said,
            json!({
                "resource": "https://mail.example.com/mcp",
                "resource_name": "mcp-messaging",
                "authorization_servers": ["https://id.example.com/"],
                "scopes_supported": ["mailbox:read", "mailbox:send"],
                "bearer_methods_supported": ["header"],
            })
        );
    }
}
