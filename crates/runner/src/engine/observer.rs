//! The events that a run reports. The engine prints nothing; a progress bar, a log or a test implements
//! [`Observer`].

use std::path::PathBuf;
use std::time::Duration;

use super::Measured;

/// A run is about to train.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStarted {
    /// The run's name, `<hash>-s<seed>`.
    pub id: String,
    /// The run's title in messages: the suite's row, or the method.
    pub title: String,
    /// The run's folder.
    pub folder: PathBuf,
    /// The number of epochs that the run trains.
    pub epochs: u64,
    /// The number of steps of an epoch.
    pub steps: u64,
    /// The epochs and steps that were done when the run was resumed; zeros for a new run.
    pub resumed_at: (u64, u64),
}

/// A step was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTaken {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The number of steps of this epoch taken so far.
    pub step: u64,
    /// The loss of the batch.
    pub loss: f64,
    /// The mean loss of the epoch so far.
    pub mean_loss: f64,
    /// Images (not views) per second in this process.
    pub images_per_second: f64,
    /// The estimated time until the run ends, including evaluations; `None` until a step has been timed.
    pub left: Option<Duration>,
}

/// An epoch was trained and evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochFinished {
    /// The epoch; 0 is the network before training.
    pub epoch: u64,
    /// The number of epochs that the run trains.
    pub epochs: u64,
    /// The mean loss; `None` before training.
    pub loss: Option<f64>,
    /// The metrics; `None` if this epoch was not evaluated.
    pub measured: Option<Measured>,
    /// The best value of the first metric so far, and its epoch.
    pub best: Option<(f64, u64)>,
    /// The time that the epoch took.
    pub took: Duration,
}

/// A run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFinished {
    /// The run's name, `<hash>-s<seed>`.
    pub id: String,
    /// The run's title in messages.
    pub title: String,
    /// The run's folder.
    pub folder: PathBuf,
    /// How the run ended.
    pub end: End,
    /// The time that this process spent on the run.
    pub took: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// All epochs are trained and the record is written.
    Done {
        /// The metrics after the last epoch.
        measured: Measured,
    },
    /// The run had been finished before; nothing was done.
    AlreadyDone,
    /// The run had been finished before, but some files were missing or damaged. They were made again without
    /// training.
    Repaired {
        /// The paths of these files in the run's folder.
        files: Vec<String>,
    },
    /// The run was stopped on request. A checkpoint of this position is on disk, unless nothing has been done
    /// yet.
    Stopped {
        /// The number of whole epochs trained.
        epoch: u64,
        /// The number of steps trained in the next epoch.
        step: u64,
    },
    /// The run failed.
    Failed {
        /// The reason, and what to do.
        message: String,
    },
}

/// Receives the events of runs. By default, every method does nothing.
pub trait Observer {
    /// Receives the start of a run.
    fn run_started(&mut self, _event: &RunStarted) {}
    /// Receives a step that was taken.
    fn step(&mut self, _event: &StepTaken) {}
    /// Receives an epoch that was trained and evaluated.
    fn epoch_finished(&mut self, _event: &EpochFinished) {}
    /// Receives the end of a run.
    fn run_finished(&mut self, _event: &RunFinished) {}
    /// Receives a note for the user: what is being prepared, what was found, what was done about it.
    fn note(&mut self, _text: &str) {}
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
