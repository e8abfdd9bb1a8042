//! The program and the machine that this process runs on, as a run's record states them. A fact that the
//! system does not give is left empty ("unknown" or null) and is never an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use invaspread_record::{Environment, VERSION, now_rfc3339};
use invaspread_tensor::DeviceKind;

/// Describes this process, which is about to work on `device`.
pub fn environment(device: DeviceKind) -> Environment {
    Environment {
        version: VERSION.to_owned(),
        program: program_hash(),
        git: std::env::current_dir().ok().and_then(|folder| git_revision(&folder)),
        rustc: env!("INVASPREAD_RUSTC").to_owned(),
        cpu: cpu_model(),
        threads: rayon::current_num_threads(),
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: device.name().to_owned(),
        gpu: gpu_name(device),
        started: now_rfc3339(),
    }
}

/// Returns the BLAKE3 hash of this program's file, which is read once; `None` if it cannot be read.
pub fn program_hash() -> Option<String> {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    let hash = || {
        // On Linux this is the file that runs, even if a build has put another one into its place since.
        let running = Path::new("/proc/self/exe");
        let path = if running.exists() { running.to_path_buf() } else { std::env::current_exe().ok()? };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fs::File::open(path).ok()?).ok()?;
        Some(hasher.finalize().to_hex().to_string())
    };
    HASH.get_or_init(hash).clone()
}

/// Returns the model name of a GPU with its place in this machine, as in "NVIDIA H200 (cuda:1)"; `None` for
/// the CPU, or if the GPU does not say.
#[cfg(feature = "cuda")]
pub fn gpu_name(device: DeviceKind) -> Option<String> {
    let DeviceKind::Cuda(index) = device.resolve() else { return None };
    let facts = invaspread_tensor::cuda::facts(&device.open().ok()?).ok()?;
    Some(format!("{} (cuda:{index})", facts.name))
}

/// Returns nothing: a program without CUDA uses no GPU.
#[cfg(not(feature = "cuda"))]
pub fn gpu_name(_device: DeviceKind) -> Option<String> {
    None
}

/// Returns the largest resident memory of this process so far, in bytes; `None` where the system does not
/// give it.
pub fn peak_memory_bytes() -> Option<u64> {
    high_water_mark(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The largest resident memory of this process since a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeakMemory {
    /// The largest memory before that moment, if the system did not forget it.
    before: u64,
}

impl PeakMemory {
    /// Begins now. On Linux the system forgets what was larger before.
    pub(crate) fn begin() -> Self {
        let forgotten = fs::write("/proc/self/clear_refs", "5").is_ok();
        Self { before: if forgotten { 0 } else { peak_memory_bytes().unwrap_or(0) } }
    }

    /// Returns the largest memory since then, in bytes; `None` where the system does not give it, or gives
    /// only a larger one from before.
    pub(crate) fn bytes(self) -> Option<u64> {
        peak_memory_bytes().filter(|&bytes| bytes > self.before)
    }
}

/// Time that training steps took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spent {
    /// The time on the wall, seconds.
    pub(crate) seconds: f64,
    /// The processor time of all threads of this process, seconds; `None` where the system does not give it.
    pub(crate) processor_seconds: Option<f64>,
}

/// A clock that began with a training step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepClock {
    wall: Instant,
    processor: Option<Duration>,
}

impl StepClock {
    pub(crate) fn begin() -> Self {
        Self { wall: Instant::now(), processor: processor_time() }
    }

    /// Returns the time since the clock began.
    pub(crate) fn spent(self) -> Spent {
        let processor = self.processor.zip(processor_time());
        Spent {
            seconds: self.wall.elapsed().as_secs_f64(),
            processor_seconds: processor.map(|(from, to)| to.saturating_sub(from).as_secs_f64()),
        }
    }
}

/// Returns the processor time of all threads of this process so far.
#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().ok()
}

/// Returns nothing: only Unix gives the time by this way.
#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}

/// Returns the commit checked out in the git repository that `folder` lies in; `None` outside of one or
/// before its first commit.
fn git_revision(folder: &Path) -> Option<String> {
    let dot_git = folder.ancestors().map(|f| f.join(".git")).find(|f| f.exists())?;
    // A linked worktree or submodule has a file that says where its folder is.
    let git = if dot_git.is_file() {
        let text = fs::read_to_string(&dot_git).ok()?;
        dot_git.parent()?.join(text.strip_prefix("gitdir:")?.trim())
    } else {
        dot_git
    };
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(reference) = head.strip_prefix("ref:").map(str::trim) else {
        return revision(&head);
    };
    // A worktree has its own HEAD and shares the branches.
    let shared: PathBuf =
        fs::read_to_string(git.join("commondir")).map_or_else(|_| git.clone(), |text| git.join(text.trim()));
    if let Ok(text) = fs::read_to_string(shared.join(reference)) {
        return revision(&text);
    }
    let packed = fs::read_to_string(shared.join("packed-refs")).ok()?;
    packed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, name)| *name == reference)
        .and_then(|(id, _)| revision(id))
}

