//! Who guesses keys is slowed, and who stands behind the same address with a good one gets in.

use futures_util::future::join_all;
use serde_json::json;

use super::series;
use crate::{
    auth::{guarded, key, sealed},
    support::{Agent, Site, Store},
};

/// Six at once, then one a second.
const SIX: (&str, &str) = ("MCP_MESSAGING__AUTH__FAILURES_PER_MINUTE", "60");
const BEHIND_A_PROXY: (&str, &str) = ("MCP_MESSAGING__HTTP__TRUSTED_PROXIES", "127.0.0.0/8");

async fn site(more: &[(&str, &str)]) -> Site {
    guarded(Store::Memory, &[&[SIX], more].concat()).await
}

/// Status and `Retry-After` of a harmless call; `from` is what a proxy would say.
async fn status(agent: &Agent, from: Option<&str>) -> (u16, Option<u64>) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let mut request = agent.post().json(&body);
    if let Some(from) = from {
        request = request.header("x-forwarded-for", from);
    }
    let answer = request.send().await.unwrap();
    let after = answer.headers().get("retry-after");
    let after = after.map(|value| value.to_str().unwrap().parse().unwrap());
    (answer.status().as_u16(), after)
}

/// So many different keys that are none, at once: their answers.
async fn guess(site: &Site, many: usize, from: Option<&str>) -> Vec<(u16, Option<u64>)> {
    let guesses = (0..many).map(|number| async move {
        let agent = site.here().agent("mallory").with_key(&format!("mbk_guess{number}.x"));
        status(&agent, from).await
    });
    join_all(guesses).await
}

fn count(answers: &[(u16, Option<u64>)], status: u16) -> usize {
    answers.iter().filter(|(found, _)| *found == status).count()
}

fn good(site: &Site, client: &str) -> Agent {
    site.here().agent(client).with_key(&sealed(&key("acme", client, "read")))
}

#[tokio::test]
async fn guesses_of_join_codes_are_slowed_too() {
    let site = guarded(Store::Redis, &[SIX]).await;
    let guesses = (0..40).map(|number| {
        let body = json!({"code": format!("mbj_acme.{number:032}")});
        let sent = reqwest::Client::new()
            .post(format!("http://{}/api/join", site.here().address()))
            .json(&body)
            .send();
        async { sent.await.unwrap().status().as_u16() }
    });
    let told = join_all(guesses).await;
    let count = |status| told.iter().filter(|found| **found == status).count();
    let slowed = count(429);
    assert!((6..=12).contains(&(40 - slowed)), "six, and those whose time came: {told:?}");
}

#[tokio::test]
async fn guesses_are_slowed_and_a_good_key_from_the_same_address_gets_in() {
    let site = site(&[]).await;
    let alice = good(&site, "alice");
    assert_eq!(status(&alice, None).await.0, 200);
    let (answers, known) = tokio::join!(guess(&site, 40, None), async {
        let mut found = Vec::new();
        for _ in 0..20 {
            found.push(status(&alice, None).await.0);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        found
    });
    assert_eq!(known, [200; 20], "who is known here is not held up");
    let (checked, slowed) = (count(&answers, 401), count(&answers, 429));
    assert_eq!(checked + slowed, 40, "{answers:?}");
    assert!((6..=12).contains(&checked), "six, and those whose time came: {answers:?}");
    assert!(answers.iter().all(|(status, after)| (*status == 429) == after.is_some()));
    assert!(answers.iter().all(|(_, after)| after.is_none_or(|after| (1..=40).contains(&after))));
    let refusals = r#"mcp_messaging_refusals_total{reason="too_many_failures"}"#;
    assert_eq!(series(site.here(), refusals).await, slowed as u64);
    // Somebody whose key nobody saw here before: it is looked at as soon as there is a permit.
    let bob = good(&site, "bob");
    for _ in 0..3 {
        match status(&bob, None).await {
            (200, _) => return,
            (429, Some(after)) => tokio::time::sleep(std::time::Duration::from_secs(after)).await,
            other => panic!("neither let in nor told when to come again: {other:?}"),
        }
    }
    panic!("a good key does not get in");
}

#[tokio::test]
async fn a_request_without_a_key_is_asked_for_one_however_often() {
    let site = site(&[]).await;
    for _ in 0..40 {
        assert_eq!(status(&site.here().agent("x"), None).await.0, 401);
    }
    assert_eq!(status(&good(&site, "alice"), None).await.0, 200);
}

#[tokio::test]
async fn addresses_behind_a_trusted_proxy_are_told_apart_by_what_it_says() {
    let site = site(&[BEHIND_A_PROXY]).await;
    let answers = guess(&site, 20, Some("1.1.1.1, 198.51.100.1")).await;
    assert!(count(&answers, 429) > 5, "{answers:?}");
    let forged = guess(&site, 20, Some("9.9.9.9, 198.51.100.1")).await;
    assert!(count(&forged, 429) > 5, "what its client wrote before does not count: {forged:?}");
    let other = guess(&site, 6, Some("198.51.100.2")).await;
    assert_eq!(count(&other, 401), 6, "another address: {other:?}");
}

#[tokio::test]
async fn nobody_is_believed_who_is_not_a_trusted_proxy() {
    let site = site(&[]).await;
    let addresses: Vec<_> = (0..20).map(|number| format!("198.51.100.{number}")).collect();
    let guesses = addresses.iter().map(|address| guess(&site, 2, Some(address)));
    let answers = join_all(guesses).await.concat();
    assert!(count(&answers, 429) > 20, "{answers:?}");
}
