//! Keys, from the product's own commands.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{Outcome, process::Server};

/// The setting that names master keys.
pub(crate) const MASTERS: &str = "MCP_MESSAGING__AUTH__MASTER_KEYS";
/// Commands at once: each of them mostly waits for Redis.
const AT_ONCE: usize = 16;

/// A new master key.
pub(crate) fn master(product: &Path) -> Outcome<String> {
    printed(&Command::new(product).args(["keys", "master"]).output()?)
}

/// A key for each of these clients, recorded in this Redis.
pub(crate) fn issue(
    product: &Path,
    master: &str,
    redis: &Server,
    clients: &[String],
) -> Outcome<Vec<String>> {
    let mut keys = Vec::with_capacity(clients.len());
    for some in clients.chunks(AT_ONCE) {
        let commands = some.iter().map(|client| {
            Command::new(product)
                .args(["keys", "issue", "--client", client])
                .env("MCP_MESSAGING__AUTH__MODE", "key")
                .env(MASTERS, master)
                .env("REDIS_URL", redis.redis_url())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        });
        for command in commands.collect::<Result<Vec<_>, _>>()? {
            keys.push(printed(&command.wait_with_output()?)?);
        }
    }
    Ok(keys)
}

/// What a command printed on standard output, once it succeeded.
fn printed(output: &Output) -> Outcome<String> {
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout.clone())?.trim().to_owned())
}
