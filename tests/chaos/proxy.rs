//! A proxy between a replica and Redis that goes bad in the ways of networks, in either direction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    Outcome,
    resp::{self, Value},
};

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// They arrive.
    Clear,
    /// They arrive so much later.
    Slow(Duration),
    /// They wait until the way is clear again.
    Stalled,
    /// They vanish, and the connection stays open: half-open for ever.
    Hole,
    /// With this probability they vanish and the connection ends: a lost answer.
    Eaten(f64),
    /// Published messages vanish, the rest arrives: a deaf subscription.
    Deaf,
    /// The same, but probes of the subscription arrive.
    Numb,
}

/// The state of the network.
#[derive(Debug, Clone, Copy)]
struct Weather {
    to_redis: Way,
    to_replica: Way,
    refuses: bool,
    /// Connections of an earlier age are cut.
    age: u64,
}

/// A proxy on a free port of 127.0.0.1. Dropping it ends it.
pub(crate) struct Proxy {
    pub port: u16,
    target: Arc<AtomicU16>,
    weather: watch::Sender<Weather>,
    accepts: JoinHandle<()>,
}

impl Proxy {
    /// In front of a port. What it does by chance, it does by `seed`.
    pub(crate) async fn before(target: u16, seed: u64) -> Outcome<Self> {
        let fair = Weather { to_redis: Way::Clear, to_replica: Way::Clear, refuses: false, age: 0 };
        let (weather, now) = watch::channel(fair);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let target = Arc::new(AtomicU16::new(target));
        let to = Arc::clone(&target);
        let accepts = tokio::spawn(async move {
            let mut chance = StdRng::seed_from_u64(seed);
            while let Ok((client, _)) = listener.accept().await {
                if now.borrow().refuses {
                    continue; // dropped: the caller sees its end at once
                }
                let server = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst))).await;
                let Ok(server) = server else { continue };
                tokio::spawn(carry(client, server, now.clone(), chance.random()));
            }
        });
        Ok(Self { port, target, weather, accepts })
    }

    /// Changes both ways, for open connections too.
    pub(crate) fn turn(&self, to_redis: Way, to_replica: Way) {
        self.weather.send_modify(|weather| {
            (weather.to_redis, weather.to_replica) = (to_redis, to_replica);
        });
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.age += 1);
    }

    /// Leads somewhere else from now on.
    pub(crate) fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
        self.cut();
    }

    /// Ends every connection and takes none, or takes them again.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.weather.send_modify(|weather| {
            weather.refuses = refuses;
            weather.age += u64::from(refuses);
        });
    }

    /// Everything is well again.
    pub(crate) fn mend(&self) {
        self.refuse(false);
        self.turn(Way::Clear, Way::Clear);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
        self.cut();
    }
}

/// Carries one connection until one side or the weather ends it.
async fn carry(client: TcpStream, server: TcpStream, now: watch::Receiver<Weather>, seed: u64) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let chance = Arc::new(std::sync::Mutex::new(StdRng::seed_from_u64(seed)));
    let roll = move || {
        // Only this connection rolls, and a roll cannot panic.
        chance.lock().map_or(1.0_f64, |mut chance| chance.random())
    };
    let mut age = now.clone();
    let born = age.borrow_and_update().age;
    tokio::select! {
        () = pass(from_client, to_server, now.clone(), |weather| weather.to_redis, roll.clone()) => {}
        () = pass(from_server, to_client, now, |weather| weather.to_replica, roll) => {}
        _ = age.wait_for(|weather| weather.age != born) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut now: watch::Receiver<Weather>,
    way: fn(&Weather) -> Way,
    roll: impl Fn() -> f64,
) {
    let (queue, queued) = mpsc::unbounded_channel();
    let mut delivering = std::pin::pin!(deliver(queued, to));
    let mut frames = Frames::default();
    let mut broken = false;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let passable = way(&now.borrow_and_update()) != Way::Stalled;
        let count = tokio::select! {
            () = &mut delivering => return,
            changed = now.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer), if passable => match read {
                Ok(count @ 1..) => count,
                Ok(0) | Err(_) => return,
            },
        };
        let way = way(&now.borrow());
        let said = &buffer[..count];
        let mut late = Duration::ZERO;
        let bytes = match way {
            Way::Clear | Way::Stalled => frames.pass(said),
            Way::Slow(by) => {
                late = by;
                frames.pass(said)
            }
            Way::Hole => {
                broken = true;
                continue;
            }
            Way::Eaten(chance) => {
                if roll() < chance {
                    return;
                }
                frames.pass(said)
            }
            Way::Deaf | Way::Numb => {
                let heard = |frame: &Vec<u8>| !is_published(frame, way == Way::Numb);
                frames.whole(said).into_iter().filter(heard).flatten().collect()
            }
        };
        if !broken && queue.send((Instant::now() + late, bytes)).is_err() {
            return;
        }
    }
}

