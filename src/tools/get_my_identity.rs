//! `get_my_identity`: who am I, whom can I reach, and how is that set up.

use std::fmt::Write;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome,
    definition::{self, Effect, about, of},
    envelope::show,
    list_clients::{self, PAGE},
    outcome::{self, Stop},
    recipients_config::{self, Contact},
    views::PresenceView,
};
use crate::{
    messaging::{CallContext, MessagingService, own_ids},
    model::{ClientId, Principal},
    queue::{ClientEntry, ClientQuery, Presence},
};

const EXPLAINED: &str = "\
This server has no authentication: you choose your client id, and whoever knows it can read its mail. \
It stands in mcp_recipients.json in your project, with those you write to. If there is none, create it:
```json
{\"my_id\": \"your-id\", \"my_name\": \"Your Name\", \"recipients\": {\"other-id\": {\"name\": \"Other\", \
\"description\": \"what it does\"}}, \"server_info\": {\"url\": \"http://localhost:8123/mcp\", \
\"transport\": \"http_streamable\"}}
```
Use my_id as client_id and sender_id, the keys of recipients as recipient_id. Pass the file's content as \
recipients_config to this tool to see who of them is there.
";

/// The tool.
pub(super) struct GetMyIdentity {
    pub messaging: MessagingService,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a ClientId>,
    /// A credential proved it.
    verified: bool,
    recipients: Vec<RecipientView<'a>>,
}

/// Somebody to write to.
#[derive(Serialize)]
struct RecipientView<'a> {
    recipient_id: &'a str,
    name: &'a str,
    description: &'a str,
    #[serde(flatten)]
    presence: PresenceView,
}

#[async_trait]
impl Tool for GetMyIdentity {
    fn name(&self) -> &'static str {
        "get_my_identity"
    }

    fn definition(&self) -> Value {
        definition::tool(
            self.name(),
            "Call it first if you don't know your client id: who you are and whom you can write to.",
            Effect::Reads,
            (
                &json!({
                    "recipients_config": about("object", "content of mcp_recipients.json"),
                }),
                &[],
            ),
            (
                &json!({
                    "client_id": of("string"),
                    "verified": of("boolean"),
                    "recipients": definition::list(),
                }),
                &[],
            ),
        )
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        outcome::settle(self.identify(&arguments, context).await)
    }
}

