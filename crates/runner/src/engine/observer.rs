//! What a run tells whoever watches it. The engine prints nothing; a progress bar, a log or a test is an [`Observer`].

use std::path::PathBuf;
use std::time::Duration;

use super::Measured;

/// A run is about to train.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStarted {
    /// `<hash>-s<seed>`.
    pub id: String,
    /// What to call it: the suite's row, or the method.
    pub title: String,
    /// The run's folder.
    pub folder: PathBuf,
    /// Epochs it trains in all.
    pub epochs: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Epochs and steps already done when it was resumed; zeros for a new run.
    pub resumed_at: (u64, u64),
}

/// A step was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTaken {
    /// The epoch, from 1.
    pub epoch: u64,
    /// Steps of this epoch taken so far.
    pub step: u64,
    /// The batch's loss.
    pub loss: f64,
    /// Mean loss of the epoch so far.
    pub mean_loss: f64,
    /// Images (not views) per second since this process took up the run.
    pub images_per_second: f64,
    /// Time until the run's end, evaluations included; `None` until a step has been timed.
    pub left: Option<Duration>,
}

/// An epoch was trained and evaluated, and its checkpoint is on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochFinished {
    /// The epoch; 0 is the network before training.
    pub epoch: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// Mean loss; `None` before training.
    pub loss: Option<f64>,
    /// What was measured, if this epoch was.
    pub measured: Option<Measured>,
    /// The best first metric so far and its epoch.
    pub best: Option<(f64, u64)>,
    /// What the epoch took.
    pub took: Duration,
}

/// A run is done, or was stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFinished {
    /// `<hash>-s<seed>`.
    pub id: String,
    /// What to call it.
    pub title: String,
    /// The run's folder.
    pub folder: PathBuf,
    /// How it ended.
    pub end: End,
    /// Time spent on it by this process.
    pub took: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// All epochs trained, record written.
    Done {
        /// What the last epoch was worth.
        measured: Measured,
    },
    /// It had been finished before; nothing was done.
    AlreadyDone,
    /// It had been finished before, and some of its files were missing or damaged; they were made again without training.
    Repaired {
        /// Their paths in the run's folder.
        files: Vec<String>,
    },
    /// Asked to stop; a checkpoint of this position is on disk, unless nothing has been done yet.
    Stopped {
        /// Whole epochs trained.
        epoch: u64,
        /// Steps of the next one.
        step: u64,
    },
    /// It could not go on.
    Failed {
        /// Why, and what to do.
        message: String,
    },
}

/// Whoever watches. Every method does nothing unless written.
pub trait Observer {
    /// A run is about to train.
    fn run_started(&mut self, _event: &RunStarted) {}
    /// A step was taken.
    fn step(&mut self, _event: &StepTaken) {}
    /// An epoch is over.
    fn epoch_finished(&mut self, _event: &EpochFinished) {}
    /// A run is over.
    fn run_finished(&mut self, _event: &RunFinished) {}
    /// Something worth a line: what is being prepared, what was found, what was done about it.
    fn note(&mut self, _text: &str) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
