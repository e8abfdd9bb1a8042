//! Files of embeddings and labels: what a run leaves of each split, and what people bring from elsewhere.
//!
//! A run's are safetensors with `embeddings` (n, D; f32) and `labels` (n; u32), in the order of the split. Read are any safetensors, numpy's
//! archives (`numpy.savez(FILE, embeddings=..., labels=...)`) and its plain files, with labels beside them or in a file of their own. What a
//! file is, its bytes say. Only the arrays that are asked for are read; others beside them may hold anything.

mod array;
mod container;
mod error;
mod free_memory;
mod labels;
mod numpy;
mod rows;

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::Serialize;

use crate::checkpoint::{self, CheckpointError};
use crate::methods::Features;
use array::{Array, Header, Shape};
use container::Container;
use free_memory::free_memory;

pub use error::{EmbeddingsError, Role};
pub use labels::{Classes, ClassesError, Labels};
pub use rows::{RowFacts, Scaling};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fuzzing::read_every_array;

const EMBEDDINGS: &str = "embeddings";
const LABELS: &str = "labels";

/// What arrays of embeddings are called. The first wins; of the others a file must have one alone.
pub const EMBEDDING_NAMES: [&str; 10] =
    [EMBEDDINGS, "embedding", "embeds", "embs", "emb", "features", "feature", "feats", "feat", "X"];
/// What arrays of labels are called, likewise.
pub const LABEL_NAMES: [&str; 6] = [LABELS, "label", "targets", "target", "y", "Y"];

/// Where embeddings and their labels are.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file of embeddings.
    pub file: &'a Path,
    /// The name of their array in it; looked for under [`EMBEDDING_NAMES`] if none is given.
    pub name: Option<&'a str>,
    /// The file of labels, if it is another one.
    pub labels: Option<&'a Path>,
    /// The name of their array; looked for under [`LABEL_NAMES`] if none is given.
    pub label_name: Option<&'a str>,
    /// What is done to the rows.
    pub scaling: Scaling,
}

impl<'a> Source<'a> {
    /// A file that holds both under their usual names, its rows as they are.
    pub fn of(file: &'a Path) -> Self {
        Self { file, name: None, labels: None, label_name: None, scaling: Scaling::Unscaled }
    }
}

/// Embeddings of images, and the images' classes.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// n rows.
    pub features: Features,
    /// n labels.
    pub labels: Labels,
    /// Where they came from.
    pub origin: Origin,
    /// What was seen of the rows.
    pub facts: RowFacts,
}

/// Which arrays were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The embeddings'.
    pub embeddings: ArrayOrigin,
    /// The labels'.
    pub labels: ArrayOrigin,
}

/// An array that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArrayOrigin {
    /// The file.
    pub file: PathBuf,
    /// Its name in the file, if it has one.
    pub name: Option<String>,
    /// The type of its elements, as numpy prints it.
    #[serde(rename = "type")]
    pub element: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl ArrayOrigin {
    fn new(file: &Path, name: Option<String>, header: &Header) -> Self {
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

/// What was found, and what should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    found: String,
    expected: String,
}

impl Problem {
    fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }

    fn of(self, path: &Path) -> EmbeddingsError {
        EmbeddingsError::Content { path: path.to_owned(), found: self.found, expected: self.expected }
    }
}

/// Writes one split's embeddings, whole or not at all. `content` is kept beside them as JSON.
///
/// # Errors
/// If the file system refuses.
pub fn write<T: Serialize>(
    path: &Path,
    features: &Features,
    labels: &[u32],
    content: &T,
) -> Result<(), CheckpointError> {
    let tensor = |source| CheckpointError::Tensor { path: path.to_path_buf(), source: Box::new(source) };
    let rows = features.values.len() / features.dim;
    let embeddings =
        Tensor::from_slice(&features.values, (rows, features.dim), &Device::Cpu).map_err(tensor)?;
    let labels = Tensor::from_slice(labels, labels.len(), &Device::Cpu).map_err(tensor)?;
    checkpoint::write(path, &vec![(EMBEDDINGS.to_owned(), embeddings), (LABELS.to_owned(), labels)], content)
}

/// Reads embeddings and their labels.
///
/// # Errors
/// Names the file, what was found, and what was expected.
pub fn read(source: &Source) -> Result<Embedded, EmbeddingsError> {
    let most = free_memory().unwrap_or(u64::MAX);
    let mut file = ArrayFile::open(source.file, most)?;
    let name = file.find(Role::Embeddings, source.name)?;
    file.check_rows(name.as_deref())?;
    let array = file.array(name.as_deref())?;
    let (labels, label_origin) = match source.labels {
        Some(path) => read_labels(path, source.label_name, most)?,
        None if file.has_one_array() => {
            return Err(EmbeddingsError::NoLabels { path: source.file.to_owned() });
        }
        None => file.labels(source.label_name)?,
    };
    let origin = Origin {
        embeddings: ArrayOrigin::new(source.file, name.clone(), &array.header),
        labels: label_origin,
    };
    let rows = array.header.shape.first().copied().unwrap_or(1);
    if labels.len() != rows && array.header.shape.len() > 1 {
        return Err(EmbeddingsError::Counts {
            path: source.file.to_owned(),
            rows,
            shape: Shape(&array.header.shape).to_string(),
            label_path: origin.labels.file,
            labels: labels.len(),
            label_shape: Shape(&origin.labels.shape).to_string(),
        });
    }
    let (features, facts) = rows::rows(&array, source.scaling).map_err(|problem| problem.of(source.file))?;
    Ok(Embedded { features, labels, origin, facts })
}

