//! Weights on disk: safetensors both ways, PyTorch's `.pth`, Caffe's `.caffemodel` and HDF5's `.h5` for reading.
//!
//! Files of the first two hold PyTorch's names and layouts, in which Caffe's convolutions are too. A convolution is (C_out, C_in, K, K)
//! there and (K, K, C_in, C_out) in memory.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use candle_core::safetensors::{Load, SliceSafetensors};
use candle_core::{Device, Result, Tensor, bail};

use crate::seal::check_seal;
use crate::{caffe, hdf5, pth};

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
    #[error(
        "failed to open {path}: {source}; give the path of a .safetensors, .pth, .caffemodel or .h5 file"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file's content is not what its name says.
    #[error(
        "failed to read {path}: {source}; the file is damaged or of another kind (expected {expected}): fetch or save it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What such a file holds.
        expected: &'static str,
        /// What went wrong.
        source: candle_core::Error,
    },
    /// The file's name says nothing known.
    #[error(
        "failed to read {path}: found the ending {found:?}, expected .safetensors, .pth, .pt, .caffemodel, .h5 or .hdf5"
    )]
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
    /// A file is not of the network that it is imported into.
    #[error(
        "failed to import {path} into {network}; missing: {}; of another shape: {}; choose the model that the file was saved from",
        list(.missing), list(.misshapen)
    )]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// What the network is.
        network: String,
        /// Names that the file lacks.
        missing: Vec<String>,
        /// `name: found shape, expected shape`.
        misshapen: Vec<String>,
    },
    /// torchvision's GoogLeNet was to be imported into BVLC's. Batch norm could be worked into the convolutions and 3x3 kernels be
    /// padded to 5x5; but there is no local response norm in that network, and no weights make this one do without.
    #[error(
        "failed to import {path}: found torchvision's GoogLeNet, which has batch norm and no local response norm: another network than \
        Inception-v1 as BVLC trained it, whose weights cannot be made of it; give bvlc_googlenet.caffemodel"
    )]
    Torchvision {
        /// The file.
        path: PathBuf,
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

/// Reads all tensors of a `.safetensors`, `.pth`, `.pt`, `.caffemodel`, `.h5` or `.hdf5` file.
///
/// A `.pth` may hold the state dict itself or, as the official code saves it, a dictionary with one under `net`, `state_dict` or
/// `model`. A Caffe model's layer `conv1/7x7_s2` becomes `conv1/7x7_s2.weight` and `conv1/7x7_s2.bias`; of a name given twice the last
/// counts, as with Caffe. An HDF5 file's tensors are called by the paths to them, without what the Python package hickle wraps around a
/// dict.
///
/// # Errors
/// If the file is missing, damaged or of another kind.
pub fn read_weights(path: &Path) -> std::result::Result<HashMap<String, Tensor>, WeightError> {
    let open = |source| WeightError::Open { path: path.into(), source };
    let damaged = |expected, source| WeightError::Damaged { path: path.into(), expected, source };
    let found = |found: String| candle_core::Error::Msg(format!("found {found}"));
    let mut file = std::fs::File::open(path).map_err(open)?;
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match ending {
        "safetensors" => {
            let bytes = whole(&mut file).map_err(open)?;
            read_safetensors(&bytes).map_err(|source| damaged("safetensors", source))
        }
        "pth" | "pt" => {
            let length = file.metadata().map_err(open)?.len();
            pth::read(BufReader::new(file), length)
                .map_err(|what| damaged("a state dict saved by torch.save", found(what)))
        }
        "caffemodel" => {
            let bytes = whole(&mut file).map_err(open)?;
            let tensors = caffe::read(&bytes).map_err(|what| damaged("a Caffe model", found(what)))?;
            Ok(tensors.into_iter().collect())
        }
        "h5" | "hdf5" => {
            let bytes = whole(&mut file).map_err(open)?;
            let tensors = hdf5::read(bytes).map_err(|what| damaged("HDF5", found(what)))?;
            Ok(tensors.into_iter().collect())
        }
        ending => Err(WeightError::Ending { path: path.into(), found: ending.into() }),
    }
}

fn whole(file: &mut std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All tensors of a `.safetensors` file, which is whole if it carries this program's seal.
pub(crate) fn read_safetensors(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    check_seal(bytes).map_err(|found| candle_core::Error::Msg(format!("found {found}")))?;
    let file = SliceSafetensors::new(bytes)?;
    let load = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        if element_count(view.shape()).is_none() {
            bail!("the tensor {name:?} with the shape {:?}, which no memory holds", view.shape())
        }
        Ok((name, view.load(&Device::Cpu)?))
    };
    file.tensors().into_iter().map(load).collect()
}

/// How many elements a tensor of this shape has, if candle can count them: it multiplies the lengths of axes from the last on, and does not
/// look whether the first is 0.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |all, &length| all.checked_mul(length.max(1)))?;
    Some(shape.iter().product())
}

/// Writes tensors as safetensors. The caller renames into place: see the runner's atomic writes.
///
/// # Errors
/// If the file cannot be written.
pub fn write_weights(path: &Path, tensors: &[(String, Tensor)]) -> std::result::Result<(), WeightError> {
    let map: HashMap<String, Tensor> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&map, path)
        .map_err(|source| WeightError::Write { path: path.into(), source })
}

/// A parameter or gradient as PyTorch lays it out.
pub(crate) fn to_pytorch_layout(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.detach().to_device(&Device::Cpu)?;
    if tensor.rank() == 4 { tensor.permute((3, 2, 0, 1))?.contiguous() } else { tensor.copy() }
}

