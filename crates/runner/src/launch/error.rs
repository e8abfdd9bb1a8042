//! Why one run of a queue did not finish.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::engine::EngineError;
use crate::record::{Fault, RecordError};

/// Why one run of a queue did not finish.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The images cannot be opened.
    #[error(transparent)]
    Data(#[from] invaspread_data::DataError),
    /// The images cannot be opened, but there is a run of the same settings.
    #[error("{source}; {other}")]
    OtherRun {
        /// Why they cannot be opened.
        source: invaspread_data::DataError,
        /// Which run it is and where.
        other: String,
    },
    /// The images are not those that the run was planned on.
    #[error(
        "the images of run {id} have changed since it was planned{changes}; ask for the run again: on other images it is a new run"
    )]
    ImagesChanged {
        /// The run.
        id: String,
        /// A colon and what has changed, or nothing if that is not known.
        changes: String,
    },
    /// Training failed.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// The folder, status, measurements or record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A checkpoint or the embeddings cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run was finished, but some results are lost and cannot be made again without training.
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
        /// The faults of its results.
        results: Vec<Fault>,
        /// The faults of other files.
        others: Vec<Fault>,
        /// Why the results cannot be made again.
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
