//! The command line.

use clap::Parser;

use crate::{
    Outcome,
    rows::{Promise, Row, rows},
    rows_named,
    sabotage::Sabotage,
    strain::{Strain, strains},
};

/// Faults between real replicas and real Redis, and a check that nothing was lost.
#[derive(Debug, Clone, Parser)]
#[command(name = "./test chaos")]
pub(crate) struct Options {
    /// The whole matrix; without it the short form.
    #[arg(long)]
    pub full: bool,

    /// Only these rows, comma-separated.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,

    /// Only the rows that break the product on purpose in these ways.
    #[arg(long, value_enum, value_delimiter = ',')]
    sabotage: Vec<Sabotage>,

    /// Runs of each row, each with a seed of its own.
    #[arg(long, default_value_t = 1)]
    seeds: u64,

    /// The first seed: to repeat a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Runs at a time. They mostly wait.
    #[arg(long, default_value_t = 3)]
    pub jobs: usize,

    /// Only this: the load of a quiet office for so many minutes, to see whether memory grows.
    #[arg(long)]
    pub soak_minutes: Option<u64>,

    /// Write the table of all rows that were ever run here into docs/reliability.md.
    #[arg(long)]
    pub write_docs: bool,

    /// Name the rows that would run.
    #[arg(long)]
    pub list: bool,
}

impl Options {
    pub(crate) fn rows(&self) -> Outcome<Vec<Row>> {
        let strained: Vec<_> = strains().iter().map(|strain| strain.name).collect();
        let names: Vec<_> =
            self.rows.iter().filter(|name| !strained.contains(&name.as_str())).cloned().collect();
        let mut chosen = rows_named(&names)?;
        let broken = |row: &Row| matches!(row.promise, Promise::Broken(sabotage) if self.sabotage.contains(&sabotage));
        chosen.extend(rows().into_iter().filter(broken));
        if self.everything() {
            let all = self.full || self.list;
            chosen = rows().into_iter().filter(|row| all || row.short).collect();
        }
        Ok(chosen)
    }

    /// Rows of load, which run after the others.
    pub(crate) fn strains(&self) -> Vec<Strain> {
        let chosen =
            |strain: &Strain| self.everything() || self.rows.iter().any(|name| name == strain.name);
        strains().into_iter().filter(chosen).collect()
    }

    /// Nothing in particular was asked for.
    fn everything(&self) -> bool {
        self.rows.is_empty() && self.sabotage.is_empty() && self.soak_minutes.is_none()
    }

    pub(crate) fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed + self.seeds
    }
}
