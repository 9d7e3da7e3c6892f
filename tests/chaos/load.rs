//! Senders, receivers, askers and answerers, all through the real endpoint.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::Rng;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    Outcome,
    agent::{self, Agent, Letter},
    history::{self, Recorder},
    rude,
};

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Senders send.
    Load,
    /// One last message to everybody, then receivers look until everything is there.
    Drain,
    /// Everybody goes.
    Over,
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crew {
    /// Inboxes that are sent to all the time.
    pub streams: usize,
    /// Readers of each of these.
    pub readers: usize,
    /// These readers hang up whenever they like.
    pub rude: bool,
    /// Inboxes whose owners wait for a message now and then.
    pub sleepers: usize,
    /// Pairs of one who asks and one who answers.
    pub askers: usize,
}

impl Default for Crew {
    fn default() -> Self {
        Self { streams: 3, readers: 1, rude: false, sleepers: 6, askers: 2 }
    }
}

/// The tasks of one run.
pub(crate) struct Load {
    senders: JoinSet<()>,
    readers: JoinSet<()>,
    phase: watch::Sender<Phase>,
    stage: Stage,
}

/// What every task shares.
#[derive(Clone)]
struct Stage {
    replicas: Vec<SocketAddr>,
    recorder: Recorder,
    phase: watch::Receiver<Phase>,
    numbers: Arc<AtomicU64>,
    seed: u64,
    /// Inboxes have several readers: one last message would not wake all of them.
    crowded: bool,
}

impl Stage {
    fn agent(&self, id: &str) -> Agent {
        Agent::new(id, &self.replicas, &self.recorder, self.seed)
    }

    /// A text that was never sent; some are long.
    fn text(&self, agent: &mut Agent) -> String {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut text = format!("message {number} of {}", agent.id);
        if agent.chance.random_bool(0.05) {
            text.push(' ');
            let length = agent.chance.random_range(1_000..60_000);
            text.extend(std::iter::repeat_n('x', length));
        }
        text
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Sleeps for a time in this range of milliseconds, or until the load is over.
    async fn pause(&mut self, agent: &mut Agent, range: std::ops::Range<u64>) {
        let pause = Duration::from_millis(agent.chance.random_range(range));
        let over = self.phase.wait_for(|phase| *phase != Phase::Load);
        let _ = tokio::time::timeout(pause, over).await;
    }

    /// Seconds to wait for mail: long under load, so that only a wake-up ends it in time.
    fn wait(&self, agent: &mut Agent) -> u64 {
        match self.phase() {
            Phase::Load if self.crowded => agent.chance.random_range(1..4),
            Phase::Load => agent.chance.random_range(30..60),
            Phase::Drain | Phase::Over => 1,
        }
    }
}

impl Load {
    /// Everybody begins.
    pub(crate) fn begin(
        crew: Crew,
        replicas: Vec<SocketAddr>,
        recorder: &Recorder,
        seed: u64,
    ) -> Self {
        let (phase, now) = watch::channel(Phase::Load);
        let (numbers, recorder, crowded) = (Arc::default(), recorder.clone(), crew.readers > 1);
        let stage = Stage { replicas, recorder, phase: now, numbers, seed, crowded };
        let (mut senders, mut readers) = (JoinSet::new(), JoinSet::new());
        for inbox in (0..crew.streams).map(|n| format!("stream-{n}")) {
            for sender in ["keyed", "plain"] {
                let id = format!("{sender}-to-{inbox}");
                senders.spawn(send(
                    stage.clone(),
                    id,
                    vec![inbox.clone()],
                    sender == "keyed",
                    30..150,
                ));
            }
            for reader in 0..crew.readers {
                readers.spawn(read(stage.clone(), inbox.clone(), reader, crew.rude, false));
            }
        }
        let careful = "careful".to_owned();
        senders.spawn(send(
            stage.clone(),
            "to-careful".to_owned(),
            vec![careful.clone()],
            true,
            50..200,
        ));
        readers.spawn(read(stage.clone(), careful, 0, crew.rude, true));
        // Mail that lies in Redis while all goes wrong.
        for sender in ["keyed", "plain"] {
            let (id, inbox) = (format!("{sender}-to-hoard"), "hoard".to_owned());
            senders.spawn(send(stage.clone(), id, vec![inbox], sender == "keyed", 30..150));
        }
        readers.spawn(read_later(stage.clone(), "hoard".to_owned()));
        let sleepers: Vec<String> = (0..crew.sleepers).map(|n| format!("sleeper-{n}")).collect();
        senders.spawn(send(stage.clone(), "waker".to_owned(), sleepers.clone(), true, 50..250));
        for sleeper in sleepers {
            readers.spawn(read(stage.clone(), sleeper, 0, false, false));
        }
        for number in 0..crew.askers {
            let (asker, oracle) = (format!("asker-{number}"), format!("oracle-{number}"));
            senders.spawn(ask(stage.clone(), asker.clone(), oracle.clone()));
            readers.spawn(read(stage.clone(), asker, 0, false, false));
            readers.spawn(answer(stage.clone(), oracle));
        }
        senders.spawn(send_in_vain(stage.clone()));
        readers.spawn(read(stage.clone(), "vain".to_owned(), 0, false, false));
        let now = stage.recorder.now();
        stage.recorder.with(|history| history.load = (now, now));
        Self { senders, readers, phase, stage }
    }

