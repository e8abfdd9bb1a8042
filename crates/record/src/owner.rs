//! The process that works on a run, as named in the lock file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::host::host_name;
use super::{VERSION, now_rfc3339};

/// A process on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// The process's number on that host.
    pub pid: u32,
    /// The time at which the process locked the run, RFC 3339.
    pub since: String,
    /// The program's name and version.
    pub version: String,
}

impl Owner {
    /// Returns this process, with the current time.
    pub(crate) fn this_process() -> Self {
        Self { host: host_name(), pid: std::process::id(), since: now_rfc3339(), version: VERSION.to_owned() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on host {}, since {}, {}", self.pid, self.host, self.since, self.version)
    }
}
