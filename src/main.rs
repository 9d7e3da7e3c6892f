//! The `mcp-messaging` command.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use mcp_messaging::{app, config::Config};

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
    /// Asks the server on this machine whether it is ready: exit code 0 or 1.
    Healthcheck,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
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
        Command::Healthcheck => app::healthcheck(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-messaging: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