impl GetMyIdentity {
    async fn identify(
        &self,
        arguments: &Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, Stop> {
        let me = Me::of(recipients_config::own_id(arguments)?, &context.principal);
        let contacts = recipients_config::contacts(arguments, &context.principal)?;
        let query = ClientQuery { limit: PAGE, ..ClientQuery::default() };
        let page = self.messaging.clients(&query, context).await.map_err(Stop::sort)?;
        render(&me, &contacts, &page.clients)
    }
}

/// Who the caller is.
struct Me {
    id: Option<ClientId>,
    /// A credential proves it.
    verified: bool,
    /// The same in words.
    told: String,
}

impl Me {
    /// `named`: as whom its file names it.
    fn of(named: Option<ClientId>, principal: &Principal) -> Self {
        let Some(grant) = principal.grant() else {
            let told = match &named {
                Some(id) => format!(
                    "You are {0}, as your recipients_config says: use {0} as client_id and sender_id. Nothing \
                     proves it, and whoever knows it can read its mail.\n",
                    id.expose()
                ),
                None => EXPLAINED.to_owned(),
            };
            return Self { id: named, verified: false, told };
        };
        let foreign = named.as_ref().is_some_and(|id| !grant.covers(id));
        // Of several, the one that it chose.
        let id = named.filter(|_| !foreign).or(principal.client().cloned());
        let mut told = match (&id, grant) {
            (Some(id), _) => format!(
                "You are {0}, as your credential proves: use {0} as client_id and sender_id. Others see your messages \
                 as verified.\n",
                id.expose()
            ),
            (None, several) => format!(
                "Your credential is that of several clients: {}, as client_id and sender_id. Keep the one that you \
                 choose: its inbox is yours.\n",
                own_ids(several)
            ),
        };
        if foreign {
            told.push_str(
                "my_id in your recipients_config is not yours by your credential: correct it.\n",
            );
        }
        Self { verified: id.is_some(), id, told }
    }
}

fn render(
    Me { id: me, verified, told }: &Me,
    contacts: &[Contact],
    directory: &[ClientEntry],
) -> Result<ToolOutcome, Stop> {
    // The directory is that of one's own team.
    let is =
        |contact: &Contact, id: &ClientId| contact.id.team().is_none() && contact.id.client() == id;
    let presence = |contact: &Contact| {
        let entry = directory.iter().find(|entry| is(contact, &entry.client));
        entry.map_or(Presence::Unknown, |entry| entry.presence)
    };
    let others: Vec<_> = directory
        .iter()
        .filter(|entry| Some(&entry.client) != me.as_ref())
        .filter(|entry| contacts.iter().all(|contact| !is(contact, &entry.client)))
        .cloned()
        .collect();
    let mut text = told.clone();
    if !contacts.is_empty() {
        text.push_str("Your recipients:\n");
    }
    for contact in contacts {
        let _ = write!(text, "- {}", contact.id.expose());
        for part in [&contact.name, &contact.description] {
            if !part.is_empty() {
                text.push_str(", ");
                show(&mut text, &list_clients::short(part, 200).replace(['\r', '\n'], " "));
            }
        }
        text.push_str(match presence(contact) {
            _ if contact.id.team().is_some() => {
                " (of another team, which does not show who is there)\n"
            }
            Presence::Waiting => " (waits for mail now)\n",
            Presence::Seen(_) => " (checked in)\n",
            Presence::Unknown => " (not checked in; messages wait for it)\n",
        });
    }
    if !others.is_empty() {
        text.push_str(if contacts.is_empty() { "Checked in here. " } else { "Also here. " });
        list_clients::entries(&mut text, &others);
    }
    let named = contacts.iter().map(|contact| RecipientView {
        recipient_id: contact.id.expose(),
        name: &contact.name,
        description: &contact.description,
        presence: presence(contact).into(),
    });
    let found = others.iter().map(|entry| RecipientView {
        recipient_id: entry.client.expose(),
        name: &entry.profile.name,
        description: &entry.profile.capabilities,
        presence: entry.presence.into(),
    });
    let recipients = named.chain(found).collect();
    ToolOutcome::answer(text, &Answer { client_id: me.as_ref(), verified: *verified, recipients })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Grant, Scopes, Tenant},
        queue::Profile,
        tools::samples::{self, structured},
    };

    fn entry(id: &str) -> ClientEntry {
        let profile = Profile { name: id.to_owned(), capabilities: "a\nb".to_owned() };
        ClientEntry { client: samples::id(id), profile, presence: Presence::Waiting, queued: 0 }
    }

    fn me(named: Option<&str>, principal: &Principal) -> Me {
        Me::of(named.map(samples::id), principal)
    }

    #[test]
    fn what_a_key_proves_stands_above_what_a_file_says() {
        let parsed = |text: &str| text.parse::<Grant>().unwrap();
        let several = || Grant::WithBelow(samples::id("alice"));
        for (grant, named, client, said) in [
            (several(), None, Some("alice"), "You are alice, as"),
            (several(), Some("alice.2"), Some("alice.2"), "You are alice.2, as"),
            (several(), Some("bob"), Some("alice"), "is not yours by"),
            (parsed("alice"), None, Some("alice"), "You are alice, as your credential proves"),
            (
                parsed("alice"),
                Some("bob"),
                Some("alice"),
                "is not yours by your credential: correct it",
            ),
            (
                parsed("alice.*"),
                None,
                None,
                "use ids that begin with alice. such as alice.1, as client_id",
            ),
            (
                parsed("alice.*"),
                Some("alice.2"),
                Some("alice.2"),
                "You are alice.2, as your credential proves",
            ),
            (parsed("alice.*"), Some("alice"), None, "is not yours by your credential: correct it"),
        ] {
            let principal = Principal::proved(Tenant::default(), grant, Scopes::default());
            let outcome = render(&me(named, &principal), &[], &[]).unwrap();
            assert!(outcome.text.contains(said), "{}", outcome.text);
            let answer = structured(&outcome);
            assert_eq!(answer.get("client_id").and_then(Value::as_str), client);
            assert_eq!(answer["verified"], client.is_some());
            samples::assert_fits("get_my_identity", &outcome);
        }
    }

    #[test]
    fn without_a_config_it_explains_the_file() {
        let outcome = render(&me(None, &Principal::anyone()), &[], &[entry("bob")]).unwrap();
        let json = outcome.text.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
        let example: Value = serde_json::from_str(json).unwrap();
        assert_eq!(example["my_id"], "your-id");
        let arguments = json!({"recipients_config": example}).as_object().unwrap().clone();
        assert_eq!(recipients_config::contacts(&arguments, &Principal::anyone()).unwrap().len(), 1);
        assert!(outcome.text.contains("- bob: waiting for mail now"));
        let answer = structured(&outcome);
        assert!(answer.get("client_id").is_none());
        assert_eq!(answer["recipients"][0]["presence"], "waiting");
        samples::assert_fits("get_my_identity", &outcome);
    }

    #[test]
    fn with_a_config_it_says_who_and_whom() {
        let contact = |id: &str| Contact {
            id: id.parse().unwrap(),
            name: "Name".to_owned(),
            description: "line\nbreak".to_owned(),
        };
        let me = me(Some("alice"), &Principal::anyone());
        let directory = [entry("alice"), entry("bob"), entry("dave")];
        let outcome =
            render(&me, &[contact("bob"), contact("carol"), contact("blue/dave")], &directory)
                .unwrap();
        assert!(outcome.text.starts_with("You are alice, as your recipients_config says"));
        assert!(outcome.text.contains("- bob, Name, line break (waits for mail now)\n"));
        assert!(
            outcome
                .text
                .contains("- carol, Name, line break (not checked in; messages wait for it)\n")
        );
        assert!(outcome.text.contains("- blue/dave, Name, line break (of another team, which"));
        assert!(outcome.text.contains("Also here. ") && outcome.text.contains("- dave: "));
        let answer = structured(&outcome);
        assert_eq!(answer["client_id"], "alice");
        assert_eq!(answer["verified"], false);
        let ids: Vec<_> = answer["recipients"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["recipient_id"])
            .collect();
        assert_eq!(ids, ["bob", "carol", "blue/dave", "dave"]);
        samples::assert_fits("get_my_identity", &outcome);
    }
}
