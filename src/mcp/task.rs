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
    meta::Params,
    method::Method,
    operation::Operation,
    result::{self, Writer},
    revision::Era,
};
use crate::{
    messaging::CallContext,
    tools::{Task, TaskState, Tasks, ToolError, rfc3339},
};

/// How the extension is called in the capabilities of both sides.
pub(super) const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What is asked of a task.
pub(super) enum Inquiry {
    Get,
    Update(Map<String, Value>),
    Cancel,
}

impl Inquiry {
    /// What a request of one of the three methods asks.
    pub(super) fn of(method: Method, params: &Params<'_>) -> Result<Self, McpError> {
        Ok(match method {
            Method::TasksUpdate => Self::Update(params.task_answers()?),
            Method::TasksCancel => Self::Cancel,
            _ => Self::Get,
        })
    }
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
