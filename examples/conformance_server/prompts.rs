//! Prompts: plain, with arguments that complete, with other content, and one that asks its user first.

use std::sync::Arc;

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::{Completion, InputRequired},
    messaging::CallContext,
    prompts::{Prompt, PromptArguments, PromptError, PromptOutcome, PromptRegistry},
};
use serde_json::{Value, json};

use crate::{
    content::PNG,
    rounds::{accepted, question},
};

/// What a prompt says, with its arguments filled in.
struct Template {
    name: &'static str,
    /// All of them are required.
    arguments: &'static [&'static str],
    messages: fn(&[&str]) -> Vec<Value>,
}

fn user(content: &Value) -> Value {
    json!({ "role": "user", "content": content })
}

fn text(text: impl Into<String>) -> Value {
    user(&json!({ "type": "text", "text": text.into() }))
}

#[async_trait]
impl Prompt for Template {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Value {
        let argument = |name| json!({ "name": name, "description": name, "required": true });
        let arguments: Vec<Value> = self.arguments.iter().map(argument).collect();
        json!({ "name": self.name, "description": "A fixture", "arguments": arguments })
    }

    fn completes(&self) -> bool {
        !self.arguments.is_empty()
    }

    async fn complete(&self, _: &str, value: &str, _: &CallContext) -> Completion {
        let values = ["paris", "park", "party", "test"];
        let values = values.into_iter().filter(|known| known.starts_with(value));
        let values: Vec<String> = values.map(str::to_owned).collect();
        Completion { total: Some(values.len()), values, has_more: false }
    }

    async fn get(
        &self,
        arguments: PromptArguments,
        _: &CallContext,
    ) -> Result<PromptOutcome, PromptError> {
        let mut values = Vec::with_capacity(self.arguments.len());
        for name in self.arguments {
            let value = arguments.get(*name).and_then(Value::as_str);
            values.push(value.ok_or_else(|| PromptError::Argument(format!("{name} is missing")))?);
        }
        Ok(PromptOutcome { description: "A fixture".into(), messages: (self.messages)(&values) })
    }
}

/// Asks its user for a context first.
struct Asks;

#[async_trait]
impl Prompt for Asks {
    fn name(&self) -> &'static str {
        "test_input_required_result_prompt"
    }

    fn definition(&self) -> Value {
        json!({ "name": self.name(), "description": "Asks its user first" })
    }

    fn converses(&self) -> bool {
        true
    }

    async fn get(
        &self,
        _: PromptArguments,
        context: &CallContext,
    ) -> Result<PromptOutcome, PromptError> {
        let client = context.exchange.as_deref().ok_or(PromptError::Internal)?;
        match accepted(client, "user_context", "context", Value::is_string) {
            Some(given) => Ok(PromptOutcome {
                description: "A fixture".into(),
                messages: vec![text(format!("Context: {given}"))],
            }),
            None => Err(PromptError::InputRequired(Box::new(question(
                InputRequired::default(),
                "user_context",
                "What context should the prompt use?",
                "context",
                "string",
            )))),
        }
    }
}

pub(crate) fn registry() -> PromptRegistry {
    let template = |name, arguments, messages| -> Arc<dyn Prompt> {
        Arc::new(Template { name, arguments, messages })
    };
    PromptRegistry::new(vec![
        template("test_simple_prompt", &[], |_| vec![text("This is a simple prompt for testing.")]),
        template("test_prompt_with_arguments", &["arg1", "arg2"], |values| {
            let [one, two] = values else { return Vec::new() };
            vec![text(format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]
        }),
        template("test_prompt_with_embedded_resource", &["resourceUri"], |values| {
            let resource = json!({
                "uri": values.first(), "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            vec![
                user(&json!({ "type": "resource", "resource": resource })),
                text("Please process the embedded resource above."),
            ]
        }),
        template("test_prompt_with_image", &[], |_| {
            vec![
                user(&json!({ "type": "image", "data": PNG, "mimeType": "image/png" })),
                text("Please analyze the image above."),
            ]
        }),
        Arc::new(Asks),
    ])
}
