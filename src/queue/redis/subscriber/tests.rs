//! Who keeps the subscriptions, step by step: against a stand-in of Redis that refuses them on demand.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    model::{Inbox, Tenant},
    queue::redis::RedisSettings,
};

/// Enough for what happens at once.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to see what must not happen.
const MOMENT: Duration = Duration::from_millis(50);

/// Speaks as much of Redis' protocol as a subscription needs.
#[derive(Clone, Default)]
struct StandIn {
    /// Subscriptions are refused, as while a slot moves.
    refuses: Arc<AtomicBool>,
}

impl StandIn {
    /// Its address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        TaskTracker::new().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                TaskTracker::new().spawn(async move { this.talk(BufReader::new(stream)).await });
            }
        });
        format!("redis://{address}")
    }

    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    async fn talk(&self, mut stream: BufReader<TcpStream>) {
        while let Some(words) = command(&mut stream).await {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answer = match words.as_slice() {
                ["HELLO", ..] => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
                ["INFO", ..] => "$19\r\nredis_version:7.0.0\r\n".to_owned(),
                ["PING"] => "+PONG\r\n".to_owned(),
                ["SSUBSCRIBE", _] if self.refuses.load(Ordering::SeqCst) => {
                    "-TRYAGAIN the slot moves\r\n".to_owned()
                }
                ["SSUBSCRIBE", channel] => {
                    let len = channel.len();
                    format!(">3\r\n$10\r\nssubscribe\r\n${len}\r\n{channel}\r\n:1\r\n")
                }
                _ => "+OK\r\n".to_owned(),
            };
            if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The words of the next command; `None`: the connection ended.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    async fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        Some(line.trim_end().to_owned())
    }
    let first = line(stream).await?;
    let Some(count) = first.strip_prefix('*') else {
        let words: Vec<_> = first.split_whitespace().map(str::to_owned).collect(); // inline: HELLO
        return (!words.is_empty()).then_some(words);
    };
    let mut words = Vec::new();
    for _ in 0..count.parse().ok()? {
        let len: usize = line(stream).await?.strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; len + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(len);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

/// A subscriber whose keeper does what it is told, when it is told.
struct Stage {
    redis: StandIn,
    subscriber: Subscriber,
    keeper: Keeper,
    needs: mpsc::UnboundedReceiver<Need>,
}

impl Stage {
    async fn set() -> Self {
        let redis = StandIn::default();
        let settings =
            RedisSettings { url: redis.start().await.into(), ..RedisSettings::default() };
        let (metrics, tasks) = (Arc::new(Metrics::new().unwrap()), TaskTracker::new());
        let link = |scripts| {
            Link::open(&settings, Duration::ZERO, scripts, Arc::clone(&metrics), &tasks).unwrap()
        };
        let (ear, asks) = (link(Arc::default()), link(Arc::default()));
        tokio::time::timeout(SOON, ear.client.wait_for_connect()).await.unwrap().unwrap();
        let (subscriber, keeper, needs) =
            Subscriber::with_keeper(&ear, asks, true, Arc::clone(&metrics));
        Self { redis, subscriber, keeper, needs }
    }

    /// Somebody begins to wait, and the keeper sees to it.
    async fn waits(&mut self, who: &str) -> Wakeups {
        let Self { subscriber, keeper, needs, .. } = self;
        let topic = topic(who);
        let seen_to = async {
            let need = needs.recv().await.unwrap();
            keeper.needed(need, needs).await;
        };
        tokio::join!(subscriber.watch(&topic), seen_to).0
    }
}

fn topic(who: &str) -> Topic {
    Topic::Inbox(Inbox::new(Tenant::default(), who.parse().unwrap()))
}

/// Whether there was a wake-up until now; then there is none any more.
async fn was_woken(wakeups: &mut Wakeups) -> bool {
    let mut woken = false;
    while wakeups.next_within(MOMENT).await {
        woken = true;
    }
    woken
}

#[tokio::test]
async fn whoever_brings_a_lost_subscription_back_wakes_those_who_slept_on_it() {
    let mut stage = Stage::set().await;
    assert_ne!(keys::topic(&topic("bob")).1, keys::topic(&topic("carol")).1);
    let mut bob = stage.waits("bob").await;
    assert!(!was_woken(&mut bob).await, "nothing was lost");
    stage.redis.refuse(true);
    stage.keeper.reconnected().await;
    assert_eq!(stage.subscriber.subscriptions(), 0, "refused");
    was_woken(&mut bob).await; // he may have looked now, when nobody would have told him of mail
    stage.redis.refuse(false);
    let mut carol = stage.waits("carol").await;
    assert_eq!(stage.subscriber.subscriptions(), 2, "hers, and his with it");
    assert!(bob.next_within(SOON).await, "what came while nobody heard it lies there");
    was_woken(&mut carol).await;
    stage.waits("dave").await;
    assert!(!was_woken(&mut bob).await, "nothing was lost since");
}

#[tokio::test]
async fn a_lost_subscription_that_comes_back_by_itself_wakes_those_who_slept_on_it() {
    let mut stage = Stage::set().await;
    let mut bob = stage.waits("bob").await;
    stage.redis.refuse(true);
    stage.keeper.reconnected().await;
    was_woken(&mut bob).await;
    stage.keeper.subscribe().await;
    assert!(!was_woken(&mut bob).await, "there is no subscription yet");
    stage.redis.refuse(false);
    stage.keeper.subscribe().await;
    assert!(bob.next_within(SOON).await);
}
