//! What a finished run's checkpoint still holds, for whoever has to make the run's other files again. Nothing is trained here.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use invaspread_augment::Pipeline;
use invaspread_models::Network;

use super::embed::EvaluationFeeds;
use super::journal::Journal;
use super::learner::WEIGHTS;
use super::{Embeddings, EngineError, Images, Recipe};
use crate::checkpoint::{self, CheckpointError, CheckpointFiles, NamedTensors, take_prefixed};
use crate::record::MetricRow;

/// What the state of a run says, besides what training needs to go on.
#[derive(Debug)]
pub struct KeptState {
    /// `<config hash>-s<seed>`.
    pub run: String,
    /// When the run was begun, RFC 3339.
    pub began: String,
    /// Whole epochs trained.
    pub epoch: u64,
    /// Steps trained of the epoch after those.
    pub step: u64,
    /// Epoch of the best evaluation; `None` before the first.
    pub best_epoch: Option<u64>,
    /// All measurements.
    pub rows: Vec<MetricRow>,
    /// Time spent on the run until this state was written, in seconds.
    pub seconds: f64,
    /// Images (not views) trained on per second of training steps; `None` if there were none.
    pub images_per_second: Option<f64>,
    /// The network's weights under PyTorch's names and layouts.
    pub weights: HashMap<String, Tensor>,
}

/// Reads the state among `files`.
///
/// # Errors
/// If it cannot be read or is damaged.
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
        weights: take_prefixed(&mut tensors, WEIGHTS),
    })
}

/// Writes the weights of a run as training does: of whole epochs `epoch`, and `step` steps of the next.
///
/// # Errors
/// If the file system refuses.
pub fn write_weights(
    path: &Path,
    weights: &NamedTensors,
    run: &str,
    epoch: u64,
    step: u64,
) -> Result<(), CheckpointError> {
    checkpoint::write(path, weights, &serde_json::json!({ "run": run, "epoch": epoch, "step": step }))
}

/// Embeds what `recipe` measures of `images` by the network with `weights`.
///
/// # Errors
/// If the weights are not the network's, or an image cannot be read.
#[allow(clippy::implicit_hasher, reason = "as checkpoints are read and networks take them up")]
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
