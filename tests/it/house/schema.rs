//! What the server sends, held against the official schema of its revision.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::Reply;

type Key = (&'static str, String);

/// The tasks extension of the latest revision.
const TASKS: &str = "2026-07-28-tasks";

const SCHEMAS: [(&str, &str); 4] = [
    ("2025-03-26", include_str!("../schemas/2025-03-26.json")),
    ("2025-06-18", include_str!("../schemas/2025-06-18.json")),
    ("2025-11-25", include_str!("../schemas/2025-11-25.json")),
    ("2026-07-28", include_str!("../schemas/2026-07-28.json")),
];

static DOCUMENTS: LazyLock<HashMap<&str, Value>> = LazyLock::new(|| {
    let read = |(revision, text)| (revision, serde_json::from_str(text).unwrap());
    let tasks = (TASKS, include_str!("../schemas/2026-07-28-tasks.json"));
    SCHEMAS.into_iter().chain([tasks]).map(read).collect()
});

static VALIDATORS: LazyLock<Mutex<HashMap<Key, Arc<Validator>>>> = LazyLock::new(Mutex::default);

fn definitions(revision: &str) -> (&'static str, &'static Value) {
    let document = &DOCUMENTS[revision];
    let key = if document.get("$defs").is_some() { "$defs" } else { "definitions" };
    (key, &document[key])
}

fn has(revision: &str, definition: &str) -> bool {
    definitions(revision).1.get(definition).is_some()
}

fn validator(revision: &'static str, definition: &str) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap();
    let made = validators.entry((revision, definition.to_owned())).or_insert_with(|| {
        let (key, all) = definitions(revision);
        let schema = json!({
            "$schema": DOCUMENTS[revision]["$schema"],
            "allOf": [{ "$ref": format!("#/{key}/{definition}") }],
            key: all,
        });
        Arc::new(jsonschema::validator_for(&schema).unwrap())
    });
    Arc::clone(made)
}

#[track_caller]
fn fits(revision: &'static str, definition: &str, value: &Value) {
    let validator = validator(revision, definition);
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "no {definition} of {revision}: {wrong:#?} in {value}");
}

/// The definition of the message with this method, by the constant that it has.
fn of_method(revision: &str, method: &str) -> Option<&'static str> {
    let all = definitions(revision).1.as_object().unwrap();
    let found = all.iter().find(|(_, one)| one["properties"]["method"]["const"] == *method);
    found.map(|(name, _)| name.as_str())
}

fn result_of(method: &str) -> &'static str {
    match method {
        "initialize" => "InitializeResult",
        "server/discover" => "DiscoverResult",
        "tools/list" => "ListToolsResult",
        "tools/call" => "CallToolResult",
        "resources/list" => "ListResourcesResult",
        "resources/templates/list" => "ListResourceTemplatesResult",
        "resources/read" => "ReadResourceResult",
        "prompts/list" => "ListPromptsResult",
        "prompts/get" => "GetPromptResult",
        "completion/complete" => "CompleteResult",
        "subscriptions/listen" => "SubscriptionsListenResult",
        _ => "EmptyResult",
    }
}

/// One message of the server, which speaks `revision` with whoever sent a request of `method`.
#[track_caller]
pub(crate) fn message(revision: &'static str, method: &str, message: &Value) {
    if let Some(own) = message["method"].as_str() {
        let definition = of_method(revision, own);
        return fits(revision, definition.unwrap_or_else(|| panic!("no {own}")), message);
    }
    if let Some(result) = message.get("result") {
        match (method, result["resultType"].as_str()) {
            ("tools/call", Some("task")) => fits(TASKS, "CreateTaskResult", result),
            ("tasks/get", _) => {
                fits(TASKS, "GetTaskResult", result);
                if let Some(outcome) = result.get("result") {
                    fits(revision, "CallToolResult", outcome);
                }
            }
            ("tasks/update", _) => fits(TASKS, "UpdateTaskResult", result),
            ("tasks/cancel", _) => fits(TASKS, "CancelTaskResult", result),
            (_, Some("input_required")) => fits(revision, "InputRequiredResult", result),
            _ => fits(revision, result_of(method), result),
        }
        let response = ["JSONRPCResultResponse", "JSONRPCResponse"];
        let response = response.into_iter().find(|name| has(revision, name)).unwrap();
        return fits(revision, response, message);
    }
    // Errors of what could not be read have no id: the schema says so since 2025-11-25.
    let error = ["JSONRPCErrorResponse", "JSONRPCError"];
    let named = error.into_iter().find(|name| has(revision, name)).unwrap();
    if message.get("id").is_some() || named == error[0] {
        fits(revision, named, message);
    }
}

/// The whole answer to a request.
#[track_caller]
pub(crate) fn reply(headers: &str, body: &str, reply: &Reply) {
    let Ok(request) = serde_json::from_str::<Value>(body) else { return };
    let Some(method) = request["method"].as_str() else { return };
    let agreed = (method == "initialize")
        .then(|| reply.json()["result"]["protocolVersion"].as_str().map(known))
        .flatten();
    let revision = agreed.unwrap_or_else(|| named_by(headers));
    if reply.header("content-type") == Some("text/event-stream") {
        for event in reply.events() {
            message(revision, method, &event);
        }
    } else if !reply.body.is_empty() {
        message(revision, method, &reply.json());
    }
}

/// The revision that the headers of a request name. None: the last that has an `initialize`.
fn named_by(headers: &str) -> &'static str {
    let named = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("mcp-protocol-version").then(|| value.trim())
    });
    known(named.unwrap_or_default())
}

/// The revision whose schema stands for one: for the oldest, the first that there is, and for an unknown
/// one, the last that has an `initialize`.
fn known(revision: &str) -> &'static str {
    if revision == "2024-11-05" {
        return "2025-03-26";
    }
    let known = SCHEMAS.into_iter().map(|(known, _)| known).find(|known| *known == revision);
    known.unwrap_or("2025-11-25")
}

#[test]
fn a_message_that_the_schema_does_not_have_is_found() {
    let bad = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [{ "type": "text" }] } });
    for (revision, _) in SCHEMAS {
        let found = std::panic::catch_unwind(|| message(revision, "tools/call", &bad));
        assert!(found.is_err(), "{revision}");
    }
    let bare = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [] } });
    message("2025-11-25", "tools/list", &bare);
    let found = std::panic::catch_unwind(|| message("2026-07-28", "tools/list", &bare));
    assert!(found.is_err(), "2026-07-28 wants resultType and how long it stays true");
}
