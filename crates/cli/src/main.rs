//! The `invaspread` program: arguments in, results out. Everything that computes lives in the libraries.

mod arguments;
mod commands;
mod failure;
mod metric_names;
mod neighbours;
mod progress;

use arguments::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Answers --help and --version, and exits with 2 on a wrong command line.
    let arguments = Arguments::parse();
    // In a file or pipe, and for who wants none (no-color.org), colours are noise.
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("INVASPREAD_LOG").unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .without_time()
        .with_target(false)
        .init();
    invaspread_tensor::prepare_process();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => commands::demo(&arguments),
        Command::Train(arguments) => commands::train(&arguments),
        Command::Reproduce(arguments) => commands::reproduce(&arguments),
        Command::Report(arguments) => commands::report(&arguments),
        Command::Evaluate(arguments) => commands::evaluate(&arguments),
        Command::Measure(arguments) => commands::measure(&arguments),
        Command::Weights(command) => commands::weights(&command),
        Command::Data(command) => commands::data(&command),
        Command::Config(command) => commands::config(&command),
        Command::Doctor(arguments) => commands::doctor(&arguments),
        Command::Bench(arguments) => commands::bench(&arguments),
        Command::Completions(arguments) => {
            commands::completions(&arguments);
            Ok(())
        }
    }
}
