//! The keys of the authorization server, as this process knows them.
//!
//! One task looks them up ([`SigningKeys::keep`]); requests only read what it found, under no lock that
//! is held while anybody waits. A request whose key is not known asks the task to look, which it does for
//! all who ask at once and at most once in [`HUNT_EVERY`]: made-up names of keys cost the authorization
//! server nothing. When it does not answer, what was found last serves for [`STALE`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::keys::KeySet;

/// Keys are looked up so often.
const EVERY: Duration = Duration::from_secs(600);
/// Names that are not known lead to a look this often at most.
const HUNT_EVERY: Duration = Duration::from_secs(30);
/// What was found serves so long when it cannot be looked up again.
const STALE: Duration = Duration::from_secs(3600);
/// How long one look may take, and a request wait for it.
const WITHIN: Duration = Duration::from_secs(10);
/// After a look that failed, the next: first soon, then less and less often.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Where keys come from.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The keys in force now.
    ///
    /// # Errors
    /// Why they cannot be had, in one line.
    async fn look(&self) -> Result<KeySet, String>;
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The authorization server has none of that name.
    Unknown,
    /// It cannot be found out.
    Unavailable,
}

/// The keys of an authorization server. Clones share what is known.
#[derive(Clone)]
pub struct SigningKeys(Arc<Shared>);

struct Shared {
    source: Box<dyn KeySource>,
    known: watch::Sender<Known>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct Known {
    found: Option<(Arc<KeySet>, Instant)>,
    /// A look is under way.
    looking: bool,
    /// When one began because a name was not known.
    hunted: Option<Instant>,
}

impl Known {
    fn serving(&self, now: Instant) -> Option<&Arc<KeySet>> {
        let (keys, at) = self.found.as_ref()?;
        (now.duration_since(*at) < STALE).then_some(keys)
    }

    fn may_hunt(&self, now: Instant) -> bool {
        self.hunted.is_none_or(|at| now.duration_since(at) >= HUNT_EVERY)
    }
}

impl SigningKeys {
    /// Keys of which nothing is known until [`keep`](Self::keep) runs.
    #[must_use]
    pub fn new(source: Box<dyn KeySource>) -> Self {
        // The first look is as good as under way: whoever comes before its end waits for it.
        let known = watch::Sender::new(Known { looking: true, ..Known::default() });
        Self(Arc::new(Shared { source, known, wanted: Notify::new() }))
    }

