//! Everything between a config file and a run's record: methods, the training engine, checkpoints, run folders and queues of
//! runs. It prints nothing: progress goes to an [`engine::Observer`].

pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod embeddings;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod launch;
pub mod memory;
pub mod methods;
pub mod record;
#[cfg(feature = "cuda")]
mod self_check;
pub mod settings;

#[cfg(feature = "cuda")]
pub use self_check::self_check_on;
