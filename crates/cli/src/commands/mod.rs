//! One file a command.

mod bench;
mod config;
mod data;
mod demo;
mod doctor;
mod evaluate;
mod launch;
mod report;
mod reproduce;
mod train;
mod weights;

pub(crate) use bench::bench;
pub(crate) use config::config;
pub(crate) use data::data;
pub(crate) use demo::demo;
pub(crate) use doctor::doctor;
pub(crate) use evaluate::evaluate;
pub(crate) use report::report;
pub(crate) use reproduce::reproduce;
pub(crate) use train::train;
pub(crate) use weights::weights;

use crate::arguments::{Arguments, CompletionsArguments};
use anyhow::Context;
use clap::CommandFactory;
use serde::Serialize;

/// Prints the completion script of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) {
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "invaspread", &mut std::io::stdout());
}

/// Prints `value` as JSON, for scripts.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value).context("failed to write the result as JSON")?);
    Ok(())
}
