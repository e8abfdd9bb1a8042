//! The reasons why a report could not be made. Every message names the file and says what to do.

use std::path::PathBuf;

use invaspread_record::RecordError;

/// The reason why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The folder of the suite's runs does not exist.
    #[error(
        "no runs of suite `{suite}` found: `{}` is not a folder; run `invaspread reproduce {suite}` first, or point `runs.root` at the folder that holds its runs",
        path.display()
    )]
    NoSuite {
        /// The suite.
        suite: String,
        /// The folder that was expected.
        path: PathBuf,
    },
    /// The suite has a folder, but no run in it is finished.
    #[error(
        "no finished run of suite `{suite}` to report ({unfinished} unfinished); finish them with `invaspread reproduce {suite}`"
    )]
    NoRuns {
        /// The suite.
        suite: String,
        /// The number of runs that were started and not finished.
        unfinished: usize,
    },
    /// A file could not be read or written.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// The action that failed: "read" or "write".
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
    /// The config of a run could not be understood.
    #[error(
        "failed to read `{}`: {source}; expected the config of a run; copy it from a backup, or remove it: the report then says that the \
         protocol was not recorded",
        path.display()
    )]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
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
        /// The error of polars.
        #[source]
        source: polars::error::PolarsError,
    },
    /// The system refused to start a thread, and polars needs threads.
    #[error(
        "failed to start a thread: {source}; raise the limit on processes (`ulimit -u`, a container's pids limit) or on memory"
    )]
    Threads {
        /// The system's reason.
        source: std::io::Error,
    },
    /// The number of bytes of a picture does not match its size.
    #[error("picture {what} has {found} bytes; {width} x {height} RGB pixels take {expected}")]
    Pixels {
        /// The picture: "query 3" or "query 3, neighbor 1".
        what: String,
        /// The number of bytes given.
        found: usize,
        /// The stated width, pixels.
        width: usize,
        /// The stated height, pixels.
        height: usize,
        /// The number of bytes that the size needs, width * height * 3.
        expected: usize,
    },
    /// A gallery without a query was requested.
    #[error("a gallery needs at least one query; none was given")]
    EmptyGallery,
    /// A figure could not be drawn or rasterized.
    #[error("failed to draw {figure}: {reason}")]
    Draw {
        /// The figure.
        figure: &'static str,
        /// The drawing library's reason.
        reason: String,
    },
}
