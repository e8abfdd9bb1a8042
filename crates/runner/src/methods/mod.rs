//! The methods, one file each: its settings, its entry in the registry, its part of the training loop, and
//! its state.
//!
//! The loop owns the network, the batches and the optimizer. A method's settings ([`MethodSettings`]) state
//! the number of views of each image; the method itself ([`Method`]) gives the order of the images, the loss
//! of a batch, and its state. The state consists of named tensors, so that a checkpoint taken after any step
//! is exact. The list of objectives in `invaspread-losses` and `built_in` below name the methods; nothing
//! else in the program names one.

mod chosen;
mod momentum_encoder;
mod multi_crop;
mod predictor;
mod projector;
mod prototypes;
mod registry;
mod separate_views;
mod state;

/// Calls the macro `$then` with the modules of all built-in methods: those without an objective of their own,
/// and one for each objective of `invaspread-losses`. Each has a file here, with its `Settings`.
macro_rules! built_in {
    ($then:ident) => {
        invaspread_losses::each_objective! { $then, random, triplet_hard }
    };
}
use built_in;

macro_rules! modules {
    ($($module:ident),* $(,)?) => {
        $(pub mod $module;)*
    };
}
built_in!(modules);

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
pub use chosen::{ChosenMethod, MethodMemory, MethodSettings, MoreViews, RunLength, Sizes};
pub use registry::{Entry, Registry};
pub use state::{StateError, load_module, module_state, nothing_left, take};

/// The facts about a run that a method needs.
#[derive(Debug, Clone, Copy)]
pub struct RunFacts {
    /// Number of training images, n.
    pub images: usize,
    /// Length of an embedding, D.
    pub dim: usize,
    /// Length of the pooled features before the embedding's linear layer.
    pub pooled: usize,
    /// The run's seed.
    pub seed: u64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Images of a batch, B.
    pub batch_size: usize,
    /// The optimizer's weight decay.
    pub weight_decay: f64,
    /// The device of the network, which is also the device of the method's state.
    pub device: DeviceKind,
    /// Whether gradients flow through the second factor of inner products among a batch's own embeddings: an
    /// interpretation of the paper that the protocol chooses.
    pub key_side: KeySide,
}

impl RunFacts {
    /// Returns the part of the run's steps that were taken before `step`, from 0 to below 1: `k / K` in the
    /// schedules of papers.
    pub fn part_done(&self, step: &Step<'_>) -> f64 {
        let steps = (self.images / self.batch_size.max(1)) as f64;
        let taken = step.epoch.saturating_sub(1) as f64 * steps + step.step as f64;
        taken / (self.epochs as f64 * steps).max(1.0)
    }
}

/// The current step: step `step` (from 0) of epoch `epoch` (from 1), on the images `index` (B of them).
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The step within the epoch, from 0.
    pub step: u64,
    /// The images of the batch, in order.
    pub index: &'a [u32],
}

/// A step that the optimizer has taken.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct TakenStep<'a> {
    /// The step.
    pub step: Step<'a>,
    /// The network after the step.
    pub network: &'a Network,
    /// The outputs before the step, detached from any graph.
    pub output: &'a Output,
    /// The gradients of the step. On CUDA, those of the network's convolutions may be in cuDNN's
    /// layout and precision, as the optimizer reads them.
    pub gradients: &'a GradStore,
    /// The learning rate of the step.
    pub lr: f64,
}

/// An output of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Unit rows of the embedding.
    #[default]
    Embedding,
    /// The embedding before it is normalized.
    Projection,
    /// The pooled features before the embedding's linear layer.
    Pooled,
}

/// An output of the network for n images in evaluation mode, row-major, n x `dim`.
#[derive(Debug, Clone)]
pub struct Features {
    /// n * `dim` numbers.
    pub values: Vec<f32>,
    /// Length of a row.
    pub dim: usize,
}

