//! Who works on a run: what a lock file says of the process that holds it.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    pub(super) fn this_process() -> Self {
        Self { host: host_name(), pid: std::process::id(), since: now_rfc3339(), version: VERSION.to_owned() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on host {}, since {}, {}", self.pid, self.host, self.since, self.version)
    }
}

/// Returns this machine's name: letters, digits, dots and hyphens; "localhost" where the system does not say.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || ['-', '.'].contains(c);
    let name: String = name.trim().chars().filter(plain).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Returns whether process `pid` of this host has ended; `None` where the system does not say.
pub(super) fn has_ended(pid: u32) -> Option<bool> {
    let processes = std::path::Path::new("/proc");
    processes.join("self").exists().then(|| !processes.join(pid.to_string()).exists())
}
