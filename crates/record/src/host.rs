//! Finds the name of this host, and whether one of its processes still runs.

/// Returns this machine's name, reduced to letters, digits, dots and hyphens; "localhost" if the system does
/// not give one.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || ['-', '.'].contains(c);
    let name: String = name.trim().chars().filter(plain).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Returns whether process `pid` of this host has ended; `None` if the system cannot tell.
pub(crate) fn has_ended(pid: u32) -> Option<bool> {
    let processes = std::path::Path::new("/proc");
    processes.join("self").exists().then(|| !processes.join(pid.to_string()).exists())
}
