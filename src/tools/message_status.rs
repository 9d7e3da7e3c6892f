//! `message_status`: what became of what you sent.

use std::fmt::Write;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome,
    arguments::{self, BadArgument},
    definition::{self, Effect, of, one_of},
    markdown,
    outcome::{self, Stop},
};
use crate::{
    messaging::{CallContext, MessagingService},
    model::{Address, MessageId, MessageState, Scope, rfc3339},
    queue::LedgerEntry,
};

/// Most ids of one question: as many as a ledger holds.
const MOST: usize = 1000;

/// The tool.
pub(super) struct MessageStatus {
    pub messaging: MessagingService,
}

#[derive(Serialize)]
struct Answer<'a> {
    messages: Vec<StatusView<'a>>,
}

#[derive(Serialize)]
struct StatusView<'a> {
    message_id: MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_id: Option<&'a Address>,
    state: MessageState,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<String>,
}

#[async_trait]
impl Tool for MessageStatus {
    fn name(&self) -> &'static str {
        "message_status"
    }

    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Send]
    }

    fn definition(&self) -> Value {
        definition::tool(
            self.name(),
            "See whether messages that you sent in the last 24 h were received.",
            Effect::Reads,
            (
                &json!({
                    "sender_id": definition::own_id(),
                    "message_ids": {"type": "array", "items": of("string"), "description": "(all)"},
                }),
                &definition::required(self.messaging.rules(), &["sender_id"]),
            ),
            (
                &json!({
                    "messages": definition::list_of(&json!({
                        "message_id": of("string"),
                        "recipient_id": of("string"),
                        "state": one_of(&["queued", "delivered", "acknowledged", "expired", "unknown"]),
                        "sent_at": of("string"),
                    })),
                }),
                &["messages"],
            ),
        )
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        outcome::settle(self.status(&arguments, context).await)
    }
}

impl MessageStatus {
    async fn status(
        &self,
        arguments: &Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, Stop> {
        let sender = arguments::own_id(arguments, "sender_id", &context.principal)?;
        let ids = read_ids(arguments)?;
        let found = self.messaging.status(&sender, &ids, context).await.map_err(Stop::sort)?;
        render(&ids, &found)
    }
}

fn read_ids(arguments: &Arguments) -> Result<Vec<MessageId>, BadArgument> {
    let mut ids: Vec<_> = arguments::message_id(arguments, "message_id")?.into_iter().collect();
    let Some(value) = arguments::given(arguments, "message_ids") else { return Ok(ids) };
    let items = arguments::items(value);
    if items.len() > MOST {
        let problem = format_args!("holds {} ids; use at most {MOST}", items.len());
        return Err(BadArgument::new("message_ids", problem));
    }
    for (index, item) in items.iter().enumerate() {
        let name = format!("message_ids[{index}]");
        let id = arguments::text(&name, item)?.parse();
        ids.push(id.map_err(|problem| BadArgument::new(name, problem))?);
    }
    Ok(ids)
}

fn render(asked: &[MessageId], found: &[LedgerEntry]) -> Result<ToolOutcome, Stop> {
    let mut messages: Vec<_> = found
        .iter()
        .map(|entry| StatusView {
            message_id: entry.id,
            recipient_id: Some(&entry.recipient),
            state: entry.state,
            sent_at: Some(rfc3339(entry.sent_at_ms)),
        })
        .collect();
    let missing = asked.iter().filter(|id| found.iter().all(|entry| entry.id != **id));
    messages.extend(missing.map(|id| StatusView {
        message_id: *id,
        recipient_id: None,
        state: MessageState::Unknown,
        sent_at: None,
    }));
    let text = told(&messages);
    ToolOutcome::answer(text, &Answer { messages })
}

fn told(messages: &[StatusView<'_>]) -> String {
    if messages.is_empty() {
        return "You sent nothing in the last 24 h.\n".to_owned();
    }
    let mut text = String::new();
    for StatusView { message_id, recipient_id, state, sent_at } in messages {
        let _ = match (recipient_id, sent_at) {
            (Some(recipient), Some(sent)) => writeln!(
                text,
                "- {message_id} to {}, sent {sent}: {}.",
                recipient.expose(),
                markdown::state(*state)
            ),
            (None, _) | (_, None) => {
                writeln!(text, "- {message_id}: not among what you sent in the last 24 h.")
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::samples::{self, structured};

    #[test]
    fn named_and_unknown_messages_are_answered() {
        let entry = |state| LedgerEntry {
            id: MessageId::new(),
            recipient: samples::id("bob").into(),
            sent_at_ms: 1_767_225_599_001,
            state,
        };
        let found = [
            entry(MessageState::Queued),
            entry(MessageState::Delivered),
            entry(MessageState::Acknowledged),
            entry(MessageState::Expired),
        ];
        let missing = MessageId::new();
        let outcome = render(&[found[0].id, missing], &found).unwrap();
        let answer = structured(&outcome);
        let states: Vec<_> =
            answer["messages"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(states, ["queued", "delivered", "acknowledged", "expired", "unknown"]);
        assert_eq!(answer["messages"][4]["message_id"], missing.to_string());
        assert!(outcome.text.contains(" to bob, sent 2025-12-31T23:59:59.001Z: received."));
        samples::assert_fits("message_status", &outcome);
        let nothing = render(&[], &[]).unwrap();
        assert_eq!(nothing.text, "You sent nothing in the last 24 h.");
        samples::assert_fits("message_status", &nothing);
    }

    #[test]
    fn ids_come_as_a_list_as_json_text_or_alone() {
        let (a, b) = (MessageId::new(), MessageId::new());
        let read = |sent: Value| read_ids(sent.as_object().unwrap());
        let (one, two) = (a.to_string(), b.to_string());
        assert_eq!(read(json!({"message_ids": [one, two]})), Ok(vec![a, b]));
        assert_eq!(read(json!({"message_ids": format!("[\"{a}\"]")})), Ok(vec![a]));
        assert_eq!(read(json!({"message_ids": one})), Ok(vec![a]));
        assert_eq!(read(json!({"message_id": one})), Ok(vec![a]));
        assert_eq!(read(json!({"message_ids": null})), Ok(vec![]));
        let refused = |sent| read(sent).unwrap_err().to_string();
        assert!(refused(json!({"message_ids": [one, "x"]})).starts_with("message_ids[1] is not"));
        assert!(
            refused(json!({"message_ids": [7]})).starts_with("message_ids[0] must be a string")
        );
        let many = vec![one; 1001];
        assert!(refused(json!({"message_ids": many})).starts_with("message_ids holds 1001 ids"));
    }
}
