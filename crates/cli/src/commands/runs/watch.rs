//! `invaspread runs watch`: follows runs while processes work on them. It reads the files of the runs, so it sees
//! processes of any machine that shares the folder.
//!
//! Each new epoch and each change of state is a line. It ends when no process has worked on a run at several looks. On a terminal, a bar below shows each run on which a process works.

use super::chosen;
use super::list::{counted, result};
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::{draws, note_above, print_line, visible};
use crate::progress::{bar, readable};
use crate::runs_arguments::RunsWatchArguments;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use invaspread_runner::record::MetricsTable;
use invaspread_runner::runs::{FoundRun, RunState};
use std::collections::BTreeMap;
use std::time::Duration;

/// The looks at which no process works on a run before the end: a process is between two runs for a moment.
const QUIET: u32 = 5;

/// The epochs of which the mean says how long the next ones take.
const RECENT: usize = 3;

pub(super) fn watch(arguments: &RunsWatchArguments) -> Result<(), Failure> {
    let target = if draws() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let screen = MultiProgress::with_draw_target(target);
    let total = screen.add(bar("{msg}"));
    let mut bars: BTreeMap<String, ProgressBar> = BTreeMap::new();
    let mut seen: BTreeMap<String, (&'static str, Option<u64>)> = BTreeMap::new();
    let mut quiet = 0;
    loop {
        let runs = chosen(&arguments.runs, &arguments.filters)?;
        for run in &runs {
            let now = (run.state.name(), run.epochs()[0]);
            let is_new = seen.insert(run.name.clone(), now) != Some(now);
            let is_worked_on = run.is_worked_on();
            let pace = if is_new || is_worked_on { pace(run) } else { None };
            if is_new {
                note_above(&total, &line(run, pace.as_deref()));
            }
            if is_worked_on {
                let bar = bars.entry(run.name.clone()).or_insert_with(|| {
                    let bar = screen.insert_before(&total, ProgressBar::no_length());
                    let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {msg}");
                    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                });
                bar.set_prefix(visible(&run.name).into_owned());
                bar.set_length(run.epochs()[1].unwrap_or(0));
                bar.set_position(run.epochs()[0].unwrap_or(0));
                bar.set_message(pace.unwrap_or_default());
            } else if let Some(bar) = bars.remove(&run.name) {
                bar.finish_and_clear();
                screen.remove(&bar);
            }
        }
        // The folder of a run may have been removed.
        bars.retain(|name, bar| {
            let is_there = runs.iter().any(|run| run.name == *name);
            if !is_there {
                bar.finish_and_clear();
            }
            is_there
        });
        if runs.iter().any(|run| run.is_worked_on() || run.state == RunState::Queued) {
            quiet = 0;
        } else {
            quiet += 1;
        }
        if quiet == QUIET {
            total.finish_and_clear();
            print_line!("{}", counted(&runs));
            return Ok(());
        }
        total.set_message(counted(&runs));
        std::thread::sleep(Duration::from_secs(arguments.seconds));
    }
}

/// Returns the last loss and the last main metric of an unfinished run, the time of an epoch and the time that is left.
/// Returns `None` if its measurements are not there or cannot be read; the next look may find them.
fn pace(run: &FoundRun) -> Option<String> {
    let table = MetricsTable::read(&run.layout.metrics()).ok()?;
    let rows = table.rows();
    let last = rows.last()?;
    let mut parts = Vec::new();
    let of = |name: &str| rows.iter().rev().find(|row| row.name == name).map(|row| row.value);
    if let Some(loss) = of("loss") {
        parts.push(format!("loss {loss:.4}"));
    }
    if let Some((name, value)) = ["knn_top1", "recall_at_1"].iter().find_map(|name| Some((name, of(name)?))) {
        parts.push(format!("{} {value:.2}%", short_name(name)));
    }
    // The seconds at which the last epochs ended, newest first.
    let mut ends: Vec<(i64, f64)> = Vec::new();
    for row in rows.iter().rev() {
        if ends.last().is_none_or(|(epoch, _)| *epoch != row.epoch) {
            ends.push((row.epoch, row.seconds));
        }
        if ends.len() > RECENT {
            break;
        }
    }
    if let (Some(newest), Some(oldest)) = (ends.first(), ends.last())
        && newest.0 > oldest.0
        && newest.1 > oldest.1
    {
        let epoch = (newest.1 - oldest.1) / (newest.0 - oldest.0) as f64;
        parts.push(format!("{} an epoch", readable(Duration::from_secs_f64(epoch))));
        let left = run.epochs()[1].and_then(|all| all.checked_sub(last.epoch.unsigned_abs()));
        if let Some(left) = left.filter(|&left| left > 0) {
            let left = Duration::try_from_secs_f64(epoch * left as f64).unwrap_or(Duration::MAX);
            parts.push(format!("about {} left", readable(left)));
        }
    }
    Some(parts.join(", "))
}

/// Returns the line that says what is new in a run.
fn line(run: &FoundRun, pace: Option<&str>) -> String {
    let epochs = match run.epochs() {
        [Some(done), Some(all)] => format!("epoch {done}/{all}"),
        [Some(done), None] => format!("epoch {done}"),
        [None, _] => String::new(),
    };
    let more = match (&run.state, result(run)) {
        (RunState::Finished, Some(result)) => result,
        (RunState::Running(_) | RunState::Elsewhere(_), _) => pace.unwrap_or_default().to_owned(),
        (state, _) => state.details().unwrap_or_default(),
    };
    let row = run.value("row").or_else(|| run.value("method")).unwrap_or_default();
    let parts = [run.name.clone(), row, run.state.name().to_owned(), epochs, more];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join("  ")
}
