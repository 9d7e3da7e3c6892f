//! Tools that need more than one round: they end with what they require, and are called again with it.

use std::sync::Arc;

use mcp_messaging::{
    dialogue::{Exchange, InputRequired},
    tools::{Tool, ToolError},
};
use serde_json::{Value, json};

use crate::{
    content::text,
    talking::{Outcome, conversation},
    tickets,
};

/// Asks the user for one field.
pub(crate) fn question(
    input: InputRequired,
    key: &str,
    message: &str,
    field: &str,
    kind: &str,
) -> InputRequired {
    let schema = json!({
        "type": "object", "properties": { field: { "type": kind } }, "required": [field],
    });
    let params = json!({ "message": message, "requestedSchema": schema });
    input.and(key, "elicitation/create", &params)
}

fn sampling(input: InputRequired, key: &str, prompt: &str) -> InputRequired {
    let content = json!({ "type": "text", "text": prompt });
    let messages = json!([{ "role": "user", "content": content }]);
    input.and(key, "sampling/createMessage", &json!({ "messages": messages, "maxTokens": 50 }))
}

fn roots(input: InputRequired, key: &str) -> InputRequired {
    input.and(key, "roots/list", &json!({}))
}

fn required(input: InputRequired) -> Outcome {
    Err(ToolError::InputRequired(Box::new(input)))
}

/// What the user filled in, if it was accepted and is of that kind.
pub(crate) fn accepted<'a>(
    client: &'a dyn Exchange,
    key: &str,
    field: &str,
    is_fine: fn(&Value) -> bool,
) -> Option<&'a Value> {
    let answer = client.input(key).filter(|answer| answer["action"] == "accept")?;
    answer["content"].get(field).filter(|value| is_fine(value))
}

/// The state of an earlier round. `None`: this is the first round.
fn state(client: &dyn Exchange) -> Result<Option<String>, ToolError> {
    let Some(ticket) = client.state() else { return Ok(None) };
    tickets::state_of(ticket).map(Some).ok_or(ToolError::Invalid("requestState was changed"))
}

fn asks_for_a_name(client: &dyn Exchange) -> Outcome {
    match accepted(client, "user_name", "name", Value::is_string) {
        Some(name) => Ok(text(format!("Hello, {}!", name.as_str().unwrap_or_default()))),
        None => required(question(
            InputRequired::default(),
            "user_name",
            "What is your name?",
            "name",
            "string",
        )),
    }
}

/// Asks for a confirmation and recognizes its own state.
fn confirms(client: &dyn Exchange) -> Outcome {
    let confirmed = accepted(client, "confirm", "ok", Value::is_boolean).is_some();
    if state(client)?.is_some() && confirmed {
        return Ok(text("state-ok"));
    }
    let input = question(InputRequired::default(), "confirm", "Please confirm", "ok", "boolean");
    required(input.with_state(tickets::keep("confirming")))
}

fn asks_everything(client: &dyn Exchange) -> Outcome {
    let keys = ["user_name", "greeting", "client_roots"];
    if keys.into_iter().all(|key| client.input(key).is_some()) && state(client)?.is_some() {
        return Ok(text("Everything was answered."));
    }
    let input = InputRequired::default();
    let input = question(input, "user_name", "What is your name?", "name", "string");
    let input = roots(sampling(input, "greeting", "Generate a greeting"), "client_roots");
    required(input.with_state(tickets::keep("everything")))
}

/// Two rounds, each of which keeps what is known so far.
fn asks_twice(client: &dyn Exchange) -> Outcome {
    let known = state(client)?;
    if let Some(known) = &known
        && let Some(name) = known.strip_prefix("name:")
        && let Some(color) = accepted(client, "step2", "color", Value::is_string)
    {
        return Ok(text(format!("{name} likes {color}.")));
    }
    match accepted(client, "step1", "name", Value::is_string).and_then(Value::as_str) {
        Some(name) if known.is_some() => {
            let message = "Step 2: What is your favorite color?";
            let input = question(InputRequired::default(), "step2", message, "color", "string");
            required(input.with_state(tickets::keep(&format!("name:{name}"))))
        }
        Some(_) | None => {
            let message = "Step 1: What is your name?";
            let input = question(InputRequired::default(), "step1", message, "name", "string");
            required(input.with_state(tickets::keep("begun")))
        }
    }
}

/// Asks only for what the client can do.
fn asks_what_it_may(client: &dyn Exchange) -> Outcome {
    let mut input = InputRequired::default();
    if client.client_can("elicitation") && client.input("user_name").is_none() {
        input = question(input, "user_name", "What is your name?", "name", "string");
    }
    if client.client_can("sampling") && client.input("greeting").is_none() {
        input = sampling(input, "greeting", "Generate a greeting");
    }
    if input.requests.is_empty() { Ok(text("Nothing to ask.")) } else { required(input) }
}

pub(crate) fn tools() -> Vec<Arc<dyn Tool>> {
    vec![
        conversation("test_input_required_result_elicitation", "Asks for a name", |client, _| {
            Box::pin(async move { asks_for_a_name(&*client) })
        }),
        conversation("test_input_required_result_sampling", "Asks the model", |client, _| {
            Box::pin(async move {
                match client.input("capital_question") {
                    Some(answer) => Ok(text(format!("The model said {}", answer["content"]))),
                    None => required(sampling(
                        InputRequired::default(),
                        "capital_question",
                        "What is the capital of France?",
                    )),
                }
            })
        }),
        conversation("test_input_required_result_list_roots", "Asks for roots", |client, _| {
            Box::pin(async move {
                match client.input("client_roots") {
                    Some(answer) => Ok(text(format!("The roots are {}", answer["roots"]))),
                    None => required(roots(InputRequired::default(), "client_roots")),
                }
            })
        }),
        conversation("test_input_required_result_request_state", "Keeps state", |client, _| {
            Box::pin(async move { confirms(&*client) })
        }),
        conversation(
            "test_input_required_result_tampered_state",
            "Refuses a changed state",
            |client, _| Box::pin(async move { confirms(&*client) }),
        ),
        conversation("test_input_required_result_multiple_inputs", "Asks all", |client, _| {
            Box::pin(async move { asks_everything(&*client) })
        }),
        conversation("test_input_required_result_multi_round", "Asks twice", |client, _| {
            Box::pin(async move { asks_twice(&*client) })
        }),
        conversation("test_input_required_result_capabilities", "Asks what it may", |client, _| {
            Box::pin(async move { asks_what_it_may(&*client) })
        }),
    ]
}
