//! Finished runs whose files are lost or damaged: the files that can be made again are made again, without
//! training and with the same bytes; an error names the others. The tests use a set with known classes (kNN)
//! and one with unseen test classes (retrieval).

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod queue;
mod stripes;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use invaspread_data::sample::pictures::birds;
use invaspread_data::{DataConfig, RetrievalConfig};
use invaspread_runner::engine::End;
use invaspread_runner::launch::{Planned, Standing};
use invaspread_runner::record::{Layout, RunRecord, Status};
use queue::{Watch, nce, planned};
use stripes::{SIDE, random};

/// Returns all files of a run except the log and the claim, by path.
fn files(layout: &Layout) -> BTreeMap<String, Vec<u8>> {
    fn visit(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                visit(&entry.path(), &format!("{name}/"), found);
            } else if name != "log.jsonl" && !name.starts_with("lease-") {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(layout.folder(), "", &mut found);
    found
}

/// Restores exactly the files that `files` returned.
fn put_back(layout: &Layout, whole: &BTreeMap<String, Vec<u8>>) {
    for name in files(layout).keys() {
        fs::remove_file(layout.folder().join(name)).unwrap();
    }
    for (name, bytes) in whole {
        fs::write(layout.folder().join(name), bytes).unwrap();
    }
}

/// Asks for the run again, which takes no step of training.
fn again(run: &Planned, root: &Path) -> Watch {
    let watch = queue::go(std::slice::from_ref(run), root, None);
    assert_eq!((watch.steps, watch.ends.len()), (0, 1), "{:?}", watch.ends);
    watch
}

/// A way to damage a file, and its name.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 4] = [
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("emptied", |path| fs::write(path, b"").unwrap()),
    ("cut", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("flipped", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }),
];

fn every_file_is_made_again(run: &Planned, root: &Path, expected: &[&str]) {
    let trained = queue::go(std::slice::from_ref(run), root, None);
    assert!(matches!(trained.ends[..], [End::Done { .. }]), "{:?}", trained.ends);
    let layout = run.layout(root);
    let whole = files(&layout);
    let record = RunRecord::read(&layout).unwrap();
    let best_is_last = record.metrics[&record.main_metric].best_epoch as u64 == record.epochs;
    let names: Vec<&str> = whole.keys().map(String::as_str).filter(|name| !name.starts_with("tb/")).collect();
    assert_eq!(names, expected);
    assert_eq!(again(run, root).ends, [End::AlreadyDone]);
    assert_eq!(files(&layout), whole, "nothing was touched");

    for name in whole.keys() {
        for (damage, inflict) in DAMAGES {
            let what = format!("{name} {damage}");
            inflict(&layout.folder().join(name));
            // A missing list is no fault: runs of earlier versions have none.
            let is_noticed = !(name == "files.json" && damage == "removed");
            if is_noticed && name != "files.json" {
                let standing = run.standing(root).unwrap();
                let Standing::Incomplete { faults } = standing else { panic!("{what}: {standing:?}") };
                assert!(faults.len() == 1 && faults[0].file == *name, "{what}: {faults:?}");
            }
            let found = again(run, root);
            let is_lost = name.ends_with("last.state.safetensors")
                || (name.ends_with("best.safetensors") && !best_is_last);
            if is_lost {
                assert_eq!(found.ends, [End::AlreadyDone], "{what}");
                let said = |note: &String| note.contains(name.as_str()) && note.contains("results are whole");
                assert!(found.notes.iter().any(said), "{what}: {:?}", found.notes);
                put_back(&layout, &whole);
                continue;
            }
            if is_noticed {
                assert_eq!(found.ends, [End::Repaired { files: vec![name.clone()] }], "{what}");
            } else {
                assert_eq!(found.ends, [End::AlreadyDone], "{what}");
            }
            assert_eq!(again(run, root).ends, [End::AlreadyDone], "{what}");
            let repaired = files(&layout);
            if name.starts_with("tb/") {
                // Event files hold the times at which they were written, and their names contain them.
                let lengths = |files: &BTreeMap<String, Vec<u8>>| -> Vec<usize> {
                    let events = files.iter().filter(|(name, _)| name.starts_with("tb/"));
                    events.map(|(_, bytes)| bytes.len()).collect()
                };
                assert_eq!(lengths(&repaired), lengths(&whole), "{what}");
                put_back(&layout, &whole);
                continue;
            }
            let status = |files: &BTreeMap<String, Vec<u8>>| -> Status {
                let status: Status = serde_json::from_slice(&files["status.json"]).unwrap();
                Status { updated: String::new(), ..status }
            };
            assert_eq!(status(&repaired), status(&whole), "{what}");
            for other in whole.keys().filter(|other| !["status.json", "files.json"].contains(&other.as_str()))
            {
                assert!(repaired[other] == whole[other], "{what}: {other} differs");
            }
            put_back(&layout, &whole);
        }
    }
}

#[test]
fn every_file_of_a_run_with_known_classes_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    every_file_is_made_again(
        &nce(),
        root.path(),
        &[
            "checkpoints/best.safetensors",
            "checkpoints/last.safetensors",
            "checkpoints/last.state.safetensors",
            "config.toml",
            "embeddings/test.safetensors",
            "embeddings/train.safetensors",
            "env.json",
            "files.json",
            "metrics.parquet",
            "record.json",
            "similarity.json",
            "status.json",
        ],
    );
}

