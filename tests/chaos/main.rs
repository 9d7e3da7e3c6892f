//! Proof that nothing is lost: real replicas on real Redis processes, faults between them, and a check of
//! everything that clients sent and saw.
//!
//! `./test chaos --help`. Every run has a seed, from which its faults and its load follow; what the machine
//! makes of them may differ. `docs/reliability.md` says what was measured and what it promises.
//!
//! Not here: power loss. Everything runs on one machine, and `kill -9` leaves what the kernel has taken.
#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own: it spawns and reads as it likes"
)]
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod agent;
mod checker;
mod clock;
mod cluster;
mod faults;
mod history;
mod load;
mod options;
mod pair;
mod process;
mod proxy;
mod redis;
mod replica;
mod report;
mod resp;
mod rows;
mod rude;
mod run;
mod sabotage;
mod sentinel;
mod site;
mod strain;
mod upgrade;

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use tokio::{sync::Semaphore, task::JoinSet};

use self::{options::Options, report::RowReport, rows::Row, strain::Size};

/// Whatever keeps a run from being one ends it with one line.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ran = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(all(&options)));
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for. `true`: every bar is met.
async fn all(options: &Options) -> Outcome<bool> {
    let (rows, strains) = (options.rows()?, options.strains());
    if options.list {
        for row in rows {
            println!("{:<28} {}", row.name, row.what);
        }
        for strain in strains {
            println!("{:<28} {}", strain.name, strain.what);
        }
        return Ok(true);
    }
    let about = report::About::here()?;
    let program = Arc::new(replica::binary()?);
    println!("{about}\n\n{}", report::HEAD);
    let places = Arc::new(Semaphore::new(options.jobs));
    let mut running = JoinSet::new();
    let mut skipped = 0;
    for row in rows {
        if let Some(why) = row.needs_clock().then(clock::Clock::unavailable).flatten() {
            println!("{:<28} skipped: {why}", row.name);
            skipped += 1;
            continue;
        }
        let (places, program, seeds) = (Arc::clone(&places), Arc::clone(&program), options.seeds());
        running.spawn(async move {
            let mut report = RowReport::new(row);
            let mut runs = JoinSet::new();
            for seed in seeds {
                let (places, program) = (Arc::clone(&places), Arc::clone(&program));
                runs.spawn(async move {
                    let place = places.acquire_owned().await;
                    let ran = run::run(&row, seed, &program).await;
                    drop(place);
                    (seed, ran)
                });
            }
            while let Some(ran) = runs.join_next().await {
                match ran {
                    Ok((seed, ran)) => report.add(seed, ran),
                    Err(panicked) => report.add(0, Err(panicked.into())),
                }
            }
            report
        });
    }
    let (mut passed, mut failed) = (0, 0);
    while let Some(report) = running.join_next().await {
        let report = report?;
        print!("{report}");
        report.write(&about)?;
        if report.failures().is_empty() { passed += 1 } else { failed += 1 }
    }
    // One at a time, and nothing beside them: they measure.
    for strain in strains {
        let report = strain.run(&program, Size { full: options.full }).await;
        tally(strain.name, strain.what, report, &mut passed, &mut failed)?;
    }
    if let Some(minutes) = options.soak_minutes {
        tally(
            "soak",
            strain::SOAK,
            strain::soak(minutes, &program).await,
            &mut passed,
            &mut failed,
        )?;
    }
    if options.write_docs {
        report::write_docs()?;
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

/// Prints and keeps what a strain came to.
fn tally(
    name: &str,
    what: &str,
    ran: Outcome<strain::Report>,
    passed: &mut u32,
    failed: &mut u32,
) -> Outcome<()> {
    match ran {
        Ok(report) => {
            let good = report.failures().is_empty();
            println!("{name:<28} {}", if good { "ok" } else { "FAILED" });
            print!("{report}");
            strain::keep(name, what, &report)?;
            *if good { passed } else { failed } += 1;
        }
        Err(error) => {
            println!("{name:<28} FAILED\n    {error}");
            *failed += 1;
        }
    }
    Ok(())
}

/// Of what a run is made.
pub(crate) fn rows_named(names: &[String]) -> Outcome<Vec<Row>> {
    let all = rows::rows();
    let find = |name: &String| {
        let row = all.iter().find(|row| row.name == name).copied();
        row.ok_or_else(|| format!("no row {name}: --list names them").into())
    };
    names.iter().map(find).collect()
}
