//! What one server offers: everything that the protocol module does not decide itself.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{list::List, method::Method, revision::Era};
use crate::{
    messaging::Cancellations, prompts::PromptRegistry, resources::ResourceRegistry,
    tools::ToolRegistry,
};

/// What a server offers. What is empty is neither declared nor served: its methods are not found.
///
/// A further tool, resource or prompt goes into its registry; nothing in this module changes.
#[derive(Clone)]
pub struct Offer {
    /// How the server presents itself.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// For the model, about the server as a whole. May be empty.
    pub instructions: &'static str,
    /// What can be called.
    pub tools: ToolRegistry,
    /// What can be read and watched.
    pub resources: ResourceRegistry,
    /// What users can start.
    pub prompts: PromptRegistry,
    /// Where cancelled calls are told so. Without it, `notifications/cancelled` is only accepted.
    pub cancellations: Option<Arc<dyn Cancellations>>,
    /// Most entries on a page of a list.
    pub page: usize,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            instructions: "",
            tools: ToolRegistry::default(),
            resources: ResourceRegistry::default(),
            prompts: PromptRegistry::default(),
            cancellations: None,
            page: 100,
        }
    }
}

impl Offer {
    fn watches(&self) -> bool {
        self.resources.all().iter().any(|resource| resource.can_be_watched())
    }

    /// Whether a request of this method is served in an era.
    pub(super) fn serves(&self, method: Method, era: Era) -> bool {
        let offered = match method {
            Method::Initialize | Method::Ping | Method::Discover => true,
            Method::ToolsList | Method::ToolsCall => !self.tools.all().is_empty(),
            Method::ResourcesList | Method::TemplatesList | Method::ResourcesRead => {
                !self.resources.all().is_empty()
            }
            Method::PromptsList | Method::PromptsGet => !self.prompts.all().is_empty(),
            Method::Listen => self.watches(),
            Method::Unknown => false,
        };
        offered && method.is_of(era)
    }

    /// The capabilities of an era: exactly what [`serves`](Self::serves) says.
    pub(super) fn capabilities(&self, era: Era) -> Value {
        let mut all = Map::new();
        if self.serves(Method::ToolsList, era) {
            all.insert("tools".into(), json!({}));
        }
        if self.serves(Method::ResourcesList, era) {
            // Legacy subscriptions need a stream beside the calls. There is none.
            let watched = self.serves(Method::Listen, era);
            let resources = if watched { json!({ "subscribe": true }) } else { json!({}) };
            all.insert("resources".into(), resources);
        }
        if self.serves(Method::PromptsList, era) {
            all.insert("prompts".into(), json!({}));
        }
        Value::Object(all)
    }

    pub(super) fn lists(&self) -> Lists {
        let resources = |template: bool| -> Vec<Value> {
            let all = self.resources.all().iter();
            all.filter(|resource| resource.is_template() == template)
                .map(|resource| resource.definition())
                .collect()
        };
        let tools: Vec<Value> = self
            .tools
            .all()
            .iter()
            .filter(|tool| tool.listed())
            .map(|tool| tool.definition())
            .collect();
        let prompts: Vec<Value> =
            self.prompts.all().iter().map(|prompt| prompt.definition()).collect();
        Lists {
            tools: List::new("tools", &tools, self.page),
            resources: List::new("resources", &resources(false), self.page),
            templates: List::new("resourceTemplates", &resources(true), self.page),
            prompts: List::new("prompts", &prompts, self.page),
        }
    }
}

/// The rendered lists of an [`Offer`].
pub(super) struct Lists {
    pub tools: List,
    pub resources: List,
    pub templates: List,
    pub prompts: List,
}
