//! `invaspread report SUITE`: tables and figures from the runs that are there.

use super::print_json;
use crate::arguments::ReportArguments;
use crate::failure::Failure;
use crate::neighbours::draw_neighbours;
use anyhow::Context;
use invaspread_report::{records, write_report};
use invaspread_runner::config::Suite;
use invaspread_runner::launch::Planned;
use std::path::{Path, PathBuf};

pub(crate) fn report(arguments: &ReportArguments) -> Result<(), Failure> {
    let suite = Suite::open(&arguments.suite)?;
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from("results").join(&suite.name));
    write(&suite, &arguments.runs, &out, if arguments.json { Print::Json } else { Print::Text })
}

/// What is printed once a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    /// The table, and where the files are.
    Text,
    /// The table as JSON.
    Json,
    /// Nothing: something else was printed already.
    Nothing,
}

/// Writes the report of a suite's runs into `out`.
pub(crate) fn write(suite: &Suite, root: &Path, out: &Path, print: Print) -> Result<(), Failure> {
    let loaded = records::load(root, suite.runs_name()).context("failed to read the run records")?;
    let rows = |run: &invaspread_report::Run| suite.rows.iter().any(|row| row.key == run.record.row);
    let runs: Vec<_> = loaded.runs.into_iter().filter(rows).collect();
    let written =
        write_report(&suite.name, &runs, &suite.similarity, out).context("failed to write the report")?;
    match print {
        Print::Text => {
            println!("{}", written.terminal);
            for file in &written.files {
                println!("{}", file.display());
            }
        }
        Print::Json => print_json(&written.table)?,
        Print::Nothing => {}
    }
    Ok(())
}

/// Draws the suite's picture of retrieved neighbours into `out`, if it has one.
pub(crate) fn draw(suite: &Suite, planned: &[Planned], root: &Path, out: &Path) -> Result<(), Failure> {
    if let Some(figure) = &suite.gallery {
        let path = out.join("neighbours.png");
        draw_neighbours(figure, planned, root, &path).context("failed to draw the retrieved neighbours")?;
        eprintln!("{}", path.display());
    }
    Ok(())
}
