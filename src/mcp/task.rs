//! The extension `io.modelcontextprotocol/tasks` (SEP-2663, revision 2026-07-28): a call of a tool may be
//! answered by a handle, and `tasks/get` then says what it has come to.
//!
//! "A server MUST NOT return `CreateTaskResult` to a client that did not include the extension capability
//! on its request": so all of it hangs on what the request itself declares, and nothing of it is in any
//! list. The methods `tasks/list` and `tasks/result` of an earlier draft do not exist.
//!
//! Not here: keeping a task. That is the business of who offers [`Tasks`]. Nor `notifications/tasks`, which
//! a server MAY send: a notification has nobody who says that it was received, and a result may carry what
//! counts as received once its response was written. So `subscriptions/listen` honours no task.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    call::{Finished, refused, unwritten},
    error::{McpError, Stop},
    operation::Operation,
    result::{self, Writer},
    revision::Era,
};
use crate::{
    messaging::CallContext,
    model::rfc3339,
    tools::{Task, TaskState, Tasks, ToolError},
};

/// How the extension is called in the capabilities of both sides.
pub(super) const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What is asked of a task.
pub(super) enum Inquiry {
    Get,
    Update(Map<String, Value>),
    Cancel,
}

/// Answers `tasks/get`, `tasks/update` or `tasks/cancel`.
pub(super) async fn run(
    tasks: &dyn Tasks,
    (id, inquiry): (&str, Inquiry),
    context: &CallContext,
    writer: &Writer<'_>,
    operation: Operation,
) -> Finished {
    let done = match inquiry {
        Inquiry::Get => return get(tasks, id, context, writer, operation).await,
        Inquiry::Update(answers) => tasks.update(id, answers, context).await,
        Inquiry::Cancel => tasks.cancel(id, context).await,
    };
    match done {
        // "The server MUST acknowledge the request with an empty result."
        Ok(()) => Finished::plain(200, writer.empty(), operation.finish(200, "")),
        Err(error) => refused(writer.frame, writer.id, Era::Modern, &error.into(), operation),
    }
}

async fn get(
    tasks: &dyn Tasks,
    id: &str,
    context: &CallContext,
    writer: &Writer<'_>,
    operation: Operation,
) -> Finished {
    let got = tasks.get(id, context).await.map_err(McpError::from);
    let written = got.and_then(|mut task| {
        let delivery = match &mut task.state {
            TaskState::Completed(outcome) => outcome.delivery.take(),
            TaskState::Working
            | TaskState::InputRequired(_)
            | TaskState::Failed(_)
            | TaskState::Cancelled => None,
        };
        Ok((detailed(writer, &task)?, delivery))
    });
    match written {
        Ok((body, delivery)) => {
            let operation = Some(operation.finish(200, ""));
            Finished { status: 200, body, delivery, operation }
        }
        Err(error) => refused(writer.frame, writer.id, Era::Modern, &error, operation),
    }
}

/// `CreateTaskResult`, the answer to the call itself. It has none of what a task comes to: "the seed state".
pub(super) fn created(writer: &Writer<'_>, task: &Task) -> Result<Bytes, McpError> {
    writer.task("task", &seed(task), None).map_err(|error| unwritten(&error))
}

/// `GetTaskResult`: "the `resultType` field MUST be set to `complete` on this object".
fn detailed(writer: &Writer<'_>, task: &Task) -> Result<Bytes, McpError> {
    let (mut members, mut outcome) = (seed(task), None);
    match &task.state {
        TaskState::Working | TaskState::Cancelled => {}
        TaskState::InputRequired(requests) => members["inputRequests"] = json!(requests),
        TaskState::Completed(completed) => outcome = Some(&**completed),
        TaskState::Failed(error) => {
            let error = failure(error);
            members["statusMessage"] = json!(error.to_string());
            members["error"] = result::error_object(&error, Era::Modern);
        }
    }
    writer.task("complete", &members, outcome).map_err(|error| unwritten(&error))
}

