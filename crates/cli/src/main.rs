//! The `invaspread` program: arguments in, results out. Everything that computes lives in the libraries.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is printed goes through `output`, which neither panics nor lets foreign characters command the terminal"
)]

mod arguments;
mod bench_memory;
mod commands;
mod failure;
mod log;
mod metric_names;
mod neighbours;
mod output;
mod panics;
mod progress;

use anyhow::Context;
use arguments::{Arguments, Command};
use clap::Parser;
use clap::error::ErrorKind;
use failure::Failure;
use invaspread_tensor::Started;
use output::{has_colours, note, visible};
use std::process::ExitCode;

fn main() -> ExitCode {
    panics::report_as_bugs();
    invaspread_tensor::prepare_process();
    let ended = match Arguments::try_parse() {
        Ok(arguments) => {
            log::start();
            run(arguments.command)
        }
        Err(answer) => match answered(answer) {
            Ok(()) => Ok(()),
            Err(code) => return code,
        },
    };
    // What was printed before a failure is still worth writing; of two failures the first says why.
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

/// Prints what clap has to say in place of arguments: help and the version, or what is wrong with the command line and the exit code for
/// that.
fn answered(answer: clap::Error) -> Result<(), ExitCode> {
    if answer.kind() == ErrorKind::InvalidUtf8 {
        // clap says neither which nor what.
        #[allow(clippy::unnecessary_debug_formatting, reason = "its escapes show the bytes that are no text")]
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
        if has_colours(&std::io::stderr()) {
            output::note_raw(&styled.ansi().to_string());
        } else {
            output::note_raw(&styled.to_string());
        }
        return Err(ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2)));
    }
    if has_colours(&std::io::stdout()) {
        output::print_raw(&styled.ansi().to_string());
    } else {
        output::print_raw(&styled.to_string());
    }
    Ok(())
}

/// The same answer with escapes in what it quotes of the command line: a script may have put anything there.
fn with_visible_arguments(answer: clap::Error) -> clap::Error {
    let arguments = std::env::args_os().map(|argument| visible(&argument.to_string_lossy()).into_owned());
    match Arguments::try_parse_from(arguments) {
        Err(same) if same.kind() == answer.kind() => same,
        _ => answer,
    }
}

/// Starts the threads of a command that computes, and says so if they are fewer than they should be.
fn start_threads(command: &Command) -> Result<(), Failure> {
    let wanted = match command {
        Command::Config(_) | Command::Completions(_) => return Ok(()),
        Command::Bench(arguments) => arguments.threads,
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

fn run(command: Command) -> Result<(), Failure> {
    start_threads(&command)?;
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
