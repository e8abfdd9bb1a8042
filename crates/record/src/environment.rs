//! `env.json`: the program and the machine that a run was made with.

use serde::{Deserialize, Serialize};

use super::json::{read_json, write_json};
use super::{Layout, RecordError, log};

/// The content of `env.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The program's name and version, [`VERSION`](super::VERSION).
    pub version: String,
    /// The commit that was checked out where the program ran; `None` outside of a git repository.
    pub git: Option<String>,
    /// The compiler that the program was built with.
    pub rustc: String,
    /// The processor's model name.
    pub cpu: String,
    /// The number of threads in the pool.
    pub threads: usize,
    /// The operating system and the architecture: "linux `x86_64`".
    pub os: String,
    /// "cpu" or "cuda".
    pub device: String,
    /// The GPU's model name and its number in the machine, as in "NVIDIA H200 (cuda:1)"; `None` on the CPU,
    /// and in files that were written before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The time at which the run was started or resumed, RFC 3339.
    pub started: String,
}

impl Environment {
    /// Reads the environment of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io` or `Damaged`, which name the path, if the file cannot be read or used.
    pub fn read(layout: &Layout) -> Result<Self, RecordError> {
        let remedy = "delete the file and ask for the run again: it is written again from the log";
        read_json(&layout.environment(), "the machine and program of a run", remedy)
    }

    /// Returns the last environment in the run's log; `None` if the log holds none.
    pub fn logged(layout: &Layout) -> Option<Self> {
        log::last(&layout.log(), &["run_begun"], "environment")
    }

    /// Writes the environment of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.environment(), self)
    }
}
