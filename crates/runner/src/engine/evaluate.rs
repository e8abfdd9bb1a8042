//! Scoring a file of weights without training: this program's checkpoints, or anyone's under PyTorch's names.

use std::path::Path;
use std::sync::Arc;

use invaspread_augment::Pipeline;
use invaspread_models::{HeadNeeded, LoadReport, Network, WeightError, WeightsFile, load};

use super::embed::EvaluationFeeds;
use super::learner::WEIGHTS;
use super::{Embeddings, EngineError, Images, Measured, Recipe};
use crate::checkpoint::take_prefixed;
use crate::methods::Layer;

/// What a file of weights is worth.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// Every metric.
    pub measured: Measured,
    /// Embeddings of what was measured.
    pub embeddings: Embeddings,
    /// Which of the file's entries the network took up.
    pub loaded: LoadReport,
}

/// A file of weights that cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The weights are of another network, or hold what is no number.
    #[error(transparent)]
    Weights(Box<WeightError>),
    /// Anything after that.
    #[error(transparent)]
    Engine(Box<EngineError>),
}

impl From<EngineError> for EvaluateError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// Reads a file of weights; of the state that a run resumes from, the network's entries alone.
///
/// # Errors
/// As [`WeightsFile::open`].
pub fn open_weights(path: &Path) -> Result<WeightsFile, WeightError> {
    let mut file = WeightsFile::open(path)?;
    // Nobody else seals a file, so that a stranger's tensors called alike stay.
    if file.content.is_some() {
        for state_dict in &mut file.state_dicts {
            let of_state = take_prefixed(&mut state_dict.tensors, WEIGHTS);
            if !of_state.is_empty() {
                state_dict.tensors = of_state;
            }
        }
    }
    Ok(file)
}

/// Measures the network of `recipe` with the weights of a file ([`open_weights`]). Where pooled features are measured, the file need not
/// have the embedding layer.
///
/// # Errors
/// If the file does not fit the network, or an image cannot be read.
pub fn evaluate(recipe: &Recipe, images: &Images, weights: &WeightsFile) -> Result<Evaluated, EvaluateError> {
    images.check()?;
    let device = recipe.device.open().map_err(|source| EngineError::SetUp { what: "device", source })?;
    let network = Network::on(&device, recipe.network.clone(), recipe.seed)
        .map_err(|source| EngineError::SetUp { what: "network", source })?;
    let head = if recipe.layer == Layer::Pooled { HeadNeeded::No } else { HeadNeeded::Yes };
    let loaded = load(weights, &network, head).map_err(|error| EvaluateError::Weights(Box::new(error)))?;
    let plain = Arc::new(Pipeline::evaluate(&recipe.augment).map_err(EngineError::from)?);
    let embeddings = EvaluationFeeds::new(images, &plain, &network)?.embed(&network, recipe.layer)?;
    let measured = images.measure(recipe, &embeddings, recipe.epochs, true).map_err(EngineError::from)?;
    Ok(Evaluated { measured, embeddings, loaded })
}
