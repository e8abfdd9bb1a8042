//! `launcher=slurm`: runs as a job array of a Slurm cluster. `train` and `reproduce` submit it ([`submit`]); its
//! scripts call `invaspread slurm task` and `invaspread slurm report`.

#[cfg(feature = "report")]
mod report;
mod submit;
mod task;

pub(crate) use submit::{Asked, submit};
pub(crate) use task::threads_of_task;

use crate::arguments::{Arguments, Command, SlurmCommand};
use crate::failure::Failure;
use crate::output::note;
use anyhow::{Context, anyhow};
use clap::Parser;
use invaspread_runner::machine::program_hash;
use invaspread_runner::slurm::Launch;
use std::path::{Path, PathBuf};

pub(crate) fn slurm(command: &SlurmCommand) -> Result<(), Failure> {
    match command {
        SlurmCommand::Task { folder, index } => task::task(folder, *index),
        #[cfg(feature = "report")]
        SlurmCommand::Report { folder } => report::report(folder),
    }
}

/// Reads the launch in `folder`, makes its working directory that of this process, and returns it with the
/// absolute path of the folder. Notes if the program is another one than that of the launch.
fn entered(folder: &Path) -> Result<(Launch, PathBuf), Failure> {
    let folder = std::path::absolute(folder).context("failed to find the working directory")?;
    let launch = Launch::read(&folder).map_err(anyhow::Error::new)?;
    std::env::set_current_dir(&launch.working_directory).with_context(|| {
        let directory = launch.working_directory.display();
        format!("failed to enter {directory}, the working directory of the launch, which every node must see")
    })?;
    if launch.program_hash != program_hash() {
        note!(
            "{} was launched by another build of the program: {} has changed since, or this is another file. A run that was begun by \
             that build goes on with this one",
            folder.display(),
            launch.program.display()
        );
    }
    Ok((launch, folder))
}

/// Parses the arguments of a command that `train` or, for a suite, `reproduce` takes.
fn command_of(launch: &Launch, arguments: &[String]) -> Result<Command, Failure> {
    let command = match &launch.suite {
        Some(suite) => vec!["reproduce".to_owned(), suite.clone()],
        None => vec!["train".to_owned()],
    };
    let all = std::iter::once("invaspread".to_owned()).chain(command).chain(arguments.iter().cloned());
    let parsed = Arguments::try_parse_from(all);
    parsed.map(|parsed| parsed.command).map_err(|error| {
        Failure::Failed(anyhow!(
            "the launch has arguments that this program does not take: {}",
            error.to_string().trim()
        ))
    })
}
