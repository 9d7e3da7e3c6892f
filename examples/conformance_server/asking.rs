//! Tools that ask their client: on the stream of the call for the legacy revisions, and one that may not
//! be called by a client that cannot answer.

use std::sync::Arc;

use mcp_messaging::{
    dialogue::{AskError, Exchange, InputRequired},
    tools::{Tool, ToolError, ToolOutcome},
};
use serde_json::{Value, json};

use crate::{
    content::text,
    rounds::question,
    talking::{Conversation, Outcome, conversation},
};

fn takes(argument: &str) -> Value {
    json!({
        "type": "object", "properties": { argument: { "type": "string" } }, "required": [argument],
    })
}

/// Asks, and tells the model what came of it.
async fn ask(
    client: &dyn Exchange,
    method: &str,
    params: Value,
    said: fn(&Value) -> String,
) -> Outcome {
    Ok(match client.ask(method, params).await {
        Ok(answer) => text(said(&answer)),
        Err(error @ (AskError::NoWay | AskError::Refused { .. })) => {
            ToolOutcome { is_error: true, ..text(error.to_string()) }
        }
    })
}

fn elicited(answer: &Value) -> String {
    format!("User response: action={}, content={}", answer["action"], answer["content"])
}

fn elicitation(message: &str, properties: &Value, required: &[&str]) -> Value {
    json!({
        "message": message,
        "requestedSchema": { "type": "object", "properties": properties, "required": required },
    })
}

/// A field of each kind, with its default.
fn with_defaults() -> Value {
    json!({
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": {
            "type": "string", "enum": ["active", "inactive", "pending"], "default": "active",
        },
        "verified": { "type": "boolean", "default": true },
    })
}

/// A choice of each kind.
fn choices() -> Value {
    let titled = json!([
        { "const": "value1", "title": "First" },
        { "const": "value2", "title": "Second" },
        { "const": "value3", "title": "Third" },
    ]);
    let plain = json!(["option1", "option2", "option3"]);
    json!({
        "untitledSingle": { "type": "string", "enum": plain },
        "titledSingle": { "type": "string", "oneOf": titled },
        "legacyEnum": {
            "type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
        "titledMulti": { "type": "array", "items": { "anyOf": titled } },
    })
}

pub(crate) fn tools() -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(Conversation {
            name: "test_sampling",
            description: "Lets the client's model answer",
            schema: || takes("prompt"),
            run: |client, arguments| {
                Box::pin(async move {
                    let content = json!({ "type": "text", "text": arguments.get("prompt") });
                    let messages = json!([{ "role": "user", "content": content }]);
                    let params = json!({ "messages": messages, "maxTokens": 100 });
                    let said = |answer: &Value| format!("LLM response: {}", answer["content"]);
                    ask(&*client, "sampling/createMessage", params, said).await
                })
            },
        }),
        Arc::new(Conversation {
            name: "test_elicitation",
            description: "Lets the user answer",
            schema: || takes("message"),
            run: |client, arguments| {
                Box::pin(async move {
                    let message = arguments.get("message").and_then(Value::as_str);
                    let fields = json!({
                        "username": { "type": "string" }, "email": { "type": "string" },
                    });
                    let message = message.unwrap_or("Who are you?");
                    let params = elicitation(message, &fields, &["username", "email"]);
                    ask(&*client, "elicitation/create", params, elicited).await
                })
            },
        }),
        conversation("test_elicitation_sep1034_defaults", "Offers defaults", |client, _| {
            Box::pin(async move {
                let params = elicitation("All of these have a default", &with_defaults(), &[]);
                ask(&*client, "elicitation/create", params, elicited).await
            })
        }),
        conversation("test_elicitation_sep1330_enums", "Offers choices", |client, _| {
            Box::pin(async move {
                let params = elicitation("Choose", &choices(), &[]);
                ask(&*client, "elicitation/create", params, elicited).await
            })
        }),
        conversation("test_missing_capability", "Needs a client that samples", |client, _| {
            Box::pin(async move {
                if client.client_can("sampling") {
                    Ok(text("The client can sample."))
                } else {
                    Err(ToolError::MissingCapability("sampling"))
                }
            })
        }),
        conversation("test_streaming_elicitation", "Asks within its stream", |client, _| {
            Box::pin(async move {
                if let Some(answer) = client.input("confirm") {
                    return Ok(text(elicited(answer)));
                }
                client.progress(1.0, None, None).await;
                let input =
                    question(InputRequired::default(), "confirm", "Go on?", "ok", "boolean");
                Err(ToolError::InputRequired(Box::new(input)))
            })
        }),
    ]
}
