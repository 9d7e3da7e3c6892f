//! Numbers to rows, rows to a table and to JSON.

use std::{fmt::Write, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::Outcome;

/// What one round measured. Times are microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub server: f64,
    pub redis: f64,
}

impl Sample {
    pub(crate) fn of(latencies: &mut [f64]) -> Self {
        latencies.sort_by(f64::total_cmp);
        Self { p50: at(latencies, 50), p99: at(latencies, 99), ..Self::default() }
    }
}

/// The percentile of sorted numbers.
fn at(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    at(&numbers, 50)
}

/// All rounds of one side of a scenario.
pub(crate) struct Side {
    pub name: &'static str,
    pub rounds: Vec<Sample>,
}

impl Side {
    fn median(&self, field: fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(field))
    }

    /// This, with so many times the server CPU that `more` takes more than `less`, round by round.
    pub(crate) fn plus(&self, times: f64, more: &Self, less: &Self) -> Self {
        let rounds = self.rounds.iter().zip(&more.rounds).zip(&less.rounds);
        let rounds = rounds.map(|((own, more), less)| Sample {
            server: times.mul_add(more.server - less.server, own.server),
            ..*own
        });
        Self { name: self.name, rounds: rounds.collect() }
    }

    /// The median of the ratios of rounds that ran side by side.
    pub(crate) fn ratio(&self, base: &Self, field: fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().zip(&base.rounds).map(|(own, base)| field(own) / field(base)))
    }
}

/// A number beside what it may be at most.
struct Verdict {
    what: String,
    is: f64,
    budget: f64,
    unit: &'static str,
}

/// Everything measured.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    rows: Vec<Value>,
    verdicts: Vec<Verdict>,
}

impl Report {
    pub(crate) fn title(&mut self, title: &str) {
        let _ = writeln!(
            self.text,
            "\n{title:<34} {:>9} {:>9} {:>9} {:>11} {:>10}",
            "per s", "p50 us", "p99 us", "server us", "redis us"
        );
    }

    /// One side of a scenario.
    pub(crate) fn side(&mut self, scenario: &str, side: &Side) {
        let per_second = side.median(|s| s.per_second);
        let (p50, p99) = (side.median(|s| s.p50), side.median(|s| s.p99));
        let (server, redis) = (side.median(|s| s.server), side.median(|s| s.redis));
        let shown = |number: f64, digits: usize| {
            if number == 0.0 { "-".to_owned() } else { format!("{number:.digits$}") }
        };
        let _ = writeln!(
            self.text,
            "  {:<32} {:>9} {:>9} {:>9} {:>11} {:>10}",
            side.name,
            shown(per_second, 0),
            shown(p50, 0),
            shown(p99, 0),
            shown(server, 1),
            shown(redis, 1)
        );
        self.rows.push(json!({
            "scenario": scenario, "side": side.name, "per_second": per_second, "p50_us": p50,
            "p99_us": p99, "server_us": server, "redis_us": redis, "rounds": side.rounds.len(),
        }));
    }

    /// A number that has a budget.
    pub(crate) fn verdict(&mut self, what: &str, is: f64, budget: f64, unit: &'static str) {
        let word = if is <= budget { "within" } else { "MISSED" };
        let _ = writeln!(self.text, "    {what}: {is:.2}{unit} (budget {budget}{unit}: {word})");
        self.verdicts.push(Verdict { what: what.to_owned(), is, budget, unit });
    }

    /// A number that has none.
    pub(crate) fn note(&mut self, what: &str, is: f64, unit: &str) {
        let _ = writeln!(self.text, "    {what}: {is:.2}{unit}");
        self.rows.push(json!({ "note": what, "is": is, "unit": unit.trim() }));
    }

    /// What was measured since the last call.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    pub(crate) fn write(&self, path: &Path, about: &Map<String, Value>) -> Outcome<()> {
        let verdicts = self.verdicts.iter().map(|one| {
            let met = one.is <= one.budget;
            json!({ "what": one.what, "is": one.is, "budget": one.budget, "unit": one.unit.trim(), "met": met })
        });
        let verdicts: Vec<_> = verdicts.collect();
        let all = json!({ "about": about, "rows": self.rows, "verdicts": verdicts });
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(&all)?)?)
    }

    pub(crate) fn missed(&self) -> Vec<&str> {
        let missed = self.verdicts.iter().filter(|one| one.is > one.budget);
        missed.map(|one| one.what.as_str()).collect()
    }
}
