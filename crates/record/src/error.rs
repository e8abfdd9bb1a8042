//! Errors about a run's files. Each names the file, what was found, what was expected and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::remedy::{remedy, remedy_of_reading};
use super::{FORMAT, Owner};

/// The reason why a run's file could not be written, read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file system refused an operation.
    #[error(
        "failed to {action} {}: {source}; {}",
        path.display(),
        if *action == "read" { remedy_of_reading(source) } else { remedy(source) }
    )]
    Io {
        /// The operation: "write", "read", "create the folder", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file does not hold what it should hold.
    #[error("failed to read {}: found {found}, expected {expected}; {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The content that was found.
        found: String,
        /// The expected content.
        expected: &'static str,
        /// The advice on what to do.
        remedy: &'static str,
    },
    /// A newer version of the program wrote the folder.
    #[error(
        "failed to read {}: found a record of format {found}, expected at most format {FORMAT}; update this program",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format it states.
        found: u32,
    },
    /// Another process is training this run.
    #[error(
        "failed to claim the run of {}: {} is working on it, expected it to be free; wait for that process or stop it, or ask for \
         another seed",
        path.display(),
        owner.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    Busy {
        /// Its claim.
        path: PathBuf,
        /// The other process, if it wrote down who it is.
        owner: Option<Box<Owner>>,
    },
    /// The stored config differs from the config that the folder is named after.
    #[error(
        "failed to resume the run in {}: its config was changed, line {line} of {} is `{found}`, expected `{expected}`; \
         put that line back, or move the folder away to start the run again",
        folder.display(),
        config.display()
    )]
    ConfigChanged {
        /// The run's folder.
        folder: PathBuf,
        /// The stored config.
        config: PathBuf,
        /// The first line that differs, counted from 1.
        line: usize,
        /// The line in the stored config.
        found: String,
        /// The line in the config of the run.
        expected: String,
    },
}

impl RecordError {
    /// Returns a function for `map_err`: it turns the system's refusal to `action` (a verb, such as "read")
    /// `path` into an `Io`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
