//! Runs of a queue, one after another: what is finished is skipped, what is half done is resumed, what fails does not keep the
//! others from running. Each leaves its folder with config, environment, measurements, checkpoints, embeddings and record. Of what is
//! finished, files that are missing or damaged are made again. What another process works on is waited for at the end.

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
