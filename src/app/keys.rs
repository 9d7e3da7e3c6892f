//! `mcp-messaging keys`: making, listing and taking back the keys of clients.
//!
//! A key is good because of its MAC, not because it stands in a list. So it can be made wherever a
//! master key is; Redis is needed to know the generation in force, to remember what was issued, and to
//! take it back.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use super::{
    StartError,
    auth::master_keys,
    commands::{self, say},
};
use crate::{
    auth::ApiKey,
    config::{Backend, Config},
    model::{
        Clock, Grant, InvalidGrant, NamedKey, Scope, Scopes, SystemClock, Tenant, rfc3339_seconds,
    },
    queue::{CredentialStore, FIRST_GENERATION, IssuedKey, KeyId, Revocations, redis::RedisQueue},
};

/// What can be done about keys.
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Makes a master key for `auth.master_keys` or `auth.master_keys_file`.
    Master,
    /// Makes a key for `encryption.keys` or `encryption.keys_file`.
    Encryption,
    /// Makes a key for a client and prints it, once.
    Issue(Issue),
    /// Lists the keys that were recorded when they were issued.
    List {
        /// Of this tenant.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
    },
    /// Makes a key of the next generation; older keys of the client are good for a while only.
    Rotate {
        /// For whom.
        #[command(flatten)]
        issue: Issue,
        /// Older keys are good for so many hours.
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        grace_hours: u64,
    },
    /// Takes back all keys of a client, or a single one. Servers know it within 10 seconds.
    Revoke {
        /// Of this tenant.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
        /// Which keys.
        #[command(flatten)]
        what: Which,
    },
}

impl KeysCommand {
    /// What a command makes that makes a secret of the configuration: it is asked before there is a usable one.
    #[must_use]
    pub fn secret(&self) -> Option<SecretString> {
        match self {
            Self::Master => Some(NamedKey::generate('m')),
            Self::Encryption => Some(NamedKey::generate('e')),
            Self::Issue(_) | Self::List { .. } | Self::Rotate { .. } | Self::Revoke { .. } => None,
        }
    }
}

/// For whom a key is.
#[derive(Args)]
pub struct Issue {
    /// The team of the client.
    #[arg(long, default_value = "default")]
    tenant: Tenant,
    /// The client id, or `alice.*` for every id that begins with `alice.`.
    #[arg(long)]
    client: Grant,
    /// What it allows: read, send, admin.
    #[arg(long, default_value = "read,send")]
    scopes: Scopes,
    /// It expires after so many days; 0: never.
    #[arg(long, default_value_t = 90)]
    days: u64,
}

/// Which keys are taken back.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// All keys of this client id, or of `alice.*`: give what they were issued for.
    #[arg(long)]
    client: Option<Grant>,
    /// The key with this id.
    #[arg(long, value_name = "ID")]
    key: Option<KeyId>,
}

const NEEDS_REDIS: &str = "the servers hear of it through Redis: set redis.url (REDIS_URL). Without Redis, put the id of \
                           the key into auth.revoked_keys and start the server again, or replace the master key";

/// How long a key for a look is good.
const PASSING_SECONDS: u64 = 300;

/// Does what the command says.
///
/// # Errors
/// No master key, no Redis where it is needed, or it does not answer.
pub fn run(config: &Config, command: KeysCommand) -> Result<(), StartError> {
    if let Some(secret) = command.secret() {
        say(secret.expose_secret());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = store(config)?;
        let needed = || store.as_ref().ok_or(StartError::Keys(NEEDS_REDIS.to_owned()));
        let done = match command {
            KeysCommand::Master | KeysCommand::Encryption => Ok(()),
            KeysCommand::Issue(issue) => make(config, &issue, None, store.as_ref()).await,
            KeysCommand::List { tenant } => list(needed()?, &tenant).await,
            KeysCommand::Rotate { issue, grace_hours } => {
                let grace = Duration::from_secs(grace_hours.saturating_mul(3600));
                make(config, &issue, Some(grace), Some(needed()?)).await
            }
            KeysCommand::Revoke { tenant, what } => take_back(needed()?, &tenant, &what).await,
        };
        match &store {
            Some(store) => commands::explained(store, done).await,
            None => done,
        }
    })
}

/// A key to look at a server of this configuration with: for the clients below `name` and for five minutes. It is recorded
/// nowhere and asks no Redis, so the name must be a new one, of which nothing was revoked.
///
/// # Errors
/// No master keys, or `name` cannot begin a client id.
pub fn passing(config: &Config, name: &str) -> Result<SecretString, StartError> {
    let masters = master_keys(config)?;
    let no_name = |error: InvalidGrant| StartError::Keys(format!("{name:?} {error}"));
    let grant = format!("{name}.*").parse().map_err(no_name)?;
    let scopes = [Scope::Read, Scope::Send].into_iter().collect();
    let ends = now_ms() / 1000 + PASSING_SECONDS;
    let key = ApiKey::new(Tenant::default(), grant, scopes, FIRST_GENERATION, Some(ends));
    Ok(key.seal(masters.current()))
}

fn store(config: &Config) -> Result<Option<RedisQueue>, StartError> {
    match config.backend() {
        Backend::Memory => Ok(None),
        Backend::Redis => commands::redis(config).map(Some),
    }
}

fn now_ms() -> u64 {
    SystemClock.now_us() / 1000
}

