//! Reads what finished runs left behind: `record.json` (what ran, where, and its results) and `metrics.parquet` (every
//! value of every epoch).
//!
//! The JSON's form belongs to the runner, which writes it. This crate keeps a reader's struct of its own rather than
//! borrow the writer's, so that making a report needs none of the training engine; keys that it does not know are
//! passed over, so a newer runner's records can be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::Builder;

use fs_err as fs;
use polars::prelude::*;
use serde::Deserialize;

use crate::error::ReportError;

/// What `record.json` says of one finished run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunRecord {
    /// `<config hash>-s<seed>`.
    pub id: String,
    /// The suite the run belongs to, such as `table1`.
    pub suite: String,
    /// The row of the suite's table.
    pub row: String,
    /// The method trained.
    pub method: String,
    /// The dataset trained and evaluated on.
    pub dataset: String,
    /// `verified`, `unverified` or `generated`.
    pub data_state: String,
    /// The profile: `paper`, `quick`, `smoke`.
    pub profile: String,
    /// The device that ran it: `cpu`, `cuda`.
    pub device: String,
    /// The seed.
    pub seed: u64,
    /// Epochs trained.
    pub epochs: u64,
    /// Images a batch (twice as many views for two-view methods).
    pub batch_size: u64,
    /// Training images, the gallery of kNN.
    pub train_images: u64,
    /// Test images, the queries of kNN.
    pub test_images: u64,
    /// Channels of the network's first stage (64 in the paper).
    pub width: u64,
    /// The network.
    pub model: String,
    /// Which of the readings of the paper was followed: `code`, `paper`.
    pub protocol: String,
    /// What was asked for beside the suite, its profile, seed and device, as typed.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Rows of other suites that share the run.
    #[serde(default)]
    pub also: Vec<String>,
    /// The metric that the best epoch was chosen by.
    #[serde(default = "knn_top1")]
    pub main_metric: String,
    /// Results by metric.
    pub metrics: BTreeMap<String, Summary>,
    /// Wall-clock time of the run, seconds.
    pub seconds: f64,
    /// Training throughput, images (not views) a second; none where nothing was trained.
    #[serde(default)]
    pub images_per_second: Option<f64>,
    /// Largest resident memory, bytes.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// Hash of the resolved configuration, the seed left out.
    pub config_hash: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub finished: String,
    /// Program and version.
    pub version: String,
    /// Commit of the source, where known.
    #[serde(default)]
    pub git: Option<String>,
    /// Compiler.
    #[serde(default)]
    pub rustc: Option<String>,
    /// Processor model.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Threads used.
    pub threads: u64,
    /// Anything less than the paper's recipe: fewer epochs, images or channels.
    pub reduced: bool,
}

fn knn_top1() -> String {
    "knn_top1".to_owned()
}

/// Similarities of test images to their nearest of one kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Histogram {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// How many fell into each bin, of equal widths from -1 to 1.
    pub counts: Vec<u64>,
}

/// How far the members of a grouping's groups lie from the others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Separation {
    /// "class", or a grouping of classes.
    pub name: String,
    /// To the nearest of the same group.
    pub same: Histogram,
    /// To the nearest of other groups.
    pub other: Histogram,
    /// Share of the histograms under both, 0 to 1.
    pub overlap: f64,
}

#[derive(Deserialize)]
struct Separations {
    groupings: Vec<Separation>,
}

/// One metric of a run at its last epoch and at its best.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Summary {
    /// After the last epoch.
    pub last: f64,
    /// The largest over epochs.
    pub best: f64,
    /// The epoch of the largest, 1-based; 0 is before training.
    pub best_epoch: u64,
}

/// One value of `metrics.parquet` on the test split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// 1-based; 0 is before training.
    pub epoch: u64,
    /// The metric's value, percent for accuracies.
    pub value: f64,
}

