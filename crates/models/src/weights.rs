//! Weights on disk: safetensors both ways, PyTorch's `.pth` for reading.
//!
//! Files hold PyTorch's names and layouts. A convolution is (C_out, C_in, K, K) there and (K, K, C_in, C_out) in memory.

use candle_core::{Result, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What loading weights did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Entries of the network that were filled.
    pub loaded: usize,
    /// Entries of the file that the network has no use for, in alphabetical order.
    pub left_over: Vec<String>,
}

/// Why weights could not be read, written or taken up.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The file cannot be opened.
    #[error("failed to open {path}: {source}; give the path of a .safetensors or .pth file")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file's content is not what its name says.
    #[error("failed to read {path}: {source}; the file is damaged or of another kind (expected {expected}): fetch or save it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What such a file holds.
        expected: &'static str,
        /// What went wrong.
        source: candle_core::Error,
    },
    /// The file's name says nothing known.
    #[error("failed to read {path}: found the ending {found:?}, expected .safetensors, .pth or .pt")]
    Ending {
        /// The file.
        path: PathBuf,
        /// Its ending.
        found: String,
    },
    /// Entries are missing or have another shape.
    #[error("the weights do not fit this network; missing: {}; of another shape: {}; check model.depth, model.width and model.embedding", list(.missing), list(.misshapen))]
    Mismatch {
        /// Names that the file lacks.
        missing: Vec<String>,
        /// `name: found shape, expected shape`.
        misshapen: Vec<String>,
    },
    /// Writing failed.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: candle_core::Error,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// At most five entries, and how many more there are.
fn list(entries: &[String]) -> String {
    const SHOWN: usize = 5;
    match entries.len() {
        0 => "none".into(),
        n if n <= SHOWN => entries.join(", "),
        n => format!("{}, and {} more", entries[..SHOWN].join(", "), n - SHOWN),
    }
}

/// Reads all tensors of a `.safetensors`, `.pth` or `.pt` file.
///
/// A `.pth` may hold the state dict itself or, as the official code saves it, a dictionary with one under `net`, `state_dict` or
/// `model`.
///
/// # Errors
/// If the file is missing, damaged or of another kind.
pub fn read_weights(path: &Path) -> std::result::Result<HashMap<String, Tensor>, WeightError> {
    std::fs::File::open(path).map_err(|source| WeightError::Open { path: path.into(), source })?;
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match ending {
        "safetensors" => candle_core::safetensors::load(path, &candle_core::Device::Cpu)
            .map_err(|source| WeightError::Damaged { path: path.into(), expected: "safetensors", source }),
        "pth" | "pt" => read_pth(path),
        found => Err(WeightError::Ending { path: path.into(), found: found.into() }),
    }
}

fn read_pth(path: &Path) -> std::result::Result<HashMap<String, Tensor>, WeightError> {
    let mut first_error = None;
    for key in [None, Some("net"), Some("state_dict"), Some("model")] {
        match candle_core::pickle::read_all_with_key(path, key) {
            Ok(tensors) if !tensors.is_empty() => return Ok(tensors.into_iter().collect()),
            Ok(_) => {}
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    let source = first_error.unwrap_or_else(|| candle_core::Error::Msg("it holds no tensors".into()));
    Err(WeightError::Damaged { path: path.into(), expected: "a state dict saved by torch.save", source })
}

/// Writes tensors as safetensors. The caller renames into place: see the runner's atomic writes.
///
/// # Errors
/// If the file cannot be written.
pub fn write_weights(path: &Path, tensors: &[(String, Tensor)]) -> std::result::Result<(), WeightError> {
    let map: HashMap<String, Tensor> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&map, path).map_err(|source| WeightError::Write { path: path.into(), source })
}

/// A parameter or gradient as PyTorch lays it out.
pub(crate) fn to_pytorch_layout(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.detach();
    if tensor.rank() == 4 { tensor.permute((3, 2, 0, 1))?.contiguous() } else { tensor.copy() }
}

/// A parameter of PyTorch's as it lies in memory here.
pub(crate) fn to_our_layout(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 4 { tensor.permute((2, 3, 1, 0))?.contiguous() } else { Ok(tensor.clone()) }
}
