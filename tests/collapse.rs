//! A run made to collapse, over the whole program: SimSiam without its stop-gradient (Chen and He, CVPR 2021,
//! section 4.1). The program says so once, also if the run is stopped and resumed after that, and says
//! nothing of the kind about the same run with the stop-gradient.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;

/// A few generated images, a narrow network and short heads. The learning rate and the weight decay are so
/// large that a dozen epochs are enough.
const SETTINGS: &str = "train --profile smoke dataset=synthetic data.subset=null data.test_subset=null data.synthetic.train=256 \
     data.synthetic.test=100 data.synthetic.image_size=16 augment.size=16 model.pool=0 model.width=8 method=simsiam \
     method.projector_hidden=64 method.projector_output=32 method.predictor_hidden=8 optim.batch_size=32 optim.lr=0.1 \
     optim.weight_decay=0.01 optim.epochs=9 protocol.schedule=constant";

/// What the program says of a collapse.
const SAID: &str = "has collapsed";

/// Returns the settings, with or without the stop-gradient.
fn settings(stop_gradient: bool) -> Vec<String> {
    let last = format!("method.stop_gradient={stop_gradient}");
    SETTINGS.split_whitespace().map(str::to_owned).chain([last]).collect()
}

/// Returns the program, ready to work on the run in `folder`.
fn program(folder: &Path, stop_gradient: bool) -> Command {
    let mut command = Command::new(cargo_bin("invaspread"));
    command.current_dir(folder).args(settings(stop_gradient)).env_remove("INVASPREAD_DATA");
    command
}

/// Does the run to its end and returns what the program said.
fn run(folder: &Path, stop_gradient: bool) -> String {
    let output = program(folder, stop_gradient).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// Starts the run and stops it by SIGTERM, which no parent has made it ignore, when it says that it has collapsed. Returns what it said.
fn stopped_at_the_collapse(folder: &Path) -> String {
    let mut child = program(folder, false).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains(SAID) {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(!child.wait().unwrap().success(), "the run was stopped: {said}");
    said
}

/// Returns the shape of the embedding in the record of the folder's only run.
fn shape(folder: &Path) -> serde_json::Value {
    let runs = folder.join("runs/train");
    let run = std::fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    let record = std::fs::read(run.join("record.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&record).unwrap()["shape"].clone()
}

#[test]
fn a_collapse_is_said_once_and_only_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let first = stopped_at_the_collapse(folder.path());
    assert_eq!(first.matches(SAID).count(), 1, "{first}");
    assert!(first.contains("spread 0.0") && first.contains("stop-gradient"), "{first}");
    let resumed = run(folder.path(), false);
    assert!(!resumed.contains(SAID), "said again: {resumed}");
    let collapsed = shape(folder.path());

    let folder = tempfile::tempdir().unwrap();
    let healthy = run(folder.path(), true);
    assert!(!healthy.contains(SAID), "{healthy}");
    let healthy = shape(folder.path());
    for name in ["rankme", "projection_rankme"] {
        let of = |shape: &serde_json::Value| shape[name].as_f64().unwrap();
        assert!(of(&collapsed) < of(&healthy), "{name}: {collapsed} {healthy}");
    }
}
