//! Progress of training: a bar on a terminal, otherwise a line for each epoch.

use crate::metric_names::short_name;
use crate::output::{draws, note_above, visible};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use invaspread_runner::engine::{End, EpochFinished, Measured, Observer, RunFinished, RunStarted, StepTaken};
use std::time::Duration;

/// Shows a queue of runs.
pub(crate) struct Progress {
    bar: ProgressBar,
    steps: u64,
    title: String,
    done: usize,
    runs: usize,
}

/// Returns a duration as text: "2 h 05 min", "3 min 20 s", "12 s".
pub(crate) fn readable(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

impl Progress {
    /// Returns the display for a queue of `runs` runs.
    pub(crate) fn new(runs: usize) -> Self {
        let bar = bar("{prefix} {bar:24} {percent:>3}%  {msg}");
        Self { bar, steps: 0, title: String::new(), done: 0, runs }
    }

    fn line(&self, text: &str) {
        note_above(&self.bar, text);
    }
}

/// Returns a bar on standard error; it is hidden if none can be drawn.
pub(crate) fn bar(template: &str) -> ProgressBar {
    let target = if draws() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl Observer for Progress {
    fn run_started(&mut self, event: &RunStarted) {
        self.steps = event.steps;
        self.title = format!("[{}/{}] {}", self.done + 1, self.runs, event.title);
        self.bar.set_length((event.epochs * event.steps).max(1));
        self.bar.set_position(event.resumed_at.0 * event.steps + event.resumed_at.1);
        self.bar.set_prefix(visible(&self.title).into_owned());
        self.bar.set_message("");
        let from = match event.resumed_at {
            (0, 0) => String::new(),
            (epoch, step) => format!(", resumed after epoch {epoch}, step {step}"),
        };
        self.line(&format!("{}: {} epochs in {}{from}", self.title, event.epochs, event.folder.display()));
    }

    fn step(&mut self, event: &StepTaken) {
        self.bar.set_position((event.epoch - 1) * self.steps + event.step);
        let left = event.left.map_or_else(String::new, |left| format!(", {} left", readable(left)));
        self.bar.set_message(format!(
            "epoch {}: loss {:.4}, {:.0} images/s{left}",
            event.epoch, event.mean_loss, event.images_per_second
        ));
    }

    fn epoch_finished(&mut self, event: &EpochFinished) {
        let loss = event.loss.map_or_else(String::new, |loss| format!("loss {loss:.4}  "));
        let measured = event.measured.as_ref().map_or_else(String::new, |measured| spoken(measured, 4));
        let epoch = if event.epoch == 0 {
            "untrained".to_owned()
        } else {
            format!("epoch {}/{}", event.epoch, event.epochs)
        };
        self.line(&format!("{}  {epoch}  {loss}{measured}{}", self.title, readable(event.took)));
    }

    fn run_finished(&mut self, event: &RunFinished) {
        self.done += 1;
        let end = match &event.end {
            End::Done { measured } => format!("done, {}in {}", spoken(measured, 1), readable(event.took)),
            End::AlreadyDone => "finished before, nothing to do".into(),
            End::Repaired { files } => {
                format!("finished before; made again without training: {}", files.join(", "))
            }
            End::Stopped { epoch, step } => {
                format!("stopped after epoch {epoch}, step {step}; the same command resumes")
            }
            End::Failed { message } => format!("failed: {message}"),
        };
        self.line(&format!("[{}/{}] {}: {end}", self.done, self.runs, event.title));
        if self.done == self.runs {
            self.bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }
}

/// Returns the first `most` metrics for a line of text, each followed by two spaces.
fn spoken(measured: &Measured, most: usize) -> String {
    let spoken = |(name, value): &(String, f64)| format!("{} {value:.2}%  ", short_name(name));
    measured.0.iter().take(most).map(spoken).collect()
}
