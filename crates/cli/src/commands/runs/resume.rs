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
use invaspread_runner::config::{Override, Suite, Sweep, plan_runs};
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
    let mut planned = Vec::new();
    for ((folder, words), runs) in of_request {
        let request = Request { arguments: words, folder };
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
                            "{}: its command (`{}` in {}) no longer plans it: the program's defaults, a file of settings or the images have \
                             changed since",
                            run.name,
                            request.arguments.join(" "),
                            request.folder
                        );
                    }
                }
            }
            Err(why) => {
                left_out += runs.len();
                note!("{}: `{}`: {why}", request.folder, request.arguments.join(" "));
            }
        }
    }
    if !planned.is_empty() {
        announce(&planned, &root, &Places::default())?;
        if arguments.dry_run {
            return Ok(());
        }
        let records = work(&planned, &root, &Places::default(), &[])?;
        print_line!(
            "{} finished; `invaspread runs list` shows them, `invaspread report SUITE` draws a suite's report",
            match records.len() {
                1 => "1 run is".to_owned(),
                count => format!("{count} runs are"),
            }
        );
    }
    match left_out {
        0 => Ok(()),
        count => Err(Failure::Failed(anyhow!("{count} of the unfinished runs cannot be resumed (above)"))),
    }
}

/// Returns whether a run waits for somebody to go on with it.
fn is_left(state: &RunState) -> bool {
    match state {
        RunState::Stopped | RunState::Killed | RunState::Failed(_) | RunState::Queued => true,
        RunState::Finished | RunState::Running(_) | RunState::Elsewhere(_) | RunState::Unreadable(_) => false,
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
    let parsed = Arguments::try_parse_from(words)
        .map_err(|error| format!("found a command that this version does not take: {}", error.kind()))?;
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
