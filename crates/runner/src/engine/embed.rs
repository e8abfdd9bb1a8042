//! Embeddings of a whole split, in evaluation mode and with the test transform.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use invaspread_augment::{LoaderConfig, Pipeline};
use invaspread_metrics::l2_normalize_rows;
use invaspread_models::{Mode, Network, Output};
use invaspread_tensor::with_f32;

use super::{EngineError, ImageFeed, Images};
use crate::methods::{Features, Layer};

/// Images in a batch. It is fixed, so that no setting of training changes the last digit of an embedding.
pub(crate) const BATCH: usize = 250;

fn in_order(images: usize) -> LoaderConfig {
    LoaderConfig::in_order(images, BATCH)
}

/// The feeds of the images that an evaluation embeds.
pub(crate) struct EvaluationFeeds {
    gallery: Option<ImageFeed>,
    test: ImageFeed,
}

impl EvaluationFeeds {
    /// Makes the feeds of `images` under the test transform `pipeline`, for `network`.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn new(
        images: &Images,
        pipeline: &Arc<Pipeline>,
        network: &Network,
    ) -> Result<Self, EngineError> {
        let feed = |source| ImageFeed::new(Arc::clone(source), Arc::clone(pipeline), network);
        let gallery = images.gallery.as_ref().map(|gallery| feed(&gallery.images)).transpose()?;
        Ok(Self { gallery, test: feed(&images.test.images)? })
    }

    /// Computes output `layer` of `network` for every image.
    ///
    /// # Errors
    /// Returns the errors of [`embed`].
    pub(crate) fn forward(&self, network: &Network, layer: Layer) -> Result<Outputs, EngineError> {
        let of = |feed: &ImageFeed| forward(network, feed, layer, in_order(feed.len()));
        Ok(Outputs { gallery: self.gallery.as_ref().map(of).transpose()?, test: of(&self.test)?, layer })
    }

    /// Returns unit rows: output `layer` of `network` for every image.
    ///
    /// # Errors
    /// Returns the errors of [`embed`].
    pub(crate) fn embed(&self, network: &Network, layer: Layer) -> Result<Embeddings, EngineError> {
        self.forward(network, layer)?.to_host()
    }
}

/// The embeddings that an evaluation measures.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Row i is image i of the gallery; `None` where each test image is searched among the other test images.
    pub gallery: Option<Features>,
    /// Row i is test image i.
    pub test: Features,
}

impl Embeddings {
    /// Returns the first value that is not a finite number, if there is one.
    pub(super) fn not_finite(&self) -> Option<f32> {
        let gallery = self.gallery.iter().flat_map(|features| &features.values);
        gallery.chain(&self.test.values).copied().find(|value| !value.is_finite())
    }
}

/// An output of a network for the images of an evaluation, in batches, on the device of the network.
pub(crate) struct Outputs {
    gallery: Option<Vec<Tensor>>,
    test: Vec<Tensor>,
    layer: Layer,
}

impl Outputs {
    /// Returns unit rows on the host.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(crate) fn to_host(&self) -> Result<Embeddings, EngineError> {
        let gallery = self.gallery.as_ref().map(|parts| self.unit_rows(parts)).transpose()?;
        Ok(Embeddings { gallery, test: self.unit_rows(&self.test)? })
    }

    /// Returns unit rows of at most `most` test images on the host, from the beginning of each batch.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(crate) fn sample_of_test(&self, most: usize) -> Result<Features, EngineError> {
        let all: usize = self.test.iter().map(|part| part.dims()[0]).sum();
        let most = most.min(all);
        let mut before = 0;
        let mut parts = Vec::with_capacity(self.test.len());
        for part in &self.test {
            let end = before + part.dims()[0];
            let taken = end * most / all - before * most / all;
            before = end;
            if taken == 0 {
                continue;
            }
            // A copy of the rows, so that no others go to the host with them.
            let rows = part.narrow(0, 0, taken).and_then(|rows| rows.force_contiguous());
            parts.push(rows.map_err(EngineError::tensor("choose embeddings"))?);
        }
        self.unit_rows(&parts)
    }

    /// Returns the rows on the host as the network computes them. Those of the embedding have length 1 all the same.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(crate) fn as_computed(&self) -> Result<Embeddings, EngineError> {
        let gallery = self.gallery.as_ref().map(|parts| on_host(parts)).transpose()?;
        Ok(Embeddings { gallery, test: on_host(&self.test)? })
    }

    /// Copies batches of this output to the host, as unit rows.
    fn unit_rows(&self, parts: &[Tensor]) -> Result<Features, EngineError> {
        if self.layer == Layer::Embedding { on_host(parts) } else { unit_rows(parts) }
    }

    /// Returns unit rows of the test images and of the gallery, if there is one, on the device.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self) -> candle_core::Result<(Tensor, Option<Tensor>)> {
        let of = |parts: &Vec<Tensor>| {
            let rows = Tensor::cat(parts, 0)?;
            if self.layer == Layer::Embedding {
                Ok(rows)
            } else {
                invaspread_tensor::cuda::knn::unit_rows(&rows)
            }
        };
        Ok((of(&self.test)?, self.gallery.as_ref().map(of).transpose()?))
    }
}

