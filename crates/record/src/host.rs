//! Finds the name of this host, and whether one of its processes still runs.

/// The variable with a name for this host, for containers that share the name of their host.
const NAME: &str = "INVASPREAD_HOST";

/// Returns this machine's name, reduced to letters, digits, dots and hyphens: `INVASPREAD_HOST` if that is set,
/// else the system's; "localhost" if the system does not give one.
pub(crate) fn host_name() -> String {
    let name = std::env::var(NAME)
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || ['-', '.'].contains(c);
    let name: String = name.trim().chars().filter(plain).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Returns a text that two processes share only if they see the same table of processes: the random number of the
/// system's start and the number of the table. `None` if the system does not say.
pub(crate) fn machine() -> Option<String> {
    // `/proc` may be that of another table: this process then has another number there.
    let own = std::fs::read_link("/proc/self").ok()?;
    if own.to_str()?.parse() != Ok(std::process::id()) {
        return None;
    }
    let start = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let table = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", start.trim(), table.display()))
}

/// Returns the time at which this process started, in the system's ticks since its own start; `None` if the
/// system does not say.
pub(crate) fn start_of_this_process() -> Option<u64> {
    stat(std::process::id()).map(|(_, started)| started)
}

/// Returns whether process `pid` of this host, started at `started` if that is known, has ended; `None` if the
/// system cannot tell.
pub(crate) fn has_ended(pid: u32, started: Option<u64>) -> Option<bool> {
    let processes = std::path::Path::new("/proc");
    if !processes.join("self").exists() {
        return None;
    }
    match stat(pid) {
        // Where the first process is hidden, those of other users are, so the process may be one of them.
        None if !processes.join("1").exists() => None,
        None => Some(!processes.join(pid.to_string()).exists()),
        // A process that has ended stays in the table until its parent has asked for its exit code.
        Some((state, now)) => Some(matches!(state, 'Z' | 'X') || started.is_some_and(|then| then != now)),
    }
}

/// Returns the state and the start of a process, fields 3 and 22 of its line in `/proc`.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2 is the program's name in parentheses, which may hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{has_ended, start_of_this_process};

    #[test]
    fn a_process_has_ended_when_it_is_gone_unreaped_or_another() {
        let (me, started) = (std::process::id(), start_of_this_process().unwrap());
        assert_eq!(has_ended(me, Some(started)), Some(false));
        assert_eq!(has_ended(me, None), Some(false));
        assert_eq!(has_ended(me, Some(started + 1)), Some(true), "a later process of the same number");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
        // It has ended long before its exit code is asked for.
        while has_ended(child.id(), None) == Some(false) {
            assert!(std::time::Instant::now() < limit);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.wait().unwrap();
        assert_eq!(has_ended(child.id(), None), Some(true));
    }
}
