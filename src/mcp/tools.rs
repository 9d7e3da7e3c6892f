//! `tools/list` and the way to `tools/call`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{discover::members, error::McpError, meta::Params};
use crate::tools::{Tool, ToolRegistry};

/// The tools, with their list rendered.
pub(super) struct Tools {
    registry: ToolRegistry,
    list: String,
}

impl Tools {
    pub(super) fn new(registry: ToolRegistry) -> Self {
        let listed = registry.all().iter().filter(|tool| tool.listed());
        let tools: Vec<Value> = listed.map(|tool| tool.definition()).collect();
        let list = members(&json!({ "tools": tools }));
        Self { registry, list }
    }

    /// The members of a `tools/list` result. There is one page, the same in every era.
    pub(super) fn list(&self, params: &Params<'_>) -> Result<&str, McpError> {
        if params.has_cursor() {
            return Err(McpError::InvalidParams("unknown cursor; the list has one page"));
        }
        Ok(&self.list)
    }

    /// The tool of that name.
    pub(super) fn find(&self, name: &str) -> Result<&Arc<dyn Tool>, McpError> {
        self.registry.get(name).ok_or_else(|| McpError::unknown_tool(name))
    }
}
