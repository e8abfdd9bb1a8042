//! `invaspread bench`: the speed of each part on this machine.

use super::print_json;
use crate::bench_arguments::{BenchArguments, BenchCommand};
use crate::bench_memory;
use crate::failure::Failure;
use crate::output::{print_block, print_line};
use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use invaspread_runner::bench::{self, BenchReport};
use serde_json::Value;

pub(crate) fn bench(arguments: &BenchArguments) -> Result<(), Failure> {
    bench_memory::fits(arguments).map_err(|error| Failure::Usage(error.into()))?;
    let compute = arguments.compute();
    let failed = || format!("failed to run bench {}", arguments.command.name());
    let report = match &arguments.command {
        BenchCommand::Train(sizes) => bench::train(sizes.on(compute)).with_context(failed)?,
        BenchCommand::Evaluate(sizes) => bench::evaluate(sizes.on(compute)).with_context(failed)?,
        BenchCommand::Augment(sizes) => bench::augment(sizes.on(compute)).with_context(failed)?,
        BenchCommand::Epoch(sizes) => {
            at_most(("--batch", sizes.batch), ("--images", sizes.images))?;
            bench::epoch(sizes.on(compute)).with_context(failed)?
        }
        BenchCommand::Knn(sizes) => {
            at_most(("--k", sizes.k), ("--train", sizes.train))?;
            bench::knn(sizes.on(compute)).with_context(failed)?
        }
        BenchCommand::Kmeans(sizes) => {
            at_most(("--clusters", sizes.clusters), ("--points", sizes.points))?;
            bench::kmeans(sizes.on(compute)).with_context(failed)?
        }
    };
    if arguments.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(())
}

/// Returns a usage error unless the first flag's value is at most the second's.
fn at_most((flag, found): (&str, usize), (limit, most): (&str, usize)) -> Result<(), Failure> {
    if found <= most {
        return Ok(());
    }
    let message = format!("{flag}: found {found}, expected at most {limit}, which is {most}");
    Err(Failure::Usage(anyhow::Error::msg(message)))
}

fn print_table(report: &BenchReport) {
    print_line!("{} on {}, {} threads, {}", report.what, report.cpu, report.threads, report.instruction_set);
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    for (name, value) in report.settings.iter().chain(&report.figures) {
        let shown = match value {
            Value::Number(number) if number.is_f64() => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                if number >= 100.0 { format!("{number:.0}") } else { format!("{number:.3}") }
            }
            Value::Null => "unknown".to_owned(),
            other => other.to_string(),
        };
        table.add_row([name.replace('_', " "), shown]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    print_block(&table.to_string());
}
