//! Answers as bytes: the id is spliced in raw, fixed parts are rendered once, and what the modern era
//! wants on every result is put there here and nowhere else.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::{call::Frame, discover, error::McpError, revision::Era};
use crate::{dialogue::InputRequired, tools::ToolOutcome};

/// How long a result stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// As long as this version of the server runs: clients may keep it for five minutes.
    Stable,
    /// Only now, and only for this caller.
    Now,
    /// It is the answer to a call: nothing is said of keeping it.
    Call,
}

impl Freshness {
    fn hint(self) -> &'static str {
        match self {
            Self::Stable => r#""ttlMs":300000,"cacheScope":"public","#,
            Self::Now => r#""ttlMs":0,"cacheScope":"private","#,
            Self::Call => "",
        }
    }
}

/// Room for what surrounds the members of a result.
const AROUND: usize = 128;

/// The member of `_meta` that every modern result has.
pub(super) fn info(name: &str, version: &str) -> String {
    let info = json!({ "name": name, "version": version });
    format!(r#""io.modelcontextprotocol/serverInfo":{info}"#)
}

/// Writes the answer to one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub frame: Frame,
    /// As JSON.
    pub id: &'a str,
    pub era: Era,
    /// See [`info`].
    pub info: &'a str,
}

impl Writer<'_> {
    /// Begins a complete result; [`close`](Self::close) ends it. Between them go its members.
    fn open(&self, freshness: Freshness, room: usize) -> Vec<u8> {
        self.open_as("complete", freshness, room)
    }

    fn open_as(&self, kind: &str, freshness: Freshness, room: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(room + self.id.len() + self.info.len() + AROUND);
        out.extend_from_slice(self.frame.before.as_bytes());
        out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(br#","result":{"#);
        match self.era {
            Era::Legacy => {}
            Era::Modern => {
                out.extend_from_slice(br#""resultType":""#);
                out.extend_from_slice(kind.as_bytes());
                out.extend_from_slice(br#"","_meta":{"#);
                out.extend_from_slice(self.info.as_bytes());
                out.extend_from_slice(b"},");
                out.extend_from_slice(freshness.hint().as_bytes());
            }
        }
        out
    }

    fn close(&self, mut out: Vec<u8>) -> Bytes {
        // Of a result without members of its own.
        out.pop_if(|last| *last == b',');
        out.extend_from_slice(b"}}");
        out.extend_from_slice(self.frame.after.as_bytes());
        Bytes::from(out)
    }

    /// A result that only says that it was done.
    pub(super) fn empty(&self) -> Bytes {
        self.rendered(Freshness::Call, "")
    }

    /// A result whose members are rendered: `"a":1,"b":2`, or nothing.
    pub(super) fn rendered(&self, freshness: Freshness, members: &str) -> Bytes {
        let mut out = self.open(freshness, members.len());
        out.extend_from_slice(members.as_bytes());
        self.close(out)
    }

    /// A result that is this object.
    pub(super) fn object(
        &self,
        freshness: Freshness,
        object: &impl Serialize,
    ) -> Result<Bytes, serde_json::Error> {
        let text = serde_json::to_string(object)?;
        let members = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        Ok(self.rendered(freshness, members.unwrap_or_default()))
    }

    /// That the request is to be sent again with these inputs. Only the modern era has it.
    pub(super) fn input_required(&self, input: &InputRequired) -> Bytes {
        let (Frame { before, after }, id, info) = (self.frame, self.id, self.info);
        let mut members = json!({});
        if !input.requests.is_empty() {
            members["inputRequests"] = json!(input.requests);
        }
        if let Some(state) = &input.state {
            members["requestState"] = json!(state);
        }
        let members = discover::members(&members);
        let comma = if members.is_empty() { "" } else { "," };
        Bytes::from(format!(
            r#"{before}{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","_meta":{{{info}}}{comma}{members}}}}}{after}"#
        ))
    }

    /// What a tool answered.
    pub(super) fn tool(&self, outcome: &ToolOutcome) -> Result<Bytes, serde_json::Error> {
        // Of a text some characters are escaped.
        let (text, structured) = (outcome.text.len(), outcome.structured.as_ref());
        let room = text + text / 16 + structured.map_or(0, |json| json.get().len());
        let mut out = self.open(Freshness::Call, room);
        write_outcome(&mut out, outcome)?;
        Ok(self.close(out))
    }

    /// A task of these members, with what its call answered.
    pub(super) fn task(
        &self,
        kind: &str,
        members: &Value,
        outcome: Option<&ToolOutcome>,
    ) -> Result<Bytes, serde_json::Error> {
        let members = discover::members(members);
        let mut out = self.open_as(kind, Freshness::Call, members.len());
        out.extend_from_slice(members.as_bytes());
        if let Some(outcome) = outcome {
            out.extend_from_slice(br#","result":{"resultType":"complete","#);
            write_outcome(&mut out, outcome)?;
            out.push(b'}');
        }
        Ok(self.close(out))
    }
}

/// The members of what a tool answered.
fn write_outcome(out: &mut Vec<u8>, outcome: &ToolOutcome) -> Result<(), serde_json::Error> {
    out.extend_from_slice(br#""content":["#);
    if !outcome.text.is_empty() || outcome.content.is_empty() {
        out.extend_from_slice(br#"{"type":"text","text":"#);
        serde_json::to_writer(&mut *out, &outcome.text)?;
        out.extend_from_slice(if outcome.content.is_empty() { b"}" } else { b"}," });
    }
    for (number, content) in outcome.content.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, content)?;
    }
    out.push(b']');
    if let Some(structured) = &outcome.structured {
        out.extend_from_slice(br#","structuredContent":"#);
        serde_json::to_writer(&mut *out, structured)?;
    }
    out.extend_from_slice(br#","isError":"#);
    out.extend_from_slice(if outcome.is_error { b"true" } else { b"false" });
    Ok(())
}

/// The `error` of an answer.
pub(super) fn error_object(error: &McpError, era: Era) -> Value {
    let mut body = json!({ "code": error.code(era), "message": error.to_string() });
    if let Some(data) = error.data() {
        body["data"] = data;
    }
    body
}

/// An error. Without a readable id it has none, as the revisions since 2025-11-25 ask.
pub(super) fn error(frame: Frame, id: Option<&str>, error: &McpError, era: Era) -> Bytes {
    let body = error_object(error, era);
    let (before, after) = (frame.before, frame.after);
    let text = match id {
        Some(id) => format!(r#"{before}{{"jsonrpc":"2.0","id":{id},"error":{body}}}{after}"#),
        None => format!(r#"{before}{{"jsonrpc":"2.0","error":{body}}}{after}"#),
    };
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(bytes: &Bytes) -> Value {
        serde_json::from_slice::<Value>(bytes).unwrap()["result"].clone()
    }

    #[test]
    fn only_modern_results_are_stamped() {
        let info = info("house", "1.2");
        let modern = Writer { frame: Frame::default(), id: "1", era: Era::Modern, info: &info };
        let legacy = Writer { era: Era::Legacy, ..modern };
        let stable = modern.rendered(Freshness::Stable, r#""tools":[]"#);
        let meta =
            json!({ "io.modelcontextprotocol/serverInfo": { "name": "house", "version": "1.2" } });
        assert_eq!(
            members(&stable),
            json!({
                "resultType": "complete", "_meta": meta, "ttlMs": 300_000, "cacheScope": "public",
                "tools": []
            })
        );
        let read = json!({ "contents": [{ "uri": "a:b", "text": "" }] });
        let mut expected = read.clone();
        assert_eq!(members(&legacy.object(Freshness::Now, &read).unwrap()), expected);
        expected["resultType"] = json!("complete");
        expected["_meta"] = meta.clone();
        expected["ttlMs"] = json!(0);
        expected["cacheScope"] = json!("private");
        assert_eq!(members(&modern.object(Freshness::Now, &read).unwrap()), expected);
        let outcome =
            ToolOutcome { text: "a\n\"b\"".into(), is_error: true, ..ToolOutcome::default() };
        let content = json!([{ "type": "text", "text": "a\n\"b\"" }]);
        let call = modern.tool(&outcome).unwrap();
        assert_eq!(
            members(&call),
            json!({ "resultType": "complete", "_meta": meta, "content": content, "isError": true })
        );
        let call = legacy.tool(&outcome).unwrap();
        assert_eq!(members(&call), json!({ "content": content, "isError": true }));
        assert_eq!(members(&legacy.rendered(Freshness::Call, "")), json!({}));
    }

    #[test]
    fn an_outcome_has_text_or_other_content_or_both_and_never_none() {
        let writer = Writer { frame: Frame::default(), id: "1", era: Era::Legacy, info: "" };
        let text = |text: &str| json!({ "type": "text", "text": text });
        let image = json!({ "type": "image", "data": "", "mimeType": "image/png" });
        for (said, content, expected) in [
            ("", vec![], vec![text("")]),
            ("a", vec![image.clone()], vec![text("a"), image.clone()]),
            ("", vec![image.clone(), text("b")], vec![image, text("b")]),
        ] {
            let outcome = ToolOutcome { text: said.into(), content, ..ToolOutcome::default() };
            let result = members(&writer.tool(&outcome).unwrap());
            assert_eq!(result["content"], json!(expected));
        }
    }
}
