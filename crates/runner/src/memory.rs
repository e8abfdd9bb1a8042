//! How much memory there is, and an error that says what would be needed, before anything is begun.

use invaspread_tensor::DeviceKind;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Memory that work may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// How much, in bytes.
    pub bytes: u64,
    /// Whose it is, for messages: "this machine", "the GPU".
    pub of: &'static str,
}

impl Memory {
    /// All memory of a device: the machine's or, where that is less, what this process's control group allows; a GPU's own. `None` where
    /// the system does not say.
    pub fn of(device: DeviceKind) -> Option<Self> {
        match device {
            DeviceKind::Cpu => Self::of_host(),
            DeviceKind::Cuda => Self::of_gpu(),
        }
    }

    fn of_host() -> Option<Self> {
        let mut system = System::new();
        system.refresh_memory();
        let machine = Some(system.total_memory()).filter(|&bytes| bytes > 0)?;
        let process = sysinfo::get_current_pid().ok().and_then(|id| {
            system.refresh_processes_specifics(
                ProcessesToUpdate::Some(&[id]),
                false,
                ProcessRefreshKind::nothing(),
            );
            system.process(id)?.cgroup_limits()
        });
        // Of a container, the root of the control groups that it sees is its own.
        let limits =
            [process, system.cgroup_limits()].into_iter().flatten().map(|limits| limits.total_memory);
        let limit = limits.filter(|&bytes| bytes > 0).min().filter(|&bytes| bytes < machine);
        Some(match limit {
            Some(bytes) => Self { bytes, of: "the control group of this process" },
            None => Self { bytes: machine, of: "this machine" },
        })
    }

    #[cfg(feature = "cuda")]
    fn of_gpu() -> Option<Self> {
        let device = DeviceKind::Cuda.open().ok()?;
        let facts = invaspread_tensor::cuda::facts(&device).ok()?;
        Some(Self { bytes: facts.memory as u64, of: "the GPU" })
    }

    #[cfg(not(feature = "cuda"))]
    fn of_gpu() -> Option<Self> {
        None
    }
}

/// Memory that one part of some work takes at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What it holds, and which settings make it so large.
    pub what: String,
    /// How much, in bytes; saturating.
    pub bytes: u128,
}

/// More memory would be needed than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// Everything that is needed at one time, the largest first.
    needs: Vec<Need>,
    memory: Memory,
}

/// Parts of less than this share of the whole are not told.
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

/// Checks that all of `needs` fit into `memory` at one time.
///
/// # Errors
/// If they do not.
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

/// "512 bytes", "23.1 GiB".
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
    use super::{Memory, Need, check, in_words};
    use invaspread_tensor::DeviceKind;

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::of(DeviceKind::Cpu).unwrap();
        assert!(memory.bytes > 1 << 26, "{memory:?}");
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
