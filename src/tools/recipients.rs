//! To whom, and what: the listed arguments and every form that clients of the Python original send.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    Arguments,
    arguments::{self, BadArgument},
    outcome::Stop,
};
use crate::{
    messaging::{MessagingError, Parcel},
    model::{Address, Principal},
};

const KEYS: [&str; 3] = ["recipient_id", "recipients", "recipient_ids"];

/// What goes to whom. `limit` is checked before any text is copied.
pub(super) fn parcels(
    arguments: &Arguments,
    limit: usize,
    principal: &Principal,
) -> Result<Vec<Parcel>, Stop> {
    let (key, items) = addressees(arguments)?;
    let count = items.len();
    if count > limit {
        return Err(Stop::sort(MessagingError::TooManyRecipients { count, limit }));
    }
    Ok(filled(arguments, key, &items, principal)?)
}

/// The one recipient of a question, and the question.
pub(super) fn single(arguments: &Arguments, principal: &Principal) -> Result<Parcel, BadArgument> {
    let (key, items) = addressees(arguments)?;
    if items.len() == 1
        && let Some(parcel) = filled(arguments, key, &items, principal)?.pop()
    {
        return Ok(parcel);
    }
    let problem = format_args!(
        "names {} clients; a question goes to one. Use send_message for several",
        items.len()
    );
    Err(BadArgument::new(key, problem))
}

fn filled(
    arguments: &Arguments,
    key: &str,
    items: &[Value],
    principal: &Principal,
) -> Result<Vec<Parcel>, BadArgument> {
    let texts = Texts::read(arguments, items.len())?;
    let parcels = items.iter().enumerate().map(|(index, item)| {
        let name =
            if key == KEYS[0] { Cow::Borrowed(key) } else { Cow::Owned(format!("{key}[{index}]")) };
        parcel(&name, item, (&texts, index), principal)
    });
    parcels.collect()
}

/// The argument that names recipients, and them.
fn addressees(arguments: &Arguments) -> Result<(&'static str, Cow<'_, [Value]>), BadArgument> {
    let mut found = None;
    for key in KEYS {
        let Some(value) = arguments::given(arguments, key) else { continue };
        let items = arguments::items(value);
        if items.is_empty() {
            continue;
        }
        if let Some((other, _)) = found {
            return Err(BadArgument::new(key, format_args!("and {other} were given; use one")));
        }
        found = Some((key, items));
    }
    found.ok_or_else(|| {
        BadArgument::new(
            KEYS[0],
            "is missing; give the recipient's client id, or several in recipients (list_clients knows them)",
        )
    })
}

/// The texts that stand beside the recipients.
struct Texts<'a> {
    each: Vec<Cow<'a, str>>,
    all: Option<Cow<'a, str>>,
}

impl<'a> Texts<'a> {
    fn read(arguments: &'a Arguments, recipients: usize) -> Result<Self, BadArgument> {
        let mut texts = Self { each: Vec::new(), all: None };
        if let Some(value) = arguments::given(arguments, "message") {
            texts.all = Some(arguments::text("message", value)?.into());
        }
        let Some(value) = arguments::given(arguments, "messages") else { return Ok(texts) };
        let mut each: Vec<Cow<'_, str>> = match arguments::opened(value) {
            Cow::Borrowed(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|item| Ok(nth(item)?.into()))
                .collect::<Result<_, _>>()?,
            Cow::Owned(Value::Array(items)) => {
                let read = |item| Ok(nth(item)?.to_owned().into());
                items.iter().enumerate().map(read).collect::<Result<_, _>>()?
            }
            Cow::Borrowed(_) | Cow::Owned(_) => {
                texts.all = Some(arguments::text("messages", value)?.into());
                return Ok(texts);
            }
        };
        match each.len() {
            0 => {}
            1 => texts.all = each.pop(),
            count if count == recipients => texts.each = each,
            _ => {
                let problem = format_args!(
                    "has {} texts for {recipients} recipients; give one for each, or one for all",
                    each.len()
                );
                return Err(BadArgument::new("messages", problem));
            }
        }
        Ok(texts)
    }
}

/// One of `messages`.
fn nth((index, item): (usize, &Value)) -> Result<&str, BadArgument> {
    arguments::text(&format!("messages[{index}]"), item)
}

