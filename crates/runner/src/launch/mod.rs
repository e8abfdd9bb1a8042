//! A queue of runs, worked through one after another. Finished runs are skipped, half-done runs are resumed,
//! and a failed run does not stop the others. Each run leaves its folder with config, environment,
//! measurements, checkpoints, embeddings and record. Missing or damaged files of finished runs are made
//! again. Runs that another process works on are waited for at the end.

mod advice;
mod dataset;
mod dataset_cache;
mod error;
mod finish;
mod inspect;
mod planned;
mod queue;
mod repair;
mod trained_on;
mod trial;
mod wait;

pub use advice::how_to_shorten;
pub use dataset::images;
pub use error::LaunchError;
pub use inspect::damaged_results;
pub use planned::{Labels, Planned, Standing};
pub use queue::{RunReport, Workload, estimate_all, run_all};
pub use trial::{Trial, try_out};
