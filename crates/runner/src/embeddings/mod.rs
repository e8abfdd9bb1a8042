//! Files of embeddings and labels: what a run leaves of each split, and what people bring from elsewhere.
//!
//! A run's are safetensors with `embeddings` (n, D; f32) and `labels` (n; u32), in the order of the split. Read are also numpy's archives
//! (`numpy.savez(FILE, embeddings=..., labels=...)`) and pairs of its plain files, with numbers of any type; labels are any whole numbers.

mod numpy;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use invaspread_models::{WeightError, read_weights};

use crate::checkpoint::{self, CheckpointError};
use crate::methods::Features;
use numpy::Array;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use numpy::{read_npy, read_npz};

const EMBEDDINGS: &str = "embeddings";
const LABELS: &str = "labels";

/// Embeddings of images, and the images' classes.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// n rows.
    pub features: Features,
    /// n classes, in any numbering.
    pub labels: Vec<i64>,
}

/// Why a file of embeddings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingsError {
    /// It cannot be opened.
    #[error("failed to read {path}: {source}; give a file of embeddings and labels")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Its bytes are not what its name says.
    #[error(transparent)]
    Safetensors(Box<WeightError>),
    /// It holds something else.
    #[error("failed to read {path}: found {found}, expected {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
}

/// Writes one split's embeddings, whole or not at all. `content` is kept beside them as JSON.
///
/// # Errors
/// If the file system refuses.
pub fn write<T: serde::Serialize>(
    path: &Path,
    features: &Features,
    labels: &[u32],
    content: &T,
) -> Result<(), CheckpointError> {
    let tensor = |source| CheckpointError::Tensor { path: path.to_path_buf(), source };
    let rows = features.values.len() / features.dim;
    let embeddings =
        Tensor::from_slice(&features.values, (rows, features.dim), &Device::Cpu).map_err(tensor)?;
    let labels = Tensor::from_slice(labels, labels.len(), &Device::Cpu).map_err(tensor)?;
    checkpoint::write(path, &vec![(EMBEDDINGS.to_owned(), embeddings), (LABELS.to_owned(), labels)], content)
}

/// Reads a `.safetensors` or `.npz` file that holds `embeddings` and `labels`, or two `.npy` files.
///
/// # Errors
/// Names the file, what was found, and what was expected.
pub fn read(path: &Path, labels: Option<&Path>) -> Result<Embedded, EmbeddingsError> {
    let content = |path: &Path, found: String, expected| EmbeddingsError::Content {
        path: path.to_path_buf(),
        found,
        expected,
    };
    let bytes = |path: &Path| {
        std::fs::read(path).map_err(|source| EmbeddingsError::Read { path: path.to_path_buf(), source })
    };
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if ending != "npy" && labels.is_some() {
        let found = "a file of labels beside it".to_owned();
        return Err(content(path, found, "embeddings in a .npy file, or no other file of labels"));
    }
    let (features, labels, labels_path) = match ending {
        "safetensors" => {
            let tensors =
                read_weights(path).map_err(|error| EmbeddingsError::Safetensors(Box::new(error)))?;
            let named = |name: &str| {
                tensors.get(name).ok_or_else(|| content(path, format!("no {name:?}"), BOTH_SAFETENSORS))
            };
            let told = |error: candle_core::Error| content(path, error.to_string(), BOTH_SAFETENSORS);
            (features(named(EMBEDDINGS)?).map_err(told)?, numbers(named(LABELS)?).map_err(told)?, path)
        }
        "npz" => {
            let told = |found| content(path, found, BOTH_NPZ);
            let mut arrays = numpy::read_npz(&bytes(path)?).map_err(told)?;
            let mut named = |name: &str| {
                let place = arrays.iter().position(|(found, _)| found == name);
                place
                    .map(|place| arrays.swap_remove(place).1)
                    .ok_or_else(|| told(format!("no array {name:?}")))
            };
            let (embeddings, labels) = (named(EMBEDDINGS)?, named(LABELS)?);
            (matrix(embeddings).map_err(told)?, labels.into_integers().map_err(told)?, path)
        }
        "npy" => {
            let labels = labels.ok_or_else(|| {
                content(
                    path,
                    "no file of labels".into(),
                    "one more .npy file (--labels FILE, of a gallery --gallery-labels FILE)",
                )
            })?;
            let embeddings = numpy::read_npy(&bytes(path)?).and_then(matrix);
            let embeddings = embeddings.map_err(|found| content(path, found, MATRIX))?;
            let classes = numpy::read_npy(&bytes(labels)?).and_then(Array::into_integers);
            (embeddings, classes.map_err(|found| content(labels, found, CLASSES))?, labels)
        }
        other => {
            let found = format!("the ending {other:?}");
            return Err(content(path, found, "a .safetensors, .npz or .npy file"));
        }
    };
    let rows = features.values.len() / features.dim;
    if labels.len() != rows {
        let found = format!("{} labels of {rows} embeddings", labels.len());
        return Err(content(labels_path, found, "a label for each"));
    }
    Ok(Embedded { features, labels })
}

const BOTH_SAFETENSORS: &str = "`embeddings` (n, D) and `labels` (n), as a run writes them";
const BOTH_NPZ: &str = "what numpy.savez(FILE, embeddings=..., labels=...) writes of (n, D) and (n) numbers";
const MATRIX: &str = "what numpy.save writes of (n, D) numbers";
const CLASSES: &str = "what numpy.save writes of n whole numbers";

fn matrix(array: Array) -> Result<Features, String> {
    match array.shape[..] {
        [_, dim] if dim > 0 => Ok(Features { values: array.into_floats(), dim }),
        ref shape => Err(format!("embeddings of the shape {shape:?}")),
    }
}

fn features(tensor: &Tensor) -> candle_core::Result<Features> {
    let (_, dim) = tensor.dims2()?;
    if dim == 0 {
        candle_core::bail!("embeddings of no numbers")
    }
    Ok(Features { values: tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?, dim })
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<i64>> {
    if !tensor.dtype().is_int() {
        candle_core::bail!("labels of the type {:?}", tensor.dtype())
    }
    tensor.to_dtype(DType::I64)?.to_vec1()
}

/// Scales each row to length 1; rows of zeros stay.
pub fn scale_to_unit_length(features: &mut Features) {
    for row in features.values.chunks_exact_mut(features.dim) {
        let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            for value in row {
                *value = (f64::from(*value) / length) as f32;
            }
        }
    }
}

/// Numbers the classes of one or two sets of labels from 0, the smallest label first: the same label is the same class in both.
pub fn classes(test: &[i64], gallery: Option<&[i64]>) -> (Vec<u32>, Option<Vec<u32>>, usize) {
    let mut distinct: Vec<i64> = test.iter().chain(gallery.unwrap_or_default()).copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    // There are no more classes than labels in memory, of eight bytes each; more than 2^32 would take 32 GB.
    let class = |label: &i64| distinct.partition_point(|other| other < label) as u32;
    let number = |labels: &[i64]| labels.iter().map(class).collect::<Vec<_>>();
    (number(test), gallery.map(number), distinct.len())
}

#[cfg(test)]
mod tests;
