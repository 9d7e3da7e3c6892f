//! `send_message`: leave messages and go on.

use std::{fmt::Write, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome, arguments,
    definition::{self, Effect, of},
    markdown,
    outcome::{self, Stop},
    recipients,
    views::{self, NoticeView, PresenceView},
};
use crate::{
    messaging::{
        CallContext, MessagingError, MessagingService, Posted, Refusal, Rules, SendRequest,
        SendResult,
    },
    model::{ClientId, MessageId, MessageState},
    queue::{Sent, SentStatus},
};

/// The tool.
pub(super) struct SendMessage {
    pub messaging: MessagingService,
}

/// What became of one message, for programs.
#[derive(Debug, Serialize)]
pub(super) struct ResultView<'a> {
    recipient_id: &'a ClientId,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<MessageState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<PresenceView>,
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

    fn definition(&self) -> Value {
        definition::tool(
            self.name(),
            "Send a message to one agent or several and go on. Also how to answer: pass in_reply_to.",
            Effect::Sends,
            (
                &json!({
                    "sender_id": {"type": "string", "description": "your id"},
                    "recipient_id": of("string"),
                    "recipients": {
                        "type": "array",
                        "items": {"type": ["string", "object"]},
                        "description": "for several: ids, or {id, message} each",
                    },
                    "message": of("string"),
                    "in_reply_to": {"type": "string", "description": "message_id that you answer"},
                    "idempotency_key": {"type": "string", "description": "same key on a retry: sent once"},
                    "ttl_seconds": {"type": "number", "description": "expires unread after (300)"},
                }),
                &["sender_id"],
            ),
            (
                &json!({
                    "results": definition::list_of(&json!({
                        "recipient_id": of("string"),
                        "message_id": of("string"),
                        "status": {"enum": ["queued", "replied", "duplicate", "refused"]},
                        "reason": of("string"),
                        "recipient": of("object"),
                    })),
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
        let request = read(arguments, rules)?;
        let terms = Terms::of(&request, rules);
        let posted = self.messaging.send(request, context).await.map_err(Stop::sort)?;
        render(posted, terms)
    }
}

pub(super) fn read(arguments: &Arguments, rules: &Rules) -> Result<SendRequest, Stop> {
    let key = arguments::word(arguments, "idempotency_key")?;
    Ok(SendRequest {
        sender: arguments::own_id(arguments, "sender_id")?,
        parcels: recipients::parcels(arguments, rules.recipients)?,
        in_reply_to: arguments::message_id(arguments, "in_reply_to")?,
        idempotency_key: key.map(str::to_owned),
        ttl: arguments::seconds(arguments, "ttl_seconds", rules.ttl_range)?,
    })
}

/// What the answer needs to know of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    keyed: bool,
    ttl: Duration,
}

impl Terms {
    pub(super) fn of(request: &SendRequest, rules: &Rules) -> Self {
        Self { keyed: request.idempotency_key.is_some(), ttl: request.ttl.unwrap_or(rules.ttl) }
    }
}

fn render(posted: Posted, terms: Terms) -> Result<ToolOutcome, Stop> {
    let results = results(&posted.results, terms);
    let mut text = told(&posted.results, &results, terms);
    markdown::notices(&mut text, &posted.notices);
    let answer = Answer { results: &results, notices: views::all(&posted.notices) };
    let mut outcome = ToolOutcome::answer(text, &answer)?;
    outcome.is_error = none_accepted(&posted.results);
    Ok(outcome.carrying(posted.delivery))
}

/// Whether every recipient was refused.
pub(super) fn none_accepted(results: &[SendResult]) -> bool {
    results.iter().all(|result| result.outcome.is_err())
}

/// What became of each message, for programs. A failure of the store is logged, once.
pub(super) fn results(results: &[SendResult], terms: Terms) -> Vec<ResultView<'_>> {
    let failure = results.iter().find_map(|result| match &result.outcome {
        Err(Refusal { error: MessagingError::Queue(cause), .. }) => Some(cause),
        Err(_) | Ok(_) => None,
    });
    if let Some(cause) = failure {
        outcome::log(cause);
    }
    results.iter().map(|result| view(result, terms)).collect()
}

fn view(SendResult { recipient, outcome }: &SendResult, terms: Terms) -> ResultView<'_> {
    let mut view = ResultView {
        recipient_id: recipient,
        message_id: None,
        status: "refused",
        state: None,
        reason: None,
        recipient: None,
    };
    match outcome {
        Ok(sent) => {
            view.message_id = Some(sent.id);
            (view.status, view.state) = match sent.status {
                SentStatus::Queued => ("queued", None),
                SentStatus::Replied => ("replied", None),
                SentStatus::Duplicate(state) => ("duplicate", Some(state)),
            };
            view.recipient = Some(sent.recipient.into());
        }
        Err(refusal) => {
            let (id, reason) = refused(refusal, terms);
            view.message_id = id;
            view.reason = Some(reason);
        }
    }
    view
}

