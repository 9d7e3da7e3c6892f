//! `send_message_without_waiting`, which clients of the Python original call: sends, and brings the
//! sender's own mail back with the answer. Not listed: `send_message` and `get_messages` are.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome,
    definition::{self, Effect, of},
    get_messages::{self, Mail},
    markdown,
    outcome::{self, Stop},
    send_message,
    send_results::{self, ResultView, Terms},
};
use crate::{
    messaging::{
        Acknowledge, CallContext, Delivery, MessagingService, Notice, Posted, ReceiveRequest,
        Received,
    },
    model::{ClientId, Scope},
};

/// The tool.
pub(super) struct SendMessageWithoutWaiting {
    pub messaging: MessagingService,
}

#[derive(Serialize)]
struct Answer<'a> {
    results: &'a [ResultView<'a>],
    #[serde(flatten)]
    mail: Option<Mail<'a>>,
}

#[async_trait]
impl Tool for SendMessageWithoutWaiting {
    fn name(&self) -> &'static str {
        "send_message_without_waiting"
    }

    fn listed(&self) -> bool {
        false
    }

    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Send, Scope::Read]
    }

    fn definition(&self) -> Value {
        definition::tool(
            self.name(),
            "Send messages and read your own. Kept for older clients: use send_message and get_messages.",
            Effect::Takes,
            (
                &json!({
                    "sender_id": of("string"),
                    "recipients": definition::list_of(&json!({"id": of("string"), "message": of("string")})),
                    "recipients_config": of("object"),
                }),
                &definition::required(self.messaging.rules(), &["sender_id", "recipients"]),
            ),
            (
                &json!({
                    "results": definition::list(),
                    "client_id": of("string"),
                    "messages": definition::list(),
                    "remaining": of("integer"),
                    "busy": of("boolean"),
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
        outcome::settle(self.send_and_receive(&arguments, context).await)
    }
}

impl SendMessageWithoutWaiting {
    async fn send_and_receive(
        &self,
        arguments: &Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, Stop> {
        let rules = self.messaging.rules();
        let request = send_message::read(arguments, rules, &context.principal)?;
        let terms = Terms::of(&request, rules);
        let sender = request.sender.clone();
        let posted = self.messaging.send(request, context).await.map_err(Stop::sort)?;
        let fetch = ReceiveRequest {
            client: sender.clone(),
            wait: Duration::ZERO,
            max_messages: None,
            acknowledge: Acknowledge::Auto,
            receipt: None,
        };
        let received = if send_results::none_accepted(&posted.results) {
            None
        } else {
            match self.messaging.receive(&fetch, context).await.map_err(Stop::sort) {
                Ok(received) => Some(received),
                // Sent is sent: that must be told, and the mail can be fetched later.
                Err(Stop::Refused(_) | Stop::BadArgument(_) | Stop::Failed(_)) => None,
                Err(Stop::Cancelled) => return Err(Stop::Cancelled),
            }
        };
        render(&sender, posted, received, terms)
    }
}

fn render(
    sender: &ClientId,
    mut posted: Posted,
    mut received: Option<Received>,
    terms: Terms,
) -> Result<ToolOutcome, Stop> {
    let results = send_results::results(&posted.results, terms);
    let mut text = send_results::told(&posted.results, &results, terms);
    let nobody = send_results::none_accepted(&posted.results);
    if let Some(received) = &mut received {
        merge(&mut received.notices, &mut posted.notices);
        get_messages::told(&mut text, received, Duration::ZERO)?;
    } else {
        if !nobody {
            text.push_str("Your own messages could not be read now: call get_messages.\n");
        }
        markdown::notices(&mut text, &posted.notices);
    }
    let mail = received.as_ref().map(|received| get_messages::mail(sender, received));
    let mut outcome = ToolOutcome::answer(text, &Answer { results: &results, mail })?;
    outcome.is_error = nobody;
    outcome.store_failed = send_results::store_failed(&posted.results);
    let fetched = received.and_then(|received| received.delivery);
    Ok(outcome.carrying(both(posted.delivery, fetched)))
}

/// The send and the fetch may both bring a notice: it is told once.
fn merge(into: &mut Vec<Notice>, from: &mut Vec<Notice>) {
    from.retain(|notice| !into.contains(notice));
    into.append(from);
}

fn both(one: Option<Delivery>, other: Option<Delivery>) -> Option<Delivery> {
    match one {
        Some(one) => Some(one.and(other)),
        None => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        messaging::{MessagingError, ReceivedWhy, Refusal},
        model::{MessageId, Principal},
        queue::{Presence, SentStatus},
        tools::{
            envelope::tests::opened,
            samples::{self, structured},
        },
    };

    fn terms() -> Terms {
        let sent = json!({"sender_id": "alice", "recipients": [{"id": "bob", "message": "hi"}]});
        let rules = samples::rules();
        Terms::of(
            &send_message::read(sent.as_object().unwrap(), &rules, &Principal::anyone()).unwrap(),
            &rules,
        )
    }

    #[test]
    fn the_answer_holds_what_was_sent_and_the_senders_mail() {
        let notice = samples::notice("carol");
        let sent = samples::sent(SentStatus::Queued, Presence::Waiting);
        let posted = Posted {
            results: vec![samples::result("bob", Ok(sent))],
            notices: vec![notice.clone()],
            delivery: None,
        };
        let received = Received {
            why: ReceivedWhy::Mail,
            messages: vec![samples::message("dave", "yours")],
            remaining: 0,
            receipt: None,
            notices: vec![notice],
            acknowledged: 0,
            delivery: None,
        };
        let outcome = render(&samples::id("alice"), posted, Some(received), terms()).unwrap();
        assert!(outcome.text.starts_with("Sent: message_id "));
        assert_eq!(opened(&outcome.text)[0].1, "yours");
        let answer = structured(&outcome);
        assert_eq!(answer["messages"][0]["text"], "yours");
        assert_eq!(answer["notices"].as_array().unwrap().len(), 1);
        samples::assert_fits("send_message_without_waiting", &outcome);
    }

    #[test]
    fn a_send_stays_told_when_the_mail_cannot_be_read() {
        let sent = samples::sent(SentStatus::Queued, Presence::Waiting);
        let results = vec![samples::result("bob", Ok(sent))];
        let posted = Posted { results, notices: Vec::new(), delivery: None };
        let outcome = render(&samples::id("alice"), posted, None, terms()).unwrap();
        assert!(!outcome.is_error && outcome.text.starts_with("Sent: message_id "));
        assert!(outcome.text.ends_with("could not be read now: call get_messages."));
    }

    #[test]
    fn a_send_that_reached_nobody_takes_no_mail() {
        let refusal = Refusal { id: MessageId::new(), error: MessagingError::EmptyMessage };
        let results = vec![samples::result("bob", Err(refusal))];
        let posted = Posted { results, notices: Vec::new(), delivery: None };
        let outcome = render(&samples::id("alice"), posted, None, terms()).unwrap();
        assert!(outcome.is_error);
        assert!(structured(&outcome).get("messages").is_none());
        samples::assert_fits("send_message_without_waiting", &outcome);
    }
}
