//! The `invaspread` program as a library: it parses the arguments and prints the results. The libraries below
//! do all computations.
//!
//! [`measure`](mod@measure) is `invaspread measure` for another program that holds the embeddings in memory.
//!
//! Another crate can build the program with a method of its own. The method then has everything that the
//! built-in ones have: the config and its errors, checkpoints that resume exactly, suites, reports, `doctor`.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use invaspread::{Method, MethodSettings, Output, Registry, RunFacts, Step, candle};
//!
//! invaspread::settings! {
//!     /// Settings of a method that only pulls the two views of an image together.
//!     pub struct PullSettings {
//!         /// Factor of the loss, above 0.
//!         strength: f64 = 1.0,
//!     }
//! }
//!
//! impl MethodSettings for PullSettings {
//!     const NAME: &'static str = "pull";
//!     const LABEL: &'static str = "Pull";
//!
//!     fn views(&self) -> usize {
//!         2
//!     }
//!
//!     fn build(&self, _facts: RunFacts) -> candle::Result<Box<dyn Method>> {
//!         Ok(Box::new(Pull(self.strength)))
//!     }
//! }
//!
//! struct Pull(f64);
//!
//! impl Method for Pull {
//!     fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> candle::Result<candle::Tensor> {
//!         let batch = step.index.len();
//!         let [x, y] = [0, batch].map(|first| output.embedding.narrow(0, first, batch));
//!         (x? - y?)?.sqr()?.mean_all()? * self.0
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     invaspread::run(Registry::built_in().with::<PullSettings>())
//! }
//! ```
//!
//! `examples/own-method` in the repository is a complete package of this kind, with a state that is resumed
//! and a test.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is printed goes through `output`, which neither panics nor lets foreign characters command the terminal"
)]

mod arguments;
mod bench_arguments;
mod bench_memory;
mod commands;
mod failure;
mod log;
mod metric_names;
#[cfg(feature = "report")]
mod neighbors;
mod output;
mod packing;
mod panics;
mod progress;
mod runs_arguments;
mod table_file;

use anyhow::Context;
use arguments::{Arguments, Command};
use clap::Parser;
use clap::error::ErrorKind;
use failure::Failure;
use invaspread_tensor::Started;
use output::{has_colors, note, visible};
use std::process::ExitCode;

pub use candle_core as candle;
pub use commands::measure::arrays as measure;
pub use invaspread_losses as losses;
pub use invaspread_models as models;
pub use invaspread_models::Output;
pub use invaspread_random as random;
pub use invaspread_runner::checkpoint::NamedTensors;
pub use invaspread_runner::methods::{
    Features, Layer, Method, MethodMemory, MethodSettings, Registry, RunFacts, Sizes, StateError, Step,
    TakenStep, load_module, module_state, nothing_left, take,
};
pub use invaspread_runner::settings;
pub use invaspread_tensor::DeviceKind;

/// Runs the command line with the methods of `registry` and returns the exit code: 0 for success, 2 for a
/// wrong request, 1 for a failure.
///
/// # Panics
/// Panics if it is called twice in a process, because a run's name must stand for one method.
pub fn run(registry: Registry) -> ExitCode {
    panics::report_as_bugs();
    assert!(registry.install().is_ok(), "invaspread::run is called once, before anything reads a config");
    invaspread_tensor::prepare_process();
    let ended = match Arguments::try_parse() {
        Ok(arguments) => {
            log::start();
            obey(arguments.command)
        }
        Err(answer) => match answered(answer) {
            Ok(()) => Ok(()),
            Err(code) => return code,
        },
    };
    // What was printed before a failure is still written. Of two failures the first one is reported.
    let printed = output::finish();
    match ended.and(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ Failure::Unread) => failure.exit_code(),
        Err(failure) => {
            note!("error: {failure}");
            failure.exit_code()
        }
    }
}

/// Prints clap's answer: help, the version, or an error in the command line, with the exit code for it.
fn answered(answer: clap::Error) -> Result<(), ExitCode> {
    if answer.kind() == ErrorKind::InvalidUtf8 {
        // clap's message does not say which argument it is and what it contains.
        #[allow(
            clippy::unnecessary_debug_formatting,
            reason = "its escapes show the bytes that are not text"
        )]
        let found: Vec<String> = std::env::args_os()
            .filter(|given| given.to_str().is_none())
            .map(|given| format!("{given:?}"))
            .collect();
        note!(
            "error: found {}, expected UTF-8: only file and folder names that stand alone may hold other bytes",
            found.join(", ")
        );
        return Err(ExitCode::from(2));
    }
    let answer = with_visible_arguments(answer);
    let styled = answer.render();
    if answer.use_stderr() {
        if has_colors(&std::io::stderr()) {
            output::note_raw(&styled.ansi().to_string());
        } else {
            output::note_raw(&styled.to_string());
        }
        return Err(ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2)));
    }
    if has_colors(&std::io::stdout()) {
        output::print_raw(&styled.ansi().to_string());
    } else {
        output::print_raw(&styled.to_string());
    }
    Ok(())
}

/// Returns the same answer with control characters of the command line, which it quotes, written as escapes.
fn with_visible_arguments(answer: clap::Error) -> clap::Error {
    let arguments = std::env::args_os().map(|argument| visible(&argument.to_string_lossy()).into_owned());
    match Arguments::try_parse_from(arguments) {
        Err(same) if same.kind() == answer.kind() => same,
        _ => answer,
    }
}

/// Starts the threads of a command that computes, and warns if there are fewer than there should be.
fn start_threads(command: &Command) -> Result<(), Failure> {
    let wanted = match command {
        Command::Config(_) | Command::Runs(_) | Command::Completions(_) => return Ok(()),
        Command::Bench(arguments) => arguments.threads,
        Command::Slurm(_) => commands::threads_of_task(|name| std::env::var(name).ok()),
        _ => None,
    };
    let Started { threads, wanted } =
        invaspread_tensor::start_threads(wanted).context("failed to start the threads")?;
    if threads < wanted {
        let go_on = match threads {
            0 => "everything is computed on the first".to_owned(),
            threads => format!("{threads} compute"),
        };
        note!(
            "the system did not give the {wanted} threads that should compute; {go_on}. Raise the limit on processes (`ulimit -u`, a \
             container's pids limit)"
        );
    }
    Ok(())
}

fn obey(command: Command) -> Result<(), Failure> {
    start_threads(&command)?;
    match command {
        #[cfg(feature = "report")]
        Command::Demo(arguments) => commands::demo(&arguments),
        Command::Train(arguments) => commands::train(&arguments),
        #[cfg(feature = "report")]
        Command::Reproduce(arguments) => commands::reproduce(&arguments),
        #[cfg(feature = "report")]
        Command::Report(arguments) => commands::report(&arguments),
        #[cfg(feature = "report")]
        Command::Look(arguments) => commands::look(&arguments),
        Command::Evaluate(arguments) => commands::evaluate(&arguments),
        Command::Embed(arguments) => commands::embed(&arguments),
        Command::Measure(arguments) => commands::measure(&arguments),
        Command::Runs(command) => commands::runs(&command),
        Command::Weights(command) => commands::weights(&command),
        Command::Data(command) => commands::data(&command),
        Command::Config(command) => commands::config(&command),
        Command::Doctor(arguments) => commands::doctor(&arguments),
        Command::Bench(arguments) => commands::bench(&arguments),
        Command::Slurm(command) => commands::slurm(&command),
        Command::Completions(arguments) => {
            commands::completions(&arguments);
            Ok(())
        }
    }
}
