//! What can be wrong with a file of embeddings.

use std::fmt;
use std::path::PathBuf;

/// What an array is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The rows.
    Embeddings,
    /// Their classes.
    Labels,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embeddings => "embeddings",
            Self::Labels => "labels",
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
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else than is needed.
    #[error("failed to read {}: found {found}, expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The file has no array of the names that are looked for.
    #[error(
        "failed to read {}: found no array {}for the {role}; it has {}",
        path.display(), named(name.as_deref()), listed(there)
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        role: Role,
        /// The name that was asked for; none if the usual names were looked for.
        name: Option<String>,
        /// Each array that is there: its name, type and shape.
        there: Vec<String>,
    },
    /// Several arrays of the file may be the one.
    #[error("failed to read {}: found {} where one array for the {role} is expected", path.display(), names.join(" and "))]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        role: Role,
        /// The arrays' names.
        names: Vec<String>,
    },
    /// The file holds one array, which are the embeddings.
    #[error("failed to read {}: found one array and no file of labels, expected one more file, of the labels", path.display())]
    NoLabels {
        /// The file.
        path: PathBuf,
    },
    /// There are not as many labels as rows.
    #[error(
        "found {labels} labels of {rows} embeddings, expected one label a row: {} has the shape {label_shape}, {} the shape {shape}",
        label_path.display(), path.display()
    )]
    Counts {
        /// The file of embeddings.
        path: PathBuf,
        /// Their number.
        rows: usize,
        /// Their shape.
        shape: String,
        /// The file of labels.
        label_path: PathBuf,
        /// Their number.
        labels: usize,
        /// Their shape.
        label_shape: String,
    },
}

fn named(name: Option<&str>) -> String {
    name.map(|name| format!("{name:?} ")).unwrap_or_default()
}

/// Arrays that are listed of a file that has many.
const MOST_LISTED: usize = 20;

fn listed(there: &[String]) -> String {
    match there.len() {
        0 => "no arrays".to_owned(),
        all if all > MOST_LISTED => {
            format!("{} and {} more", there[..MOST_LISTED].join(", "), all - MOST_LISTED)
        }
        _ => there.join(", "),
    }
}
