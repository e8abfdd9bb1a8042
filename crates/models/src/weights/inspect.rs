//! Lists the content of a file of weights.

use super::WeightsFile;
use super::error::NotFinite;
use super::error::WeightError;
use super::finite::not_finite;
use candle_core::DType;
use std::path::Path;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The place of its state dict in the file; empty for the top level.
    pub place: String,
    /// The name in that state dict. For a Caffe model: the name of the layer with `.weight` or `.bias`.
    pub name: String,
    /// The type of its values.
    pub dtype: DType,
    /// The shape in the file; that of a convolution is (C_out, C_in, K, K).
    pub shape: Vec<usize>,
    /// The number of its values.
    pub parameters: usize,
    /// The values of the tensor that are NaN or infinite; such an entry cannot be loaded.
    pub not_finite: Option<NotFinite>,
}

/// Lists the tensors of a file of weights. For each state dict they are sorted by name, with numbers in names
/// by value. Also returns `place.name: kind` for each entry of a kind that cannot be read. All tensors are
/// read, so a file that can be inspected can be imported.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_models::{inspect, write_weights};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// let tensor = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu)?;
/// write_weights(&path, &[("fc.weight".to_owned(), tensor)])?;
/// let (entries, _) = inspect(&path)?;
/// assert_eq!((entries[0].name.as_str(), entries[0].shape.as_slice()), ("fc.weight", &[1, 2][..]));
/// assert_eq!(entries[0].not_finite.as_ref().map(|found| found.count), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns the errors of [`WeightsFile::open`].
pub fn inspect(path: &Path) -> Result<(Vec<Entry>, Vec<String>), WeightError> {
    let (mut entries, mut not_read) = (Vec::new(), Vec::new());
    for state_dict in WeightsFile::open(path)?.state_dicts {
        let place = state_dict.place;
        let mut of_this = Vec::new();
        for (name, tensor) in state_dict.tensors {
            of_this.push(Entry {
                place: place.clone(),
                name,
                dtype: tensor.dtype(),
                shape: tensor.dims().to_vec(),
                parameters: tensor.elem_count(),
                not_finite: not_finite(&tensor)?,
            });
        }
        of_this.sort_by_cached_key(|entry| order(&entry.name));
        entries.extend(of_this);
        let dot = if place.is_empty() { "" } else { "." };
        not_read.extend(state_dict.not_read.iter().map(|(name, kind)| format!("{place}{dot}{name}: {kind}")));
    }
    Ok((entries, not_read))
}

/// Splits a name where numbers begin and end and pads the numbers with zeros, so that `layer2` comes before
/// `layer10`.
fn order(name: &str) -> Vec<String> {
    let pieces = name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
    pieces
        .map(|piece| {
            let piece = String::from_utf8_lossy(piece);
            if piece.starts_with(|c: char| c.is_ascii_digit()) {
                format!("{piece:0>20}")
            } else {
                piece.into_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Entry, inspect};
    use crate::weights::caffe::tests::old_layer;
    use crate::{WeightError, write_weights};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn every_tensor_is_listed_in_the_order_of_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let tensors = [
            ("layer10.weight".to_owned(), zeros(&[2, 3, 1, 1], DType::F32)),
            ("layer2.weight".to_owned(), zeros(&[4], DType::F16)),
            ("layer2.count".to_owned(), zeros(&[], DType::I64)),
        ];
        write_weights(&path, &tensors).unwrap();
        let entry = |name: &str, dtype, shape: &[usize], parameters| Entry {
            place: String::new(),
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            parameters,
            not_finite: None,
        };
        assert_eq!(
            inspect(&path).unwrap().0,
            [
                entry("layer2.count", DType::I64, &[], 1),
                entry("layer2.weight", DType::F16, &[4], 4),
                entry("layer10.weight", DType::F32, &[2, 3, 1, 1], 6),
            ]
        );

        let path = folder.path().join("a.caffemodel");
        std::fs::write(&path, old_layer("conv1/7x7_s2", &[([2, 1, 1, 1], &[1.0, 2.0])])).unwrap();
        assert_eq!(inspect(&path).unwrap().0, [entry("conv1/7x7_s2.weight", DType::F32, &[2, 1, 1, 1], 2)]);
        std::fs::write(&path, b"no weights").unwrap();
        let error = inspect(&path).unwrap_err();
        assert!(
            matches!(error, WeightError::Damaged { .. }) && error.to_string().contains("a.caffemodel"),
            "{error}"
        );
    }
}
