//! The command line.

use clap::Parser;

use crate::{
    Outcome,
    rows::{Promise, Row, rows},
    rows_named,
    sabotage::Sabotage,
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

    /// Write the table of all rows that were ever run here into docs/reliability.md.
    #[arg(long)]
    pub write_docs: bool,

    /// Name the rows that would run.
    #[arg(long)]
    pub list: bool,
}

impl Options {
    pub(crate) fn rows(&self) -> Outcome<Vec<Row>> {
        let mut chosen = rows_named(&self.rows)?;
        let broken = |row: &Row| matches!(row.promise, Promise::Broken(sabotage) if self.sabotage.contains(&sabotage));
        chosen.extend(rows().into_iter().filter(broken));
        if self.rows.is_empty() && self.sabotage.is_empty() {
            let all = self.full || self.list;
            chosen = rows().into_iter().filter(|row| all || row.short).collect();
        }
        Ok(chosen)
    }

    pub(crate) fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed + self.seeds
    }
}
