//! Why a launch on a Slurm cluster failed.

use std::io;
use std::path::PathBuf;

/// Why a launch on a Slurm cluster, or a task of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// A program of Slurm is not on this machine.
    #[error(
        "failed to start {program}: {source}; launcher=slurm needs Slurm's programs in PATH, as they are on a \
         cluster's login node"
    )]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A program of Slurm refused.
    #[error("{command} ended with {ended}: {said}")]
    Refused {
        /// The command.
        command: String,
        /// How it ended.
        ended: String,
        /// All that it wrote.
        said: String,
    },
    /// A program of Slurm wrote something else than was expected.
    #[error("{command} wrote {said:?}, expected {expected}")]
    Unexpected {
        /// The command.
        command: String,
        /// What it wrote.
        said: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A file of the launch cannot be read or written.
    #[error("failed to {action} {path}: {source}", path = path.display())]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of the launch holds something else.
    #[error("{path} is damaged: {reason}; give the command of the launch again, which writes another folder", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no task of that index.
    #[error("{path} has no task {index}, expected an index from 0 to {last}", path = path.display())]
    NoTask {
        /// The list of tasks.
        path: PathBuf,
        /// The index that was asked for.
        index: usize,
        /// The last index.
        last: usize,
    },
    /// A path that the scripts cannot hold.
    #[error(
        "found {path:?} for {what}, expected a path in UTF-8 without line breaks and backslashes, which a script of Slurm can hold"
    )]
    Path {
        /// What the path is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
}

impl SlurmError {
    /// Returns a function that makes an error of the system the error for `path`.
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
