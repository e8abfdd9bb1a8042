//! `invaspread slurm report FOLDER`: the report of a launch, once its tasks have ended. It trains nothing: what is
//! missing is said, and the report has what is there.

use super::super::report::{Pages, Print, default_folder, draw, write};
use super::submit::name;
use super::{command_of, entered};
use crate::arguments::Command;
use crate::failure::Failure;
use crate::output::note;
use anyhow::anyhow;
use invaspread_runner::config::Suite;
use invaspread_runner::engine::{Silent, Stop};
use invaspread_runner::launch::{Planned, Standing, run_all};
use std::path::Path;

pub(super) fn report(folder: &Path) -> Result<(), Failure> {
    let (launch, folder) = entered(folder)?;
    let Command::Reproduce(asked) = command_of(&launch, &launch.request)? else {
        return Err(Failure::Usage(anyhow!(
            "{}: found runs of `train`, which have no report",
            folder.display()
        )));
    };
    let suite = Suite::open(&asked.suite)?;
    // The report needs no memory for training.
    let planned = suite.plan_all(&asked.settings.overrides()?, &|_| None)?.planned;
    let root = &launch.root;
    let (done, missing): (Vec<Planned>, Vec<Planned>) =
        planned.into_iter().partition(|run| matches!(run.standing(root), Ok(Standing::Done)));
    for run in &missing {
        note!("{} is not finished: {}", run.title(), name(run));
    }
    // Adds rows that share the run of another suite's row to its record; the runs are finished.
    run_all(&done, root, &mut Silent, &Stop::new());
    let out = match &launch.out {
        Some(out) => out.clone(),
        None => default_folder(&suite, root)?,
    };
    if missing.is_empty() {
        draw(&suite, &done, root, &out)?;
    }
    write(&suite, root, &out, Pages::Renewed, Print::Text)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(anyhow!(
        "{} of {} runs are not finished, and the report lacks them; the command of the launch submits them again",
        missing.len(),
        missing.len() + done.len()
    )))
}
