//! Checkpoints that a kill at any moment leaves whole, and from which a run goes on bit for bit as if never stopped.
//!
//! A run keeps three files:
//!
//! ```text
//! last.state.safetensors   everything needed to go on: weights, momentum, method state, position, measurements so far
//! last.safetensors         the same weights alone, under PyTorch's names and layouts, for whoever wants to use them
//! best.safetensors         the weights of the best epoch so far, likewise
//! ```
//!
//! The rename of `last.state.safetensors` is the one commit. `best` is renamed before it: a kill between the two leaves a `best`
//! of an epoch that the resumed run trains again, to the same bytes. `last` is renamed after it and is only ever derived from it,
//! so resuming writes it again. Hence no pair of files has to agree, and there is no order of kills to reason about beyond these
//! two. safetensors has no checksum of its own; each file carries a BLAKE3 digest of all its tensors and its header, so that a
//! damaged file is an error and never a silently different run.
//!
//! Files are byte-identical when their contents are: the header has a single metadata key, since several would be written
//! in the random order of a hash map.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The metadata key that holds the header, as JSON.
const KEY: &str = "invaspread";
/// Raised when a later version could not read what this one writes.
const FORMAT: u32 = 1;

/// Tensors by name, in a fixed order.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("failed to {action} checkpoint {path}: {source}; the checkpoint before it is still whole", path = path.display())]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is there but is not what was written.
    #[error(
        "checkpoint {path} is damaged: {found}; expected a safetensors file as this program writes it. Delete the run's folder \
         {folder} to train this run from the start, or put back an intact copy of the file",
        path = path.display(), folder = path.parent().and_then(Path::parent).unwrap_or(path).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// The file is whole, but of another run, network or method.
    #[error(
        "checkpoint {path} does not fit this run: {found}; expected {expected}. It was copied here from another run, or the \
         program that wrote it was another version: delete the run's folder to train this run from the start",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        found: String,
        /// What this run needs.
        expected: String,
    },
    /// A tensor could not be copied out of or into candle.
    #[error("failed to copy tensors of checkpoint {path}: {source}", path = path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// What candle said.
        source: candle_core::Error,
    },
}

/// The three files of a run.
#[derive(Debug, Clone)]
pub struct CheckpointFiles {
    folder: PathBuf,
}

impl CheckpointFiles {
    /// The checkpoints of the run in `folder` (its `checkpoints` folder).
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Everything needed to resume.
    pub fn state(&self) -> PathBuf {
        self.folder.join("last.state.safetensors")
    }

    /// The weights that `state` holds, alone.
    pub fn last(&self) -> PathBuf {
        self.folder.join("last.safetensors")
    }

    /// The weights of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }
}

/// What a file says about itself besides its tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// `content` as JSON text, so that it is digested as the bytes it was written as.
    content: String,
    digest: String,
}

/// Writes `tensors` and `content` under a temporary name, flushes, and renames to `path`.
///
/// # Errors
/// If the file system refuses; whatever was at `path` before is then still there.
pub fn write<T: Serialize>(path: &Path, tensors: &NamedTensors, content: &T) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::Io { action: "write", path: path.to_path_buf(), source };
    let content = serde_json::to_string(content).map_err(|e| io(e.into()))?;
    let mut stored = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Stored::from_tensor(tensor)?)))
        .collect::<candle_core::Result<Vec<_>>>()
        .map_err(|source| CheckpointError::Tensor { path: path.to_path_buf(), source })?;
    stored.sort_by_key(|&(name, _)| name);
    let views = stored
        .iter()
        .map(|(name, s)| Ok((*name, TensorView::new(s.dtype, s.shape.clone(), &s.bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .map_err(|e| io(std::io::Error::other(e.to_string())))?;
    let digest = digest(&content, views.iter().map(|(name, view)| (*name, view)));
    let header = Header { format: FORMAT, content, digest };
    let header = serde_json::to_string(&header).map_err(|e| io(e.into()))?;
    let bytes = safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), header)])))
        .map_err(|e| io(std::io::Error::other(e.to_string())))?;
    crate::record::write_atomically(path, &bytes).map_err(io)
}

