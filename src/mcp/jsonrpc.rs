//! JSON-RPC 2.0 messages, read without copying. Ids stay raw text and are echoed as they came.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{error::McpError, meta::Params};

/// Most messages of one batch.
const BATCH_LIMIT: usize = 100;

/// The id of a request: the JSON text of a string or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    pub(super) fn as_json(self) -> &'a str {
        self.0
    }

    /// The id that a JSON value is, if it can be one.
    pub(super) fn from_raw(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()).then_some(Self(text))
    }
}

/// One message of a client.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all messages are requests, and live on the stack"
)]
pub(super) enum Message<'a> {
    /// Wants an answer.
    Request(Request<'a>),
    /// Wants none.
    Notification { method: Cow<'a, str>, params: Option<&'a RawValue> },
    /// Answers a request of ours.
    Response { id: Option<Id<'a>>, answer: Result<&'a RawValue, &'a RawValue> },
}

/// A request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub id: Id<'a>,
    pub method: Cow<'a, str>,
    pub params: Params<'a>,
}

/// A body that is no message, with the id if it could be read.
#[derive(Debug)]
pub(super) struct Rejected<'a> {
    pub id: Option<Id<'a>>,
    pub error: McpError,
}

impl From<McpError> for Rejected<'_> {
    fn from(error: McpError) -> Self {
        Self { id: None, error }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// A string that is borrowed when it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `null` is a value here: serde would take it for a field that is not there.
pub(super) fn present<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// The body of a POST.
#[derive(Debug)]
pub(super) enum Body<'a> {
    One(&'a str),
    Batch(Vec<&'a RawValue>),
}

impl<'a> Body<'a> {
    /// Tells one message from a batch.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, McpError> {
        // JSON is UTF-8, also where nobody looks (RFC 8259, 8.1).
        let text = std::str::from_utf8(bytes).map_err(|_| McpError::Parse)?;
        if !text.trim_ascii_start().starts_with('[') {
            return Ok(Self::One(text));
        }
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| McpError::Parse)?;
        match items.len() {
            0 => Err(McpError::InvalidRequest("a batch needs at least one message")),
            1..=BATCH_LIMIT => Ok(Self::Batch(items)),
            _ => Err(McpError::InvalidRequest("a batch may have at most 100 messages")),
        }
    }
}

/// Reads one message.
pub(super) fn read(text: &str) -> Result<Message<'_>, Rejected<'_>> {
    match read_request(text) {
        Some(request) => Ok(Message::Request(request)),
        None => read_in_steps(text),
    }
}

/// A request, in one pass. `None`: it is none, or something is wrong with it.
fn read_request(text: &str) -> Option<Request<'_>> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        jsonrpc: Text<'a>,
        #[serde(borrow)]
        id: &'a RawValue,
        #[serde(borrow)]
        method: Text<'a>,
        #[serde(borrow, default, deserialize_with = "Params::deserialize_object")]
        params: Params<'a>,
        // Not of a request, and yet each at most once.
        #[serde(default, rename = "result")]
        _result: IgnoredAny,
        #[serde(default, rename = "error")]
        _error: IgnoredAny,
    }
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    let whole: Whole<'_> = serde_json::from_str(text).ok()?;
    let id = Id::from_raw(whole.id)?;
    let request = Request { id, method: whole.method.0, params: whole.params };
    (whole.jsonrpc.0 == "2.0").then_some(request)
}

