//! Where a run is on disk.

use std::path::PathBuf;

use crate::checkpoint::CheckpointFiles;

/// The identity and the folder of a run.
#[derive(Debug, Clone)]
pub struct RunPlace {
    /// The run's name, `<hash>-s<seed>`.
    pub id: String,
    /// The run's title in messages: the suite's row, or the method.
    pub title: String,
    /// The run's folder, which exists.
    pub folder: PathBuf,
    /// The paths of the run's checkpoints.
    pub checkpoints: CheckpointFiles,
}
