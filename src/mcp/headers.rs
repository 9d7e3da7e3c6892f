//! The headers that mirror the body (2026-07-28), and those that every revision reads.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use serde_json::{Map, Value};

use super::error::McpError;
use crate::model::{Principal, Scope};

/// A header that may appear once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field<'a> {
    /// Not sent.
    #[default]
    Absent,
    /// Sent once.
    One(&'a [u8]),
    /// Sent more than once: nobody can know which one was read before.
    Many,
}

impl<'a> Field<'a> {
    /// From all values of one name.
    pub fn read(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value.trim_ascii()),
            (Some(_), Some(_)) => Self::Many,
        }
    }

    /// The value as text; `None` if it was not sent.
    pub(super) fn text(self, name: &'static str) -> Result<Option<&'a str>, McpError> {
        match self {
            Self::Absent => Ok(None),
            Self::One(value) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(mismatch(name, "is not text")),
            },
            Self::Many => Err(mismatch(name, "was sent more than once")),
        }
    }
}

/// Looks a header up by its name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Field<'a>;

/// What the protocol reads of a request's headers.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a> {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Field<'a>,
    /// `Mcp-Method`.
    pub method: Field<'a>,
    /// `Mcp-Name`. May hold a credential: never log it.
    pub name: Field<'a>,
    /// `Mcp-Session-Id`.
    pub session: Field<'a>,
    /// `traceparent`.
    pub traceparent: Field<'a>,
    /// Who sent it, as its credential proves; `None`: nobody has to prove anything. It goes into the
    /// context of the call as it is: this module knows nothing of what it holds.
    pub principal: Option<&'a Principal>,
    /// The others, for tools whose arguments are mirrored. `None`: there are none.
    pub others: Option<Lookup<'a>>,
}

impl<'a> Headers<'a> {
    /// The session, if one was named: revisions that have sessions send it with every request.
    pub(super) fn session(&self) -> Option<&'a str> {
        self.session.text("Mcp-Session-Id").ok().flatten().filter(|session| !session.is_empty())
    }

    /// Who sent it.
    pub(super) fn principal(&self) -> Principal {
        self.principal.cloned().unwrap_or_default()
    }

    /// Refuses what the sender's credential does not allow.
    pub(super) fn check_scopes(&self, needed: &[Scope]) -> Result<(), McpError> {
        match self.principal.and_then(|principal| principal.lacks(needed)) {
            Some(lacking) => Err(McpError::InsufficientScope(lacking)),
            None => Ok(()),
        }
    }

    /// `Mcp-Method` must repeat `method`.
    pub(super) fn check_method(&self, method: &str) -> Result<(), McpError> {
        match self.method.text("Mcp-Method")? {
            None => Err(mismatch("Mcp-Method", "is missing; send the method of the body")),
            Some(value) if value == method => Ok(()),
            Some(_) => Err(mismatch("Mcp-Method", "differs from the method of the body")),
        }
    }

    /// `Mcp-Name` must repeat `value`, which is `params.<key>`, plain or coded.
    pub(super) fn check_name(&self, key: &'static str, value: &str) -> Result<(), McpError> {
        let Some(header) = self.name.text("Mcp-Name")? else {
            return Err(mismatch(
                "Mcp-Name",
                &format!("is missing; send params.{key} of the body"),
            ));
        };
        match decoded(header) {
            Some(header) if header == value => Ok(()),
            Some(_) => Err(mismatch("Mcp-Name", "differs from the body")),
            None => Err(mismatch("Mcp-Name", "is not valid =?base64?...?= of UTF-8")),
        }
    }
}

/// An argument that clients mirror into a header, as `x-mcp-header` of its schema says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirrored {
    argument: String,
    header: String,
}

impl Mirrored {
    /// Those of a tool's definition.
    pub(super) fn of(definition: &Value) -> Vec<Self> {
        let properties = definition["inputSchema"]["properties"].as_object();
        let mirrored = properties.into_iter().flatten().filter_map(|(argument, schema)| {
            let header = format!("Mcp-Param-{}", schema.get("x-mcp-header")?.as_str()?);
            Some(Self { argument: argument.clone(), header })
        });
        mirrored.collect()
    }

