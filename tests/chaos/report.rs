//! Runs to rows, rows to a table, to JSON and to the documentation.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    Outcome,
    checker::percentile,
    history::Micros,
    process::said_by,
    redis,
    rows::{Promise, Row, rows},
    run::{self, Findings},
    strain,
};

/// Above the rows on the terminal.
pub(crate) const HEAD: &str = "row                     attempts    acked received  told lost unexp dup/unfl reord recov  \
     gap s  wake p50/p99/max ms   missed";

/// The circumstances of a run.
#[derive(Debug, Clone)]
pub(crate) struct About {
    version: &'static str,
    redis: String,
    machine: String,
    kernel: String,
    date: String,
}

impl About {
    pub(crate) fn here() -> Outcome<Self> {
        // "Redis server v=7.0.15 sha=..."
        let said = said_by(&redis::program().display().to_string(), &["--version"]);
        let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
        let version =
            version.ok_or("redis-server 7.0 or later is needed (apt-get install redis-server)")?;
        let name = said.split_whitespace().next().unwrap_or_default();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let cores = std::thread::available_parallelism()?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            redis: format!("{name} {version}"),
            machine: format!("{cores} cores of {}", model.unwrap_or("an unknown processor")),
            kernel: said_by("uname", &["-sr"]),
            date: said_by("date", &["-u", "+%F"]),
        })
    }

    fn json(&self) -> Value {
        json!({ "version": self.version, "redis": self.redis, "machine": self.machine,
            "kernel": self.kernel, "date": self.date })
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, redis, machine, kernel, date } = self;
        write!(f, "mcp-messaging {version}, {redis}, {kernel}, {machine}, {date}")
    }
}

/// All runs of a row.
pub(crate) struct RowReport {
    row: Row,
    seeds: Vec<u64>,
    sum: Findings,
    failures: Vec<String>,
}

impl RowReport {
    pub(crate) fn new(row: Row) -> Self {
        Self { row, seeds: Vec::new(), sum: Findings::default(), failures: Vec::new() }
    }

    /// What does not hold, by seed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Adds a run, and judges it. Logs of a good one are removed.
    pub(crate) fn add(&mut self, seed: u64, ran: Outcome<Findings>) {
        let broken = match &ran {
            Ok(findings) => judge(self.row.promise, findings),
            Err(error) => vec![error.to_string()],
        };
        if broken.is_empty() {
            // Left behind it would only take room.
            let _ = fs::remove_dir_all(run::dir(self.row.name, seed));
        }
        for what in broken {
            self.failures.push(format!("seed {seed}: {what}"));
        }
        self.seeds.push(seed);
        let Ok(Findings { verdict, counts }) = ran else { return };
        let sum = &mut self.sum.verdict;
        for (sum, of) in [
            (&mut sum.attempts, verdict.attempts),
            (&mut sum.acknowledged, verdict.acknowledged),
            (&mut sum.refused, verdict.refused),
            (&mut sum.received, verdict.received),
            (&mut sum.recovered, verdict.recovered),
            (&mut sum.expired, verdict.expired),
            (&mut sum.lost, verdict.lost),
            (&mut sum.unexpected, verdict.unexpected),
            (&mut sum.flagged, verdict.flagged),
            (&mut sum.unflagged, verdict.unflagged),
            (&mut sum.reordered, verdict.reordered),
            (&mut sum.wrong_answers, verdict.wrong_answers),
            (&mut sum.errors, verdict.errors),
            (&mut self.sum.counts.missed_wake_ups, counts.missed_wake_ups),
            (&mut self.sum.counts.deaf, counts.deaf),
        ] {
            *sum += of;
        }
        sum.unavailable = sum.unavailable.max(verdict.unavailable);
        sum.wake_ups.extend(verdict.wake_ups);
        sum.wake_ups.sort_unstable();
        sum.examples.extend(verdict.examples);
    }

