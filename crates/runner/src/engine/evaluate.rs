//! Scoring a file of weights without training: this program's checkpoints, or anyone's under PyTorch's names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use invaspread_augment::Pipeline;
use invaspread_models::{Network, WeightError, read_weights};

use super::embed::MeasuredStock;
use super::learner::WEIGHTS;
use super::{Embeddings, EngineError, Images, Measured, Recipe};
use crate::checkpoint::take_prefixed;

/// What a file of weights is worth.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// Every metric.
    pub measured: Measured,
    /// Embeddings of what was measured.
    pub embeddings: Embeddings,
    /// Entries of the file that the network has no use for.
    pub left_over: Vec<String>,
}

/// A file of weights that cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The weights cannot be read, or are of another network.
    #[error("failed to load {path}: {source}", path = path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<WeightError>,
    },
    /// Anything after that.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The network's entries of a file of weights: all of them, unless it is the state that a run resumes from.
#[expect(clippy::implicit_hasher, reason = "as the readers of weights give it")]
pub fn network_weights(mut tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let of_state = take_prefixed(&mut tensors, WEIGHTS);
    if of_state.is_empty() { tensors } else { of_state }
}

/// Measures the network of `recipe` with the weights of a `.safetensors` or `.pth` file. The state that a run resumes from is such
/// a file too.
///
/// # Errors
/// If the file cannot be read or does not fit the network, or an image cannot be read.
pub fn evaluate(recipe: &Recipe, images: &Images, weights: &Path) -> Result<Evaluated, EvaluateError> {
    images.check()?;
    let not_loaded = |source: WeightError| EvaluateError::Weights {
        path: weights.to_path_buf(),
        source: Box::new(source),
    };
    let device = recipe.device.open().map_err(|source| EngineError::SetUp { what: "device", source })?;
    let network = Network::on(&device, recipe.network.clone(), recipe.seed)
        .map_err(|source| EngineError::SetUp { what: "network", source })?;
    let tensors = network_weights(read_weights(weights).map_err(not_loaded)?);
    let left_over = network.load_state_dict(&tensors).map_err(not_loaded)?.left_over;
    let plain = Arc::new(Pipeline::evaluate(&recipe.augment).map_err(EngineError::from)?);
    let embeddings = MeasuredStock::new(images, &plain, &network)?.embed(&network, recipe.layer)?;
    let measured = images.measure(recipe, &embeddings, recipe.epochs, true).map_err(EngineError::from)?;
    Ok(Evaluated { measured, embeddings, left_over })
}
