//! How the training of a run ended, and its results.

use super::{Embeddings, Measured};
use crate::record::MetricRow;

/// How training ended.
#[derive(Debug)]
pub enum Outcome {
    /// All epochs are trained.
    Trained(Box<Trained>),
    /// The run was stopped on request. A checkpoint of this position is on disk, unless nothing has been done
    /// yet.
    Stopped {
        /// The number of whole epochs trained.
        epoch: u64,
        /// The number of steps trained in the next epoch.
        step: u64,
    },
}

/// The results of a fully trained run.
#[derive(Debug)]
pub struct Trained {
    /// The embeddings after the last epoch.
    pub embeddings: Embeddings,
    /// All measurements.
    pub rows: Vec<MetricRow>,
    /// The number of epochs trained.
    pub epoch: u64,
    /// The metrics after the last epoch.
    pub last: Measured,
    /// The best epoch by the first metric; of equal epochs the first.
    pub best: Best,
    /// When the run was started, RFC 3339.
    pub began: String,
    /// The time spent on the run by all processes, seconds.
    pub seconds: f64,
    /// Images (not views) trained on per second of training steps; `None` if there were none.
    pub images_per_second: Option<f64>,
    /// The processor time of all threads in the training steps, seconds; `None` if there were none, or it is
    /// not known.
    pub training_processor_seconds: Option<f64>,
}

/// An epoch and the first metric of its evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// The epoch; 0 is before training.
    pub epoch: u64,
    /// kNN top 1 or the first R@K, percent.
    pub headline: f64,
}
