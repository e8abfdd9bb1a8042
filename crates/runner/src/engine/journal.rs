//! The part of a checkpoint that is not tensors: the position of training and the measurements so far.
//!
//! Floating-point numbers are stored as bits: conversion to decimals may change the last digit, and a resumed
//! run must not differ in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Spent;
use crate::record::{MetricRow, now_rfc3339};

/// A number, stored as its bits.
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

/// The position of training, sums over the current epoch, and all rows of the metrics table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The name of the run that the checkpoint belongs to, `<config hash>-s<seed>`.
    pub(crate) run: String,
    /// When the run was started, RFC 3339.
    pub(crate) began: String,
    /// The number of whole epochs trained.
    pub(crate) epoch: u64,
    /// The number of steps trained in the next epoch.
    pub(crate) step: u64,
    /// Whether the untrained network has been evaluated.
    pub(crate) started: bool,
    /// Sums over the current epoch.
    pub(crate) partial: Partial,
    /// The time spent on the run by all processes, seconds.
    pub(crate) seconds: Exact,
    /// The time spent on training steps, seconds.
    pub(crate) training_seconds: Exact,
    /// The processor time of all threads in that time, seconds; `None` where the system does not give it, or an
    /// earlier version did a part of the training.
    #[serde(default)]
    pub(crate) training_processor_seconds: Option<Exact>,
    /// The number of images trained on in that time.
    pub(crate) training_images: u64,
    /// The best evaluation so far.
    pub(crate) best: Option<Evaluation>,
    /// The algorithms that cuDNN's search chose; empty without CUDA. A search in another process might choose
    /// others.
    #[serde(default)]
    pub(crate) algorithms: BTreeMap<String, String>,
    /// Whether the user has been told that the embedding has collapsed.
    #[serde(default)]
    pub(crate) told_collapse: bool,
    rows: Vec<StoredRow>,
}

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Partial {
    /// The sum of the losses.
    pub(crate) loss: Exact,
    /// The time of the steps, seconds.
    pub(crate) seconds: Exact,
    /// The part of that time spent waiting for batches, seconds.
    pub(crate) wait: Exact,
}

/// The first metric of an epoch's evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// The epoch; 0 is before training.
    pub(crate) epoch: u64,
    /// kNN top 1 or the first R@K, percent.
    pub(crate) headline: Exact,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredRow(i64, i64, String, String, Exact, Exact);

impl Journal {
    /// Returns the journal of a run that has not started.
    pub(crate) fn new(run: String) -> Self {
        Self {
            run,
            began: now_rfc3339(),
            training_processor_seconds: Some(Exact::default()),
            ..Self::default()
        }
    }

    /// Adds time that training steps took.
    pub(crate) fn spent(&mut self, time: Spent) {
        let Partial { seconds, .. } = &mut self.partial;
        *seconds = (f64::from(*seconds) + time.seconds).into();
        self.training_seconds = (f64::from(self.training_seconds) + time.seconds).into();
        self.training_processor_seconds = self
            .training_processor_seconds
            .zip(time.processor_seconds)
            .map(|(before, more)| (f64::from(before) + more).into());
    }

    /// Returns the processor time of the training steps; `None` if there were none, too.
    pub(crate) fn processor_seconds(&self) -> Option<f64> {
        self.training_processor_seconds.filter(|_| self.training_images > 0).map(f64::from)
    }

    /// Returns the images (not views) trained on per second of training steps; `None` if there were no steps.
    pub(crate) fn images_per_second(&self) -> Option<f64> {
        (self.training_images > 0).then(|| self.training_images as f64 / f64::from(self.training_seconds))
    }

    /// Adds a row of the metrics table.
    pub(crate) fn push(&mut self, row: &MetricRow) {
        let MetricRow { epoch, step, split, name, value, seconds } = row.clone();
        self.rows.push(StoredRow(epoch, step, split, name, value.into(), seconds.into()));
    }

    /// Returns all rows so far, in order.
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
