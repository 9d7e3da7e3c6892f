//! The methods that are served, and in which era.

use super::revision::Era;

/// A method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Initialize,
    Ping,
    Discover,
    ToolsList,
    ToolsCall,
    /// Served in no revision.
    Unknown,
}

impl Method {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "tools/call" => Self::ToolsCall,
            "tools/list" => Self::ToolsList,
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
            Self::Unknown => "unknown",
        }
    }

    /// Whether the era has it.
    pub(super) fn served_in(self, era: Era) -> bool {
        match self {
            Self::Initialize | Self::Ping => era == Era::Legacy,
            Self::Discover => era == Era::Modern,
            Self::ToolsList | Self::ToolsCall => true,
            Self::Unknown => false,
        }
    }

    /// Whether `Mcp-Name` must repeat `params.name`.
    pub(super) fn is_named(self) -> bool {
        match self {
            Self::ToolsCall => true,
            Self::Initialize | Self::Ping | Self::Discover | Self::ToolsList | Self::Unknown => {
                false
            }
        }
    }
}
