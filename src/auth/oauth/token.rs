//! What an access token proves (JWT profile: RFC 9068; what to look at: RFC 8725).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use super::keys::{Algorithm, BadSignature};
use crate::model::{ClientId, Grant, Scope, Scopes, Tenant};

/// Longest token that is looked at, bytes.
pub(super) const LONGEST: usize = 8 * 1024;

/// Claims that only ID tokens have (OpenID Connect Core), and those of events about a session.
const NOT_OF_ACCESS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// Claims by which authorization servers name people and programs, for who has to choose one.
const NAMES: [&str; 10] = [
    "sub",
    "preferred_username",
    "email",
    "upn",
    "username",
    "uid",
    "oid",
    "client_id",
    "azp",
    "appid",
];

/// What tokens are asked for.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// `iss`, to the letter.
    pub issuer: String,
    /// What `aud` is or has among others.
    pub audience: String,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// The claim that is the client id.
    pub client_claim: String,
    /// The claim that is the tenant; `None`: all are of the tenant `default`.
    pub tenant_claim: Option<String>,
    /// Who is `alice` is all of `alice.*` too. Then no id may have a dot: it would be below another one.
    pub windows: bool,
    /// How much clocks may differ.
    pub leeway: Duration,
}

/// Why a text is not an access token for this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadToken {
    /// Not of the form of a signed token, or too long.
    Malformed,
    /// Signed in a way that is not served, or that its key does not do.
    Algorithm,
    /// Signed with a key that the authorization server does not have.
    UnknownKey,
    /// Not signed with that key, or changed.
    Signature,
    /// A token for something else, such as an ID token.
    Type,
    /// Of another authorization server.
    Issuer,
    /// For another server.
    Audience,
    /// Before its time.
    NotYetValid,
    /// Without a claim that it must have, or with one of another form.
    Claim,
}

impl From<BadSignature> for BadToken {
    fn from(bad: BadSignature) -> Self {
        match bad {
            BadSignature::UnknownKey => Self::UnknownKey,
            BadSignature::OtherAlgorithm => Self::Algorithm,
            BadSignature::Wrong => Self::Signature,
        }
    }
}

/// Why a good token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    Bad(BadToken),
    Expired,
    /// None of our scopes.
    Unscoped,
    /// The claim is no client id. These would be.
    Client {
        dotted: bool,
        instead: Names,
    },
    /// The claim is no tenant.
    Tenant,
}

impl From<BadToken> for Unfit {
    fn from(bad: BadToken) -> Self {
        Self::Bad(bad)
    }
}

/// Some of the claims by which authorization servers name people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(u16);

impl Names {
    /// Their names, separated by commas.
    pub(super) fn told(self) -> String {
        let named = NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        named.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// A token in its parts. Nothing of it is to be believed before its signature was checked.
pub(super) struct Parts<'a> {
    pub(super) algorithm: Algorithm,
    /// Which key signed it.
    pub(super) key: String,
    /// What was signed.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    kind: Kind,
    claims: &'a str,
}

/// What a token says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `at+jwt`: an access token.
    Access,
    /// `JWT`: anything.
    Any,
}

