//! What can go wrong between a run record and a report. Every message names the file and what to do about it.

use std::path::PathBuf;

use invaspread_record::RecordError;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The folder that should hold a suite's runs is not there.
    #[error(
        "no runs of suite `{suite}` found: `{}` is not a folder; run `invaspread reproduce {suite}` first, or point `runs.root` at the folder that holds its runs",
        path.display()
    )]
    NoSuite {
        /// The suite asked for.
        suite: String,
        /// The folder looked for.
        path: PathBuf,
    },
    /// The suite has a folder, but no run in it is done.
    #[error(
        "no finished run of suite `{suite}` to report ({unfinished} unfinished); finish them with `invaspread reproduce {suite}`"
    )]
    NoRuns {
        /// The suite asked for.
        suite: String,
        /// How many runs were begun but are not done.
        unfinished: usize,
    },
    /// A file could not be read or written.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// What was being done: "read", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file of a run could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A measurement states an epoch below 0.
    #[error(
        "failed to read `{}`: found `{metric}` of epoch {epoch}, expected epochs from 0; delete the file and ask for the run again: it is \
         written again from the checkpoint",
        path.display()
    )]
    NegativeEpoch {
        /// The file.
        path: PathBuf,
        /// The metric.
        metric: String,
        /// The epoch that the file states.
        epoch: i64,
    },
    /// Aggregating or writing a table failed inside polars.
    #[error("failed to make the table of suite `{suite}`")]
    Table {
        /// The suite.
        suite: String,
        /// What polars found.
        #[source]
        source: polars::error::PolarsError,
    },
    /// The system gave no thread, and tables are made on one.
    #[error(
        "failed to start a thread: {source}; raise the limit on processes (`ulimit -u`, a container's pids limit) or on memory"
    )]
    Threads {
        /// The system's reason.
        source: std::io::Error,
    },
    /// A picture's pixels do not fit its stated size.
    #[error("picture {what} has {found} bytes; {width} x {height} RGB pixels take {expected}")]
    Pixels {
        /// Which picture: "query 3", "query 3, neighbour 1".
        what: String,
        /// Bytes given.
        found: usize,
        /// Its stated width, pixels.
        width: usize,
        /// Its stated height, pixels.
        height: usize,
        /// width * height * 3.
        expected: usize,
    },
    /// A gallery without a single query was asked for.
    #[error("a gallery needs at least one query; none was given")]
    EmptyGallery,
    /// Drawing or rasterising a figure failed.
    #[error("failed to draw {figure}: {reason}")]
    Draw {
        /// Which figure.
        figure: &'static str,
        /// The drawing library's reason.
        reason: String,
    },
}
