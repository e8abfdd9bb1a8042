//! What a checkpoint says besides its tensors: where training stands and what has been measured so far.
//!
//! Floating-point numbers are stored as their bits: a decimal detour may move the last digit, and a resumed run must not differ in it.

use serde::{Deserialize, Serialize};

use crate::record::{MetricRow, now_rfc3339};

/// A number as its bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Exact(u64);

impl From<f64> for Exact {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl From<Exact> for f64 {
    fn from(value: Exact) -> Self {
        f64::from_bits(value.0)
    }
}

/// Position, sums over the epoch under way, and all rows of the metrics table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// `<config hash>-s<seed>`: what the checkpoint belongs to.
    pub(crate) run: String,
    /// When it was begun, RFC 3339.
    pub(crate) began: String,
    /// Whole epochs trained.
    pub(crate) epoch: u64,
    /// Steps trained of the epoch after those.
    pub(crate) step: u64,
    /// Whether the network before training has been evaluated.
    pub(crate) started: bool,
    /// Of the epoch under way.
    pub(crate) partial: Partial,
    /// Time spent on the run by all processes, in seconds.
    pub(crate) seconds: Exact,
    /// Time spent on training steps alone, in seconds, and images trained on in it.
    pub(crate) training_seconds: Exact,
    /// See above.
    pub(crate) training_images: u64,
    /// The best evaluation so far.
    pub(crate) best: Option<Evaluation>,
    rows: Vec<StoredRow>,
}

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Partial {
    /// Sum of the losses.
    pub(crate) loss: Exact,
    /// Seconds in all.
    pub(crate) seconds: Exact,
    /// Seconds of them spent waiting for batches.
    pub(crate) wait: Exact,
}

/// What an epoch was worth, in percent: the first metric of its measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// 0 is before training.
    pub(crate) epoch: u64,
    /// kNN top 1, or the first R@K.
    pub(crate) headline: Exact,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredRow(i64, i64, String, String, Exact, Exact);

impl Journal {
    /// The journal of a run that has not begun.
    pub(crate) fn new(run: String) -> Self {
        Self { run, began: now_rfc3339(), ..Self::default() }
    }

    /// Images (not views) trained on per second of training steps; `None` if there were none.
    pub(crate) fn images_per_second(&self) -> Option<f64> {
        (self.training_images > 0).then(|| self.training_images as f64 / f64::from(self.training_seconds))
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: &MetricRow) {
        let MetricRow { epoch, step, split, name, value, seconds } = row.clone();
        self.rows.push(StoredRow(epoch, step, split, name, value.into(), seconds.into()));
    }

    /// All rows so far, in order.
    pub(crate) fn rows(&self) -> Vec<MetricRow> {
        self.rows
            .iter()
            .cloned()
            .map(|StoredRow(epoch, step, split, name, value, seconds)| MetricRow {
                epoch,
                step,
                split,
                name,
                value: value.into(),
                seconds: seconds.into(),
            })
            .collect()
    }
}
