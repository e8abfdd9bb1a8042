//! Checkpoints. A kill at any moment leaves them whole, and a run resumed from one ends bit-identical to a
//! run that was never stopped.
//!
//! A run keeps three files:
//!
//! ```text
//! last.state.safetensors   all that a run resumes from: weights, momentum, method state, position, metrics
//! last.safetensors         only the same weights, under PyTorch's names and layouts, for other programs
//! best.safetensors         the weights of the best epoch so far, in the same form
//! ```
//!
//! They are written at the end of an epoch, once `runs.checkpoint_seconds` have passed since the last time,
//! and when the run ends or is stopped. A resumed run repeats the epochs since then, with the same results.
//! With 0 seconds they are written after each epoch, and the next epoch waits for them, so that a run that is
//! killed loses no epoch that it reported.
//!
//! The rename of `last.state.safetensors` is the commit. `best` is renamed before it: after a kill between
//! the two, `best` holds the weights of an epoch that the resumed run trains again, to the same bytes. `last`
//! is renamed after the state and derived from it, so a resumed run writes `last` again. No two files have to
//! agree, so a kill between any two writes does no harm. Each file carries a digest of its content
//! ([`invaspread_models::check_seal`]), which every reader compares.
//!
//! All three are written from a copy of the tensors in the host's memory, a `Snapshot`, so that training can
//! go on meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::f16;
use invaspread_models::{check_seal, write_sealed};
use invaspread_record::names;
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::HostCopy;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Tensors by name, in a fixed order.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Why a file of tensors could not be written or read: a checkpoint, exported weights, embeddings.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("failed to read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error(
        "failed to write {path}: {source}; {}{}", advice(source),
        if *.replaces { "; the file that was there before is still whole" } else { "" },
        path = path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
        /// Whether an older file of that name exists.
        replaces: bool,
    },
    /// The file does not hold what was written.
    #[error(
        "{path} is damaged: found {found}; expected a safetensors file as this program writes it. Put back an intact copy of the \
         file, or delete the run's folder {folder} to train this run from the start",
        path = path.display(), folder = path.parent().and_then(Path::parent).unwrap_or(path).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// The file is whole, but it belongs to another run, network or method.
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
    /// A tensor cannot be copied out of or into candle.
    #[error("failed to copy tensors of {path}: {source}", path = path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The error of candle.
        source: Box<candle_core::Error>,
    },
}

/// The paths of a run's three checkpoint files.
#[derive(Debug, Clone)]
pub struct CheckpointFiles {
    folder: PathBuf,
}

impl CheckpointFiles {
    /// Returns the paths of the checkpoints of the run in `folder`.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the path of the state, which holds everything needed to resume.
    pub fn state(&self) -> PathBuf {
        self.folder.join(names::LAST_STATE)
    }

    /// Returns the path of the weights that the state holds.
    pub fn last(&self) -> PathBuf {
        self.folder.join(names::LAST_WEIGHTS)
    }

    /// Returns the path of the weights of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.folder.join(names::BEST_WEIGHTS)
    }
}

/// Returns what to do when the file system refuses, in words that hold for every file of tensors.
fn advice(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::FileTooLarge => {
            "the file would be larger than this process or this disk allows: raise the limit (`ulimit -f`) or name a folder on another \
             disk, then give the same command again"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: free some space or name a folder on another disk, then give the same command again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "the folder cannot be written to: change its permissions or name another"
        }
        ErrorKind::NotADirectory => {
            "a file is where a folder was expected: move it away or name another folder"
        }
        ErrorKind::NotFound => "its folder does not exist: make it or check the path",
        _ => "check the disk and the path, or name another folder",
    }
}

/// Writes `tensors` and `content` to a temporary name, flushes the file and renames it to `path`.
///
/// # Errors
/// Returns an error if the file system refuses. An older file at `path` is then unchanged.
pub fn write<T: Serialize>(path: &Path, tensors: &NamedTensors, content: &T) -> Result<(), CheckpointError> {
    let copied = Snapshot::of(tensors, None)
        .map_err(|source| CheckpointError::Tensor { path: path.to_path_buf(), source: Box::new(source) })?;
    copied.write(path, "", content)
}

/// A copy of tensors in the host's memory, from which another thread may write files while the tensors
/// change.
///
/// Copies from a GPU go to page-locked memory and may still be in progress; only a read of the bytes waits
/// for them.
#[derive(Debug)]
pub(crate) struct Snapshot {
    entries: Vec<Entry>,
    #[cfg(feature = "cuda")]
    from_device: Option<HostCopy>,
}

