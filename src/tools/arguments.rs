//! Reading arguments.
//!
//! Models and older clients write them, so what can only mean one thing is understood (a number in
//! quotes, a list as JSON text, `null` or a blank for "not given"), and everything else is refused in
//! words that name the argument, what is wrong with it and what to do.

use std::{borrow::Cow, fmt::Display, slice, time::Duration};

use serde_json::{Map, Value};

use super::{Arguments, recipients_config};
use crate::{
    messaging::own_ids,
    model::{Address, ClientId, MessageId, Principal},
};

/// What is wrong with an argument, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub(crate) struct BadArgument {
    name: String,
    problem: String,
}

impl BadArgument {
    /// `problem` continues a sentence that begins with the name.
    pub(crate) fn new(name: impl Into<String>, problem: impl Display) -> Self {
        Self { name: name.into(), problem: problem.to_string() }
    }
}

/// The argument, unless it is absent or `null`.
pub(crate) fn given<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a Value> {
    arguments.get(name).filter(|value| !value.is_null())
}

/// A text, taken as it is.
pub(super) fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, BadArgument> {
    value.as_str().ok_or_else(|| {
        BadArgument::new(name, format_args!("must be a string, not {}", shown(value)))
    })
}

/// An optional word or phrase, without white space around it. Blank counts as not given.
pub(crate) fn word<'a>(
    arguments: &'a Arguments,
    name: &str,
) -> Result<Option<&'a str>, BadArgument> {
    let Some(value) = given(arguments, name) else { return Ok(None) };
    let word = text(name, value)?.trim();
    Ok((!word.is_empty()).then_some(word))
}

/// A text of at most `limit` characters.
pub(super) fn at_most<'a>(name: &str, text: &'a str, limit: usize) -> Result<&'a str, BadArgument> {
    let length = text.chars().count();
    if length > limit {
        let problem = format_args!("is {length} characters long; use at most {limit}");
        return Err(BadArgument::new(name, problem));
    }
    Ok(text)
}

/// One of `choices`, in whatever case.
pub(super) fn choice(
    arguments: &Arguments,
    name: &str,
    choices: &[&'static str],
) -> Result<Option<&'static str>, BadArgument> {
    let Some(word) = word(arguments, name)? else { return Ok(None) };
    match choices.iter().find(|choice| choice.eq_ignore_ascii_case(word)) {
        Some(choice) => Ok(Some(choice)),
        None => Err(BadArgument::new(
            name,
            format_args!("must be one of {}, not {}", choices.join(", "), quoted(word)),
        )),
    }
}

/// Seconds within `range`, fractions allowed.
pub(super) fn seconds(
    arguments: &Arguments,
    name: &str,
    range: (Duration, Duration),
) -> Result<Option<Duration>, BadArgument> {
    let Some(value) = given(arguments, name) else { return Ok(None) };
    let number = number(value)
        .filter(|number| *number >= 0.0)
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .filter(|duration| *duration >= range.0 && *duration <= range.1);
    match number {
        Some(duration) => Ok(Some(duration)),
        None => Err(BadArgument::new(
            name,
            format_args!(
                "must be a number of seconds from {} to {}, not {}",
                range.0.as_secs(),
                range.1.as_secs(),
                shown(value)
            ),
        )),
    }
}

/// A whole number from 1 on; what is above `limit` counts as `limit`.
pub(super) fn count(
    arguments: &Arguments,
    name: &str,
    limit: u32,
) -> Result<Option<usize>, BadArgument> {
    let Some(value) = given(arguments, name) else { return Ok(None) };
    let whole = number(value).filter(|number| *number >= 1.0 && number.fract() == 0.0);
    match whole {
        // The limit keeps it small and it is whole and positive: nothing is cut off.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded above"
        )]
        Some(whole) => Ok(Some(whole.min(f64::from(limit)) as usize)),
        None => Err(BadArgument::new(
            name,
            format_args!("must be a whole number from 1 on, not {}", shown(value)),
        )),
    }
}

/// A finite number, also as text.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number| number.is_finite())
}

/// A client id.
pub(crate) fn client_id(name: &str, value: &Value) -> Result<ClientId, BadArgument> {
    let parsed = match value {
        Value::String(text) => text.parse(),
        Value::Number(number) if number.is_u64() => number.to_string().parse(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            let problem = format_args!("must be a client id in a string, not {}", shown(value));
            return Err(BadArgument::new(name, problem));
        }
    };
    parsed.map_err(|problem| BadArgument::new(name, problem))
}

