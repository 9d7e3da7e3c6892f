//! Resources and prompts on the wire, and that nothing is served that is not declared.

use serde_json::{Value, json};

use crate::house::{House, Reply};

/// The result of a request, without what the latest revision stamps on every result.
#[track_caller]
fn unstamped(reply: &Reply) -> Value {
    let mut result = reply.json()["result"].clone();
    assert_eq!((reply.status, &result["resultType"]), (200, &json!("complete")), "{reply:?}");
    let members = result.as_object_mut().unwrap();
    members.remove("resultType");
    members.remove("_meta").unwrap();
    result
}

fn legacy(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

const LEGACY: &str = "MCP-Protocol-Version: 2025-11-25\r\n";

#[tokio::test]
async fn resources_are_listed_and_read_in_both_eras() {
    let house = House::open();
    let note = json!({ "uri": "note://only", "name": "note" });
    let shelf = json!({ "uriTemplate": "shelf://{name}", "name": "shelf" });
    let contents = json!([{ "uri": "note://only", "mimeType": "text/plain", "text": "a note" }]);
    for (method, name, params, freshness, expected) in [
        ("resources/list", None, "", (300_000, "public"), json!({ "resources": [note] })),
        (
            "resources/templates/list",
            None,
            "",
            (300_000, "public"),
            json!({ "resourceTemplates": [shelf] }),
        ),
        (
            "resources/read",
            Some("note://only"),
            r#""uri":"note://only""#,
            (0, "private"),
            json!({ "contents": contents }),
        ),
    ] {
        let reply = house.post(LEGACY, &legacy(method, params)).await;
        assert_eq!((reply.status, &reply.json()["result"]), (200, &expected));
        let mut fresh = expected;
        fresh["ttlMs"] = json!(freshness.0);
        fresh["cacheScope"] = json!(freshness.1);
        assert_eq!(unstamped(&house.modern(method, name, params).await), fresh);
    }
    house.close().await;
}

#[tokio::test]
async fn a_resource_that_is_not_there_is_an_error_that_names_it() {
    let house = House::open();
    // One that no resource knows, and one that its template does not have.
    for uri in ["nowhere://x", "shelf://none"] {
        let params = format!(r#""uri":"{uri}""#);
        let old = house.post(LEGACY, &legacy("resources/read", &params)).await;
        let new = house.modern("resources/read", Some(uri), &params).await;
        for (reply, code) in [(old, -32002), (new, -32602)] {
            let error = &reply.json()["error"];
            assert_eq!((reply.status, &error["code"]), (200, &json!(code)));
            assert_eq!(error["data"], json!({ "uri": uri }));
        }
    }
    let params = r#""uri":"shelf://down""#;
    let reply = house.modern("resources/read", Some("shelf://down"), params).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!(-32603)));
    for params in ["", r#""uri":7"#] {
        let reply = house.post(LEGACY, &legacy("resources/read", params)).await;
        assert_eq!(reply.json()["error"]["code"], -32602);
    }
    // The header repeats the URI.
    let params = r#""uri":"note://only""#;
    for header in [None, Some("note://other")] {
        let reply = house.modern("resources/read", header, params).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32020)));
    }
    house.close().await;
}

#[tokio::test]
async fn prompts_are_listed_and_rendered_in_both_eras() {
    let house = House::open();
    let arguments = json!([{ "name": "whom", "required": true }]);
    let list = json!({ "prompts": [{ "name": "greet", "arguments": arguments }] });
    let reply = house.post(LEGACY, &legacy("prompts/list", "")).await;
    assert_eq!((reply.status, &reply.json()["result"]), (200, &list));
    let mut fresh = list;
    fresh["ttlMs"] = json!(300_000);
    fresh["cacheScope"] = json!("public");
    assert_eq!(unstamped(&house.modern("prompts/list", None, "").await), fresh);

    let params = r#""name":"greet","arguments":{"whom":"Bob"}"#;
    let content = json!({ "type": "text", "text": "Greet Bob." });
    let messages = json!([{ "role": "user", "content": content }]);
    let expected = json!({ "description": "A greeting", "messages": messages });
    let reply = house.post(LEGACY, &legacy("prompts/get", params)).await;
    assert_eq!((reply.status, &reply.json()["result"]), (200, &expected));
    assert_eq!(unstamped(&house.modern("prompts/get", Some("greet"), params).await), expected);

    let bad = house.modern("prompts/get", Some("greet"), r#""name":"greet""#).await;
    let error = &bad.json()["error"];
    assert_eq!((bad.status, &error["code"]), (200, &json!(-32602)));
    assert!(error["message"].as_str().unwrap().ends_with("whom is missing"));
    let unknown = house.modern("prompts/get", Some("praise"), r#""name":"praise""#).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (200, &json!(-32602)));
    let unnamed = house.modern("prompts/get", None, params).await;
    assert_eq!((unnamed.status, &unnamed.json()["error"]["code"]), (400, &json!(-32020)));
    house.close().await;
}

#[tokio::test]
async fn what_is_not_offered_is_neither_declared_nor_found() {
    let house = House::bare();
    let body = legacy("initialize", r#""protocolVersion":"2025-11-25""#);
    let reply = house.post("", &body).await;
    assert_eq!(reply.json()["result"]["capabilities"], json!({ "tools": {} }));
    let discovered = unstamped(&house.modern("server/discover", None, "").await);
    assert_eq!(discovered["capabilities"], json!({ "tools": {} }));
    for (method, name) in [
        ("resources/list", None),
        ("resources/templates/list", None),
        ("resources/read", Some("note://only")),
        ("prompts/list", None),
        ("prompts/get", Some("greet")),
        ("subscriptions/listen", None),
    ] {
        let params = r#""uri":"note://only","name":"greet","notifications":{}"#;
        let name = if method == "resources/read" { Some("note://only") } else { name };
        let reply = house.modern(method, name, params).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (404, &json!(-32601)),
            "{method}"
        );
        let reply = house.post(LEGACY, &legacy(method, params)).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (200, &json!(-32601)),
            "{method}"
        );
    }
    house.close().await;
}

#[tokio::test]
async fn a_method_of_another_era_is_not_found() {
    let house = House::open();
    for method in ["resources/subscribe", "resources/unsubscribe", "subscriptions/listen"] {
        let reply = house.post(LEGACY, &legacy(method, r#""uri":"note://only""#)).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (200, &json!(-32601)),
            "{method}"
        );
    }
    for method in
        ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
    {
        let reply = house.modern(method, None, r#""uri":"note://only""#).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (404, &json!(-32601)),
            "{method}"
        );
    }
    house.close().await;
}
