//! `request.json`: the command that asked for a run, so that the run can be resumed without its being typed again.

use serde::{Deserialize, Serialize};

use super::json::{read_json, write_json};
use super::{Layout, RecordError};

/// The command that asked for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The command's name and its arguments, such as `train`, `method=nce`. Several runs may come from one command.
    pub arguments: Vec<String>,
    /// The folder in which it was given: relative paths begin there.
    pub folder: String,
}

impl Request {
    /// Reads the request of the run in `layout`; `None` if it has none.
    ///
    /// # Errors
    /// Returns `Io` or `Damaged`, which name the path, if the file cannot be read or used.
    pub fn read(layout: &Layout) -> Result<Option<Self>, RecordError> {
        let remedy = "delete the file, and give the command again by which the run was begun";
        match read_json(&layout.request(), "the command that asked for a run", remedy) {
            Ok(request) => Ok(Some(request)),
            Err(RecordError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the request of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.request(), self)
    }
}
