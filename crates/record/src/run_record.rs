//! `record.json`: the result of a finished run. Reports are made from it, from `metrics.parquet` and from
//! `similarity.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::json::{parse_json, write_json};
use super::version::first_format;
use super::{FORMAT, Layout, MetricSummary, RecordError, log};

/// The content of `record.json`. Tables depend on these keys, so fields may be added but never renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The version of the folder's formats, [`FORMAT`] when it was written.
    #[serde(default = "first_format")]
    pub format: u32,
    /// `<config hash>-s<seed>`, the name of the run's folder.
    pub id: String,
    /// The suite, such as "table1"; "train" for a single run.
    pub suite: String,
    /// The row of the suite's table that this run measures.
    pub row: String,
    /// The name of the row in tables; `None` if the row's key gives it, and in records that were written
    /// before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The method that the network was trained with.
    pub method: String,
    /// The data set.
    pub dataset: String,
    /// "verified", "unverified" or "generated".
    pub data_state: String,
    /// The profile: "paper", "quick" or "smoke".
    pub profile: String,
    /// The device: "cpu" or "cuda".
    pub device: String,
    /// The GPU on which the run was finished: its model name and its number in the machine, as in "NVIDIA
    /// H200 (cuda:1)"; `None` on the CPU, and in records that were written before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The seed of every random draw.
    pub seed: u64,
    /// The number of epochs trained.
    pub epochs: u64,
    /// Images per step (twice as many views for a method with two views).
    pub batch_size: u64,
    /// The number of training images. Unless the data set has a gallery of its own, they are also the
    /// gallery of kNN.
    pub train_images: u64,
    /// The number of images that were measured: test images, or training images that were held out.
    pub test_images: u64,
    /// Whether the measured images are training images that were held out of training. Then no test image
    /// was measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held_out: bool,
    /// The channels of the network's first stage (64 in the paper).
    pub width: u64,
    /// The network.
    pub model: String,
    /// The protocol, "code" or "paper", or the switches that were set.
    pub protocol: String,
    /// The other arguments of the command, besides the suite, its profile, the seed and the device, as
    /// they were typed: `dataset=cub200-2010`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Rows of other suites that share this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The metric by which the best epoch was chosen.
    #[serde(default = "knn_top1")]
    pub main_metric: String,
    /// The last and the best value of each metric (`knn_top1`, ...), in percent.
    pub metrics: BTreeMap<String, MetricSummary>,
    /// The shape of the embedding after the last epoch: `effective_rank`, `rank_share` (the effective rank
    /// divided by the largest possible one, the smaller of D and n - 1), `rankme`, `uniformity`, `alignment`
    /// and `spread`, and the same with `projection_` before the name, except the alignment, for the rows that the
    /// loss of a method with a projector compares; empty in records that were written before this field existed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shape: BTreeMap<String, f64>,
    /// The wall-clock time of the run in seconds, added up over interruptions.
    pub seconds: f64,
    /// The number of images (not views) per second in training; `None` for a run without training.
    pub images_per_second: Option<f64>,
    /// The processor time of all threads in the training steps, in seconds. Other work on the machine changes it
    /// less than [`Self::seconds`]; a thread that waits for another in a busy loop counts. `None` for a run
    /// without training, where the system does not give it, and in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_processor_seconds: Option<f64>,
    /// The largest resident memory in bytes while the run went on, since it was last resumed; `None` if the
    /// system does not give it. In a record without [`Self::program`] it may be that of a run which the same
    /// process did before.
    pub peak_memory_bytes: Option<u64>,
    /// The hash of the resolved config; the seed is not part of it.
    pub config_hash: String,
    /// The time at which the run was started, RFC 3339.
    pub started: String,
    /// The time at which the run ended, RFC 3339.
    pub finished: String,
    /// The program's name and version.
    pub version: String,
    /// The BLAKE3 hash of the program's file, as in [`Environment::program`](super::Environment::program).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The commit that was checked out where the program was started, which need not be the one that it was
    /// built from; `None` outside of a repository.
    pub git: Option<String>,
    /// The compiler that the program was built with.
    pub rustc: String,
    /// The processor's model name.
    pub cpu: String,
    /// The number of threads.
    pub threads: u64,
    /// The run's folder, relative to `runs.root`.
    pub path: String,
    /// Whether the run has fewer images, channels or epochs than the paper's.
    pub reduced: bool,
}

/// A record and the layout of the folder that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// The record.
    pub record: RunRecord,
    /// The paths of the run's other files.
    pub layout: Layout,
}

/// Returns the default for records written before `main_metric` existed.
fn knn_top1() -> String {
    "knn_top1".to_owned()
}