    /// Writes the row for `--write-docs` and for whoever compares.
    pub(crate) fn write(&self, about: &About) -> Outcome<()> {
        let v = &self.sum.verdict;
        let row = json!({
            "row": self.row.name,
            "what": self.row.what,
            "promise": promise(self.row.promise),
            "about": about.json(),
            "seeds": self.seeds,
            "attempts": v.attempts,
            "acknowledged": v.acknowledged,
            "refused": v.refused,
            "received": v.received,
            "recovered": v.recovered,
            "expired_and_told": v.expired,
            "lost": v.lost,
            "unexpected": v.unexpected,
            "duplicated_flagged": v.flagged,
            "duplicated_unflagged": v.unflagged,
            "reordered": v.reordered,
            "wrong_answers": v.wrong_answers,
            "error_answers": v.errors,
            "unavailable_s": seconds(v.unavailable),
            "wake_ups": v.wake_ups.len(),
            "wake_p50_ms": millis(percentile(&v.wake_ups, 50)),
            "wake_p99_ms": millis(percentile(&v.wake_ups, 99)),
            "wake_max_ms": millis(percentile(&v.wake_ups, 100)),
            "missed_wake_ups": self.sum.counts.missed_wake_ups,
            "deaf_subscriptions": self.sum.counts.deaf,
            "examples": v.examples,
            "failures": self.failures,
        });
        fs::create_dir_all(folder())?;
        let path = folder().join(format!("{}.json", self.row.name));
        Ok(fs::write(path, serde_json::to_string_pretty(&row)?)?)
    }
}

impl fmt::Display for RowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.sum.verdict;
        let wake = |percent| millis(percentile(&v.wake_ups, percent));
        writeln!(
            f,
            "{:<22} {:>9} {:>8} {:>8} {:>5} {:>4} {:>5} {:>8} {:>5} {:>5} {:>6.1} {:>21} {:>8}  {}",
            self.row.name,
            v.attempts,
            v.acknowledged,
            v.received,
            v.expired,
            v.lost,
            v.unexpected,
            format!("{}/{}", v.flagged, v.unflagged),
            v.reordered,
            v.recovered,
            seconds(v.unavailable),
            format!("{:.0}/{:.0}/{:.0}", wake(50), wake(99), wake(100)),
            self.sum.counts.missed_wake_ups,
            if self.failures.is_empty() { "ok" } else { "FAILED" },
        )?;
        for failure in &self.failures {
            writeln!(f, "    {failure}")?;
        }
        if !self.failures.is_empty() {
            for example in &v.examples {
                writeln!(f, "      {example}")?;
            }
        }
        Ok(())
    }
}

/// What of its promise a run broke.
fn judge(promise: Promise, Findings { verdict, counts }: &Findings) -> Vec<String> {
    let zero = |what: &str, number: u64| (number > 0).then(|| format!("{what}: {number}"));
    let alive = (verdict.received == 0).then(|| "nothing was received".to_owned());
    let missed = zero("missed wake-ups", counts.missed_wake_ups);
    let unexpected = zero("unexpected", verdict.unexpected);
    let broken: Vec<Option<String>> = match promise {
        Promise::Everything | Promise::Unnoticed => vec![
            alive,
            missed,
            unexpected,
            zero("lost", verdict.lost),
            zero("copied unmarked", verdict.unflagged),
            zero("out of order", verdict.reordered),
            zero("wrong answers", verdict.wrong_answers),
            zero("answers with an error", verdict.errors).filter(|_| promise == Promise::Unnoticed),
        ],
        Promise::Measured => vec![alive, missed, unexpected],
        Promise::Kept => vec![alive, missed, unexpected, zero("lost", verdict.lost)],
        Promise::Broken(sabotage) => {
            let unnoticed = sabotage.unnoticed(verdict, counts.missed_wake_ups);
            vec![alive, unnoticed.map(|what| format!("the sabotage was not found: {what}"))]
        }
    };
    broken.into_iter().flatten().collect()
}

