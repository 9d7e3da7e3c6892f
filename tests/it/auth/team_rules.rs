//! What holds of invitations over time, on a clock that the test moves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mcp_messaging::{
    auth::{ApiKey, Known, MasterKeys},
    model::{Clock, Grant, Inbox, ManualClock, Principal, Tenant},
    queue::{
        Ending, KeyId, Role, TeamStore,
        redis::{RedisSettings, RedisStore},
    },
    teams::{
        Actor, Contacts, Insist, InviteSpec, KeySpec, Made, TeamError, Teams, Unknown, Verdict,
    },
    telemetry::Metrics,
};
use tokio_util::task::TaskTracker;

use super::MASTERS;
use crate::support::{LIMITS, Persistence, RedisServer};

/// Teams in a Redis of their own.
pub(super) struct House {
    pub(super) teams: Teams,
    pub(super) clock: ManualClock,
    pub(super) store: Arc<dyn TeamStore>,
    server: RedisServer,
}

pub(super) fn acme() -> Actor {
    Actor::operator("acme".parse().unwrap())
}

pub(super) fn grant(text: &str) -> Grant {
    text.parse().unwrap()
}

fn teams(store: &Arc<dyn TeamStore>, clock: &ManualClock) -> Teams {
    let masters: MasterKeys = MASTERS.parse().unwrap();
    let clock = Arc::new(clock.clone()) as Arc<dyn Clock>;
    Teams::new(Some(Arc::clone(store)), Some(Arc::new(masters)), clock)
}

impl House {
    pub(super) fn open() -> Self {
        let server = RedisServer::start(Persistence::None);
        let settings = RedisSettings { url: server.url().into(), ..RedisSettings::default() };
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = RedisStore::start(settings, LIMITS, metrics, TaskTracker::new()).unwrap();
        let store: Arc<dyn TeamStore> = Arc::new(store.queue().unwrap());
        let clock = ManualClock::new(1_700_000_000_000_000);
        let teams = teams(&store, &clock);
        Self { teams, clock, store, server }
    }

    /// The same teams, as another replica sees them.
    fn next_door(&self) -> Teams {
        let settings = RedisSettings { url: self.server.url().into(), ..RedisSettings::default() };
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = RedisStore::start(settings, LIMITS, metrics, TaskTracker::new()).unwrap();
        let store: Arc<dyn TeamStore> = Arc::new(store.queue().unwrap());
        teams(&store, &self.clock)
    }

    async fn invite(&self, client: Option<&str>) -> String {
        let (role, client) = (Role::Member, client.map(grant));
        let spec = InviteSpec { role, client, hours: 2, days: 1 };
        self.teams.invite(&acme(), &spec).await.unwrap().code.expose().to_owned()
    }

    async fn join(&self, code: &str, wish: Option<&str>) -> Result<Made, TeamError> {
        self.teams.join(code, wish.map(grant).as_ref()).await
    }
}

#[tokio::test]
async fn a_code_is_good_until_its_time_is_over_or_it_is_withdrawn() {
    let house = House::open();
    let (late, timely) = (house.invite(None).await, house.invite(None).await);
    house.clock.advance(Duration::from_secs(7199));
    let made = house.join(&timely, Some("alice")).await.unwrap();
    assert_eq!(made.key.expires_at, Some(1_700_000_000 + 7199 + 86_400));
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.join(&late, Some("bob")).await.unwrap_err(), TeamError::BadCode);
    assert!(house.teams.invitations(&acme()).await.unwrap().is_empty());

    let code = house.invite(None).await;
    let open = house.teams.invitations(&acme()).await.unwrap();
    house.teams.withdraw(&acme(), &open[0].id).await.unwrap();
    assert_eq!(house.join(&code, Some("bob")).await.unwrap_err(), TeamError::BadCode);
    let again = house.teams.withdraw(&acme(), &open[0].id).await;
    assert_eq!(again, Err(TeamError::Unknown("invitation")));
}

#[tokio::test]
async fn a_code_for_certain_ids_gives_no_others() {
    let house = House::open();
    for (fixed, wish, expected) in [
        ("fay", None, Ok("fay")),
        ("gil", Some("gil"), Ok("gil")),
        ("hal", Some("ida"), Err(TeamError::OtherClient)),
        ("jo.*", None, Ok("jo.*")),
        ("kim.*", Some("kim.a"), Ok("kim.a")),
        ("leo.*", Some("leo.a.*"), Ok("leo.a.*")),
        ("mia.*", Some("mia"), Err(TeamError::OtherClient)),
        ("ned.a.*", Some("ned.*"), Err(TeamError::OtherClient)),
    ] {
        let code = house.invite(Some(fixed)).await;
        let joined = house.join(&code, wish).await;
        assert_eq!(joined.map(|made| made.key.grant), expected.map(grant), "{fixed} {wish:?}");
    }
}

