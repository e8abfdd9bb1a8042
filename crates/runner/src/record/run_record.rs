//! record.json: the outcome of a finished run, which reports are made from together with its metrics.parquet.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::{read_json, write_json};
use super::{Layout, MetricSummary, RecordError};

/// record.json. Names and forms are what tables are built on: add fields, never rename them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// `<config hash>-s<seed>`.
    pub id: String,
    /// The suite, "table1"; "train" for a run of its own.
    pub suite: String,
    /// The table's row this run is a measurement of, as in the paper's tables file.
    pub row: String,
    /// The method trained by.
    pub method: String,
    /// The data set.
    pub dataset: String,
    /// "verified", "unverified" or "generated".
    pub data_state: String,
    /// "paper", "quick" or "smoke".
    pub profile: String,
    /// "cpu" or "cuda".
    pub device: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// Epochs trained.
    pub epochs: u64,
    /// Images per step.
    pub batch_size: u64,
    /// Images trained on, which are also the gallery.
    pub train_images: u64,
    /// Images tested on.
    pub test_images: u64,
    /// Channels of the first stage.
    pub width: u64,
    /// The network.
    pub model: String,
    /// "code" or "paper", or whichever switches were set.
    pub protocol: String,
    /// What was asked for beside the suite, its profile, seed and device: `dataset=cub200-2010`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Rows of other suites that share this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The metric that the best epoch was chosen by.
    #[serde(default = "knn_top1")]
    pub main_metric: String,
    /// `knn_top1` and so on: last and best, in percent.
    pub metrics: BTreeMap<String, MetricSummary>,
    /// Time the run took over all sittings, in seconds.
    pub seconds: f64,
    /// Images (not views) trained on per second; null for a run without training.
    pub images_per_second: Option<f64>,
    /// The most memory held; null where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Hash of the resolved config.
    pub config_hash: String,
    /// When it was begun, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    pub finished: String,
    /// Program and version.
    pub version: String,
    /// Revision of the repository it was run in.
    pub git: Option<String>,
    /// The compiler.
    pub rustc: String,
    /// The processor.
    pub cpu: String,
    /// Threads used.
    pub threads: u64,
    /// The run's folder, relative to `runs.root`.
    pub path: String,
    /// Whether anything is less than the paper's recipe: images, width or epochs.
    pub reduced: bool,
}

/// A record and the folder it lies in.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// The record.
    pub record: RunRecord,
    /// Where the run's other files are.
    pub layout: Layout,
}

/// The only one there was when records did not say.
fn knn_top1() -> String {
    "knn_top1".to_owned()
}

impl RunRecord {
    /// Writes the record to its place in `layout`.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.record(), self)
    }

    /// Returns whether the run is a measurement of `row`, under its own name or one that it is shared under.
    pub fn is_of_row(&self, row: &str) -> bool {
        self.row == row || self.also.iter().any(|other| other == row)
    }

    /// Reads the record of the run in `layout`.
    ///
    /// # Errors
    /// `Io` or `Damaged`, naming the path; `Damaged` also if the record is of another run than its folder is named after.
    pub fn read(layout: &Layout) -> Result<Self, RecordError> {
        const EXPECTED: &str = "the record of the run that the folder is named after";
        const REMEDY: &str =
            "delete the file and ask for the run again: the record is written anew from the checkpoint";
        let path = layout.record();
        let record: Self = read_json(&path, EXPECTED, REMEDY)?;
        if layout.folder().file_name().is_some_and(|name| name != record.id.as_str()) {
            let found = format!("the record of run {}", record.id);
            return Err(RecordError::Damaged { path, found, expected: EXPECTED, remedy: REMEDY });
        }
        Ok(record)
    }
}

/// The records of all finished runs under `root` (`runs.root`), ordered by folder. Runs without one are left out.
///
/// # Errors
/// If `root` or a record cannot be read or is damaged: a table with a run silently missing would be a false one.
pub fn load_records(root: &Path) -> Result<Vec<StoredRecord>, RecordError> {
    let mut records = Vec::new();
    for group in folders(root)? {
        for folder in folders(&group)? {
            let layout = Layout::of(folder);
            let path = layout.record();
            if path.try_exists().map_err(RecordError::io("read", &path))? {
                records.push(StoredRecord { record: RunRecord::read(&layout)?, layout });
            }
        }
    }
    Ok(records)
}

impl Layout {
    /// Returns the runs that have a folder under that of `suite` in `root` (`runs.root`), in order of name; none if there is no such folder.
    ///
    /// # Errors
    /// `Io` naming the path.
    pub fn all_of(root: &Path, suite: &str) -> Result<Vec<Self>, RecordError> {
        let group = root.join(suite);
        if !group.is_dir() {
            return Ok(Vec::new());
        }
        Ok(folders(&group)?.into_iter().map(Self::of).collect())
    }
}

