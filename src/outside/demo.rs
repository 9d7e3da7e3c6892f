//! Two agents that talk, for whoever wants to see something happen.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};

use super::client::{Endpoint, Failure};

const ASKER: &str = "demo.asker";
const ANSWERER: &str = "demo.answerer";
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is said how far they are.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How fast, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Questions a second.
    pub rate: f64,
    /// Ends after this. `None`: when it is told to.
    pub lasts: Option<Duration>,
}

/// Lets one agent ask and the other answer. What cannot be said now is said again later: an installation
/// may come and go meanwhile. `say` hears what they do, now and then how far they are, and in the end how far they came.
pub async fn demonstrate(endpoint: &Endpoint, pace: Pace, say: impl Fn(String)) {
    say(format!(
        "{ASKER} asks {ANSWERER} {} times a second, and says every {} s how often it was answered",
        pace.rate,
        SAY_EVERY.as_secs()
    ));
    let mut answered = 0;
    let end = async {
        match pace.lasts {
            Some(lasts) => sleep(lasts).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end => {}
        () = answer(endpoint) => {}
        () = ask(endpoint, pace.rate, &mut answered, &say) => {}
    }
    say(told(answered));
    // Nothing of it stays behind, once the server has seen that we hung up.
    sleep(Duration::from_millis(200)).await;
    for whose in [ASKER, ANSWERER] {
        let fetch = json!({ "client_id": whose });
        drop(endpoint.call("get_messages", fetch, Duration::ZERO).await);
    }
}

async fn check_in(endpoint: &Endpoint, client: &str, does: &str) -> Result<Value, Failure> {
    let profile = json!({ "client_id": client, "name": client, "capabilities": does });
    endpoint.call("checkin_client", profile, Duration::ZERO).await
}

fn told(answered: u64) -> String {
    format!("{answered} questions were answered")
}

async fn ask(endpoint: &Endpoint, rate: f64, answered: &mut u64, say: &impl Fn(String)) {
    let mut every = interval(Duration::from_secs_f64(1.0 / rate));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = Instant::now();
    let mut trouble = check_in(endpoint, ASKER, "asks").await.err();
    loop {
        every.tick().await;
        let question = json!({
            "sender_id": ASKER, "recipient_id": ANSWERER, "message": format!("question {answered}"),
            "timeout": PATIENCE.as_secs(),
        });
        match endpoint.call("send_message_and_wait", question, PATIENCE).await {
            Ok(reply) => *answered += u64::from(reply["status"] == "replied"),
            Err(failure) => trouble = Some(failure),
        }
        if said.elapsed() >= SAY_EVERY || trouble.is_some() {
            said = Instant::now();
            match trouble.take() {
                None => say(told(*answered)),
                Some(failure) => {
                    say(format!("{}; trouble: {failure}", told(*answered)));
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn answer(endpoint: &Endpoint) {
    // The asker says what trouble there is.
    drop(check_in(endpoint, ANSWERER, "answers").await);
    loop {
        let fetch = json!({ "client_id": ANSWERER, "wait_seconds": PATIENCE.as_secs() });
        let Ok(mail) = endpoint.call("get_messages", fetch, PATIENCE).await else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        for message in mail["messages"].as_array().into_iter().flatten() {
            let reply = json!({
                "sender_id": ANSWERER, "recipient_id": message["from"], "message": "an answer",
                "in_reply_to": message["message_id"],
            });
            drop(endpoint.call("send_message", reply, Duration::ZERO).await);
        }
    }
}
