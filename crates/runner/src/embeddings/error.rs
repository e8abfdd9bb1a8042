//! Why embeddings could not be read.

use std::fmt;
use std::path::PathBuf;

/// The role of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The rows.
    Embeddings,
    /// The classes of the rows.
    Labels,
    /// The sources of the rows.
    Sources,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embeddings => "embeddings",
            Self::Labels => "labels",
            Self::Sources => "sources",
        })
    }
}

/// Why embeddings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingsError {
    /// The file cannot be opened.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file holds something other than what is needed.
    #[error("failed to read {}: found {found}, expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// The file has no array of the expected names.
    #[error(
        "failed to read {}: found no array {}for the {role}; it has {}",
        path.display(), named(name.as_deref()), listed(there)
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The role of the array.
        role: Role,
        /// The name that was asked for; `None` if the usual names were tried.
        name: Option<String>,
        /// The name, type and shape of each array in the file.
        there: Vec<String>,
    },
    /// Several arrays of the file have usual names.
    #[error("failed to read {}: found {} where one array for the {role} is expected", path.display(), names.join(" and "))]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// The role of the array.
        role: Role,
        /// The name, type and shape of each of them.
        names: Vec<String>,
    },
    /// The file holds only the embeddings, and no file of labels was given.
    #[error("failed to read {}: found one array and no file of labels, expected a second file with the labels", path.display())]
    NoLabels {
        /// The file.
        path: PathBuf,
    },
    /// The numbers of labels and rows differ.
    #[error(
        "found {labels} labels of {rows} embeddings, expected one label a row: {} has the shape {label_shape}, {} the shape {shape}",
        label_path.display(), path.display()
    )]
    Counts {
        /// The file of embeddings.
        path: PathBuf,
        /// The number of embeddings.
        rows: usize,
        /// The shape of the embeddings.
        shape: String,
        /// The file of labels.
        label_path: PathBuf,
        /// The number of labels.
        labels: usize,
        /// The shape of the labels.
        label_shape: String,
    },
}

fn named(name: Option<&str>) -> String {
    name.map(|name| format!("{name:?} ")).unwrap_or_default()
}

/// The most arrays that an error lists.
const MOST_LISTED: usize = 8;

fn listed(there: &[String]) -> String {
    match there.len() {
        0 => "no arrays".to_owned(),
        all if all > MOST_LISTED => {
            format!("{} and {} more", there[..MOST_LISTED].join(", "), all - MOST_LISTED)
        }
        _ => there.join(", "),
    }
}
