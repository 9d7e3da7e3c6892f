//! Any text as a message: the reader gets it unchanged, both for programs and, read by its envelope,
//! for models; and nothing outside of an envelope begins as one.
#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use mcp_messaging::tools::ToolOutcome;
use mcp_messaging_fuzz::House;
use serde_json::{Value, json};

thread_local! {
    static HOUSE: OnceCell<House> = const { OnceCell::new() };
}

fn call(house: &House, tool: &str, arguments: Value) -> ToolOutcome {
    let Value::Object(arguments) = arguments else { unreachable!("an object") };
    let tool = house.tools.get(tool).expect("a tool");
    house.runtime.block_on(tool.call(arguments, &house.context)).expect("memory does not fail")
}

/// The bodies in an answer, read by the marker of the first envelope.
fn bodies(text: &str) -> Vec<String> {
    let (mut lines, mut found, mut marker) = (text.split('\n'), Vec::new(), None);
    while let Some(line) = lines.next() {
        let Some(begin) = line.strip_prefix("BEGIN ") else { continue };
        let (mark, header) = begin.split_once(' ').expect("a header");
        assert_eq!(*marker.get_or_insert(mark), mark, "one marker for an answer");
        let (end, quote) = (format!("END {mark}"), format!("{}| ", &mark[..4]));
        let body: Vec<String> = lines
            .by_ref()
            .take_while(|line| *line != end)
            .map(|line| seen(line.strip_prefix(&quote).expect("a quoted line")))
            .collect();
        found.push(body.join(if header.ends_with("; CRLF") { "\r\n" } else { "\n" }));
    }
    found
}

/// A line with what was made visible put back.
fn seen(shown: &str) -> String {
    let (mut out, mut rest) = (String::new(), shown);
    while let Some((before, escape)) = rest.split_once("\\u{") {
        let (digits, after) = escape.split_once('}').expect("an escape");
        out.push_str(before);
        out.push(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).expect("a character"));
        rest = after;
    }
    out + rest
}

fuzz_target!(|body: &str| {
    if body.is_empty() {
        return; // refused: nothing to read
    }
    HOUSE.with(|house| {
        let house = house.get_or_init(House::new);
        let _inside = house.runtime.enter(); // for what is given back when an answer is dropped
        let message = json!({ "sender_id": "alice", "recipient_id": "bob", "message": body });
        let sent = call(house, "send_message", message);
        if sent.is_error {
            assert!(body.len() > 64 * 1024, "{}", sent.text);
            return;
        }
        let got = call(house, "get_messages", json!({ "client_id": "bob", "ack": "manual" }));
        let structured: Value =
            serde_json::from_str(got.structured.as_ref().expect("messages").get()).expect("JSON");
        assert_eq!(structured["messages"][0]["text"], body);
        assert_eq!(bodies(&got.text), [body], "{}", got.text);
        let receipt = structured["receipt"].as_str().expect("a receipt");
        call(house, "get_messages", json!({ "client_id": "bob", "receipt": receipt }));
    });
});
