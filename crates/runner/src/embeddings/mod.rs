//! Files of embeddings and labels: those that a run writes for each split, and those of other programs.
//!
//! A run writes safetensors with `embeddings` (n, D; f32) and `labels` (n; u32), in the order of the split.
//! [`read`] accepts any safetensors, numpy's archives (`numpy.savez(FILE, embeddings=..., labels=...)`),
//! numpy's plain files and columns of Parquet, with the labels in the same file or in another. The bytes of a file decide its
//! format, not its name. Only the arrays that are needed are read; others in the file may hold anything.

mod array;
mod container;
mod error;
mod file;
mod in_memory;
mod labels;
mod numpy;
mod origin;
mod parquet;
mod problem;
mod rows;

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Serialize;

use crate::checkpoint::{self, CheckpointError};
use crate::memory;
use crate::methods::Features;
use array::{Array, Shape};
use file::{ArrayFile, EMBEDDINGS, LABELS, open};
use problem::Problem;

pub use error::{EmbeddingsError, Role};
pub use file::{EMBEDDING_NAMES, LABEL_NAMES, SOURCE_NAMES};
pub use in_memory::InMemory;
pub use labels::{Classes, ClassesError, Labels};
pub use origin::{ArrayOrigin, Origin};
pub(crate) use parquet::{add_word, digest_key};
pub use rows::{RowFacts, Scaling};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fuzzing::read_every_array;

/// Where to find embeddings and their labels.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file of embeddings.
    pub file: &'a Path,
    /// The name of the array of embeddings; `None` for one of [`EMBEDDING_NAMES`].
    pub name: Option<&'a str>,
    /// The file of labels; `None` if the labels are in `file`.
    pub labels: Option<&'a Path>,
    /// The name of the array of labels; `None` for one of [`LABEL_NAMES`].
    pub label_name: Option<&'a str>,
    /// How the rows are scaled.
    pub scaling: Scaling,
}

impl<'a> Source<'a> {
    /// Returns the source for a file that holds both arrays under their usual names; its rows are not scaled.
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
    /// The arrays that were read.
    pub origin: Origin,
    /// Facts about the rows.
    pub facts: RowFacts,
}

/// Writes the embeddings of one split, whole or not at all. The file keeps `content` as JSON.
///
/// # Errors
/// Returns an error if the file system refuses.
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
/// Returns an error that names the file, what was found and what was expected.
pub fn read(source: &Source) -> Result<Embedded, EmbeddingsError> {
    let most = memory::free().unwrap_or(u64::MAX);
    let mut file = ArrayFile::open(source.file, most)?;
    let name = file.find(Role::Embeddings, source.name)?;
    file.check_rows(name.as_deref())?;
    let array = file.array(name.as_deref())?;
    let (labels, label_origin) = match source.labels {
        Some(path) => read_labels(path, Role::Labels, source.label_name, most)?,
        None if file.has_one_array() => {
            return Err(EmbeddingsError::NoLabels { path: source.file.to_owned() });
        }
        None => file.labels(Role::Labels, source.label_name)?,
    };
    let origin = Origin {
        embeddings: ArrayOrigin::new(source.file, name.clone(), &array.header),
        labels: label_origin,
    };
    embedded(&array, labels, origin, source.scaling)
}

/// Takes embeddings and their labels from memory: as [`read`] does from a file of the same arrays, to the bit.
///
/// # Errors
/// Returns an error that names the array, what was found and what was expected.
pub fn take(
    embeddings: InMemory<'_>,
    labels: InMemory<'_>,
    scaling: Scaling,
) -> Result<Embedded, EmbeddingsError> {
    let path = Path::new(embeddings.name);
    let array = embeddings.array().map_err(|problem| problem.of(path))?;
    let (labels, label_origin) = take_labels(labels)?;
    let origin = Origin { embeddings: ArrayOrigin::new(path, None, &array.header), labels: label_origin };
    embedded(&array, labels, origin, scaling)
}

/// Takes labels, or the sources of rows, from memory: as a file of the same array gives them.
///
/// # Errors
/// Returns an error that names the array, what was found and what was expected.
pub fn take_labels(labels: InMemory<'_>) -> Result<(Labels, ArrayOrigin), EmbeddingsError> {
    let path = Path::new(labels.name);
    let array = labels.array().map_err(|problem| problem.of(path))?;
    let labels = Labels::from_array(&array).map_err(|problem| problem.of(path))?;
    Ok((labels, ArrayOrigin::new(path, None, &array.header)))
}

/// Returns the rows of `array` with their labels.
fn embedded(
    array: &Array,
    labels: Labels,
    origin: Origin,
    scaling: Scaling,
) -> Result<Embedded, EmbeddingsError> {
    let path = &origin.embeddings.file;
    let rows = array.header.shape.first().copied().unwrap_or(1);
    if labels.len() != rows && array.header.shape.len() > 1 {
        return Err(EmbeddingsError::Counts {
            path: path.clone(),
            rows,
            shape: Shape(&array.header.shape).to_string(),
            label_path: origin.labels.file.clone(),
            labels: labels.len(),
            label_shape: Shape(&origin.labels.shape).to_string(),
        });
    }
    let (features, facts) = rows::rows(array, scaling).map_err(|problem| problem.of(path))?;
    Ok(Embedded { features, labels, origin, facts })
}

/// Reads the source of each row, a number or a word, from the file `given`, in the formats of labels. If there is no
/// such file, `given` is the name of an array in the file of `embeddings`.
///
/// # Errors
/// Returns an error that names the file, what was found and what was expected.
pub fn read_sources(embeddings: &Path, given: &str) -> Result<(Labels, ArrayOrigin), EmbeddingsError> {
    let most = memory::free().unwrap_or(u64::MAX);
    let is_file = Path::new(given).is_file();
    if is_file && ArrayFile::open(embeddings, most).is_ok_and(|file| file.has(given)) {
        let found = format!("an array {given:?}, and beside it there is a file of that name");
        let expected = format!("one of them; ./{given} names the file, and without it the array is read");
        return Err(Problem::new(found, expected).of(embeddings));
    }
    if is_file {
        return read_labels(Path::new(given), Role::Sources, None, most);
    }
    let mut file = ArrayFile::open(embeddings, most)?;
    if file.has_one_array() {
        let found = format!("one array without a name, and there is no file {given}");
        let expected = format!("a file {given} with the source of each row, or an array of that name");
        return Err(Problem::new(found, expected).of(embeddings));
    }
    file.labels(Role::Sources, Some(given))
}

/// Reads a file of labels or sources: an array, or text with one label a line.
fn read_labels(
    path: &Path,
    role: Role,
    name: Option<&str>,
    most: u64,
) -> Result<(Labels, ArrayOrigin), EmbeddingsError> {
    match ArrayFile::open(path, most) {
        Ok(mut file) => file.labels(role, name),
        Err(error @ EmbeddingsError::Read { .. }) => Err(error),
        Err(error) => {
            // The file holds no arrays, so it may be text. If it is neither, `error` says what its first
            // bytes are.
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

#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing {
    use std::io::Cursor;

    use super::array::Array;
    use super::container::Container;

    /// The name of an array, with the array or the reason why it cannot be read.
    pub(crate) type Named = (String, Result<Array, String>);

    /// Reads every array of a file that is in memory; at most `most` bytes of each.
    ///
    /// # Errors
    /// Returns what was found instead of a file of arrays.
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
