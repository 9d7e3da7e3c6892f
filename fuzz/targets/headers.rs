//! A name, mirrored into `Mcp-Name` as a client does it, is taken for itself and for no other name.
#![no_main]

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use mcp_messaging::mcp::{Field, Headers, Incoming};
use mcp_messaging_fuzz::House;
use serde_json::{Value, json};

static HOUSE: LazyLock<House> = LazyLock::new(House::new);

/// The header of a name, by the rules of 2026-07-28: as it is, or in Base64 if that would change it.
fn mirrored(name: &str) -> String {
    let plain = name.bytes().all(|byte| matches!(byte, 0x20..=0x7e) || byte == b'\t')
        && name.trim_ascii() == name
        && !(name.starts_with("=?base64?") && name.ends_with("?="));
    if plain { name.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(name)) }
}

/// The code of the answer to a call of a tool of this name under this header.
fn code(name: &str, header: &[u8]) -> i64 {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": name, "arguments": {}, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let headers = Headers {
        protocol_version: Field::One(b"2026-07-28"),
        method: Field::One(b"tools/call"),
        name: Field::read(std::iter::once(header)),
        ..Headers::default()
    };
    match HOUSE.server.receive(&headers, body.to_string().as_bytes()) {
        Incoming::Answer(answer) => {
            let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
            said["error"]["code"].as_i64().expect("an error: no tool is called so")
        }
        _ => 0,
    }
}

const MISMATCH: i64 = -32020;

fuzz_target!(|input: (&str, &[u8])| {
    let (name, other) = input;
    assert_ne!(code(name, mirrored(name).as_bytes()), MISMATCH, "{name:?}");
    // Any header that is accepted says this name and no other.
    if code(name, other) != MISMATCH {
        let trimmed = other.trim_ascii();
        let inner = trimmed.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
        let said = inner.and_then(|inner| STANDARD.decode(inner).ok());
        assert_eq!(said.as_deref().unwrap_or(trimmed), name.as_bytes());
    }
});
