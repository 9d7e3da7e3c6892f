//! What one server offers: everything that the protocol module does not decide itself.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{headers::Mirrored, list::List, method::Method, revision::Era, task};
use crate::{
    dialogue::{LogLevels, Rendezvous, Subscriptions},
    messaging::Cancellations,
    prompts::PromptRegistry,
    resources::{Changes, ResourceRegistry},
    tools::{Tasks, ToolRegistry},
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
    /// Which lines of log a session wants. Without it nothing is logged to clients.
    pub logging: Option<Arc<dyn LogLevels>>,
    /// Where answers of legacy clients to requests of ours arrive. Without it they cannot be asked.
    pub rendezvous: Option<Arc<dyn Rendezvous>>,
    /// Where subscriptions of legacy clients are kept. Without it they cannot subscribe.
    pub subscriptions: Option<Arc<dyn Subscriptions>>,
    /// Says when a list has changed. Without it lists do not change.
    pub list_changes: Option<Arc<dyn ListChanges>>,
    /// Where calls that are answered later are asked for. Without it no call is.
    pub tasks: Option<Arc<dyn Tasks>>,
    /// Most entries on a page of a list.
    pub page: usize,
}

/// A list that a client can hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `resources/list`.
    Resources,
    /// `prompts/list`.
    Prompts,
}

/// Says when a list has changed, to those who listen for it (2026-07-28).
#[async_trait]
pub trait ListChanges: Send + Sync {
    /// Whether it ever says so of this list. What it covers is declared as `listChanged`.
    fn covers(&self, list: ListKind) -> bool;

    /// Begins to watch a list that it covers: what changes after this has returned is seen.
    async fn watch(&self, list: ListKind) -> Box<dyn Changes>;
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
            logging: None,
            rendezvous: None,
            subscriptions: None,
            list_changes: None,
            tasks: None,
            page: 100,
        }
    }
}

impl Offer {
    /// What says that this list has changed.
    pub(super) fn changes_of(&self, list: ListKind) -> Option<&dyn ListChanges> {
        self.list_changes.as_deref().filter(|changes| changes.covers(list))
    }

    /// Whether there is anything to listen for.
    fn watches(&self) -> bool {
        let lists = [ListKind::Tools, ListKind::Resources, ListKind::Prompts];
        self.resources.all().iter().any(|resource| resource.can_be_watched())
            || lists.into_iter().any(|list| self.changes_of(list).is_some())
    }

    fn completes(&self) -> bool {
        self.resources.all().iter().any(|resource| resource.completes())
            || self.prompts.all().iter().any(|prompt| prompt.completes())
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
            Method::Complete => self.completes(),
            Method::SetLevel => self.logging.is_some(),
            Method::Subscribe | Method::Unsubscribe => self.subscriptions.is_some(),
            Method::Listen => self.watches(),
            Method::TasksGet | Method::TasksUpdate | Method::TasksCancel => self.tasks.is_some(),
            Method::Unknown => false,
        };
        offered && method.is_of(era)
    }

    /// The capabilities of an era: exactly what [`serves`](Self::serves) says.
    pub(super) fn capabilities(&self, era: Era) -> Value {
        // In the legacy era these need a stream beside the calls. There is none.
        let listed = |list| {
            let changes = era == Era::Modern && self.changes_of(list).is_some();
            if changes { json!({ "listChanged": true }) } else { json!({}) }
        };
        let mut all = Map::new();
        if self.serves(Method::ToolsList, era) {
            all.insert("tools".into(), listed(ListKind::Tools));
        }
        if self.serves(Method::ResourcesList, era) {
            let mut resources = listed(ListKind::Resources);
            let subscribed = match era {
                Era::Legacy => self.subscriptions.is_some(),
                Era::Modern => self.resources.all().iter().any(|one| one.can_be_watched()),
            };
            if subscribed {
                resources["subscribe"] = json!(true);
            }
            all.insert("resources".into(), resources);
        }
        if self.serves(Method::PromptsList, era) {
            all.insert("prompts".into(), listed(ListKind::Prompts));
        }
        if self.serves(Method::Complete, era) {
            all.insert("completions".into(), json!({}));
        }
        if self.logging.is_some() {
            all.insert("logging".into(), json!({}));
        }
        if self.serves(Method::TasksGet, era) {
            all.insert("extensions".into(), json!({ (task::EXTENSION): {} }));
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
        let mirrored = self.tools.all().iter().filter_map(|tool| {
            let mirrored = Mirrored::of(&tool.definition());
            (!mirrored.is_empty()).then(|| (tool.name(), mirrored))
        });
        let prompts: Vec<Value> =
            self.prompts.all().iter().map(|prompt| prompt.definition()).collect();
        Lists {
            tools: List::new("tools", &tools, self.page),
            resources: List::new("resources", &resources(false), self.page),
            templates: List::new("resourceTemplates", &resources(true), self.page),
            prompts: List::new("prompts", &prompts, self.page),
            mirrored: mirrored.collect(),
        }
    }
}

/// The rendered lists of an [`Offer`].
pub(super) struct Lists {
    pub tools: List,
    pub resources: List,
    pub templates: List,
    pub prompts: List,
    /// Arguments that are mirrored into headers, by tool. Most tools have none.
    pub mirrored: HashMap<&'static str, Vec<Mirrored>>,
}