/// A parameter of PyTorch's as it lies in memory here.
pub(crate) fn to_our_layout(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 4 { tensor.permute((2, 3, 1, 0))?.contiguous() } else { Ok(tensor.clone()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{WeightError, element_count, read_safetensors, read_weights, write_weights};
    use crate::{Mode, Network, ResNetConfig};
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;

    fn small(seed: u64) -> Network {
        Network::new(ResNetConfig { width: 8, ..Default::default() }, seed).unwrap()
    }

    fn embed(network: &Network) -> Vec<f32> {
        let values: Vec<f32> = (0..2 * 3072).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::from_vec(values, (2, 32, 32, 3), &Device::Cpu).unwrap();
        network.forward(&x, Mode::Train).unwrap();
        let output = network.forward(&x, Mode::Evaluate).unwrap();
        output.embedding.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_network_survives_the_way_to_disk_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let (first, second) = (small(1), small(2));
        let want = embed(&first);
        write_weights(&path, &first.state_dict().unwrap()).unwrap();
        let report = second.load_state_dict(&read_weights(&path).unwrap()).unwrap();
        assert!(report.left_over.is_empty() && report.loaded == first.state_dict().unwrap().len());
        let (a, b) = (first.state_dict().unwrap(), second.state_dict().unwrap());
        for ((name, a), (_, b)) in a.iter().zip(&b) {
            let values =
                |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(values(a), values(b), "{name}");
        }
        // Both see the same batch once more in training mode, and so update their running statistics alike.
        assert_eq!(embed(&first), embed(&second));
        assert_ne!(want, embed(&small(2)));
    }

    #[test]
    fn an_axis_of_none_does_not_hide_the_others() {
        const HUGE: usize = 1 << 40;
        assert_eq!(element_count(&[2, 3]), Some(6));
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[0, HUGE]), Some(0));
        for shape in [[0, HUGE, HUGE], [HUGE, 0, HUGE], [HUGE, HUGE, 0], [HUGE, HUGE, 1]] {
            assert_eq!(element_count(&shape), None, "{shape:?}");
        }
        let header =
            format!(r#"{{"weight":{{"dtype":"F32","shape":[0,{HUGE},{HUGE}],"data_offsets":[0,0]}}}}"#);
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let error = read_safetensors(&file).unwrap_err().to_string();
        assert!(error.contains("\"weight\" with the shape [0, 1099511627776, 1099511627776]"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named_and_changes_nothing() {
        let network = small(1);
        let before = embed(&small(1));
        let mut weights: HashMap<_, _> = small(2).state_dict().unwrap().into_iter().collect();
        weights.remove("layer3.0.bn2.bias");
        weights.insert("linear.bias".into(), Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap());
        let error = network.load_state_dict(&weights).unwrap_err().to_string();
        assert!(
            error.contains("layer3.0.bn2.bias") && error.contains("linear.bias: found [7], expected [128]"),
            "{error}"
        );
        assert_eq!(before, embed(&network));
    }

    #[test]
    fn counts_of_batches_may_be_floats_or_absent() {
        let counts = |network: &Network| -> Vec<i64> {
            let state = network.state_dict().unwrap();
            let counts = state.iter().filter(|(name, _)| name.ends_with("num_batches_tracked"));
            counts.map(|(_, count)| count.to_scalar().unwrap()).collect()
        };
        let network = small(1);
        let mut weights: HashMap<_, _> = small(2).state_dict().unwrap().into_iter().collect();
        for (name, tensor) in &mut weights {
            if name.ends_with("num_batches_tracked") {
                *tensor = Tensor::new(&[7f32], &Device::Cpu).unwrap();
            }
        }
        network.load_state_dict(&weights).unwrap();
        assert!(counts(&network).iter().all(|count| *count == 7), "{:?}", counts(&network));
        weights.retain(|name, _| !name.ends_with("num_batches_tracked"));
        network.load_state_dict(&weights).unwrap();
        assert!(counts(&network).iter().all(|count| *count == 7), "{:?}", counts(&network));
    }

    #[test]
    fn data_parallel_names_are_taken_and_strangers_listed() {
        let network = small(1);
        let mut weights: HashMap<String, Tensor> =
            small(2).state_dict().unwrap().into_iter().map(|(n, t)| (format!("module.{n}"), t)).collect();
        weights.insert("module.fc.weight".into(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        let report = network.load_state_dict(&weights).unwrap();
        assert_eq!(report.left_over, ["module.fc.weight"]);
        assert_eq!(embed(&network), embed(&small(2)));
    }

    #[test]
    fn damaged_missing_and_strange_files_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(matches!(read_weights(&path("none.safetensors")), Err(WeightError::Open { .. })));
        for name in ["cut.safetensors", "cut.pth", "cut.caffemodel", "cut.h5", "cut.hdf5"] {
            std::fs::write(path(name), b"PK\x03\x04 not a file of weights").unwrap();
            let error = read_weights(&path(name)).unwrap_err();
            assert!(
                matches!(error, WeightError::Damaged { .. }) && error.to_string().contains(name),
                "{error}"
            );
        }
        std::fs::write(path("weights.npz"), b"").unwrap();
        let error = read_weights(&path("weights.npz")).unwrap_err();
        assert!(
            matches!(error, WeightError::Ending { .. })
                && error.to_string().contains("found the ending \"npz\""),
            "{error}"
        );
    }
}