/// An objective with its state.
pub trait Method: Send {
    /// Prepares the method. This is called once, before the other functions, with the network in its initial
    /// state: with randomly drawn weights, or with those of a file. A method may copy the network here, for
    /// example for a momentum encoder. A resumed run loads its state afterwards.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    fn set_up(&mut self, _network: &Network) -> Result<()> {
        Ok(())
    }

    /// Prepares an epoch. This is called before the first step of each epoch, but not if an epoch is resumed
    /// in the middle (the state then holds the result).
    ///
    /// # Errors
    /// Returns an error if the features cannot be computed or used.
    fn begin_epoch(
        &mut self,
        _epoch: u64,
        _features: &mut dyn FnMut(Layer) -> Result<Features>,
    ) -> Result<()> {
        Ok(())
    }

    /// Returns the images in the order in which epoch `epoch` visits them; whole batches are taken from the
    /// front. `None` stands for a uniformly random order of all images, a new one in each epoch.
    ///
    /// # Errors
    /// Returns an error if the method's state does not give an order.
    fn order(&self, _epoch: u64) -> Result<Option<Vec<u32>>> {
        Ok(None)
    }

    /// Returns the image that each image's second view shows in the current epoch; `None` if that is always
    /// the image itself.
    fn second_images(&self) -> Option<&[u32]> {
        None
    }

    /// Runs the network on a batch's views. `views` first holds the V views by the run's own transforms, (V
    /// B, S, S, 3): the first views of all images, then the second views of all, and so on. The groups of
    /// [`MethodSettings::more_views`] follow in the same form. The default is one pass with gradients for
    /// each group; the rows of the passes are stacked. A method may leave out views, run other networks on
    /// them without gradients ([`Mode::TrainWithoutGradient`]), or run the network more than once
    /// ([`Output::join`], [`Output::stacked`]).
    ///
    /// # Errors
    /// Returns an error if candle fails or the views do not fit the network.
    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        pass_of_each_group(network, views)
    }

    /// Returns the loss of a batch, a scalar from which gradients flow back. Heads continue from the outputs
    /// with [`Output::through`].
    ///
    /// # Errors
    /// Returns an error if candle fails, or the outputs do not fit the method's state.
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor>;

    /// Returns the rows that the loss compares, before they are scaled, for `pooled` features (N, P) that the
    /// network computed in evaluation mode: the output of the method's projector, in evaluation mode too.
    /// `None` if the method has no projector. The engine measures their shape, which shows a collapse that
    /// the pooled features do not show.
    ///
    /// # Errors
    /// Returns an error if candle fails or the features do not fit the projector.
    fn projected(&self, _pooled: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Returns whether a GPU can repeat a step without the host. [`Method::forward`] and [`Method::loss`]
    /// then launch the same in every step: they draw no random numbers, copy nothing from or to the host,
    /// change no state except that of batch norms, and use only the number of images of `step`.
    /// [`Method::after_step`] does nothing. Such a step can be recorded once and
    /// launched as one CUDA graph.
    fn steps_repeat(&self) -> bool {
        false
    }

    /// Returns the parameters that the run's optimizer trains besides those of the network. This is called
    /// after [`Method::set_up`].
    fn parameters(&self) -> Vec<(String, Var)> {
        Vec::new()
    }

    /// Returns whether a parameter of [`Method::parameters`] is trained at the schedule's base rate in every
    /// step, as `SimSiam`'s predictor is (Chen and He, CVPR 2021, section 4.2), instead of the scheduled
    /// rate.
    fn has_constant_rate(&self, _parameter: &str) -> bool {
        false
    }

    /// Updates the state. This is called after each step of the optimizer.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    fn after_step(&mut self, _taken: &TakenStep<'_>) -> Result<()> {
        Ok(())
    }

    /// Returns the whole state.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    fn state(&self) -> Result<NamedTensors> {
        Ok(Vec::new())
    }

    /// Restores what [`Method::state`] returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unknown, or of another shape.
    fn load_state(&mut self, state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        state::nothing_left(&state)
    }
}

/// Runs the network on each group of views, in one pass with gradients for each, and stacks their rows.
///
/// # Errors
/// Returns an error if candle fails or the views do not fit the network.
fn pass_of_each_group(network: &Network, views: &[Tensor]) -> Result<Output> {
    let passes = views.iter().map(|views| network.forward(views, Mode::Train));
    Output::stacked(passes.collect::<Result<_>>()?)
}

/// Returns the images in the order in which epoch `epoch` visits them: the method's own order, or else a
/// uniformly random one of all `images` images, a new one in each epoch.
///
/// # Errors
/// Returns an error if the method's state does not give an order.
pub(crate) fn visiting_order(method: &dyn Method, seed: u64, images: usize, epoch: u64) -> Result<Vec<u32>> {
    let shuffled = || Stream::new(seed, Purpose::Shuffle, epoch, 0).permutation(images);
    Ok(method.order(epoch)?.unwrap_or_else(shuffled))
}
