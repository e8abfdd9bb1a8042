//! Embeddings of a whole split, in evaluation mode and with the test transform.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use invaspread_augment::{BatchLoader, ImageSource, LoaderConfig, Pipeline};
use invaspread_models::{Mode, Output, ResNet};
use invaspread_tensor::with_f32;

use super::EngineError;
use crate::methods::Features;

/// Images in a batch. Fixed, so that no setting of training can move a last digit.
const BATCH: usize = 250;

/// Which output of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Unit rows.
    Embedding,
    /// The same before normalising.
    Projection,
}

/// Row i is `layer` of image i of `source`.
///
/// # Errors
/// If an image cannot be read or candle fails.
pub(crate) fn embed(
    network: &ResNet,
    source: &Arc<dyn ImageSource>,
    pipeline: &Arc<Pipeline>,
    layer: Layer,
) -> Result<Features, EngineError> {
    embed_some(network, source, pipeline, layer, source.len())
}

/// The same of the first `images` images.
///
/// # Errors
/// As [`embed`].
pub(crate) fn embed_some(
    network: &ResNet,
    source: &Arc<dyn ImageSource>,
    pipeline: &Arc<Pipeline>,
    layer: Layer,
    images: usize,
) -> Result<Features, EngineError> {
    let mut values = Vec::new();
    let mut dim = 0;
    let side = pipeline.size();
    let config = LoaderConfig::in_order(images, BATCH);
    let loader = BatchLoader::new(Arc::clone(source), Arc::clone(pipeline), config)?;
    let mut forward = |pixels: Vec<f32>, rows: usize| -> candle_core::Result<()> {
        let x = Tensor::from_vec(pixels, (rows, side, side, 3), &Device::Cpu)?;
        let x = x.to_dtype(network.config().dtype)?;
        // On a worker of the pool, as a training step.
        let Output { projection, embedding, .. } = rayon::scope(|_| network.forward(&x, Mode::Evaluate))?;
        let chosen = match layer {
            Layer::Embedding => embedding,
            Layer::Projection => projection,
        };
        dim = chosen.dim(1)?;
        with_f32(&chosen.to_dtype(DType::F32)?, |rows| values.extend_from_slice(rows))
    };
    for batch in loader {
        let batch = batch?;
        let rows = batch.index.len();
        forward(batch.images, rows).map_err(EngineError::tensor("compute embeddings"))?;
    }
    Ok(Features { values, dim })
}
