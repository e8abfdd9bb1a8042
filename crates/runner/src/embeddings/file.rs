//! A file of arrays: finds the arrays of embeddings and labels in it, and reads them.

use std::fs::File;
use std::path::Path;

use super::array::Array;
use super::container::Container;
use super::labels::Labels;
use super::origin::ArrayOrigin;
use super::problem::Problem;
use super::{EmbeddingsError, Role};

pub(super) const EMBEDDINGS: &str = "embeddings";
pub(super) const LABELS: &str = "labels";

/// Usual names of arrays of embeddings. The first one wins; of the others, a file may have only one.
pub const EMBEDDING_NAMES: [&str; 10] =
    [EMBEDDINGS, "embedding", "embeds", "embs", "emb", "features", "feature", "feats", "feat", "X"];
/// Usual names of arrays of labels, with the same rule.
pub const LABEL_NAMES: [&str; 6] = [LABELS, "label", "targets", "target", "y", "Y"];

/// Usual names of arrays of sources, with the same rule.
pub const SOURCE_NAMES: [&str; 4] = ["sources", "source", "cameras", "camera"];

const FILES: &str = "a whole .npz or .npy file of numpy's, safetensors or Parquet";
const ARRAYS: &str = "numbers or words, whole, that fit in memory";

/// Opens a regular file and returns its length. Reading anything else may never end.
pub(super) fn open(path: &Path) -> Result<(File, u64), EmbeddingsError> {
    let failed = |source| EmbeddingsError::Read { path: path.to_owned(), source };
    // Checked before opening: opening a pipe waits for a writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a pipe, a device or a socket" };
        return Err(Problem::new(found, "a file").of(path));
    }
    Ok((File::open(path).map_err(failed)?, metadata.len()))
}

/// A file of arrays with its path, which errors name.
pub(super) struct ArrayFile<'a> {
    path: &'a Path,
    container: Container<File>,
    /// The most bytes that may be held in memory.
    most: u64,
}

impl<'a> ArrayFile<'a> {
    pub(super) fn open(path: &'a Path, most: u64) -> Result<Self, EmbeddingsError> {
        let (file, length) = open(path)?;
        let container =
            Container::open(file, length, most).map_err(|found| Problem::new(found, FILES).of(path))?;
        Ok(Self { path, container, most })
    }

    /// Returns whether the file holds one array without a name.
    pub(super) fn has_one_array(&self) -> bool {
        matches!(self.container, Container::Npy { .. })
    }

    /// Returns whether the file holds an array of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.container.names().iter().any(|found| found == name)
    }

    /// Returns the name of the array for `role`: `asked`, or else one of the usual names; `None` if the only
    /// array has no name.
    pub(super) fn find(
        &mut self,
        role: Role,
        asked: Option<&str>,
    ) -> Result<Option<String>, EmbeddingsError> {
        if self.has_one_array() {
            return Ok(None);
        }
        let names = self.container.names();
        let usual = match role {
            Role::Embeddings => &EMBEDDING_NAMES[..],
            Role::Labels => &LABEL_NAMES[..],
            Role::Sources => &SOURCE_NAMES[..],
        };
        let is_there = |name: &str| names.iter().any(|found| found == name);
        let mut found: Vec<&str> = match asked {
            Some(name) => vec![name],
            None if is_there(usual[0]) => vec![usual[0]],
            None => usual.to_vec(),
        };
        found.retain(|name| is_there(name));
        match found[..] {
            [name] => Ok(Some(name.to_owned())),
            [] => Err(EmbeddingsError::Missing {
                path: self.path.to_owned(),
                role,
                name: asked.map(ToOwned::to_owned),
                there: names.iter().map(|name| self.describe(name)).collect(),
            }),
            _ => Err(EmbeddingsError::Ambiguous {
                path: self.path.to_owned(),
                role,
                names: found.iter().map(|name| self.describe(name)).collect(),
            }),
        }
    }

    /// Returns an array's name, type and shape.
    fn describe(&mut self, name: &str) -> String {
        match self.container.header(name) {
            Ok(header) => format!("{name:?} {header}"),
            Err(found) => format!("{name:?} ({found})"),
        }
    }

    /// Checks before reading that a search can count the rows.
    pub(super) fn check_rows(&mut self, name: Option<&str>) -> Result<(), EmbeddingsError> {
        // A header that cannot be read is an error when the array is read.
        let Ok(header) = self.container.header(name.unwrap_or_default()) else { return Ok(()) };
        match header.shape.first() {
            Some(&rows) if u32::try_from(rows).is_err() => {
                Err(Problem::new(format!("{rows} rows"), format!("at most {}", u32::MAX)).of(self.path))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn array(&mut self, name: Option<&str>) -> Result<Array, EmbeddingsError> {
        let name = name.unwrap_or_default();
        self.container.array(name, self.most).map_err(|found| {
            let found = if name.is_empty() { found } else { format!("for {name:?} {found}") };
            Problem::new(found, ARRAYS).of(self.path)
        })
    }

    /// Reads the labels, or for [`Role::Sources`] the sources, which have the same form.
    pub(super) fn labels(
        &mut self,
        role: Role,
        asked: Option<&str>,
    ) -> Result<(Labels, ArrayOrigin), EmbeddingsError> {
        let name = self.find(role, asked)?;
        let array = self.array(name.as_deref())?;
        let labels = Labels::from_array(&array).map_err(|problem| problem.of(self.path))?;
        Ok((labels, ArrayOrigin::new(self.path, name, &array.header)))
    }
}