#[test]
fn every_file_of_a_run_with_unseen_classes_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data/cub200-2011");
    birds(&data, &[1, 2, 3, 4, 5, 6, 101, 102, 103, 104]);
    let mut run = planned("retrieval", random());
    run.data = DataConfig {
        name: "cub200-2011".to_owned(),
        root: Some(root.path().join("data")),
        cache: Some(root.path().join("cache")),
        partial: Some(true),
        retrieval: Some(RetrievalConfig { image_size: SIDE, ..RetrievalConfig::default() }),
        ..run.data
    };
    // The run is not trained, so the last network is also the best.
    every_file_is_made_again(
        &run,
        &root.path().join("runs"),
        &[
            "checkpoints/best.safetensors",
            "checkpoints/last.safetensors",
            "checkpoints/last.state.safetensors",
            "config.toml",
            "embeddings/test.safetensors",
            "env.json",
            "files.json",
            "metrics.parquet",
            "record.json",
            "status.json",
        ],
    );
}

#[test]
fn what_no_file_holds_any_more_is_said_and_nothing_is_trained() {
    let root = tempfile::tempdir().unwrap();
    let run = nce();
    queue::go(std::slice::from_ref(&run), root.path(), None);
    let layout = run.layout(root.path());
    let whole = files(&layout);
    let log = fs::read(layout.log()).unwrap();
    let remove = |names: &[&str]| {
        for name in names {
            fs::remove_file(layout.folder().join(name)).unwrap();
        }
    };
    let (state, last) = ("checkpoints/last.state.safetensors", "checkpoints/last.safetensors");

    // The measurements are in the state alone.
    remove(&["metrics.parquet", state]);
    for _ in 0..2 {
        let found = again(&run, root.path());
        let [End::Failed { message }] = &found.ends[..] else { panic!("{:?}", found.ends) };
        for words in ["metrics.parquet is missing", state, "without training", "move the folder away"] {
            assert!(message.contains(words), "{words}: {message}");
        }
    }
    put_back(&layout, &whole);

    // Embeddings come from either file of weights.
    remove(&["embeddings/test.safetensors", state]);
    let found = again(&run, root.path());
    assert_eq!(found.ends, [End::Repaired { files: vec!["embeddings/test.safetensors".to_owned()] }]);
    assert!(found.notes.iter().any(|note| note.contains(state)), "{:?}", found.notes);
    assert!(files(&layout)["embeddings/test.safetensors"] == whole["embeddings/test.safetensors"]);
    put_back(&layout, &whole);
    remove(&["embeddings/test.safetensors", state, last]);
    let found = again(&run, root.path());
    assert!(matches!(&found.ends[..], [End::Failed { message }] if message.contains("embeddings/test")));
    put_back(&layout, &whole);

    // Without the log, the record comes from the state.
    remove(&["record.json", "log.jsonl"]);
    let found = again(&run, root.path());
    assert_eq!(found.ends, [End::Repaired { files: vec!["record.json".to_owned()] }]);
    let before: RunRecord = serde_json::from_slice(&whole["record.json"]).unwrap();
    let made = RunRecord::read(&layout).unwrap();
    assert!((made.seconds - before.seconds).abs() < 1.0);
    // The peak memory, which no other file holds, is empty; all else is as it was, to the last digit.
    let RunRecord { seconds, finished, .. } = made.clone();
    assert_eq!(made, RunRecord { peak_memory_bytes: None, seconds, finished, ..before });
    put_back(&layout, &whole);
    fs::write(layout.log(), &log).unwrap();

    // All files except the state, the log and the list are lost at once.
    let all: Vec<&str> = whole.keys().map(String::as_str).filter(|name| *name != state).collect();
    remove(&all.iter().copied().filter(|name| *name != "files.json").collect::<Vec<_>>());
    let found = again(&run, root.path());
    let [End::Repaired { files: made }] = &found.ends[..] else {
        panic!("{:?} {:?}", found.ends, found.notes)
    };
    let record: RunRecord = serde_json::from_slice(&whole["record.json"]).unwrap();
    let best_is_last = record.metrics["knn_top1"].best_epoch as u64 == record.epochs;
    assert_eq!(made.len(), all.len() - 1 - usize::from(!best_is_last), "{made:?}");
}

/// Runs of earlier versions have no list of files.
#[test]
fn a_run_without_a_list_is_looked_at_file_by_file_and_gets_one() {
    let root = tempfile::tempdir().unwrap();
    let run = nce();
    queue::go(std::slice::from_ref(&run), root.path(), None);
    let layout = run.layout(root.path());
    let whole = files(&layout);
    for name in
        ["embeddings/train.safetensors", "checkpoints/last.safetensors", "metrics.parquet", "record.json"]
    {
        fs::remove_file(layout.files()).unwrap();
        let path = layout.folder().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes.truncate(if name == "record.json" { middle } else { bytes.len() });
        bytes[middle - 1] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(again(&run, root.path()).ends, [End::Repaired { files: vec![name.to_owned()] }]);
        assert!(files(&layout)[name] == whole[name], "{name}");
        assert!(layout.files().is_file(), "{name}");
        assert_eq!(again(&run, root.path()).ends, [End::AlreadyDone]);
    }
    // A record that was published without the other files counts as finished, and a note says what is
    // missing.
    fs::remove_file(layout.files()).unwrap();
    for folder in [layout.checkpoints(), layout.embeddings(), layout.tensorboard()] {
        fs::remove_dir_all(folder).unwrap();
    }
    let found = again(&run, root.path());
    assert_eq!(found.ends, [End::AlreadyDone]);
    assert!(found.notes.iter().any(|note| note.contains("only its record")), "{:?}", found.notes);
    assert!(!layout.files().exists() && !layout.checkpoints().exists(), "it is left as it is");
}
