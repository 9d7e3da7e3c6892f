//! What the fixtures remember of legacy sessions, and the lists that pretend to change. In memory: this
//! server is one process.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::{LogLevel, LogLevels, Subscriptions},
    mcp::{ListChanges, ListKind},
    resources::Changes,
};
use tokio::sync::watch;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Levels and subscriptions, by session.
#[derive(Default)]
pub(crate) struct Sessions {
    levels: Mutex<HashMap<Option<String>, LogLevel>>,
    subscribed: Mutex<HashSet<(Option<String>, String)>>,
}

#[async_trait]
impl LogLevels for Sessions {
    async fn set(&self, session: Option<&str>, level: LogLevel) {
        lock(&self.levels).insert(session.map(str::to_owned), level);
    }

    async fn get(&self, session: Option<&str>) -> LogLevel {
        let session = session.map(str::to_owned);
        lock(&self.levels).get(&session).copied().unwrap_or(LogLevel::Info)
    }
}

#[async_trait]
impl Subscriptions for Sessions {
    async fn set(&self, session: Option<&str>, uri: &str, wanted: bool) {
        let key = (session.map(str::to_owned), uri.to_owned());
        let mut subscribed = lock(&self.subscribed);
        if wanted {
            subscribed.insert(key);
        } else {
            subscribed.remove(&key);
        }
    }
}

/// The lists of tools and prompts, as far as anybody hears that they changed.
pub(crate) struct Lists {
    tools: watch::Sender<()>,
    prompts: watch::Sender<()>,
}

impl Default for Lists {
    fn default() -> Self {
        Self { tools: watch::Sender::new(()), prompts: watch::Sender::new(()) }
    }
}

impl Lists {
    fn of(&self, list: ListKind) -> Option<&watch::Sender<()>> {
        match list {
            ListKind::Tools => Some(&self.tools),
            ListKind::Prompts => Some(&self.prompts),
            ListKind::Resources => None,
        }
    }

    /// Says that a list has changed.
    pub(crate) fn change(&self, list: ListKind) {
        if let Some(sender) = self.of(list) {
            sender.send_replace(());
        }
    }
}

struct Changed(Option<watch::Receiver<()>>);

#[async_trait]
impl Changes for Changed {
    async fn changed(&mut self) {
        if let Some(receiver) = &mut self.0
            && receiver.changed().await.is_ok()
        {
            return;
        }
        // Nothing changes any more.
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl ListChanges for Lists {
    fn covers(&self, list: ListKind) -> bool {
        self.of(list).is_some()
    }

    async fn watch(&self, list: ListKind) -> Box<dyn Changes> {
        Box::new(Changed(self.of(list).map(watch::Sender::subscribe)))
    }
}
