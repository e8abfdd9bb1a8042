//! Reads the files of finished runs through crate `invaspread-record`: the record, the measurements of every
//! epoch and the similarities. The engine that wrote them is not needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::Builder;

use invaspread_record::{GroupSimilarity, Layout, MetricsTable, RunRecord, SimilarityRecord, State, Status};

use crate::error::ReportError;
use crate::evaluation::Evaluation;
use crate::names::row_label;

/// One measurement of an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The epoch, from 1; 0 is before training.
    pub epoch: u64,
    /// The metric's value; accuracies are in percent.
    pub value: f64,
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The content of `record.json`.
    pub record: RunRecord,
    /// The values on the test images by metric, ordered by epoch.
    pub curves: BTreeMap<String, Vec<Point>>,
    /// The shape of the embedding by measure (`effective_rank`, ...), ordered by epoch; empty for runs of
    /// earlier versions.
    pub shape: BTreeMap<String, Vec<Point>>,
    /// The measurements of training by name (`loss`, `images_per_second`, `wait_seconds`, ...), ordered by epoch.
    pub training: BTreeMap<String, Vec<Point>>,
    /// The groupings in `similarity.json`; empty if the run has no such file.
    pub separations: Vec<GroupSimilarity>,
    /// How the embeddings were measured; `None` if the run has no `config.toml`.
    pub evaluation: Option<Evaluation>,
    /// The run's folder relative to the runs root, with `/` on every system.
    pub folder: String,
}

impl Run {
    /// Returns the run as a row of a suite with these `rows`, under its own name or a name in `also`; `None`
    /// if it is not a row of that suite.
    pub fn as_row_of(mut self, rows: &[&str]) -> Option<Self> {
        let names = std::iter::once(&self.record.row).chain(&self.record.also);
        let name = names.into_iter().find(|name| rows.contains(&name.as_str()))?.clone();
        if self.record.row != name {
            // The label belongs to the row that the run was made for.
            self.record.label = None;
            self.record.row = name;
        }
        Some(self)
    }

    /// Returns the label of the run's row: that of its record or, if it has none, that of the row's key.
    pub fn row_label(&self) -> String {
        self.record.label.clone().unwrap_or_else(|| row_label(&self.record.row))
    }

    /// Returns the first epoch at which `metric` is at or above `threshold`; `None` if it never is.
    pub fn epochs_to(&self, metric: &str, threshold: f64) -> Option<u64> {
        self.curves.get(metric)?.iter().find(|point| point.value >= threshold).map(|point| point.epoch)
    }

    /// Returns whether the network was trained. An untrained network has no speed of learning.
    pub(crate) fn is_trained(&self) -> bool {
        self.record.epochs > 0
    }
}

/// The runs found in a suite's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The finished runs, ordered by row, configuration and seed.
    pub runs: Vec<Run>,
    /// The folders of unfinished runs, ordered by name.
    pub unfinished: Vec<PathBuf>,
}

/// Reads every finished run of `suite` below `runs_root`. A run is finished when it has a record and its
/// status, if it has one, is `done`.
///
/// # Errors
/// If the suite has no folder, no run in it is finished, or a file cannot be read or parsed.
pub fn load(runs_root: &Path, suite: &str) -> Result<Loaded, ReportError> {
    check_threads().map_err(|source| ReportError::Threads { source })?;
    let folder = runs_root.join(suite);
    if !folder.is_dir() {
        return Err(ReportError::NoSuite { suite: suite.to_owned(), path: folder });
    }
    let mut runs = Vec::new();
    let mut unfinished = Vec::new();
    for layout in Layout::all_of(runs_root, suite)? {
        match load_run(runs_root, &layout)? {
            Some(run) => runs.push(run),
            None => unfinished.push(layout.folder().to_path_buf()),
        }
    }
    if runs.is_empty() {
        return Err(ReportError::NoRuns { suite: suite.to_owned(), unfinished: unfinished.len() });
    }
    runs.sort_by_cached_key(|run| {
        let RunRecord { row, config_hash, seed, .. } = &run.record;
        (row.clone(), config_hash.clone(), *seed)
    });
    Ok(Loaded { runs, unfinished })
}

/// Reads one run; `None` if it is not finished.
pub(crate) fn load_run(runs_root: &Path, layout: &Layout) -> Result<Option<Run>, ReportError> {
    if !layout.record().is_file() || Status::read(layout)?.is_some_and(|status| status.state != State::Done) {
        return Ok(None);
    }
    let record = RunRecord::read(layout)?;
    let table = MetricsTable::read(&layout.metrics())?;
    let [curves, shape, training] = ["test", "shape", "train"].map(|split| curves_of(&table, split, layout));
    let (curves, shape, training) = (curves?, shape?, training?);
    let separations =
        if layout.similarity().is_file() { SimilarityRecord::read(layout)?.groupings } else { Vec::new() };
    let relative = layout.folder().strip_prefix(runs_root).unwrap_or(layout.folder());
    let folder =
        relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
    let evaluation = Evaluation::read(&layout.config())?;
    Ok(Some(Run { record, curves, shape, training, separations, evaluation, folder }))
}

