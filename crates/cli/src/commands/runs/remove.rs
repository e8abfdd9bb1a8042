//! `invaspread runs rm`: removes the folders of runs, after it has named them.

use super::{chosen, named};
use crate::failure::Failure;
use crate::output::{note, print_line};
use crate::runs_arguments::RunsRemoveArguments;
use anyhow::{Context, anyhow};
use invaspread_runner::record::RunDirectory;
use invaspread_runner::runs::{Filter, FoundRun, RunState};
use std::path::Path;

pub(super) fn remove(arguments: &RunsRemoveArguments) -> Result<(), Failure> {
    let root = &arguments.runs;
    let mut runs: Vec<FoundRun> = Vec::new();
    let mut filters: Vec<Filter> = Vec::new();
    for asked in &arguments.asked {
        // The path of a run may hold an equals sign.
        match asked.parse::<Filter>() {
            Ok(filter) if !Path::new(asked).is_dir() => filters.push(filter),
            _ => runs.push(named(root, Path::new(asked))?),
        }
    }
    if !filters.is_empty() {
        runs.extend(chosen(root, &filters)?);
    }
    // The same run may be named and chosen.
    let whole = |run: &FoundRun| {
        let folder = run.layout.folder();
        std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf())
    };
    runs.sort_by_cached_key(whole);
    runs.dedup_by_key(|run| whole(run));
    if runs.is_empty() {
        note!("no run is chosen: nothing is removed");
        return Ok(());
    }
    if let Some(busy) =
        runs.iter().find(|run| matches!(run.state, RunState::Running(_) | RunState::Elsewhere(_)))
    {
        let details = busy.state.details().unwrap_or_default();
        return Err(Failure::Usage(anyhow!(
            "{} is {} {details}: expected runs that nobody works on; stop that process, or leave the run out",
            busy.name,
            busy.state.name()
        )));
    }
    if !arguments.yes {
        for run in &runs {
            print_line!("{} ({})", run.layout.folder().display(), run.state.name());
        }
        let these = if runs.len() == 1 { "this folder" } else { "these folders" };
        note!(
            "nothing is removed yet: the same command with --yes removes {these} and all that is in {}",
            if runs.len() == 1 { "it" } else { "them" }
        );
        return Ok(());
    }
    for run in &runs {
        let folder = run.layout.folder();
        // Nobody begins to work on the run while its files go.
        let held =
            RunDirectory::claim(run.layout.clone(), RunDirectory::LEASE).context("failed to remove a run")?;
        std::fs::remove_dir_all(folder).with_context(|| format!("failed to remove {}", folder.display()))?;
        drop(held);
        print_line!("removed {}", folder.display());
    }
    Ok(())
}
