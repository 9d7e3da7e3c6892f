//! `subscriptions/listen` over real sockets.

use serde_json::{Value, json};

use crate::house::{Client, House, Reply, eventually, modern, post, schema};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Asks for a subscription and reads up to its acknowledgement.
async fn listen(house: &House, id: &str, wanted: &str) -> Client {
    let params = format!(r#""notifications":{wanted}"#);
    let (headers, body) = modern("subscriptions/listen", None, &params);
    let body = body.replacen("\"id\":1", &format!("\"id\":{id}"), 1);
    let mut client = Client::connect(house.address).await;
    client.send(&post(&headers, &body)).await;
    client.until("notifications/subscriptions/acknowledged").await;
    client
}

/// The messages of a stream that has ended, each of which the schema has.
#[track_caller]
fn messages(reply: &Reply) -> Vec<Value> {
    let events = reply.events();
    for event in &events {
        schema::message("2026-07-28", "subscriptions/listen", event);
    }
    events
}

#[tokio::test]
async fn a_subscription_says_what_it_honours_then_what_changed_and_ends_with_its_result() {
    for id in ["7", "\"listen:0\""] {
        let house = House::open();
        let wanted = r#"{"resourceSubscriptions":["shelf://a","note://only","shelf://none","no://x","shelf://a"],"toolsListChanged":true,"vendor":[]}"#;
        let mut client = listen(&house, id, wanted).await;
        house.store.put("mail");
        client.until("notifications/resources/updated").await;
        client.until(": keep-alive\n\n").await;
        house.stop.cancel();
        let reply = client.reply().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        assert_eq!(reply.header("x-accel-buffering"), Some("no"));
        let id: Value = serde_json::from_str(id).unwrap();
        let meta = json!({ SUBSCRIPTION: id });
        let notice = |method: &str, key: &str, value: Value| {
            let method = format!("notifications/{method}");
            json!({ "jsonrpc": "2.0", "method": method, "params": { "_meta": meta, key: value } })
        };
        // What never changes, is not there, or is not sent at all is not honoured.
        let honoured = json!({ "resourceSubscriptions": ["shelf://a"] });
        let mut events = messages(&reply);
        let ended = events.pop().unwrap();
        assert_eq!(
            events,
            [
                notice("subscriptions/acknowledged", "notifications", honoured),
                notice("resources/updated", "uri", json!("shelf://a")),
            ]
        );
        let info = json!({ "name": "mcp-messaging", "version": env!("CARGO_PKG_VERSION") });
        let meta = json!({ SUBSCRIPTION: id, "io.modelcontextprotocol/serverInfo": info });
        let result = json!({ "resultType": "complete", "_meta": meta });
        assert_eq!(ended, json!({ "jsonrpc": "2.0", "id": id, "result": result }));
        house.close().await;
    }
}

#[tokio::test]
async fn every_watched_resource_is_told_of_and_nothing_that_was_not_asked_for() {
    let house = House::open();
    let mut both =
        listen(&house, "1", r#"{"resourceSubscriptions":["shelf://a","shelf://b"]}"#).await;
    let mut none = listen(&house, "2", "{}").await;
    house.store.put("mail");
    both.until("\"uri\":\"shelf://a\"").await;
    both.until("\"uri\":\"shelf://b\"").await;
    none.until(": keep-alive\n\n").await;
    house.stop.cancel();
    let (both, none) = (messages(&both.reply().await), messages(&none.reply().await));
    assert_eq!((both.len(), none.len()), (4, 2), "{both:?} {none:?}");
    assert_eq!(none[0]["params"]["notifications"], json!({}));
    house.close().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_subscription() {
    let house = House::open();
    let client = listen(&house, "1", r#"{"resourceSubscriptions":["shelf://a"]}"#).await;
    assert_eq!(house.store.watchers(), 1);
    drop(client);
    eventually("nothing is watched any more", || house.store.watchers() == 0).await;
    house.close().await;
}

#[tokio::test]
async fn a_subscription_that_cannot_begin_is_refused_before_its_stream() {
    let house = House::open();
    for wanted in [
        "",
        r#""notifications":null"#,
        r#""notifications":[]"#,
        r#""notifications":{"resourceSubscriptions":"shelf://a"}"#,
    ] {
        let reply = house.modern("subscriptions/listen", None, wanted).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (200, &json!(-32602)),
            "{wanted}"
        );
    }
    let down = r#""notifications":{"resourceSubscriptions":["shelf://a","shelf://down"]}"#;
    let reply = house.modern("subscriptions/listen", None, down).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!(-32603)));
    assert_eq!(house.store.watchers(), 0);
    let (headers, body) = modern("subscriptions/listen", None, r#""notifications":{}"#);
    let reply = house.post(&format!("Accept: application/json\r\n{headers}"), &body).await;
    assert_eq!(reply.status, 406);
    house.close().await;
}
