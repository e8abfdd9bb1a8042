//! `status.json`: how far a run is.

use std::io;

use serde::{Deserialize, Serialize};

use super::json::{read_json, write_json};
use super::{Layout, RecordError};

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// The run is planned but has not begun.
    Queued,
    /// The run is training. A killed process leaves this state, but its folder is then not locked.
    Running,
    /// The run is finished.
    Done,
    /// The run was stopped by an error, which is in the message of the status.
    Failed,
    /// The run was stopped by Ctrl-C or SIGTERM. The same command resumes it.
    Interrupted,
}

/// The content of `status.json`.
///
/// ```
/// use invaspread_record::{Layout, State, Status};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// let run = Layout::new(root.path(), None, "0123abcd-s0");
/// assert_eq!(Status::read(&run)?, None); // it was not begun
///
/// std::fs::create_dir_all(run.folder())?;
/// let updated = invaspread_record::now_rfc3339();
/// Status { state: State::Running, epoch: 3, updated, message: None }.write(&run)?;
/// assert_eq!(Status::read(&run)?.expect("it was begun").epoch, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state of the run.
    pub state: State,
    /// The number of completed epochs.
    pub epoch: u64,
    /// The time at which the status was written, RFC 3339.
    pub updated: String,
    /// A text for people, such as the error that stopped the run.
    pub message: Option<String>,
}

impl Status {
    /// Reads the status of the run in `layout`; `None` if there is no such run yet.
    ///
    /// # Errors
    /// Returns `Io` or `Damaged`, which name the path, if the file cannot be read or used.
    pub fn read(layout: &Layout) -> Result<Option<Self>, RecordError> {
        let remedy = "delete the file: the run resumes from its checkpoint";
        match read_json(&layout.status(), "a run's status", remedy) {
            Ok(status) => Ok(Some(status)),
            Err(RecordError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the status of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.status(), self)
    }
}