/// Why a message was not accepted; with its id if it may have been all the same.
fn refused(Refusal { id, error }: &Refusal, terms: Terms) -> (Option<MessageId>, String) {
    if !matches!(error, MessagingError::Queue(_)) {
        return (None, error.to_string());
    }
    let again = if terms.keyed {
        "or repeat it with the same idempotency_key"
    } else {
        "before you send it again"
    };
    let reason = format!(
        "the message store failed, and it may have been accepted: ask message_status for message_id {id}, {again}"
    );
    (Some(*id), reason)
}

/// What became of each message, for the model.
pub(super) fn told(results: &[SendResult], views: &[ResultView<'_>], terms: Terms) -> String {
    let mut text = String::new();
    let accepted = results.iter().filter(|result| result.outcome.is_ok()).count();
    let single = results.len() == 1;
    if !single {
        let _ = writeln!(text, "Sent to {accepted} of {}:", results.len());
    }
    let mut queued = false;
    for (SendResult { recipient, outcome }, view) in results.iter().zip(views) {
        text.push_str(if single { "" } else { "- " });
        match outcome {
            Ok(sent) => {
                queued |= sent.status == SentStatus::Queued;
                text.push_str(if single { "Sent: " } else { "" });
                accepted_line(&mut text, recipient, sent);
            }
            Err(_) => {
                let reason = view.reason.as_deref().unwrap_or_default();
                text.push_str(if single { "Refused: " } else { "" });
                let _ = write!(text, "not sent to {}: {reason}", recipient.expose());
            }
        }
        text.push_str(".\n");
    }
    if queued {
        let _ = writeln!(text, "Unread, a message expires after {} s.", terms.ttl.as_secs());
    }
    text
}

/// `message_id … queued for bob (…)`.
pub(super) fn accepted_line(text: &mut String, recipient: &ClientId, sent: &Sent) {
    let _ = write!(text, "message_id {} ", sent.id);
    let _ = match sent.status {
        SentStatus::Queued => {
            write!(text, "is {}", markdown::queued_for(recipient, sent.recipient))
        }
        SentStatus::Replied => {
            write!(text, "was handed to {}, who waits for it", recipient.expose())
        }
        SentStatus::Duplicate(state) => write!(
            text,
            "to {} was sent before with this idempotency_key and is {}",
            recipient.expose(),
            markdown::state(state)
        ),
    };
    if sent.unrecorded {
        text.push_str("; message_status will not know it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::{Presence, QueueError},
        tools::samples::{self, structured},
    };

    const TERMS: Terms = Terms { keyed: false, ttl: Duration::from_secs(300) };

    fn posted(results: Vec<SendResult>) -> Posted {
        Posted { results, notices: Vec::new(), delivery: None }
    }

    #[test]
    fn a_request_is_read_with_its_defaults() {
        let rules = samples::rules();
        let read = |sent: &Value| read(sent.as_object().unwrap(), &rules);
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
        assert_eq!(request.ttl, Some(Duration::from_secs(60)));
        for (extra, start) in [
            (json!({"ttl_seconds": 0}), "ttl_seconds must be a number of seconds from 1 to 86400"),
            (json!({"in_reply_to": "it"}), "in_reply_to is not a message id"),
            (json!({"idempotency_key": {}}), "idempotency_key must be a string"),
        ] {
            let mut sent = json!({"sender_id": "a", "recipient_id": "b", "message": "hi"});
            sent.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let Err(Stop::Refused(why)) = read(&sent) else { panic!("{extra} is refused") };
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
                 (list_clients knows who checked in)).\nUnread, a message expires after 300 s.\n"
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
            "Refused: not sent to bob: message is empty; write what the recipient should read.\n"
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
