//! A file of weights: what it is, told by its content alone, and the state dicts in it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::WeightError;
use crate::form::{Form, form};
use crate::safetensors_file::read_safetensors;
use crate::{caffe, hdf5, pth};

/// Tensors by name that lie together somewhere in a file.
#[derive(Debug, Clone)]
pub struct StateDict {
    /// The keys that lead to it in the file, with dots between; empty if it is the file's own.
    pub place: String,
    /// The tensors.
    pub tensors: HashMap<String, Tensor>,
    /// Entries that hold a tensor of a kind that is not read (sparse, boolean ...): name and kind.
    pub not_read: Vec<(String, String)>,
}

/// A file of weights, read whole.
#[derive(Debug, Clone)]
pub struct WeightsFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub form: Form,
    /// What this program wrote of it under its seal ([`crate::check_seal`]), as JSON; `None` in files of other programs.
    pub content: Option<String>,
    /// Its state dicts, at least one, in the order of the file. Only a file of PyTorch's has several.
    pub state_dicts: Vec<StateDict>,
}

impl WeightsFile {
    /// Reads a file of safetensors, of PyTorch's `torch.save` (its forms before and after version 1.6), a Caffe model or HDF5, whatever it is
    /// called.
    ///
    /// PyTorch's may hold a state dict, anything that holds some, or a whole module. A Caffe model's layer `conv1/7x7_s2` becomes
    /// `conv1/7x7_s2.weight` and `conv1/7x7_s2.bias`; of a name given twice the last counts, as with Caffe. An HDF5 file's tensors are
    /// called by the paths to them, without what the Python package hickle wraps around a dict.
    ///
    /// # Errors
    /// If the file is missing, no regular file, damaged, or of another kind.
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let bytes = whole(path)?;
        let damaged = |form: Form, found: String| WeightError::Damaged { path: path.into(), form, found };
        let form = form(&bytes, path).map_err(|found| WeightError::OtherKind { path: path.into(), found })?;
        let own = |tensors: HashMap<String, Tensor>| {
            vec![StateDict { place: String::new(), tensors, not_read: Vec::new() }]
        };
        let read = match form {
            Form::Safetensors => {
                read_safetensors(&bytes).map(|(state_dict, content)| (vec![state_dict], content))
            }
            Form::Torch => pth::read(&bytes).map(|state_dicts| (state_dicts, None)),
            Form::Caffe => caffe::read(&bytes).map(|tensors| (own(tensors.into_iter().collect()), None)),
            Form::Hdf5 => hdf5::read(bytes).map(|tensors| (own(tensors.into_iter().collect()), None)),
        };
        let (state_dicts, content) = read.map_err(|found| damaged(form, found))?;
        Ok(Self { path: path.into(), form, content, state_dicts })
    }

    /// The same file with nothing but what lies at `place`: a state dict's place, or what the names of its entries begin with.
    ///
    /// # Errors
    /// If there is nothing: names the places that there are.
    pub fn within(mut self, place: &str) -> Result<Self, WeightError> {
        if self.state_dicts.iter().any(|state_dict| state_dict.place == place) {
            self.state_dicts.retain(|state_dict| state_dict.place == place);
            return Ok(self);
        }
        let prefix = format!("{}.", place.trim_end_matches('.'));
        let places = self.state_dicts.iter().map(StateDict::to_string).collect();
        for state_dict in &mut self.state_dicts {
            state_dict.tensors.retain(|name, _| name.starts_with(&prefix));
            state_dict.not_read.retain(|(name, _)| name.starts_with(&prefix));
        }
        self.state_dicts.retain(|state_dict| !state_dict.tensors.is_empty());
        if self.state_dicts.is_empty() {
            return Err(WeightError::Place { path: self.path, asked: place.to_owned(), places });
        }
        Ok(self)
    }
}

impl fmt::Display for StateDict {
    /// Its place and how much there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "the file itself" } else { &self.place };
        write!(f, "{place} ({} tensors)", self.tensors.len())
    }
}

/// All tensors of a file that holds one state dict, or of the largest of several.
///
/// # Errors
/// As [`WeightsFile::open`].
pub fn read_weights(path: &Path) -> Result<HashMap<String, Tensor>, WeightError> {
    let state_dicts = WeightsFile::open(path)?.state_dicts;
    let largest = state_dicts.into_iter().max_by_key(|state_dict| state_dict.tensors.len());
    Ok(largest.map(|state_dict| state_dict.tensors).unwrap_or_default())
}

/// The bytes of a regular file. A pipe would never end, nor would `/dev/zero`.
fn whole(path: &Path) -> Result<Vec<u8>, WeightError> {
    let open = |source| WeightError::Open { path: path.into(), source };
    let kind = std::fs::metadata(path).map_err(open)?;
    if !kind.is_file() {
        let found = if kind.is_dir() { "a folder" } else { "no regular file but a device, pipe or socket" };
        return Err(WeightError::OtherKind { path: path.into(), found: found.to_owned() });
    }
    let length = usize::try_from(kind.len()).map_err(|_| open(std::io::ErrorKind::OutOfMemory.into()))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| open(std::io::ErrorKind::OutOfMemory.into()))?;
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(open)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
