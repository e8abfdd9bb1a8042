//! `invaspread runs`: what the folder of runs holds, finished or not.

mod diff;
mod export;
mod list;
mod remove;
mod resume;
mod show;
mod watch;

use crate::failure::Failure;
use crate::runs_arguments::RunsCommand;
use anyhow::{Context, anyhow};
use invaspread_runner::record::Layout;
use invaspread_runner::runs::{Filter, FoundRun, find, is_run};
use serde_json::{Map, Value, json};
use std::path::Path;

pub(crate) fn runs(command: &RunsCommand) -> Result<(), Failure> {
    match command {
        RunsCommand::List(arguments) => list::list(arguments),
        RunsCommand::Show(arguments) => show::show(arguments),
        RunsCommand::Diff(arguments) => diff::diff(arguments),
        RunsCommand::Watch(arguments) => watch::watch(arguments),
        RunsCommand::Resume(arguments) => resume::resume(arguments),
        RunsCommand::Export(arguments) => export::export(arguments),
        RunsCommand::Rm(arguments) => remove::remove(arguments),
    }
}

/// Returns the runs below `root` for which all of `filters` hold.
///
/// # Errors
/// Returns an error of usage if a filter has a key that no run has, or names no folder.
fn chosen(root: &Path, filters: &[Filter]) -> Result<Vec<FoundRun>, Failure> {
    let mut runs = all(root)?;
    Filter::check_all(filters.iter().map(Filter::key), &runs)
        .map_err(|error| Failure::Usage(error.into()))?;
    runs.retain(|run| filters.iter().all(|filter| filter.holds(run)));
    Ok(runs)
}

fn all(root: &Path) -> Result<Vec<FoundRun>, Failure> {
    if !root.is_dir() {
        return Err(Failure::Usage(anyhow!(
            "found no folder {}, expected the folder of runs; --runs FOLDER names it",
            root.display()
        )));
    }
    Ok(find(root).context("failed to look at the runs")?)
}

/// Returns the run that `asked` names: its folder, its name below `root`, or the beginning of its id.
///
/// # Errors
/// Returns an error of usage if no run has that name, or several have.
pub(in crate::commands) fn named(root: &Path, asked: &Path) -> Result<FoundRun, Failure> {
    for folder in [asked.to_path_buf(), root.join(asked)] {
        let layout = Layout::of(&folder);
        if is_run(&layout) {
            let root = if folder.starts_with(root) { root } else { folder.parent().unwrap_or(root) };
            return Ok(FoundRun::read(root, layout));
        }
    }
    let text = asked.to_string_lossy();
    let begins = |run: &FoundRun| {
        let id = run.name.rsplit_once('/').map_or(run.name.as_str(), |(_, id)| id);
        run.name.starts_with(&*text) || id.starts_with(&*text)
    };
    let mut found: Vec<FoundRun> = all(root)?.into_iter().filter(begins).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::Usage(anyhow!(
            "found no run {text} in {}, expected a run's folder, or the beginning of its id; `invaspread runs list` names them",
            root.display()
        ))),
        count => Err(Failure::Usage(anyhow!(
            "found {count} runs that begin with {text} ({}{}), expected one; write more of its name",
            found.iter().take(3).map(|run| run.name.as_str()).collect::<Vec<_>>().join(", "),
            if count > 3 { ", ..." } else { "" }
        ))),
    }
}

/// Returns everything that is known of a run.
fn as_json(run: &FoundRun) -> Value {
    let mut found = Map::new();
    for key in FoundRun::OWN_KEYS {
        found.insert(key.to_owned(), run.value(key).map_or(Value::Null, |text| number_or_text(&text)));
    }
    found.insert("details".to_owned(), json!(run.state.details()));
    found.insert("epochs".to_owned(), json!(run.epochs()[1]));
    found.insert("folder".to_owned(), json!(run.layout.folder()));
    let config: Map<String, Value> =
        run.config.iter().map(|(key, text)| (key.clone(), json!(text))).collect();
    found.insert("config".to_owned(), Value::Object(config));
    found.insert("record".to_owned(), json!(run.record));
    Value::Object(found)
}

/// Returns a number if the text is one that a float holds.
fn number_or_text(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => {
            text.parse::<i64>().map_or_else(|_| json!(number), |whole| json!(whole))
        }
        _ => json!(text),
    }
}
