//! Any bytes as the body of a POST, with any headers: an answer is JSON-RPC of one piece, a request's
//! id comes back as it was sent, and what is not JSON is called that.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mcp_messaging::mcp::{Field, Headers, Incoming};
use mcp_messaging_fuzz::House;
use serde_json::{Value, value::RawValue};

static HOUSE: LazyLock<House> = LazyLock::new(House::new);

/// The values of one header, among lines of `name: value`.
fn field<'a>(head: &'a [u8], name: &str) -> Field<'a> {
    Field::read(head.split(|byte| *byte == b'\n').filter_map(|line| {
        line.strip_prefix(name.as_bytes())?.strip_prefix(b":")
    }))
}

// Headers, an empty line, the body: as in HTTP, so that seeds can be read and written by hand.
fuzz_target!(|input: &[u8]| {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, input) = end.map_or((&b""[..], input), |end| (&input[..end], &input[end + 2..]));
    let headers = Headers {
        protocol_version: field(head, "MCP-Protocol-Version"),
        method: field(head, "Mcp-Method"),
        name: field(head, "Mcp-Name"),
        session: field(head, "Mcp-Session-Id"),
        traceparent: field(head, "traceparent"),
        ..Headers::default()
    };
    // Deeper than a `Value` may be, JSON is JSON all the same.
    let is_json = serde_json::from_slice::<&RawValue>(input).is_ok();
    let body: Result<Value, _> = serde_json::from_slice(input);
    let Incoming::Answer(answer) = HOUSE.server.receive(&headers, input) else {
        assert!(is_json, "taken for a message: {input:?}");
        return;
    };
    let Ok(said) = serde_json::from_slice::<Value>(&answer.body) else {
        // An id may be a number that is too large for a `Value`.
        let said: Result<&RawValue, _> = serde_json::from_slice(&answer.body);
        said.expect("the answer is JSON");
        return;
    };
    assert_eq!(said["jsonrpc"], "2.0");
    assert!(said.get("result").is_some() != said.get("error").is_some(), "{said}");
    assert!(matches!(answer.status, 200 | 400 | 404), "{}", answer.status);
    if !is_json {
        assert!(said.get("id").is_none() && answer.status == 400, "{said}");
    } else if let (Ok(sent), Some(id)) = (&body, said.get("id")) {
        assert_eq!(Some(id), sent.get("id"), "{said}");
    }
});
