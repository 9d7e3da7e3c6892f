//! Tools whose calls are answered later (the tasks extension), and where those tasks are kept.
//!
//! Nothing runs in the background: what a task has come to follows from when it began, from what its client
//! answered, and from whether it was given up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::InputRequired,
    messaging::CallContext,
    model::{Clock, SystemClock},
    tools::{Arguments, Task, TaskError, TaskState, Tasks, Tool, ToolError, ToolOutcome},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    content::{nothing, text},
    rounds::{accepted, question},
    talking::Outcome,
};

const TTL: Duration = Duration::from_mins(10);
const POLL: Duration = Duration::from_millis(200);

/// The tasks of this process.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<HashMap<String, Job>>);

/// One task.
#[derive(Clone)]
struct Job {
    began: Instant,
    created_at_ms: u64,
    /// How long its work takes.
    takes: Duration,
    /// What is asked of its client, as long as it is not answered. Its work begins after that.
    open: Map<String, Value>,
    cancelled: bool,
    end: End,
}

/// What a task comes to.
#[derive(Clone)]
enum End {
    Says(String),
    Refuses,
    Fails,
}

impl End {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Says(said) => Ok(text(said.clone())),
            Self::Refuses => Ok(ToolOutcome { is_error: true, ..text("The job failed.") }),
            Self::Fails => Err(ToolError::Internal),
        }
    }
}

impl Job {
    fn new(takes: Duration, open: InputRequired, end: End) -> Self {
        Self {
            began: Instant::now(),
            created_at_ms: SystemClock.now_us() / 1000,
            takes,
            open: open.requests,
            cancelled: false,
            end,
        }
    }

    fn is_over(&self) -> bool {
        self.open.is_empty() && self.began.elapsed() >= self.takes
    }

    fn task(&self, id: &str) -> Task {
        let state = if self.cancelled {
            TaskState::Cancelled
        } else if !self.open.is_empty() {
            TaskState::InputRequired(self.open.clone())
        } else if !self.is_over() {
            TaskState::Working
        } else {
            match self.end.outcome() {
                Ok(outcome) => TaskState::Completed(Box::new(outcome)),
                Err(error) => TaskState::Failed(error),
            }
        };
        Task {
            id: id.to_owned(),
            state,
            message: String::new(),
            created_at_ms: self.created_at_ms,
            updated_at_ms: self.created_at_ms,
            ttl: TTL,
            poll: POLL,
        }
    }
}

impl Jobs {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a job: the answer to its call is its handle.
    fn begin(&self, job: Job) -> ToolOutcome {
        let id = Uuid::new_v4().to_string();
        let mut task = job.task(&id);
        // The handle comes first; what is asked is for `tasks/get`.
        task.state = TaskState::Working;
        let mut all = self.all();
        all.retain(|_, job| job.began.elapsed() < TTL);
        all.insert(id, job);
        ToolOutcome { task: Some(Box::new(task)), ..ToolOutcome::default() }
    }

    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Job) -> T) -> Result<T, TaskError> {
        let mut all = self.all();
        let job = all.get_mut(id).filter(|job| job.began.elapsed() < TTL);
        job.map(work).ok_or(TaskError::Unknown)
    }
}

#[async_trait]
impl Tasks for Jobs {
    async fn get(&self, id: &str, _: &CallContext) -> Result<Task, TaskError> {
        self.with(id, |job| job.task(id))
    }

    async fn update(
        &self,
        id: &str,
        answers: Map<String, Value>,
        _: &CallContext,
    ) -> Result<(), TaskError> {
        self.with(id, |job| job.open.retain(|key, _| !answers.contains_key(key)))
    }

    async fn cancel(&self, id: &str, _: &CallContext) -> Result<(), TaskError> {
        self.with(id, |job| job.cancelled |= !job.is_over())
    }
}

/// A tool whose call is a job.
struct Worker {
    jobs: Arc<Jobs>,
    name: &'static str,
    description: &'static str,
    /// Only as a task.
    always: bool,
    schema: fn() -> Value,
    job: fn(&Arguments) -> Job,
}