/// Writes what is due, in order.
async fn deliver(mut queued: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((due, bytes)) = queued.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Cuts a stream into frames while one may have to be left out.
#[derive(Default)]
struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// As they come: not everything that passes is made of frames (replication is not).
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend(bytes);
        std::mem::take(&mut self.rest)
    }

    fn whole(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend(bytes);
        let mut whole = Vec::new();
        while let Some((_, len)) = resp::parse(&self.rest) {
            whole.push(self.rest.drain(..len).collect());
        }
        whole
    }
}

/// Whether a frame is a published message; a probe is none if they are spared.
fn is_published(frame: &[u8], spare_probes: bool) -> bool {
    let Some((Value::Push(parts), _)) = resp::parse(frame) else { return false };
    let [kind, _channel, payload] = parts.as_slice() else { return false };
    matches!(kind.text(), "message" | "smessage")
        && !(spare_probes && payload.text().starts_with('p'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deaf_way_loses_published_messages_and_nothing_else() {
        let probe = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$3\r\npab\r\n";
        let mail = b">3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$3\r\nqab\r\n";
        let subscribed = b">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n";
        assert!(is_published(mail, false) && is_published(mail, true));
        assert!(is_published(probe, false) && !is_published(probe, true));
        assert!(!is_published(subscribed, false) && !is_published(b"+PONG\r\n", false));
    }

    #[test]
    fn a_stream_is_cut_into_its_frames() {
        let mut frames = Frames::default();
        assert_eq!(frames.whole(b"+OK\r\n:1"), [b"+OK\r\n".to_vec()]);
        assert_eq!(frames.whole(b"\r\n+"), [b":1\r\n".to_vec()]);
        assert_eq!(frames.pass(b"O"), b"+O", "what was held back goes first");
    }

    #[tokio::test]
    async fn each_kind_of_weather_does_what_it_says() -> Outcome<()> {
        let echo = TcpListener::bind(("127.0.0.1", 0)).await?;
        let target = echo.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let proxy = Proxy::before(target, 1).await?;
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port));
        let mut stream = connect().await?;
        let mut answer = [0; 5];
        let soon = Duration::from_millis(100);
        stream.write_all(b"+OK\r\n").await?;
        stream.read_exact(&mut answer).await?;
        // Stalled: it comes later.
        proxy.turn(Way::Clear, Way::Stalled);
        stream.write_all(b"+OK\r\n").await?;
        assert!(tokio::time::timeout(soon, stream.read_exact(&mut answer)).await.is_err());
        proxy.mend();
        stream.read_exact(&mut answer).await?;
        // A hole: it never comes, and the connection is open for ever.
        proxy.turn(Way::Hole, Way::Clear);
        stream.write_all(b"+OK\r\n").await?;
        assert!(tokio::time::timeout(soon, stream.read_exact(&mut answer)).await.is_err());
        proxy.mend();
        stream.write_all(b"+OK\r\n").await?;
        assert!(tokio::time::timeout(soon, stream.read_exact(&mut answer)).await.is_err());
        // Eaten: the connection ends in place of the answer.
        let mut stream = connect().await?;
        proxy.turn(Way::Clear, Way::Eaten(1.0));
        stream.write_all(b"+OK\r\n").await?;
        assert_eq!(stream.read(&mut answer).await?, 0);
        // Cut, and refused.
        proxy.mend();
        let mut stream = connect().await?;
        stream.write_all(b"+OK\r\n").await?;
        stream.read_exact(&mut answer).await?;
        proxy.cut();
        assert_eq!(stream.read(&mut answer).await?, 0);
        proxy.refuse(true);
        assert_eq!(connect().await?.read(&mut answer).await?, 0);
        Ok(())
    }
}
