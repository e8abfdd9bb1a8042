//! The command line, and nothing else: every flag with its help in one place.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

/// Train, measure and compare unsupervised embeddings; regenerate the tables and figures of "Unsupervised Embedding Learning via
/// Invariant and Spreading Instance Feature" (CVPR 2019).
#[derive(Debug, Parser)]
#[command(name = "invaspread", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// InvaSpread against NCE and an untrained network on generated images: a table, curves and a picture, in minutes
    Demo(DemoArguments),
    /// Train one run, or several with --multirun, from config groups and key=value settings; suite=NAME is `reproduce NAME`
    Train(TrainArguments),
    /// Run a table or figure of the paper and write its report
    Reproduce(ReproduceArguments),
    /// Write a suite's report again from the runs that are there
    Report(ReportArguments),
    /// Measure a file of weights (.safetensors or .pth) by kNN
    Evaluate(EvaluateArguments),
    /// Download, verify and list data sets
    #[command(subcommand)]
    Data(DataCommand),
    /// Show configs: every key, its value, and where it came from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say what this machine offers and check every op against its plain version
    Doctor(DoctorArguments),
    /// Print a shell's completion script
    Completions(CompletionsArguments),
}

/// Settings that every command with a config takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Settings, as dataset=cifar10 or optim.lr=0.01; `invaspread config show` lists them all
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Short for profile=NAME: paper, quick, smoke, demo
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Short for seed=LIST, as 0,1,2
    #[arg(long, value_name = "LIST")]
    pub(crate) seeds: Option<String>,
    /// Short for data.root=FOLDER
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_root: Option<String>,
    /// Short for runs.root=FOLDER
    #[arg(long, value_name = "FOLDER")]
    pub(crate) runs: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Run every combination of listed values (seed=0,1 method=nce,invaspread)
    #[arg(long)]
    pub(crate) multirun: bool,
    /// Only say what would be run and how long it takes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the records as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReproduceArguments {
    /// table1, figure3, or a file of ./experiments/suite
    pub(crate) suite: String,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Folder of the report; results/SUITE if not given (RUNS/SUITE-report for profile smoke)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Only say what would be run and how long it takes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the records as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// table1, figure3, or a file of ./experiments/suite
    pub(crate) suite: String,
    /// Folder of runs
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Folder of the report; results/SUITE if not given
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Print the table as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// Weights: .safetensors, .pth or .pt; a run's own checkpoint brings its config along
    pub(crate) weights: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Download a data set, check it and unpack it; a broken download is resumed
    Fetch {
        /// cifar10
        name: String,
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
        /// Another server: the address without the file name
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// From the Hugging Face hub instead (needs a build with --features hub)
        #[arg(long, conflicts_with = "mirror")]
        hub: bool,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a data set whole and compare its checksums
    Verify {
        /// cifar10
        name: String,
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the data sets and which of them are there
    List {
        /// Folder of data sets; INVASPREAD_DATA or the platform's cache folder if not given
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the resolved config as TOML
    Show {
        #[command(flatten)]
        settings: Settings,
        /// Print each value with the file or argument that set it
        #[arg(long)]
        origin: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the groups and their files, and the suites
    Groups,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// bash, zsh, fish, powershell or elvish
    pub(crate) shell: Shell,
}
