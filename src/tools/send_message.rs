//! `send_message`: leave messages and go on.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome, arguments,
    definition::{self, Effect, about, of, one_of},
    markdown,
    outcome::{self, Stop},
    recipients,
    send_results::{self, ResultView, Terms},
    views::{self, NoticeView},
};
use crate::{
    messaging::{CallContext, MessagingService, Posted, Rules, SendRequest},
    model::{Principal, Scope},
};

/// The tool.
pub(super) struct SendMessage {
    pub messaging: MessagingService,
}

#[derive(Serialize)]
struct Answer<'a> {
    results: &'a [ResultView<'a>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<NoticeView<'a>>,
}

#[async_trait]
impl Tool for SendMessage {
    fn name(&self) -> &'static str {
        "send_message"
    }

    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Send]
    }

    fn definition(&self) -> Value {
        let ttl = self.messaging.rules().ttl.as_secs();
        definition::tool(
            self.name(),
            "Send a message to one agent or several without waiting. To answer a message, pass in_reply_to.",
            Effect::Sends,
            (
                &json!({
                    "sender_id": definition::own_id(),
                    "recipient_id": of("string"),
                    "recipients": {
                        "type": "array",
                        "items": {"anyOf": [of("string"), {
                            "type": "object",
                            "properties": {"id": of("string"), "message": of("string")},
                        }]},
                        "description": "in place of recipient_id, for several",
                    },
                    "message": about("string", "unless each recipient has its own"),
                    "in_reply_to": about("string", "message_id that you answer"),
                    "idempotency_key": about("string", "repeat it on a retry: sent once"),
                    "ttl_seconds": about("number", &format!("unread, it expires then ({ttl})")),
                }),
                &definition::required(self.messaging.rules(), &["sender_id"]),
            ),
            (
                &json!({
                    "results": definition::list_of(&json!({
                        "recipient_id": of("string"),
                        "message_id": of("string"),
                        "status": one_of(&["queued", "replied", "duplicate", "refused"]),
                        "state": of("string"),
                        "unconfirmed": of("boolean"),
                        "reason": of("string"),
                        "recipient": of("object"),
                    })),
                    "notices": definition::list(),
                }),
                &["results"],
            ),
        )
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        outcome::settle(self.send(&arguments, context).await)
    }
}

impl SendMessage {
    async fn send(
        &self,
        arguments: &Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, Stop> {
        let rules = self.messaging.rules();
        let request = read(arguments, rules, &context.principal)?;
        let terms = Terms::of(&request, rules);
        let posted = self.messaging.send(request, context).await.map_err(Stop::sort)?;
        render(posted, terms)
    }
}

pub(super) fn read(
    arguments: &Arguments,
    rules: &Rules,
    principal: &Principal,
) -> Result<SendRequest, Stop> {
    let key = arguments::word(arguments, "idempotency_key")?;
    Ok(SendRequest {
        sender: arguments::own_id(arguments, "sender_id", principal)?,
        parcels: recipients::parcels(arguments, rules.recipients, principal)?,
        in_reply_to: arguments::message_id(arguments, "in_reply_to")?,
        idempotency_key: key.map(str::to_owned),
        ttl: arguments::seconds(arguments, "ttl_seconds", rules.ttl_range)?,
    })
}

fn render(posted: Posted, terms: Terms) -> Result<ToolOutcome, Stop> {
    let results = send_results::results(&posted.results, terms);
    let mut text = send_results::told(&posted.results, &results, terms);
    markdown::notices(&mut text, &posted.notices);
    let answer = Answer { results: &results, notices: views::all(&posted.notices) };
    let mut outcome = ToolOutcome::answer(text, &answer)?;
    outcome.is_error = send_results::none_accepted(&posted.results);
    outcome.store_failed = send_results::store_failed(&posted.results);
    Ok(outcome.carrying(posted.delivery))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        messaging::{MessagingError, Refusal, SendResult},
        model::{MessageId, MessageState},
        queue::{Presence, QueueError, SentStatus},
        tools::samples::{self, structured},
    };

    const TERMS: Terms = Terms { keyed: false, ttl: Duration::from_mins(5) };

    fn posted(results: Vec<SendResult>) -> Posted {
        Posted { results, notices: Vec::new(), delivery: None }
    }

