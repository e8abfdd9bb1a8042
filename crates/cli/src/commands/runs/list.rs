//! `invaspread runs list`: a line for each run.

use super::{as_json, chosen};
use crate::commands::print_json;
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::{note, print_block, print_line, visible};
use crate::runs_arguments::RunsListArguments;
use comfy_table::{LineStyle, Table, presets};
use invaspread_runner::runs::{Filter, FoundRun, RunState};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;

pub(super) fn list(arguments: &RunsListArguments) -> Result<(), Failure> {
    let mut runs = chosen(&arguments.runs, &arguments.filters)?;
    if let Some(key) = &arguments.sort {
        Filter::check_all([key.as_str()].into_iter(), &runs).map_err(|error| Failure::Usage(error.into()))?;
        sort(&mut runs, key, arguments.descending);
    }
    if arguments.json {
        return Ok(print_json(&runs.iter().map(as_json).collect::<Vec<Value>>())?);
    }
    if !runs.is_empty() {
        print_block(&table(&runs, arguments.sort.as_deref()));
    }
    print_line!("{}", counted(&runs));
    for run in &runs {
        if let RunState::Failed(why) | RunState::Unreadable(why) = &run.state {
            note!("{}: {why}", run.name);
        }
    }
    Ok(())
}

/// Sorts runs by their values of `key`: numbers before words, and runs without one last.
fn sort(runs: &mut [FoundRun], key: &str, descending: bool) {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| !number.is_nan());
    let order = |one: &str, other: &str| match (number(one), number(other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    };
    runs.sort_by(|one, other| match (one.value(key), other.value(key)) {
        (Some(one), Some(other)) if descending => order(&other, &one),
        (Some(one), Some(other)) => order(&one, &other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    });
}

fn table(runs: &[FoundRun], sorted_by: Option<&str>) -> String {
    let mut heads = ["run", "row", "state", "epoch", "method", "dataset", "seed", "result", "updated"]
        .map(str::to_owned)
        .to_vec();
    let more = sorted_by.filter(|key| !FoundRun::OWN_KEYS.contains(key));
    heads.extend(more.map(|key| visible(key).into_owned()));
    let mut grid = Table::new();
    grid.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    grid.set_header(heads);
    let or_none =
        |text: Option<String>| text.map_or_else(|| "–".to_owned(), |text| visible(&text).into_owned());
    for run in runs {
        let epoch = match run.epochs() {
            [Some(done), Some(all)] if done != all => format!("{done}/{all}"),
            [Some(done), _] => done.to_string(),
            [None, _] => "–".to_owned(),
        };
        let mut cells = vec![visible(&run.name).into_owned()];
        cells.extend(["row", "state"].map(|key| or_none(run.value(key))));
        cells.push(epoch);
        cells.extend(["method", "dataset", "seed"].map(|key| or_none(run.value(key))));
        cells.push(or_none(result(run)));
        cells.push(or_none(run.value("updated")));
        cells.extend(more.map(|key| or_none(run.value(key))));
        grid.add_row(cells);
    }
    grid.to_string()
}

/// Returns the main metric of a finished run, after its last epoch.
pub(super) fn result(run: &FoundRun) -> Option<String> {
    let record = run.record.as_ref()?;
    let main = record.metrics.get(&record.main_metric)?;
    Some(format!("{} {:.2}%", short_name(&record.main_metric), main.last))
}

/// Returns how many runs there are of each state: "3 runs: 2 finished, 1 stopped".
pub(super) fn counted(runs: &[FoundRun]) -> String {
    let mut of_state: BTreeMap<&str, usize> = BTreeMap::new();
    for run in runs {
        *of_state.entry(run.state.name()).or_default() += 1;
    }
    let parts: Vec<String> = of_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    match runs.len() {
        0 => "no runs".to_owned(),
        1 => format!("1 run: {}", parts.join(", ")),
        count => format!("{count} runs: {}", parts.join(", ")),
    }
}
