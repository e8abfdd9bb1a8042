//! The program under test: one small run of each method, the files it leaves, and the comparison of two such
//! results.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use invaspread_runner::methods::{ChosenMethod, Registry};
use invaspread_runner::record::{Layout, MetricsTable, RunRecord, load_records};
use tempfile::TempDir;

/// Returns every method of the registry that trains.
pub(crate) fn methods() -> Vec<&'static ChosenMethod> {
    let all = Registry::installed().entries().iter();
    all.map(|entry| &entry.small()[0]).filter(|method| method.trains()).collect()
}

/// Returns whether the long campaign is requested.
pub(crate) fn long() -> bool {
    std::env::var("INVASPREAD_FAULTS").is_ok_and(|length| length == "long")
}

/// Returns `short` in `cargo test`, and `long_form` in the long campaign.
pub(crate) fn times(short: usize, long_form: usize) -> usize {
    if long() { long_form } else { short }
}

/// Returns the `i`-th term of a sequence that fills 0 to 1 evenly, however many terms are taken (multiples of
/// the golden ratio).
pub(crate) fn spread(i: usize) -> f64 {
    (i as f64 * 0.618_033_988_749_895 + 0.37).fract()
}

/// Makes an empty folder.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Returns the program, ready for arguments, in `folder` and without the caller's settings.
pub(crate) fn invaspread(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invaspread"));
    command.current_dir(folder).env_remove("INVASPREAD_DATA").env_remove("INVASPREAD_LOG");
    command.env("RUST_BACKTRACE", "1");
    command
}

/// The settings of a run that takes a second and writes several checkpoints.
pub(crate) const SMALL: [&str; 10] = [
    "dataset=synthetic",
    "profile=smoke",
    "model.width=4",
    "model.embedding=8",
    "data.synthetic.train=64",
    "data.synthetic.test=32",
    "data.subset=64",
    "data.test_subset=32",
    "optim.epochs=2",
    "optim.batch_size=16",
];

/// Returns the command that trains the method called `name` into `root`, with its settings for few images.
pub(crate) fn train(root: &Path, name: &str) -> Command {
    let mut command = invaspread(root.parent().unwrap());
    command.arg("train").args(SMALL).arg(format!("method={name}")).arg("--runs").arg(root);
    let method = &Registry::installed().entry(name).unwrap().small()[0];
    command.args(method.settings().iter().map(|(key, value)| format!("method.{key}={value}")));
    command
}

/// Returns what the program printed on either stream; fails if it panicked or printed a dependency's
/// backtrace.
pub(crate) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(!text.contains("panicked") && output.status.code() != Some(101), "{text}");
    assert!(!text.contains("stack backtrace"), "{text}");
    text
}

/// Runs `command`, which must succeed.
pub(crate) fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{:?}: {:?}\n{said}", command.get_args(), output.status);
    said
}

/// The parts of two runs that must be equal: every byte of weights and embeddings, distributions of
/// similarity, and each measured value. Times may differ.
#[derive(PartialEq)]
pub(crate) struct Outcome {
    files: Vec<(&'static str, Vec<u8>)>,
    metrics: Vec<String>,
    record: String,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<_> = self.files.iter().map(|(name, bytes)| (name, bytes.len())).collect();
        f.debug_struct("Outcome")
            .field("files", &files)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// Reads the one finished run below `root`.
    pub(crate) fn of(root: &Path) -> Self {
        let records = load_records(root).unwrap();
        assert_eq!(records.len(), 1, "{}", root.display());
        let layout = run(root);
        let names = [
            "checkpoints/last.safetensors",
            "checkpoints/best.safetensors",
            "embeddings/train.safetensors",
            "embeddings/test.safetensors",
            "similarity.json",
            "config.toml",
        ];
        let read = |name: &&'static str| (*name, std::fs::read(layout.folder().join(name)).unwrap());
        let timed = ["images_per_second", "wait_seconds"];
        let table = MetricsTable::read(&layout.metrics()).unwrap();
        let rows = table.rows().iter().filter(|row| !timed.contains(&row.name.as_str()));
        let metrics = rows
            .map(|row| format!("{} {} {} {} {:?}", row.epoch, row.step, row.split, row.name, row.value))
            .collect();
        let record = RunRecord::read(&layout).unwrap();
        let record = format!("{} {} {:?}", record.id, record.epochs, record.metrics);
        Self { files: names.iter().map(read).collect(), metrics, record }
    }

    /// Fails unless `other` is equal, and names the first file that differs.
    pub(crate) fn must_equal(&self, other: &Self, after: &str) {
        for ((name, ours), (_, theirs)) in self.files.iter().zip(&other.files) {
            assert!(ours == theirs, "{name} differs after {after}");
        }
        assert_eq!((&self.metrics, &self.record), (&other.metrics, &other.record), "after {after}");
    }
}

/// Returns the one run below `root`.
pub(crate) fn run(root: &Path) -> Layout {
    let folders: Vec<PathBuf> = std::fs::read_dir(root.join("train"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    Layout::of(&folders[0])
}
