//! Who is there: presence, the directory, the list of inboxes.

use std::{collections::BTreeSet, time::Duration};

use mcp_messaging::{
    model::Inbox,
    queue::{ClientPage, ClientQuery, FetchRequest, LeaseId, Presence, Profile, Waiting},
};

use crate::support::{Backend, anything, inbox, message, ms, secs, tenant};

for_each_backend!(
    who_never_showed_up_is_unknown,
    who_sent_fetched_or_checked_in_was_seen,
    a_message_does_not_make_its_recipient_seen,
    the_time_since_a_client_was_seen_grows,
    who_checks_in_is_listed,
    a_check_in_replaces_the_one_before,
    a_check_in_ends_after_its_time,
    the_latest_check_in_comes_first,
    a_query_looks_at_id_name_and_capabilities_whatever_the_case,
    pages_show_every_client_once,
    a_directory_shows_its_tenant_only,
    a_directory_says_who_waits_and_what_is_queued,
    inboxes_that_hold_messages_or_wait_are_listed,
    at_most_so_many_inboxes_are_listed,
    a_working_store_is_ready,
);

fn profile(name: &str, capabilities: &str) -> Profile {
    Profile { name: name.to_owned(), capabilities: capabilities.to_owned() }
}

async fn check_in(backend: &Backend, client: &str, keep: Duration) {
    let profile = profile(&format!("{client}'s name"), "");
    backend.check_in(&inbox(client), &profile, keep).await.unwrap();
}

async fn presence(backend: &Backend, client: &str) -> Presence {
    backend.peek(&inbox(client)).await.unwrap().presence
}

async fn list(backend: &Backend, query: &ClientQuery) -> ClientPage {
    backend.clients(&tenant(), query).await.unwrap()
}

fn matching(text: &str) -> ClientQuery {
    ClientQuery { text: text.to_owned(), cursor: None, limit: 50 }
}

fn ids(page: &ClientPage) -> Vec<&str> {
    page.clients.iter().map(|entry| entry.client.expose()).collect()
}

async fn who_never_showed_up_is_unknown(backend: Backend) {
    assert_eq!(presence(&backend, "bob").await, Presence::Unknown);
    let sent = backend.post(&message("alice", "bob", "x")).await;
    assert_eq!(sent.recipient, Presence::Unknown);
}

async fn who_sent_fetched_or_checked_in_was_seen(backend: Backend) {
    backend.queue_up(&message("sender", "somebody", "x")).await;
    backend.look("reader").await;
    check_in(&backend, "guest", secs(60)).await;
    for client in ["sender", "reader", "guest"] {
        let seen = presence(&backend, client).await;
        assert!(matches!(seen, Presence::Seen(ago) if ago < secs(30)), "{client}: {seen:?}");
        let sent = backend.post(&message("alice", client, "x")).await;
        assert!(matches!(sent.recipient, Presence::Seen(_)), "{client}: {sent:?}");
    }
}

async fn a_message_does_not_make_its_recipient_seen(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "x")).await;
    assert_eq!(presence(&backend, "bob").await, Presence::Unknown);
}

async fn the_time_since_a_client_was_seen_grows(backend: Backend) {
    backend.look("bob").await;
    backend.pass(ms(1_200)).await;
    let seen = presence(&backend, "bob").await;
    assert!(matches!(seen, Presence::Seen(ago) if ago >= secs(1) && ago < secs(30)), "{seen:?}");
}

async fn who_checks_in_is_listed(backend: Backend) {
    assert_eq!(list(&backend, &matching("")).await, ClientPage::default());
    let card = profile("Bob", "reviews Rust; schläft");
    backend.check_in(&inbox("bob"), &card, secs(60)).await.unwrap();
    let page = list(&backend, &matching("")).await;
    assert_eq!((ids(&page), page.next), (vec!["bob"], None));
    assert_eq!(page.clients[0].profile, card);
    assert!(matches!(page.clients[0].presence, Presence::Seen(_)));
}

async fn a_check_in_replaces_the_one_before(backend: Backend) {
    for name in ["Bob", "Robert"] {
        backend.check_in(&inbox("bob"), &profile(name, ""), secs(60)).await.unwrap();
    }
    let page = list(&backend, &matching("")).await;
    assert_eq!((page.clients.len(), page.clients[0].profile.name.as_str()), (1, "Robert"));
}

async fn a_check_in_ends_after_its_time(backend: Backend) {
    check_in(&backend, "stays", secs(60)).await;
    check_in(&backend, "goes", secs(1)).await;
    assert_eq!(list(&backend, &matching("")).await.clients.len(), 2);
    backend.pass(ms(1_300)).await;
    assert_eq!(ids(&list(&backend, &matching("")).await), ["stays"]);
}

