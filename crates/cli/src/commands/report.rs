//! `invaspread report SUITE`: tables and figures from the runs that are there.

use crate::arguments::ReportArguments;
use crate::failure::Failure;
use anyhow::Context;
use invaspread_report::{records, write_report};
use invaspread_runner::config::Suite;
use std::path::{Path, PathBuf};

pub(crate) fn report(arguments: &ReportArguments) -> Result<(), Failure> {
    let suite = Suite::open(&arguments.suite)?;
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from("results").join(&suite.name));
    write(&suite, &arguments.runs, &out, true)
}

/// Writes the report of a suite's runs into `out` and, if `print`, shows its table and where the files are.
pub(crate) fn write(suite: &Suite, root: &Path, out: &Path, print: bool) -> Result<(), Failure> {
    let loaded = records::load(root, suite.runs_name()).context("failed to read the run records")?;
    let rows = |run: &invaspread_report::Run| suite.rows.iter().any(|row| row.key == run.record.row);
    let runs: Vec<_> = loaded.runs.into_iter().filter(rows).collect();
    let written = write_report(&suite.name, &runs, out).context("failed to write the report")?;
    if print {
        println!("{}", written.terminal);
        for file in &written.files {
            println!("{}", file.display());
        }
    }
    Ok(())
}
