//! Answers as bytes: the id is spliced in raw, fixed parts are rendered once, and what the modern era
//! wants on every result is put there here and nowhere else.

use bytes::Bytes;
use serde_json::json;

use super::{call::Frame, error::McpError, revision::Era};
use crate::tools::ToolOutcome;

/// How long a result stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// As long as this version of the server runs: clients may keep it for five minutes.
    Stable,
    /// It is the answer to a call: nothing is said of keeping it.
    Call,
}

/// Every modern result has these members.
const STAMP: &str = concat!(
    r#""resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mcp-messaging","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}},"#
);
const STABLE: &str = r#""ttlMs":300000,"cacheScope":"public","#;

/// Begins a result; [`close`] ends it. Between them go its members, at least one.
fn open(frame: Frame, id: &str, era: Era, freshness: Freshness, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(room + id.len() + STAMP.len() + STABLE.len() + 128);
    out.extend_from_slice(frame.before.as_bytes());
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","result":{"#);
    match era {
        Era::Legacy => {}
        Era::Modern => {
            out.extend_from_slice(STAMP.as_bytes());
            match freshness {
                Freshness::Stable => out.extend_from_slice(STABLE.as_bytes()),
                Freshness::Call => {}
            }
        }
    }
    out
}

fn close(mut out: Vec<u8>, frame: Frame) -> Bytes {
    out.extend_from_slice(b"}}");
    out.extend_from_slice(frame.after.as_bytes());
    Bytes::from(out)
}

/// A result whose members are rendered: `"a":1,"b":2`, or nothing.
pub(super) fn rendered(id: &str, era: Era, freshness: Freshness, members: &str) -> Bytes {
    let frame = Frame::default();
    let mut out = open(frame, id, era, freshness, members.len());
    out.extend_from_slice(members.as_bytes());
    close(out, frame)
}

/// What a tool answered.
pub(super) fn of_tool(
    frame: Frame,
    id: &str,
    era: Era,
    outcome: &ToolOutcome,
) -> Result<Bytes, serde_json::Error> {
    let room = outcome.text.len() * if outcome.structured.is_some() { 3 } else { 1 };
    let mut out = open(frame, id, era, Freshness::Call, room);
    out.extend_from_slice(br#""content":[{"type":"text","text":"#);
    serde_json::to_writer(&mut out, &outcome.text)?;
    out.extend_from_slice(b"}]");
    if let Some(structured) = &outcome.structured {
        out.extend_from_slice(br#","structuredContent":"#);
        serde_json::to_writer(&mut out, structured)?;
    }
    out.extend_from_slice(br#","isError":"#);
    out.extend_from_slice(if outcome.is_error { b"true" } else { b"false" });
    Ok(close(out, frame))
}

/// An error. Without a readable id it has none, as the revisions since 2025-11-25 ask.
pub(super) fn error(frame: Frame, id: Option<&str>, error: &McpError) -> Bytes {
    let mut body = json!({ "code": error.code(), "message": error.to_string() });
    if let Some(data) = error.data() {
        body["data"] = data;
    }
    let (before, after) = (frame.before, frame.after);
    let text = match id {
        Some(id) => format!(r#"{before}{{"jsonrpc":"2.0","id":{id},"error":{body}}}{after}"#),
        None => format!(r#"{before}{{"jsonrpc":"2.0","error":{body}}}{after}"#),
    };
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn members(bytes: &Bytes) -> Value {
        serde_json::from_slice::<Value>(bytes).unwrap()["result"].clone()
    }

    #[test]
    fn only_modern_results_are_stamped() {
        let stable = rendered("1", Era::Modern, Freshness::Stable, r#""tools":[]"#);
        let info =
            json!({ "name": crate::mcp::SERVER_NAME, "version": crate::mcp::SERVER_VERSION });
        let meta = json!({ "io.modelcontextprotocol/serverInfo": info });
        assert_eq!(
            members(&stable),
            json!({
                "resultType": "complete", "_meta": meta, "ttlMs": 300_000, "cacheScope": "public",
                "tools": []
            })
        );
        let outcome = ToolOutcome {
            text: "a\n\"b\"".into(),
            structured: None,
            is_error: true,
            delivery: None,
            cancelled: false,
        };
        let content = json!([{ "type": "text", "text": "a\n\"b\"" }]);
        let call = of_tool(Frame::default(), "1", Era::Modern, &outcome).unwrap();
        assert_eq!(
            members(&call),
            json!({ "resultType": "complete", "_meta": meta, "content": content, "isError": true })
        );
        let legacy = of_tool(Frame::default(), "1", Era::Legacy, &outcome).unwrap();
        assert_eq!(members(&legacy), json!({ "content": content, "isError": true }));
        assert_eq!(members(&rendered("1", Era::Legacy, Freshness::Call, "")), json!({}));
    }
}
