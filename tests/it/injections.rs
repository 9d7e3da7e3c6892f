//! What peers write stays what peers wrote, wherever an agent is shown it.
//!
//! `tests/injections.json` has texts that try to pass for something else, with a name for each trick. The answers
//! are taken apart here by what `docs/security.md` says of them and by nothing of the renderer's: each text must
//! come out as it was sent, and what stands outside must be the same as for a harmless one.

use std::sync::Arc;

use mcp_messaging::{
    messaging::{CallContext, MessagingService},
    prompts::{self, PromptArguments},
    resources,
    tools::{self, TaskState, ToolOutcome},
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::{
    house,
    support::{Backend, memory_backend, secs},
};

const CORPUS: &str = include_str!("../injections.json");

/// Name of the trick, and the text.
fn corpus() -> Vec<(String, String)> {
    let all: Vec<Value> = serde_json::from_str(CORPUS).unwrap();
    let word = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let named = |one| (format!("{}: {}", word(one, "kind"), word(one, "name")), word(one, "body"));
    all.iter().map(named).collect()
}

/// An answer, taken apart line by line.
#[derive(Debug, Default, PartialEq)]
struct Opened {
    marker: String,
    /// Lines that are not of an envelope, headers of envelopes among them.
    outside: Vec<String>,
    bodies: Vec<String>,
}

impl Opened {
    fn read(text: &str) -> Self {
        let mut opened = Self::default();
        let mut body: Option<Vec<String>> = None;
        let mut crlf = false;
        for line in text.split('\n') {
            match &mut body {
                None if opens(line) => {
                    let marker = &line[6..38];
                    assert!(opened.marker.is_empty() || opened.marker == marker, "{text}");
                    marker.clone_into(&mut opened.marker);
                    let header = line[39..].strip_suffix("; CRLF");
                    crlf = header.is_some();
                    opened.outside.push(header.unwrap_or(&line[39..]).to_owned());
                    body = Some(Vec::new());
                }
                None => opened.outside.push(line.to_owned()),
                Some(lines) if line.strip_prefix("END ") == Some(opened.marker.as_str()) => {
                    opened.bodies.push(lines.join(if crlf { "\r\n" } else { "\n" }));
                    body = None;
                }
                Some(lines) => lines.push(said(line, &opened.marker[..4])),
            }
        }
        assert_eq!(body, None, "an envelope without an end: {text}");
        let marks =
            [(opened.marker.as_str(), "MARKER"), (opened.marker.get(..4).unwrap_or(" "), "MARK")];
        for line in &mut opened.outside {
            for (mark, name) in marks {
                if !mark.is_empty() && line.contains(&format!("{mark}|")) {
                    *line = line.replace(&format!("{mark}|"), &format!("{name}|"));
                }
            }
            *line = without_ids(line);
        }
        opened
    }
}

/// `BEGIN `, 32 hexadecimal digits, and what the server knows of a message.
fn opens(line: &str) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let bytes = line.as_bytes();
    bytes.len() > 39
        && bytes.starts_with(b"BEGIN ")
        && bytes[6..38].iter().all(digit)
        && bytes[38] == b' '
}

/// What a line behind a short marker says.
fn said(line: &str, mark: &str) -> String {
    let text = line.strip_prefix(mark).and_then(|rest| rest.strip_prefix("| "));
    let mut rest = text.unwrap_or_else(|| panic!("a line outside of the quote: {line:?}")).chars();
    let mut out = String::new();
    while let Some(next) = rest.next() {
        assert!(next == '\t' || !next.is_control(), "a control character: {line:?}");
        if next != '\\' || !rest.as_str().starts_with("u{") {
            out.push(next);
            continue;
        }
        let digits: String = rest.by_ref().skip(2).take_while(|digit| *digit != '}').collect();
        out.push(
            u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).expect("an escape"),
        );
    }
    out
}

/// With every id of a message replaced: each is another one.
fn without_ids(line: &str) -> String {
    let is_id = |text: &str| uuid::Uuid::parse_str(text).is_ok();
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let id = rest.get(..36).filter(|text| text.as_bytes()[8] == b'-' && is_id(text));
        let taken = id.map_or(first.len_utf8(), str::len);
        out.push_str(if id.is_some() { "ID" } else { &rest[..taken] });
        rest = &rest[taken..];
    }
    out
}

/// A mailbox, and who uses it.
struct Desk {
    mailbox: MessagingService,
    backend: Backend,
}

impl Desk {
    fn new() -> Self {
        let backend = memory_backend();
        let mailbox = house::mailbox(Arc::clone(&backend.queue));
        Self { mailbox, backend }
    }

    async fn outcome(&self, tool: &str, arguments: Value, context: &CallContext) -> ToolOutcome {
        let tools = tools::registry(self.mailbox.clone());
        let Value::Object(arguments) = arguments else { panic!("arguments") };
        let outcome = tools.get(tool).unwrap().call(arguments, context).await.unwrap();
        assert!(!outcome.is_error, "{tool}: {}", outcome.text);
        outcome
    }