    /// No more load: everybody who reads gets one last message. Waits until every sender has its answers.
    ///
    /// # Cancel safety
    /// May be dropped; [`end`](Self::end) waits for the rest.
    pub(crate) async fn drain(&mut self) -> Outcome<()> {
        let now = self.stage.recorder.now();
        self.stage.recorder.with(|history| history.load.1 = now);
        self.phase.send_replace(Phase::Drain);
        while let Some(ended) = self.senders.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Waits for the end of every task; each is bounded by the time limit of its calls.
    pub(crate) async fn end(&mut self) -> Outcome<()> {
        self.phase.send_replace(Phase::Over);
        for tasks in [&mut self.senders, &mut self.readers] {
            while let Some(ended) = tasks.join_next().await {
                ended?;
            }
        }
        Ok(())
    }
}

/// Sends to one of `inboxes` after the other, each message after the answer to the one before; in the end
/// one to each.
async fn send(
    mut stage: Stage,
    id: String,
    inboxes: Vec<String>,
    keyed: bool,
    pace: std::ops::Range<u64>,
) {
    let mut agent = stage.agent(&id);
    while stage.phase() == Phase::Load {
        let inbox = &inboxes[agent.chance.random_range(0..inboxes.len())];
        post(&stage, &mut agent, inbox, keyed).await;
        stage.pause(&mut agent, pace.clone()).await;
    }
    for inbox in &inboxes {
        post(&stage, &mut agent, inbox, true).await;
    }
}

/// Sends a new text. With a key it is repeated until it is answered.
async fn post(stage: &Stage, agent: &mut Agent, to: &str, keyed: bool) {
    let text = stage.text(agent);
    let key = text.get(..text.len().min(40));
    let letter = Letter { to, text: &text, key: key.filter(|_| keyed), ..Letter::default() };
    persist(stage, agent, &letter).await;
}

/// Sends, and with a key again until it is answered or everybody goes.
async fn persist(stage: &Stage, agent: &mut Agent, letter: &Letter<'_>) {
    while agent.send(letter).await == history::Outcome::Unknown
        && letter.key.is_some()
        && stage.phase() != Phase::Over
    {}
}

/// Fetches until the end.
async fn read(stage: Stage, inbox: String, reader: usize, rude: bool, manual: bool) {
    // Readers of one inbox differ in their chances only.
    let mut agent = stage.agent(&format!("{inbox}/{reader}"));
    agent.id.clone_from(&inbox);
    let mut receipt: Option<String> = None;
    while stage.phase() != Phase::Over {
        let (wait, most) = (stage.wait(&mut agent), agent.chance.random_range(1..20));
        if rude {
            let stay = Duration::from_millis(agent.chance.random_range(0..300));
            let arguments =
                agent::fetch_arguments(&inbox, wait, most, manual, receipt.take().as_deref());
            let (replica, invoked) = (agent.next_replica(), agent.recorder.now());
            if let Ok(Some(content)) = rude::fetch(replica, &arguments, stay).await {
                receipt = agent.note_fetched(invoked, &content).receipt;
            }
            continue;
        }
        // A receipt whose call failed is lost: then its messages come again, marked.
        match agent.fetch(wait, most, manual, receipt.take().as_deref()).await {
            Ok(fetched) => receipt = fetched.receipt,
            Err(_) if stage.phase() == Phase::Over => return,
            Err(_) => {}
        }
    }
}

/// Reads when the load is over.
async fn read_later(mut stage: Stage, inbox: String) {
    // The other end of the channel outlives every task.
    let _ = stage.phase.wait_for(|phase| *phase != Phase::Load).await;
    read(stage, inbox, 0, false, false).await;
}

/// Asks one question after the other.
async fn ask(mut stage: Stage, id: String, oracle: String) {
    let mut agent = stage.agent(&id);
    while stage.phase() == Phase::Load {
        let question = stage.text(&mut agent);
        let answered = agent.ask(&oracle, &question, 5).await;
        if let Some((_, answer)) = answered
            && answer.text != answer_to(&question)
        {
            agent.recorder.with(|history| history.wrong_answers += 1);
        }
        stage.pause(&mut agent, 100..400).await;
    }
    post(&stage, &mut agent, &oracle, true).await;
}

fn answer_to(question: &str) -> String {
    format!("answer to {}", question.get(..question.len().min(40)).unwrap_or_default())
}

/// Answers each question once, however often it comes.
async fn answer(stage: Stage, id: String) {
    let mut agent = stage.agent(&id);
    let mut answered = std::collections::HashSet::new();
    while stage.phase() != Phase::Over {
        let wait = stage.wait(&mut agent);
        let Ok(fetched) = agent.fetch(wait, 20, false, None).await else { continue };
        for question in fetched.messages {
            if !answered.insert(question.id.clone()) {
                continue;
            }
            let text = answer_to(&question.text);
            let letter = Letter {
                to: &question.from,
                text: &text,
                key: Some(&text),
                answers: Some(&question.id),
                ttl: None,
            };
            persist(&stage, &mut agent, &letter).await;
        }
    }
}

/// Sends what nobody will read: it expires, and this sender must be told.
async fn send_in_vain(mut stage: Stage) {
    let mut agent = stage.agent("vain");
    while stage.phase() == Phase::Load {
        let text = stage.text(&mut agent);
        let letter = Letter { to: "nobody", text: &text, ttl: Some(1), ..Letter::default() };
        agent.send(&letter).await;
        stage.pause(&mut agent, 300..600).await;
    }
    // Its own inbox has a reader who waits: one last message wakes that one too.
    sleep(Duration::from_millis(10)).await;
    post(&stage, &mut agent, "vain", true).await;
}
