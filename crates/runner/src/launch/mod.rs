//! Runs of a queue, one after another: what is finished is skipped, what is half done is resumed, what fails does not keep the
//! others from running. Each leaves its folder with config, environment, measurements, checkpoints, embeddings and record.

mod dataset;
mod error;
mod finish;
mod planned;
mod queue;
mod trained_on;

pub use dataset::images;
pub use error::LaunchError;
pub use planned::{Labels, Planned, Standing};
pub use queue::{HOW_TO_SHORTEN, Report, Workload, estimate_all, run_all};
