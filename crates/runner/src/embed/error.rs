//! Why images could not be embedded.

use std::path::PathBuf;

use invaspread_data::DataError;
use invaspread_record::RecordError;

use crate::engine::{EngineError, EvaluateError};

/// Why images could not be embedded, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The ending of the output is of no format.
    #[error("{}: found this ending, expected .npz, .npy, .safetensors or .parquet; name such a file", path.display())]
    Ending {
        /// The output.
        path: PathBuf,
    },
    /// An image, a shard or a Parquet file cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The weights do not fit the network.
    #[error(transparent)]
    Weights(#[from] EvaluateError),
    /// The network cannot be run.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// The file system refuses.
    #[error(transparent)]
    File(#[from] RecordError),
    /// The file beside the output was begun by another request.
    #[error(
        "{}: found embeddings that were begun with another {}, expected the same request; give the same command again to go on \
         with it, or delete the file to begin anew",
        path.display(), changed.join(", ")
    )]
    OtherRequest {
        /// The file.
        path: PathBuf,
        /// What is different.
        changed: Vec<String>,
    },
    /// Images were left out that must not be left out now.
    #[error(
        "{}: found embeddings without {images} images that could not be read, expected all; set data.skip_broken=true to go on \
         with them, or delete the file to begin anew",
        path.display()
    )]
    LeftOut {
        /// The file.
        path: PathBuf,
        /// The images that were left out.
        images: u64,
    },
    /// The file beside the output is none of this program's.
    #[error(
        "{}: found a file that this command did not write, expected none or unfinished embeddings; move it away",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes the same output.
    #[error("{}: found it in use by another process, expected no other; wait until that one ends", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// An embedding is not finite.
    #[error(
        "the embedding of {image} holds {found}, expected finite numbers; the weights or the preprocessing do not fit the image"
    )]
    NotFinite {
        /// The image.
        image: String,
        /// The first such number.
        found: f32,
    },
    /// There is no image.
    #[error(
        "found no image to embed in {images} ({left_out} were left out), expected at least one; name other images"
    )]
    Nothing {
        /// The input.
        images: String,
        /// Images that were left out.
        left_out: u64,
    },
}

impl From<EngineError> for EmbedError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}