/// Seconds or milliseconds since the Unix epoch, to the second.
fn at(ms: u64) -> String {
    rfc3339_seconds(ms / 1000)
}

/// Makes a key. With `grace`: of the next generation, and the older ones end after that.
async fn make(
    config: &Config,
    issue: &Issue,
    grace: Option<Duration>,
    store: Option<&RedisQueue>,
) -> Result<(), StartError> {
    let masters = master_keys(config)?;
    let Issue { tenant, client, scopes, days } = issue;
    let now = now_ms();
    let mut told = String::new();
    let generation = match (store, grace) {
        (None, _) => {
            told.push_str("There is no Redis, so it was not recorded.\n");
            FIRST_GENERATION
        }
        (Some(store), None) => store.revocations(tenant).await?.generation(client),
        (Some(store), Some(grace)) => {
            let ends = now.saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
            told = format!("Older keys of {} are good until {}.\n", client.expose(), at(ends));
            store.begin_generation(tenant, client, ends).await?
        }
    };
    let expires_at = (*days > 0).then(|| (now / 1000).saturating_add(days.saturating_mul(86_400)));
    let key = ApiKey::new(tenant.clone(), client.clone(), *scopes, generation, expires_at);
    let master = masters.current();
    if let Some(store) = store {
        let issued = IssuedKey {
            id: key.id,
            master: master.name().to_string(),
            grant: client.clone(),
            scopes: *scopes,
            generation,
            issued_at: now / 1000,
            expires_at,
        };
        store.record_key(tenant, &issued).await?;
    }
    show(config, &key, &key.seal(master), &told);
    Ok(())
}

/// The key to standard output, and to standard error how to use it.
fn show(config: &Config, key: &ApiKey, sealed: &SecretString, told: &str) {
    let expires = key.expires_at.map_or("never".to_owned(), |seconds| at(seconds * 1000));
    let scheme = if config.http.tls_certificate_file.is_empty() { "http" } else { "https" };
    let (url, place) = match config.http.host.parse::<IpAddr>() {
        // It listens everywhere, which is no address to call.
        Ok(any) if any.is_unspecified() => {
            ("URL".to_owned(), ", and the server's address in place of URL")
        }
        Ok(_) | Err(_) => (format!("{scheme}://{}:{}/mcp", config.http.host, config.http.port), ""),
    };
    eprintln!(
        "Key {id} of {client} in tenant {tenant}: {scopes}; generation {generation}; expires {expires}.\n\
         {told}It is not shown again. Put it in place of KEY{place}:\n\n  \
         claude mcp add --transport http messaging {url} --header \"Authorization: Bearer KEY\"\n\n  \
         {{ \"mcpServers\": {{ \"messaging\": {{ \"type\": \"http\", \"url\": \"{url}\", \
         \"headers\": {{ \"Authorization\": \"Bearer KEY\" }} }} }} }}\n",
        id = key.id,
        client = key.grant.expose(),
        tenant = key.tenant.as_str(),
        scopes = key.scopes,
        generation = key.generation,
    );
    say(sealed.expose_secret());
}

async fn list(store: &RedisQueue, tenant: &Tenant) -> Result<(), StartError> {
    let (keys, rules) = (store.recorded_keys(tenant).await?, store.revocations(tenant).await?);
    eprintln!(
        "Keys of tenant {} that were recorded when they were issued. Whoever has a master key can make others: a key is \
         good by its MAC, not by this list.",
        tenant.as_str()
    );
    say(
        "id                generation  issued                expires               state                       master            scopes, client",
    );
    for key in keys {
        let expires = key.expires_at.map_or("never".to_owned(), |seconds| at(seconds * 1000));
        say(&format!(
            "{}  {:<10}  {}  {expires:<20}  {:<26}  {:<16}  {}, {}",
            key.id,
            key.generation,
            at(key.issued_at * 1000),
            state(&key, &rules, now_ms()),
            key.master,
            key.scopes,
            key.grant.expose()
        ));
    }
    Ok(())
}

fn state(key: &IssuedKey, rules: &Revocations, now_ms: u64) -> String {
    let ends = rules.ends(&key.grant, key.generation);
    if rules.names(key.id) || ends.is_some_and(|ends| ends <= now_ms) {
        return "revoked".to_owned();
    }
    if key.expires_at.is_some_and(|expires_at| expires_at.saturating_mul(1000) <= now_ms) {
        return "expired".to_owned();
    }
    ends.map_or("good".to_owned(), |ends| format!("until {}", at(ends)))
}

async fn take_back(store: &RedisQueue, tenant: &Tenant, what: &Which) -> Result<(), StartError> {
    if let Some(client) = &what.client {
        let recorded = store.recorded_keys(tenant).await?.iter().any(|key| key.grant == *client);
        let generation = store.begin_generation(tenant, client, 0).await?;
        say(&format!(
            "all keys of {} in tenant {} are revoked; new ones are of generation {generation}",
            client.expose(),
            tenant.as_str()
        ));
        if !recorded {
            eprintln!(
                "No key of {} was recorded there: see by `keys list` that it is who was meant.",
                client.expose()
            );
        }
    }
    if let Some(key) = what.key {
        store.revoke_key(tenant, key).await?;
        say(&format!("key {key} of tenant {} is revoked", tenant.as_str()));
    }
    eprintln!("Servers that hold keys to be good know it within 10 seconds.");
    Ok(())
}