fn revision(text: &str) -> Option<String> {
    let text = text.trim();
    (text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_owned())
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    model_name(&info).unwrap_or_else(|| "unknown".to_owned())
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    let name = line.split_once(':')?.1.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{DeviceKind, Environment, environment, git_revision, high_water_mark, model_name};
    use std::fs;

    const COMMIT: &str = "29de3983a1c2b4d5e6f708192a3b4c5d6e7f8091";

    #[test]
    fn system_files_are_understood() {
        assert_eq!(high_water_mark("VmPeak:\t 9 kB\nVmHWM:\t  1234 kB\nVmRSS: 1 kB"), Some(1234 * 1024));
        assert_eq!(high_water_mark("VmHWM: lots"), None);
        let info = "processor\t: 0\nmodel name\t: AMD EPYC 7763\nmodel name\t: other";
        assert_eq!(model_name(info).as_deref(), Some("AMD EPYC 7763"));
        assert_eq!(model_name("processor : 0"), None);
    }

    #[test]
    #[cfg(unix)]
    fn processor_time_is_that_of_the_cores() {
        let busy = super::StepClock::begin();
        let mut sum = 0_u64;
        while busy.spent().processor_seconds.unwrap() < 0.1 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
        // Other tests may run in this process at the same time, so its processor time can only be compared with
        // the time on the wall of all cores.
        let spent = busy.spent();
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(spent.processor_seconds.unwrap() <= spent.seconds * cores + 0.1, "{spent:?}");
    }

    #[test]
    fn the_revision_is_found_in_every_form_of_repository() {
        let root = tempfile::tempdir().unwrap();
        let (repository, inside) = (root.path().join("r"), root.path().join("r/a/b"));
        let write = |path: &str, text: &str| {
            let path = repository.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        fs::create_dir_all(&inside).unwrap();
        write(".git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(git_revision(&inside), None, "before the first commit");
        write(
            ".git/packed-refs",
            &format!("# pack-refs\n{} refs/heads/other\n{COMMIT} refs/heads/main\n", "0".repeat(40)),
        );
        assert_eq!(git_revision(&inside).as_deref(), Some(COMMIT), "packed");
        let newer = COMMIT.replace('2', "3");
        write(".git/refs/heads/main", &format!("{newer}\n"));
        assert_eq!(git_revision(&inside), Some(newer.clone()), "loose");
        write("tree/.git", "gitdir: ../.git/worktrees/tree\n");
        write(".git/worktrees/tree/HEAD", "ref: refs/heads/main\n");
        write(".git/worktrees/tree/commondir", "../..\n");
        assert_eq!(git_revision(&repository.join("tree")), Some(newer), "worktree");
        write(".git/HEAD", COMMIT);
        assert_eq!(git_revision(&inside).as_deref(), Some(COMMIT), "detached");
        write(".git/HEAD", "nonsense");
        assert_eq!(git_revision(&inside), None, "damaged");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_largest_memory_is_that_since_the_beginning() {
        const LARGE: usize = 256 << 20;
        // Every page is written, so that it is resident. The memory is held while it is asked for: tests beside
        // this one begin anew too, and the system forgets for the whole process.
        let large = std::hint::black_box(vec![1_u8; LARGE]);
        let before = super::peak_memory_bytes().unwrap();
        drop(large);
        let found = super::PeakMemory::begin();
        // Where the system forgets nothing, the larger memory from before is not given.
        let bytes = found.bytes();
        assert!(bytes.is_none_or(|bytes| bytes < before), "{bytes:?} of {before}");
        let larger = std::hint::black_box(vec![1_u8; 2 * LARGE]);
        assert!(found.bytes().unwrap() > 2 * LARGE as u64);
        drop(larger);
    }

    #[test]
    fn this_process_can_be_described() {
        let environment = environment(DeviceKind::Cpu);
        assert!(environment.rustc.starts_with("rustc 1."), "{}", environment.rustc);
        assert!(environment.version.starts_with("invaspread "));
        assert!(environment.threads > 0);
        let file = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(environment.program, Some(blake3::hash(&file).to_hex().to_string()));
        let json = serde_json::to_string(&environment).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&json).unwrap(), environment);
        #[cfg(target_os = "linux")]
        assert!(super::peak_memory_bytes().unwrap() > 1 << 20);
    }
}