#[tokio::test]
async fn an_id_is_free_again_when_its_member_was_removed_and_not_before() {
    let house = House::open();
    let (first, second) = (house.invite(None).await, house.invite(None).await);
    house.join(&first, Some("alice")).await.unwrap();
    // Her key has expired, and she is a member all the same.
    house.clock.advance(Duration::from_secs(3600));
    assert_eq!(house.join(&second, Some("alice")).await.unwrap_err(), TeamError::Taken);
    house.clock.advance(Duration::from_secs(2 * 86_400));
    let code = house.invite(None).await;
    assert_eq!(house.join(&code, Some("alice")).await.unwrap_err(), TeamError::Taken);
    let fixed = InviteSpec { role: Role::Member, client: Some(grant("alice")), hours: 1, days: 1 };
    let invited = house.teams.invite(&acme(), &fixed).await;
    assert_eq!(invited.map(drop).unwrap_err(), TeamError::Taken);
    house.teams.remove(&acme(), &grant("alice"), Insist::No).await.unwrap();
    let made = house.join(&code, Some("alice")).await.unwrap();
    assert_eq!(made.key.generation, 2, "older keys are none of hers");
}

#[tokio::test]
async fn of_changes_at_the_same_time_none_is_lost() {
    let house = House::open();
    let names: Vec<_> = (0..20).map(|n| format!("c{n}")).collect();
    let policy = || serde_json::from_str(r#"{"policy":"team"}"#).unwrap();
    let sets = names.iter().map(|name| {
        let teams = house.teams.clone();
        async move { teams.set_contacts(&acme(), grant(name), policy()).await }
    });
    let done = futures_util::future::join_all(sets).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let kept = house.teams.policies(&acme()).await.unwrap();
    assert_eq!(kept.contacts.len(), 20);
    // A state that is not the latest replaces nothing.
    let tenant: Tenant = "acme".parse().unwrap();
    let latest = house.store.team(&tenant).await.unwrap();
    let (revision, empty) = (latest.revision, mcp_messaging::queue::Team::default());
    let replace = async |revision, ends: &[Ending]| {
        house.store.replace_team(&tenant, revision, &empty, ends).await
    };
    let ends = |generation| Ending::Below { grant: grant("alice"), generation, from_ms: 0 };
    for stale in [0, revision - 1, revision + 1] {
        assert_eq!(replace(stale, &[]).await, Ok(false), "{stale}");
        assert_eq!(replace(stale, &[ends(2)]).await, Ok(false), "{stale}");
    }
    // Nor does one that ends keys as if nobody else had.
    house.store.begin_generation(&tenant, &grant("alice"), 5).await.unwrap();
    let refused = house.store.revocations(&tenant).await.unwrap();
    assert_eq!(replace(revision, &[Ending::Key(KeyId::random()), ends(2)]).await, Ok(false));
    assert_eq!(house.store.team(&tenant).await.unwrap(), latest);
    assert_eq!(house.store.revocations(&tenant).await.unwrap(), refused);
    // The latest is replaced, and keys end with it.
    let key = KeyId::random();
    assert_eq!(replace(revision, &[Ending::Key(key), ends(3)]).await, Ok(true));
    assert_eq!(house.store.team(&tenant).await.unwrap().revision, revision + 1);
    let refused = house.store.revocations(&tenant).await.unwrap();
    assert!(refused.names(key) && refused.generation(&grant("alice")) == 3);
}

/// How an admin goes.
#[derive(Debug, Clone, Copy)]
enum Goes {
    Removed,
    /// A rotation into a member's, whose older keys are good for so many seconds more.
    Demoted(u64),
    Revoked,
    OneKey,
}

/// An admin sends another one away.
async fn away(teams: &Teams, by: &Actor, whom: &ApiKey, how: Goes) -> Result<(), TeamError> {
    let client = &whom.grant;
    match how {
        Goes::Removed => teams.remove(by, client, Insist::No).await,
        Goes::Demoted(grace) => {
            let scopes = Role::Member.scopes();
            let spec = KeySpec { client: client.clone(), scopes, days: 1 };
            teams.rotate(by, &spec, Duration::from_secs(grace)).await.map(drop)
        }
        Goes::Revoked => teams.revoke_client(by, client, Insist::No).await,
        Goes::OneKey => teams.revoke_key(by, whom.id, Insist::No).await,
    }
}

#[tokio::test]
async fn of_two_admins_who_send_each_other_away_at_the_same_time_one_stays() {
    let house = House::open();
    let next_door = house.next_door();
    let ways = [Goes::Removed, Goes::Demoted(0), Goes::Demoted(3600), Goes::Revoked, Goes::OneKey];
    let pairs = ways.iter().flat_map(|one| ways.iter().map(move |other| (*one, *other)));
    for (round, (one, other)) in pairs.chain([(Goes::Removed, Goes::Removed); 10]).enumerate() {
        let tenant: Tenant = format!("team-{round}").parse().unwrap();
        let operator = Actor::operator(tenant.clone());
        let admin = async |name: &str| {
            let scopes = Role::Admin.scopes();
            let spec = KeySpec { client: grant(name), scopes, days: 1 };
            let key = house.teams.issue(&operator, &spec).await.unwrap().key;
            let principal = Principal::proved(tenant.clone(), key.grant.clone(), scopes);
            (Actor::holder(&principal).unwrap(), key)
        };
        let ((ann, ann_key), (ben, ben_key)) = (admin("ann").await, admin("ben").await);
        let (by_ann, by_ben) = tokio::join!(
            away(&house.teams, &ann, &ben_key, one),
            away(&next_door, &ben, &ann_key, other),
        );
        let who = format!("{one:?} {by_ann:?}, {other:?} {by_ben:?}");
        assert!(by_ann.is_ok() != by_ben.is_ok(), "{who}");
        assert_eq!(by_ann.and(by_ben), Err(TeamError::LastAdmin), "{who}");
        let keys = house.teams.keys(&operator).await.unwrap();
        let admins = keys.iter().filter(|it| Role::of(it.key.scopes) == Role::Admin);
        assert_eq!(admins.filter(|it| it.state == "good").count(), 1, "{who}");
    }
}

#[tokio::test]
async fn without_redis_what_is_known_of_contacts_serves_for_a_time_and_then_nobody_may_write() {
    let mut house = House::open();
    let refuse_eve = serde_json::from_str(r#"{"block":["eve"]}"#).unwrap();
    house.teams.set_contacts(&acme(), grant("alice"), refuse_eve).await.unwrap();
    let stale = Duration::from_secs(10);
    let contacts = Contacts::kept_by(Arc::clone(&house.store), Known::default(), stale);
    let inbox = |name: &str| Inbox::from_name(name).unwrap();
    let verdict = async |from: &str, to: &str| contacts.verdict(&inbox(from), &inbox(to)).await;
    assert_eq!(verdict("acme/eve", "acme/alice").await, Ok(Verdict::NotTaken));
    let before = Instant::now();
    house.server.kill();
    assert_eq!(verdict("acme/bob", "acme/alice").await, Ok(Verdict::Taken), "known just now");
    assert_eq!(verdict("acme/eve", "acme/alice").await, Ok(Verdict::NotTaken));
    assert_eq!(
        verdict("beta/bob", "beta/bea").await,
        Err(Unknown),
        "of this team nothing is known"
    );
    while verdict("acme/bob", "acme/alice").await != Err(Unknown) {
        assert!(before.elapsed() < Duration::from_secs(40), "it ends");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before.elapsed() >= stale, "not before its time");
}

#[tokio::test]
async fn what_is_exported_can_be_imported_again_and_again() {
    let house = House::open();
    let code = house.invite(Some("alice")).await;
    let made = house.join(&code, None).await.unwrap();
    let open = house.invite(None).await;
    let policy = serde_json::from_str(r#"{"policy":"allow","allow":["bob.*","beta/*"]}"#).unwrap();
    house.teams.set_contacts(&acme(), grant("alice"), policy).await.unwrap();
    house.teams.set_teams(&acme(), ["beta".parse().unwrap()]).await.unwrap();
    let file = house.teams.export(&acme()).await.unwrap();
    let text = serde_json::to_string(&file).unwrap();
    let sealed = secrecy::ExposeSecret::expose_secret(&made.sealed).to_owned();
    for secret in [&code, &open, &sealed] {
        assert!(!text.contains(secret.rsplit('.').next().unwrap()), "{text}");
    }
    assert!(!text.contains("digest") && !text.contains("mbk_") && !text.contains("mbj_"), "{text}");

    let elsewhere = House::open();
    let other = Actor::operator("other".parse().unwrap());
    let read = serde_json::from_str(&text).unwrap();
    for _ in 0..2 {
        elsewhere.teams.import(&other, &read).await.unwrap();
        let tenant = "other".parse().unwrap();
        assert_eq!(elsewhere.store.team(&tenant).await.unwrap().revision, 1, "once is enough");
        let back = elsewhere.teams.export(&other).await.unwrap();
        assert_eq!(
            (back.members, back.contacts, back.teams),
            (file.members.clone(), file.contacts.clone(), file.teams.clone())
        );
    }
    // Who was imported is a member: its id is not free, though it has no key yet.
    let spec = InviteSpec { role: Role::Member, client: None, hours: 1, days: 1 };
    let code = elsewhere.teams.invite(&other, &spec).await.unwrap();
    let taken = elsewhere.join(code.code.expose(), Some("alice")).await;
    assert_eq!(taken.map(drop).unwrap_err(), TeamError::Taken);
    let newer = text.replace("\"version\":1", "\"version\":2");
    let newer = serde_json::from_str(&newer).unwrap();
    let refused = elsewhere.teams.import(&other, &newer).await;
    assert_eq!(refused, Err(TeamError::Value("version", "1")));
}
