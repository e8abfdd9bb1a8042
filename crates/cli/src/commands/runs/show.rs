//! `invaspread runs show RUN`: what is known of one run.

use super::{as_json, named};
use crate::commands::print_json;
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::print_line;
use crate::progress::readable;
use crate::runs_arguments::RunsShowArguments;
use invaspread_runner::record::RunRecord;
use invaspread_runner::runs::FoundRun;
use std::time::Duration;

pub(super) fn show(arguments: &RunsShowArguments) -> Result<(), Failure> {
    let run = named(&arguments.runs, &arguments.run)?;
    if arguments.json {
        return Ok(print_json(&as_json(&run))?);
    }
    let line = |name: &str, value: &str| print_line!("{:<12} {value}", format!("{name}:"));
    line("run", &run.name);
    line("folder", &run.layout.folder().display().to_string());
    line("state", &state(&run));
    for key in ["row", "method", "dataset", "profile", "seed"] {
        if let Some(value) = run.value(key) {
            line(key, &value);
        }
    }
    if let Some(updated) = run.value("updated") {
        line("updated", &updated);
    }
    if let Some(record) = &run.record {
        of_record(record, line);
    }
    let config = run.layout.config();
    if config.is_file() {
        line("config", &config.display().to_string());
    }
    Ok(())
}

fn state(run: &FoundRun) -> String {
    let epochs = match run.epochs() {
        [Some(done), Some(all)] if done != all => format!(", {done} of {all} epochs"),
        [Some(1), _] => ", 1 epoch".to_owned(),
        [Some(done), _] => format!(", {done} epochs"),
        [None, _] => String::new(),
    };
    let details = run.state.details().map_or_else(String::new, |details| format!(" ({details})"));
    format!("{}{epochs}{details}", run.state.name())
}

fn of_record(record: &RunRecord, line: impl Fn(&str, &str)) {
    if !record.arguments.is_empty() {
        line("arguments", &record.arguments.join(" "));
    }
    line("images", &format!("{} for training, {} measured", record.train_images, record.test_images));
    line("time", &readable(Duration::from_secs_f64(record.seconds.max(0.0))));
    if let Some(bytes) = record.peak_memory_bytes {
        line("memory", &format!("{} MiB at most", bytes >> 20));
    }
    let device = record.gpu.clone().unwrap_or_else(|| record.cpu.clone());
    line("machine", &format!("{device}, {} threads", record.threads));
    line("program", &format!("{}, {}", record.version, record.rustc));
    print_line!("metrics after the last epoch, and the best of all epochs, which flatters:");
    for (name, summary) in &record.metrics {
        print_line!(
            "  {:<18} {:6.2}%  {:6.2}% (epoch {})",
            short_name(name),
            summary.last,
            summary.best,
            summary.best_epoch
        );
    }
}