/// Reads a file of labels: an array, or a text with one a line.
fn read_labels(path: &Path, name: Option<&str>, most: u64) -> Result<(Labels, ArrayOrigin), EmbeddingsError> {
    match ArrayFile::open(path, most) {
        Ok(mut file) => file.labels(name),
        Err(error @ EmbeddingsError::Read { .. }) => Err(error),
        Err(error) => {
            // No file of arrays: perhaps a text. If it is neither, the error says what its first bytes are.
            let (file, length) = open(path)?;
            if length > most {
                return Err(error);
            }
            let labels = Labels::from_text(file).map_err(|problem| problem.of(path))?.ok_or(error)?;
            let (element, shape) = ("text".to_owned(), vec![labels.len()]);
            Ok((labels, ArrayOrigin { file: path.to_owned(), name: None, element, shape }))
        }
    }
}

/// Opens a regular file. Anything else could have no end, or nobody at its other end.
fn open(path: &Path) -> Result<(File, u64), EmbeddingsError> {
    let failed = |source| EmbeddingsError::Read { path: path.to_owned(), source };
    // Asked before it is opened, as opening a pipe waits for somebody who writes.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a pipe, a device or a socket" };
        return Err(Problem::new(found, "a file").of(path));
    }
    Ok((File::open(path).map_err(failed)?, metadata.len()))
}

/// A file of arrays with its path, for what is said of it.
struct ArrayFile<'a> {
    path: &'a Path,
    container: Container<File>,
    /// Bytes that may be held.
    most: u64,
}

impl<'a> ArrayFile<'a> {
    fn open(path: &'a Path, most: u64) -> Result<Self, EmbeddingsError> {
        let (file, length) = open(path)?;
        let container =
            Container::open(file, length, most).map_err(|found| Problem::new(found, FILES).of(path))?;
        Ok(Self { path, container, most })
    }

    /// Whether it holds one array, without a name.
    fn has_one_array(&self) -> bool {
        matches!(self.container, Container::Npy { .. })
    }

    /// Finds the name of the array for `role`: the one that is asked for or, without one, a usual one. None where the only array has no name.
    fn find(&mut self, role: Role, asked: Option<&str>) -> Result<Option<String>, EmbeddingsError> {
        if self.has_one_array() {
            return Ok(None);
        }
        let names = self.container.names();
        let usual = match role {
            Role::Embeddings => &EMBEDDING_NAMES[..],
            Role::Labels => &LABEL_NAMES[..],
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

    /// An array's name, type and shape.
    fn describe(&mut self, name: &str) -> String {
        match self.container.header(name) {
            Ok(header) => format!("{name:?} {header}"),
            Err(found) => format!("{name:?} ({found})"),
        }
    }

    /// Compares the number of rows with how many a search counts, before any is read.
    fn check_rows(&mut self, name: Option<&str>) -> Result<(), EmbeddingsError> {
        // A header that cannot be read is told when the array is.
        let Ok(header) = self.container.header(name.unwrap_or_default()) else { return Ok(()) };
        match header.shape.first() {
            Some(&rows) if u32::try_from(rows).is_err() => {
                Err(Problem::new(format!("{rows} rows"), format!("at most {}", u32::MAX)).of(self.path))
            }
            _ => Ok(()),
        }
    }

    fn array(&mut self, name: Option<&str>) -> Result<Array, EmbeddingsError> {
        let name = name.unwrap_or_default();
        self.container.array(name, self.most).map_err(|found| {
            let found = if name.is_empty() { found } else { format!("for {name:?} {found}") };
            Problem::new(found, ARRAYS).of(self.path)
        })
    }

    fn labels(&mut self, asked: Option<&str>) -> Result<(Labels, ArrayOrigin), EmbeddingsError> {
        let name = self.find(Role::Labels, asked)?;
        let array = self.array(name.as_deref())?;
        let labels = Labels::from_array(&array).map_err(|problem| problem.of(self.path))?;
        Ok((labels, ArrayOrigin::new(self.path, name, &array.header)))
    }
}

const FILES: &str = "a whole .npz or .npy file of numpy's, or safetensors";
const ARRAYS: &str = "numbers or words, whole, that fit in memory";

#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing {
    use std::io::Cursor;

    use super::array::Array;
    use super::container::Container;

    /// An array's name, and the array or why it cannot be read.
    pub(crate) type Named = (String, Result<Array, String>);

    /// Reads every array of a file that is in memory, as far as each can be. Returns what came of each.
    ///
    /// # Errors
    /// Says what was found in place of a file of arrays.
    pub(crate) fn read_every_array(file: &[u8], most: u64) -> Result<Vec<Named>, String> {
        let mut container = Container::open(Cursor::new(file), file.len() as u64, most)?;
        let mut names = container.names();
        if matches!(container, Container::Npy { .. }) {
            names.push(String::new());
        }
        Ok(names
            .into_iter()
            .map(|name| {
                let array = container.array(&name, most);
                (name, array)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