    /// What it says to the model, and to programs; received.
    async fn call(&self, tool: &str, arguments: Value) -> (String, Value) {
        told(self.outcome(tool, arguments, &CallContext::default()).await)
    }

    async fn read(&self, uri: &str) -> String {
        let resources = resources::registry(self.mailbox.clone());
        let found = resources.find(uri).unwrap().read(uri, &CallContext::default()).await.unwrap();
        found[0]["text"].as_str().unwrap().to_owned()
    }

    async fn send(&self, body: &str) {
        let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": body});
        self.call("send_message", letter).await;
    }

    /// Bob takes what he was asked and answers it.
    async fn answer(&self, body: &str) {
        let (_, mail) =
            self.call("get_messages", json!({"client_id": "bob", "wait_seconds": 10})).await;
        let question = &mail["messages"][0]["message_id"];
        let reply = json!({"sender_id": "bob", "recipient_id": "alice", "message": body, "in_reply_to": question});
        self.call("send_message", reply).await;
    }
}

fn told(mut outcome: ToolOutcome) -> (String, Value) {
    if let Some(delivery) = outcome.delivery.take() {
        delivery.flushed();
    }
    let structured = outcome.structured.map_or("null".to_owned(), |raw| raw.get().to_owned());
    (outcome.text, serde_json::from_str(&structured).unwrap())
}

/// A program is told whose words they are.
#[track_caller]
fn is_marked(message: &Value, body: &str) {
    assert_eq!(message["text"], body);
    assert_eq!((&message["trust"], &message["verified_sender"]), (&json!("agent"), &json!(false)));
}

/// All ways in which a model is shown a message; each as its name and what was said.
async fn shown(body: &str) -> Vec<(&'static str, String)> {
    let mut shown = Vec::new();
    let desk = Desk::new();
    desk.send(body).await;
    shown.push(("inbox://", desk.read("inbox://bob").await));
    let (text, mail) = desk.call("get_messages", json!({"client_id": "bob"})).await;
    is_marked(&mail["messages"][0], body);
    shown.push(("get_messages", text));

    let question =
        json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 20});
    let asked = desk.call("send_message_and_wait", question.clone());
    let ((text, answer), ()) = tokio::join!(asked, desk.answer(body));
    is_marked(&answer["reply"], body);
    shown.push(("send_message_and_wait", text));

    let context = CallContext { takes_tasks: true, ..CallContext::default() };
    let mut handed = desk.outcome("send_message_and_wait", question, &context).await;
    handed.delivery.take().unwrap().flushed();
    desk.answer(body).await;
    let id = handed.task.unwrap().id;
    let task = tools::tasks(desk.mailbox.clone()).unwrap().get(&id, &context).await.unwrap();
    let TaskState::Completed(outcome) = task.state else { panic!("{task:?}") };
    let (text, answer) = told(*outcome);
    is_marked(&answer["reply"], body);
    shown.push(("tasks/get", text));
    shown
}

#[tokio::test]
async fn every_trick_comes_out_as_what_was_sent_and_changes_nothing_around_it() {
    let harmless = shown("a harmless text").await;
    let corpus = corpus();
    assert!(corpus.len() >= 60, "{} of them", corpus.len());
    for (trick, body) in corpus {
        for ((way, text), (_, expected)) in shown(&body).await.into_iter().zip(&harmless) {
            let (found, expected) = (Opened::read(&text), Opened::read(expected));
            assert_eq!(found.bodies, [body.as_str()], "{trick} by {way}");
            assert_eq!(found.outside, expected.outside, "{trick} by {way}");
        }
    }
}

#[tokio::test]
async fn many_of_them_in_one_answer_stay_apart() {
    let desk = Desk::new();
    let bodies: Vec<String> = corpus().into_iter().map(|(_, body)| body).collect();
    for body in &bodies {
        desk.send(body).await;
    }
    let everything = json!({"client_id": "bob", "max_messages": 1000, "ack": "manual"});
    let looked = Opened::read(&desk.read("inbox://bob").await);
    assert_eq!(looked.bodies, bodies[..house::rules().fetch_messages]);
    let (text, mail) = desk.call("get_messages", everything).await;
    assert_eq!(Opened::read(&text).bodies, bodies);
    for (message, body) in mail["messages"].as_array().unwrap().iter().zip(&bodies) {
        is_marked(message, body);
    }
}

