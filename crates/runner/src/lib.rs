//! Everything between a config file and a run's record: methods, the training engine, checkpoints, run
//! folders and queues of runs. It prints nothing: progress goes to an [`engine::Observer`].

pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod embed;
pub mod embeddings;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod launch;
pub mod machine;
pub mod memory;
pub mod methods;
pub mod runs;
#[cfg(feature = "cuda")]
mod self_check;
pub mod settings;
pub mod slurm;

pub use invaspread_record as record;
#[cfg(feature = "cuda")]
pub use self_check::self_check_on;
