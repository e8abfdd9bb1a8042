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
    let device = network.device().clone();
    // Brought to the host at the end alone: on a GPU nothing then waits on the way.
    let mut parts: Vec<Tensor> = Vec::new();
    let side = pipeline.size();
    let config = LoaderConfig::in_order(images, BATCH);
    let loader = BatchLoader::new(Arc::clone(source), Arc::clone(pipeline), config)?;
    let mut forward = |pixels: Vec<f32>, rows: usize| -> candle_core::Result<()> {
        let x = Tensor::from_vec(pixels, (rows, side, side, 3), &device)?;
        let x = x.to_dtype(network.config().dtype)?;
        // On a worker of the pool, as a training step.
        let forward = || network.forward(&x, Mode::Evaluate);
        let Output { projection, embedding, .. } =
            if device.is_cpu() { rayon::scope(|_| forward())? } else { forward()? };
        let chosen = match layer {
            Layer::Embedding => embedding,
            Layer::Projection => projection,
        };
        parts.push(chosen.to_dtype(DType::F32)?);
        Ok(())
    };
    for batch in loader {
        let batch = batch?;
        let rows = batch.index.len();
        forward(batch.images, rows).map_err(EngineError::tensor("compute embeddings"))?;
    }
    let failed = || EngineError::tensor("compute embeddings");
    let dim = parts.first().map_or(Ok(0), |part| part.dim(1)).map_err(failed())?;
    let mut values = Vec::with_capacity(images * dim);
    for part in parts {
        let part = part.to_device(&Device::Cpu).map_err(failed())?;
        with_f32(&part, |rows| values.extend_from_slice(rows)).map_err(failed())?;
    }
    Ok(Features { values, dim })
}
