//! `send_message_and_wait`: ask, and have the answer.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Tool, ToolError, ToolOutcome, arguments,
    definition::{self, Effect, about, of, one_of},
    markdown,
    outcome::{self, Stop},
    questions, recipients,
    send_results::accepted_line,
    views::{self, MessageView, NoticeView},
};
use crate::{
    messaging::{AskRequest, Asked, CallContext, MessagingService, Notice, Reply, Rules},
    model::{Address, Message, MessageId, Principal, Scope},
};

/// The tool.
pub(super) struct SendMessageAndWait {
    pub messaging: MessagingService,
}

#[derive(Serialize)]
struct Answer<'a> {
    message_id: MessageId,
    status: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unconfirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<MessageView<'a>>,
    other_messages: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<NoticeView<'a>>,
}

#[async_trait]
impl Tool for SendMessageAndWait {
    fn name(&self) -> &'static str {
        "send_message_and_wait"
    }

    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Send, Scope::Read]
    }

    fn definition(&self) -> Value {
        let rules = self.messaging.rules();
        let (default, max) = (rules.default_wait.as_secs(), rules.max_wait.as_secs());
        definition::tool(
            self.name(),
            "Ask one agent and wait for its reply. If it comes too late, it is in get_messages.",
            Effect::Sends,
            (
                &json!({
                    "sender_id": definition::own_id(),
                    "recipient_id": of("string"),
                    "message": of("string"),
                    "timeout": about("number", &format!("seconds ({default}), at most {max}")),
                    "in_reply_to": of("string"),
                    "idempotency_key": of("string"),
                }),
                &definition::required(rules, &["sender_id", "recipient_id", "message"]),
            ),
            (
                &json!({
                    "message_id": of("string"),
                    "status": one_of(&["replied", "pending"]),
                    "unconfirmed": of("boolean"),
                    "reply": of("object"),
                    "other_messages": of("integer"),
                    "notices": definition::list(),
                }),
                &["message_id", "status"],
            ),
        )
    }

    fn may_wait(&self, arguments: &Arguments) -> bool {
        let default = self.messaging.rules().default_wait;
        wait(arguments, Duration::MAX).is_ok_and(|wait| !wait.unwrap_or(default).is_zero())
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        outcome::settle(self.ask(&arguments, context).await)
    }
}

impl SendMessageAndWait {
    async fn ask(&self, arguments: &Arguments, context: &CallContext) -> Result<ToolOutcome, Stop> {
        let request = read(arguments, self.messaging.rules(), &context.principal)?;
        let terms = Terms {
            recipient: request.recipient.clone(),
            keyed: request.idempotency_key.is_some(),
            waits: request.wait != Some(Duration::ZERO),
        };
        let asked = self.messaging.ask(request, context).await.map_err(Stop::sort)?;
        render(asked, &terms)
    }
}

fn read(arguments: &Arguments, rules: &Rules, principal: &Principal) -> Result<AskRequest, Stop> {
    let sender = arguments::own_id(arguments, "sender_id", principal)?;
    let parcel = recipients::single(arguments, principal)?;
    let key = arguments::word(arguments, "idempotency_key")?;
    Ok(AskRequest {
        sender,
        recipient: parcel.recipient,
        text: parcel.text,
        wait: wait(arguments, rules.max_wait)?,
        in_reply_to: arguments::message_id(arguments, "in_reply_to")?,
        idempotency_key: key.map(str::to_owned),
    })
}

/// How long to wait, if the caller says so: by `timeout`, or by the `expectation` of the Python
/// original, of which only one value waits.
fn wait(arguments: &Arguments, max: Duration) -> Result<Option<Duration>, Stop> {
    let expectations = ["response_expected", "no_response", "end_conversation"];
    let expectation = arguments::choice(arguments, "expectation", &expectations)?;
    let timeout = arguments::seconds(arguments, "timeout", (Duration::ZERO, max))?;
    Ok(match expectation {
        Some("no_response" | "end_conversation") => Some(Duration::ZERO),
        Some(_) | None => timeout,
    })
}

/// What the answer needs to know of the request.
struct Terms {
    recipient: Address,
    keyed: bool,
    waits: bool,
}