/// What a token proves.
pub(super) struct Proof {
    pub(super) tenant: Tenant,
    pub(super) grant: Grant,
    pub(super) scopes: Scopes,
    /// Seconds since the Unix epoch, leeway included.
    pub(super) until: f64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> Parts<'a> {
    /// Takes a token apart. Only the header is read: it says how to check the rest.
    pub(super) fn of(token: &'a str, rules: &TokenRules) -> Result<Self, BadToken> {
        if token.len() > LONGEST {
            return Err(BadToken::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(BadToken::Malformed)?;
        let header: Header =
            serde_json::from_slice(&decoded(header)?).map_err(|_| BadToken::Malformed)?;
        // Nothing that must be understood is understood here (RFC 7515, section 4.1.11).
        if header.crit.is_some() || claims.contains('.') {
            return Err(BadToken::Malformed);
        }
        let algorithm = header.alg.parse().map_err(|_| BadToken::Algorithm)?;
        if !rules.algorithms.contains(&algorithm) {
            return Err(BadToken::Algorithm);
        }
        let kind = header.typ.as_deref().and_then(kind).ok_or(BadToken::Type)?;
        let key = header.kid.ok_or(BadToken::UnknownKey)?;
        let signature = decoded(signature)?;
        Ok(Self { algorithm, key, signed: signed.as_bytes(), signature, kind, claims })
    }

    /// What it proves to somebody who has checked its signature.
    pub(super) fn proof(&self, rules: &TokenRules, now: f64) -> Result<Proof, Unfit> {
        let claims: Map<String, Value> =
            serde_json::from_slice(&decoded(self.claims)?).map_err(|_| BadToken::Malformed)?;
        let claims = Claims(&claims);
        if claims.text("iss")? != rules.issuer {
            return Err(BadToken::Issuer.into());
        }
        if !claims.is_for(&rules.audience) {
            return Err(BadToken::Audience.into());
        }
        let leeway = rules.leeway.as_secs_f64();
        let until = claims.time("exp")?.ok_or(BadToken::Claim)? + leeway;
        if now >= until {
            return Err(Unfit::Expired);
        }
        if claims.time("nbf")?.is_some_and(|from| now < from - leeway) {
            return Err(BadToken::NotYetValid.into());
        }
        if !claims.give_access(self.kind) {
            return Err(BadToken::Type.into());
        }
        let scopes = claims.scopes();
        if scopes == Scopes::default() {
            return Err(Unfit::Unscoped);
        }
        Ok(Proof { tenant: claims.tenant(rules)?, grant: claims.grant(rules)?, scopes, until })
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, BadToken> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| BadToken::Malformed)
}

/// A media type without its beginning, in any case (RFC 7515, section 4.1.9).
fn kind(typ: &str) -> Option<Kind> {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "at+jwt" => Some(Kind::Access),
        "jwt" => Some(Kind::Any),
        _ => None,
    }
}

struct Claims<'a>(&'a Map<String, Value>);

