//! `invaspread runs resume`: goes on with runs that were stopped, killed, or that failed, each by the command that
//! asked for it.

use super::chosen;
use crate::arguments::{Arguments, Command};
use crate::commands::launch::{announce, note_request, work};
use crate::commands::places::Places;
use crate::failure::Failure;
use crate::output::{note, print_line};
use crate::runs_arguments::RunsResumeArguments;
use anyhow::{Context, anyhow};
use clap::Parser;
#[cfg(feature = "report")]
use invaspread_runner::config::Suite;
use invaspread_runner::config::{Override, Sweep, plan_runs};
use invaspread_runner::launch::Planned;
use invaspread_runner::memory::Memory;
use invaspread_runner::record::Request;
use invaspread_runner::runs::{FoundRun, RunState};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, absolute};

pub(super) fn resume(arguments: &RunsResumeArguments) -> Result<(), Failure> {
    let root = absolute(&arguments.runs).context("failed to find the current folder")?;
    let unfinished: Vec<FoundRun> =
        chosen(&root, &arguments.filters)?.into_iter().filter(|run| is_left(&run.state)).collect();
    if unfinished.is_empty() {
        print_line!("nothing to resume: no run of {} is stopped, killed, failed or queued", root.display());
        return Ok(());
    }
    // The runs of one command are planned together.
    let mut of_request: BTreeMap<(String, Vec<String>), Vec<FoundRun>> = BTreeMap::new();
    let mut left_out = 0;
    for run in unfinished {
        match Request::read(&run.layout) {
            Ok(Some(request)) => {
                of_request.entry((request.folder, request.arguments)).or_default().push(run);
            }
            Ok(None) => {
                left_out += 1;
                note!("{}: it has no request.json; give the command again that began it", run.name);
            }
            Err(error) => {
                left_out += 1;
                note!("{}: {error}", run.name);
            }
        }
    }
    let (mut finished, mut failures) = (0, Vec::new());
    // One command after the other: the working directory is that of the command.
    for ((folder, words), runs) in of_request {
        let request = Request { arguments: words, folder };
        let mut planned = Vec::new();
        match plan(&request, &root) {
            Ok(all) => {
                for run in runs {
                    let found =
                        all.iter().find(|planned| planned.layout(&root).folder() == run.layout.folder());
                    if let Some(found) = found {
                        planned.push(found.clone());
                    } else {
                        left_out += 1;
                        note!(
                            "{}: its command (`{}` in {}) plans no run of this name: the program's defaults, a file of settings or the images \
                             have changed since, or the run's folder was moved or renamed",
                            run.name,
                            request.arguments.join(" "),
                            request.folder
                        );
                    }
                }
            }
            Err(why) => {
                left_out += runs.len();
                let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
                note!("{}: `{}` in {}: {why}", names.join(", "), request.arguments.join(" "), request.folder);
            }
        }
        if planned.is_empty() {
            continue;
        }
        announce(&planned, &root, &Places::default())?;
        if !arguments.dry_run {
            match work(&planned, &root, &Places::default(), &[]) {
                Ok(records) => finished += records.len(),
                Err(Failure::Failed(error)) => failures.push(error.to_string()),
                Err(other) => return Err(other),
            }
        }
    }
    if finished > 0 {
        print_line!(
            "{} finished; `invaspread runs list` shows them, `invaspread report SUITE` draws a suite's report",
            match finished {
                1 => "1 run is".to_owned(),
                count => format!("{count} runs are"),
            }
        );
    }
    if left_out > 0 {
        failures.push(format!("{left_out} of the unfinished runs cannot be resumed (above)"));
    }
    match failures.as_slice() {
        [] => Ok(()),
        all => Err(Failure::Failed(anyhow!("{}", all.join("; ")))),
    }
}

/// Returns whether a run waits for somebody to go on with it.
fn is_left(state: &RunState) -> bool {
    match state {
        RunState::Stopped
        | RunState::Killed
        | RunState::Silent(..)
        | RunState::Failed(_)
        | RunState::Queued
        // What cannot be read, such as a damaged status, is made again where that is possible.
        | RunState::Unreadable(_) => true,
        RunState::Finished | RunState::Running(_) | RunState::Elsewhere(_) => false,
    }
}

/// Plans all runs of a request, as they are kept below `root`.
///
/// # Errors
/// Returns a text that says why they cannot be planned.
fn plan(request: &Request, root: &Path) -> Result<Vec<Planned>, String> {
    // The paths in the arguments, and files of settings, begin in that folder.
    std::env::set_current_dir(&request.folder).map_err(|error| {
        format!("failed to enter the folder in which the command was given: {error}; expected it to be there still")
    })?;
    let words = std::iter::once("invaspread").chain(request.arguments.iter().map(String::as_str));
    let parsed = Arguments::try_parse_from(words).map_err(|error| {
        let why = error.to_string();
        format!("found a command that this version does not take: {}", why.lines().next().unwrap_or_default())
    })?;
    let place = Override::path("--runs", "runs.root", root).map_err(|error| error.to_string())?;
    let planned = match parsed.command {
        Command::Train(arguments) => {
            let mut overrides = arguments.settings.overrides().map_err(|error| error.to_string())?;
            overrides.push(place);
            plan_runs(&overrides, arguments.multirun, &Memory::of)
        }
        #[cfg(feature = "report")]
        Command::Reproduce(arguments) => {
            let mut overrides = arguments.settings.overrides().map_err(|error| error.to_string())?;
            overrides.push(place);
            Suite::open(&arguments.suite).and_then(|suite| suite.plan_all(&overrides, &Memory::of))
        }
        _ => return Err("expected `train` or `reproduce`".to_owned()),
    };
    let Sweep { mut planned, .. } = planned.map_err(|error| error.to_string())?;
    let words: Vec<OsString> = request.arguments.iter().map(OsString::from).collect();
    note_request(&mut planned, &words);
    Ok(planned)
}
