//! Evaluating a file of weights without training: a checkpoint of this program, or weights of another program
//! under PyTorch's names.

use std::sync::Arc;

use invaspread_augment::Pipeline;
use invaspread_models::{HeadNeeded, LoadReport, Network, WeightError, WeightsFile, load};

use super::embed::EvaluationFeeds;
use super::{Embeddings, EngineError, Findings, Images, Measured, Recipe, Selection};
use crate::methods::Layer;

/// The evaluation of a file of weights.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// What was found, query by query.
    pub found: Findings,
    /// All metrics.
    pub measured: Measured,
    /// The embeddings that were measured.
    pub embeddings: Embeddings,
    /// Which entries of the file were loaded into the network.
    pub loaded: LoadReport,
}

/// Why a file of weights could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The weights belong to another network or are not finite.
    #[error(transparent)]
    Weights(Box<WeightError>),
    /// Only the embedding layer of the weights does not fit the network.
    #[error("{0}. Only the embedding layer does not fit: eval.layer=pooled measures the features before it")]
    EmbeddingLayer(Box<WeightError>),
    /// The evaluation failed.
    #[error(transparent)]
    Engine(Box<EngineError>),
}

impl From<WeightError> for EvaluateError {
    fn from(error: WeightError) -> Self {
        let only_head = match &error {
            WeightError::Load { source, .. } => {
                matches!(&**source, WeightError::Mismatch(mismatch) if mismatch.only_head)
            }
            _ => false,
        };
        if only_head { Self::EmbeddingLayer(Box::new(error)) } else { Self::Weights(Box::new(error)) }
    }
}

impl From<EngineError> for EvaluateError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// The protocol of another library, in place of the one of a run's last epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherProtocol {
    /// The metrics.
    pub selection: Selection,
    /// Whether rows are measured as the network computes them, not scaled to length 1.
    pub unscaled: bool,
}

/// Measures the network of `recipe` with the weights of a file, which [`open_weights`](super::open_weights) read. If pooled
/// features are measured, the file does not need to hold the embedding layer. The metrics are those of the last epoch of a
/// run, or those of the `other` protocol.
///
/// # Errors
/// Returns an error if the file does not fit the network, or an image cannot be read.
pub fn evaluate(
    recipe: &Recipe,
    images: &Images,
    weights: &WeightsFile,
    other: Option<&OtherProtocol>,
) -> Result<Evaluated, EvaluateError> {
    images.check()?;
    let device = recipe.device.open().map_err(|source| EngineError::SetUp { what: "device", source })?;
    let network = Network::on(&device, recipe.network.clone(), recipe.seed)
        .map_err(|source| EngineError::SetUp { what: "network", source })?;
    let head = if recipe.layer == Layer::Pooled { HeadNeeded::No } else { HeadNeeded::Yes };
    let loaded = load(weights, &network, head)?;
    let plain = Arc::new(Pipeline::evaluate(&recipe.augment).map_err(EngineError::from)?);
    let outputs = EvaluationFeeds::new(images, &plain, &network)?.forward(&network, recipe.layer)?;
    let (embeddings, found) = match other {
        None => {
            let embeddings = outputs.to_host()?;
            let found = images.measure(recipe, &embeddings, recipe.epochs, true);
            (embeddings, found)
        }
        Some(OtherProtocol { selection, unscaled }) => {
            let embeddings = if *unscaled { outputs.as_computed()? } else { outputs.to_host()? };
            let found = images.measure_selected(recipe, selection, &embeddings);
            (embeddings, found)
        }
    };
    let found = found.map_err(EngineError::from)?;
    let measured = if other.is_none() { found.recorded() } else { found.measured() };
    Ok(Evaluated { found, measured, embeddings, loaded })
}
