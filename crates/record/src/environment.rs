//! `env.json`: the program and the machine that a run was made with.

use serde::{Deserialize, Serialize};

use super::json::{read_json, write_json};
use super::{Layout, RecordError, log};

/// The content of `env.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The program's name and version, [`VERSION`](super::VERSION).
    pub version: String,
    /// The BLAKE3 hash of the program's file, in hexadecimal digits: runs with the same hash were made by the
    /// same build. `None` if the file cannot be read, and in files that were written before this field
    /// existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The commit that was checked out in the folder where the program was started, which need not be the one
    /// that the program was built from; `None` outside of a git repository.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Environment;

    #[test]
    fn a_file_from_before_the_hash_of_the_program_is_read() {
        let old = r#"{"version": "invaspread 0.1.0", "git": null, "rustc": "rustc 1.95.0", "cpu": "unknown",
            "threads": 2, "os": "linux x86_64", "device": "cpu", "started": "2026-11-23T01:00:00Z"}"#;
        let read: Environment = serde_json::from_str(old).unwrap();
        assert_eq!(read.program, None);
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(old).unwrap());
    }
}
