//! Errors of reading, writing and loading weights.

use std::fmt;
use std::path::PathBuf;

use super::format::WeightsFormat;

/// The reason why weights could not be read, written or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The file cannot be opened.
    #[error("failed to open {path}: {source}; give the path of a file of weights")]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A folder, a pipe, a socket or a device lies at the path.
    #[error("failed to open a file of weights: {source}")]
    NotAFile {
        /// Names the path and what lies there.
        source: std::io::Error,
    },
    /// The file is not of a kind that weights are read from.
    #[error(
        "failed to read {path}: found {found}, expected a file of weights: safetensors, what torch.save writes, a Caffe model or HDF5"
    )]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// The content that was found, with advice if there is any.
        found: String,
    },
    /// The content of the file contradicts itself.
    #[error(
        "failed to read {path}: found {found}; the file is damaged or of another kind (expected {format}): fetch or save it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        format: WeightsFormat,
        /// The fault.
        found: String,
    },
    /// There is nothing at the requested place.
    #[error("failed to read {path}: found nothing within {asked:?}, expected one of: {}", places.join(", "))]
    Place {
        /// The file.
        path: PathBuf,
        /// The requested place.
        asked: String,
        /// The places that exist.
        places: Vec<String>,
    },
    /// The weights of a file cannot be loaded.
    #[error("failed to load {path} into {network}: {source}")]
    Load {
        /// The file.
        path: PathBuf,
        /// The network.
        network: String,
        /// The reason.
        source: Box<WeightError>,
    },
    /// Entries are missing or have another shape.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// An entry holds numbers that a network cannot have.
    #[error("{name} holds {found}; the file is damaged, or what trained these weights diverged: use others")]
    Value {
        /// The name of the entry in the network.
        name: String,
        /// The value that it holds.
        found: BadValue,
    },
    /// The file holds torchvision's GoogLeNet, and the network is BVLC's. Batch norm could be merged into the
    /// convolutions and 3x3 kernels could be padded to 5x5. But torchvision's network has no local response
    /// norm, and no weights can cancel that of BVLC's.
    #[error(
        "found torchvision's GoogLeNet, which has batch norm and no local response norm: it is another network than BVLC's \
        Inception-v1, and its weights cannot be converted; give bvlc_googlenet.caffemodel"
    )]
    Torchvision,
    /// Writing failed.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: candle_core::Error,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The fault in the values of an entry.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadValue {
    /// NaN or an infinity.
    #[error("{0}")]
    NotFinite(NotFinite),
    /// A number that is too large for the type of the network.
    #[error("{value:e} at {index:?}, which is outside the range of {dtype}")]
    Range {
        /// The first such value.
        value: f64,
        /// The index of that value.
        index: Vec<usize>,
        /// The type of the network.
        dtype: &'static str,
    },
    /// A variance or a count below zero.
    #[error("{value} at {index:?}, where only values of 0 or more are allowed")]
    Negative {
        /// The first such value.
        value: f64,
        /// The index of that value.
        index: Vec<usize>,
    },
}

/// The values of a tensor that are not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct NotFinite {
    /// The number of such values.
    pub count: usize,
    /// The number of all values.
    pub elements: usize,
    /// The index of the first such value.
    pub index: Vec<usize>,
    /// The first such value: NaN or an infinity.
    pub value: f64,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, elements, index, value } = self;
        let value = match *value {
            f64::INFINITY => "an infinity",
            f64::NEG_INFINITY => "a negative infinity",
            _ => "NaN",
        };
        match count {
            1 => write!(f, "{value} at {index:?}, one of {elements} values"),
            _ => write!(
                f,
                "{count} values of {elements} that are not finite, the first, {value}, at {index:?}"
            ),
        }
    }
}

/// The differences between the weights and the entries that a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Names that are missing in the weights.
    pub missing: Vec<String>,
    /// Entries of another shape, each as `name: found shape, expected shape`.
    pub misshapen: Vec<String>,
    /// All names of the weights, in alphabetical order.
    pub theirs: Vec<String>,
    /// All names of the network.
    pub ours: Vec<String>,
    /// The state dicts of the file, if it has several, the best match first.
    pub state_dicts: Vec<String>,
    /// Whether everything fits except the embedding layer.
    pub only_head: bool,
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {}; of another shape: {}", list(&self.missing), list(&self.misshapen))?;
        if !self.missing.is_empty() {
            write!(
                f,
                "; names in the file: {}; names in the network: {}",
                list(&self.theirs),
                list(&self.ours)
            )?;
        }
        if let Some((nearest, others)) = self.state_dicts.split_first() {
            write!(
                f,
                "; this is {nearest}, the best match among the state dicts of the file; it also has {}",
                list(others)
            )?;
        }
        f.write_str(
            "; choose the model that the file was saved from, with the same depth, width, patches and length of the embedding, \
            for images of the same size and number of channels",
        )
    }
}

/// Lists at most five entries, and says how many more there are.
fn list(entries: &[String]) -> String {
    const SHOWN: usize = 5;
    match entries.len() {
        0 => "none".into(),
        n if n <= SHOWN => entries.join(", "),
        n => format!("{}, and {} more", entries[..SHOWN].join(", "), n - SHOWN),
    }
}
