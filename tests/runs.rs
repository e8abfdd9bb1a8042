//! Tests of `invaspread runs` from outside: the runs of a folder, finished or not, are listed, shown, compared and exported.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{done, empty, invaspread, refused};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Trains an untrained network and NCE for one epoch, and leaves a third run stopped.
fn trained() -> tempfile::TempDir {
    let folder = empty();
    let tiny = [
        "--profile",
        "smoke",
        "optim.epochs=1",
        "data.synthetic.train=32",
        "data.synthetic.test=16",
        "data.synthetic.image_size=16",
        "augment.size=16",
        "model.pool=2",
        "model.width=8",
        "optim.batch_size=16",
    ];
    for method in ["method=random", "method=nce"] {
        done(folder.path(), &[&["train", method][..], &tiny].concat());
    }
    // A run that was stopped has a config and a status.
    let stopped = folder.path().join("runs/train/00000000aaaa-s5");
    fs::create_dir_all(&stopped).unwrap();
    fs::write(stopped.join("config.toml"), "[method]\nname = \"byol\"\n[optim]\nepochs = 9\n").unwrap();
    fs::write(
        stopped.join("status.json"),
        "{\"state\": \"interrupted\", \"epoch\": 4, \"updated\": \"2001-01-01T00:00:00Z\", \"message\": null}",
    )
    .unwrap();
    folder
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(folder, &[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn runs_are_listed_shown_compared_and_exported() {
    let folder = trained();
    let at = folder.path();
    let said = done(at, &["runs", "list"]);
    assert!(said.contains("3 runs: 2 finished, 1 stopped") && said.contains("4/9"), "{said}");
    assert!(said.contains("kNN ") && said.contains('%'), "{said}");
    let all = json(at, &["runs", "list"]);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 3);

    let of = |conditions: &[&str]| {
        let found = json(at, &[&["runs", "list"], conditions].concat());
        found
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["method"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&["method=nce,byol", "state=finished"]), ["nce"]);
    assert_eq!(of(&["optim.epochs>=5"]), ["byol"]);
    assert_eq!(of(&["knn_top1>=0", "epoch=0"]), ["random"]);
    assert!(of(&["method=swav"]).is_empty());
    assert_eq!(done(at, &["runs", "list", "method=swav"]), "no runs\n");
    // Runs without the metric come last, whichever way the others are sorted.
    for order in [&["--sort", "knn_top1"][..], &["--sort", "knn_top1", "--descending"]] {
        let found = of(order);
        assert_eq!((found.len(), found[2].as_str()), (3, "byol"), "{found:?}");
        let values = json(at, &[&["runs", "list"], order].concat());
        let values: Vec<f64> = [0, 1]
            .map(|place| values[place]["record"]["metrics"]["knn_top1"]["last"].as_f64().unwrap())
            .into();
        assert!(if order.len() == 2 { values[0] <= values[1] } else { values[0] >= values[1] }, "{values:?}");
    }

    let id = |method: &str| {
        let run = all.iter().find(|run| run["method"] == method).unwrap();
        run["run"].as_str().unwrap().strip_prefix("train/").unwrap().to_owned()
    };
    let (random, nce) = (id("random"), id("nce"));
    let said = done(at, &["runs", "show", &nce[..6]]);
    for words in ["state:       finished, 1 epoch", "method:      nce", "memory:", "kNN"] {
        assert!(said.contains(words), "expected {words:?} in {said}");
    }
    let shown = json(at, &["runs", "show", &format!("runs/train/{nce}")]);
    assert_eq!((&shown["config"]["method.name"], &shown["seed"]), (&"nce".into(), &0.into()));
    assert!(done(at, &["runs", "show", "00000000"]).contains("stopped, 4 of 9 epochs"));

    let said = done(at, &["runs", "diff", &random, &nce]);
    assert!(said.contains("method.name") && said.contains("the same circumstances"), "{said}");
    let differing = json(at, &["runs", "diff", &random, &nce]);
    assert_eq!(differing["settings"]["method.name"], serde_json::json!(["random", "nce"]));
    let metric = &differing["metrics"]["knn_top1"];
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(
        number(&metric["difference"]).to_bits(),
        (number(&metric["values"][0]) - number(&metric["values"][1])).to_bits()
    );
    assert!(done(at, &["runs", "diff", &nce, &nce]).contains("the same settings"));

    done(at, &["runs", "export", "all.csv"]);
    let table = fs::read_to_string(at.join("all.csv")).unwrap();
    let mut lines = table.lines();
    let heads: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert!(
        heads.starts_with(&["run", "suite", "row", "state"]) && heads.contains(&"best_knn_top1"),
        "{heads:?}"
    );
    assert!(heads.contains(&"optim.lr") && lines.count() == 3, "{table}");
    done(at, &["runs", "export", "all.csv", "method=nce"]);
    assert_eq!(fs::read_to_string(at.join("all.csv")).unwrap().lines().count(), 2);
    done(at, &["runs", "export", "all.json"]);
    let exported: Value = serde_json::from_slice(&fs::read(at.join("all.json")).unwrap()).unwrap();
    assert_eq!(exported["runs"].as_array().unwrap().len(), 3);
}

#[test]
fn runs_are_removed_when_that_is_confirmed() {
    let folder = trained();
    let at = folder.path();
    let stopped = at.join("runs/train/00000000aaaa-s5");
    let said = invaspread(at, &["runs", "rm", "00000000", "state=stopped"]);
    assert!(said.out.contains("00000000aaaa-s5 (stopped)") && said.out.lines().count() == 1, "{}", said.out);
    assert!(said.err.contains("--yes") && stopped.is_dir(), "{}", said.err);
    assert!(done(at, &["runs", "rm", "state=stopped", "--yes"]).contains("removed"));
    assert!(!stopped.exists());
    assert_eq!(json(at, &["runs", "list"]).as_array().unwrap().len(), 2);
    done(at, &["runs", "rm", "method=byol,nce", "state=failed", "--yes"]);
    assert_eq!(json(at, &["runs", "list"]).as_array().unwrap().len(), 2, "both conditions must hold");
    refused(at, &["runs", "rm", "zz"], 2, &["found no run zz"]);
    refused(at, &["runs", "rm"], 2, &["RUN|CONDITION"]);
}

#[test]
fn what_is_wrong_with_a_request_or_a_run_is_told() {
    let folder = trained();
    let at = folder.path();
    refused(at, &["runs", "list", "optim.rl=1"], 2, &["`optim.rl`, which no run has", "a metric (knn_top1"]);
    refused(at, &["runs", "list", "--sort", "kn"], 2, &["`kn`, which no run has"]);
    refused(at, &["runs", "list", "--runs", "elsewhere"], 2, &["no folder elsewhere", "--runs FOLDER"]);
    refused(at, &["runs", "show", "zz"], 2, &["found no run zz", "runs list"]);
    refused(at, &["runs", "show", "train/"], 2, &["found 3 runs that begin with"]);
    fs::write(at.join("mine.csv"), "a,b\n").unwrap();
    refused(at, &["runs", "export", "mine.csv"], 2, &["mine.csv", "did not write"]);
    refused(at, &["runs", "export", "runs.txt"], 2, &["runs.txt", ".csv or .json"]);
    let said = invaspread(at, &["runs", "list", "knn_top1>many"]);
    assert!(said.code == Some(2) && said.err.contains("a number after >="), "{}", said.err);

    // A damaged run is one of the list, with the reason.
    fs::write(at.join("runs/train/00000000aaaa-s5/status.json"), "{").unwrap();
    let said = invaspread(at, &["runs", "list"]);
    assert!(said.code == Some(0) && said.out.contains("1 unreadable"), "{}", said.out);
    assert!(said.err.contains("train/00000000aaaa-s5") && said.err.contains("status.json"), "{}", said.err);
    fs::create_dir(at.join("none")).unwrap();
    assert_eq!(done(at, &["runs", "list", "--runs", "none", "method=nce"]), "no runs\n");
}
