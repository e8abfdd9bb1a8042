//! `invaspread runs diff RUN RUN`: the settings, the circumstances and the metrics in which two runs differ.

use super::named;
use crate::commands::print_json;
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::{print_block, print_line, visible};
use crate::runs_arguments::RunsDiffArguments;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use invaspread_runner::record::RunRecord;
use invaspread_runner::runs::FoundRun;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A key with its value in each run.
type Differing = (String, [Option<String>; 2]);

/// Takes a value from a record.
type OfRecord = fn(&RunRecord) -> Option<String>;

pub(super) fn diff(arguments: &RunsDiffArguments) -> Result<(), Failure> {
    let runs = [named(&arguments.runs, &arguments.one)?, named(&arguments.runs, &arguments.other)?];
    let (settings, circumstances) = (settings(&runs), circumstances(&runs));
    if arguments.json {
        let of = |differing: &[Differing]| -> Value {
            differing.iter().map(|(key, [one, other])| (key.clone(), json!([one, other]))).collect()
        };
        return Ok(print_json(&json!({
            "runs": runs.each_ref().map(|run| &run.name),
            "settings": of(&settings),
            "circumstances": of(&circumstances),
            "metrics": metrics(&runs)
                .into_iter()
                .map(|(name, [one, other])| (name, json!({ "values": [one, other], "difference": one - other })))
                .collect::<serde_json::Map<_, _>>(),
        }))?);
    }
    for (title, differing) in [("settings", &settings), ("circumstances", &circumstances)] {
        if differing.is_empty() {
            print_line!("the same {title}");
        } else {
            print_line!("{title} that differ:");
            let cell = |text: &Option<String>| {
                text.as_ref().map_or_else(|| "–".to_owned(), |text| visible(text).into_owned())
            };
            print_block(&grid(
                &runs,
                differing.iter().map(|(key, values)| {
                    let [one, other] = values.each_ref().map(cell);
                    vec![key.clone(), one, other]
                }),
                false,
            ));
        }
    }
    let metrics = metrics(&runs);
    if metrics.is_empty() {
        print_line!("no metric that both have");
        return Ok(());
    }
    print_line!("metrics after the last epoch, in percent:");
    let rows = metrics.iter().map(|(name, [one, other])| {
        vec![
            short_name(name).into_owned(),
            format!("{one:.2}"),
            format!("{other:.2}"),
            format!("{:+.2}", one - other),
        ]
    });
    print_block(&grid(&runs, rows, true));
    Ok(())
}

fn grid(runs: &[FoundRun; 2], rows: impl Iterator<Item = Vec<String>>, is_of_numbers: bool) -> String {
    let mut grid = Table::new();
    grid.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    let [one, other] = runs.each_ref().map(|run| visible(&run.name).into_owned());
    let mut heads = vec![String::new(), one, other];
    if is_of_numbers {
        heads.push("difference".to_owned());
    }
    grid.set_header(heads);
    for row in rows {
        grid.add_row(row);
    }
    if is_of_numbers {
        for column in grid.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.to_string()
}

/// Returns the settings in which the runs differ, and their seed.
fn settings(runs: &[FoundRun; 2]) -> Vec<Differing> {
    let keys: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.config.keys()).map(String::as_str).chain(["seed"]).collect();
    differing(keys.into_iter().map(|key| {
        (
            key,
            runs.each_ref().map(|run| match key {
                "seed" => run.value(key),
                key => run.config.get(key).cloned(),
            }),
        )
    }))
}

/// Returns what else may have changed a result: the images, the program and the machine.
fn circumstances(runs: &[FoundRun; 2]) -> Vec<Differing> {
    let of: [(&str, OfRecord); 9] = [
        ("images", |record| Some(format!("{}, {}", record.train_images, record.test_images))),
        ("data", |record| Some(record.data_state.clone())),
        ("version", |record| Some(record.version.clone())),
        ("program", |record| record.program.clone()),
        ("commit", |record| record.git.clone()),
        ("compiler", |record| Some(record.rustc.clone())),
        ("processor", |record| Some(record.cpu.clone())),
        ("GPU", |record| record.gpu.clone()),
        ("threads", |record| Some(record.threads.to_string())),
    ];
    let value = |run: &FoundRun, of: OfRecord| run.record.as_ref().and_then(of);
    differing(of.into_iter().map(|(name, of)| (name, runs.each_ref().map(|run| value(run, of)))))
}

fn differing<'a>(all: impl Iterator<Item = (&'a str, [Option<String>; 2])>) -> Vec<Differing> {
    all.filter(|(_, [one, other])| one != other).map(|(key, values)| (key.to_owned(), values)).collect()
}

/// Returns the metrics that both have, after the last epoch.
fn metrics(runs: &[FoundRun; 2]) -> Vec<(String, [f64; 2])> {
    let [Some(one), Some(other)] = runs.each_ref().map(|run| run.record.as_ref()) else { return Vec::new() };
    let both = one
        .metrics
        .iter()
        .filter_map(|(name, first)| Some((name.clone(), [first.last, other.metrics.get(name)?.last])));
    both.collect()
}
