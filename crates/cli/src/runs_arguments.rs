//! The command line of `invaspread runs`.

use crate::arguments::path;
use clap::{Args, Subcommand};
use invaspread_runner::runs::Filter;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, one on a line: state, epochs, method, data set and result
    List(RunsListArguments),
    /// Show what is known of a run
    Show(RunsShowArguments),
    /// Show the settings, the circumstances and the metrics in which two runs differ
    Diff(RunsDiffArguments),
    /// Follow runs while processes work on them, on this machine or others; ends when nobody has worked on one for five looks
    Watch(RunsWatchArguments),
    /// Go on with runs that were stopped or killed, or that failed, each by the command that asked for it
    Resume(RunsResumeArguments),
    /// Write runs with their metrics and all settings to a table of CSV, or to JSON
    Export(RunsExportArguments),
    /// Remove the folders of runs; without --yes only name them
    Rm(RunsRemoveArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunsListArguments {
    /// Conditions, which all must hold: KEY=VALUE, KEY=VALUE,VALUE, KEY!=VALUE, or KEY with a number after >=, <=, > or <
    /// (in quotes). KEY is suite, row, state, method, dataset, profile, seed, epoch, a metric such as knn_top1, or a setting
    /// such as optim.lr
    #[arg(value_name = "CONDITION")]
    pub(crate) filters: Vec<Filter>,
    /// Sort by the values of this key; runs without one come last
    #[arg(long, value_name = "KEY")]
    pub(crate) sort: Option<String>,
    /// Sort from the highest down
    #[arg(long, requires = "sort")]
    pub(crate) descending: bool,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print everything that is known of the runs as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsShowArguments {
    /// The run: its folder, or the beginning of its id
    #[arg(value_parser = path())]
    pub(crate) run: PathBuf,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print everything that is known of the run as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsDiffArguments {
    /// The first run: its folder, or the beginning of its id
    #[arg(value_parser = path())]
    pub(crate) one: PathBuf,
    /// The second run
    #[arg(value_parser = path())]
    pub(crate) other: PathBuf,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print the differences as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsWatchArguments {
    /// Conditions, as of `runs list`
    #[arg(value_name = "CONDITION")]
    pub(crate) filters: Vec<Filter>,
    /// Seconds between two looks at the runs
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunsResumeArguments {
    /// Conditions, as of `runs list`
    #[arg(value_name = "CONDITION")]
    pub(crate) filters: Vec<Filter>,
    /// Only say what would be resumed and how long it takes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunsExportArguments {
    /// The file to write: .csv or .json; an existing file is replaced only if this command wrote it
    #[arg(value_parser = path())]
    pub(crate) file: PathBuf,
    /// Conditions, as of `runs list`
    #[arg(value_name = "CONDITION")]
    pub(crate) filters: Vec<Filter>,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunsRemoveArguments {
    /// Runs, by their folders or the beginnings of their ids, and conditions as of `runs list`, which all must hold
    #[arg(value_name = "RUN|CONDITION", required = true)]
    pub(crate) asked: Vec<String>,
    /// Remove the folders
    #[arg(long)]
    pub(crate) yes: bool,
    /// Folder of the runs
    #[arg(long, value_name = "FOLDER", value_parser = path(), default_value = "runs")]
    pub(crate) runs: PathBuf,
}
