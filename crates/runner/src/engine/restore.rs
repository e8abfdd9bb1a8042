//! Reads a run's checkpoint: to go on training, or to make a finished run's other files again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use invaspread_augment::Pipeline;
use invaspread_models::Network;

use super::embed::EvaluationFeeds;
use super::journal::Journal;
use super::weights::WEIGHTS;
use super::{Embeddings, EngineError, Images, Learner, Recipe, RunPlace};
use crate::checkpoint::{self, CheckpointError, CheckpointFiles, NamedTensors, take_prefixed};
use crate::record::MetricRow;

/// The content of a run's state, without what only training needs.
#[derive(Debug)]
pub struct KeptState {
    /// The run's name, `<config hash>-s<seed>`.
    pub run: String,
    /// When the run was started, RFC 3339.
    pub began: String,
    /// The number of whole epochs trained.
    pub epoch: u64,
    /// The number of steps trained in the next epoch.
    pub step: u64,
    /// The epoch of the best evaluation; `None` before the first evaluation.
    pub best_epoch: Option<u64>,
    /// All measurements.
    pub rows: Vec<MetricRow>,
    /// The time spent on the run until this state was written, seconds.
    pub seconds: f64,
    /// Images (not views) trained on per second of training steps; `None` if there were none.
    pub images_per_second: Option<f64>,
    /// The processor time of all threads in the training steps, seconds; `None` if there were none, or it is
    /// not known.
    pub training_processor_seconds: Option<f64>,
    /// The network's weights under PyTorch's names and layouts.
    pub weights: HashMap<String, Tensor>,
}

/// Reads the state of a run from its checkpoints.
///
/// # Errors
/// Returns an error if the file cannot be read or is damaged.
pub fn read_state(files: &CheckpointFiles) -> Result<KeptState, CheckpointError> {
    let (mut tensors, journal): (_, Journal) = checkpoint::read(&files.state())?;
    Ok(KeptState {
        run: journal.run.clone(),
        began: journal.began.clone(),
        epoch: journal.epoch,
        step: journal.step,
        best_epoch: journal.best.map(|best| best.epoch),
        rows: journal.rows(),
        seconds: journal.seconds.into(),
        images_per_second: journal.images_per_second(),
        training_processor_seconds: journal.processor_seconds(),
        weights: take_prefixed(&mut tensors, WEIGHTS),
    })
}

/// Writes the weights of run `run` after `epoch` whole epochs and `step` steps of the next, in the form that
/// training writes.
///
/// # Errors
/// Returns an error if the file system refuses.
pub fn write_weights(
    path: &Path,
    weights: &NamedTensors,
    run: &str,
    epoch: u64,
    step: u64,
) -> Result<(), CheckpointError> {
    checkpoint::write(path, weights, &weights_header(run, epoch, step))
}

/// Returns the header of a file of weights.
pub(super) fn weights_header(run: &str, epoch: u64, step: u64) -> serde_json::Value {
    serde_json::json!({ "run": run, "epoch": epoch, "step": step })
}

/// Embeds the images that `recipe` measures with the network of `recipe` and these `weights`.
///
/// # Errors
/// Returns an error if the weights belong to another network, or an image cannot be read.
#[allow(clippy::implicit_hasher, reason = "the type that reading a checkpoint returns")]
pub fn embed_by(
    recipe: &Recipe,
    images: &Images,
    weights: &HashMap<String, Tensor>,
) -> Result<Embeddings, EngineError> {
    images.check()?;
    let device = recipe.device.open().map_err(|source| EngineError::SetUp { what: "device", source })?;
    let network = Network::on(&device, recipe.network.clone(), recipe.seed)
        .map_err(|source| EngineError::SetUp { what: "network", source })?;
    network.load_state_dict(weights)?;
    let plain = Arc::new(Pipeline::evaluate(&recipe.augment)?);
    EvaluationFeeds::new(images, &plain, &network)?.embed(&network, recipe.layer)
}

/// Loads the checkpoint of the run at `place` into `learner` and returns its journal, or a new journal if
/// there is no checkpoint.
pub(super) fn resume(place: &RunPlace, learner: &mut Learner) -> Result<Journal, EngineError> {
    let path = place.checkpoints.state();
    if !path.exists() {
        return Ok(Journal::new(place.id.clone()));
    }
    let (tensors, journal): (HashMap<String, Tensor>, Journal) = checkpoint::read(&path)?;
    for (name, tensor) in &tensors {
        let found = invaspread_models::not_finite(tensor)
            .map_err(EngineError::tensor("look through the checkpoint"))?;
        if let Some(found) = found {
            let found = format!("the tensor {name:?} with {found}");
            return Err(CheckpointError::Damaged { path, found }.into());
        }
    }
    let foreign = |found: String, expected: &str| CheckpointError::Foreign {
        path: path.clone(),
        found,
        expected: expected.to_owned(),
    };
    if journal.run != place.id {
        return Err(foreign(
            format!("a checkpoint of run {}", journal.run),
            &format!("one of run {}", place.id),
        )
        .into());
    }
    learner
        .load(tensors)
        .map_err(|found| foreign(found, "the tensors of this run's network, optimizer and method"))?;
    Ok(journal)
}
