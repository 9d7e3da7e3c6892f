//! Protocol errors: one table of code, HTTP status and label.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    revision::{Era, Revision},
    task,
};
use crate::{
    dialogue::InputRequired,
    model::Scopes,
    prompts::PromptError,
    queue::Unreadable,
    resources::ResourceError,
    tools::{TaskError, ToolError},
};

/// Why a request was not served. The texts are for the caller; causes never get into them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// The body is not JSON.
    #[error("the body is not valid JSON")]
    Parse,
    /// The body is JSON and no JSON-RPC message.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// Headers and body contradict each other.
    #[error("header mismatch: {0}")]
    HeaderMismatch(Cow<'static, str>),
    /// The revision is not served.
    #[error("protocol version {requested:?} is not supported")]
    UnsupportedVersion {
        /// What was asked for, shortened.
        requested: String,
    },
    /// `params` or its `_meta` is not what the revision asks for.
    #[error("malformed params: {0}")]
    MalformedParams(&'static str),
    /// The method does not exist in the revision.
    #[error("method not found")]
    MethodNotFound,
    /// A parameter of the method is missing or wrong.
    #[error("invalid params: {0}")]
    InvalidParams(&'static str),
    /// An argument of a prompt is missing or wrong.
    #[error("invalid params: {0}")]
    InvalidArgument(String),
    /// No tool of that name.
    #[error("unknown tool {0:?}; tools/list says which there are")]
    UnknownTool(String),
    /// No prompt of that name.
    #[error("unknown prompt {0:?}; prompts/list says which there are")]
    UnknownPrompt(String),
    /// No resource of that URI.
    #[error("{why}")]
    UnknownResource {
        /// What was asked for.
        uri: String,
        /// Why there is none.
        why: ResourceError,
    },
    /// As many calls wait as may.
    #[error("{}", ResourceError::Busy)]
    Busy,
    /// The caller listens to as many inboxes as it may.
    #[error("{}", ResourceError::CallerBusy)]
    CallerBusy,
    /// The client did not declare a capability that the request needs.
    #[error("the client must declare the capability {0:?}")]
    MissingCapability(&'static str),
    /// The caller's credential does not allow it.
    #[error("your credential lacks the scope {0}: ask for one that has it")]
    InsufficientScope(Scopes),
    /// The client did not declare an extension that the request needs.
    #[error("the client must declare the extension {0:?}")]
    MissingExtension(&'static str),
    /// No task of that id, or no longer.
    #[error("{}", TaskError::Unknown)]
    UnknownTask,
    /// What was asked for is there and cannot be read.
    #[error("{}", ResourceError::Unreadable(*.0))]
    Unreadable(Unreadable),
    /// The store does not answer.
    #[error("{}", ToolError::Unavailable)]
    Unavailable,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// One row of the table.
struct Row {
    code: i32,
    legacy_status: u16,
    modern_status: u16,
    label: &'static str,
}

const fn row(code: i32, legacy_status: u16, modern_status: u16, label: &'static str) -> Row {
    Row { code, legacy_status, modern_status, label }
}

impl McpError {
    /// The table. Rows whose two statuses are the same are decided before the era is known, or are
    /// answers that clients read only from a success.
    fn row(&self) -> Row {
        match self {
            Self::Parse => row(-32700, 400, 400, "parse"),
            Self::InvalidRequest(_) => row(-32600, 400, 400, "invalid_request"),
            Self::HeaderMismatch(_) => row(-32020, 400, 400, "header_mismatch"),
            Self::UnsupportedVersion { .. } => row(-32022, 400, 400, "unsupported_version"),
            Self::MalformedParams(_) => row(-32602, 400, 400, "malformed_params"),
            Self::MethodNotFound => row(-32601, 200, 404, "method_not_found"),
            Self::InvalidParams(_) => row(-32602, 200, 200, "invalid_params"),
            Self::InvalidArgument(_) => row(-32602, 200, 200, "invalid_argument"),
            Self::UnknownTool(_) => row(-32602, 200, 200, "unknown_tool"),
            Self::UnknownPrompt(_) => row(-32602, 200, 200, "unknown_prompt"),
            Self::UnknownResource { .. } => row(-32602, 200, 200, "unknown_resource"),
            Self::Busy => row(-32603, 200, 503, "busy"),
            Self::CallerBusy => row(-32603, 200, 429, "caller_busy"),
            Self::MissingCapability(_) | Self::MissingExtension(_) => {
                row(-32021, 200, 400, "missing_capability")
            }
            Self::UnknownTask => row(-32602, 200, 200, "unknown_task"),
            Self::InsufficientScope(_) => row(-32600, 403, 403, "insufficient_scope"),
            Self::Unreadable(_) => row(-32603, 200, 500, "unreadable"),
            Self::Unavailable => row(-32603, 200, 503, "unavailable"),
            Self::Internal => row(-32603, 200, 500, "internal"),
        }
    }

    /// The JSON-RPC code.
    #[must_use]
    pub fn code(&self, era: Era) -> i32 {
        match (self, era) {
            // The one code that differs: 2026-07-28 took it away.
            (Self::UnknownResource { .. }, Era::Legacy) => -32002,
            (_, Era::Legacy | Era::Modern) => self.row().code,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self, era: Era) -> u16 {
        match era {
            Era::Legacy => self.row().legacy_status,
            Era::Modern => self.row().modern_status,
        }
    }

    /// The scopes that the caller's credential lacks, all at once, for who asks for another one (RFC 6750).
    #[must_use]
    pub fn lacking(&self) -> Option<Scopes> {
        if let Self::InsufficientScope(scopes) = self { Some(*scopes) } else { None }
    }

    /// Label for metrics and logs: a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.row().label
    }

    /// What the error says for programs.
    #[must_use]
    pub fn data(&self) -> Option<Value> {
        match self {
            Self::UnsupportedVersion { requested } => Some(json!({
                "supported": Revision::ALL.map(Revision::as_str),
                "requested": requested,
            })),
            Self::UnknownResource { uri, why: _ } => Some(json!({ "uri": uri })),
            Self::MissingCapability(name) => Some(json!({ "requiredCapabilities": { *name: {} } })),
            Self::MissingExtension(name) => {
                Some(json!({ "requiredCapabilities": { "extensions": { *name: {} } } }))
            }
            Self::Parse
            | Self::InvalidRequest(_)
            | Self::HeaderMismatch(_)
            | Self::MalformedParams(_)
            | Self::MethodNotFound
            | Self::InvalidParams(_)
            | Self::InvalidArgument(_)
            | Self::UnknownTool(_)
            | Self::UnknownPrompt(_)
            | Self::UnknownTask
            | Self::Busy
            | Self::CallerBusy
            | Self::InsufficientScope(_)
            | Self::Unreadable(_)
            | Self::Unavailable
            | Self::Internal => None,
        }
    }

    /// That no tool is called `name`.
    pub(super) fn unknown_tool(name: &str) -> Self {
        Self::UnknownTool(shortened(name))
    }

    /// That no prompt is called `name`.
    pub(super) fn unknown_prompt(name: &str) -> Self {
        Self::UnknownPrompt(shortened(name))
    }

    /// That `requested` is not served.
    pub(super) fn unsupported(requested: &str) -> Self {
        Self::UnsupportedVersion { requested: shortened(requested) }
    }

    /// What a resource's error is on the wire.
    pub(super) fn from_resource(error: ResourceError, uri: &str) -> Self {
        match error {
            ResourceError::NotFound
            | ResourceError::NoIdentity
            | ResourceError::ManyIdentities
            | ResourceError::Foreign => Self::UnknownResource { uri: uri.to_owned(), why: error },
            ResourceError::Busy => Self::Busy,
            ResourceError::Unreadable(why) => Self::Unreadable(why),
            ResourceError::CallerBusy => Self::CallerBusy,
            ResourceError::Unavailable => Self::Unavailable,
            ResourceError::Internal => Self::Internal,
        }
    }
}

impl From<TaskError> for McpError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Unknown => Self::UnknownTask,
            TaskError::Busy => Self::Busy,
            TaskError::Unavailable => Self::Unavailable,
            TaskError::Internal => Self::Internal,
        }
    }
}

/// Why a request has no result yet.
#[derive(Debug)]
pub(super) enum Stop {
    Error(McpError),
    /// It is to be sent again with these inputs.
    Input(Box<InputRequired>),
}

impl From<McpError> for Stop {
    fn from(error: McpError) -> Self {
        Self::Error(error)
    }
}

impl Stop {
    /// What a tool's error is on the wire.
    pub(super) fn of_tool(error: ToolError, name: &str) -> Self {
        Self::Error(match error {
            ToolError::InputRequired(input) => return Self::Input(input),
            ToolError::MissingCapability(capability) => McpError::MissingCapability(capability),
            ToolError::NeedsTask => McpError::MissingExtension(task::EXTENSION),
            ToolError::Invalid(why) => McpError::InvalidParams(why),
            ToolError::Unknown => McpError::unknown_tool(name),
            ToolError::Unavailable => McpError::Unavailable,
            ToolError::Internal => McpError::Internal,
        })
    }

    /// What a prompt's error is on the wire.
    pub(super) fn of_prompt(error: PromptError) -> Self {
        Self::Error(match error {
            PromptError::InputRequired(input) => return Self::Input(input),
            PromptError::Argument(why) => McpError::InvalidArgument(why),
            PromptError::Unavailable => McpError::Unavailable,
            PromptError::Internal => McpError::Internal,
        })
    }
}

/// What a client sent, short enough to be sent back.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table once more, by hand: code, status of a legacy answer, of a modern one, label.
    #[test]
    fn the_wire_table_is_what_the_specification_says() {
        let requested = String::from("1999-01-01");
        let unknown_resource = McpError::from_resource(ResourceError::NotFound, "x");
        for (error, code, legacy, modern, label) in [
            (McpError::Parse, -32700, 400, 400, "parse"),
            (McpError::InvalidRequest("x"), -32600, 400, 400, "invalid_request"),
            (McpError::HeaderMismatch("x".into()), -32020, 400, 400, "header_mismatch"),
            (McpError::UnsupportedVersion { requested }, -32022, 400, 400, "unsupported_version"),
            (McpError::MalformedParams("x"), -32602, 400, 400, "malformed_params"),
            (McpError::MethodNotFound, -32601, 200, 404, "method_not_found"),
            (McpError::InvalidParams("x"), -32602, 200, 200, "invalid_params"),
            (McpError::InvalidArgument("x".into()), -32602, 200, 200, "invalid_argument"),
            (McpError::UnknownTool("x".into()), -32602, 200, 200, "unknown_tool"),
            (McpError::UnknownPrompt("x".into()), -32602, 200, 200, "unknown_prompt"),
            (unknown_resource, -32602, 200, 200, "unknown_resource"),
            (McpError::Busy, -32603, 200, 503, "busy"),
            (McpError::CallerBusy, -32603, 200, 429, "caller_busy"),
            (McpError::MissingCapability("x"), -32021, 200, 400, "missing_capability"),
            (
                McpError::InsufficientScope("read".parse().unwrap()),
                -32600,
                403,
                403,
                "insufficient_scope",
            ),
            (McpError::MissingExtension("x"), -32021, 200, 400, "missing_capability"),
            (McpError::UnknownTask, -32602, 200, 200, "unknown_task"),
            (McpError::Unreadable(Unreadable::Plain), -32603, 200, 500, "unreadable"),
            (McpError::Unavailable, -32603, 200, 503, "unavailable"),
            (McpError::Internal, -32603, 200, 500, "internal"),
        ] {
            let statuses = (error.status(Era::Legacy), error.status(Era::Modern));
            let seen = (error.code(Era::Modern), statuses, error.label());
            assert_eq!(seen, (code, (legacy, modern), label), "{error:?}");
            let before = if label == "unknown_resource" { -32002 } else { code };
            assert_eq!(error.code(Era::Legacy), before, "{error:?}");
        }
    }

    #[test]
    fn an_unsupported_version_is_told_what_is_supported() {
        let data = McpError::unsupported("1999-01-01").data().unwrap();
        assert_eq!(data["requested"], "1999-01-01");
        assert_eq!(data["supported"][0], "2026-07-28");
        assert_eq!(data["supported"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn an_endless_name_is_not_sent_back() {
        assert!(McpError::unknown_tool(&"ä".repeat(10_000)).to_string().len() < 300);
    }
}
