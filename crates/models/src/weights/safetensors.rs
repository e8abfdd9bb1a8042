//! Reads and writes safetensors files with PyTorch's names and layouts; reads those of other programs too.

use std::collections::HashMap;
use std::path::Path;

use ::safetensors::Dtype;
use candle_core::safetensors::{Load, SliceSafetensors};
use candle_core::{Device, Tensor};

use super::error::WeightError;
use super::seal::check_seal;
use crate::weights::StateDict;
use crate::weights::format::element_count;

/// The types of numbers that are read.
const READ: [Dtype; 9] = [
    Dtype::U8,
    Dtype::U32,
    Dtype::I16,
    Dtype::I32,
    Dtype::I64,
    Dtype::BF16,
    Dtype::F16,
    Dtype::F32,
    Dtype::F64,
];

/// Returns the state dict of a file and the content of its seal, if it has one; a broken seal is an error.
///
/// # Errors
/// Says what is wrong with the file, in words that follow "found".
pub(crate) fn read_safetensors(bytes: &[u8]) -> Result<(StateDict, Option<String>), String> {
    let content = check_seal(bytes)?;
    let file = SliceSafetensors::new(bytes).map_err(|error| error.to_string())?;
    let mut state_dict = StateDict { place: String::new(), tensors: HashMap::new(), not_read: Vec::new() };
    for (name, view) in file.tensors() {
        if element_count(view.shape()).is_none() {
            return Err(format!(
                "the tensor {name:?} with the shape {:?}, which is too large for any memory",
                view.shape()
            ));
        }
        if !READ.contains(&view.dtype()) {
            state_dict.not_read.push((name, format!("a tensor of {:?}", view.dtype())));
            continue;
        }
        let tensor = view
            .load(&Device::Cpu)
            .map_err(|error| format!("the tensor {name:?} that fails to decode ({error})"))?;
        state_dict.tensors.insert(name, tensor);
    }
    Ok((state_dict, content))
}

/// Writes tensors as safetensors. The caller should write to a temporary name and rename.
///
/// # Errors
/// If the file cannot be written.
pub fn write_weights(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), WeightError> {
    let map: HashMap<String, Tensor> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&map, path)
        .map_err(|source| WeightError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::read_safetensors;

    #[test]
    fn an_axis_of_none_does_not_hide_the_others() {
        const HUGE: usize = 1 << 40;
        let header =
            format!(r#"{{"weight":{{"dtype":"F32","shape":[0,{HUGE},{HUGE}],"data_offsets":[0,0]}}}}"#);
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let error = read_safetensors(&file).map(|_| ()).unwrap_err();
        assert!(error.contains("\"weight\" with the shape [0, 1099511627776, 1099511627776]"), "{error}");
    }
}
