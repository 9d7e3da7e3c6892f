//! `params` and its `_meta`: what every request carries beside its own parameters.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value, value::RawValue};

use super::{
    error::McpError,
    headers::Headers,
    jsonrpc::{Id, present},
};
use crate::{dialogue::LogLevel, model::TraceParent, tools::Arguments};

/// Longest progress token that is kept while a call waits.
const TOKEN_LIMIT: usize = 256;

/// The parameters of any method; each method reads its own. Unknown ones are ignored.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    notifications: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "inputResponses", deserialize_with = "present")]
    input_responses: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestState", deserialize_with = "present")]
    request_state: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId")]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    level: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    argument: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cursor: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "protocolVersion")]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request_id: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    /// From an object, or nothing from `null`. An array would be the members in their order.
    pub(super) fn deserialize_object<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Params<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Params<'de>, E> {
                Ok(Params::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Params<'de>, A::Error> {
                Params::deserialize(MapAccessDeserializer::new(map))
            }
        }
        from.deserialize_any(Object)
    }

    pub(super) fn read(raw: Option<&'a RawValue>) -> Result<Self, McpError> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        let malformed = McpError::MalformedParams("params must be an object without repeated keys");
        if !raw.get().starts_with('{') {
            return Err(malformed);
        }
        serde_json::from_str(raw.get()).map_err(|_| malformed)
    }

    pub(super) fn meta(&self) -> Result<Meta<'a>, McpError> {
        let Some(raw) = self.meta else { return Ok(Meta::default()) };
        let malformed = McpError::MalformedParams("_meta must be an object without repeated keys");
        if !raw.get().starts_with('{') {
            return Err(malformed);
        }
        serde_json::from_str(raw.get()).map_err(|_| malformed)
    }

    /// `params.name`.
    pub(super) fn name(&self) -> Result<Cow<'a, str>, McpError> {
        let missing = McpError::InvalidParams("name is missing or not a string");
        self.name.and_then(text).ok_or(missing)
    }

    /// `params.uri`.
    pub(super) fn uri(&self) -> Result<Cow<'a, str>, McpError> {
        let missing = McpError::InvalidParams("uri is missing or not a string");
        self.uri.and_then(text).ok_or(missing)
    }

    /// `params.arguments`; none is an empty object.
    pub(super) fn arguments(&self) -> Result<Arguments, McpError> {
        let Some(raw) = self.arguments else { return Ok(Arguments::new()) };
        serde_json::from_str(raw.get()).map(|Once(arguments)| arguments).map_err(|error| {
            McpError::InvalidParams(if error.is_data() {
                "arguments must be an object without repeated keys"
            } else if error.to_string().starts_with("recursion limit") {
                "arguments are nested too deeply; at most 127 levels are read"
            } else {
                "arguments have a number or a string that cannot be read"
            })
        })
    }

    /// What `subscriptions/listen` asks to hear of.
    pub(super) fn notifications(&self) -> Result<Wanted, McpError> {
        let wrong = "notifications must be an object of booleans and lists: resourceSubscriptions of URIs, taskIds";
        let raw = self.notifications.filter(|raw| raw.get().starts_with('{'));
        let read = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        read.ok_or(McpError::InvalidParams(wrong))
    }

    /// `params.taskId`.
    pub(super) fn task_id(&self) -> Result<Cow<'a, str>, McpError> {
        let missing = McpError::InvalidParams("taskId is missing or not a string");
        self.task_id.and_then(text).ok_or(missing)
    }

    /// What `tasks/update` answers: as [`input_responses`](Self::input_responses), and never missing.
    pub(super) fn task_answers(&self) -> Result<Map<String, Value>, McpError> {
        let missing = McpError::InvalidParams("inputResponses is missing");
        self.input_responses.ok_or(missing)?;
        self.input_responses()
    }

    /// The answers to the inputs that an earlier round required.
    pub(super) fn input_responses(&self) -> Result<Map<String, Value>, McpError> {
        let Some(raw) = self.input_responses else { return Ok(Map::new()) };
        let wrong = McpError::InvalidParams("inputResponses must be an object of objects");
        let responses: Map<String, Value> =
            serde_json::from_str(raw.get()).map_err(|_| wrong.clone())?;
        if responses.values().all(Value::is_object) { Ok(responses) } else { Err(wrong) }
    }

    /// The state that an earlier round gave the client.
    pub(super) fn request_state(&self) -> Result<Option<String>, McpError> {
        let Some(raw) = self.request_state else { return Ok(None) };
        let wrong = McpError::InvalidParams("requestState must be a string");
        text(raw).map(|state| Some(state.into_owned())).ok_or(wrong)
    }

    /// The level of `logging/setLevel`.
    pub(super) fn level(&self) -> Result<LogLevel, McpError> {
        self.level.and_then(log_level).ok_or(McpError::InvalidParams(LEVELS))
    }

    /// What `completion/complete` is to complete.
    pub(super) fn completion(&self) -> Result<(Reference, Argument), McpError> {
        let read = |raw: Option<&RawValue>| Some(raw?.get().to_owned());
        let reference = read(self.reference).and_then(|json| serde_json::from_str(&json).ok());
        let argument = read(self.argument).and_then(|json| serde_json::from_str(&json).ok());
        reference.zip(argument).ok_or(McpError::InvalidParams(
            "ref must be a ref/prompt with name or a ref/resource with uri, \
             and argument an object of name and value",
        ))
    }

    /// Which page is asked for, other than the first.
    pub(super) fn cursor(&self) -> Result<Option<Cow<'a, str>>, McpError> {
        let Some(raw) = self.cursor else { return Ok(None) };
        text(raw).map(Some).ok_or(McpError::InvalidParams("cursor must be a string"))
    }

    /// The version that `initialize` asks for.
    pub(super) fn protocol_version(&self) -> Option<Cow<'a, str>> {
        self.protocol_version.and_then(text)
    }

    /// The request that `notifications/cancelled` names.
    pub(super) fn request_id(&self) -> Option<Id<'a>> {
        self.request_id.and_then(Id::from_raw)
    }
}