/// A tensor of a snapshot.
#[derive(Debug)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// The little-endian bytes of a tensor.
#[derive(Debug)]
enum Bytes {
    Host(Vec<u8>),
    /// The number of the tensor among those that were copied from the device.
    #[cfg(feature = "cuda")]
    FromDevice(usize),
}

impl Snapshot {
    /// Copies tensors. The page-locked memory of `room`, an earlier snapshot, is used again.
    ///
    /// # Errors
    /// Returns an error if a tensor is of a type that checkpoints do not hold, or the device fails.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, clippy::needless_pass_by_value, reason = "only a device needs the room")
    )]
    pub(crate) fn of(tensors: &NamedTensors, room: Option<Self>) -> candle_core::Result<Self> {
        #[cfg(feature = "cuda")]
        let mut there: Vec<Tensor> = Vec::new();
        let mut entries = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let dtype = stored_type(tensor.dtype())?;
            #[cfg(feature = "cuda")]
            let bytes = if tensor.device().is_cuda() {
                there.push(tensor.contiguous()?);
                Bytes::FromDevice(there.len() - 1)
            } else {
                Bytes::Host(host_bytes(tensor)?)
            };
            #[cfg(not(feature = "cuda"))]
            let bytes = Bytes::Host(host_bytes(tensor)?);
            entries.push(Entry { name: name.clone(), dtype, shape: tensor.dims().to_vec(), bytes });
        }
        Ok(Self {
            entries,
            #[cfg(feature = "cuda")]
            from_device: if there.is_empty() {
                None
            } else {
                let all: Vec<&Tensor> = there.iter().collect();
                Some(HostCopy::begin(&all, room.and_then(|room| room.from_device))?)
            },
        })
    }

    /// Returns the first value that is not a finite number, with the name of its tensor.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub(crate) fn not_finite(&self) -> candle_core::Result<Option<(String, f64)>> {
        for (entry, bytes) in self.bytes()? {
            let found = match entry.dtype {
                Dtype::F32 => first_not_finite(bytes, |bytes| f32::from_le_bytes(bytes).into()),
                Dtype::F64 => first_not_finite(bytes, f64::from_le_bytes),
                Dtype::F16 => first_not_finite(bytes, |bytes| f16::from_le_bytes(bytes).into()),
                _ => None,
            };
            if let Some(found) = found {
                return Ok(Some((entry.name.clone(), found)));
            }
        }
        Ok(None)
    }

    /// Writes `content` and the tensors whose names begin with `prefix`, under their names without it, to a
    /// temporary name, flushes the file and renames it to `path`.
    ///
    /// # Errors
    /// Returns an error if the file system refuses or the device fails. An older file at `path` is then
    /// unchanged.
    pub(crate) fn write<T: Serialize>(
        &self,
        path: &Path,
        prefix: &str,
        content: &T,
    ) -> Result<(), CheckpointError> {
        let refused = |source| CheckpointError::Write {
            path: path.to_path_buf(),
            source,
            replaces: path.symlink_metadata().is_ok(),
        };
        let content = serde_json::to_string(content).map_err(|error| refused(error.into()))?;
        let all = self.bytes().map_err(|source| CheckpointError::Tensor {
            path: path.to_path_buf(),
            source: Box::new(source),
        })?;
        let views = all
            .into_iter()
            .filter_map(|(entry, bytes)| Some((entry.name.strip_prefix(prefix)?, entry, bytes)))
            .map(|(name, entry, bytes)| Ok((name, TensorView::new(entry.dtype, entry.shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, SafeTensorError>>()
            .map_err(|error| refused(std::io::Error::other(error.to_string())))?;
        let bytes = write_sealed(views, content).map_err(|error| refused(std::io::Error::other(error)))?;
        invaspread_record::write_atomically(path, &bytes).map_err(refused)
    }

    /// Returns the bytes of every tensor; waits for copies that are in progress.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(
            clippy::unnecessary_wraps,
            clippy::infallible_destructuring_match,
            reason = "a device can fail, and has bytes of its own"
        )
    )]
    fn bytes(&self) -> candle_core::Result<Vec<(&Entry, &[u8])>> {
        #[cfg(feature = "cuda")]
        let from_device = self.from_device.as_ref().map(HostCopy::bytes).transpose()?.unwrap_or_default();
        let mut all = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let bytes: &[u8] = match &entry.bytes {
                Bytes::Host(bytes) => bytes,
                #[cfg(feature = "cuda")]
                Bytes::FromDevice(number) => from_device[*number],
            };
            all.push((entry, bytes));
        }
        Ok(all)
    }
}

