//! Why a run could not go on.

use std::path::PathBuf;

use invaspread_augment::{AugmentError, LoaderError};
use invaspread_metrics::MetricError;
use invaspread_models::WeightError;

use crate::checkpoint::CheckpointError;

/// Why a run could not go on, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The loss, the embeddings or what a checkpoint holds are no longer numbers.
    #[error(
        "{what} became {found} at step {step} of epoch {epoch} (learning rate {lr}), expected a finite number; the last checkpoint \
         is kept ({checkpoint}). Try a smaller optim.lr (a third of it, say) or, of a method that has one, a higher method.temperature, as a new run",
        checkpoint = checkpoint.display()
    )]
    NotFinite {
        /// "the loss", "an embedding", or a tensor of the run's state, such as `weights/conv1.weight`.
        what: String,
        /// `NaN` or `inf`.
        found: f64,
        /// From 1.
        epoch: u64,
        /// Within the epoch, from 1.
        step: u64,
        /// Learning rate of the step.
        lr: f64,
        /// The checkpoint's file.
        checkpoint: PathBuf,
    },
    /// The network before training gives embeddings that are no numbers.
    #[error(
        "{what} is {found} before any training, expected a finite number; what the network begins with (its initial weights, \
         model.weights) or the images lead to it: begin with other weights"
    )]
    NotFiniteUntrained {
        /// "an embedding", or a tensor of the run's state.
        what: String,
        /// `NaN` or `inf`.
        found: f64,
    },
    /// Not one whole batch.
    #[error(
        "optim.batch_size is {batch_size} but there are only {images} training images, expected at least one whole batch; lower \
         optim.batch_size or raise data.subset"
    )]
    TooFewImages {
        /// Training images.
        images: usize,
        /// Images in a batch.
        batch_size: usize,
    },
    /// A run that nobody will see the end of.
    #[error(
        "{epochs} epochs of {steps} steps each are more steps than can be counted, expected at most 9007199254740992 (2^53) in all; \
         lower optim.epochs"
    )]
    TooManySteps {
        /// Epochs.
        epochs: u64,
        /// Steps of an epoch.
        steps: u64,
    },
    /// Nothing to classify.
    #[error(
        "the {split} split of {dataset} is empty, expected at least one image; raise data.subset or data.test_subset"
    )]
    EmptySplit {
        /// "train" or "test".
        split: &'static str,
        /// The data set's name.
        dataset: String,
    },
    /// The config asks for something that cannot be built.
    #[error("failed to set up the {what}: {source}")]
    SetUp {
        /// "network" or "method".
        what: &'static str,
        /// What candle or the method said.
        source: candle_core::Error,
    },
    /// The weights to begin with cannot be taken up.
    #[error("model.weights: {0}")]
    Weights(Box<WeightError>),
    /// A tensor operation failed.
    #[error("failed to {doing}: {source}")]
    Tensor {
        /// What was being done.
        doing: &'static str,
        /// What candle said.
        source: candle_core::Error,
    },
    /// An image could not be read.
    #[error("failed to prepare a batch: {0}")]
    Batch(#[from] LoaderError),
    /// The augmentation is not possible.
    #[error(transparent)]
    Augment(#[from] AugmentError),
    /// The embeddings could not be scored.
    #[error("failed to measure the embeddings: {0}")]
    Metric(#[from] MetricError),
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run's other files could not be written or read.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
}

impl From<WeightError> for EngineError {
    fn from(error: WeightError) -> Self {
        Self::Weights(Box::new(error))
    }
}

impl EngineError {
    /// For `map_err`: a tensor operation failed while `doing`.
    pub(crate) fn tensor(doing: &'static str) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Self::Tensor { doing, source }
    }
}