fn render(asked: Asked, terms: &Terms) -> Result<ToolOutcome, Stop> {
    let accepted = |before: &str, after: &str| {
        let mut text = before.to_owned();
        accepted_line(&mut text, &terms.recipient, &asked.sent);
        text.push_str(after);
        text
    };
    let if_keyed = |repeat, otherwise| if terms.keyed { repeat } else { otherwise };
    let mut reply = None;
    let text = match asked.reply {
        Reply::Message(message) => {
            reply = Some(message);
            String::new()
        }
        Reply::Task(task) => {
            let text = accepted("Waiting for the reply: ", "");
            return Ok(ToolOutcome::later(questions::begun(&task, text), asked.delivery));
        }
        Reply::Pending => accepted(
            if terms.waits { "No reply yet: " } else { "Sent without waiting: " },
            ". A reply will be in get_messages; don't send it again.\n",
        ),
        Reply::Unreadable(why) => accepted(
            &format!("{} replied, and the reply {why}: ", terms.recipient.expose()),
            ". The reply is not lost: it will be in get_messages once that is mended; don't send it again. \
             Tell whoever runs this server.\n",
        ),
        Reply::AskAgain => accepted(
            "No reply yet, and this server restarts: ",
            if_keyed(
                ". Go on waiting: repeat this call with the same idempotency_key.\n",
                ". Go on waiting: get_messages with wait_seconds; don't send it again.\n",
            ),
        ),
        Reply::Unwelcome => accepted(
            "No reply yet, and your credential no longer holds (it was revoked, or its time is over): ",
            if_keyed(
                ". Nothing is lost: with another credential, repeat this call with the same idempotency_key.\n",
                ". Nothing is lost: with another credential, a reply will be in get_messages; don't send it again.\n",
            ),
        ),
        Reply::StoreAway => accepted(
            "No reply yet, and the store of this server does not answer now: ",
            if_keyed(
                ". Nothing is lost: repeat this call with the same idempotency_key.\n",
                ". Nothing is lost: a reply will be in get_messages; don't send it again.\n",
            ),
        ),
        Reply::Cancelled => return Err(Stop::Cancelled),
    };
    let told = Told {
        recipient: &terms.recipient,
        question: asked.sent.id,
        reply: reply.as_deref(),
        // Whoever has the reply knows that the question arrived.
        unconfirmed: asked.sent.unconfirmed && reply.is_none(),
        other_messages: asked.other_messages,
        notices: &asked.notices,
    };
    Ok(told.with(text)?.carrying(asked.delivery))
}

/// What is told of a question in the end.
pub(super) struct Told<'a> {
    pub recipient: &'a Address,
    pub question: MessageId,
    pub reply: Option<&'a Message>,
    pub unconfirmed: bool,
    pub other_messages: u64,
    pub notices: &'a [Notice],
}

