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
    messaging::{CallContext, MessagingService},
    model::ClientId,
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
    recipient_id: &'a ClientId,
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
        let me = recipients_config::own_id(arguments)?;
        let contacts = recipients_config::contacts(arguments)?;
        let query = ClientQuery { limit: PAGE, ..ClientQuery::default() };
        let page = self.messaging.clients(&query, context).await.map_err(Stop::sort)?;
        render(me.as_ref(), &contacts, &page.clients)
    }
}

fn render(
    me: Option<&ClientId>,
    contacts: &[Contact],
    directory: &[ClientEntry],
) -> Result<ToolOutcome, Stop> {
    let presence = |id: &ClientId| {
        let entry = directory.iter().find(|entry| entry.client == *id);
        entry.map_or(Presence::Unknown, |entry| entry.presence)
    };
    let others: Vec<_> = directory
        .iter()
        .filter(|entry| Some(&entry.client) != me)
        .filter(|entry| contacts.iter().all(|contact| contact.id != entry.client))
        .cloned()
        .collect();
    let mut text = match me {
        Some(id) => format!(
            "You are {0}, as your recipients_config says: use {0} as client_id and sender_id. Nothing \
             proves it, and whoever knows it can read its mail.\n",
            id.expose()
        ),
        None => EXPLAINED.to_owned(),
    };
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
        text.push_str(match presence(&contact.id) {
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
        recipient_id: &contact.id,
        name: &contact.name,
        description: &contact.description,
        presence: presence(&contact.id).into(),
    });
    let found = others.iter().map(|entry| RecipientView {
        recipient_id: &entry.client,
        name: &entry.profile.name,
        description: &entry.profile.capabilities,
        presence: entry.presence.into(),
    });
    let recipients = named.chain(found).collect();
    ToolOutcome::answer(text, &Answer { client_id: me, verified: false, recipients })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::Profile,
        tools::samples::{self, structured},
    };

    fn entry(id: &str) -> ClientEntry {
        let profile = Profile { name: id.to_owned(), capabilities: "a\nb".to_owned() };
        ClientEntry { client: samples::id(id), profile, presence: Presence::Waiting, queued: 0 }
    }

    #[test]
    fn without_a_config_it_explains_the_file() {
        let outcome = render(None, &[], &[entry("bob")]).unwrap();
        let json = outcome.text.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
        let example: Value = serde_json::from_str(json).unwrap();
        assert_eq!(example["my_id"], "your-id");
        let arguments = json!({"recipients_config": example}).as_object().unwrap().clone();
        assert_eq!(recipients_config::contacts(&arguments).unwrap().len(), 1);
        assert!(outcome.text.contains("- bob: waiting for mail now"));
        let answer = structured(&outcome);
        assert!(answer.get("client_id").is_none());
        assert_eq!(answer["recipients"][0]["presence"], "waiting");
        samples::assert_fits("get_my_identity", &outcome);
    }

    #[test]
    fn with_a_config_it_says_who_and_whom() {
        let contact = |id: &str| Contact {
            id: samples::id(id),
            name: "Name".to_owned(),
            description: "line\nbreak".to_owned(),
        };
        let me = samples::id("alice");
        let directory = [entry("alice"), entry("bob"), entry("dave")];
        let outcome = render(Some(&me), &[contact("bob"), contact("carol")], &directory).unwrap();
        assert!(outcome.text.starts_with("You are alice, as your recipients_config says"));
        assert!(outcome.text.contains("- bob, Name, line break (waits for mail now)\n"));
        assert!(
            outcome
                .text
                .contains("- carol, Name, line break (not checked in; messages wait for it)\n")
        );
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
        assert_eq!(ids, ["bob", "carol", "dave"]);
        samples::assert_fits("get_my_identity", &outcome);
    }
}
