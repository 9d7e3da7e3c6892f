//! `mcp_recipients.json`, which a caller may pass as `recipients_config`: who it is, whom it knows.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Arguments,
    arguments::{self, BadArgument},
};
use crate::model::{Address, ClientId, Principal};

const NAME: &str = "recipients_config";

/// Whom the caller's file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contact {
    /// Its id; with its team where that is another one.
    pub id: Address,
    /// `name`, if it has one.
    pub name: String,
    /// `description`, if it has one.
    pub description: String,
}

/// `my_id` or `my_sender_id` of the config, if there is a config and it has one.
pub(super) fn own_id(arguments: &Arguments) -> Result<Option<ClientId>, BadArgument> {
    let config = arguments::given(arguments, NAME).and_then(arguments::object);
    let Some(config) = config else { return Ok(None) };
    for name in ["my_id", "my_sender_id"] {
        if let Some(value) = arguments::given(&config, name) {
            return arguments::client_id(&format!("{NAME}.{name}"), value).map(Some);
        }
    }
    Ok(None)
}

/// The recipients that the config names, in its order. Those without a valid id are refused.
pub(super) fn contacts(
    arguments: &Arguments,
    principal: &Principal,
) -> Result<Vec<Contact>, BadArgument> {
    let Some(value) = arguments::given(arguments, NAME) else { return Ok(Vec::new()) };
    let Some(config) = arguments::object(value) else {
        let problem = format_args!(
            "must be the object that mcp_recipients.json holds, not {}",
            arguments::shown(value)
        );
        return Err(BadArgument::new(NAME, problem));
    };
    let Some(recipients) = arguments::given(&config, "recipients") else { return Ok(Vec::new()) };
    let Some(recipients) = arguments::object(recipients) else {
        return Err(BadArgument::new(
            format!("{NAME}.recipients"),
            r#"must be an object such as {"bob": {"name": "Bob", "description": "backend"}}"#,
        ));
    };
    recipients.iter().map(|(id, contact)| read(id, contact, principal)).collect()
}

fn read(id: &str, contact: &Value, principal: &Principal) -> Result<Contact, BadArgument> {
    let name = format!("a recipient in {NAME}.recipients");
    let named = arguments::address(&name, &id.into(), principal)?;
    // Who writes its own team out means the same as who does not.
    let team = principal.tenant();
    let id = Address::of(&named.inbox(team), team);
    let contact = arguments::object(contact).unwrap_or_else(|| Cow::Owned(Map::new()));
    let text = |key| contact.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Contact { id, name: text("name"), description: text("description") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Grant, Scopes};

    fn read_by(principal: &Principal, config: &Value) -> Result<Vec<Contact>, String> {
        let arguments = json!({ NAME: config }).as_object().unwrap().clone();
        contacts(&arguments, principal).map_err(|error| error.to_string())
    }

    fn of(config: &Value) -> Result<Vec<Contact>, String> {
        read_by(&Principal::anyone(), config)
    }

    #[test]
    fn who_is_of_another_team_is_named_with_it_by_whom_a_key_proves() {
        let config =
            json!({"recipients": {"bob": {}, "blue/bob": {"name": "Bob"}, "red/carol": {}}});
        let grant = Grant::One("alice".parse().unwrap());
        let alice = Principal::proved("red".parse().unwrap(), grant, Scopes::default());
        let found = read_by(&alice, &config).unwrap();
        let ids: Vec<_> = found.iter().map(|contact| contact.id.expose()).collect();
        assert_eq!(ids, ["blue/bob", "bob", "carol"], "carol is of the same team");
        let refused = read_by(&alice, &json!({"recipients": {"blue/b ob": {}}})).unwrap_err();
        assert!(refused.starts_with("a recipient in recipients_config.recipients "), "{refused}");
        // Without a credential there are no teams.
        assert!(of(&config).unwrap_err().contains("contains '/'"));
    }

    #[test]
    fn both_generations_of_the_file_are_read() {
        let found = of(&json!({
            "my_id": "alice",
            "recipients": {"bob": {"name": "Bob", "description": "backend"}, "carol": "Carol"},
            "server_info": {"url": "http://localhost:8123/mcp/", "transport": "http_streamable"}
        }))
        .unwrap();
        let ids: Vec<_> = found.iter().map(|contact| contact.id.expose()).collect();
        assert_eq!(ids, ["bob", "carol"]);
        assert_eq!((found[0].name.as_str(), found[0].description.as_str()), ("Bob", "backend"));
        assert_eq!(of(&json!({"my_sender_id": "alice"})), Ok(Vec::new()));
        assert_eq!(of(&json!("{\"recipients\": {}}")), Ok(Vec::new()));
    }

    #[test]
    fn a_config_that_is_none_is_refused_by_name() {
        assert!(of(&json!(7)).unwrap_err().starts_with("recipients_config must be the object"));
        assert!(of(&json!([])).unwrap_err().ends_with("not a list"));
        let refused = of(&json!({"recipients": ["bob"]})).unwrap_err();
        assert!(refused.starts_with("recipients_config.recipients must be an object such as"));
        let refused = of(&json!({"recipients": {"a b": {}}})).unwrap_err();
        assert!(refused.starts_with("a recipient in recipients_config.recipients contains ' '"));
    }
}
