//! What each objective of the paper's Table 1 needs from the training loop, one file a method.
//!
//! The loop owns the network, the batches and the optimiser; a method says how many views it wants of each image, in which order
//! it wants the images, what the loss of a batch is, and what it remembers. All it remembers is tensors by name,
//! so that a checkpoint taken after any step is exact.

mod deepcluster;
mod exemplar;
mod invaspread;
mod nce;
mod npsoftmax;
mod random;
mod state;
mod triplet;

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use invaspread_losses::{Exemplar, InvaSpread, Nce, NpSoftmax, Triplet};
use invaspread_models::Output;
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use serde::{Deserialize, Serialize};

use crate::checkpoint::NamedTensors;

pub use invaspread::Positives;
pub use state::StateError;

/// What a method is told about the run it is part of.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Training images, n.
    pub images: usize,
    /// Embedding length, D.
    pub dim: usize,
    /// The run's seed.
    pub seed: u64,
    /// The optimiser's weight decay.
    pub weight_decay: f64,
    /// Where the network is, and with it what a method remembers.
    pub device: DeviceKind,
}

/// Where training stands: step `step` (from 0) of epoch `epoch` (from 1), on the images `index` (B of them).
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// From 1.
    pub epoch: u64,
    /// Within the epoch, from 0.
    pub step: u64,
    /// The images of the batch, in order.
    pub index: &'a [u32],
}

/// Which output of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Unit rows of the embedding.
    #[default]
    Embedding,
    /// The same before normalising.
    Projection,
    /// The pooled features before the embedding's linear layer.
    Pooled,
}

/// An output of the whole training set in evaluation mode, row-major, n x `dim`.
#[derive(Debug, Clone)]
pub struct Features {
    /// n * `dim` numbers.
    pub values: Vec<f32>,
    /// Length of a row.
    pub dim: usize,
}

/// An objective, with its memory.
pub trait Method: Send {
    /// Views of each image in a batch: 1 or 2. With 2, row i and row i + B of the output are views of one image.
    fn views(&self) -> usize {
        1
    }

    /// Whether there is anything to train. If not, the run is one evaluation.
    fn trains(&self) -> bool {
        true
    }

    /// Called before the first step of each epoch, but not when an epoch is resumed midway (the state then holds its outcome).
    ///
    /// # Errors
    /// If the features cannot be had or used.
    fn begin_epoch(
        &mut self,
        _epoch: u64,
        _features: &mut dyn FnMut(Layer) -> Result<Features>,
    ) -> Result<()> {
        Ok(())
    }

    /// The images in the order in which epoch `epoch` visits them; whole batches are taken from the front.
    ///
    /// # Errors
    /// If the method's memory does not allow one.
    fn order(&self, epoch: u64) -> Result<Vec<u32>>;

    /// The image that each image's second view is of in the epoch begun last; `None` where that is the image itself.
    fn second_images(&self) -> Option<&[u32]> {
        None
    }

    /// The loss of a batch, a scalar that gradients flow back from.
    ///
    /// # Errors
    /// If candle fails, or the outputs do not fit the method's memory.
    fn loss(&mut self, output: &Output, step: &Step<'_>) -> Result<Tensor>;

    /// What the run's optimiser trains besides the network's own parameters.
    fn parameters(&self) -> Vec<(String, Var)> {
        Vec::new()
    }

    /// Called once the optimiser has taken its step, with the outputs and gradients of that step.
    ///
    /// # Errors
    /// If candle fails.
    fn after_step(
        &mut self,
        _output: &Output,
        _gradients: &GradStore,
        _lr: f64,
        _step: &Step<'_>,
    ) -> Result<()> {
        Ok(())
    }

    /// All it remembers from step to step.
    ///
    /// # Errors
    /// If candle fails.
    fn state(&self) -> Result<NamedTensors> {
        Ok(Vec::new())
    }

    /// Takes back what [`Method::state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing, unknown, or of another shape.
    fn load_state(&mut self, state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        state::nothing_left(&state)
    }
}

/// A method with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum MethodRecipe {
    /// No training.
    Random,
    /// The paper's own.
    InvaSpread {
        /// The loss.
        loss: InvaSpread,
        /// What second views are of.
        positives: Positives,
    },
    /// Instance classes with learned weights.
    Exemplar(Exemplar),
    /// Instance classes with remembered weights.
    NpSoftmax {
        /// The loss.
        loss: NpSoftmax,
        /// Share of the old entry in the memory's new one.
        momentum: f64,
    },
    /// Instances told from noise.
    Nce {
        /// The loss.
        loss: Nce,
        /// Share of the old entry in the memory's new one.
        momentum: f64,
    },
    /// Two views nearer than another image.
    Triplet(Triplet),
    /// Clusters as classes.
    DeepCluster {
        /// K.
        clusters: usize,
        /// Iterations of k-means.
        iterations: usize,
    },
}

impl MethodRecipe {
    /// InvaSpread whose two views are of the same image.
    pub fn invaspread(loss: InvaSpread) -> Self {
        Self::InvaSpread { loss, positives: Positives::Itself }
    }

    /// The method in its initial state.
    ///
    /// # Errors
    /// If candle fails to make its tensors, or the setting is too small for it (more clusters than images).
    pub fn build(&self, setting: Setting) -> Result<Box<dyn Method>> {
        Ok(match *self {
            Self::Random => Box::new(random::Random),
            Self::InvaSpread { loss, positives } => {
                Box::new(invaspread::InvaSpreadMethod::new(setting, loss, positives))
            }
            Self::Exemplar(loss) => Box::new(exemplar::ExemplarMethod::new(setting, loss)?),
            Self::NpSoftmax { loss, momentum } => {
                Box::new(npsoftmax::NpSoftmaxMethod::new(setting, loss, momentum)?)
            }
            Self::Nce { loss, momentum } => Box::new(nce::NceMethod::new(setting, loss, momentum)?),
            Self::Triplet(loss) => Box::new(triplet::TripletMethod { setting, loss }),
            Self::DeepCluster { clusters, iterations } => {
                let settings = deepcluster::DeepClusterSettings { clusters, iterations };
                Box::new(deepcluster::DeepClusterMethod::new(setting, settings)?)
            }
        })
    }
}

/// A uniformly random order of all images, another one each epoch.
fn shuffled(setting: &Setting, epoch: u64) -> Vec<u32> {
    Stream::new(setting.seed, Purpose::Shuffle, epoch, 0).permutation(setting.images)
}