/// What a call that failed would have answered.
fn failure(error: &ToolError) -> McpError {
    match Stop::of_tool(error.clone(), "") {
        Stop::Error(error) => error,
        Stop::Input(_) => {
            tracing::error!("a task requires input by an error; its state says so");
            McpError::Internal
        }
    }
}

/// What every shape of a task has.
fn seed(task: &Task) -> Value {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut members = json!({
        "taskId": task.id,
        "status": status(&task.state),
        "createdAt": rfc3339(task.created_at_ms),
        "lastUpdatedAt": rfc3339(task.updated_at_ms),
        "ttlMs": millis(task.ttl),
        "pollIntervalMs": millis(task.poll),
    });
    if !task.message.is_empty() {
        members["statusMessage"] = json!(task.message);
    }
    members
}

/// "The `failed` status MUST NOT be used for non-JSON-RPC errors": a refusal of the tool is an outcome.
fn status(state: &TaskState) -> &'static str {
    match state {
        TaskState::Working => "working",
        TaskState::InputRequired(_) => "input_required",
        TaskState::Completed(_) => "completed",
        TaskState::Failed(_) => "failed",
        TaskState::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mcp::Frame, tools::ToolOutcome};

    fn task(state: TaskState) -> Task {
        let (ttl, poll) = (std::time::Duration::from_secs(7), std::time::Duration::from_millis(1));
        Task {
            id: "id".into(),
            state,
            message: String::new(),
            created_at_ms: 0,
            updated_at_ms: 1,
            ttl,
            poll,
        }
    }

    fn writer() -> Writer<'static> {
        Writer { frame: Frame::default(), id: "1", era: Era::Modern, info: "\"i\":1" }
    }

    /// The members of a result, without those that every task has.
    fn own(body: &Bytes, kind: &str, status: &str) -> Value {
        let answer: Value = serde_json::from_slice(body).unwrap();
        let mut members = answer["result"].clone();
        let object = members.as_object_mut().unwrap();
        for (key, value) in [
            ("resultType", json!(kind)),
            ("_meta", json!({ "i": 1 })),
            ("taskId", json!("id")),
            ("status", json!(status)),
            ("createdAt", json!("1970-01-01T00:00:00.000Z")),
            ("lastUpdatedAt", json!("1970-01-01T00:00:00.001Z")),
            ("ttlMs", json!(7000)),
            ("pollIntervalMs", json!(1)),
        ] {
            assert_eq!(object.remove(key), Some(value), "{key}");
        }
        members
    }

    #[test]
    fn each_state_has_its_member_and_no_other() {
        let refused = ToolOutcome { text: "no".into(), is_error: true, ..ToolOutcome::default() };
        let result = json!({
            "resultType": "complete", "content": [{ "type": "text", "text": "no" }], "isError": true,
        });
        let unavailable = ToolError::Unavailable;
        let failed = json!({
            "statusMessage": unavailable.to_string(),
            "error": { "code": -32603, "message": unavailable.to_string() },
        });
        let input = Map::from_iter([("k".to_owned(), json!({ "method": "roots/list" }))]);
        let required = json!({ "inputRequests": { "k": { "method": "roots/list" } } });
        for (state, status, expected) in [
            (TaskState::Working, "working", json!({})),
            (TaskState::Cancelled, "cancelled", json!({})),
            (TaskState::InputRequired(input), "input_required", required),
            // A refusal of the tool is no failure of the task.
            (TaskState::Completed(Box::new(refused)), "completed", json!({ "result": result })),
            (TaskState::Failed(unavailable), "failed", failed),
        ] {
            let task = task(state);
            let seed = created(&writer(), &task).unwrap();
            assert_eq!(own(&seed, "task", status), json!({}), "a handle has none");
            assert_eq!(own(&detailed(&writer(), &task).unwrap(), "complete", status), expected);
        }
    }
}