    /// Looks keys up, for ever. To be run once.
    pub async fn keep(self) {
        let mut pause = RETRY.0;
        loop {
            match self.look().await {
                Ok(()) => pause = RETRY.0,
                Err(why) => {
                    tracing::warn!(
                        error = %why,
                        "the keys of the authorization server cannot be had; what was known serves for an hour"
                    );
                    self.rest(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                    continue;
                }
            }
            self.rest(EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), String> {
        self.0.known.send_modify(|known| known.looking = true);
        let began = Instant::now();
        let late = |_| Err(format!("no answer within {} s", WITHIN.as_secs()));
        let looked = timeout(WITHIN, self.0.source.look()).await.unwrap_or_else(late);
        let (found, said) = match looked {
            Ok(keys) => (Some((Arc::new(keys), began)), Ok(())),
            Err(why) => (None, Err(why)),
        };
        self.0.known.send_modify(|known| {
            known.looking = false;
            known.found = found.or(known.found.take());
        });
        said
    }

    /// Until the next look is due: after `pause`, or when a name is asked for that is not known.
    async fn rest(&self, pause: Duration) {
        let due = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.0.wanted.notified() => {}
            }
            let now = Instant::now();
            // Who asked may have been answered by a look that ended meanwhile.
            if self.0.known.borrow().may_hunt(now) {
                self.0.known.send_modify(|known| {
                    known.hunted = Some(now);
                    known.looking = true;
                });
                return;
            }
        }
    }

    /// The keys, if one of that name is among them; looked up again if that is allowed now.
    ///
    /// # Cancel safety
    /// The look goes on without who asked for it.
    pub(super) async fn with(&self, id: &str) -> Result<Arc<KeySet>, NoKey> {
        let mut known = self.0.known.subscribe();
        let patience = Instant::now() + WITHIN;
        loop {
            {
                let now = Instant::now();
                let known = known.borrow_and_update();
                let serving = known.serving(now);
                if let Some(keys) = serving.filter(|keys| keys.has(id)) {
                    return Ok(Arc::clone(keys));
                }
                match serving {
                    _ if known.looking => {}
                    None => return Err(NoKey::Unavailable),
                    Some(_) if known.may_hunt(now) => self.0.wanted.notify_one(),
                    Some(_) => return Err(NoKey::Unknown),
                }
            }
            if !matches!(timeout_at(patience, known.changed()).await, Ok(Ok(()))) {
                return Err(NoKey::Unavailable);
            }
        }
    }

    /// Whether a key of that name is known and serves still. Asks nobody.
    pub(super) fn still(&self, id: &str) -> Result<(), NoKey> {
        match self.0.known.borrow().serving(Instant::now()) {
            None => Err(NoKey::Unavailable),
            Some(keys) if keys.has(id) => Ok(()),
            Some(_) => Err(NoKey::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::time::{advance, sleep};

    use super::*;

    /// An authorization server with some keys, or none at the moment.
    #[derive(Default)]
    struct Provider {
        keys: Mutex<Option<Vec<&'static str>>>,
        looks: AtomicUsize,
    }

    /// One look takes so long.
    const LOOK: Duration = Duration::from_millis(100);

    #[async_trait]
    impl KeySource for Arc<Provider> {
        async fn look(&self) -> Result<KeySet, String> {
            self.looks.fetch_add(1, Ordering::SeqCst);
            sleep(LOOK).await;
            let keys = self.keys.lock().clone().ok_or("it is down")?;
            let point = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            let keys: Vec<_> = keys
                .into_iter()
                .map(|id| json!({"kty": "OKP", "kid": id, "crv": "Ed25519", "x": point}))
                .collect();
            let document = json!({ "keys": keys }).to_string();
            KeySet::read(document.as_bytes()).map_err(|error| error.to_string())
        }
    }

    impl Provider {
        fn publishes(&self, keys: &[&'static str]) {
            *self.keys.lock() = Some(keys.to_vec());
        }

        fn is_down(&self) {
            *self.keys.lock() = None;
        }

        fn looks(&self) -> usize {
            self.looks.load(Ordering::SeqCst)
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the test ends with its runtime")]
    fn kept(provider: &Arc<Provider>) -> SigningKeys {
        let keys = SigningKeys::new(Box::new(Arc::clone(provider)));
        tokio::spawn(keys.clone().keep());
        keys
    }

    async fn known(keys: &SigningKeys, id: &str) -> Result<(), NoKey> {
        keys.with(id).await.map(drop)
    }

    /// Time goes on, and what is due in it is done.
    async fn pass(time: Duration) {
        sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_waits_for_the_first_look_and_a_crowd_for_the_same() {
        let provider = Arc::new(Provider::default());
        provider.publishes(&["a"]);
        let keys = kept(&provider);
        let all = (0..100).map(|_| known(&keys, "a"));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.into_iter().all(|answer| answer == Ok(())));
        assert_eq!(provider.looks(), 1);
        // And then nobody is asked for ten minutes.
        pass(Duration::from_secs(599)).await;
        assert_eq!((known(&keys, "a").await, provider.looks()), (Ok(()), 1));
        pass(Duration::from_secs(2)).await;
        assert_eq!(provider.looks(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_found_when_its_first_token_comes_and_an_old_one_ends() {
        let provider = Arc::new(Provider::default());
        provider.publishes(&["a"]);
        let keys = kept(&provider);
        assert_eq!(known(&keys, "a").await, Ok(()));
        provider.publishes(&["b"]);
        assert_eq!(known(&keys, "a").await, Ok(()), "nobody knows yet");
        assert_eq!(known(&keys, "b").await, Ok(()));
        assert_eq!(keys.still("a"), Err(NoKey::Unknown));
        assert_eq!(provider.looks(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_names_lead_to_one_look_in_thirty_seconds() {
        let provider = Arc::new(Provider::default());
        provider.publishes(&["a"]);
        let keys = kept(&provider);
        assert_eq!(known(&keys, "a").await, Ok(()));
        let began = Instant::now();
        let names: Vec<_> = (0..1000).map(|n| format!("made up {n}")).collect();
        let answers = futures_util::future::join_all(names.iter().map(|name| known(&keys, name)));
        assert!(answers.await.into_iter().all(|answer| answer == Err(NoKey::Unknown)));
        assert_eq!(provider.looks(), 2);
        // Then they are told at once, and nobody else is kept waiting.
        let waited = Instant::now();
        for name in &names {
            assert_eq!(known(&keys, name).await, Err(NoKey::Unknown));
        }
        assert_eq!((known(&keys, "a").await, provider.looks()), (Ok(()), 2));
        assert_eq!(waited.elapsed(), Duration::ZERO);
        while began.elapsed() < Duration::from_secs(300) {
            assert_eq!(known(&keys, "made up").await, Err(NoKey::Unknown));
            pass(Duration::from_millis(500)).await;
        }
        assert!(provider.looks() <= 2 + 10, "{} looks", provider.looks());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_look_to_the_others() {
        let provider = Arc::new(Provider::default());
        provider.publishes(&["a"]);
        let keys = kept(&provider);
        assert_eq!(known(&keys, "a").await, Ok(()));
        provider.publishes(&["a", "b"]);
        // It asks for a look, and hangs up before its end.
        assert!(timeout(LOOK / 2, known(&keys, "made up")).await.is_err());
        assert_eq!(known(&keys, "b").await, Ok(()));
        assert_eq!(provider.looks(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_its_provider_what_is_known_serves_an_hour_and_then_nobody_is_let_in() {
        let provider = Arc::new(Provider::default());
        provider.publishes(&["a"]);
        let keys = kept(&provider);
        assert_eq!(known(&keys, "a").await, Ok(()));
        provider.is_down();
        pass(Duration::from_secs(3590)).await;
        let now = Instant::now();
        assert_eq!((known(&keys, "a").await, keys.still("a")), (Ok(()), Ok(())));
        assert_eq!(now.elapsed(), Duration::ZERO, "nobody waits for what is known");
        pass(Duration::from_secs(20)).await;
        assert_eq!(keys.still("a"), Err(NoKey::Unavailable));
        assert_eq!(known(&keys, "a").await, Err(NoKey::Unavailable));
        let looks = provider.looks();
        pass(Duration::from_secs(300)).await;
        assert!(provider.looks() - looks <= 10, "it is not hammered");
        provider.publishes(&["a"]);
        pass(RETRY.1 + LOOK).await;
        assert_eq!(known(&keys, "a").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_starts_before_its_provider_says_so_at_once_and_finds_it_soon() {
        let provider = Arc::new(Provider::default());
        let keys = kept(&provider);
        assert_eq!(known(&keys, "a").await, Err(NoKey::Unavailable));
        let now = Instant::now();
        assert_eq!(known(&keys, "a").await, Err(NoKey::Unavailable));
        assert_eq!(now.elapsed(), Duration::ZERO);
        provider.publishes(&["a"]);
        pass(Duration::from_secs(2)).await;
        assert_eq!(known(&keys, "a").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_keeps_nobody_who_is_known() {
        let provider = Arc::new(Provider::default());
        provider.publishes(&["a"]);
        let keys = kept(&provider);
        assert_eq!(known(&keys, "a").await, Ok(()));
        let (hunter, other) = tokio::join!(known(&keys, "made up"), async {
            // While the look is under way.
            advance(LOOK / 2).await;
            let now = Instant::now();
            (known(&keys, "a").await, now.elapsed())
        });
        assert_eq!((hunter, other), (Err(NoKey::Unknown), (Ok(()), Duration::ZERO)));
    }
}
