//! The trait of published sets: they can be located, fetched, verified, opened and described. Each set
//! implements it, and the catalog finds the sets by name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::DataConfig;
use crate::dataset::{DataState, Dataset};
use crate::download::Progress;
use crate::error::DataError;
use crate::fetch::{Fetched, Source};
use crate::form::Form;
use crate::location::Location;
use crate::manifest::SetCopy;

/// A data set that somebody published.
pub(crate) trait PublishedSet: Sync {
    /// Returns the set's name, one of [`NAMES`](crate::NAMES).
    fn name(&self) -> &'static str;

    /// Returns a description of the set in one line.
    fn description(&self) -> &'static str;

    /// Returns in one line how to get the set.
    fn how_to_get(&self) -> &'static str;

    /// Returns whether [`PublishedSet::fetch`] can get it.
    fn is_fetchable(&self) -> bool;

    /// Searches for a copy in `root` by the names of files alone; returns its form, and its folder or
    /// archive.
    fn locate(&self, root: &Path) -> Option<(Form, PathBuf)>;

    /// Opens the copy in the configured folder, or the configured subsets of it.
    fn open(&self, config: &DataConfig) -> Result<Dataset, DataError>;

    /// Lists the files of the copy in the configured folder; `None` if there is no copy.
    fn copy<'a>(&self, config: &'a DataConfig) -> Result<Option<SetCopy<'a>>, DataError>;

    /// Reads all of the copy at `location` and compares its checksums.
    fn verify(&self, location: &Location) -> Result<Content, DataError>;

    /// Fetches the set into `root`, unless a verified copy exists there.
    fn fetch(
        &self,
        root: &Path,
        source: &Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, DataError>;
}

/// A copy that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The form.
    pub form: Form,
    /// The folder or archive.
    pub path: PathBuf,
    /// Training images of each class.
    pub train: Vec<usize>,
    /// Test images of each class.
    pub test: Vec<usize>,
    /// Images without labels.
    pub unlabeled: usize,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Whether its checksums are the published ones.
    pub state: DataState,
    /// Sentences to show about files that are skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Counts the images of each class.
pub(crate) fn counts(classes: usize, labels: impl IntoIterator<Item = u32>) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for label in labels {
        counts[label as usize] += 1;
    }
    counts
}