/// A finished run: its record and its test-split metrics by epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What `record.json` says.
    pub record: RunRecord,
    /// Test-split values by metric, in order of epochs.
    pub curves: BTreeMap<String, Vec<Point>>,
    /// What `similarity.json` holds, if the run has one.
    pub separations: Vec<Separation>,
    /// The run's folder relative to the runs root, with `/` on every system.
    pub folder: String,
}

impl Run {
    /// The run as a row of a suite that has these rows: under its own name or one of those it is shared under; none if it is no row of it.
    pub fn as_row_of(mut self, rows: &[&str]) -> Option<Self> {
        let names = std::iter::once(&self.record.row).chain(&self.record.also);
        let name = names.into_iter().find(|name| rows.contains(&name.as_str()))?.clone();
        self.record.row = name;
        Some(self)
    }

    /// The first epoch at which `metric` is at or above `threshold`; none if it never is.
    pub fn epochs_to(&self, metric: &str, threshold: f64) -> Option<u64> {
        self.curves.get(metric)?.iter().find(|point| point.value >= threshold).map(|point| point.epoch)
    }
}

/// A suite's finished runs, and which others were begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Finished runs, in order of row, configuration and seed.
    pub runs: Vec<Run>,
    /// Folders of runs that are not done, in order of name.
    pub unfinished: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(alias = "status")]
    state: String,
}

/// An error if the system gives no thread. polars works on threads of its own, and panics where it gets none. A second one beside the first
/// is tried, since the system may count a thread that has just ended a moment longer.
fn a_thread_can_be_started() -> std::io::Result<()> {
    let (held, release) = channel::<()>();
    let wait = move || {
        // Ends when the other side is gone, which is no failure.
        let _ = release.recv();
    };
    let first = Builder::new().spawn(wait)?;
    let second = Builder::new().spawn(|| ());
    drop(held);
    // Neither has a result to look at.
    let _ = first.join();
    let _ = second?.join();
    Ok(())
}

/// Reads every finished run of `suite` below `runs_root` (`<runs_root>/<suite>/<run>/record.json`). A run is finished
/// when its record is there and its `status.json`, if there is one, says `done`.
///
/// # Errors
/// No such folder, no finished run in it, two folders of the same run, or a file that cannot be read or parsed.
pub fn load(runs_root: &Path, suite: &str) -> Result<Loaded, ReportError> {
    a_thread_can_be_started().map_err(|source| ReportError::Threads { source })?;
    let folder = runs_root.join(suite);
    if !folder.is_dir() {
        return Err(ReportError::NoSuite { suite: suite.to_owned(), path: folder });
    }
    let mut runs = Vec::new();
    let mut unfinished = Vec::new();
    for path in subfolders(&folder)? {
        match load_run(runs_root, &path)? {
            Some(run) => runs.push(run),
            None => unfinished.push(path),
        }
    }
    if runs.is_empty() {
        return Err(ReportError::NoRuns { suite: suite.to_owned(), unfinished: unfinished.len() });
    }
    let key = |run: &Run| (run.record.row.clone(), run.record.config_hash.clone(), run.record.seed);
    runs.sort_by_key(|run| (key(run), run.folder.clone()));
    for pair in runs.windows(2) {
        if key(&pair[0]) == key(&pair[1]) {
            return Err(ReportError::Duplicate {
                first: runs_root.join(&pair[0].folder),
                second: runs_root.join(&pair[1].folder),
                config_hash: pair[0].record.config_hash.clone(),
                seed: pair[0].record.seed,
            });
        }
    }
    Ok(Loaded { runs, unfinished })
}