const LEVELS: &str = "the log level must be one of debug, info, notice, warning, error, critical, \
alert, emergency";

fn log_level(raw: &RawValue) -> Option<LogLevel> {
    LogLevel::named(&text(raw)?)
}

/// What is completed.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Reference {
    #[serde(rename = "ref/prompt")]
    Prompt { name: String },
    #[serde(rename = "ref/resource")]
    Resource { uri: String },
}

/// The argument that is completed, as far as it was typed.
#[derive(Debug, Deserialize)]
pub(super) struct Argument {
    pub name: String,
    pub value: String,
}

/// The filter of `subscriptions/listen`. Unknown kinds are ignored: they are not honoured.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default, rename = "resourceSubscriptions")]
    pub resources: Vec<String>,
    #[serde(default, rename = "toolsListChanged")]
    pub tools: bool,
    #[serde(default, rename = "promptsListChanged")]
    pub prompts: bool,
    #[serde(default, rename = "resourcesListChanged")]
    pub resource_list: bool,
    #[serde(default, rename = "taskIds")]
    pub tasks: Vec<String>,
}

/// `_meta` of a request.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<&'a RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<&'a RawValue>,
}

impl<'a> Meta<'a> {
    /// Whether the request says by itself which revision it speaks.
    pub(super) fn names_version(&self) -> bool {
        self.version.is_some()
    }