#[async_trait]
impl Tool for Worker {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "description": self.description, "inputSchema": (self.schema)(),
        })
    }

    async fn call(&self, arguments: Arguments, context: &CallContext) -> Outcome {
        let job = (self.job)(&arguments);
        if context.takes_tasks {
            return Ok(self.jobs.begin(job));
        }
        if self.always || !job.open.is_empty() {
            return Err(ToolError::NeedsTask);
        }
        tokio::time::sleep(job.takes).await;
        job.end.outcome()
    }
}

struct Greet;

#[async_trait]
impl Tool for Greet {
    fn name(&self) -> &'static str {
        "greet"
    }

    fn definition(&self) -> Value {
        let properties = json!({ "name": { "type": "string" } });
        json!({
            "name": "greet", "description": "Greets at once",
            "inputSchema": { "type": "object", "properties": properties },
        })
    }

    async fn call(&self, arguments: Arguments, _: &CallContext) -> Outcome {
        let name = arguments.get("name").and_then(Value::as_str).unwrap_or("you");
        Ok(text(format!("Hello, {name}!")))
    }
}

/// Asks in a round of its own before its task begins.
struct Named(Arc<Jobs>);

#[async_trait]
impl Tool for Named {
    fn name(&self) -> &'static str {
        "test_tool_with_task"
    }

    fn definition(&self) -> Value {
        json!({
            "name": "test_tool_with_task", "description": "Asks for a name, then works",
            "inputSchema": nothing(),
        })
    }

    fn converses(&self) -> bool {
        true
    }

    async fn call(&self, _: Arguments, context: &CallContext) -> Outcome {
        if !context.takes_tasks {
            return Err(ToolError::NeedsTask);
        }
        let client = context.exchange.as_deref().ok_or(ToolError::Internal)?;
        if let Some(Value::String(name)) = accepted(client, "user_name", "name", Value::is_string) {
            return Ok(self.0.begin(of_a_second(says(format!("Hello, {name}!")))));
        }
        let input = InputRequired::default();
        let input = question(input, "user_name", "What is your name?", "name", "string");
        Err(ToolError::InputRequired(Box::new(input)))
    }
}

fn seconds() -> Value {
    let properties = json!({ "seconds": { "type": "number" }, "label": { "type": "string" } });
    json!({ "type": "object", "properties": properties })
}

fn file() -> Value {
    json!({ "type": "object", "properties": { "filename": { "type": "string" } } })
}

fn says(said: impl Into<String>) -> End {
    End::Says(said.into())
}

fn slow(arguments: &Arguments) -> Job {
    let seconds = arguments.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let takes = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Job::new(takes, InputRequired::default(), says(format!("Computed for {seconds} s.")))
}

fn confirm(arguments: &Arguments) -> Job {
    let file = arguments.get("filename").and_then(Value::as_str).unwrap_or("the file");
    let ask = format!("Delete {file}?");
    let input = question(InputRequired::default(), "confirm", &ask, "confirm", "boolean");
    Job::new(Duration::ZERO, input, says(format!("{file} was dealt with.")))
}

fn of_a_second(end: End) -> Job {
    Job::new(Duration::from_secs(1), InputRequired::default(), end)
}

fn two_questions(_: &Arguments) -> Job {
    let input = question(InputRequired::default(), "first", "First name?", "name", "string");
    let input = question(input, "second", "Second name?", "name", "string");
    Job::new(Duration::ZERO, input, says("Both were answered."))
}

pub(crate) fn tools(jobs: &Arc<Jobs>) -> Vec<Arc<dyn Tool>> {
    let worker = |name, description, always, schema, job| -> Arc<dyn Tool> {
        Arc::new(Worker { jobs: Arc::clone(jobs), name, description, always, schema, job })
    };
    vec![
        Arc::new(Greet),
        worker("slow_compute", "Takes as long as it is told", false, seconds, slow),
        worker("failing_job", "Is refused after a second", true, nothing, |_| {
            of_a_second(End::Refuses)
        }),
        worker("protocol_error_job", "Fails after a second", true, nothing, |_| {
            of_a_second(End::Fails)
        }),
        worker("confirm_delete", "Asks before it works", false, file, confirm),
        worker("multi_input", "Asks two things at once", false, nothing, two_questions),
        Arc::new(Named(Arc::clone(jobs))),
    ]
}
