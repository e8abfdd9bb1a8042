//! The process that works on a run, as named in its claim.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::claim::{Claims, work_folder};
use super::host::{has_ended, host_name, machine, start_of_this_process};
use super::lease::BEAT;
use super::{Layout, VERSION, now_rfc3339};

/// A process on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// The process's number on that host.
    pub pid: u32,
    /// The time at which the process claimed the run, RFC 3339.
    pub since: String,
    /// The program's name and version.
    pub version: String,
    /// The start of the system and its table of processes, which tell this host from another of the same name;
    /// `None` if the system does not say.
    pub machine: Option<String>,
    /// The time at which the process started, in the system's own unit, which tells it from a later process of
    /// the same number; `None` if the system does not say.
    pub started: Option<u64>,
    /// The time in milliseconds without a sign of life after which it counts as dead on other hosts.
    pub lease_milliseconds: u64,
}

impl Owner {
    /// Returns the process that works on a run, or was killed while it did; `None` if the run is free. Claims
    /// nothing.
    pub fn of(layout: &Layout) -> Option<Self> {
        let claims = Claims::of(layout.folder()).ok()?;
        let claim = claims.highest()?;
        work_folder(layout.folder(), claim).is_dir().then(|| claim.owner.clone())?
    }

    /// Returns the time since the last sign of life of the process that works on a run. It compares the clocks of
    /// two hosts and that of the file system, so it is only a hint.
    pub fn last_sign(layout: &Layout) -> Option<Duration> {
        let claims = Claims::of(layout.folder()).ok()?;
        let beat = work_folder(layout.folder(), claims.highest()?).join(BEAT);
        let changed = std::fs::metadata(beat).ok()?.modified().ok()?;
        Some(SystemTime::now().duration_since(changed).unwrap_or_default())
    }

    /// Returns whether the process has ended; `None` if it is one of another host, or the system cannot tell.
    pub fn has_ended(&self) -> Option<bool> {
        let is_here = self.host == host_name() && self.machine.is_some() && self.machine == machine();
        if is_here { has_ended(self.pid, self.started) } else { None }
    }

    /// Returns the time without a sign of life after which the process counts as dead on other hosts.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_milliseconds)
    }

    /// Returns this process, with the current time.
    pub(crate) fn this_process(lease: Duration) -> Self {
        Self {
            host: host_name(),
            pid: std::process::id(),
            since: now_rfc3339(),
            version: VERSION.to_owned(),
            machine: machine(),
            started: start_of_this_process(),
            lease_milliseconds: lease.as_millis() as u64,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on host {}, since {}, {}", self.pid, self.host, self.since, self.version)
    }
}