/// Reads what [`write()`] wrote: the tensors by name, and the content.
///
/// # Errors
/// If the file cannot be read, is damaged in any byte that matters, or is of another format.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(HashMap<String, Tensor>, T), CheckpointError> {
    let damaged = |found: String| CheckpointError::Damaged { path: path.to_path_buf(), found };
    let bytes = fs_err::read(path).map_err(|source| CheckpointError::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| damaged(format!("{} bytes that are no safetensors file ({e})", bytes.len())))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
    let header =
        metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| CheckpointError::Foreign {
            path: path.to_path_buf(),
            found: format!("a safetensors file without the `{KEY}` header"),
            expected: "one that this program wrote".to_owned(),
        })?;
    let header: Header =
        serde_json::from_str(header).map_err(|e| damaged(format!("a header that cannot be read ({e})")))?;
    if header.format != FORMAT {
        return Err(CheckpointError::Foreign {
            path: path.to_path_buf(),
            found: format!("checkpoint format {}", header.format),
            expected: format!("format {FORMAT}"),
        });
    }
    let mut views = file.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let found = digest(&header.content, views.iter().map(|(name, view)| (name.as_str(), view)));
    if found != header.digest {
        return Err(damaged(format!(
            "its contents have BLAKE3 digest {found}, not {} as it says",
            header.digest
        )));
    }
    let content = serde_json::from_str(&header.content)
        .map_err(|e| damaged(format!("a header whose content cannot be read ({e})")))?;
    let tensors = views
        .into_iter()
        .map(|(name, view)| Ok((name, to_tensor(&view)?)))
        .collect::<candle_core::Result<_>>()
        .map_err(|source| CheckpointError::Tensor { path: path.to_path_buf(), source })?;
    Ok((tensors, content))
}

/// Digest of names, types, shapes and bytes in the order given, and of `content`. Every part is preceded by its length.
fn digest<'a>(content: &str, tensors: impl Iterator<Item = (&'a str, &'a TensorView<'a>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(content.as_bytes());
    for (name, view) in tensors {
        part(name.as_bytes());
        part(format!("{:?} {:?}", view.dtype(), view.shape()).as_bytes());
        part(view.data());
    }
    hasher.finalize().to_hex().to_string()
}

/// A tensor as little-endian bytes.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn from_tensor(tensor: &Tensor) -> candle_core::Result<Self> {
        let flat = tensor.flatten_all()?;
        let (dtype, bytes) = match tensor.dtype() {
            DType::F32 => {
                (Dtype::F32, flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect())
            }
            DType::F64 => {
                (Dtype::F64, flat.to_vec1::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect())
            }
            DType::U32 => {
                (Dtype::U32, flat.to_vec1::<u32>()?.into_iter().flat_map(u32::to_le_bytes).collect())
            }
            DType::I64 => {
                (Dtype::I64, flat.to_vec1::<i64>()?.into_iter().flat_map(i64::to_le_bytes).collect())
            }
            other => candle_core::bail!("a checkpoint holds F32, F64, U32 and I64 tensors, not {other:?}"),
        };
        Ok(Self { dtype, shape: tensor.dims().to_vec(), bytes })
    }
}

fn to_tensor(view: &TensorView<'_>) -> candle_core::Result<Tensor> {
    fn elements<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect()
    }
    let (bytes, shape) = (view.data(), view.shape());
    match view.dtype() {
        Dtype::F32 => Tensor::from_vec(elements(bytes, f32::from_le_bytes), shape, &Device::Cpu),
        Dtype::F64 => Tensor::from_vec(elements(bytes, f64::from_le_bytes), shape, &Device::Cpu),
        Dtype::U32 => Tensor::from_vec(elements(bytes, u32::from_le_bytes), shape, &Device::Cpu),
        Dtype::I64 => Tensor::from_vec(elements(bytes, i64::from_le_bytes), shape, &Device::Cpu),
        other => candle_core::bail!("a checkpoint holds F32, F64, U32 and I64 tensors, not {other:?}"),
    }
}