fn parcel(
    name: &str,
    item: &Value,
    (texts, index): (&Texts<'_>, usize),
    principal: &Principal,
) -> Result<Parcel, BadArgument> {
    let (recipient, own) = match item {
        Value::Object(item) => {
            let id = ["id", "recipient_id", "client_id"]
                .into_iter()
                .find_map(|key| Some((key, arguments::given(item, key)?)));
            let Some((key, id)) = id else {
                return Err(BadArgument::new(name, "has no id; give {\"id\": …, \"message\": …}"));
            };
            let own = match arguments::given(item, "message") {
                Some(text) => Some(arguments::text(&format!("{name}.message"), text)?),
                None => None,
            };
            (arguments::address(&format!("{name}.{key}"), id, principal)?, own)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            (arguments::address(name, item, principal)?, None)
        }
    };
    text_for(recipient, own.or(texts.each.get(index).map(AsRef::as_ref)), texts)
}

fn text_for(
    recipient: Address,
    own: Option<&str>,
    texts: &Texts<'_>,
) -> Result<Parcel, BadArgument> {
    match own.or(texts.all.as_deref()) {
        Some(text) => Ok(Parcel { recipient, text: text.to_owned() }),
        None => {
            Err(BadArgument::new("message", "is missing; write what the recipient should read"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(sent: &Value) -> Result<Vec<(String, String)>, String> {
        let parcels = parcels(sent.as_object().unwrap(), 100, &Principal::anyone()).map_err(
            |stop| match stop {
                Stop::Refused(text) | Stop::BadArgument(text) => text,
                Stop::Cancelled | Stop::Failed(_) => unreachable!("arguments are the caller's"),
            },
        )?;
        let pair = |parcel: Parcel| (parcel.recipient.expose().to_owned(), parcel.text);
        Ok(parcels.into_iter().map(pair).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn every_form_in_the_wild_is_understood() {
        let two = pairs(&[("bob", "hi"), ("carol", "hi")]);
        let each = pairs(&[("bob", "1"), ("carol", "2")]);
        for (sent, expected) in [
            (json!({"recipient_id": "bob", "message": "hi"}), &two[..1]),
            (json!({"recipients": "bob", "message": "hi"}), &two[..1]),
            (json!({"recipients": {"id": "bob", "message": "hi"}}), &two[..1]),
            (json!({"recipient_id": "bob", "recipients": [], "message": "hi"}), &two[..1]),
            (json!({"recipient_id": null, "recipients": ["bob"], "message": "hi"}), &two[..1]),
            (json!({"recipients": ["bob", "carol"], "message": "hi"}), &two),
            (json!({"recipients": ["bob", {"id": "carol"}], "message": "hi"}), &two),
            (json!({"recipients": "[\"bob\", \"carol\"]", "message": "hi"}), &two),
            (json!({"recipient_ids": ["bob", "carol"], "messages": ["hi"]}), &two),
            (json!({"recipient_ids": ["bob", "carol"], "messages": "hi"}), &two),
            (json!({"recipient_ids": ["bob", "carol"], "messages": ["1", "2"]}), &each),
            (json!({"recipient_ids": "[\"bob\",\"carol\"]", "messages": "[\"1\",\"2\"]"}), &each),
            (
                json!({"recipients": "[{\"id\":\"bob\",\"message\":\"1\"},{\"id\":\"carol\",\"message\":\"2\"}]"}),
                &each,
            ),
            (
                json!({"recipients": [{"id": "bob", "message": "1"}, {"recipient_id": "carol"}], "message": "2"}),
                &each,
            ),
        ] {
            assert_eq!(read(&sent).unwrap(), expected, "{sent}");
        }
    }

    #[test]
    fn refusals_name_the_argument() {
        for (sent, start) in [
            (json!({"message": "hi"}), "recipient_id is missing"),
            (json!({"recipients": [], "message": "hi"}), "recipient_id is missing"),
            (json!({"recipient_id": "bob"}), "message is missing"),
            (json!({"recipient_id": "bob", "message": 7}), "message must be a string, not 7"),
            (json!({"recipient_id": " ", "message": "x"}), "recipient_id must not be blank"),
            (
                json!({"recipient_id": "a", "recipients": ["b"], "message": "x"}),
                "recipients and recipient_id were given",
            ),
            (json!({"recipients": ["a", ""], "message": "x"}), "recipients[1] must not be blank"),
            (json!({"recipients": [{"message": "x"}]}), "recipients[0] has no id"),
            (json!({"recipients": [{"id": "a", "message": {}}]}), "recipients[0].message must be"),
            (
                json!({"recipients": [{"id": "a/b"}], "message": "x"}),
                "recipients[0].id contains '/'",
            ),
            (json!({"recipients": [["a"]], "message": "x"}), "recipients[0] must be a client id"),
            (
                json!({"recipient_ids": ["a", "b", "c"], "messages": ["1", "2"]}),
                "messages has 2 texts for 3 recipients",
            ),
            (json!({"recipient_ids": ["a"], "messages": [1]}), "messages[0] must be a string"),
        ] {
            let refused = read(&sent).unwrap_err();
            assert!(refused.starts_with(start), "{sent}: {refused}");
        }
    }

    #[test]
    fn who_proved_its_team_may_name_another_one() {
        let alice = Principal::proved(
            "acme".parse().unwrap(),
            "alice".parse().unwrap(),
            "send".parse().unwrap(),
        );
        let sent = json!({"recipients": ["bob", {"id": "beta/bob"}], "message": "x"});
        let parcels = parcels(sent.as_object().unwrap(), 100, &alice);
        let Ok(parcels) = parcels else { panic!("refused") };
        let to: Vec<_> = parcels.iter().map(|parcel| parcel.recipient.expose()).collect();
        assert_eq!(to, ["bob", "beta/bob"]);
        let sent = json!({"recipient_id": "be ta/bob", "message": "x"});
        let refused = single(sent.as_object().unwrap(), &alice).unwrap_err().to_string();
        assert!(refused.starts_with("recipient_id names a team before the slash"), "{refused}");
    }

    #[test]
    fn thousands_of_recipients_are_refused_before_the_text_is_copied() {
        let many: Vec<_> = (0..50_000).map(|n| format!("c{n}")).collect();
        let sent = json!({"recipients": many, "message": "x".repeat(100_000)});
        assert!(read(&sent).unwrap_err().starts_with("50000 recipients; the limit of one call is"));
    }

    #[test]
    fn a_question_goes_to_one() {
        let sent = json!({"recipients": ["a", "b"], "message": "x"});
        let refused =
            single(sent.as_object().unwrap(), &Principal::anyone()).unwrap_err().to_string();
        assert!(refused.starts_with("recipients names 2 clients; a question goes to one"));
        let sent = json!({"recipients": [{"id": "a", "message": "x"}]});
        assert_eq!(
            single(sent.as_object().unwrap(), &Principal::anyone()).unwrap().recipient.expose(),
            "a"
        );
    }
}
