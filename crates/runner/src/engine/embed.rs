//! Embeddings of a whole split, in evaluation mode and with the test transform.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use invaspread_augment::{LoaderConfig, Pipeline};
use invaspread_metrics::l2_normalize_rows;
use invaspread_models::{Mode, Network, Output};
use invaspread_tensor::with_f32;

use super::{Embeddings, EngineError, Images, Stock};
use crate::methods::{Features, Layer};

/// Images in a batch. Fixed, so that no setting of training can move a last digit.
const BATCH: usize = 250;

/// The stocks of everything that is measured.
pub(crate) struct MeasuredStock {
    gallery: Option<Stock>,
    test: Stock,
}

impl MeasuredStock {
    /// Of `images` under the test transform, for `network`.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub(crate) fn new(
        images: &Images,
        pipeline: &Arc<Pipeline>,
        network: &Network,
    ) -> Result<Self, EngineError> {
        let stock = |source| Stock::new(Arc::clone(source), Arc::clone(pipeline), network);
        let gallery = images.gallery.as_ref().map(|gallery| stock(&gallery.images)).transpose()?;
        Ok(Self { gallery, test: stock(&images.test.images)? })
    }

    /// Unit rows of `layer` of all of it.
    ///
    /// # Errors
    /// As [`embed`].
    pub(crate) fn embed(&self, network: &Network, layer: Layer) -> Result<Embeddings, EngineError> {
        let of = |stock| {
            let mut features = embed(network, stock, layer)?;
            if layer != Layer::Embedding {
                l2_normalize_rows(&mut features.values, features.dim);
            }
            Ok::<_, EngineError>(features)
        };
        Ok(Embeddings { gallery: self.gallery.as_ref().map(of).transpose()?, test: of(&self.test)? })
    }
}

/// Row i is `layer` of image i of `stock`.
///
/// # Errors
/// If an image cannot be read or candle fails.
pub(crate) fn embed(network: &Network, stock: &Stock, layer: Layer) -> Result<Features, EngineError> {
    embed_some(network, stock, layer, stock.len())
}

/// The same of the first `images` images.
///
/// # Errors
/// As [`embed`].
pub(crate) fn embed_some(
    network: &Network,
    stock: &Stock,
    layer: Layer,
    images: usize,
) -> Result<Features, EngineError> {
    let failed = || EngineError::tensor("compute embeddings");
    // Brought to the host at the end alone: on a GPU nothing then waits on the way.
    let mut parts: Vec<Tensor> = Vec::new();
    let mut feed = stock.epoch(LoaderConfig::in_order(images, BATCH))?;
    while let Some(batch) = feed.next()? {
        let (x, _) = batch.views(network).map_err(failed())?;
        // On a worker of the pool, as a training step.
        let forward = || network.forward(&x, Mode::Evaluate);
        let output = if network.device().is_cpu() { rayon::scope(|_| forward()) } else { forward() };
        let Output { pooled, projection, embedding, .. } = output.map_err(failed())?;
        let chosen = match layer {
            Layer::Embedding => embedding,
            Layer::Projection => projection,
            Layer::Pooled => pooled,
        };
        parts.push(chosen.to_dtype(DType::F32).map_err(failed())?);
    }
    let dim = parts.first().map_or(Ok(0), |part| part.dim(1)).map_err(failed())?;
    let mut values = Vec::with_capacity(images * dim);
    for part in parts {
        let part = part.to_device(&Device::Cpu).map_err(failed())?;
        with_f32(&part, |rows| values.extend_from_slice(rows)).map_err(failed())?;
    }
    Ok(Features { values, dim })
}