/// Somebody to write to: a client id, or `team/client` where the caller proved which team it is of itself.
pub(crate) fn address(
    name: &str,
    value: &Value,
    principal: &Principal,
) -> Result<Address, BadArgument> {
    if let Some(text) = value.as_str()
        && principal.grant().is_some()
    {
        return text.parse().map_err(|problem| BadArgument::new(name, problem));
    }
    Ok(client_id(name, value)?.into())
}

/// The caller's own id: the argument `name`, or where older clients put it, or else the one that its
/// credential proves. Whether it may use an id that it names, the mailbox decides.
pub(super) fn own_id(
    arguments: &Arguments,
    name: &str,
    principal: &Principal,
) -> Result<ClientId, BadArgument> {
    for alias in [name, "client_id", "sender_id", "my_id", "my_sender_id"] {
        if let Some(value) = given(arguments, alias) {
            return client_id(alias, value);
        }
    }
    if let Some(id) = recipients_config::own_id(arguments)? {
        return Ok(id);
    }
    match (principal.client(), principal.grant()) {
        (Some(id), _) => Ok(id.clone()),
        (None, Some(several)) => {
            let problem = format!("is missing; {}", own_ids(several));
            Err(BadArgument::new(name, problem))
        }
        (None, None) => Err(BadArgument::new(
            name,
            "is missing; give your own client id (my_id in mcp_recipients.json; get_my_identity explains)",
        )),
    }
}

/// An optional message id.
pub(super) fn message_id(
    arguments: &Arguments,
    name: &str,
) -> Result<Option<MessageId>, BadArgument> {
    let Some(word) = word(arguments, name)? else { return Ok(None) };
    word.parse().map(Some).map_err(|problem| BadArgument::new(name, problem))
}

/// A list or an object that a client may have sent as JSON text.
pub(super) fn opened(value: &Value) -> Cow<'_, Value> {
    if let Value::String(text) = value
        && text.trim_start().starts_with(['[', '{'])
        && let Ok(inner) = serde_json::from_str(text)
    {
        return Cow::Owned(inner);
    }
    Cow::Borrowed(value)
}

/// What a list holds, also as JSON text; anything else stands for a list of itself.
pub(super) fn items(value: &Value) -> Cow<'_, [Value]> {
    match opened(value) {
        Cow::Borrowed(Value::Array(items)) => Cow::Borrowed(items),
        Cow::Borrowed(one) => Cow::Borrowed(slice::from_ref(one)),
        Cow::Owned(Value::Array(items)) => Cow::Owned(items),
        Cow::Owned(one) => Cow::Owned(vec![one]),
    }
}

/// An object, also as JSON text; `None` for anything else.
pub(super) fn object(value: &Value) -> Option<Cow<'_, Map<String, Value>>> {
    match opened(value) {
        Cow::Borrowed(value) => value.as_object().map(Cow::Borrowed),
        Cow::Owned(Value::Object(object)) => Some(Cow::Owned(object)),
        Cow::Owned(_) => None,
    }
}

