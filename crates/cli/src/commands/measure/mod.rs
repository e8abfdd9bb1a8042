//! `invaspread measure FILE`: measures embeddings from any program.
//!
//! `plan` is what is asked for, `prepared` the measurement of given rows and `outcome` its result. The command takes
//! the rows from files and prints the result; [`arrays`] takes them from memory, for the Python module.

mod against;
pub mod arrays;
mod class_file;
mod files;
mod measurement;
mod more;
pub(super) mod names;
pub(super) mod notes;
pub(super) mod outcome;
pub(super) mod peers;
mod plan;
mod prepared;
mod selection;
mod settings;
mod sources;
pub(super) mod text;

use super::{print_json, print_measured};
use crate::arguments::MeasureArguments;
use crate::failure::Failure;
use crate::output::{note, print_line};
use names::Names;
use outcome::Outcome;
use plan::{Asked, Plan};
use prepared::Prepared;
use serde_json::json;

pub(crate) fn measure(arguments: &MeasureArguments) -> Result<(), Failure> {
    let plan = Plan::new(&Asked {
        names: Names::Flags,
        settings: arguments.settings.overrides()?,
        has_gallery: arguments.gallery.is_some(),
        peer: arguments.peer,
        metrics: arguments.metrics.clone(),
        fmr: arguments.fmr.clone(),
        unscaled: arguments.unscaled,
        intervals: arguments.intervals,
        leaves_out: arguments.same_source_leaves_out,
        per_class: arguments.per_class.is_some(),
    })?;
    let class_file = arguments.per_class.as_deref().map(class_file::file).transpose()?;
    let inputs = files::read(arguments, plan.scaling)?;
    let prepared = Prepared::new(plan, inputs)?;
    for text in prepared.notes() {
        note!("note: {text}");
    }
    if let Some(text) = prepared.is_long() {
        note!("{text}");
    }
    let said = prepared.notes().len();
    let outcome = prepared.run()?;
    for text in &outcome.notes[said..] {
        note!("note: {text}");
    }
    if let Some(file) = &class_file {
        class_file::write(file, &outcome.per_class(), &outcome.measurement.classes.labels)?;
    }
    if arguments.json {
        return Ok(print_json(&outcome.as_json(&json!(arguments.per_class)))?);
    }
    print(&outcome, arguments.card);
    Ok(())
}

/// Prints the result as text, with the protocol if `card` says so.
fn print(outcome: &Outcome, card: bool) {
    let Outcome { measurement, measured, of_metrics, .. } = outcome;
    for line in text::describe(measurement, outcome.plan.scaling) {
        print_line!("{line}");
    }
    let set: Vec<String> = settings::set_here(&outcome.settings())
        .iter()
        .map(|setting| format!("{} = {} ({})", setting.key, setting.value, setting.origin))
        .collect();
    if !set.is_empty() {
        print_line!("settings: {}", set.join(", "));
    }
    print_measured(measured, of_metrics);
    for line in more::lines(outcome.found.more(), &outcome.of_more) {
        print_line!("{line}");
    }
    if let Some(intervals) = outcome.intervals.as_ref().filter(|_| !measured.0.is_empty()) {
        print_line!("{}", text::said_of(intervals, of_metrics, measured));
    }
    if card {
        for line in outcome.card().lines() {
            print_line!("{line}");
        }
    }
    if let Some(comparison) = &outcome.comparison {
        comparison.print(&measurement.test.origin.embeddings.file);
    }
}
