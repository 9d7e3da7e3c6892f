//! Entries of `tools/list`. All of them together cost a model 1,500 tokens at most (a test counts),
//! because every session of every client pays for them.

use serde_json::{Value, json};

use crate::messaging::Rules;

/// What a call does to the world, for hosts that ask their user first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// Looks only.
    Reads,
    /// Replaces what the same caller recorded before.
    Records,
    /// Adds a message for another agent.
    Sends,
    /// Hands out messages, which then leave the inbox.
    Takes,
}

impl Effect {
    /// The hints that differ from what the protocol assumes without them: not read-only,
    /// destructive, not idempotent, open world (other agents are one: their words come in, ours go out).
    fn annotations(self) -> Value {
        match self {
            Self::Reads => json!({"readOnlyHint": true, "openWorldHint": false}),
            Self::Records => {
                json!({"destructiveHint": false, "idempotentHint": true, "openWorldHint": false})
            }
            Self::Sends => json!({"readOnlyHint": false, "destructiveHint": false}),
            Self::Takes => json!({"readOnlyHint": false, "destructiveHint": true}),
        }
    }
}

/// One entry. `input` and `output` are the `properties` of the two schemas.
pub(super) fn tool(
    name: &str,
    description: &str,
    effect: Effect,
    (input, required): (&Value, &[&str]),
    (output, always): (&Value, &[&str]),
) -> Value {
    json!({
        "name": name,
        "description": description,
        "annotations": effect.annotations(),
        "inputSchema": object(input, required),
        "outputSchema": object(output, always),
    })
}

fn object(properties: &Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// `{"type": …}`.
pub(super) fn of(kind: &str) -> Value {
    json!({"type": kind})
}

/// A property with a word about it.
pub(super) fn about(kind: &str, description: &str) -> Value {
    json!({"type": kind, "description": description})
}

/// Which of these arguments must be given: one's own id not where a credential proves it.
pub(super) fn required(rules: &Rules, names: &[&'static str]) -> Vec<&'static str> {
    let proved = |name: &str| rules.proved_callers && matches!(name, "client_id" | "sender_id");
    names.iter().copied().filter(|name| !proved(name)).collect()
}

/// The caller's own id.
pub(super) fn own_id() -> Value {
    about("string", "your id")
}

/// One of these words. The type stands beside them because some hosts insist on one.
pub(super) fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

/// A list of objects.
pub(super) fn list() -> Value {
    json!({"type": "array", "items": {"type": "object"}})
}

/// A list of objects with these properties.
pub(super) fn list_of(properties: &Value) -> Value {
    json!({"type": "array", "items": {"type": "object", "properties": properties}})
}
