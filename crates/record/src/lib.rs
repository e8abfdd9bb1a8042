//! The folder that a training run leaves on disk. Programs that write it and programs that read it share this
//! definition.
//!
//! A run's folder is `<runs.root>/<suite or "train">/<config hash>-s<seed>/`. [`Layout`] gives the path of
//! each file in it, and one type stands for the content of each file:
//!
//! | file | type | content |
//! |---|---|---|
//! | `config.toml` | | the resolved config |
//! | `request.json` | [`Request`] | the command that asked for the run |
//! | `env.json` | [`Environment`] | the program and the machine |
//! | `status.json` | [`Status`] | how far the run is |
//! | `log.jsonl` | | one event in each line |
//! | `metrics.parquet` | [`MetricsTable`] | every measurement, one number in each row |
//! | `similarity.json` | [`SimilarityRecord`] | histograms of similarity after the last epoch |
//! | `record.json` | [`RunRecord`] | the result of a finished run |
//! | `files.json` | [`FileList`] | length, time and digest of each file of a finished run |
//! | `tb/` | [`EventWriter`] | `TensorBoard` events |
//! | `lease-N` | [`Owner`] | the process that works on the run, or did last |
//! | `checkpoints/`, `embeddings/` | | safetensors files, which crate `invaspread-runner` reads and writes |
//!
//! A program that trains holds a [`RunDirectory`], which is the folder, claimed by this process (`lease-N` and its
//! work folder). A program that makes reports claims nothing:
//!
//! ```
//! use invaspread_record::{Layout, MetricRow, MetricSummary, MetricsTable};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = tempfile::tempdir()?;
//! let run = Layout::new(root.path(), Some("table1"), "0123abcd-s0");
//! std::fs::create_dir_all(run.folder())?;
//! let row = |epoch, value| MetricRow {
//!     epoch,
//!     step: epoch * 390,
//!     split: "test".to_owned(),
//!     name: "knn_top1".to_owned(),
//!     value,
//!     seconds: 60.0 * epoch as f64,
//! };
//! MetricsTable::new(vec![row(1, 55.5), row(2, 62.0), row(3, 61.0)]).write(&run.metrics())?;
//!
//! let table = MetricsTable::read(&run.metrics())?;
//! let summary = table.summary("test", "knn_top1").expect("it was measured");
//! assert_eq!(summary, MetricSummary { last: 61.0, best: 62.0, best_epoch: 2 });
//! # Ok(())
//! # }
//! ```
//!
//! Every file is written whole to a temporary name, flushed and renamed, except the two that grow during a
//! run (`log.jsonl` and the event files). Their readers skip a line that a killed process left incomplete.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

pub mod names;

mod atomic;
mod claim;
mod clock;
mod directory;
mod environment;
mod error;
mod events;
mod fence;
mod files;
mod host;
mod json;
mod layout;
mod lease;
mod log;
mod metrics_table;
mod owner;
mod remedy;
mod request;
mod run_record;
mod similarity;
mod status;
mod version;
mod watch;

pub use atomic::{write_atomically, write_with};
pub use clock::{now_rfc3339, rfc3339};
pub use directory::RunDirectory;
pub use environment::Environment;
pub use error::RecordError;
pub use events::EventWriter;
pub use files::{Fault, FileList};
pub use layout::{Layout, group_name};
pub use metrics_table::{MetricRow, MetricSummary, MetricsTable};
pub use owner::Owner;
pub use remedy::remedy;
pub use request::Request;
pub use run_record::{RunRecord, StoredRecord, load_records};
pub use similarity::{GroupSimilarity, Histogram, SimilarityRecord};
pub use status::{State, Status};
pub use version::{FORMAT, VERSION};
