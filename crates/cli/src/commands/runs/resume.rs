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

/// The runs of each command: the folder in which it was given, and its arguments.
type OfCommand = BTreeMap<(String, Vec<String>), Vec<FoundRun>>;

pub(super) fn resume(arguments: &RunsResumeArguments) -> Result<(), Failure> {
    let root = absolute(&arguments.runs).context("failed to find the current folder")?;
    let unfinished: Vec<FoundRun> =
        chosen(&root, &arguments.filters)?.into_iter().filter(|run| is_left(&run.state)).collect();
    if unfinished.is_empty() {
        print_line!("nothing to resume: no run of {} is stopped, killed, failed or queued", root.display());
        return Ok(());
    }
    let asked = unfinished.len();
    let (mut taken, mut finished, mut failures) = (0, 0, Vec::new());
    // One command after the other: the working directory is that of the command.
    for ((folder, words), runs) in by_command(unfinished) {
        let request = Request { arguments: words, folder };
        let (planned, count) = planned(&request, &root, &runs);
        taken += count;
        if planned.is_empty() {
            continue;
        }
        announce(&planned, &root, &Places::default())?;
        if !arguments.dry_run {
            match work(&planned, &root, &Places::default(), &[]) {
                Ok(_) => finished += count,
                Err(Failure::Failed(error)) => failures.push(error.to_string()),
                Err(other) => return Err(other),
            }
        }
    }
    if finished > 0 {
        let runs = if finished == 1 { "1 run is".to_owned() } else { format!("{finished} runs are") };
        print_line!(
            "{runs} finished; `invaspread runs list` shows them, `invaspread report SUITE` draws a suite's report"
        );
    }
    if taken < asked {
        failures.push(format!("{} of the unfinished runs cannot be resumed (above)", asked - taken));
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Failed(anyhow!("{}", failures.join("; ")))) }
}

/// Returns the runs by the commands that asked for them. Notes which have no command that can be read.
fn by_command(unfinished: Vec<FoundRun>) -> OfCommand {
    let mut all = OfCommand::new();
    for run in unfinished {
        match Request::read(&run.layout) {
            Ok(Some(request)) => all.entry((request.folder, request.arguments)).or_default().push(run),
            Ok(None) => {
                note!("{}: it has no request.json; give the command again that began it", run.name);
            }
            Err(error) => note!("{}: {error}", run.name),
        }
    }
    all
}

/// Returns what `request` plans of `runs`, and how many of them that are; a run may be planned for several rows of a
/// suite. Notes which it does not plan.
fn planned(request: &Request, root: &Path, runs: &[FoundRun]) -> (Vec<Planned>, usize) {
    let command = format!("`{}` in {}", request.arguments.join(" "), request.folder);
    let all = match plan(request, root) {
        Ok(all) => all,
        Err(why) => {
            let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
            note!("{}: {command}: {why}", names.join(", "));
            return (Vec::new(), 0);
        }
    };
    let (mut planned, mut count) = (Vec::new(), 0);
    for run in runs {
        let before = planned.len();
        let is_it = |one: &&Planned| one.layout(root).folder() == run.layout.folder();
        planned.extend(all.iter().filter(is_it).cloned());
        if planned.len() > before {
            count += 1;
        } else {
            note!(
                "{}: its command ({command}) plans no run of this name: the program's defaults, a file of settings or the images \
                 have changed since, or the run's folder was moved or renamed",
                run.name
            );
        }
    }
    (planned, count)
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