async fn the_latest_check_in_comes_first(backend: Backend) {
    for client in ["one", "two", "three", "one"] {
        check_in(&backend, client, secs(60)).await;
        backend.pass(ms(5)).await;
    }
    assert_eq!(ids(&list(&backend, &matching("")).await), ["one", "three", "two"]);
}

async fn a_query_looks_at_id_name_and_capabilities_whatever_the_case(backend: Backend) {
    let bob = profile("Robert", "Reviews Rust");
    backend.check_in(&inbox("bob"), &bob, secs(60)).await.unwrap();
    let carol = profile("Carol", "Deploys");
    backend.check_in(&inbox("Carol-1"), &carol, secs(60)).await.unwrap();
    for (text, expected) in [
        ("BOB", vec!["bob"]),
        ("robert", vec!["bob"]),
        ("rUST", vec!["bob"]),
        ("carol-1", vec!["Carol-1"]),
        ("o", vec!["Carol-1", "bob"]),
        ("nobody", vec![]),
    ] {
        let mut found = list(&backend, &matching(text)).await;
        found.clients.sort_by(|a, b| a.client.cmp(&b.client));
        assert_eq!(ids(&found), expected, "{text}");
    }
}

async fn pages_show_every_client_once(backend: Backend) {
    let all: BTreeSet<_> = (0..7).map(|n| format!("client-{n}")).collect();
    for client in &all {
        check_in(&backend, client, secs(60)).await;
        backend.pass(ms(2)).await;
    }
    check_in(&backend, "other", secs(60)).await;
    let mut query = ClientQuery { limit: 3, ..matching("client-") };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = list(&backend, &query).await;
        assert!(page.clients.len() <= 3);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        pages += 1;
        query.cursor = page.next;
        if page.next.is_none() {
            break;
        }
        assert!(pages < 10);
    }
    assert_eq!((seen.len(), seen.into_iter().collect::<BTreeSet<_>>()), (7, all));
}

async fn a_directory_shows_its_tenant_only(backend: Backend) {
    let stranger = Inbox::from_name("another-team/eve").unwrap();
    backend.check_in(&stranger, &profile("Eve", ""), secs(60)).await.unwrap();
    check_in(&backend, "bob", secs(60)).await;
    assert_eq!(ids(&list(&backend, &matching("")).await), ["bob"]);
    let theirs = backend.clients(stranger.tenant(), &matching("")).await.unwrap();
    assert_eq!(ids(&theirs), ["eve"]);
}

async fn wait_for_mail(backend: &Backend, client: &str) {
    let call = LeaseId::new();
    let waiting = Waiting { remaining: secs(20), session: None, call, first: true };
    let request = FetchRequest { waiting: Some(waiting), ..anything() };
    backend.fetch(&inbox(client), &request).await.unwrap();
}

async fn a_directory_says_who_waits_and_what_is_queued(backend: Backend) {
    check_in(&backend, "bob", secs(60)).await;
    wait_for_mail(&backend, "bob").await;
    for _ in 0..2 {
        backend.queue_up(&message("alice", "bob", "x")).await;
    }
    let page = list(&backend, &matching("bob")).await;
    assert_eq!((page.clients[0].presence, page.clients[0].queued), (Presence::Waiting, 2));
}

async fn inboxes_that_hold_messages_or_wait_are_listed(backend: Backend) {
    backend.queue_up(&message("alice", "full", "x")).await;
    backend.queue_up(&message("alice", "drained", "x")).await;
    backend.drain("drained").await;
    wait_for_mail(&backend, "waits").await;
    let mut stats = backend.inboxes(&tenant(), 100).await.unwrap();
    stats.sort_by(|a, b| a.client.cmp(&b.client));
    let listed: Vec<_> = stats
        .iter()
        .map(|stat| (stat.client.expose(), stat.queued, stat.presence == Presence::Waiting))
        .collect();
    assert_eq!(listed, [("full", 1, false), ("waits", 0, true)]);
}

async fn at_most_so_many_inboxes_are_listed(backend: Backend) {
    for n in 0..10 {
        backend.queue_up(&message("alice", &format!("client-{n}"), "x")).await;
    }
    assert_eq!(backend.inboxes(&tenant(), 4).await.unwrap().len(), 4);
    assert_eq!(backend.inboxes(&tenant(), 100).await.unwrap().len(), 10);
}

async fn a_working_store_is_ready(backend: Backend) {
    backend.ready().await.unwrap();
}
