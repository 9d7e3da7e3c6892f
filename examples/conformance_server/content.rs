//! Tools that answer with each kind of content.

use std::sync::Arc;

use async_trait::async_trait;
use mcp_messaging::{
    messaging::CallContext,
    tools::{Arguments, Tool, ToolError, ToolOutcome},
};
use serde_json::{Value, json};

/// A red pixel.
pub(crate) const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// Silence.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

/// Answers the same to every call.
struct Fixed {
    name: &'static str,
    description: &'static str,
    schema: fn() -> Value,
    answer: fn() -> ToolOutcome,
}

#[async_trait]
impl Tool for Fixed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "description": self.description, "inputSchema": (self.schema)(),
        })
    }

    async fn call(&self, _: Arguments, _: &CallContext) -> Result<ToolOutcome, ToolError> {
        Ok((self.answer)())
    }
}

/// The schema of a tool without arguments.
pub(crate) fn nothing() -> Value {
    json!({ "type": "object", "additionalProperties": false })
}

/// An answer of text.
pub(crate) fn text(text: impl Into<String>) -> ToolOutcome {
    ToolOutcome { text: text.into(), ..ToolOutcome::default() }
}

fn blocks(content: Vec<Value>) -> ToolOutcome {
    ToolOutcome { content, ..ToolOutcome::default() }
}

fn image() -> Value {
    json!({ "type": "image", "data": PNG, "mimeType": "image/png" })
}

fn embedded(uri: &str, mime: &str, text: &str) -> Value {
    json!({ "type": "resource", "resource": { "uri": uri, "mimeType": mime, "text": text } })
}

/// Everything that JSON Schema 2020-12 has and a careless server would drop.
fn rich_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": {
            "properties": { "contactMethod": { "const": "phone" } },
            "required": ["contactMethod"],
        },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

pub(crate) fn tools() -> Vec<Arc<dyn Tool>> {
    let fixed = |name, description, answer| -> Arc<dyn Tool> {
        Arc::new(Fixed { name, description, schema: nothing, answer })
    };
    vec![
        fixed("test_simple_text", "Answers with text", || {
            text("This is a simple text response for testing.")
        }),
        fixed("test_image_content", "Answers with an image", || blocks(vec![image()])),
        fixed("test_audio_content", "Answers with sound", || {
            blocks(vec![json!({ "type": "audio", "data": WAV, "mimeType": "audio/wav" })])
        }),
        fixed("test_embedded_resource", "Answers with a resource", || {
            blocks(vec![embedded(
                "test://embedded-resource",
                "text/plain",
                "This is an embedded resource content.",
            )])
        }),
        fixed("test_multiple_content_types", "Answers with text, an image and a resource", || {
            ToolOutcome {
                text: "Multiple content types test:".into(),
                content: vec![
                    image(),
                    embedded(
                        "test://mixed-content-resource",
                        "application/json",
                        r#"{"test":"data","value":123}"#,
                    ),
                ],
                ..ToolOutcome::default()
            }
        }),
        fixed("test_error_handling", "Always fails", || ToolOutcome {
            is_error: true,
            ..text("This tool intentionally returns an error for testing")
        }),
        Arc::new(Fixed {
            name: "test_custom_header",
            description: "Has an argument that clients mirror into a header",
            schema: || {
                json!({
                    "type": "object",
                    "properties": { "region": { "type": "string", "x-mcp-header": "Region" } },
                })
            },
            answer: || text("The header is what matters."),
        }),
        Arc::new(Fixed {
            name: "json_schema_2020_12_tool",
            description: "Tool with JSON Schema 2020-12 features",
            schema: rich_schema,
            answer: || text("The schema is what matters."),
        }),
    ]
}