/// Any message, and of what is none, why: the envelope first, so that an error names the request if it can.
fn read_in_steps(text: &str) -> Result<Message<'_>, Rejected<'_>> {
    let envelope = match serde_json::from_str::<Envelope<'_>>(text) {
        // serde would read an array as the fields in their order.
        Ok(envelope) if text.trim_ascii_start().starts_with('{') => envelope,
        Ok(_) => return Err(McpError::InvalidRequest("a message is a JSON object").into()),
        Err(error) if error.is_data() => {
            let why =
                "a message is a JSON object with jsonrpc, method, params and id, each at most once";
            return Err(McpError::InvalidRequest(why).into());
        }
        Err(_) => return Err(McpError::Parse.into()),
    };
    let id = match envelope.id.map(Id::from_raw) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => {
            return Err(McpError::InvalidRequest("id must be a string or a number").into());
        }
    };
    let refuse = |error| Err(Rejected { id, error });
    if envelope.jsonrpc.is_none_or(|version| version.0 != "2.0") {
        return refuse(McpError::InvalidRequest("jsonrpc must be \"2.0\""));
    }
    let Some(Text(method)) = envelope.method else {
        return match (envelope.result, envelope.error) {
            (Some(result), _) => Ok(Message::Response { id, answer: Ok(result) }),
            (None, Some(error)) => Ok(Message::Response { id, answer: Err(error) }),
            (None, None) => refuse(McpError::InvalidRequest("method is missing")),
        };
    };
    let Some(id) = id else {
        return Ok(Message::Notification { method, params: envelope.params });
    };
    match Params::read(envelope.params) {
        Ok(params) => Ok(Message::Request(Request { id, method, params })),
        Err(error) => refuse(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (Option<String>, McpError) {
        let rejected = read(body).unwrap_err();
        (rejected.id.map(|id| id.as_json().to_owned()), rejected.error)
    }

    #[test]
    fn what_is_read_in_one_pass_is_what_is_read_in_steps() {
        let ids = ["1", "\"a\"", "-7.5", "null", "true", "{}", "[1]", ""];
        let versions = ["\"2.0\"", "\"\\u0032.0\"", "\"1.0\"", "2", "null", ""];
        let methods = ["\"ping\"", "\"tools\\/call\"", "7", "null", ""];
        let params = [
            "{}",
            "null",
            "[]",
            "[null]",
            "7",
            "\"x\"",
            "",
            r#"{"name":"n","arguments":{"a":[1,{"b":null}]},"x":1,"x":2}"#,
            r#"{"name":"n","name":"n"}"#,
            r#"{"name":null,"arguments":null,"_meta":{"progressToken":1}}"#,
            r#"{"arguments":{"a":1,"a":2},"inputResponses":null}"#,
            r#"{"arguments":{"#,
        ];
        let mores = ["", r#","x":{},"x":1"#, r#","result":1"#, r#","error":1,"error":2"#, ",", "}"];
        let member = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("\"{name}\":{value},"),
        };
        let (mut requests, mut others) = (0, 0);
        for id in ids {
            for version in versions {
                for method in methods {
                    for params in params {
                        for more in mores {
                            let body = format!(
                                " {{{}{}{}{}\"last\":0{more}}} ",
                                member("id", id),
                                member("jsonrpc", version),
                                member("method", method),
                                member("params", params),
                            );
                            match (read_request(&body), read_in_steps(&body)) {
                                (Some(one), Ok(Message::Request(other))) => {
                                    assert_eq!(format!("{one:?}"), format!("{other:?}"), "{body}");
                                    requests += 1;
                                }
                                (Some(_), other) => panic!("{body}: {other:?}"),
                                (None, Ok(Message::Request(_))) => panic!("in steps only: {body}"),
                                (None, _) => others += 1,
                            }
                        }
                    }
                }
            }
        }
        assert!(requests > 100 && others > requests, "{requests} and {others}");
    }

    #[test]
    fn ids_keep_their_text() {
        for id in ["1", "\"a\\u00e4\"", "-7", "1.50", "12345678901234567890123", "\"\""] {
            let body = format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"ping"}}"#);
            let Ok(Message::Request(request)) = read(&body) else { panic!("{body}") };
            assert_eq!(request.id.as_json(), id);
        }
    }

    #[test]
    fn what_is_not_json_is_told_from_what_is_no_message() {
        for bad in ["", "{", "{\"jsonrpc\":\"2.0\",}", "nul", "{\"a\":1}}", "\u{1}"] {
            assert_eq!(refused(bad), (None, McpError::Parse), "{bad:?}");
        }
        for bad in [
            "1",
            "\"x\"",
            "null",
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}"#,
        ] {
            assert!(matches!(refused(bad), (None, McpError::InvalidRequest(_))), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_request_once_its_id_is_known() {
        for bad in [
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"name":"a","name":"b"}}"#,
        ] {
            assert_eq!(refused(bad).0.as_deref(), Some("1"), "{bad}");
        }
    }

    #[test]
    fn answers_of_clients_and_notifications_are_told_apart() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert!(matches!(read(answer), Ok(Message::Response { answer: Ok(_), .. })));
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#;
        assert!(matches!(read(error), Ok(Message::Response { answer: Err(_), .. })));
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(matches!(read(notice), Ok(Message::Notification { .. })));
    }
}
