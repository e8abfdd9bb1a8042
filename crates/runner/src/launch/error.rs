//! Why one run of a queue did not finish.

use crate::checkpoint::CheckpointError;
use crate::engine::EngineError;
use crate::record::RecordError;

/// Why one run of a queue did not finish.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its images could not be had.
    #[error(transparent)]
    Data(#[from] invaspread_data::DataError),
    /// Its training failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its folder, status, measurements or record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its embeddings could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