/// Reads one run folder; none when the run is not done.
fn load_run(runs_root: &Path, folder: &Path) -> Result<Option<Run>, ReportError> {
    let record_path = folder.join("record.json");
    if !record_path.is_file() {
        return Ok(None);
    }
    let status_path = folder.join("status.json");
    if status_path.is_file() {
        let status: Status = read_json(&status_path, "status")?;
        if status.state != "done" {
            return Ok(None);
        }
    }
    let record: RunRecord = read_json(&record_path, "record")?;
    let curves = read_curves(&folder.join("metrics.parquet"))?;
    let similarity = folder.join("similarity.json");
    let separations = if similarity.is_file() {
        read_json::<Separations>(&similarity, "similarities")?.groupings
    } else {
        Vec::new()
    };
    let relative = folder.strip_prefix(runs_root).unwrap_or(folder);
    let folder =
        relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
    Ok(Some(Run { record, curves, separations, folder }))
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let failed = |source| ReportError::File { action: "read", path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, what: &'static str) -> Result<T, ReportError> {
    let bytes = fs::read(path).map_err(|source| ReportError::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| ReportError::Json {
        path: path.to_path_buf(),
        what,
        source,
    })
}

fn read_curves(path: &Path) -> Result<BTreeMap<String, Vec<Point>>, ReportError> {
    let file = std::fs::File::open(path).map_err(|source| ReportError::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    test_points(file).map_err(|source| ReportError::Metrics { path: path.to_path_buf(), source })
}

/// The test-split rows of a metrics table, by name. A value written twice for an epoch (a run resumed in the middle of
/// one) counts as last written.
fn test_points(file: std::fs::File) -> PolarsResult<BTreeMap<String, Vec<Point>>> {
    let frame = ParquetReader::new(file)
        .with_columns(Some(["epoch", "split", "name", "value"].map(str::to_owned).to_vec()))
        .finish()?;
    let epochs = frame.column("epoch")?.cast(&DataType::Int64)?;
    let splits = frame.column("split")?.cast(&DataType::String)?;
    let names = frame.column("name")?.cast(&DataType::String)?;
    let values = frame.column("value")?.cast(&DataType::Float64)?;
    let rows =
        epochs.i64()?.iter().zip(splits.str()?.iter()).zip(names.str()?.iter()).zip(values.f64()?.iter());
    let mut by_epoch: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    for (((epoch, split), name), value) in rows {
        if let (Some(epoch), Some("test"), Some(name), Some(value)) = (epoch, split, name, value) {
            let epoch = u64::try_from(epoch).map_err(
                |_| polars_err!(ComputeError: "`{name}` is given for epoch {epoch}; epochs count from 0"),
            )?;
            by_epoch.entry(name.to_owned()).or_default().insert(epoch, value);
        }
    }
    let points = |epochs: BTreeMap<u64, f64>| {
        epochs.into_iter().map(|(epoch, value)| Point { epoch, value }).collect()
    };
    Ok(by_epoch.into_iter().map(|(name, epochs)| (name, points(epochs))).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;

    #[test]
    fn reads_done_runs_and_counts_the_others() {
        let root = tempfile::tempdir().unwrap();
        let written = fake::write_suite(root.path(), &fake::quick_runs(&[0]));
        fs::write(root.path().join(&written[0].folder).join("status.json"), r#"{"state": "running"}"#)
            .unwrap();
        fs::remove_file(root.path().join(&written[1].folder).join("record.json")).unwrap();
        fs::write(root.path().join(&written[2].folder).join("status.json"), r#"{"state": "done"}"#).unwrap();
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
        assert!(error.contains("metrics.parquet") && error.contains("run again"), "{error}");
        fs::write(folder.join("metrics.parquet"), metrics).unwrap();

        let copy = folder.with_file_name("copy");
        fs::create_dir(&copy).unwrap();
        for name in ["record.json", "metrics.parquet"] {
            fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        let error = load(root.path(), "table1").unwrap_err().to_string();
        assert!(error.contains("same run") && error.contains("copy"), "{error}");
    }

    #[test]
    fn a_suite_without_a_finished_run_says_how_many_were_begun() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("table1/abc-s0")).unwrap();
        let error = load(root.path(), "table1").unwrap_err();
        assert!(matches!(error, ReportError::NoRuns { unfinished: 1, .. }), "{error}");
    }
}
