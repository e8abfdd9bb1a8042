//! An estimate of the time that a run takes on this machine, from a few real steps on a copy of its network.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use invaspread_augment::{LoaderConfig, Pipeline};
use invaspread_metrics::{Rows, top_k_on};
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

use super::embed::embed_some;
use super::learner::learner;
use super::{EngineError, ImageFeed, Images, Recipe, When};
use crate::methods::{Features, Layer, Step, visiting_order};

/// The most steps that are timed, after one step that warms up.
const STEPS: usize = 3;
/// If the times of two steps differ by at most this fraction, no further step is timed.
const AGREEMENT: f64 = 0.1;
/// After this time no further step is started.
const ENOUGH: Duration = Duration::from_secs(3);
/// The number of images whose embedding is timed, and of queries whose search is timed.
const SAMPLE: usize = 125;

/// The time that each part of a run takes, and the number of such parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The time of one training step.
    pub step: Duration,
    /// The steps of an epoch.
    pub steps: u64,
    /// The time before the first step of an epoch (clustering, for methods that cluster).
    pub preparation: Duration,
    /// The epochs.
    pub epochs: u64,
    /// The time of one evaluation: embedding both splits and searching.
    pub evaluation: Duration,
    /// The number of evaluations, including the one before training.
    pub evaluations: u64,
    /// Whether the run also measures something that was not timed: clusters for NMI and AMI, or a linear
    /// classifier.
    pub more_is_measured: bool,
}

impl Estimate {
    /// Returns the time of the whole run.
    pub fn total(&self) -> Duration {
        self.left(0, 0)
    }

    /// Returns the time that is left after `epochs` whole epochs and `steps` steps of the next. Evaluations
    /// count as evenly spread.
    pub fn left(&self, epochs: u64, steps: u64) -> Duration {
        let epochs_left = self.epochs.saturating_sub(epochs) as f64;
        let steps_left = (epochs_left * self.steps as f64 - steps as f64).max(0.0);
        let share = if self.epochs == 0 { 1.0 } else { epochs_left / self.epochs as f64 };
        let seconds = steps_left * self.step.as_secs_f64()
            + epochs_left * self.preparation.as_secs_f64()
            + share * self.evaluations as f64 * self.evaluation.as_secs_f64();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Times the run of `recipe` on a copy of its network: at most four steps, one batch of embeddings and one
/// batch of queries.
///
/// # Errors
/// Returns the errors of [`super::train`], except those about files; also an error if the run has too many
/// steps to count.
pub fn estimate(recipe: &Recipe, images: &Images) -> Result<Estimate, EngineError> {
    images.fit(recipe)?;
    let steps = (images.train.len() / recipe.batch_size.max(1)) as u64;
    let more_is_measured = match images.gallery {
        Some(_) => recipe.linear != When::Never,
        None => recipe.retrieval.clustering != When::Never,
    };
    let (mut learner, _) = learner(recipe, images)?;
    let plain = Arc::new(Pipeline::evaluate(&recipe.augment)?);
    let dim = recipe.network.embedding();

    let sample = images.train.len().min(SAMPLE);
    let from = Instant::now();
    let plain_feed = ImageFeed::new(Arc::clone(&images.train), plain, &learner.network)?;
    embed_some(&learner.network, &plain_feed, Layer::Embedding, sample)?;
    let per_image = from.elapsed().as_secs_f64() / sample as f64;

    let (train, test) = (images.train.len() as f64, images.test.labels.len() as f64);
    let searching = test * search_seconds(recipe, images)?;
    let evaluation = Duration::from_secs_f64(images.measured() as f64 * per_image + searching);
    if !recipe.method.trains() {
        return Ok(Estimate {
            step: Duration::ZERO,
            steps: 0,
            preparation: Duration::ZERO,
            epochs: 0,
            evaluation,
            evaluations: 1,
            more_is_measured,
        });
    }

    let from = Instant::now();
    let embeds = Cell::new(false);
    let mut features = |_| {
        embeds.set(true);
        Ok(made_up(images.train.len(), dim))
    };
    learner.method.begin_epoch(1, &mut features).map_err(EngineError::tensor("begin an epoch"))?;
    let mut preparation = from.elapsed();
    if embeds.get() {
        preparation += Duration::from_secs_f64(train * per_image);
    }

    let order = visiting_order(&*learner.method, recipe.seed, images.train.len(), 1)
        .map_err(EngineError::tensor("order the images"))?;
    let batches: Vec<Vec<u32>> =
        order.chunks_exact(recipe.batch_size).cycle().take(STEPS + 1).map(<[u32]>::to_vec).collect();
    let config = LoaderConfig { seed: recipe.seed, epoch: 1, ..LoaderConfig::new(batches) };
    let mut feed = ImageFeed::of_groups(Arc::clone(&images.train), recipe.view_groups()?, &learner.network)?
        .epoch(config)?;
    let begun = Instant::now();
    let mut times = Vec::new();
    let mut from = begun;
    while let Some(batch) = feed.next()? {
        let timed = || -> candle_core::Result<f64> {
            let (views, index) = batch.views(&learner.network)?;
            let step = Step { epoch: 1, step: times.len() as u64, index: &index };
            // On a GPU the step is done when its loss is known.
            learner.step(&views, &step, recipe.schedule.at(1, step.step, steps))?.number()
        };
        timed().map_err(EngineError::tensor("time a step"))?;
        times.push(from.elapsed());
        from = Instant::now();
        if begun.elapsed() > ENOUGH || agree(&times) {
            break;
        }
    }
    // The first step warms up caches and threads. It counts only if no other step was timed.
    let timed = if times.len() > 1 { &times[1..] } else { &times[..] };
    Ok(Estimate {
        step: timed.iter().sum::<Duration>() / timed.len() as u32,
        steps,
        preparation,
        epochs: recipe.epochs,
        evaluation,
        evaluations: recipe.evaluations(),
        more_is_measured,
    })
}

/// Returns whether the two steps after the first took about the same time.
fn agree(times: &[Duration]) -> bool {
    let [_, one, other] = times else { return false };
    one.abs_diff(*other).as_secs_f64() <= AGREEMENT * one.max(other).as_secs_f64()
}

/// Returns the seconds to search the neighbors of one test image. Other metrics take little time beside it,
/// except the clustering of retrieval sets, which happens once, at the end.
fn search_seconds(recipe: &Recipe, images: &Images) -> Result<f64, EngineError> {
    let dim = recipe.network.embedding();
    let test = images.test.labels.len();
    let queries = test.min(SAMPLE);
    let (k, gallery) = match &images.gallery {
        Some(gallery) => (recipe.neighbors, gallery.labels.len()),
        None => (recipe.retrieval.recall_at.iter().copied().max().unwrap_or(1), test),
    };
    let (asking, among) = (made_up(queries, dim), made_up(gallery, dim));
    let from = Instant::now();
    top_k_on(recipe.device, Rows::new(&asking.values, dim), Rows::new(&among.values, dim), k, false)?;
    Ok(from.elapsed().as_secs_f64() / queries as f64)
}

/// Returns random rows to time searching and clustering with.
fn made_up(rows: usize, dim: usize) -> Features {
    let mut values = vec![0.0_f32; rows * dim];
    values.par_chunks_mut(dim).enumerate().for_each(|(row, values)| {
        let mut stream = Stream::new(0, Purpose::Projection, 0, row as u64);
        values.fill_with(|| stream.between(-1.0, 1.0) as f32);
    });
    Features { values, dim }
}
