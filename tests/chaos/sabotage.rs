//! Ways to break the product from outside, so that the checker must find it: whoever never fails proves nothing.
//!
//! The library in Redis is replaced by one of a higher revision, which no replica overwrites.

use clap::ValueEnum;

use crate::{Outcome, checker::Verdict};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// A fetch takes messages out at once, in place of leasing them.
    Pop,
    /// Wake-ups are dropped on the wire, and the probes that would find it are let through.
    Deaf,
    /// A send is answered before it is written: the next call writes it.
    EarlyAck,
}

/// The product's own library.
pub(crate) const LIBRARY: &str = include_str!("../../migrations/functions/mb1.lua");

const POP: &str = "
local function popping(keys, a)
  local answer = fetch(keys, a)
  local kind, _, _, _, _, _, _, upto = struct.unpack('>BBdddddd', answer[1])
  local options = struct.unpack(FETCH, a[1])
  if kind == 1 then ack({ keys[1], keys[2], keys[5] }, { struct.pack('>BBd', options, 0, upto) }) end
  return answer
end
register('fetch', popping, 'allow-oom')";

const EARLY_ACK: &str = "
local unwritten
local function early(keys, a)
  if unwritten then send(unwritten[1], unwritten[2]) end
  unwritten = { keys, a }
  local us, now = clock()
  local _, _, ttl, _, _, _, _, _, _, id = struct.unpack(SEND, a[1])
  return sent(0, id, 0, 0, 0, us, now + ttl, 'q')
end
register('send', early)";

impl Sabotage {
    /// The library to load in place of the product's.
    pub(crate) fn library(self) -> Outcome<Option<String>> {
        let (registered, replacement) = match self {
            Self::Pop => ("\nregister('fetch', fetch, 'allow-oom')", POP),
            Self::EarlyAck => ("\nregister('send', send)", EARLY_ACK),
            Self::Deaf => return Ok(None),
        };
        let revision = LIBRARY.lines().find(|line| line.starts_with("local REVISION = "));
        let revision = revision.ok_or("the library has no revision")?;
        if !LIBRARY.contains(registered) {
            return Err(format!("the library has no {registered:?}: this sabotage is stale").into());
        }
        let broken = LIBRARY.replace(registered, replacement);
        Ok(Some(broken.replace(revision, "local REVISION = 1000000")))
    }

    /// Why it was not found, if it was not.
    pub(crate) fn unnoticed(self, verdict: &Verdict, missed_wake_ups: u64) -> Option<&'static str> {
        match self {
            Self::Pop | Self::EarlyAck => (verdict.lost == 0).then_some("nothing was lost"),
            Self::Deaf => (missed_wake_ups == 0).then_some("no wake-up was missed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_library_is_another_one() {
        for sabotage in [Sabotage::Pop, Sabotage::EarlyAck] {
            let library = sabotage.library().unwrap().unwrap();
            assert!(library.contains("local REVISION = 1000000\n"));
            assert_ne!(library.lines().count(), LIBRARY.lines().count());
        }
    }
}