    #[test]
    fn a_request_is_read_with_its_defaults() {
        let rules = samples::rules();
        let read = |sent: &Value| read(sent.as_object().unwrap(), &rules, &Principal::anyone());
        let sent = json!({"sender_id": "a", "recipient_id": "b", "message": "hi", "extra": 1});
        let request = read(&sent).unwrap();
        assert_eq!((request.parcels.len(), request.ttl, request.in_reply_to), (1, None, None));
        let id = MessageId::new();
        let sent = json!({
            "recipients_config": {"my_sender_id": "a"}, "recipients": [{"id": "b", "message": "hi"}],
            "in_reply_to": id.to_string(), "idempotency_key": " k ", "ttl_seconds": "60",
        });
        let request = read(&sent).unwrap();
        assert_eq!(request.sender.expose(), "a");
        assert_eq!(request.in_reply_to, Some(id));
        assert_eq!(request.idempotency_key.as_deref(), Some("k"));
        assert_eq!(request.ttl, Some(Duration::from_mins(1)));
        for (extra, start) in [
            (json!({"ttl_seconds": 0}), "ttl_seconds must be a number of seconds from 1 to 86400"),
            (json!({"in_reply_to": "it"}), "in_reply_to is not a message id"),
            (json!({"idempotency_key": {}}), "idempotency_key must be a string"),
        ] {
            let mut sent = json!({"sender_id": "a", "recipient_id": "b", "message": "hi"});
            sent.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let Err(Stop::BadArgument(why)) = read(&sent) else { panic!("{extra} is refused") };
            assert!(why.starts_with(start), "{why}");
        }
    }

    #[test]
    fn each_recipient_has_its_result() {
        let refusal = |error| Err(Refusal { id: MessageId::new(), error });
        let full = MessagingError::InboxFull {
            messages: 10_000,
            bytes: 1,
            retry_after: Duration::from_secs(9),
        };
        let down = QueueError::Unavailable { detail: "secret detail".to_owned() };
        let outcome = render(
            posted(vec![
                samples::result("bob", Ok(samples::sent(SentStatus::Queued, Presence::Waiting))),
                samples::result("carol", Ok(samples::sent(SentStatus::Replied, Presence::Waiting))),
                samples::result(
                    "dave",
                    Ok(samples::sent(
                        SentStatus::Duplicate(MessageState::Delivered),
                        Presence::Seen(Duration::from_secs(40)),
                    )),
                ),
                samples::result("erin", refusal(full)),
                samples::result("frank", refusal(MessagingError::Queue(down))),
            ]),
            TERMS,
        )
        .unwrap();
        assert!(!outcome.is_error);
        samples::assert_fits("send_message", &outcome);
        let answer = structured(&outcome);
        let statuses: Vec<_> =
            answer["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
        assert_eq!(statuses, ["queued", "replied", "duplicate", "refused", "refused"]);
        assert_eq!(answer["results"][0]["recipient"], json!({"presence": "waiting"}));
        assert_eq!(
            answer["results"][2]["recipient"],
            json!({"presence": "seen", "last_seen_seconds": 40})
        );
        assert_eq!(answer["results"][2]["state"], "delivered");
        assert!(answer["results"][3].get("message_id").is_none());
        let unsure = answer["results"][4]["reason"].as_str().unwrap();
        let id = answer["results"][4]["message_id"].as_str().unwrap();
        assert!(
            unsure.contains("may have been accepted: ask message_status") && unsure.contains(id)
        );
        assert!(!outcome.text.contains("secret detail"));
        assert!(outcome.text.starts_with("Sent to 3 of 5:\n- message_id "), "{}", outcome.text);
        assert!(outcome.text.contains("- not sent to erin: the recipient's inbox is full"));
    }

    #[test]
    fn a_single_send_is_one_sentence() {
        let sent = samples::sent(SentStatus::Queued, Presence::Unknown);
        let id = sent.id;
        let outcome = render(posted(vec![samples::result("bob", Ok(sent))]), TERMS).unwrap();
        assert_eq!(
            outcome.text,
            format!(
                "Sent: message_id {id} is queued for bob (never seen here, so check the id \
                 (list_clients knows who checked in)).\nUnread, a message expires after 5 min."
            )
        );
        samples::assert_fits("send_message", &outcome);
    }

    #[test]
    fn a_send_that_reached_nobody_is_an_error_with_its_results() {
        let refusal = Refusal { id: MessageId::new(), error: MessagingError::EmptyMessage };
        let outcome = render(posted(vec![samples::result("bob", Err(refusal))]), TERMS).unwrap();
        assert!(outcome.is_error);
        assert_eq!(
            outcome.text,
            "Refused: not sent to bob: message is empty; write what the recipient should read."
        );
        assert_eq!(structured(&outcome)["results"][0]["status"], "refused");
        samples::assert_fits("send_message", &outcome);
    }

    #[test]
    fn what_expired_unread_is_told_to_its_sender() {
        let sent = samples::sent(SentStatus::Queued, Presence::Waiting);
        let mut posted = posted(vec![samples::result("bob", Ok(sent))]);
        posted.notices = vec![samples::notice("carol")];
        let outcome = render(posted, TERMS).unwrap();
        assert!(outcome.text.contains("Not delivered: your message "));
        assert_eq!(structured(&outcome)["notices"][0]["recipient_id"], "carol");
        samples::assert_fits("send_message", &outcome);
    }
}
