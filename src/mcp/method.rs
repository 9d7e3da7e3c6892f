//! The methods that the module knows, and in which era.

use super::revision::Era;

/// A method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Initialize,
    Ping,
    Discover,
    ToolsList,
    ToolsCall,
    ResourcesList,
    TemplatesList,
    ResourcesRead,
    PromptsList,
    PromptsGet,
    Complete,
    SetLevel,
    Subscribe,
    Unsubscribe,
    Listen,
    TasksGet,
    TasksUpdate,
    TasksCancel,
    /// Known in no revision.
    Unknown,
}

/// Which parameter `Mcp-Name` must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Name,
    Uri,
    Task,
}

impl Method {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "tools/call" => Self::ToolsCall,
            "tools/list" => Self::ToolsList,
            "resources/list" => Self::ResourcesList,
            "resources/templates/list" => Self::TemplatesList,
            "resources/read" => Self::ResourcesRead,
            "prompts/list" => Self::PromptsList,
            "prompts/get" => Self::PromptsGet,
            "completion/complete" => Self::Complete,
            "logging/setLevel" => Self::SetLevel,
            "resources/subscribe" => Self::Subscribe,
            "resources/unsubscribe" => Self::Unsubscribe,
            "subscriptions/listen" => Self::Listen,
            "tasks/get" => Self::TasksGet,
            "tasks/update" => Self::TasksUpdate,
            "tasks/cancel" => Self::TasksCancel,
            "server/discover" => Self::Discover,
            "initialize" => Self::Initialize,
            "ping" => Self::Ping,
            _ => Self::Unknown,
        }
    }

    /// Label for metrics and logs: a closed set.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::Discover => "server/discover",
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
            Self::ResourcesList => "resources/list",
            Self::TemplatesList => "resources/templates/list",
            Self::ResourcesRead => "resources/read",
            Self::PromptsList => "prompts/list",
            Self::PromptsGet => "prompts/get",
            Self::Complete => "completion/complete",
            Self::SetLevel => "logging/setLevel",
            Self::Subscribe => "resources/subscribe",
            Self::Unsubscribe => "resources/unsubscribe",
            Self::Listen => "subscriptions/listen",
            Self::TasksGet => "tasks/get",
            Self::TasksUpdate => "tasks/update",
            Self::TasksCancel => "tasks/cancel",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the era has it.
    pub(super) fn is_of(self, era: Era) -> bool {
        match self {
            Self::Initialize
            | Self::Ping
            | Self::SetLevel
            | Self::Subscribe
            | Self::Unsubscribe => era == Era::Legacy,
            Self::Discover
            | Self::Listen
            | Self::TasksGet
            | Self::TasksUpdate
            | Self::TasksCancel => era == Era::Modern,
            Self::ToolsList
            | Self::ToolsCall
            | Self::ResourcesList
            | Self::TemplatesList
            | Self::ResourcesRead
            | Self::PromptsList
            | Self::PromptsGet
            | Self::Complete => true,
            Self::Unknown => false,
        }
    }

    /// What `Mcp-Name` must repeat, if anything.
    pub(super) fn mirrored(self) -> Option<Named> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some(Named::Name),
            Self::ResourcesRead => Some(Named::Uri),
            // SEP-2663, routing headers.
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => Some(Named::Task),
            Self::Initialize
            | Self::Ping
            | Self::Discover
            | Self::ToolsList
            | Self::ResourcesList
            | Self::TemplatesList
            | Self::PromptsList
            | Self::Complete
            | Self::SetLevel
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::Listen
            | Self::Unknown => None,
        }
    }
}
