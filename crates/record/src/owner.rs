//! The process that works on a run, as named in the lock file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::host::{has_ended, host_name};
use super::{Layout, VERSION, now_rfc3339};

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
    /// Returns the process that the lock file of a run names: the one that works on it, or one that was killed. Locks
    /// nothing.
    pub fn of(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(layout.lock()).ok()?).ok()
    }

    /// Returns whether the process has ended; `None` if it is one of another host, or the system cannot tell.
    pub fn has_ended(&self) -> Option<bool> {
        if self.host == host_name() { has_ended(self.pid) } else { None }
    }

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
