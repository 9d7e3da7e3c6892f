//! How many bad credentials an address may send before the next ones are not looked at.
//!
//! A credential costs its address a permit before it is checked, and gives it back when it is good: so addresses
//! pay for what is bad, also for what is checked at the same time. Who finds no permit is held back for a while and
//! tries once more; then it is told when to come again. One connection can so make one attempt a second, and what
//! it costs to check is bounded whatever comes.
//!
//! Many good clients may stand behind the address of one bad one. What was good in this process during the last
//! hour needs no permit: it is known by a keyed hash, which lets it be checked and no more. So only a credential
//! that is new here competes with the bad ones. As they are held back, it has a fair chance each time; how fair,
//! the number of connections of the others decides.
//!
//! A request without a credential costs nothing to refuse and guesses nothing: it is not counted.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    time::Duration,
};

use actix_web::{
    HttpRequest,
    http::header::{AUTHORIZATION, HeaderValue},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    address::{self, ForwardedHeader},
    state::HttpConfig,
};
use crate::model::{Network, Rate};

/// Who finds no permit waits so long for its second try.
const HELD_BACK: Duration = Duration::from_secs(1);
/// What was good is remembered for so long after it was last seen.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Most addresses that are counted one by one; further ones are counted together.
const ADDRESSES: usize = 65_536;
/// How often what is over is looked for when there is no room.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);
/// Most credentials that are remembered.
const CREDENTIALS: usize = 65_536;

/// The guard of a process.
pub(super) struct Guard {
    rate: Option<Rate>,
    trusted: Vec<Network>,
    header: ForwardedHeader,
    /// Microseconds since it began.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    hasher: RandomState,
    /// A panic under the lock leaves the maps whole: every change is one call.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// As [`Rate::take`] has it, by address; the ones beyond [`ADDRESSES`] under `None`.
    addresses: HashMap<Option<IpAddr>, u64>,
    /// When a credential was good last.
    good: HashMap<u64, u64>,
    /// When room was made last: to look at all of them takes too long for each request of a flood.
    made_room_us: u64,
}

impl Seen {
    /// Drops what is over, if it is full and that was not done just now.
    fn make_room(&mut self, now_us: u64) {
        let (addresses, good) = (&mut self.addresses, &mut self.good);
        let full = addresses.len() >= ADDRESSES || good.len() >= CREDENTIALS;
        if !full || now_us.saturating_sub(self.made_room_us) < micros(MAKE_ROOM_EVERY) {
            return;
        }
        self.made_room_us = now_us;
        addresses.retain(|_address, until_us| *until_us > now_us);
        let long_ago = now_us.saturating_sub(micros(REMEMBERED));
        good.retain(|_credential, at_us| *at_us > long_ago);
    }
}

/// Too many bad ones came from this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) retry_after: Duration,
}

/// A credential that may be checked. Say what it was; one that is dropped counts as bad.
#[must_use = "a good one is to be told so"]
pub(super) struct Attempt<'a> {
    guard: &'a Guard,
    rate: Rate,
    address: Option<IpAddr>,
    credential: u64,
    /// It was let in without a permit.
    known: bool,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Guard {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let began = Instant::now();
        Self {
            rate: config.failures,
            trusted: config.trusted_proxies.clone(),
            header: config.forwarded_header,
            clock: Box::new(move || micros(began.elapsed())),
            hasher: RandomState::new(),
            seen: Mutex::default(),
        }
    }

    /// Lets a request's credential be checked: what its `Authorization` says. `None`: there is nothing to count.
    ///
    /// # Errors
    /// Its address has no permit, also not after a while.
    pub(super) async fn attempt(
        &self,
        request: &HttpRequest,
        stop: &CancellationToken,
    ) -> Result<Option<Attempt<'_>>, TooMany> {
        let mut values = request.headers().get_all(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some(first) = values.next() else { return Ok(None) };
        self.attempt_with(&(first, values.next()), request, stop).await
    }

    /// The same for a credential that stands elsewhere.
    pub(super) async fn attempt_with(
        &self,
        credential: &(impl Hash + ?Sized),
        request: &HttpRequest,
        stop: &CancellationToken,
    ) -> Result<Option<Attempt<'_>>, TooMany> {
        let Some(rate) = self.rate else { return Ok(None) };
        let credential = self.hasher.hash_one(credential);
        let from = |peer: std::net::SocketAddr| {
            let client = address::client(peer.ip(), request.headers(), self.header, &self.trusted);
            address::counted_as(client)
        };
        let address = request.peer_addr().map(from);
        let attempt = |known| Attempt { guard: self, rate, address, credential, known };
        if self.remembers(credential) {
            return Ok(Some(attempt(true)));
        }
        if self.take(address, rate).is_ok() {
            return Ok(Some(attempt(false)));
        }
        tokio::select! {
            () = tokio::time::sleep(HELD_BACK) => {}
            () = stop.cancelled() => {}
        }
        match self.take(address, rate) {
            Ok(()) => Ok(Some(attempt(false))),
            Err(retry_after) => Err(TooMany { retry_after }),
        }
    }

    fn now_us(&self) -> u64 {
        // Zero is what is over: the beginning is after it.
        (self.clock)().saturating_add(1)
    }

    fn remembers(&self, credential: u64) -> bool {
        let mut seen = self.seen.lock();
        let now_us = self.now_us();
        let Some(at_us) = seen.good.get_mut(&credential) else { return false };
        let fresh = now_us.saturating_sub(*at_us) < micros(REMEMBERED);
        if fresh {
            *at_us = now_us;
        }
        fresh
    }

    fn take(&self, address: Option<IpAddr>, rate: Rate) -> Result<(), Duration> {
        let mut seen = self.seen.lock();
        let now_us = self.now_us();
        seen.make_room(now_us);
        let known = seen.addresses.len() < ADDRESSES || seen.addresses.contains_key(&address);
        let until_us = seen.addresses.entry(address.filter(|_address| known)).or_default();
        rate.take(until_us, now_us, 1, 1).map(|_one| ())
    }
}

