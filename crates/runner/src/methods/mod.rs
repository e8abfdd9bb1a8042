//! The objectives, one file a method: its settings, its entry in the registry, what it needs from the training loop, its state.
//!
//! The loop owns the network, the batches and the optimizer. A method's settings ([`MethodSettings`]) say how many views it wants of each
//! image; the method itself ([`Method`]) says in which order it wants the images, what the loss of a batch is, and what it remembers. All
//! it remembers is tensors by name, so that a checkpoint taken after any step is exact. `registry.rs` lists the methods; nothing else in
//! the program names one.

mod chosen;
mod registry;
mod state;

/// Declares the module of each built-in method.
macro_rules! modules {
    ($($module:ident::$settings:ident),* $(,)?) => {
        $(pub mod $module;)*
    };
}
registry::built_in!(modules);

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use invaspread_losses::KeySide;
use invaspread_models::{Mode, Network, Output};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use serde::{Deserialize, Serialize};

use crate::checkpoint::NamedTensors;

pub(crate) use chosen::NAME;
pub use chosen::{ChosenMethod, MethodMemory, MethodSettings, Sizes};
pub use registry::{Entry, Registry};
pub use state::{StateError, load_module, module_state, nothing_left, take};

/// What a method is told about the run it is part of.
#[derive(Debug, Clone, Copy)]
pub struct RunFacts {
    /// Training images, n.
    pub images: usize,
    /// Embedding length, D.
    pub dim: usize,
    /// Length of the pooled features before the embedding's linear layer.
    pub pooled: usize,
    /// The run's seed.
    pub seed: u64,
    /// The optimizer's weight decay.
    pub weight_decay: f64,
    /// Where the network is, and with it what a method remembers.
    pub device: DeviceKind,
    /// Whether gradients flow through the second factor of inner products among a batch's own embeddings: a reading of the paper that the
    /// protocol chooses.
    pub key_side: KeySide,
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

/// A step that the optimizer has taken.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct TakenStep<'a> {
    /// Where training stands.
    pub step: Step<'a>,
    /// The network after the step.
    pub network: &'a Network,
    /// Its outputs before the step, free of any graph.
    pub output: &'a Output,
    /// The gradients that the step went along.
    pub gradients: &'a GradStore,
    /// The learning rate of the step.
    pub lr: f64,
}

/// Which output of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Unit rows of the embedding.
    #[default]
    Embedding,
    /// The same before normalizing.
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
    /// Called once, before anything else, with the network as the run begins with it: drawn, or with the weights it was given. For copies
    /// of it, such as a momentum encoder. A resumed run loads its state afterwards.
    ///
    /// # Errors
    /// If candle fails.
    fn set_up(&mut self, _network: &Network) -> Result<()> {
        Ok(())
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

    /// Returns the images in the order in which epoch `epoch` visits them; whole batches are taken from the front. `None` stands for a
    /// uniformly random order of all images, another one each epoch.
    ///
    /// # Errors
    /// If the method's memory does not allow one.
    fn order(&self, _epoch: u64) -> Result<Option<Vec<u32>>> {
        Ok(None)
    }

    /// The image that each image's second view is of in the epoch begun last; `None` where that is the image itself.
    fn second_images(&self) -> Option<&[u32]> {
        None
    }

    /// Runs the network on a batch's views (views * B, S, S, 3), the first of all images above the second of all, and so on. Unless a
    /// method says otherwise, in one pass with gradients. A method may leave views out of it, run other networks of its own on them
    /// without gradients ([`Mode::TrainWithoutGradient`]), or run it more than once ([`Output::join`]).
    ///
    /// # Errors
    /// If candle fails or the views do not fit the network.
    fn forward(&mut self, network: &Network, views: &Tensor) -> Result<Output> {
        network.forward(views, Mode::Train)
    }

    /// Returns the loss of a batch, a scalar that gradients flow back from. Heads go on from the outputs with [`Output::through`].
    ///
    /// # Errors
    /// If candle fails, or the outputs do not fit the method's memory.
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor>;

    /// What the run's optimizer trains besides the network's own parameters; asked for after [`Method::set_up`].
    fn parameters(&self) -> Vec<(String, Var)> {
        Vec::new()
    }

    /// Called once the optimizer has taken its step.
    ///
    /// # Errors
    /// If candle fails.
    fn after_step(&mut self, _taken: &TakenStep<'_>) -> Result<()> {
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

/// Returns the images in the order in which epoch `epoch` visits them: the method's own order, or else a uniformly random one of all
/// `images` images, another one each epoch.
///
/// # Errors
/// If the method's memory does not allow one.
pub(crate) fn visiting_order(method: &dyn Method, seed: u64, images: usize, epoch: u64) -> Result<Vec<u32>> {
    let shuffled = || Stream::new(seed, Purpose::Shuffle, epoch, 0).permutation(images);
    Ok(method.order(epoch)?.unwrap_or_else(shuffled))
}