/// Takes the tensors whose names start with `prefix` out of `tensors`, without the prefix.
pub(crate) fn take_prefixed(tensors: &mut HashMap<String, Tensor>, prefix: &str) -> HashMap<String, Tensor> {
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| tensors.remove(&name).map(|tensor| (name[prefix.len()..].to_owned(), tensor)))
        .collect()
}

/// `tensors` with `prefix` before each name.
pub(crate) fn prefixed(prefix: &str, tensors: NamedTensors) -> impl Iterator<Item = (String, Tensor)> {
    tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{CheckpointError, NamedTensors, read, write};
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    fn example() -> NamedTensors {
        let device = &Device::Cpu;
        vec![
            (
                "weights/conv1.weight".to_owned(),
                Tensor::from_vec(vec![1.5_f32, -0.0, f32::NAN, 1e-42], (2, 2), device).unwrap(),
            ),
            ("weights/bn1.num_batches_tracked".to_owned(), Tensor::new(7_i64, device).unwrap()),
            ("method/assignments".to_owned(), Tensor::new(&[3_u32, u32::MAX], device).unwrap()),
            ("method/normalizer".to_owned(), Tensor::new(&[0.1_f64 + 0.2], device).unwrap()),
        ]
    }

    #[test]
    fn what_was_written_is_read_bit_for_bit_and_equal_contents_are_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        write(&a, &example(), &("epoch", 3)).unwrap();
        let mut reversed = example();
        reversed.reverse();
        write(&b, &reversed, &("epoch", 3)).unwrap();
        assert_eq!(fs_err::read(&a).unwrap(), fs_err::read(&b).unwrap());
        let (tensors, content): (_, (String, i32)) = read(&a).unwrap();
        assert_eq!(content, ("epoch".to_owned(), 3));
        assert_eq!(tensors.len(), 4);
        let weights = tensors["weights/conv1.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(
            weights.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            [1.5_f32, -0.0, f32::NAN, 1e-42].map(f32::to_bits)
        );
        assert_eq!(tensors["weights/bn1.num_batches_tracked"].to_scalar::<i64>().unwrap(), 7);
        assert_eq!(tensors["method/normalizer"].dtype(), DType::F64);
        assert_eq!(tensors["method/assignments"].to_vec1::<u32>().unwrap(), [3, u32::MAX]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Any flipped bit and any truncation is noticed, and the message names the file and says what to do.
        #[test]
        fn damage_anywhere_is_an_error(at in 0.0f64..1.0, bit in 0u8..8, cut: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("last.state.safetensors");
            write(&path, &example(), &"content").unwrap();
            let mut bytes = fs_err::read(&path).unwrap();
            let at = (at * bytes.len() as f64) as usize;
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            fs_err::write(&path, bytes).unwrap();
            let error = read::<String>(&path).unwrap_err();
            prop_assert!(matches!(error, CheckpointError::Damaged { .. } | CheckpointError::Foreign { .. }), "{error}");
            let message = error.to_string();
            prop_assert!(message.contains("last.state.safetensors") && message.contains("elete"), "{message}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_checkpoint_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        write(&path, &example(), &1).unwrap();
        let before = fs_err::read(&path).unwrap();
        let unsupported = vec![("x".to_owned(), Tensor::zeros(2, DType::F16, &Device::Cpu).unwrap())];
        assert!(write(&path, &unsupported, &2).is_err());
        assert_eq!(fs_err::read(&path).unwrap(), before);
        let missing = folder.path().join("missing").join("last.safetensors");
        let message = write(&missing, &example(), &1).unwrap_err().to_string();
        assert!(message.contains("missing") && message.contains("write"), "{message}");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