fn promise(promise: Promise) -> &'static str {
    match promise {
        Promise::Everything => "everything",
        Promise::Unnoticed => "everything, and no errors",
        Promise::Measured => "measured",
        Promise::Kept => "what was acknowledged is kept",
        Promise::Broken(_) => "broken on purpose",
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn millis(micros: Micros) -> f64 {
    micros as f64 / 1000.0
}

fn seconds(micros: Micros) -> f64 {
    millis(micros) / 1000.0
}

/// Where results are kept: those of another server than Redis by themselves.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/chaos");
    match redis::program().file_name().and_then(|name| name.to_str()) {
        Some("redis-server") | None => folder,
        Some(other) => folder.join(other),
    }
}

/// Puts the rows that were run into docs/reliability.md.
pub(crate) fn write_docs() -> Outcome<()> {
    let mut table = String::new();
    let mut about: Option<Value> = None;
    for row in rows() {
        let path = folder().join(format!("{}.json", row.name));
        let Ok(text) = fs::read_to_string(&path) else {
            println!("chaos: {} was not run: not in the table", row.name);
            continue;
        };
        let json: Value = serde_json::from_str(&text)?;
        let known = about.get_or_insert_with(|| json["about"].clone());
        if (&known["version"], &known["redis"])
            != (&json["about"]["version"], &json["about"]["redis"])
        {
            return Err(format!("{}: run with another version; run it again", row.name).into());
        }
        table.push_str(&line(&row, &json));
    }
    let about = about.ok_or("nothing was run")?;
    let word = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
    let (version, redis) = (word("version"), word("redis"));
    let (kernel, machine, date) = (word("kernel"), word("machine"), word("date"));
    let text = format!(
        "mcp-messaging {version}, {redis}, {kernel}, {machine}, {date}.\n\n\
         | Fault | Seeds | Sent | Acknowledged | Lost | Unexpected | Copies: marked, unmarked | Out of order | \
         Recovered | Longest gap | Wake-up p50, p99, max | Missed |\n|-|-|-|-|-|-|-|-|-|-|-|-|\n{table}"
    );
    if !redis.starts_with("Redis ") {
        return write_between("<!-- measured: valkey -->\n", &text);
    }
    write_between("<!-- measured -->\n", &text)?;
    write_between("<!-- measured: load -->\n", &strain::table()?)
}

/// Puts a text into docs/reliability.md, after this mark.
fn write_between(begin: &str, text: &str) -> Outcome<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let document = fs::read_to_string(&path)?;
    let end = "<!-- end -->";
    let parts = document.split_once(begin).and_then(|(before, rest)| {
        let (_old, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or("docs/reliability.md has no place for the table")?;
    Ok(fs::write(&path, format!("{before}{begin}\n{text}\n{end}{after}"))?)
}

/// A row of the table. A number that breaks no promise is plain; a loss that is none of ours is bold.
fn line(row: &Row, json: &Value) -> String {
    let number = |name: &str| json[name].as_u64().unwrap_or_default();
    let float = |name: &str| json[name].as_f64().unwrap_or_default();
    let bad = |name: &str| match number(name) {
        0 => "0".to_owned(),
        count => format!("**{count}**"),
    };
    let time = |name: &str| match float(name) {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    };
    let seeds = json["seeds"].as_array().map_or(0, Vec::len);
    let kind = match row.promise {
        Promise::Everything => "",
        Promise::Unnoticed => " (and no call was answered with an error)",
        Promise::Measured => " (no promise)",
        Promise::Kept => " (promised: none lost)",
        Promise::Broken(_) => " (sabotage: must be found)",
    };
    let wakes = ["wake_p50_ms", "wake_p99_ms", "wake_max_ms"].map(time).join(", ");
    format!(
        "| `{}`: {}{kind} | {seeds} | {} | {} | {} | {} | {}, {} | {} | {} | {:.1} s | {wakes} | {} |\n",
        row.name,
        row.what,
        number("attempts"),
        number("acknowledged"),
        bad("lost"),
        bad("unexpected"),
        number("duplicated_flagged"),
        bad("duplicated_unflagged"),
        bad("reordered"),
        number("recovered"),
        float("unavailable_s"),
        bad("missed_wake_ups"),
    )
}