/// The kind of a value, or a short one itself, for an error.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// At most 40 characters of what the caller sent, in quotes.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Scopes, Tenant};

    const WAITS: (Duration, Duration) = (Duration::ZERO, Duration::from_mins(5));

    fn arguments(value: &Value) -> Arguments {
        value.as_object().unwrap().clone()
    }

    fn timeout(value: &Value) -> Result<Option<Duration>, BadArgument> {
        seconds(&arguments(&json!({ "timeout": value })), "timeout", WAITS)
    }

    #[test]
    fn seconds_may_be_whole_fractional_or_in_quotes() {
        let of = |value| timeout(&value).unwrap().unwrap();
        assert_eq!(of(json!(55)), Duration::from_secs(55));
        assert_eq!(of(json!(0)), Duration::ZERO);
        assert_eq!(of(json!(-0.0)), Duration::ZERO);
        assert_eq!(of(json!(0.5)), Duration::from_millis(500));
        assert_eq!(of(json!(" 55 ")), Duration::from_secs(55));
        assert_eq!(timeout(&json!(null)), Ok(None));
    }

    #[test]
    fn seconds_that_cannot_be_are_refused_with_the_range() {
        for bad in [
            json!(-1),
            json!(-0.1),
            json!(301),
            json!(1e300),
            json!(u64::MAX),
            json!("NaN"),
            json!("inf"),
            json!("soon"),
            json!(""),
            json!(true),
            json!([5]),
            json!({}),
        ] {
            let refused = timeout(&bad).unwrap_err().to_string();
            assert!(refused.starts_with("timeout must be a number of seconds from 0 to 300, not "));
        }
    }

    #[test]
    fn counts_are_whole_and_positive() {
        let of = |value: Value| count(&arguments(&json!({ "n": value })), "n", 1000);
        assert_eq!(of(json!(7)), Ok(Some(7)));
        assert_eq!(of(json!(7.0)), Ok(Some(7)));
        assert_eq!(of(json!("7")), Ok(Some(7)));
        assert_eq!(of(json!(1e30)), Ok(Some(1000)));
        assert_eq!(of(json!(null)), Ok(None));
        for bad in [json!(0), json!(-3), json!(1.5), json!("all"), json!(false), json!([])] {
            let refused = of(bad).unwrap_err().to_string();
            assert!(refused.starts_with("n must be a whole number from 1 on"), "{refused}");
        }
    }

    #[test]
    fn an_id_says_what_is_wrong_with_it() {
        let refused = |value: Value| client_id("recipient_id", &value).unwrap_err().to_string();
        assert!(refused(json!("  ")).starts_with("recipient_id must not be blank"));
        assert!(refused(json!("a{b}")).starts_with("recipient_id contains '{'"));
        assert!(refused(json!("x".repeat(129))).starts_with("recipient_id is 129 characters"));
        assert!(refused(json!(1.5)).starts_with("recipient_id must be a client id in a string"));
        assert!(refused(json!(["a"])).ends_with("not a list"));
        assert_eq!(client_id("x", &json!(42)).unwrap().expose(), "42");
    }

    #[test]
    fn the_own_id_is_found_wherever_older_clients_put_it() {
        for sent in [
            json!({"client_id": "me", "sender_id": "other"}),
            json!({"sender_id": "me", "random_string": "x"}),
            json!({"recipients_config": {"my_id": "me"}}),
            json!({"recipients_config": {"my_sender_id": "me"}}),
            json!({"client_id": null, "recipients_config": "{\"my_id\": \"me\"}"}),
        ] {
            assert_eq!(
                own_id(&arguments(&sent), "client_id", &Principal::anyone()).unwrap().expose(),
                "me",
                "{sent}"
            );
        }
        for sent in [json!({}), json!({"recipients_config": 7}), json!({"recipients_config": {}})] {
            let refused = own_id(&arguments(&sent), "client_id", &Principal::anyone())
                .unwrap_err()
                .to_string();
            assert!(refused.starts_with("client_id is missing; give your own"), "{refused}");
        }
        let blank =
            own_id(&arguments(&json!({"sender_id": " "})), "client_id", &Principal::anyone())
                .unwrap_err();
        assert!(blank.to_string().starts_with("sender_id must not be blank"));
        let blank = json!({"recipients_config": {"my_id": ""}});
        let blank = own_id(&arguments(&blank), "client_id", &Principal::anyone()).unwrap_err();
        assert!(blank.to_string().starts_with("recipients_config.my_id must not be blank"));
    }

    #[test]
    fn an_own_id_that_was_not_given_is_the_one_that_the_key_proves() {
        let own = |sent: Value, grant: &str| {
            let proved =
                Principal::proved(Tenant::default(), grant.parse().unwrap(), Scopes::default());
            own_id(&arguments(&sent), "sender_id", &proved)
        };
        assert_eq!(own(json!({}), "alice").unwrap().expose(), "alice");
        assert_eq!(own(json!({"sender_id": "bob"}), "alice").unwrap().expose(), "bob");
        let refused = own(json!({}), "alice.*").unwrap_err().to_string();
        assert_eq!(refused, "sender_id is missing; use ids that begin with alice. such as alice.1");
    }

    #[test]
    fn message_ids_are_uuids_and_blank_is_none() {
        let of =
            |value: Value| message_id(&arguments(&json!({ "in_reply_to": value })), "in_reply_to");
        let id = MessageId::new();
        assert_eq!(of(json!(id.to_string())), Ok(Some(id)));
        assert_eq!(of(json!("")), Ok(None));
        for bad in [json!("last one"), json!("0199c3a2-7d1e"), json!(7)] {
            assert!(of(bad).unwrap_err().to_string().starts_with("in_reply_to "));
        }
    }

    #[test]
    fn what_the_caller_sent_is_repeated_in_short_and_escaped() {
        let long = shown(&json!("\u{202e}x".repeat(100)));
        assert!(long.chars().count() < 300 && !long.contains('\u{202e}'), "{long}");
    }
}