impl Attempt<'_> {
    /// It was good.
    pub(super) fn good(self) {
        if self.known {
            return; // noted when it was let in
        }
        self.undecided();
        let mut seen = self.guard.seen.lock();
        let now_us = self.guard.now_us();
        seen.make_room(now_us);
        if seen.good.len() < CREDENTIALS || seen.good.contains_key(&self.credential) {
            seen.good.insert(self.credential, now_us);
        } // else it pays for each check in advance, and has it back
    }

    /// Nobody knows: it costs nothing.
    pub(super) fn undecided(&self) {
        if self.known {
            return;
        }
        let mut seen = self.guard.seen.lock();
        let listed = seen.addresses.contains_key(&self.address);
        let address = self.address.filter(|_address| listed);
        if let Some(until_us) = seen.addresses.get_mut(&address) {
            self.rate.give_back(until_us, 1);
        }
    }

    /// It was bad.
    pub(super) fn bad(self) {
        if self.known {
            self.guard.seen.lock().good.remove(&self.credential);
            // It was good until now: the next time it pays. That it costs more than there is, is no error.
            let _ = self.guard.take(self.address, self.rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use actix_web::test::TestRequest;

    use super::*;

    /// A guard, and what lets time pass for it. Who is held back is so in reality.
    fn guard(per_minute: u32, burst: u32) -> (Guard, impl Fn(Duration)) {
        let failures = Rate::new(per_minute, Duration::from_secs(60), burst);
        let guard = Guard::new(&HttpConfig { failures, ..HttpConfig::default() });
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let guard = Guard { clock: Box::new(move || clock.load(Ordering::SeqCst)), ..guard };
        (guard, move |time| {
            now.fetch_add(micros(time), Ordering::SeqCst);
        })
    }

    fn request(peer: &str, key: &str) -> HttpRequest {
        let peer = format!("{peer}:1").parse().unwrap();
        TestRequest::default()
            .peer_addr(peer)
            .insert_header((AUTHORIZATION, format!("Bearer {key}")))
            .to_http_request()
    }

    async fn attempt<'a>(guard: &'a Guard, peer: &str, key: &str) -> Result<Attempt<'a>, TooMany> {
        let stop = CancellationToken::new();
        let attempt = guard.attempt(&request(peer, key), &stop).await?;
        Ok(attempt.expect("a credential is counted"))
    }

    /// Without the patience that is shown to clients.
    async fn at_once<'a>(guard: &'a Guard, peer: &str, key: &str) -> Result<Attempt<'a>, TooMany> {
        let stop = CancellationToken::new();
        stop.cancel();
        let attempt = guard.attempt(&request(peer, key), &stop).await?;
        Ok(attempt.expect("a credential is counted"))
    }

    #[tokio::test]
    async fn a_bad_one_costs_its_address_and_a_good_one_does_not() {
        let (guard, pass) = guard(6, 3);
        for round in 0..20 {
            at_once(&guard, "192.0.2.1", &format!("good {round}")).await.unwrap().good();
            at_once(&guard, "192.0.2.1", &format!("unclear {round}")).await.unwrap().undecided();
        }
        for round in 0..3 {
            at_once(&guard, "192.0.2.1", &format!("bad {round}")).await.unwrap().bad();
        }
        let began = Instant::now();
        let refused = attempt(&guard, "192.0.2.1", "bad").await.map(|_attempt| ()).unwrap_err();
        assert!(began.elapsed() >= HELD_BACK, "it was told at once");
        assert_eq!(refused.retry_after, Duration::from_secs(10));
        // Another address, and what is known to be good, are not held up.
        at_once(&guard, "192.0.2.2", "bad").await.unwrap().bad();
        at_once(&guard, "192.0.2.1", "good 7").await.unwrap().good();
        assert!(at_once(&guard, "192.0.2.1", "never seen").await.is_err());
        // Who comes when it was told to is looked at, be it new.
        pass(refused.retry_after);
        at_once(&guard, "192.0.2.1", "never seen").await.unwrap().good();
    }

    #[tokio::test]
    async fn what_is_checked_at_the_same_time_is_paid_at_the_same_time() {
        let (guard, _pass) = guard(6, 2);
        let one = at_once(&guard, "192.0.2.1", "one").await.unwrap();
        let dropped = at_once(&guard, "192.0.2.1", "two").await.unwrap();
        assert!(at_once(&guard, "192.0.2.1", "three").await.is_err());
        one.good();
        at_once(&guard, "192.0.2.1", "three").await.unwrap().bad();
        drop(dropped);
        assert!(at_once(&guard, "192.0.2.1", "four").await.is_err(), "a dropped one counts");
    }

    #[tokio::test]
    async fn who_is_held_back_gets_the_permit_that_comes_meanwhile() {
        let (guard, pass) = guard(60, 1);
        at_once(&guard, "192.0.2.1", "bad").await.unwrap().bad();
        let waits = attempt(&guard, "192.0.2.1", "never seen");
        let (attempt, ()) = tokio::join!(waits, async { pass(Duration::from_secs(1)) });
        attempt.unwrap().good();
    }

    #[tokio::test]
    async fn a_credential_that_ends_is_not_known_any_more_and_counts() {
        let (guard, pass) = guard(1, 2);
        at_once(&guard, "192.0.2.1", "mine").await.unwrap().good();
        at_once(&guard, "192.0.2.1", "mine").await.unwrap().bad();
        at_once(&guard, "192.0.2.1", "mine").await.unwrap().bad();
        assert!(at_once(&guard, "192.0.2.1", "mine").await.is_err());
        at_once(&guard, "192.0.2.9", "other").await.unwrap().good();
        for (passes, is_known) in [(3599, true), (3600, false)] {
            pass(Duration::from_secs(passes));
            for round in 0..2 {
                at_once(&guard, "192.0.2.9", &format!("bad {round}")).await.unwrap().bad();
            }
            // Known for an hour after it was seen last, and then as good as new.
            assert_eq!(at_once(&guard, "192.0.2.9", "other").await.is_ok(), is_known);
        }
    }

    #[tokio::test]
    async fn a_network_of_ipv6_is_one_address() {
        let (guard, _pass) = guard(1, 1);
        at_once(&guard, "[2001:db8::1]", "bad").await.unwrap().bad();
        assert!(at_once(&guard, "[2001:db8::ffff:2]", "bad").await.is_err());
        at_once(&guard, "[2001:db8:0:1::1]", "bad").await.unwrap().bad();
    }

    #[tokio::test]
    async fn a_crowd_of_addresses_is_counted_together_and_takes_no_more_room() {
        let (guard, pass) = guard(1, 1);
        for number in 0..u32::try_from(ADDRESSES).unwrap() {
            let address = IpAddr::from(number.to_be_bytes());
            assert_eq!(guard.take(Some(address), guard.rate.unwrap()), Ok(()));
        }
        at_once(&guard, "203.0.113.1", "bad").await.unwrap().bad();
        assert!(at_once(&guard, "203.0.113.2", "bad").await.is_err(), "they share what is left");
        assert_eq!(guard.seen.lock().addresses.len(), ADDRESSES + 1);
        pass(Duration::from_secs(60));
        at_once(&guard, "203.0.113.2", "bad").await.unwrap().bad();
        assert!(guard.seen.lock().addresses.len() < 3, "what is over goes");
    }

    #[tokio::test]
    async fn without_a_credential_or_a_limit_nothing_is_counted() {
        let stop = CancellationToken::new();
        let bare = TestRequest::default().to_http_request();
        assert!(guard(1, 1).0.attempt(&bare, &stop).await.unwrap().is_none());
        let open = guard(0, 0).0;
        assert!(open.attempt(&request("192.0.2.1", "x"), &stop).await.unwrap().is_none());
    }
}
