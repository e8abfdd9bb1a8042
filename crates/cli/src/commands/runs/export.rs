//! `invaspread runs export FILE`: a row for each run, with its metrics and all its settings, for other programs.

use super::{as_json, chosen};
use crate::failure::Failure;
use crate::output::note;
use crate::runs_arguments::RunsExportArguments;
use crate::table_file::{Format, TableFile, quoted};
use anyhow::Context;
use invaspread_runner::runs::FoundRun;
use serde_json::json;
use std::collections::BTreeSet;

const JSON_HEAD: &str = "{\n  \"runs\"";

pub(super) fn export(arguments: &RunsExportArguments) -> Result<(), Failure> {
    let csv_head = format!("{},", FoundRun::OWN_KEYS.join(","));
    let file = TableFile::new(&arguments.file, "runs", [&csv_head, JSON_HEAD])?;
    let runs = chosen(&arguments.runs, &arguments.filters)?;
    file.write(&match file.format {
        Format::Csv => as_csv(&runs),
        Format::Json => {
            let all = json!({ "runs": runs.iter().map(as_json).collect::<Vec<_>>() });
            serde_json::to_string_pretty(&all).context("failed to write the runs as JSON")? + "\n"
        }
    })?;
    note!("{}: {} run{}", arguments.file.display(), runs.len(), if runs.len() == 1 { "" } else { "s" });
    Ok(())
}

/// Returns a table with a column for each key that a run has: its own, the metrics of the last epoch and of the best, settings.
fn as_csv(runs: &[FoundRun]) -> String {
    let metrics: BTreeSet<&str> = runs.iter().flat_map(FoundRun::metrics).collect();
    let settings: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.config.keys()).map(String::as_str).collect();
    let mut keys: Vec<String> = FoundRun::OWN_KEYS.map(str::to_owned).to_vec();
    keys.extend(metrics.iter().flat_map(|metric| [(*metric).to_owned(), format!("best_{metric}")]));
    keys.extend(settings.into_iter().map(str::to_owned));
    let mut text = keys.iter().map(|key| quoted(key)).collect::<Vec<_>>().join(",") + "\n";
    for run in runs {
        let cells: Vec<String> = keys.iter().map(|key| quoted(&run.value(key).unwrap_or_default())).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}
