//! Why weights could not be read, written or taken up.

use std::fmt;
use std::path::PathBuf;

use super::format::WeightsFormat;

/// Why weights could not be read, written or taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The file cannot be opened.
    #[error("failed to open {path}: {source}; give the path of a file of weights")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
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
        /// What it is, with what to do if that is known.
        found: String,
    },
    /// The file's content contradicts itself.
    #[error(
        "failed to read {path}: found {found}; the file is damaged or of another kind (expected {format}): fetch or save it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What such a file holds.
        format: WeightsFormat,
        /// What went wrong.
        found: String,
    },
    /// There is no state dict of the name that was asked for.
    #[error("failed to read {path}: found nothing within {asked:?}, expected one of: {}", places.join(", "))]
    Place {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        asked: String,
        /// What there is.
        places: Vec<String>,
    },
    /// A file's weights cannot be taken up.
    #[error("failed to load {path} into {network}: {source}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What the network is.
        network: String,
        /// Why not.
        source: Box<WeightError>,
    },
    /// Entries are missing or have another shape.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// An entry holds something else than numbers that a network can have.
    #[error("{name} holds {found}; the file is damaged, or what trained these weights diverged: use others")]
    Value {
        /// The network's name of the entry.
        name: String,
        /// What it holds.
        found: BadValue,
    },
    /// torchvision's GoogLeNet was to be loaded into BVLC's. Batch norm could be worked into the convolutions and 3x3 kernels be padded to
    /// 5x5; but there is no local response norm in that network, and no weights make this one do without.
    #[error(
        "found torchvision's GoogLeNet, which has batch norm and no local response norm: another network than Inception-v1 as BVLC \
        trained it, whose weights cannot be made of it; give bvlc_googlenet.caffemodel"
    )]
    Torchvision,
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

/// What is wrong with an entry's values.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadValue {
    /// NaN or an infinity.
    #[error("{0}")]
    NotFinite(NotFinite),
    /// A number that the network's type is too narrow for.
    #[error("{value:e} at {index:?}, which is past the range of {dtype}")]
    Range {
        /// The first such value.
        value: f64,
        /// Where it is.
        index: Vec<usize>,
        /// The network's type.
        dtype: &'static str,
    },
    /// A variance or a count below zero.
    #[error("{value} at {index:?}, where nothing below 0 can be")]
    Negative {
        /// The first such value.
        value: f64,
        /// Where it is.
        index: Vec<usize>,
    },
}

/// The values of a tensor that are no finite numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct NotFinite {
    /// How many there are.
    pub count: usize,
    /// Of so many.
    pub elements: usize,
    /// Where the first is.
    pub index: Vec<usize>,
    /// NaN, or an infinity.
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
                "{count} values of {elements} that are no finite numbers, the first, {value}, at {index:?}"
            ),
        }
    }
}

/// How weights differ from what a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Names that the weights lack.
    pub missing: Vec<String>,
    /// `name: found shape, expected shape`.
    pub misshapen: Vec<String>,
    /// All names of the weights, in alphabetical order.
    pub theirs: Vec<String>,
    /// All names of the network.
    pub ours: Vec<String>,
    /// The state dicts that there are, if there is more than one, the nearest first.
    pub state_dicts: Vec<String>,
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
                "; that is {nearest}, the nearest of the file's state dicts; there are also {}",
                list(others)
            )?;
        }
        f.write_str(
            "; choose the model that the file was saved from, its depth, width and length of embedding too",
        )
    }
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
