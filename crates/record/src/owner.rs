//! Who works on a run: what a lock file says of the process that holds it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::host::host_name;
use super::{VERSION, now_rfc3339};

/// A process on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// The process's number there.
    pub pid: u32,
    /// When it took the run, RFC 3339.
    pub since: String,
    /// Program and version.
    pub version: String,
}

impl Owner {
    /// Describes this process, from now.
    pub(crate) fn this_process() -> Self {
        Self { host: host_name(), pid: std::process::id(), since: now_rfc3339(), version: VERSION.to_owned() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on host {}, since {}, {}", self.pid, self.host, self.since, self.version)
    }
}
