//! An InvaSpread epoch from u8 images to updated weights: views made by the loader while the network trains.

use super::noise::Noise;
use super::train::{RATE, SIDE, learner};
use super::{BenchReport, Compute, Figures, Times, TrainBench, failed};
use crate::engine::{EngineError, ImageFeed};
use crate::methods::{Step, visiting_order};
use invaspread_augment::{AugmentConfig, ImageSource, LoaderConfig, Pipeline, ViewGroup};
use serde::Serialize;
use std::sync::Arc;

/// The sizes of the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EpochBench {
    /// The number of images, of which whole batches are used.
    pub images: usize,
    /// The number of images in a batch.
    pub batch: usize,
    /// The channels of the first stage.
    pub width: usize,
    /// The number of layers: 18, 34 or 50.
    pub depth: usize,
    /// The number of timed epochs, after one that warms up.
    pub repeats: usize,
    /// The device and the precision.
    #[serde(flatten)]
    pub compute: Compute,
}

/// Times the epoch.
///
/// # Errors
/// Returns an error if the network cannot be built or a step fails.
pub fn epoch(bench: EpochBench) -> Result<BenchReport, EngineError> {
    let EpochBench { images, batch, width, depth, repeats, compute } = bench;
    let mut learner = learner(TrainBench { batch, width, depth, ..TrainBench::of_paper(compute) }, images)?;
    let source: Arc<dyn ImageSource> = Arc::new(Noise::new(images, SIDE));
    let pipeline = Arc::new(Pipeline::train(&AugmentConfig { size: SIDE, ..AugmentConfig::default() })?);
    let groups = vec![ViewGroup { pipeline, views: 2 }];
    let images_feed = ImageFeed::of_groups(source, groups, &learner.network)?;
    // The engine's loader uses the same number of threads by default, unless the pool is smaller.
    let threads = rayon::current_num_threads().min(LoaderConfig::MOST_THREADS);
    let mut epoch = 0;
    let mut waited = 0.0;
    let times = Times::of(1, repeats, || {
        epoch += 1;
        let order = visiting_order(&*learner.method, 0, images, epoch).map_err(failed)?;
        let batches: Vec<Vec<u32>> = order.chunks_exact(batch).map(<[u32]>::to_vec).collect();
        let config = LoaderConfig { epoch, threads: Some(threads), ..LoaderConfig::new(batches) };
        let mut feed = images_feed.epoch(config)?;
        let (mut loss, mut step) = (None, 0);
        while let Some(batch) = feed.next()? {
            let (views, index) = batch.views(&learner.network).map_err(failed)?;
            let at = Step { epoch, step, index: &index };
            loss = Some(learner.step(&views, &at, RATE).map_err(failed)?);
            step += 1;
        }
        // On a GPU the epoch ends when its last loss is known.
        loss.map(|loss| loss.number()).transpose().map_err(failed)?;
        waited = feed.waited().as_secs_f64();
        Ok::<(), EngineError>(())
    })?;
    let views = 2 * (images / batch * batch);
    let operations = 3.0 * 2.0 * learner.network.multiply_adds(SIDE) as f64 * views as f64;
    Ok(Figures::default()
        .times("seconds", &times, 1.0)
        .with("views_per_s", views as f64 / times.median())
        .with("wait_seconds", waited)
        .memory(compute)?
        .arithmetic(operations, times.median(), compute)?
        .report("epoch", &bench))
}
