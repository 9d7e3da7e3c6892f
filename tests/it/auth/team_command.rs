//! `mcp-messaging team` and `mcp-messaging join`, as the program itself.

use std::io::Write as _;

use super::{
    KEYED,
    command::run,
    guarded,
    teams::{admin_of, get},
};
use crate::support::{Site, Store};

/// Runs `team ...` beside the servers of a site; what it prints.
fn team(site: &Site, arguments: &[&str]) -> String {
    let url = site.redis().unwrap().url();
    let words = [&["team"], arguments].concat();
    let (done, said, why) = run(&words, &[KEYED[0], KEYED[1], ("REDIS_URL", &url)]);
    assert!(done, "team {arguments:?}: {why}");
    said.trim_end().to_owned()
}

#[tokio::test]
async fn the_operator_invites_and_whoever_has_the_code_joins() {
    let site = guarded(Store::Redis, &[]).await;
    let code = team(&site, &["invite", "--tenant", "acme", "--role", "admin"]);
    let url = format!("http://{}", site.here().address());
    let join = |code: &str, client: &str| {
        let variables = [("MCP_MESSAGING_CODE", code)];
        run(&["join", "--url", &url, "--client", client], &variables)
    };
    let (done, key, told) = join(&code, "dana");
    assert!(done && told.contains("You are dana of team acme, admin"), "{told}");
    assert!(!told.contains(key.trim()), "the key goes to standard output alone");
    let members = get(site.there(), key.trim(), "/api/admin/members").await;
    assert_eq!(members["members"][0]["client"], "dana");
    let (done, said, why) = join(&code, "eve");
    assert!(
        !done && said.is_empty() && why.contains("not joined: this join code is not good"),
        "{why}"
    );
    assert!(!why.contains(&code), "{why}");

    let listed = team(&site, &["members", "--tenant", "acme"]);
    assert!(
        listed.lines().any(|line| line.starts_with("admin") && line.ends_with("dana")),
        "{listed}"
    );
    let (url, remove) =
        (site.redis().unwrap().url(), ["team", "remove", "--tenant", "acme", "--client", "dana"]);
    let (done, _, why) = run(&remove, &[KEYED[0], KEYED[1], ("REDIS_URL", &url)]);
    assert!(!done && why.contains("nobody else holds a good admin key"), "{why}");
    team(&site, &["remove", "--tenant", "acme", "--client", "dana", "--even-the-last-admin"]);
    assert_eq!(team(&site, &["members", "--tenant", "acme"]).lines().count(), 1, "the head alone");
}

#[tokio::test]
async fn a_team_is_saved_and_restored_as_a_file() {
    let site = guarded(Store::Redis, &[]).await;
    team(&site, &["link", "--tenant", "acme", "--teams", "beta,gamma"]);
    let saved = team(&site, &["export", "--tenant", "acme"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(saved.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let said = team(&site, &["import", "--tenant", "copy", path]);
    assert_eq!(said, "0 members, 0 policies and 2 linked teams are entered");
    let root = admin_of("copy");
    assert_eq!(
        get(site.here(), &root, "/api/admin/contacts").await["teams"],
        serde_json::json!(["beta", "gamma"])
    );
    std::fs::write(file.path(), "{\"version\": 1}").unwrap();
    let url = site.redis().unwrap().url();
    let (done, _, why) = run(&["team", "import", path], &[("REDIS_URL", &url)]);
    assert!(!done && why.contains("not what `team export` prints"), "{why}");
    // A key made by `keys` is a member's.
    let words = ["keys", "issue", "--tenant", "acme", "--client", "bob"];
    assert!(run(&words, &[KEYED[0], KEYED[1], ("REDIS_URL", &url)]).0);
    assert!(team(&site, &["members", "--tenant", "acme"]).ends_with("bob"));
    let (done, _, why) = run(&["team", "members"], &KEYED);
    assert!(!done && why.contains("teams are kept in Redis") && why.lines().count() == 1, "{why}");
}