impl Claims<'_> {
    fn text(&self, name: &str) -> Result<&str, BadToken> {
        self.0.get(name).and_then(Value::as_str).ok_or(BadToken::Claim)
    }

    /// Seconds since the Unix epoch; fractions are allowed.
    fn time(&self, name: &str) -> Result<Option<f64>, BadToken> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        value.as_f64().filter(|seconds| *seconds >= 0.0).map(Some).ok_or(BadToken::Claim)
    }

    fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one == audience),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                false
            }
        }
    }

    /// Whether it is an access token, and not an ID token, a refresh token or one about a logout. Those
    /// that call themselves `JWT` are told apart by what their kind has: some servers say it in a claim
    /// (`typ` in Keycloak, `token_use` in Cognito), an ID token has hashes and the nonce of a login, and
    /// only access tokens have scopes. A token that is bound to a key of its holder (`cnf`) needs a proof
    /// of that key, for which nobody is asked here: then it is worth no more than a stolen one.
    fn give_access(&self, kind: Kind) -> bool {
        if self.0.contains_key("cnf") {
            return false;
        }
        if kind == Kind::Access {
            return true;
        }
        let says = |name, word: &str| {
            let said = self.0.get(name)?;
            Some(said.as_str().is_some_and(|said| said.eq_ignore_ascii_case(word)))
        };
        let named = says("typ", "Bearer").or(says("token_use", "access"));
        let looks = || !NOT_OF_ACCESS.iter().any(|name| self.0.contains_key(*name));
        let scoped = self.0.contains_key("scope") || self.0.contains_key("scp");
        named.unwrap_or_else(looks) && scoped
    }

    /// `scope` (RFC 9068), or what some call `scp`: words in a text, or a list.
    fn scopes(&self) -> Scopes {
        let known = |word: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        match self.0.get("scope").or(self.0.get("scp")) {
            Some(Value::String(words)) => words.split(' ').filter_map(known).collect(),
            Some(Value::Array(words)) => {
                words.iter().filter_map(Value::as_str).filter_map(known).collect()
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                Scopes::default()
            }
        }
    }

    fn tenant(&self, rules: &TokenRules) -> Result<Tenant, Unfit> {
        let Some(name) = &rules.tenant_claim else { return Ok(Tenant::default()) };
        let named = self.0.get(name).and_then(Value::as_str);
        named.and_then(|text| text.parse().ok()).ok_or(Unfit::Tenant)
    }

    fn grant(&self, rules: &TokenRules) -> Result<Grant, Unfit> {
        let client = self.client(&rules.client_claim);
        match client {
            Some(client) if !rules.windows => Ok(Grant::One(client)),
            Some(client) if !client.expose().contains('.') => Ok(Grant::WithBelow(client)),
            dotted => {
                Err(Unfit::Client { dotted: dotted.is_some(), instead: self.names(rules.windows) })
            }
        }
    }

    fn client(&self, name: &str) -> Option<ClientId> {
        self.0.get(name)?.as_str()?.parse().ok()
    }

    /// Which claims would be client ids.
    fn names(&self, windows: bool) -> Names {
        let fits = |name: &str| {
            self.client(name).is_some_and(|client| !windows || !client.expose().contains('.'))
        };
        let fitting = NAMES.iter().enumerate().filter(|(_, name)| fits(name));
        Names(fitting.fold(0, |bits, (bit, _)| bits | 1 << bit))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn rules() -> TokenRules {
        TokenRules {
            issuer: "https://id.example.com".to_owned(),
            audience: "https://mail.example.com/mcp".to_owned(),
            algorithms: vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
            client_claim: "sub".to_owned(),
            tenant_claim: None,
            windows: true,
            leeway: Duration::from_secs(30),
        }
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "kid": "k", "typ": "at+jwt"})
    }

    fn claims() -> Value {
        json!({"iss": "https://id.example.com", "aud": "https://mail.example.com/mcp",
            "sub": "alice", "exp": NOW + 300.0, "scope": "openid mailbox:read mailbox:send"})
    }

    fn with(mut object: Value, changes: Value) -> Value {
        let Value::Object(changes) = changes else { panic!("{changes}") };
        let members = object.as_object_mut().unwrap();
        for (name, value) in changes {
            if value.is_null() {
                members.remove(&name);
            } else {
                members.insert(name, value);
            }
        }
        object
    }

    fn token(header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}.c2lnbmVk", part(header), part(claims))
    }

    fn proof_by(rules: &TokenRules, header: &Value, claims: &Value) -> Result<Proof, Unfit> {
        let token = token(header, claims);
        Parts::of(&token, rules)?.proof(rules, NOW)
    }

    /// What becomes of a token that differs in this from a good one.
    fn told(of_header: Value, of_claims: Value) -> Result<(), Unfit> {
        proof_by(&rules(), &with(header(), of_header), &with(claims(), of_claims)).map(drop)
    }

    #[test]
    fn a_good_token_proves_a_client_and_its_windows_and_its_scopes() {
        let proof = proof_by(&rules(), &header(), &claims()).ok().unwrap();
        assert_eq!(proof.tenant, Tenant::default());
        assert_eq!(proof.grant, Grant::WithBelow("alice".parse().unwrap()));
        assert_eq!(proof.scopes, "read,send".parse().unwrap());
        assert!((proof.until - (NOW + 330.0)).abs() < f64::EPSILON);
        let parts = token(&header(), &claims());
        let parts = Parts::of(&parts, &rules()).ok().unwrap();
        assert_eq!((&*parts.key, &*parts.signature), ("k", &b"signed"[..]));
    }

    #[test]
    fn a_header_must_be_one_that_is_understood() {
        let no = json!({});
        for (change, bad) in [
            (json!({"alg": "none"}), BadToken::Algorithm),
            (json!({"alg": "HS256"}), BadToken::Algorithm),
            (json!({"alg": "PS256"}), BadToken::Algorithm), // not among the allowed
            (json!({"alg": "eddsa"}), BadToken::Algorithm),
            (json!({"alg": 7}), BadToken::Malformed),
            (json!({"alg": null}), BadToken::Malformed),
            (json!({"kid": null}), BadToken::UnknownKey),
            (json!({"kid": 7}), BadToken::Malformed),
            (json!({"typ": null}), BadToken::Type),
            (json!({"typ": "id+jwt"}), BadToken::Type),
            (json!({"typ": "logout+jwt"}), BadToken::Type),
            (json!({"typ": "dpop+jwt"}), BadToken::Type),
            (json!({"typ": "at+jwt; x"}), BadToken::Type),
            (json!({"crit": ["exp"]}), BadToken::Malformed),
            (json!({"crit": ["b64"], "b64": false}), BadToken::Malformed),
        ] {
            assert_eq!(told(change.clone(), no.clone()), Err(Unfit::Bad(bad)), "{change}");
        }
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt"] {
            assert_eq!(told(json!({"typ": typ}), no.clone()), Ok(()), "{typ}");
        }
    }

    #[test]
    fn each_claim_is_looked_at() {
        let no = json!({});
        for (change, unfit) in [
            (json!({"iss": "https://id.example.com/"}), BadToken::Issuer.into()),
            (json!({"iss": "https://ID.example.com"}), BadToken::Issuer.into()),
            (json!({"iss": ["https://id.example.com"]}), BadToken::Claim.into()),
            (json!({"iss": null}), BadToken::Claim.into()),
            (json!({"aud": "https://mail.example.com"}), BadToken::Audience.into()),
            (json!({"aud": "https://mail.example.com/mcp/"}), BadToken::Audience.into()),
            (json!({"aud": ["https://other.example.com/mcp"]}), BadToken::Audience.into()),
            (json!({"aud": []}), BadToken::Audience.into()),
            (json!({"aud": {"https://mail.example.com/mcp": true}}), BadToken::Audience.into()),
            (json!({"aud": null}), BadToken::Audience.into()),
            (json!({"exp": NOW - 30.0}), Unfit::Expired),
            (json!({"exp": 0}), Unfit::Expired),
            (json!({"exp": null}), BadToken::Claim.into()),
            (json!({"exp": "1900000000"}), BadToken::Claim.into()),
            (json!({"exp": -1}), BadToken::Claim.into()),
            (json!({"nbf": NOW + 31.0}), BadToken::NotYetValid.into()),
            (json!({"nbf": "soon"}), BadToken::Claim.into()),
            (json!({"scope": "openid email"}), Unfit::Unscoped),
            (json!({"scope": "read mailbox: mailbox:reader MAILBOX:READ"}), Unfit::Unscoped),
            (json!({"scope": null}), Unfit::Unscoped),
            (json!({"scope": 7}), Unfit::Unscoped),
            (json!({"cnf": {"jkt": "thumbprint"}}), BadToken::Type.into()),
        ] {
            assert_eq!(told(no.clone(), change.clone()), Err(unfit), "{change}");
        }
        for good in [
            json!({"aud": ["https://other.example.com", "https://mail.example.com/mcp"]}),
            json!({"exp": NOW - 29.0}),
            json!({"exp": NOW + 0.5}),
            json!({"nbf": NOW + 29.0}),
            json!({"scope": ["mailbox:read"]}),
            json!({"scope": null, "scp": "mailbox:read"}),
            json!({"scope": null, "scp": ["mailbox:admin"]}),
        ] {
            assert_eq!(told(no.clone(), good.clone()), Ok(()), "{good}");
        }
    }

    #[test]
    fn an_id_token_is_no_access_token_even_if_it_is_for_this_audience() {
        let jwt = json!({"typ": "JWT"});
        for (change, access) in [
            (json!({}), true),
            // As their servers make ID tokens: what is asked for stands beside what must not.
            (json!({"nonce": "n-0S6", "scope": null}), false),
            (json!({"nonce": "n-0S6"}), false),
            (json!({"at_hash": "MTIz"}), false),
            (json!({"c_hash": "MTIz"}), false),
            (json!({"scope": null}), false),
            (json!({"typ": "ID", "nonce": "n-0S6"}), false),
            (json!({"typ": "Refresh"}), false),
            (json!({"typ": "Bearer"}), true),
            (json!({"typ": "Bearer", "nonce": "n-0S6"}), true),
            (json!({"token_use": "id"}), false),
            (json!({"token_use": "access"}), true),
            (json!({"events": {}}), false),
        ] {
            let expected = if access { Ok(()) } else { Err(BadToken::Type.into()) };
            assert_eq!(told(jwt.clone(), change.clone()), expected, "{change}");
        }
    }

    #[test]
    fn a_claim_that_is_no_client_id_names_those_that_are() {
        let dotted = json!({"sub": "alice.smith", "oid": "0a1b", "email": "alice@example.com"});
        for (changes, windows, is_dotted, instead) in [
            (
                json!({"sub": "auth0|7", "preferred_username": "alice", "azp": "x y"}),
                true,
                false,
                "preferred_username",
            ),
            (
                json!({"sub": "auth0|7", "email": "a@example.com", "client_id": "c1"}),
                true,
                false,
                "client_id",
            ),
            (json!({"sub": "auth0|7", "email": "a@example.com"}), false, false, "email"),
            (json!({"sub": null}), true, false, ""),
            (json!({"sub": 7}), true, false, ""),
            (json!({"sub": ""}), true, false, ""),
            (dotted.clone(), true, true, "oid"),
        ] {
            let rules = TokenRules { windows, ..rules() };
            let claims = with(claims(), changes.clone());
            let unfit = proof_by(&rules, &header(), &claims).err();
            let Some(Unfit::Client { dotted, instead: names }) = unfit else {
                panic!("{changes}: {unfit:?}")
            };
            assert_eq!((dotted, &*names.told()), (is_dotted, instead), "{changes}");
        }
        // Where nobody has windows, nobody's id is below another's.
        let rules = TokenRules { windows: false, ..rules() };
        let proof = proof_by(&rules, &header(), &with(claims(), dotted)).ok().unwrap();
        assert_eq!(proof.grant, Grant::One("alice.smith".parse().unwrap()));
    }

    #[test]
    fn client_and_tenant_come_from_the_claims_that_were_chosen() {
        let rules = TokenRules {
            client_claim: "https://example.com/agent".to_owned(),
            tenant_claim: Some("org".to_owned()),
            ..rules()
        };
        let proof = |change: Value| proof_by(&rules, &header(), &with(claims(), change));
        let named = json!({"https://example.com/agent": "agent-7", "org": "acme"});
        let proved = proof(named.clone()).ok().unwrap();
        assert_eq!(proved.tenant, "acme".parse().unwrap());
        assert_eq!(proved.grant, Grant::WithBelow("agent-7".parse().unwrap()));
        // A tenant that is not named is not the default one.
        for bad in [json!({"org": null}), json!({"org": "a/b"}), json!({"org": ["acme"]})] {
            assert_eq!(proof(with(named.clone(), bad.clone())).err(), Some(Unfit::Tenant), "{bad}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        let good = token(&header(), &claims());
        let long = token(&header(), &with(claims(), json!({"pad": "x".repeat(LONGEST)})));
        let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","alg":"none","kid":"k","typ":"JWT"}"#);
        for text in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            &good[1..],
            &good.replace('.', ""),
            &format!("{good}.x"),
            &format!("{good}="),
            &good.replacen('.', "=.", 1),
            &format!("{twice}.e30.AA"),
            &long,
            "mbk_eyJ.AA",
        ] {
            assert_eq!(Parts::of(text, &rules()).err(), Some(BadToken::Malformed), "{text:.40}");
        }
        // Its claims are no object.
        let header = URL_SAFE_NO_PAD.encode(header().to_string());
        for claims in ["W10", "bnVsbA", "AA", ""] {
            let text = format!("{header}.{claims}.AA");
            let unfit = Parts::of(&text, &rules()).ok().unwrap().proof(&rules(), NOW).err();
            assert_eq!(unfit, Some(BadToken::Malformed.into()), "{claims}");
        }
    }
}
