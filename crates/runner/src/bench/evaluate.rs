//! Embedding of a split: loader, test transform and network in evaluation mode.

use super::noise::Noise;
use super::train::{SIDE, learner};
use super::{BenchReport, Compute, Figures, Times, TrainBench};
use crate::engine::{EngineError, ImageFeed, embed, embed_some};
use crate::methods::Layer;
use invaspread_augment::{AugmentConfig, ImageSource, Pipeline};
use serde::Serialize;
use std::sync::Arc;

/// The sizes of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EvaluateBench {
    /// The number of images.
    pub images: usize,
    /// The channels of the first stage.
    pub width: usize,
    /// The number of layers: 18, 34 or 50.
    pub depth: usize,
    /// The number of timed repetitions, after a short one that warms up.
    pub repeats: usize,
    /// The device and the precision.
    #[serde(flatten)]
    pub compute: Compute,
}

/// The number of images embedded to warm up.
const WARMUP: usize = 1000;

/// Times the embedding of all images.
///
/// # Errors
/// Returns an error if the network cannot be built or fails.
pub fn evaluate(bench: EvaluateBench) -> Result<BenchReport, EngineError> {
    let EvaluateBench { images, width, depth, repeats, compute } = bench;
    let network = learner(TrainBench { width, depth, ..TrainBench::of_paper(compute) }, images)?.network;
    let source: Arc<dyn ImageSource> = Arc::new(Noise::new(images, SIDE));
    let pipeline = Arc::new(Pipeline::evaluate(&AugmentConfig { size: SIDE, ..AugmentConfig::default() })?);
    let feed = ImageFeed::new(source, pipeline, &network)?;
    embed_some(&network, &feed, Layer::Embedding, images.min(WARMUP))?;
    let times = Times::of(0, repeats, || embed(&network, &feed, Layer::Embedding).map(drop))?;
    let operations = 2.0 * network.multiply_adds(SIDE) as f64 * images as f64;
    Ok(Figures::default()
        .times("seconds", &times, 1.0)
        .with("images_per_s", images as f64 / times.median())
        .memory(compute)?
        .arithmetic(operations, times.median(), compute)?
        .report("evaluate", &bench))
}
