//! Errors about data. Each names the file or key, what was found, what was expected and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::location::{Location, NoFolder};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The name is not that of a data set.
    #[error("data.name: no data set is called \"{found}\"; the known names are {}", known.join(", "))]
    UnknownName {
        /// The requested name.
        found: String,
        /// The known names.
        known: &'static [&'static str],
    },
    /// A value of the config is out of range.
    #[error("data.{key}: found {found}, expected {expected}")]
    Value {
        /// The key within the group.
        key: &'static str,
        /// The value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// There is no folder to search.
    #[error(transparent)]
    NoFolder(#[from] NoFolder),
    /// The data set is not in the folder.
    #[error("{name} was not found in {location}; looked for {}. {advice}", looked_for.join(", "))]
    Missing {
        /// The data set.
        name: &'static str,
        /// The folder in which it was searched.
        location: Location,
        /// The files and folders that were searched for.
        looked_for: Vec<String>,
        /// The advice on how to get the data set.
        advice: String,
    },
    /// An operation on a file failed.
    #[error("{source}; {advice}")]
    Io {
        /// The error of the system, which names the path.
        source: io::Error,
        /// The advice on what to do.
        advice: &'static str,
    },
    /// A file has the wrong length.
    #[error("{}: found {found} bytes, expected {expected}; {advice}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The length in bytes.
        found: u64,
        /// The length it must have.
        expected: u64,
        /// The advice on what to do.
        advice: &'static str,
    },
    /// A label is not below the number of classes.
    #[error(
        "{}: image {record} has label {found}, expected 0 to {}; the file is damaged or not CIFAR-10: {REFETCH}",
        path.display(), classes - 1
    )]
    Label {
        /// The file.
        path: PathBuf,
        /// Number of the image within the file.
        record: usize,
        /// The label.
        found: i64,
        /// The number of classes.
        classes: usize,
    },
    /// The content of a file is wrong.
    #[error("{}: found {found}, expected {expected}; {advice}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The content that was found.
        found: String,
        /// The expected content.
        expected: String,
        /// The advice on what to do.
        advice: &'static str,
    },
    /// The packing of images was stopped on request.
    #[error(
        "{}: the packing was stopped after {done} of {all} images; the same command packs them again, from the first on",
        path.display()
    )]
    Stopped {
        /// The pack that was not made.
        path: PathBuf,
        /// The images that were packed.
        done: usize,
        /// All images.
        all: usize,
    },
    /// A downloaded file is not the published one.
    #[error(
        "{url}: found a file of {found_bytes} bytes with SHA-256 {found}, expected {expected_bytes} bytes with SHA-256 \
         {expected}; it was removed, and nothing else was changed. Try again, or another mirror"
    )]
    Checksum {
        /// The address of the file.
        url: String,
        /// The checksum.
        found: String,
        /// The published checksum.
        expected: String,
        /// The length.
        found_bytes: u64,
        /// The published length.
        expected_bytes: u64,
    },
    /// A server did not send the file.
    #[error("{url}: found {found}, expected the file; {advice}")]
    Http {
        /// The requested address.
        url: String,
        /// The status, or how the connection failed.
        found: String,
        /// The advice on what to do.
        advice: String,
    },
    /// Another process is downloading the same file.
    #[error("{}: found it locked by another fetch, expected no other fetch; wait until that one ends", path.display())]
    Busy {
        /// The unfinished download.
        path: PathBuf,
    },
    /// The data set cannot be downloaded.
    #[error("data fetch: found \"{name}\", which cannot be downloaded, expected one of {}; {advice}", known.join(", "))]
    NotFetchable {
        /// The data set.
        name: String,
        /// The data sets that can be downloaded.
        known: &'static [&'static str],
        /// The advice on how to use the data set.
        advice: &'static str,
    },
    /// The server of the data set's publisher no longer exists.
    #[error(
        "data fetch: the server that published {name} is gone; name another with --mirror URL, or put {files} into {} to have them \
         checked and unpacked",
        folder.display()
    )]
    NoServer {
        /// The data set.
        name: &'static str,
        /// The files that it was published as.
        files: String,
        /// The folder to put them into.
        folder: PathBuf,
    },
    /// The program was built without the `hub` feature.
    #[error(
        "this invaspread was built without the feature \"hub\", which fetching from the Hugging Face hub needs; rebuild with \
         `cargo build --release --features hub`, or leave the hub out to fetch the official archive"
    )]
    HubFeature,
    /// The Hugging Face hub refused the files.
    #[error(
        "{dataset} on the Hugging Face hub: {found}; check the network, or leave the hub out to fetch the official archive"
    )]
    Hub {
        /// The data set's name on the hub.
        dataset: &'static str,
        /// The fault.
        found: String,
    },
}

/// The advice for a damaged copy.
pub(crate) const REFETCH: &str =
    "remove it and run `invaspread data fetch cifar10`, or point data.root at a good copy";

/// Returns the error of a failed read; `source` names the path (`fs_err`).
pub(crate) fn reading(source: io::Error) -> DataError {
    DataError::Io { source, advice: "check that it exists and that you may read it" }
}

/// Returns the error of a failed write; `source` names the path (`fs_err`).
pub(crate) fn writing(source: io::Error) -> DataError {
    DataError::Io {
        source,
        advice: "check that the folder may be written to and its disk has room, or choose another folder with data.root or \
                 INVASPREAD_DATA",
    }
}

impl DataError {
    /// Returns the error of a file with other advice on what to do.
    pub(crate) fn advised(self, advice: &'static str) -> Self {
        match self {
            Self::Damaged { path, found, expected, .. } => Self::Damaged { path, found, expected, advice },
            Self::Io { source, .. } => Self::Io { source, advice },
            other => other,
        }
    }

    /// Returns the error of a file at `path` that holds `found` instead of `expected`.
    pub(crate) fn damaged(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            found: found.into(),
            expected: expected.into(),
            advice: REFETCH,
        }
    }
}