/// Returns the first value among little-endian numbers that is not finite.
fn first_not_finite<const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> f64) -> Option<f64> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).find(|value| !value.is_finite())
}

/// Reads what [`write()`] wrote: the tensors by name, and the content.
///
/// # Errors
/// Returns an error if the file cannot be read, a byte of it is damaged, or it has no seal of this program.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(HashMap<String, Tensor>, T), CheckpointError> {
    let damaged = |found: String| CheckpointError::Damaged { path: path.to_path_buf(), found };
    let bytes =
        std::fs::read(path).map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })?;
    let content = check_seal(&bytes).map_err(damaged)?.ok_or_else(|| CheckpointError::Foreign {
        path: path.to_path_buf(),
        found: "a safetensors file without this program's seal".to_owned(),
        expected: "one that this program wrote".to_owned(),
    })?;
    let content = serde_json::from_str(&content)
        .map_err(|error| damaged(format!("a seal whose content is of another kind ({error})")))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| Ok((name, to_tensor(&view)?)))
        .collect::<candle_core::Result<_>>()
        .map_err(|source| CheckpointError::Tensor { path: path.to_path_buf(), source: Box::new(source) })?;
    Ok((tensors, content))
}

/// Returns the type that a file holds a tensor in.
fn stored_type(dtype: DType) -> candle_core::Result<Dtype> {
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::F64 => Ok(Dtype::F64),
        DType::U32 => Ok(Dtype::U32),
        DType::I64 => Ok(Dtype::I64),
        DType::F16 => Ok(Dtype::F16),
        other => candle_core::bail!("a checkpoint holds F32, F64, F16, U32 and I64 tensors, not {other:?}"),
    }
}

/// Copies a tensor of the host as little-endian bytes.
fn host_bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F32 => flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect(),
        DType::F64 => flat.to_vec1::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect(),
        DType::U32 => flat.to_vec1::<u32>()?.into_iter().flat_map(u32::to_le_bytes).collect(),
        DType::F16 => flat.to_vec1::<f16>()?.into_iter().flat_map(f16::to_le_bytes).collect(),
        _ => flat.to_vec1::<i64>()?.into_iter().flat_map(i64::to_le_bytes).collect(),
    })
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
        Dtype::F16 => Tensor::from_vec(elements(bytes, f16::from_le_bytes), shape, &Device::Cpu),
        other => candle_core::bail!("a checkpoint holds F32, F64, F16, U32 and I64 tensors, not {other:?}"),
    }
}

/// Removes the tensors whose names start with `prefix` from `tensors` and returns them without the prefix.
pub(crate) fn take_prefixed(tensors: &mut HashMap<String, Tensor>, prefix: &str) -> HashMap<String, Tensor> {
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| tensors.remove(&name).map(|tensor| (name[prefix.len()..].to_owned(), tensor)))
        .collect()
}

/// Adds `prefix` to the name of each tensor.
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
            (
                "weights/half".to_owned(),
                Tensor::new(&[0.1_f32], device).unwrap().to_dtype(DType::F16).unwrap(),
            ),
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
        assert_eq!(tensors.len(), 5);
        assert_eq!(tensors["weights/half"].to_vec1::<half::f16>().unwrap(), [half::f16::from_f32(0.1)]);
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
            // Reading the file as weights or embeddings is an error, too.
            let error = invaspread_models::WeightsFile::open(&path).unwrap_err().to_string();
            let told = error.contains("damaged") || (cut && at == 0 && error.contains("an empty file"));
            prop_assert!(error.contains("last.state.safetensors") && told, "{error}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_checkpoint_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        write(&path, &example(), &1).unwrap();
        let before = fs_err::read(&path).unwrap();
        let unsupported = vec![("x".to_owned(), Tensor::zeros(2, DType::U8, &Device::Cpu).unwrap())];
        assert!(write(&path, &unsupported, &2).is_err());
        assert_eq!(fs_err::read(&path).unwrap(), before);
        let missing = folder.path().join("missing").join("last.safetensors");
        let message = write(&missing, &example(), &1).unwrap_err().to_string();
        assert!(message.contains("missing") && message.contains("write"), "{message}");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