impl RunRecord {
    /// Writes the record of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        write_json(&layout.record(), self)
    }

    /// Returns whether the run measures `row`, under its own name or under a name in [`Self::also`].
    pub fn is_of_row(&self, row: &str) -> bool {
        self.row == row || self.also.iter().any(|other| other == row)
    }

    /// Reads the record of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, `NewerFormat` or `Damaged`, which name the path, if the file cannot be read or used.
    /// Returns `Damaged` also if the folder is named after another run.
    pub fn read(layout: &Layout) -> Result<Self, RecordError> {
        const EXPECTED: &str = "the record of the run that the folder is named after";
        const REMEDY: &str =
            "delete the file and ask for the run again: the record is written again from the checkpoint";
        #[derive(Deserialize)]
        struct Version {
            #[serde(default = "first_format")]
            format: u32,
        }
        let path = layout.record();
        let bytes = fs::read(&path).map_err(RecordError::io("read", &path))?;
        // The version is read first, since a record of a newer format may lack keys that this format
        // requires.
        let Version { format } = parse_json(&path, &bytes, EXPECTED, REMEDY)?;
        if format > FORMAT {
            return Err(RecordError::NewerFormat { path, found: format });
        }
        let record: Self = parse_json(&path, &bytes, EXPECTED, REMEDY)?;
        let named = format!("{}-s{}", record.config_hash, record.seed);
        if record.id != named || layout.folder().file_name().is_some_and(|name| name != record.id.as_str()) {
            return Err(RecordError::Damaged {
                path,
                found: format!("the record of run {named}"),
                expected: EXPECTED,
                remedy: "if the folder is a copy, delete it; if it was renamed, give it its name back; otherwise delete the file and ask \
                         for the run again: the record is written again from the checkpoint",
            });
        }
        Ok(record)
    }

    /// Returns the record that was written to the run's log when the run finished; `None` if the log holds
    /// none.
    pub fn logged(layout: &Layout) -> Option<Self> {
        log::last(&layout.log(), &["run_finished", "row_added"], "")
    }
}

/// Reads the records of all finished runs under `root` (`runs.root`), ordered by folder. Runs without a
/// record are left out.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// for found in invaspread_record::load_records(root.path())? {
///     println!("{}: {:?}", found.layout.folder().display(), found.record.metrics);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Returns the errors of [`RunRecord::read`], and `Io` if `root` cannot be listed: a table from which a run
/// is missing without notice would be wrong.
pub fn load_records(root: &Path) -> Result<Vec<StoredRecord>, RecordError> {
    let mut records = Vec::new();
    for layout in Layout::all(root)? {
        let path = layout.record();
        if path.try_exists().map_err(RecordError::io("read", &path))? {
            records.push(StoredRecord { record: RunRecord::read(&layout)?, layout });
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{RunRecord, load_records};
    use crate::{FORMAT, Layout, MetricSummary, RecordError};
    use std::collections::BTreeMap;
    use std::fs;

    fn record(id: &str) -> RunRecord {
        let summary = MetricSummary { last: 50.0, best: 50.1, best_epoch: 9 };
        RunRecord {
            format: FORMAT,
            id: id.into(),
            suite: "table1".into(),
            row: "invaspread".into(),
            method: "invaspread".into(),
            dataset: "cifar10".into(),
            data_state: "unverified".into(),
            profile: "quick".into(),
            device: "cpu".into(),
            gpu: None,
            seed: id.split_once("-s").unwrap().1.parse().unwrap(),
            epochs: 10,
            batch_size: 64,
            train_images: 10_000,
            test_images: 2000,
            held_out: false,
            width: 16,
            model: "resnet18".into(),
            protocol: "code".into(),
            label: None,
            arguments: Vec::new(),
            also: Vec::new(),
            main_metric: "knn_top1".into(),
            metrics: BTreeMap::from([("knn_top1".into(), summary)]),
            shape: BTreeMap::from([("rankme".into(), 17.5)]),
            seconds: 123.4,
            images_per_second: None,
            training_processor_seconds: Some(80.5),
            peak_memory_bytes: Some(1 << 30),
            config_hash: id.split_once("-s").unwrap().0.into(),
            started: "2026-11-23T01:00:00Z".into(),
            finished: "2026-11-23T01:02:03Z".into(),
            version: "invaspread 0.1.0".into(),
            program: None,
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
        assert_eq!(json["training_processor_seconds"], 80.5);
    }

    #[test]
    fn the_shape_stands_beside_the_metrics_and_may_be_absent() {
        let json = serde_json::to_value(record("x-s0")).unwrap();
        assert_eq!(json["shape"]["rankme"], 17.5);
        let mut old = json;
        old.as_object_mut().unwrap().remove("shape");
        let read: RunRecord = serde_json::from_value(old.clone()).unwrap();
        assert!(read.shape.is_empty());
        assert_eq!(serde_json::to_value(&read).unwrap(), old, "an old record is written as it was");
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
    fn the_format_is_stated_assumed_where_it_is_not_and_refused_where_it_is_newer() {
        let root = tempfile::tempdir().unwrap();
        let layout = store(&root, "table1", "a-s0");
        let text = fs::read_to_string(layout.record()).unwrap();
        let stated = format!("\"format\": {FORMAT},");
        assert!(text.contains(&stated), "{text}");
        // This is a record from before records stated the format.
        fs::write(layout.record(), text.replace(&stated, "")).unwrap();
        assert_eq!(RunRecord::read(&layout).unwrap(), record("a-s0"));
        // A newer record may have none of the keys that this version knows.
        fs::write(layout.record(), format!("{{\"format\": {}}}", FORMAT + 1)).unwrap();
        let error = RunRecord::read(&layout).unwrap_err();
        assert!(matches!(error, RecordError::NewerFormat { found, .. } if found == FORMAT + 1), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("record.json") && text.contains("format 2") && text.contains("update"),
            "{text}"
        );
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
