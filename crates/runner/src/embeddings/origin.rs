//! Which arrays of which files were read.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::array::{Header, Shape};

/// The arrays that were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The array of embeddings.
    pub embeddings: ArrayOrigin,
    /// The array of labels.
    pub labels: ArrayOrigin,
}

/// One array that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArrayOrigin {
    /// The file.
    pub file: PathBuf,
    /// The array's name in the file, if it has one.
    pub name: Option<String>,
    /// The type of the elements, as numpy prints it.
    #[serde(rename = "type")]
    pub element: String,
    /// The shape.
    pub shape: Vec<usize>,
}

impl ArrayOrigin {
    pub(super) fn new(file: &Path, name: Option<String>, header: &Header) -> Self {
        Self { file: file.to_owned(), name, element: header.element.to_string(), shape: header.shape.clone() }
    }
}

impl std::fmt::Display for ArrayOrigin {
    /// Writes the name, the type and the shape, without the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        write!(f, "{} {}", self.element, Shape(&self.shape))
    }
}
