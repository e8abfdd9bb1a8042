//! Files of weights: recognizes the format of a file by its content alone, reads its state dicts, and loads
//! them into a network.

pub(crate) mod caffe;
mod detect;
mod error;
mod finite;
mod fit;
mod format;
pub(crate) mod hdf5;
mod inspect;
mod load;
pub(crate) mod pth;
pub(crate) mod safetensors;
mod seal;
mod state_dict;

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use invaspread_files::open_regular;

use detect::detect;
use safetensors::read_safetensors;

pub use error::{BadValue, Mismatch, NotFinite, WeightError};
pub use finite::not_finite;
pub use format::WeightsFormat;
pub use inspect::{Entry, inspect};
pub use load::{HeadNeeded, LoadReport, import, load};
pub use safetensors::write_weights;
pub use seal::{BytesOf, SealedTensor, check_seal, write_sealed, write_sealed_to};
pub use state_dict::StateDict;

/// A file of weights.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_models::{WeightsFile, WeightsFormat, write_weights};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("any.name");
/// write_weights(&path, &[("linear.bias".to_owned(), Tensor::new(&[1f32, 2.0], &Device::Cpu)?)])?;
///
/// let file = WeightsFile::open(&path)?;
/// assert_eq!(file.format, WeightsFormat::Safetensors);
/// assert_eq!(file.state_dicts[0].tensors["linear.bias"].to_vec1::<f32>()?, [1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct WeightsFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Format of the file.
    pub format: WeightsFormat,
    /// The description of the file under the seal of this program ([`crate::check_seal`]), as JSON; `None` in
    /// files of other programs.
    pub content: Option<String>,
    /// The state dicts, at least one, in the order of the file. Only files of PyTorch have several.
    pub state_dicts: Vec<StateDict>,
}

impl WeightsFile {
    /// Reads safetensors, files of `torch.save` (before and after PyTorch 1.6), a Caffe model or HDF5,
    /// whatever the name of the file is.
    ///
    /// A file of PyTorch may hold a state dict, containers of state dicts, or a whole module. Layer
    /// `conv1/7x7_s2` of a Caffe model gives `conv1/7x7_s2.weight` and `conv1/7x7_s2.bias`; the last of equal
    /// names counts, as in Caffe. A tensor of an HDF5 file is named by the path to it, without the parts that
    /// the Python package hickle adds.
    ///
    /// # Errors
    /// If the file is missing, not a regular file, damaged, or of another kind.
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let bytes = whole(path)?;
        let damaged = |format, found| WeightError::Damaged { path: path.into(), format, found };
        let format =
            detect(&bytes, path).map_err(|found| WeightError::OtherKind { path: path.into(), found })?;
        let own = |tensors: HashMap<String, Tensor>| {
            vec![StateDict { place: String::new(), tensors, not_read: Vec::new() }]
        };
        let read = match format {
            WeightsFormat::Safetensors => {
                read_safetensors(&bytes).map(|(state_dict, content)| (vec![state_dict], content))
            }
            WeightsFormat::Torch => pth::read(&bytes).map(|state_dicts| (state_dicts, None)),
            WeightsFormat::Caffe => {
                caffe::read(&bytes).map(|tensors| (own(tensors.into_iter().collect()), None))
            }
            WeightsFormat::Hdf5 => {
                hdf5::read(bytes).map(|tensors| (own(tensors.into_iter().collect()), None))
            }
        };
        let (state_dicts, content) = read.map_err(|found| damaged(format, found))?;
        Ok(Self { path: path.into(), format, content, state_dicts })
    }

    /// Keeps only the entries at `place`, which is the place of a state dict or the beginning of the names of
    /// its entries.
    ///
    /// # Errors
    /// If there is nothing at that place; the error names the places that exist.
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

/// Reads all bytes of a regular file.
fn whole(path: &Path) -> Result<Vec<u8>, WeightError> {
    let open = |source| WeightError::Open { path: path.into(), source };
    let mut file = open_regular(path).map_err(|source| match source.kind() {
        // The error says what is at the path: a folder, a pipe, a device.
        ErrorKind::InvalidInput => WeightError::NotAFile { source },
        _ => open(source),
    })?;
    let length = file.metadata().map_err(open)?.len();
    let length = usize::try_from(length).map_err(|_| open(ErrorKind::OutOfMemory.into()))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| open(ErrorKind::OutOfMemory.into()))?;
    file.read_to_end(&mut bytes).map_err(open)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