    /// The revision that the request names.
    pub(super) fn version(&self) -> Result<Option<Cow<'a, str>>, McpError> {
        let Some(raw) = self.version else { return Ok(None) };
        text(raw).map(Some).ok_or(McpError::MalformedParams(
            "_meta io.modelcontextprotocol/protocolVersion must be a string",
        ))
    }

    /// A modern request says what its client can do.
    pub(super) fn check_capabilities(&self) -> Result<(), McpError> {
        let object = self.capabilities.is_some_and(|raw| raw.get().starts_with('{'));
        object.then_some(()).ok_or(McpError::MalformedParams(
            "_meta io.modelcontextprotocol/clientCapabilities must be an object",
        ))
    }

    /// What the client can do, once that was checked.
    pub(super) fn capabilities(&self) -> Map<String, Value> {
        let read = self.capabilities.and_then(|raw| serde_json::from_str(raw.get()).ok());
        read.unwrap_or_default()
    }

    /// Whether the client says with this very request that it knows an extension.
    pub(super) fn declares(&self, extension: &str) -> bool {
        #[derive(Deserialize)]
        struct Declared {
            #[serde(default)]
            extensions: Map<String, Value>,
        }
        // Most requests declare none: not worth reading their capabilities.
        let named = self.capabilities.filter(|raw| raw.get().contains(extension));
        let read = named.and_then(|raw| serde_json::from_str::<Declared>(raw.get()).ok());
        read.is_some_and(|declared| {
            declared.extensions.get(extension).is_some_and(Value::is_object)
        })
    }

    /// From which level on the client wants log lines of this request.
    pub(super) fn log_level(&self) -> Result<Option<LogLevel>, McpError> {
        let Some(raw) = self.log_level else { return Ok(None) };
        log_level(raw).map(Some).ok_or(McpError::InvalidParams(LEVELS))
    }

    /// The token under which progress is to be reported, as JSON text.
    pub(super) fn progress_token(&self) -> Option<&'a str> {
        let token = self.progress_token.and_then(Id::from_raw)?.as_json();
        (token.len() <= TOKEN_LIMIT).then_some(token)
    }

    /// The caller's trace: from here, or else from the HTTP header. One that is invalid is ignored.
    pub(super) fn trace(&self, headers: &Headers<'_>) -> Option<TraceParent> {
        match self.traceparent.and_then(text) {
            Some(text) => text.parse().ok(),
            None => headers.traceparent.text("traceparent").ok()??.parse().ok(),
        }
    }
}

/// The string that a JSON value is.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Arguments in which no key is repeated: which one counts would be a matter of taste.
struct Once(Arguments);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object without repeated keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut arguments = Arguments::new();
                while let Some(key) = map.next_key::<String>()? {
                    if arguments.contains_key(&key) {
                        map.next_value::<IgnoredAny>()?;
                        return Err(A::Error::custom("repeated key"));
                    }
                    arguments.insert(key, map.next_value()?);
                }
                Ok(Once(arguments))
            }
        }
        from.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(json: &str) -> Params<'_> {
        Params::read(Some(serde_json::from_str(json).unwrap())).unwrap()
    }

    #[test]
    fn unknown_keys_are_ignored_and_known_ones_read() {
        let params = params(
            r#"{"name":"e\u0063ho","arguments":{"a":1},"vendor":[1],"_meta":{"progressToken":"p","x/y":{}}}"#,
        );
        assert_eq!(params.name().unwrap(), "echo");
        assert_eq!(params.arguments().unwrap()["a"], 1);
        assert_eq!(params.meta().unwrap().progress_token(), Some("\"p\""));
        assert!(!params.meta().unwrap().names_version());
    }

    #[test]
    fn a_repeated_argument_is_refused() {
        assert!(params(r#"{"arguments":{"a":1,"a":2}}"#).arguments().is_err());
        assert!(params(r#"{"arguments":[1]}"#).arguments().is_err());
        assert!(params(r#"{"arguments":null}"#).arguments().unwrap().is_empty());
    }

    #[test]
    fn arguments_that_are_nested_too_deeply_are_told_so() {
        let nested = |levels: usize| {
            let json =
                format!(r#"{{"arguments":{{"a":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels));
            let json: Box<RawValue> = serde_json::from_str(&json).unwrap();
            Params::read(Some(&json)).unwrap().arguments()
        };
        assert!(nested(120).is_ok());
        for levels in [127, 128, 1000] {
            let error = nested(levels).unwrap_err().to_string();
            assert!(error.contains("nested too deeply"), "{levels}: {error}");
        }
        for bad in ["1e999", r#""\ud800""#] {
            let json = format!(r#"{{"arguments":{{"a":{bad}}}}}"#);
            let error = params(&json).arguments().unwrap_err().to_string();
            assert!(error.contains("cannot be read"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_trace_of_the_message_goes_before_the_header_s() {
        let of = |id: u8| format!("00-{}-{:016x}-01", format!("{id:02x}").repeat(16), id);
        let header = of(7);
        let headers = Headers {
            traceparent: super::super::Field::One(header.as_bytes()),
            ..Headers::default()
        };
        let json = format!(r#"{{"_meta":{{"traceparent":"{}"}}}}"#, of(5));
        let trace = params(&json).meta().unwrap().trace(&headers).unwrap();
        assert_eq!(trace.to_string(), of(5));
        let trace = Meta::default().trace(&headers).unwrap();
        assert_eq!(trace.to_string(), header);
    }
}