/// The folders in `folder`, in order of name.
fn folders(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    list().map_err(RecordError::io("read", folder))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{RunRecord, load_records};
    use crate::record::{Layout, MetricSummary, RecordError};
    use std::collections::BTreeMap;
    use std::fs;

    fn record(id: &str) -> RunRecord {
        let summary = MetricSummary { last: 50.0, best: 50.1, best_epoch: 9 };
        RunRecord {
            id: id.into(),
            suite: "table1".into(),
            row: "invaspread".into(),
            method: "invaspread".into(),
            dataset: "cifar10".into(),
            data_state: "unverified".into(),
            profile: "quick".into(),
            device: "cpu".into(),
            seed: 0,
            epochs: 10,
            batch_size: 64,
            train_images: 10_000,
            test_images: 2000,
            width: 16,
            model: "resnet18".into(),
            protocol: "code".into(),
            arguments: Vec::new(),
            also: Vec::new(),
            main_metric: "knn_top1".into(),
            metrics: BTreeMap::from([("knn_top1".into(), summary)]),
            seconds: 123.4,
            images_per_second: None,
            peak_memory_bytes: Some(1 << 30),
            config_hash: "abc".into(),
            started: "2026-11-23T01:00:00Z".into(),
            finished: "2026-11-23T01:02:03Z".into(),
            version: "invaspread 0.1.0".into(),
            git: None,
            rustc: "rustc 1.95.0".into(),
            cpu: "unknown".into(),
            threads: 2,
            path: format!("table1/{id}"),
            reduced: true,
        }
    }

    fn store(root: &tempfile::TempDir, suite: &str, id: &str) -> Layout {
        let layout = Layout::new(root.path(), Some(suite), id);
        fs::create_dir_all(layout.folder()).unwrap();
        record(id).write(&layout).unwrap();
        layout
    }

    #[test]
    fn finished_runs_are_found_in_order() {
        let root = tempfile::tempdir().unwrap();
        for (suite, id) in [("train", "a-s0"), ("table1", "b-s1"), ("table1", "a-s1")] {
            store(&root, suite, id);
        }
        fs::create_dir_all(root.path().join("table1/unfinished-s0")).unwrap();
        fs::write(root.path().join("notes.txt"), b"").unwrap();
        let found = load_records(root.path()).unwrap();
        let ids: Vec<&str> = found.iter().map(|r| r.record.id.as_str()).collect();
        assert_eq!(ids, ["a-s1", "b-s1", "a-s0"]);
        assert_eq!(found[1].record, record("b-s1"));
        assert_eq!(found[1].layout.folder(), root.path().join("table1/b-s1"));
    }

    #[test]
    fn the_json_has_the_agreed_names() {
        let json = serde_json::to_value(record("x-s0")).unwrap();
        assert_eq!(json["metrics"]["knn_top1"]["best_epoch"], 9);
        assert!(json["git"].is_null() && json["images_per_second"].is_null());
        assert_eq!(json["peak_memory_bytes"], 1u64 << 30);
    }

    #[test]
    fn damaged_and_misplaced_records_are_named() {
        let root = tempfile::tempdir().unwrap();
        let layout = store(&root, "table1", "a-s0");
        let whole = fs::read(layout.record()).unwrap();
        let closing = whole.iter().rposition(|&b| b == b'}').unwrap();
        for length in (0..=closing).step_by(7) {
            fs::write(layout.record(), &whole[..length]).unwrap();
            let error = load_records(root.path()).unwrap_err();
            assert!(matches!(error, RecordError::Damaged { .. }), "{length}: {error}");
        }
        let text = load_records(root.path()).unwrap_err().to_string();
        assert!(
            text.contains("table1/a-s0/record.json: found") && text.contains("delete the file"),
            "{text}"
        );

        fs::write(
            layout.record(),
            String::from_utf8(whole).unwrap().replace("\"seed\": 0", "\"seed\": \"0\""),
        )
        .unwrap();
        let text = load_records(root.path()).unwrap_err().to_string();
        assert!(text.contains("invalid type: string \"0\""), "{text}");

        record("other-s0").write(&layout).unwrap();
        let text = load_records(root.path()).unwrap_err().to_string();
        assert!(text.contains("found the record of run other-s0"), "{text}");
    }

    #[test]
    fn a_missing_root_is_named() {
        let text = load_records("no/such/runs".as_ref()).unwrap_err().to_string();
        assert!(
            text.starts_with("failed to read no/such/runs: ") && text.contains("check the path"),
            "{text}"
        );
    }
}
