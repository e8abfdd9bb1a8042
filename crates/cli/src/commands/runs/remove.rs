//! `invaspread runs rm`: removes the folders of runs, after it has named them.

use super::{chosen, named};
use crate::failure::Failure;
use crate::output::{note, print_line};
use crate::runs_arguments::RunsRemoveArguments;
use anyhow::{Context, anyhow};
use invaspread_runner::record::{RecordError, RunDirectory};
use invaspread_runner::runs::{Filter, FoundRun, RunState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time between two tries to claim a run.
const PAUSE: Duration = Duration::from_millis(500);

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
    if let Some(busy) = runs.iter().find(|run| run.is_worked_on()) {
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
        // Nobody begins to work on the run while it goes.
        let held = claimed(run).context("failed to remove a run")?;
        // A folder that is moved away first is either a whole run or none, whenever this process is stopped.
        let aside = aside(folder);
        if held.is_lost() {
            return Err(Failure::Failed(anyhow!(
                "{}: another process works on it now; it is not removed",
                run.name
            )));
        }
        std::fs::rename(folder, &aside)
            .and_then(|()| std::fs::remove_dir_all(&aside))
            .with_context(|| format!("failed to remove {}", folder.display()))?;
        drop(held);
        print_line!("removed {}", folder.display());
    }
    Ok(())
}

/// Returns the name under which the folder of a run waits for its removal. It is not that of a run.
fn aside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".removed-{}", std::process::id()));
    folder.with_file_name(name)
}

/// Claims a run. If its owner on another machine is silent, this waits until its time is over.
fn claimed(run: &FoundRun) -> Result<RunDirectory, RecordError> {
    let claim = || RunDirectory::claim(run.layout.clone(), RunDirectory::LEASE);
    let RunState::Silent(owner, _) = &run.state else { return claim() };
    note!("{}: waiting for {} s, to see whether {owner} lives", run.name, owner.lease().as_secs());
    let from = Instant::now();
    loop {
        match claim() {
            Err(RecordError::Busy { .. }) if from.elapsed() < owner.lease() + PAUSE * 4 => {
                std::thread::sleep(PAUSE);
            }
            ended => return ended,
        }
    }
}