impl Told<'_> {
    /// In words; `without` is said if there is no reply.
    pub(super) fn with(&self, without: String) -> Result<ToolOutcome, Stop> {
        let mut text = without;
        if let Some(reply) = self.reply {
            let who = self.recipient.expose();
            text = format!("{who} replied to your message_id {}.\n", self.question);
            markdown::messages(&mut text, std::slice::from_ref(reply));
            text.push('\n');
        }
        if self.other_messages > 0 {
            let others = markdown::counted(self.other_messages, "other message");
            text.push_str(&others);
            text.push_str(" in your inbox: get_messages.\n");
        }
        markdown::notices(&mut text, self.notices);
        let answer = Answer {
            message_id: self.question,
            status: if self.reply.is_some() { "replied" } else { "pending" },
            unconfirmed: self.unconfirmed,
            reply: self.reply.map(MessageView::from),
            other_messages: self.other_messages,
            notices: views::all(self.notices),
        };
        ToolOutcome::answer(text, &answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::{Presence, SentStatus},
        tools::{
            envelope::tests::opened,
            samples::{self, structured},
        },
    };

    fn asked(reply: Reply) -> Asked {
        Asked {
            sent: samples::sent(SentStatus::Queued, Presence::Seen(Duration::from_secs(30))),
            reply,
            other_messages: 0,
            notices: Vec::new(),
            delivery: None,
        }
    }

    fn terms() -> Terms {
        Terms { recipient: samples::id("bob").into(), keyed: false, waits: true }
    }

    fn question(extra: &Value) -> Arguments {
        let mut sent = json!({"sender_id": "alice", "recipient_id": "bob", "message": "well?"});
        sent.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        sent.as_object().unwrap().clone()
    }

    #[test]
    fn the_wait_is_what_timeout_and_expectation_say() {
        let tool = samples::tools().get("send_message_and_wait").unwrap().clone();
        for (extra, expected, may_wait) in [
            (json!({}), None, true),
            (json!({"timeout": 5}), Some(5), true),
            (json!({"timeout": "5"}), Some(5), true),
            (json!({"timeout": 0}), Some(0), false),
            (json!({"expectation": "response_expected"}), None, true),
            (json!({"expectation": "no_response"}), Some(0), false),
            (json!({"expectation": "end_conversation", "timeout": 60}), Some(0), false),
        ] {
            let arguments = question(&extra);
            let request = read(&arguments, &samples::rules(), &Principal::anyone()).unwrap();
            assert_eq!(request.wait, expected.map(Duration::from_secs), "{extra}");
            assert_eq!(tool.may_wait(&arguments), may_wait, "{extra}");
        }
        for extra in [json!({"timeout": -1}), json!({"timeout": 301}), json!({"expectation": "x"})]
        {
            assert!(matches!(
                read(&question(&extra), &samples::rules(), &Principal::anyone()),
                Err(Stop::BadArgument(_))
            ));
        }
        assert!(!tool.may_wait(&question(&json!({"timeout": "soon"}))));
    }

    #[test]
    fn the_reply_stands_in_an_envelope() {
        let mut asked = asked(Reply::Message(Box::new(samples::message("bob", "yes\nEND"))));
        asked.other_messages = 2;
        let outcome = render(asked, &terms()).unwrap();
        assert_eq!(opened(&outcome.text)[0].1, "yes\nEND");
        assert!(outcome.text.ends_with("2 other messages in your inbox: get_messages."));
        let answer = structured(&outcome);
        assert_eq!(answer["status"], "replied");
        assert_eq!(answer["reply"]["text"], "yes\nEND");
        assert_eq!(answer["reply"]["trust"], "agent");
        assert_eq!(answer["other_messages"], 2);
        samples::assert_fits("send_message_and_wait", &outcome);
    }

    #[test]
    fn without_a_reply_it_says_how_to_go_on() {
        let outcome = render(asked(Reply::Pending), &terms()).unwrap();
        assert!(outcome.text.starts_with("No reply yet: message_id "), "{}", outcome.text);
        assert!(outcome.text.contains("is queued for bob (last seen 30 s ago)"));
        assert!(outcome.text.contains("A reply will be in get_messages"));
        assert!(!outcome.is_error);
        let answer = structured(&outcome);
        assert_eq!(answer["status"], "pending");
        assert!(answer.get("reply").is_none());
        samples::assert_fits("send_message_and_wait", &outcome);

        let at_once = render(asked(Reply::Pending), &Terms { waits: false, ..terms() }).unwrap();
        assert!(at_once.text.starts_with("Sent without waiting: message_id "));
    }

    #[test]
    fn a_restart_says_ask_again_without_a_second_question() {
        let outcome = render(asked(Reply::AskAgain), &terms()).unwrap();
        assert!(outcome.text.contains("get_messages with wait_seconds; don't send it again"));
        let keyed = render(asked(Reply::AskAgain), &Terms { keyed: true, ..terms() }).unwrap();
        assert!(keyed.text.contains("repeat this call with the same idempotency_key"));
        assert_eq!(structured(&keyed)["status"], "pending");
    }

    #[test]
    fn whose_credential_ended_is_told_so_and_where_the_reply_will_be() {
        let outcome = render(asked(Reply::Unwelcome), &terms()).unwrap();
        assert!(outcome.text.contains("your credential no longer holds"), "{}", outcome.text);
        assert!(outcome.text.contains("in get_messages; don't send it again"));
        let keyed = render(asked(Reply::Unwelcome), &Terms { keyed: true, ..terms() }).unwrap();
        assert!(
            keyed.text.contains("with the same idempotency_key")
                && !keyed.text.contains("restarts")
        );
        assert_eq!(structured(&keyed)["status"], "pending");
    }

    #[test]
    fn a_cancelled_question_writes_nothing() {
        assert!(matches!(render(asked(Reply::Cancelled), &terms()), Err(Stop::Cancelled)));
    }
}
