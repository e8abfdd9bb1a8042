//! Progress of training: a bar on a terminal, otherwise a line for each epoch.

use crate::metric_names::short_name;
use crate::output::{draws, note_above, visible};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use invaspread_runner::engine::{End, EpochFinished, Measured, Observer, RunFinished, RunStarted, StepTaken};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};

/// Shows a queue of runs.
pub(crate) struct Progress {
    shown: Shown,
    bar: ProgressBar,
    steps: u64,
    title: String,
    done: usize,
    runs: usize,
}

/// Where a queue is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// On standard error.
    Here,
    /// On standard error, without the runs that were finished before, because other processes have just
    /// reported them.
    HereAfterOthers,
    /// By the process that started this one, which reads standard output.
    There {
        /// When a step was last reported to it.
        told: Option<Instant>,
    },
}

/// A message of a process to the one that started it, written as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// A line of text to show.
    Line(String),
    /// The present work; it replaces the message before it.
    Doing(String),
    /// A run ended.
    Finished,
}

impl Told {
    /// Writes the message to standard output. An error is ignored: if the reader has ended, the end of
    /// standard input stops this process.
    fn tell(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

/// The least time between two [`Told::Doing`].
const BETWEEN: Duration = Duration::from_millis(500);

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
        Self { shown: Shown::Here, bar, steps: 0, title: String::new(), done: 0, runs }
    }

    /// Returns the display for a queue on which other processes have worked before.
    pub(crate) fn after_others(runs: usize) -> Self {
        Self { shown: Shown::HereAfterOthers, ..Self::new(runs) }
    }

    /// Returns a display that sends everything to the process that started this one.
    pub(crate) fn for_another(runs: usize) -> Self {
        Self { shown: Shown::There { told: None }, bar: ProgressBar::hidden(), ..Self::new(runs) }
    }

    fn line(&self, text: &str) {
        match self.shown {
            Shown::There { .. } => Told::Line(text.to_owned()).tell(),
            Shown::Here | Shown::HereAfterOthers => note_above(&self.bar, text),
        }
    }

    /// Returns the text before a run's title: its place in the queue, or nothing if other processes work on
    /// the same queue.
    fn place(&self, done: usize) -> String {
        match self.shown {
            Shown::There { .. } => String::new(),
            Shown::Here | Shown::HereAfterOthers => format!("[{done}/{}] ", self.runs),
        }
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
        self.title = format!("{}{}", self.place(self.done + 1), event.title);
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
        let message = format!(
            "epoch {}: loss {:.4}, {:.0} images/s{left}",
            event.epoch, event.mean_loss, event.images_per_second
        );
        let Shown::There { told } = &mut self.shown else { return self.bar.set_message(message) };
        if told.is_none_or(|told| told.elapsed() >= BETWEEN) {
            *told = Some(Instant::now());
            Told::Doing(format!("{} {message}", self.title)).tell();
        }
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
        let is_said_before = self.shown != Shown::Here && event.end == End::AlreadyDone;
        if matches!(self.shown, Shown::There { .. }) && !is_said_before {
            Told::Finished.tell();
        }
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
        if !is_said_before {
            self.line(&format!("{}{}: {end}", self.place(self.done), event.title));
        }
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
