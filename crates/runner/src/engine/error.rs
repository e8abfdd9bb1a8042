//! Why a run could not go on.

use std::path::PathBuf;

use invaspread_augment::{AugmentError, LoaderError};
use invaspread_metrics::MetricError;
use invaspread_models::WeightError;

use crate::checkpoint::CheckpointError;
use crate::settings::Refusal;

/// Why a run could not go on, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The loss, an embedding or a tensor of the state is not finite.
    #[error(
        "{what} became {found} at step {step} of epoch {epoch} (learning rate {lr}), expected a finite number; the last checkpoint \
         is kept ({checkpoint}). Start a new run with a smaller optim.lr (a third of it, say) or, if the method has one, a higher method.temperature",
        checkpoint = checkpoint.display()
    )]
    NotFinite {
        /// "the loss", "an embedding", or a tensor of the run's state, such as `weights/conv1.weight`.
        what: String,
        /// `NaN` or `inf`.
        found: f64,
        /// The epoch, from 1.
        epoch: u64,
        /// The step within the epoch, from 1.
        step: u64,
        /// The learning rate of the step.
        lr: f64,
        /// The checkpoint's file.
        checkpoint: PathBuf,
    },
    /// An embedding or a tensor of the state is not finite before training.
    #[error(
        "{what} is {found} before any training, expected a finite number; the initial weights (model.weights, if it is set) or \
         the images cause it: start from other weights"
    )]
    NotFiniteUntrained {
        /// "an embedding", or a tensor of the run's state.
        what: String,
        /// `NaN` or `inf`.
        found: f64,
    },
    /// There are fewer images than one batch needs.
    #[error(
        "optim.batch_size is {batch_size} but there are only {images} training images, expected at least one whole batch; lower \
         optim.batch_size to at most {images}, or train on more images (with a larger data.subset, if it is set)"
    )]
    TooFewImages {
        /// The number of training images.
        images: usize,
        /// The number of images in a batch.
        batch_size: usize,
    },
    /// The run has more steps than can be counted.
    #[error(
        "{epochs} epochs of {steps} steps each are more steps than can be counted, expected at most 9007199254740992 (2^53) in all; \
         lower optim.epochs"
    )]
    TooManySteps {
        /// The number of epochs.
        epochs: u64,
        /// The number of steps of an epoch.
        steps: u64,
    },
    /// A setting of the method has no effect on so few images.
    #[error("method.{}: found {}, expected {}", .0.key, .0.found, .0.expected)]
    NoEffect(Refusal),
    /// A split has no images.
    #[error(
        "the {split} split of {dataset} is empty, expected at least one image; raise data.subset or data.test_subset"
    )]
    EmptySplit {
        /// "train" or "test".
        split: &'static str,
        /// The data set's name.
        dataset: String,
    },
    /// The network, the method or the device cannot be set up.
    #[error("failed to set up the {what}: {source}")]
    SetUp {
        /// "network", "method" or "device".
        what: &'static str,
        /// The error of candle or of the method.
        source: candle_core::Error,
    },
    /// The weights to start from cannot be loaded.
    #[error("model.weights: {0}")]
    Weights(Box<WeightError>),
    /// A tensor operation failed.
    #[error("failed to {doing}: {source}")]
    Tensor {
        /// The failed action.
        doing: &'static str,
        /// The error of candle.
        source: candle_core::Error,
    },
    /// An image could not be read.
    #[error("failed to prepare a batch: {0}")]
    Batch(#[from] LoaderError),
    /// The augmentation is not possible.
    #[error(transparent)]
    Augment(#[from] AugmentError),
    /// The embeddings could not be measured.
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
    /// Returns a function for `map_err`, for a tensor operation that failed; `doing` is a verb and its
    /// object.
    pub(crate) fn tensor(doing: &'static str) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Self::Tensor { doing, source }
    }
}