/// Returns the values of a split by metric. If a run was resumed within an epoch and wrote a value twice, the
/// later one counts.
fn curves_of(
    table: &MetricsTable,
    split: &str,
    layout: &Layout,
) -> Result<BTreeMap<String, Vec<Point>>, ReportError> {
    let mut by_epoch: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    for row in table.rows().iter().filter(|row| row.split == split) {
        let epoch = u64::try_from(row.epoch).map_err(|_| ReportError::NegativeEpoch {
            path: layout.metrics(),
            metric: row.name.clone(),
            epoch: row.epoch,
        })?;
        by_epoch.entry(row.name.clone()).or_default().insert(epoch, row.value);
    }
    let points = |epochs: BTreeMap<u64, f64>| {
        epochs.into_iter().map(|(epoch, value)| Point { epoch, value }).collect()
    };
    Ok(by_epoch.into_iter().map(|(name, epochs)| (name, points(epochs))).collect())
}

/// Checks that the system lets this process start threads: polars works on its own threads, and panics if it
/// gets none. Two threads are started at the same time, because the system may still count a thread that has
/// just ended.
fn check_threads() -> std::io::Result<()> {
    let (held, release) = channel::<()>();
    let wait = move || {
        // The thread ends when its receiver is dropped, which is not a failure.
        let _ = release.recv();
    };
    let first = Builder::new().spawn(wait)?;
    let second = Builder::new().spawn(|| ());
    drop(held);
    // Neither thread has a result.
    let _ = first.join();
    let _ = second?.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use std::fs;

    #[test]
    fn reads_done_runs_and_counts_the_others() {
        let root = tempfile::tempdir().unwrap();
        let written = fake::write_suite(root.path(), &fake::quick_runs(&[0]));
        let status = |run: &Run, state| {
            let status = Status { state, epoch: 1, updated: String::new(), message: None };
            status.write(&Layout::of(root.path().join(&run.folder))).unwrap();
        };
        status(&written[0], State::Running);
        fs::remove_file(root.path().join(&written[1].folder).join("record.json")).unwrap();
        status(&written[2], State::Done);
        let loaded = load(root.path(), "table1").unwrap();
        let mut expected: Vec<PathBuf> =
            written[..2].iter().map(|run| root.path().join(&run.folder)).collect();
        expected.sort();
        assert_eq!(loaded.unfinished, expected);
        assert_eq!(loaded.runs.len(), written.len() - 2);
        let mut expected: Vec<Run> = written[2..].to_vec();
        expected.sort_by_key(|run| run.record.row.clone());
        assert_eq!(loaded.runs, expected);
    }

    #[test]
    fn first_epoch_at_the_threshold_counts() {
        let mut run = fake::quick_runs(&[0]).remove(0);
        let point = |epoch, value| Point { epoch, value };
        run.curves
            .insert("knn_top1".into(), vec![point(0, 20.0), point(1, 59.9), point(2, 60.0), point(3, 50.0)]);
        assert_eq!(run.epochs_to("knn_top1", 60.0), Some(2));
        assert_eq!(run.epochs_to("knn_top1", 61.0), None);
        assert_eq!(run.epochs_to("r1", 1.0), None);
    }

    #[test]
    fn a_shared_run_stands_under_the_name_of_each_suite() {
        let mut run = fake::quick_runs(&[0]).pop().unwrap();
        run.record.also = vec!["full".into()];
        let as_row_of = |rows: &[&str]| run.clone().as_row_of(rows).map(|run| run.record.row);
        assert_eq!(as_row_of(&["nce", "invaspread"]).as_deref(), Some("invaspread"));
        assert_eq!(as_row_of(&["full", "without_flip"]).as_deref(), Some("full"));
        assert_eq!(as_row_of(&["nce"]), None);
    }

    #[test]
    fn errors_name_the_file() {
        let root = tempfile::tempdir().unwrap();
        let missing = load(root.path(), "table1").unwrap_err().to_string();
        assert!(missing.contains("invaspread reproduce table1") && missing.contains("table1"), "{missing}");

        let written = fake::write_suite(root.path(), &fake::quick_runs(&[0]));
        let folder = root.path().join(&written[0].folder);
        let record = fs::read_to_string(folder.join("record.json")).unwrap();

        fs::write(folder.join("record.json"), record.replace("\"epochs\"", "\"epoch_count\"")).unwrap();
        let error = load(root.path(), "table1").unwrap_err().to_string();
        assert!(error.contains("record.json") && error.contains("missing field `epochs`"), "{error}");
        fs::write(folder.join("record.json"), record).unwrap();

        let metrics = fs::read(folder.join("metrics.parquet")).unwrap();
        fs::write(folder.join("metrics.parquet"), &metrics[..metrics.len() / 2]).unwrap();
        let error = load(root.path(), "table1").unwrap_err().to_string();
        assert!(error.contains("metrics.parquet") && error.contains("ask for the run again"), "{error}");
        fs::write(folder.join("metrics.parquet"), metrics).unwrap();

        let copy = folder.with_file_name("copy");
        fs::create_dir(&copy).unwrap();
        for name in ["record.json", "metrics.parquet"] {
            fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        let error = load(root.path(), "table1").unwrap_err().to_string();
        assert!(error.contains("copy/record.json") && error.contains("if the folder is a copy"), "{error}");
    }

    #[test]
    fn a_suite_without_a_finished_run_says_how_many_were_begun() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("table1/abc-s0")).unwrap();
        let error = load(root.path(), "table1").unwrap_err();
        assert!(matches!(error, ReportError::NoRuns { unfinished: 1, .. }), "{error}");
    }
}
