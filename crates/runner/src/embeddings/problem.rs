//! What is wrong with the content of a file, before the file is named.

use std::path::Path;

use super::EmbeddingsError;

/// What was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) found: String,
    pub(super) expected: String,
}

impl Problem {
    pub(super) fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }

    /// Returns the error that names the file.
    pub(super) fn of(self, path: &Path) -> EmbeddingsError {
        EmbeddingsError::Content { path: path.to_owned(), found: self.found, expected: self.expected }
    }
}
