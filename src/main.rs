//! The `mcp-messaging` command.

use std::{
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use mcp_messaging::{
    app,
    config::Config,
    outside::{self, Endpoint, Hook, InvalidEndpoint, Letter, Pace, Questions, Told},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

/// Exit code for what is not there yet: `EX_TEMPFAIL`.
const TRY_AGAIN: u8 = 75;

/// The mailbox through which AI agents talk to each other, over plain MCP.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// A TOML file with settings; deploy/config/default.toml lists them all.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Listen here in place of `MCP_SERVER_HOST`.
    #[arg(long, global = true)]
    host: Option<String>,

    /// Listen on this port in place of `MCP_SERVER_PORT`.
    #[arg(long, global = true)]
    port: Option<u16>,

    /// Keep messages in `memory` or `redis`, in place of `QUEUE_BACKEND`.
    #[arg(long, global = true)]
    queue_backend: Option<String>,

    /// Accepted for the sake of older start scripts; there is no other transport.
    #[arg(long, global = true, hide = true, value_parser = ["streamable-http"])]
    transport: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves agents (the default).
    Serve,
    /// Loads the Redis Functions and ends. Serving does it too, if its Redis user may.
    Migrate,
    /// Says whether the configuration is usable, and prints it.
    CheckConfig,
    /// Makes, lists and takes back the keys of clients (`auth.mode = key`).
    Keys {
        #[command(subcommand)]
        command: app::keys::KeysCommand,
    },
    /// Lists pairs of clients that are paused because they look like a loop, and ends a pause.
    Pairs {
        #[command(subcommand)]
        command: app::pairs::PairsCommand,
    },
    /// Invites into a team, lists and removes its members, saves and restores it (`auth.mode = key`).
    Team {
        #[command(subcommand)]
        command: app::team::TeamCommand,
    },
    /// Joins a team by a code, and prints the key that comes of it, once.
    Join {
        /// The mailbox, such as <http://localhost:8123>.
        #[arg(long, env = "MCP_MESSAGING_URL")]
        url: String,
        /// The join code. Better by the environment: arguments are seen by others.
        #[arg(long, env = "MCP_MESSAGING_CODE", hide_env_values = true)]
        code: String,
        /// The client id that you want to be, if the code leaves a choice.
        #[arg(long)]
        client: Option<String>,
        /// A PEM file with the authority of the server's certificate, in place of the system's.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Asks the server on this machine whether it is ready: exit code 0 or 1.
    Healthcheck,
    /// Looks at an installation from outside, as a client does, and says what to mend: exit code 0 or 1.
    Doctor {
        #[command(flatten)]
        place: Place,
        /// Where /readyz is served, if not beside the mailbox: <http://localhost:9090>.
        #[arg(long, value_name = "URL")]
        ops_url: Option<String>,
        /// Come with a key made for this look alone, by the master keys of the configuration: good for five minutes and for
        /// the clients that the doctor plays. Only for a server that is yours: it gets to see the key.
        #[arg(long, conflicts_with = "key")]
        make_key: bool,
        /// Readers that are woken, each on a connection of its own. The more, the likelier each replica has one.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=100))]
        readers: u16,
        /// Says it for programs.
        #[arg(long)]
        json: bool,
    },
    /// Sends a message from a shell or a CI job. Exit code 0: accepted (with --wait: answered), 75: no answer in time.
    Send {
        #[command(flatten)]
        desk: Desk,
        /// To whom; again for each further recipient.
        #[arg(long, required = true, value_name = "CLIENT")]
        to: Vec<String>,
        /// Wait so many seconds for the answer.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        /// The id of the message that it answers.
        #[arg(long, value_name = "MESSAGE_ID")]
        in_reply_to: Option<String>,
        /// Sent again with the same key it is the same message: for scripts that try again.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// How many seconds it lives if nobody takes it.
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        /// Prints the answer for programs.
        #[arg(long)]
        json: bool,
        /// The text; `-` or nothing: what comes on standard input.
        text: Option<String>,
    },
    /// Takes the messages of a client and prints them. Exit code 0: there were some, 75: there were none.
    Inbox {
        #[command(flatten)]
        desk: Desk,
        /// If there are none, wait so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Prints each portion for programs, one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// For the hooks of Claude Code, Codex and Cursor: tells their agent that mail waits (docs/clients.md has the settings).
    Hook {
        #[command(flatten)]
        desk: Desk,
        /// If there is none, wait so many seconds. The host's own timeout for the hook must be longer.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Wake an idle session: for a hook with `asyncRewake` of Claude Code.
        #[arg(long)]
        rewake: bool,
        /// What Claude Code says of a run without a terminal: 0. There no session idles, and the run would last as long as
        /// its hook.
        #[arg(long, env = "CLAUDE_CODE_SESSION_ATTENDED", hide = true)]
        attended: Option<String>,
        /// Where it is kept what a session was told, in place of ~/.local/state.
        #[arg(long, env = "XDG_STATE_HOME", value_name = "DIRECTORY", hide_env = true)]
        state: Option<PathBuf>,
    },
    /// Two agents that talk, so that there is something to see.
    Demo {
        #[command(flatten)]
        place: Place,
        /// Questions a second.
        #[arg(long, default_value_t = 2.0, value_parser = rate)]
        rate: f64,
        /// Ends after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
}

/// A mailbox somewhere.
#[derive(Args)]
struct Place {
    /// The mailbox, such as <http://localhost:8123/mcp>.
    #[arg(long, env = "MCP_MESSAGING_URL")]
    url: String,
    /// A credential, sent as `Authorization: Bearer`: the doctor's must be one for `doctor.*`, the demo's for `demo.*`.
    /// Better by the environment: arguments are seen by others.
    #[arg(long, env = "MCP_MESSAGING_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A PEM file with the authority of the server's certificate, in place of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A mailbox, and whose mail it is about.
#[derive(Args)]
struct Desk {
    /// The mailbox.
    #[arg(long, env = "MCP_MESSAGING_URL", default_value = "http://localhost:8123/mcp")]
    url: String,
    /// Who you are. Needed unless the key is that of one client.
    #[arg(long, env = "MCP_MESSAGING_CLIENT")]
    client: Option<String>,
    /// Your key. Better by the environment: arguments are seen by others.
    #[arg(long, env = "MCP_MESSAGING_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A PEM file with the authority of the server's certificate, in place of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Desk {
    fn endpoint(&self) -> Result<Endpoint, InvalidEndpoint> {
        let key = self.key.as_deref().filter(|key| !key.is_empty());
        Endpoint::new(&self.url, key, self.ca.as_deref())
    }
}

impl Place {
    /// As who `made` says, or else as who was said.
    fn endpoint(&self, url: &str, made: Option<&str>) -> Result<Endpoint, InvalidEndpoint> {
        let key = made.or(self.key.as_deref()).filter(|key| !key.is_empty());
        Endpoint::new(url, key, self.ca.as_deref())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=1000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("must be a number from 0.01 to 1000".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // These may ask somebody else's server: what is configured here is theirs only if --make-key says so.
    let looked = match &cli.command {
        Some(Command::Doctor { place, ops_url, make_key, readers, json }) => {
            let name = outside::new_name();
            let made = make_key.then(|| made_key(cli.config.as_deref(), &name)).transpose();
            Some(made.and_then(|made| {
                doctor(place, ops_url.as_deref(), name, made.as_ref(), *readers, *json)
            }))
        }
        Some(Command::Demo { place, rate, seconds }) => Some(demo(place, *rate, *seconds)),
        Some(Command::Join { url, code, client, ca }) => {
            Some(join(url, code, client.as_deref(), ca.as_deref()))
        }
        Some(Command::Send { desk, to, wait, in_reply_to, idempotency_key, ttl, json, text }) => {
            let letter = |text| Letter {
                from: desk.client.clone(),
                to: to.clone(),
                text,
                wait: wait.map(Duration::from_secs),
                in_reply_to: in_reply_to.clone(),
                idempotency_key: idempotency_key.clone(),
                ttl: *ttl,
            };
            Some(text_of(text.as_deref()).and_then(|text| send(desk, &letter(text), *json)))
        }
        Some(Command::Inbox { desk, wait, json }) => Some(inbox(desk, *wait, *json)),
        Some(Command::Hook { desk, wait, rewake, attended, state }) => {
            let idles = !(*rewake && attended.as_deref() == Some("0"));
            Some(hook(desk, if idles { *wait } else { 0 }, *rewake, state.as_deref()))
        }
        Some(
            Command::Serve
            | Command::Migrate
            | Command::CheckConfig
            | Command::Healthcheck
            | Command::Keys { .. }
            | Command::Pairs { .. }
            | Command::Team { .. },
        )
        | None => None,
    };
    if let Some(looked) = looked {
        return looked.unwrap_or_else(|error| {
            eprintln!("mcp-messaging: {error}");
            ExitCode::from(64) // EX_USAGE
        });
    }
    if let Some(Command::Keys { command }) = &cli.command
        && let Some(secret) = command.secret()
    {
        say(secret.expose_secret());
        return ExitCode::SUCCESS;
    }
    let overrides = [
        ("MCP_SERVER_HOST", cli.host),
        ("MCP_SERVER_PORT", cli.port.map(|port| port.to_string())),
        ("QUEUE_BACKEND", cli.queue_backend),
    ];
    let overrides = overrides.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let config = match Config::load(cli.config.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mcp-messaging: {error}");
            return ExitCode::from(78); // EX_CONFIG
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => app::serve(&config),
        Command::Migrate => app::migrate(&config),
        Command::CheckConfig => app::check_config(&config),
        Command::Keys { command } => app::keys::run(&config, command),
        Command::Pairs { command } => app::pairs::run(&config, &command),
        Command::Team { command } => app::team::run(&config, command),
        Command::Healthcheck => app::healthcheck(&config),
        Command::Doctor { .. }
        | Command::Demo { .. }
        | Command::Join { .. }
        | Command::Send { .. }
        | Command::Inbox { .. }
        | Command::Hook { .. } => Ok(()), // done above
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

type Looked = Result<ExitCode, Box<dyn std::error::Error>>;

/// A key for the clients below `name`, by the master keys of the configuration.
fn made_key(file: Option<&Path>, name: &str) -> Result<SecretString, Box<dyn std::error::Error>> {
    Ok(app::keys::passing(&Config::load(file, std::iter::empty())?, name)?)
}

fn doctor(
    place: &Place,
    ops_url: Option<&str>,
    name: String,
    made: Option<&SecretString>,
    readers: u16,
    json: bool,
) -> Looked {
    let key = made.map(ExposeSecret::expose_secret);
    let questions = Questions {
        endpoint: place.endpoint(&place.url, key)?,
        // Readiness asks for no key.
        ops: ops_url.map(|url| place.endpoint(url, None)).transpose()?,
        name,
        readers: readers.into(),
    };
    let runtime = runtime()?;
    let diagnosis = runtime.block_on(outside::examine(&questions));
    say(&if json { serde_json::to_string_pretty(&diagnosis)? } else { diagnosis.to_string() });
    Ok(if diagnosis.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn demo(place: &Place, rate: f64, seconds: Option<u64>) -> Looked {
    let (endpoint, lasts) = (place.endpoint(&place.url, None)?, seconds.map(Duration::from_secs));
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            () = outside::demonstrate(&endpoint, Pace { rate, lasts }, |text| say(&text)) => {}
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn join(url: &str, code: &str, client: Option<&str>, authority: Option<&Path>) -> Looked {
    let endpoint = Endpoint::new(url, None, authority)?;
    let runtime = runtime()?;
    Ok(match runtime.block_on(outside::join(&endpoint, code, client)) {
        Ok(joined) => {
            eprintln!("{}", joined.told);
            say(joined.key.expose_secret());
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    })
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What is to be sent.
fn text_of(given: Option<&str>) -> Result<String, Box<dyn std::error::Error>> {
    match given {
        Some(text) if text != "-" => Ok(text.to_owned()),
        Some(_) | None => Ok(std::io::read_to_string(std::io::stdin())?),
    }
}

fn send(desk: &Desk, letter: &Letter, json: bool) -> Looked {
    let endpoint = desk.endpoint()?;
    let runtime = runtime()?;
    Ok(match runtime.block_on(outside::send(&endpoint, letter)) {
        Ok((said, done)) => {
            say(&said.shown(json));
            if done { ExitCode::SUCCESS } else { ExitCode::from(TRY_AGAIN) }
        }
        Err(error) => failed(&error),
    })
}

fn inbox(desk: &Desk, wait: u64, json: bool) -> Looked {
    let endpoint = desk.endpoint()?;
    let runtime = runtime()?;
    let wait = Duration::from_secs(wait);
    let received = outside::receive(&endpoint, desk.client.as_deref(), wait, |said| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", said.shown(json))?;
        out.flush()
    });
    Ok(match runtime.block_on(received) {
        Ok(0) => ExitCode::from(TRY_AGAIN),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    })
}

fn hook(desk: &Desk, wait: u64, rewake: bool, state: Option<&Path>) -> Looked {
    let home = || std::env::home_dir().map(|home| home.join(".local/state"));
    let state =
        state.map(Path::to_owned).or_else(home).ok_or("--state is needed: there is no home")?;
    let hook = Hook {
        endpoint: desk.endpoint()?,
        client: desk.client.clone(),
        wait: Duration::from_secs(wait),
        rewake,
        state: state.join("mcp-messaging").join("hooks"),
    };
    if std::io::stdin().is_terminal() {
        return Err("hook: a host runs this, and hands the event over on standard input".into());
    }
    let mut event = Vec::new();
    std::io::stdin().lock().read_to_end(&mut event)?;
    let runtime = runtime()?;
    Ok(match runtime.block_on(hook.run(&event)) {
        Ok(Told::Nothing) => ExitCode::SUCCESS,
        Ok(Told::Answer(text)) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Ok(Told::Rewake(text)) => {
            eprintln!("{text}");
            ExitCode::from(2) // what asyncRewake listens for
        }
        Err(error) => failed(&error),
    })
}

fn failed(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("mcp-messaging: {error}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
