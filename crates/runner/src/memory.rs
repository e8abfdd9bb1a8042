//! The amount of memory that there is, and a check, before any work begins, that it is enough.

use invaspread_tensor::DeviceKind;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Memory that work may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The amount, in bytes.
    pub bytes: u64,
    /// Whose memory it is, for messages: "this machine", "the GPU".
    pub of: &'static str,
}

impl Memory {
    /// Returns all memory of a device. For the CPU it is the machine's or, if that is less, the limit of this
    /// process's control group. `None` if the system does not say.
    pub fn of(device: DeviceKind) -> Option<Self> {
        match device.resolve() {
            DeviceKind::Cuda(_) => Self::of_gpu(device),
            _ => Self::of_host(),
        }
    }

    fn of_host() -> Option<Self> {
        let mut system = System::new();
        system.refresh_memory();
        let machine = Some(system.total_memory()).filter(|&bytes| bytes > 0)?;
        Some(match group_limit(&mut system).filter(|&bytes| bytes < machine) {
            Some(bytes) => Self { bytes, of: "the control group of this process" },
            None => Self { bytes: machine, of: "this machine" },
        })
    }

    #[cfg(feature = "cuda")]
    fn of_gpu(device: DeviceKind) -> Option<Self> {
        let device = device.open().ok()?;
        let facts = invaspread_tensor::cuda::facts(&device).ok()?;
        Some(Self { bytes: facts.memory as u64, of: "the GPU" })
    }

    #[cfg(not(feature = "cuda"))]
    fn of_gpu(_device: DeviceKind) -> Option<Self> {
        None
    }
}

/// Returns the bytes of memory that this process can still take: what the system has available or, if that is
/// less, the limit of the control group; `None` where the system gives neither.
pub fn free() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let available = Some(system.available_memory()).filter(|&bytes| bytes > 0);
    // The limit itself counts, and not the part of it that is left: the memory that a group uses includes
    // cached files, which the system drops if necessary.
    available.into_iter().chain(group_limit(&mut system)).min()
}

/// Returns the memory limit of this process's control group, in bytes; `None` if there is none.
fn group_limit(system: &mut System) -> Option<u64> {
    let process = sysinfo::get_current_pid().ok().and_then(|id| {
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[id]),
            false,
            ProcessRefreshKind::nothing(),
        );
        system.process(id)?.cgroup_limits()
    });
    // In a container, the root of the visible control groups is the container's own group.
    let limits = [process, system.cgroup_limits()].into_iter().flatten().map(|limits| limits.total_memory);
    limits.filter(|&bytes| bytes > 0).min()
}

/// A lower bound of the memory that one part of some work takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What the memory holds, and which settings make it large.
    pub what: String,
    /// The amount, in bytes; saturating.
    pub bytes: u128,
}

/// The work needs more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// Everything that is needed at the same time, the largest first.
    needs: Vec<Need>,
    memory: Memory,
}

/// The error leaves out parts that are less than the whole divided by this.
const TOLD: u128 = 20;

impl std::fmt::Display for TooLittleMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = total(&self.needs);
        let told = self.needs.iter().filter(|need| need.bytes >= total / TOLD);
        let told: Vec<String> = told.map(|need| format!("{} {}", need.what, in_words(need.bytes))).collect();
        write!(
            f,
            "found settings that need at least {} of memory ({}), expected at most the {} of {}; make them smaller",
            in_words(total),
            told.join("; "),
            in_words(self.memory.bytes.into()),
            self.memory.of
        )
    }
}

impl std::error::Error for TooLittleMemory {}

/// Checks that all of `needs` fit into `memory` at the same time.
///
/// # Errors
/// Returns an error that names the largest needs if they do not fit.
pub fn check(mut needs: Vec<Need>, memory: Memory) -> Result<(), TooLittleMemory> {
    if total(&needs) <= memory.bytes.into() {
        return Ok(());
    }
    needs.sort_by_key(|need| std::cmp::Reverse(need.bytes));
    Err(TooLittleMemory { needs, memory })
}

fn total(needs: &[Need]) -> u128 {
    needs.iter().fold(0, |sum: u128, need| sum.saturating_add(need.bytes))
}

/// Returns an amount with its unit, such as "512 bytes" or "23.1 GiB".
fn in_words(bytes: u128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut amount = bytes as f64 / 1024.0;
    for unit in UNITS {
        if amount < 1024.0 {
            return format!("{amount:.1} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{:.1e} bytes", bytes as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::{Memory, Need, check, free, in_words};
    use invaspread_tensor::DeviceKind;

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::of(DeviceKind::Cpu).unwrap();
        assert!(memory.bytes > 1 << 26, "{memory:?}");
        let free = free().unwrap();
        assert!(free > 1 << 20 && free <= memory.bytes, "{free} of {memory:?}");
    }

    #[test]
    fn what_does_not_fit_is_told_largest_first() {
        let need = |what: &str, bytes| Need { what: what.into(), bytes };
        let memory = || Memory { bytes: 1 << 30, of: "this machine" };
        check(vec![need("a", 1 << 29), need("b", 1 << 29)], memory()).unwrap();
        let error = check(vec![need("a", 1 << 29), need("c", 5), need("b", 1 << 30)], memory()).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("at least 1.5 GiB") && told.contains("b 1.0 GiB; a 512.0 MiB)"), "{told}");
        assert!(told.contains("the 1.0 GiB of this machine") && !told.contains("c 5"), "{told}");
        assert!(check(vec![need("a", u128::MAX), need("b", u128::MAX)], memory()).is_err());
    }

    #[test]
    fn amounts_are_words() {
        for (bytes, words) in
            [(0, "0 bytes"), (1024, "1.0 KiB"), (23 << 30, "23.0 GiB"), (u128::MAX, "3.4e38 bytes")]
        {
            assert_eq!(in_words(bytes), words);
        }
    }
}
