//! What a run leaves behind: its folder, status, metrics, environment, `TensorBoard` events and final record.
//!
//! Reports are made from these files alone. Every file is written whole to a temporary name and renamed, except the two that
//! grow while a run goes on (`log.jsonl` and the event files), whose readers skip a torn end.

mod atomic;
mod clock;
mod directory;
mod environment;
mod error;
mod events;
mod files;
mod lock;
mod log;
mod metrics_table;
mod owner;
mod run_record;
mod similarity;

pub use atomic::{remedy, write_atomically};
pub use clock::{now_rfc3339, rfc3339};
pub use directory::{Layout, RunDirectory, State, Status, group_name};
pub use environment::{Environment, VERSION, git_revision, peak_memory_bytes};
pub use error::RecordError;
pub use events::EventWriter;
pub use files::{Fault, FileList};
pub use lock::LockWarning;
pub use metrics_table::{MetricRow, MetricSummary, MetricsTable};
pub use owner::Owner;
pub use run_record::{RunRecord, StoredRecord, load_records};
pub use similarity::SimilarityRecord;
