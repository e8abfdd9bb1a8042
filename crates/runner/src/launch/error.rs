//! Why one run of a queue did not finish.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::engine::EngineError;
use crate::record::{Fault, RecordError};

/// Why one run of a queue did not finish.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its images could not be had.
    #[error(transparent)]
    Data(#[from] invaspread_data::DataError),
    /// Its images could not be had, but a run of the same settings is there.
    #[error("{source}; {other}")]
    OtherRun {
        /// Why they could not be had.
        source: invaspread_data::DataError,
        /// Which run is there and where.
        other: String,
    },
    /// Its images are not those that it was planned on.
    #[error(
        "the images of run {id} have changed since it was planned{changes}; ask for the run again: on other images it is another run"
    )]
    ImagesChanged {
        /// The run.
        id: String,
        /// What has changed, if that is known, after a colon.
        changes: String,
    },
    /// Its training failed.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// Its folder, status, measurements or record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its embeddings could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It was finished, and results of it are gone that cannot be made again without training.
    #[error(
        "results of the finished run in {folder} are gone: {results}. They cannot be made again without training: {why}{others}. Put \
         intact copies back, or move the folder away to train the run from the start",
        folder = folder.display(),
        results = listed(results),
        others = if others.is_empty() { String::new() } else { format!(" (also gone: {})", listed(others)) }
    )]
    Lost {
        /// The run's folder.
        folder: PathBuf,
        /// What is wrong with its results.
        results: Vec<Fault>,
        /// What else is wrong.
        others: Vec<Fault>,
        /// Why they cannot be made again.
        why: String,
    },
}

impl From<EngineError> for LaunchError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