/// Returns output `layer` of `network` for every image of `feed`; row i belongs to image i.
///
/// # Errors
/// Returns an error if an image cannot be read or candle fails.
pub(crate) fn embed(network: &Network, feed: &ImageFeed, layer: Layer) -> Result<Features, EngineError> {
    embed_some(network, feed, layer, feed.len())
}

/// Returns output `layer` of `network` for the first `images` images of `feed`.
///
/// # Errors
/// Returns the errors of [`embed`].
pub(crate) fn embed_some(
    network: &Network,
    feed: &ImageFeed,
    layer: Layer,
    images: usize,
) -> Result<Features, EngineError> {
    on_host(&forward(network, feed, layer, in_order(images))?)
}

/// What [`embed_views`] computes.
pub(crate) struct Views {
    /// Unit rows of the first and of the second view of each image, on the host.
    pub(crate) rows: [Features; 2],
    /// The pooled features of the first views, in batches, on the device of the network.
    pub(crate) pooled: Vec<Tensor>,
}

/// Returns output `layer` of `network` for the two views that a feed makes of each image, and the pooled
/// features of the first ones.
///
/// # Errors
/// Returns an error if an image cannot be read or candle fails.
pub(crate) fn embed_views(
    network: &Network,
    feed: &ImageFeed,
    config: LoaderConfig,
    layer: Layer,
) -> Result<Views, EngineError> {
    let mut halves = [Vec::new(), Vec::new()];
    let mut pooled = Vec::new();
    each_batch(network, feed, config, |output| {
        let part = chosen(&output, layer)?;
        let images = part.dim(0)? / 2;
        for (half, rows) in halves.iter_mut().enumerate() {
            rows.push(part.narrow(0, half * images, images)?.force_contiguous()?);
        }
        pooled.push(output.pooled.to_dtype(DType::F32)?.narrow(0, 0, images)?.force_contiguous()?);
        Ok(())
    })?;
    let outputs = Outputs { gallery: None, test: Vec::new(), layer };
    let [first, second] = halves.map(|parts| outputs.unit_rows(&parts));
    Ok(Views { rows: [first?, second?], pooled })
}

/// Returns unit rows on the host.
///
/// # Errors
/// Returns an error if candle fails.
pub(crate) fn unit_rows(parts: &[Tensor]) -> Result<Features, EngineError> {
    let mut features = on_host(parts)?;
    l2_normalize_rows(&mut features.values, features.dim);
    Ok(features)
}

/// Computes output `layer` of `network` for the first group of views of a feed, in the batches of `config`. The
/// host does not wait for a GPU.
fn forward(
    network: &Network,
    feed: &ImageFeed,
    layer: Layer,
    config: LoaderConfig,
) -> Result<Vec<Tensor>, EngineError> {
    let mut parts: Vec<Tensor> = Vec::new();
    each_batch(network, feed, config, |output| {
        parts.push(chosen(&output, layer)?);
        Ok(())
    })?;
    Ok(parts)
}

/// Calls `take` with the outputs of `network` for each batch of the first group of views of a feed.
fn each_batch(
    network: &Network,
    feed: &ImageFeed,
    config: LoaderConfig,
    mut take: impl FnMut(Output) -> candle_core::Result<()>,
) -> Result<(), EngineError> {
    let failed = || EngineError::tensor("compute embeddings");
    let mut batches = feed.epoch(config)?;
    while let Some(batch) = batches.next()? {
        let (views, _) = batch.views(network).map_err(failed())?;
        // On a worker of the pool, like a training step (see `Learner::step`).
        let forward = || network.forward(&views[0], Mode::Evaluate);
        let output = if network.device().is_cpu() { rayon::scope(|_| forward()) } else { forward() };
        output.and_then(&mut take).map_err(failed())?;
    }
    Ok(())
}

/// Returns output `layer`, in f32.
pub(crate) fn chosen(output: &Output, layer: Layer) -> candle_core::Result<Tensor> {
    let chosen = match layer {
        Layer::Embedding => &output.embedding,
        Layer::Projection => &output.projection,
        Layer::Pooled => &output.pooled,
    };
    chosen.to_dtype(DType::F32)
}

/// Copies batches of rows to the host.
pub(crate) fn on_host(parts: &[Tensor]) -> Result<Features, EngineError> {
    let failed = || EngineError::tensor("copy embeddings");
    let [images, dim] = match parts.first() {
        Some(part) => [parts.iter().map(|part| part.dims()[0]).sum(), part.dim(1).map_err(failed())?],
        None => [0, 0],
    };
    let mut values = Vec::with_capacity(images * dim);
    for part in parts {
        let part = part.to_device(&Device::Cpu).map_err(failed())?;
        with_f32(&part, |rows| values.extend_from_slice(rows)).map_err(failed())?;
    }
    Ok(Features { values, dim })
}
