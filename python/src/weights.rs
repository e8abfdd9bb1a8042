//! Files of weights as numpy arrays.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use invaspread_models::{BadValue, StateDict, WeightError, WeightsFile, not_finite};
use numpy::{IntoPyArray, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::wrong;
use crate::interrupt::interruptible;

/// Returns the tensors of a file by name, and sentences about those that were not read.
#[pyfunction]
#[pyo3(signature = (path, within))]
pub(crate) fn load_weights<'py>(
    py: Python<'py>,
    path: PathBuf,
    within: Option<String>,
) -> PyResult<(Bound<'py, PyDict>, Vec<String>)> {
    let (tensors, not_read) = interruptible(py, move || read(&path, within.as_deref()))?;
    let arrays = PyDict::new(py);
    for (name, tensor) in tensors {
        let array = array(py, &tensor).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        arrays.set_item(name, array)?;
    }
    Ok((arrays, not_read))
}

/// The tensors of a file in the order of their names, and sentences about what was not read.
type Read = (Vec<(String, Tensor)>, Vec<String>);

/// Reads the file at `path`. Its tensors must be finite, as a network's must be when it loads them.
fn read(path: &Path, within: Option<&str>) -> PyResult<Read> {
    let open = || match within {
        Some(place) => WeightsFile::open(path)?.within(place),
        None => WeightsFile::open(path),
    };
    let mut state_dicts = open().map_err(wrong)?.state_dicts;
    let one = state_dicts.pop().filter(|_| state_dicts.is_empty());
    let Some(StateDict { tensors, not_read, .. }) = one else {
        let places: Vec<String> = state_dicts.iter().map(ToString::to_string).collect();
        return Err(PyValueError::new_err(format!(
            "{}: found several state dicts ({}, ...), expected within=NAME of one of them; `invaspread weights inspect` lists them",
            path.display(),
            places.join(", ")
        )));
    };
    let mut tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    tensors.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, tensor) in &tensors {
        let found = not_finite(tensor).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        if let Some(found) = found {
            let error = WeightError::Value { name: name.clone(), found: BadValue::NotFinite(found) };
            return Err(wrong(format!("{}: {error}", path.display())));
        }
    }
    Ok((tensors, not_read.into_iter().map(|(name, why)| format!("{name}: {why}")).collect()))
}

/// Returns a tensor as an array of its type; bf16, which numpy lacks, becomes float32.
fn array<'py>(py: Python<'py>, tensor: &Tensor) -> candle_core::Result<Bound<'py, PyAny>> {
    fn shaped<'py, T: numpy::Element + candle_core::WithDType>(
        py: Python<'py>,
        tensor: &Tensor,
    ) -> candle_core::Result<Bound<'py, PyAny>> {
        let values = tensor.flatten_all()?.to_vec1::<T>()?;
        let array =
            values.into_pyarray(py).reshape(tensor.dims().to_vec()).map_err(candle_core::Error::wrap)?;
        Ok(array.into_any())
    }
    match tensor.dtype() {
        DType::F64 => shaped::<f64>(py, tensor),
        DType::I64 => shaped::<i64>(py, tensor),
        DType::I32 => shaped::<i32>(py, tensor),
        DType::I16 => shaped::<i16>(py, tensor),
        DType::U32 => shaped::<u32>(py, tensor),
        DType::U8 => shaped::<u8>(py, tensor),
        _ => shaped::<f32>(py, &tensor.to_dtype(DType::F32)?),
    }
}
