//! `checkin_client`: tell the others who you are.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome,
    arguments::{self, BadArgument},
    definition::{self, Effect, about, of},
    markdown,
    outcome::{self, Stop},
};
use crate::{
    messaging::{CallContext, MessagingService},
    model::{ClientId, Principal, Scope},
    queue::Profile,
};

/// Longest name and longest capabilities, in characters. Others pay for them with each listing.
const NAME_LIMIT: usize = 200;
const CAPABILITIES_LIMIT: usize = 2000;

/// The tool.
pub(super) struct CheckinClient {
    pub messaging: MessagingService,
}

#[derive(Serialize)]
struct Answer<'a> {
    client_id: &'a ClientId,
    present_seconds: u64,
    messages_waiting: u64,
}

#[async_trait]
impl Tool for CheckinClient {
    fn name(&self) -> &'static str {
        "checkin_client"
    }

    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Send]
    }

    fn definition(&self) -> Value {
        definition::tool(
            self.name(),
            "Enter the directory, so that other agents find you (list_clients). Optional: sending and receiving work without.",
            Effect::Records,
            (
                &json!({
                    "client_id": definition::own_id(),
                    "name": of("string"),
                    "capabilities": about("string", "what you can do for others"),
                }),
                &definition::required(self.messaging.rules(), &["client_id", "name"]),
            ),
            (
                &json!({
                    "client_id": of("string"),
                    "present_seconds": of("integer"),
                    "messages_waiting": of("integer"),
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
        outcome::settle(self.check_in(&arguments, context).await)
    }
}

impl CheckinClient {
    async fn check_in(
        &self,
        arguments: &Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, Stop> {
        let (client, profile) = read(arguments, &context.principal)?;
        let checked = self.messaging.check_in(&client, &profile, context).await;
        let (keep, inbox) = checked.map_err(Stop::sort)?;
        render(&Answer {
            client_id: &client,
            present_seconds: keep.as_secs(),
            messages_waiting: inbox.queued,
        })
    }
}

fn read(arguments: &Arguments, principal: &Principal) -> Result<(ClientId, Profile), BadArgument> {
    let client = arguments::own_id(arguments, "client_id", principal)?;
    let Some(name) = arguments::word(arguments, "name")? else {
        return Err(BadArgument::new("name", "is missing; give a name that people recognize"));
    };
    let name = arguments::at_most("name", name, NAME_LIMIT)?.to_owned();
    let capabilities = match arguments::given(arguments, "capabilities") {
        Some(value) => capabilities(value)?,
        None => String::new(),
    };
    arguments::at_most("capabilities", &capabilities, CAPABILITIES_LIMIT)?;
    Ok((client, Profile { name, capabilities }))
}

/// A text; a list of texts is joined, because models like to send one.
fn capabilities(value: &Value) -> Result<String, BadArgument> {
    let Some(items) = value.as_array() else {
        return Ok(arguments::text("capabilities", value)?.trim().to_owned());
    };
    let items: Vec<_> = items
        .iter()
        .enumerate()
        .map(|(index, item)| arguments::text(&format!("capabilities[{index}]"), item))
        .collect::<Result<_, _>>()?;
    Ok(items.join(", "))
}

fn render(answer: &Answer<'_>) -> Result<ToolOutcome, Stop> {
    let waiting = match answer.messages_waiting {
        0 => "No messages wait for you.".to_owned(),
        count => {
            let verb = if count == 1 { "waits" } else { "wait" };
            format!("{} {verb} for you: get_messages.", markdown::counted(count, "message"))
        }
    };
    let text = format!(
        "Checked in as {} for {}; check in again to stay listed. {waiting}",
        answer.client_id.expose(),
        markdown::lasting(Duration::from_secs(answer.present_seconds))
    );
    ToolOutcome::answer(text, answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::samples;

    fn refused(sent: &Value) -> String {
        read(sent.as_object().unwrap(), &Principal::anyone()).unwrap_err().to_string()
    }

    #[test]
    fn a_profile_is_read_and_bounded() {
        let sent =
            json!({"client_id": "alice", "name": " Alice ", "capabilities": ["rust", "sql"]});
        let (client, profile) = read(sent.as_object().unwrap(), &Principal::anyone()).unwrap();
        assert_eq!(client.expose(), "alice");
        assert_eq!(
            profile,
            Profile { name: "Alice".to_owned(), capabilities: "rust, sql".to_owned() }
        );
        assert!(refused(&json!({"client_id": "a"})).starts_with("name is missing"));
        assert!(refused(&json!({"client_id": " ", "name": "x"})).contains("must not be blank"));
        assert!(
            refused(&json!({"client_id": "a", "name": 7})).starts_with("name must be a string")
        );
        let long = json!({"client_id": "a", "name": "x".repeat(201)});
        assert!(refused(&long).starts_with("name is 201 characters long"));
        let nested = json!({"client_id": "a", "name": "x", "capabilities": [{}]});
        assert!(refused(&nested).starts_with("capabilities[0] must be a string, not an object"));
    }

    #[test]
    fn the_answer_says_what_waits_and_fits_its_schema() {
        let client_id = &samples::id("alice");
        for (messages_waiting, end) in [
            (0, "No messages wait for you."),
            (1, "1 message waits for you: get_messages."),
            (2, "2 messages wait for you: get_messages."),
        ] {
            let answer = Answer { client_id, present_seconds: 120, messages_waiting };
            let outcome = render(&answer).unwrap();
            assert!(outcome.text.ends_with(end));
            samples::assert_fits("checkin_client", &outcome);
        }
    }
}