    /// The header must repeat the argument, and be missing where the argument is.
    pub(super) fn check(
        &self,
        headers: &Headers<'_>,
        arguments: &Map<String, Value>,
    ) -> Result<(), McpError> {
        let refuse =
            |what: &str| Err(McpError::HeaderMismatch(format!("{} {what}", self.header).into()));
        let field = headers.others.map_or(Field::Absent, |lookup| lookup(&self.header));
        let value = match arguments.get(&self.argument) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(Cow::Borrowed(&**text)),
            Some(other) => Some(Cow::Owned(other.to_string())),
        };
        let header = match field {
            Field::Absent => None,
            Field::Many => return refuse("was sent more than once"),
            Field::One(bytes) => match std::str::from_utf8(bytes).ok().and_then(decoded) {
                Some(text) => Some(text),
                None => return refuse("is not valid =?base64?...?= of UTF-8"),
            },
        };
        if header == value { Ok(()) } else { refuse("differs from its argument") }
    }
}

fn mismatch(name: &'static str, what: &str) -> McpError {
    McpError::HeaderMismatch(Cow::Owned(format!("{name} {what}")))
}

/// A header value, decoded if it is coded. `None`: it is coded wrongly.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let coded = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let Some(coded) = coded else { return Some(Cow::Borrowed(value)) };
    let bytes = STANDARD.decode(coded).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(value: &str) -> Headers<'_> {
        Headers { name: Field::One(value.as_bytes()), ..Headers::default() }
    }

    #[test]
    fn a_name_may_be_plain_or_coded() {
        assert_eq!(name("echo").check_name("name", "echo"), Ok(()));
        assert_eq!(name("=?base64?ZWNobw==?=").check_name("name", "echo"), Ok(()));
        assert_eq!(name("=?base64?w6Q=?=").check_name("name", "ä"), Ok(()));
        // Only the whole wrapper is one.
        assert_eq!(name("=?base64?ZWNobw==").check_name("name", "=?base64?ZWNobw=="), Ok(()));
    }

    #[test]
    fn a_name_that_is_not_the_body_s_is_refused() {
        for (value, body) in [
            ("Echo", "echo"),
            ("", "echo"),
            ("=?base64?ZWNobw?=", "echo"),    // padding is missing
            ("=?base64?ZWNobx==?=", "echo"),  // bits beyond the text
            ("=?base64?ZWN_bw==?=", "echo"),  // alphabet of URLs
            ("=?base64?/w==?=", "\u{fffd}"),  // not UTF-8
            ("=?base64? ZWNobw==?=", "echo"), // white space
            ("=?BASE64?ZWNobw==?=", "echo"),  // the wrapper is case-sensitive
        ] {
            assert!(name(value).check_name("name", body).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_mirrored_argument_must_be_its_header() {
        let definition = serde_json::json!({ "inputSchema": { "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "many": { "type": "integer", "x-mcp-header": "Many" },
            "other": { "type": "string" },
        } } });
        let check = |region: Field<'static>, many: Field<'static>, arguments: Value| {
            let lookup = move |name: &str| match name {
                "Mcp-Param-Region" => region,
                "Mcp-Param-Many" => many,
                _ => Field::Absent,
            };
            let headers = Headers { others: Some(&lookup), ..Headers::default() };
            let arguments = arguments.as_object().unwrap();
            Mirrored::of(&definition).iter().all(|one| one.check(&headers, arguments).is_ok())
        };
        let json = serde_json::json!({ "region": "Hello", "many": 7 });
        let seven = Field::One(b"7");
        assert!(check(Field::One(b"Hello"), seven, json.clone()));
        assert!(check(Field::One(b"=?base64?SGVsbG8=?="), seven, json.clone()));
        assert!(check(Field::Absent, Field::Absent, serde_json::json!({ "region": null })));
        for bad in [
            Field::Absent,
            Field::Many,
            Field::One(b"hello"),
            Field::One(b"SGVsbG8="),
            Field::One(b"=?base64?SGVsbG8?="),
            Field::One(b"\xff"),
        ] {
            assert!(!check(bad, seven, json.clone()), "{bad:?}");
        }
        assert!(!check(Field::One(b"Hello"), Field::Absent, json));
        assert!(!check(Field::One(b"Hello"), Field::Absent, serde_json::json!({})));
    }

    #[test]
    fn a_header_sent_twice_is_refused_and_white_space_around_it_is_not() {
        let twice = Field::read([&b"tools/call"[..], b"tools/call"].into_iter());
        assert_eq!(twice, Field::Many);
        let headers = Headers { method: twice, ..Headers::default() };
        assert!(headers.check_method("tools/call").is_err());
        let spaced = Field::read([&b" tools/call\t"[..]].into_iter());
        let headers = Headers { method: spaced, ..Headers::default() };
        assert_eq!(headers.check_method("tools/call"), Ok(()));
        assert!(Headers::default().check_method("tools/call").is_err());
    }
}
