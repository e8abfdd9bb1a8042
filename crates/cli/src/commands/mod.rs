//! The commands, one file each.

mod bench;
mod card;
mod config;
mod data;
#[cfg(feature = "report")]
mod demo;
mod destination;
mod doctor;
mod embed;
mod evaluate;
pub(crate) mod launch;
#[cfg(feature = "report")]
mod look;
pub(crate) mod measure;
mod origin;
pub(crate) mod places;
#[cfg(feature = "report")]
mod report;
#[cfg(feature = "report")]
mod reproduce;
mod runs;
mod slurm;
mod spread;
mod train;
mod weights;

pub(crate) use bench::bench;
pub(crate) use config::config;
pub(crate) use data::data;
#[cfg(feature = "report")]
pub(crate) use demo::demo;
pub(crate) use doctor::doctor;
pub(crate) use embed::embed;
pub(crate) use evaluate::evaluate;
#[cfg(feature = "report")]
pub(crate) use look::look;
pub(crate) use measure::measure;
#[cfg(feature = "report")]
pub(crate) use report::report;
#[cfg(feature = "report")]
pub(crate) use reproduce::reproduce;
pub(crate) use runs::runs;
pub(crate) use slurm::{slurm, threads_of_task};
pub(crate) use train::train;
pub(crate) use weights::weights;

use crate::arguments::{Arguments, CompletionsArguments};
use crate::metric_names::short_name;
use crate::output::{self, print_line, print_raw};
use anyhow::Context;
use clap::CommandFactory;
use invaspread_metrics::Interval;
use invaspread_runner::engine::Measured;
use serde::Serialize;
use std::collections::BTreeMap;

/// Prints the completion script of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "invaspread", &mut script);
    print_raw(&String::from_utf8_lossy(&script));
}

/// Prints metrics, one a line, with the intervals of those that have one.
fn print_measured(measured: &Measured, intervals: &BTreeMap<String, Interval>) {
    for (name, value) in &measured.0 {
        let interval = intervals
            .get(name)
            .map_or_else(String::new, |Interval { low, high }| format!("  {low:6.2} to {high:6.2}"));
        print_line!("  {:<18} {value:6.2}%{interval}", short_name(name));
    }
}

/// Prints `value` as JSON, for scripts.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    output::print_json(&serde_json::to_string_pretty(value).context("failed to write the result as JSON")?);
    Ok(())
}

/// Prints which entries of a file of weights were chosen, were missing, or were not used.
fn print_loaded(loaded: &invaspread_models::LoadReport) {
    if let Some(choice) = loaded.choice() {
        print_line!("{choice}");
    }
    if !loaded.missing.is_empty() {
        print_line!("not in the file, and not needed for the pooled features: {}", loaded.missing.join(", "));
    }
    if !loaded.left_over.is_empty() {
        print_line!("entries of the file that the network does not use: {}", loaded.left_over.join(", "));
    }
}