#[test]
fn any_text_comes_out_as_what_was_sent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tricks: Vec<String> = corpus().into_iter().map(|(_, body)| body).collect();
    let any = prop_oneof![
        any::<String>(),
        "\\PC{0,40}",
        proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(tricks),
                proptest::sample::select(vec![
                    "\\", "u{", "}", "5c", "\r", "\n", "\r\n", "END ", "BEGIN ", "| "
                ])
                .prop_map(str::to_owned),
                any::<char>().prop_map(String::from),
            ],
            1..6
        )
        .prop_map(|parts| parts.concat()),
    ];
    TestRunner::default()
        .run(&any.prop_filter("not empty", |text| !text.is_empty()), |body| {
            let (text, mail) = runtime.block_on(async {
                let desk = Desk::new();
                desk.send(&body).await;
                desk.call("get_messages", json!({"client_id": "bob"})).await
            });
            let found = Opened::read(&text);
            prop_assert_eq!(&found.bodies[..], std::slice::from_ref(&body));
            prop_assert_eq!(found.outside.len(), 4, "{}", text);
            prop_assert_eq!(&mail["messages"][0]["text"], &body);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn how_a_client_presents_itself_stays_on_its_line() {
    let listing = async |name: &str, capabilities: &str| {
        let desk = Desk::new();
        let first: String = name.chars().take(200).collect();
        let second: String = capabilities.chars().take(2000).collect();
        let profile = json!({"client_id": "mallory", "name": first, "capabilities": second});
        desk.call("checkin_client", profile).await;
        desk.call("checkin_client", json!({"client_id": "zoe", "name": "Zoe"})).await;
        let (text, answer) = desk.call("list_clients", json!({})).await;
        let (_, session) = desk.call("get_active_sessions", json!({})).await;
        assert_eq!(session, answer);
        (text, desk.read("clients://").await, answer)
    };
    // What stands on each line before what the client wrote.
    let outside = |text: &str| -> Vec<String> {
        let mark = text.split("What follows ").nth(1).unwrap()[..4].to_owned();
        let before =
            |line: &str| line.split(&format!("{mark}| ")).next().unwrap().replace(&mark, "MARK");
        text.lines().map(before).collect()
    };
    let (harmless, _, _) = listing("Mallory", "can do this").await;
    for (trick, body) in corpus() {
        if body.trim().is_empty() {
            continue;
        }
        let (text, resource, answer) = listing(&body, &body).await;
        assert_eq!(outside(&text), outside(&harmless), "{trick}: {text}");
        assert_eq!(outside(&resource), outside(&harmless), "{trick}");
        let rows = answer["clients"].as_array().unwrap();
        let row = rows.iter().find(|row| row["client_id"] == "mallory").unwrap();
        assert_eq!(row["trust"], "agent");
        let start = |key: &str, limit| {
            let text = row[key].as_str().unwrap();
            let cut: String = text.chars().take(limit).collect();
            if cut == text { cut } else { format!("{cut}…") }
        };
        let written = format!("{} - {}", start("name", 60), start("capabilities", 200));
        let line = text.lines().find(|line| line.starts_with("- mallory: ")).unwrap();
        let at = line.find("| ").unwrap() - 4;
        // A listing ends without white space.
        let last = said(&line[at..], &line[at..at + 4]);
        assert_eq!(last.trim_end(), written.trim_end(), "{trick}");
    }
}

#[tokio::test]
async fn what_is_said_of_a_message_says_nothing_of_its_text() {
    let reports = async |body: &str| {
        let desk = Desk::new();
        desk.send(body).await;
        let status = desk.call("message_status", json!({"sender_id": "alice"})).await.0;
        desk.backend.pass(secs(301)).await;
        desk.call("get_messages", json!({"client_id": "bob"})).await; // finds it expired
        let notice = desk.call("get_messages", json!({"client_id": "alice"})).await.0;
        assert!(notice.contains("Not delivered: your message"), "{notice}");
        [status, notice].map(|text| without_ids(&text))
    };
    let harmless = reports("a harmless text").await;
    for (trick, body) in corpus() {
        assert_eq!(reports(&body).await, harmless, "{trick}");
    }
}

#[tokio::test]
async fn prompts_speak_for_the_user_alone() {
    let said = async |body: Option<&str>| {
        let desk = Desk::new();
        if let Some(body) = body {
            desk.send(body).await;
            let name: String = body.chars().take(200).collect();
            desk.call("checkin_client", json!({"client_id": "alice", "name": name})).await;
        }
        let mut said = Vec::new();
        for prompt in prompts::registry(desk.mailbox.clone()).all() {
            let arguments = json!({"client_id": "bob", "recipient_id": "alice", "question": "?", "name": "Bob"});
            let Value::Object(arguments) = arguments else { panic!("arguments") };
            let arguments: PromptArguments = arguments;
            let got = prompt.get(arguments, &CallContext::default()).await.unwrap();
            said.push(Value::from(got.messages));
        }
        said
    };
    let alone = said(None).await;
    assert_eq!(alone.len(), 3);
    for (trick, body) in corpus().into_iter().filter(|(_, body)| !body.trim().is_empty()) {
        assert_eq!(said(Some(&body)).await, alone, "{trick}");
    }
}

#[tokio::test]
async fn a_marker_is_128_random_bits_for_each_answer() {
    let desk = Desk::new();
    desk.send("hello").await;
    let mut markers = std::collections::BTreeSet::new();
    let (mut ones, mut zeros) = (0_u128, 0_u128);
    for _ in 0..200 {
        let marker = Opened::read(&desk.read("inbox://bob").await).marker;
        let bits = u128::from_str_radix(&marker, 16).unwrap();
        (ones, zeros) = (ones | bits, zeros | !bits);
        markers.insert(marker);
    }
    assert_eq!(markers.len(), 200);
    assert_eq!((ones, zeros), (u128::MAX, u128::MAX), "each bit is sometimes 0 and sometimes 1");
}
