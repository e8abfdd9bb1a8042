#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Filter, FilterError, FoundRun, RunState, find};
use crate::record::{Layout, Owner, RunDirectory, State, Status};
use std::path::Path;

/// Writes a run with a config and a status, and returns its layout.
fn begun(root: &Path, name: &str, state: State, config: &str) -> Layout {
    let layout = Layout::of(root.join(name));
    std::fs::create_dir_all(layout.folder()).unwrap();
    std::fs::write(layout.config(), config).unwrap();
    let message = (state == State::Failed).then(|| "no room".to_owned());
    Status { state, epoch: 3, updated: "2001-01-01T00:00:00Z".into(), message }.write(&layout).unwrap();
    layout
}

fn holds(filter: &str, run: &FoundRun) -> bool {
    filter.parse::<Filter>().unwrap().holds(run)
}

#[test]
fn a_run_is_what_its_files_say() {
    let root = tempfile::tempdir().unwrap();
    let config =
        "[optim]\nlr = 0.03\nepochs = 10\n[method]\nname = \"nce\"\n[augment]\nwithout = [\"flip\"]\n";
    for (name, state) in [
        ("a-s0", State::Interrupted),
        ("b-s1", State::Failed),
        ("c-s2", State::Queued),
        ("d-s3", State::Running),
    ] {
        begun(root.path(), &format!("table1/{name}"), state, config);
    }
    // A process that runs: this one. And one of another machine, and another that has been silent for long.
    for (name, host) in [("e-s4", None), ("f-s5", Some("elsewhere")), ("a1-s6", Some("elsewhere"))] {
        let layout = begun(root.path(), &format!("table1/{name}"), State::Running, config);
        let held = RunDirectory::claim(layout.clone(), RunDirectory::LEASE).unwrap();
        if let Some(host) = host {
            let claim = layout.folder().join("lease-000001");
            let text = std::fs::read_to_string(&claim).unwrap();
            let here = Owner::of(&layout).unwrap().host;
            std::fs::write(&claim, text.replace(&format!("\"{here}\""), &format!("\"{host}\""))).unwrap();
        }
        std::mem::forget(held);
        if name == "a1-s6" {
            let long_ago = std::time::SystemTime::now() - RunDirectory::LEASE * 3;
            let names = std::fs::read_dir(layout.folder()).unwrap().map(|entry| entry.unwrap().path());
            let beat = names.map(|path| path.join("beat")).find(|path| path.exists()).unwrap();
            std::fs::File::options().write(true).open(beat).unwrap().set_modified(long_ago).unwrap();
        }
    }
    begun(root.path(), "train/ab-s0", State::Running, "optim = [");
    // Neither is a run.
    std::fs::create_dir_all(root.path().join("table1-report/pictures")).unwrap();
    begun(root.path(), "train/notes", State::Done, config);

    let runs = find(root.path()).unwrap();
    let said: Vec<(&str, &str)> = runs.iter().map(|run| (run.name.as_str(), run.state.name())).collect();
    assert_eq!(
        said,
        [
            ("table1/a-s0", "stopped"),
            ("table1/a1-s6", "silent"),
            ("table1/b-s1", "failed"),
            ("table1/c-s2", "queued"),
            ("table1/d-s3", "killed"),
            ("table1/e-s4", "running"),
            ("table1/f-s5", "elsewhere"),
            ("train/ab-s0", "unreadable"),
        ]
    );
    assert_eq!(runs[2].state.details().unwrap(), "no room");
    assert!(runs[1].state.details().unwrap().contains("gave no sign of life for about 18"));
    assert!(matches!(&runs[7].state, RunState::Unreadable(why) if why.contains("config.toml")));
    let run = &runs[2];
    assert_eq!(run.epochs(), [Some(3), Some(10)]);
    let values =
        ["suite", "seed", "method", "optim.lr", "augment.without", "knn_top1"].map(|key| run.value(key));
    let expected = [Some("table1"), Some("1"), Some("nce"), Some("0.03"), Some("[\"flip\"]"), None];
    assert_eq!(values, expected.map(|value| value.map(str::to_owned)));
    assert!(find(&root.path().join("none")).is_err());
}

#[test]
fn conditions_choose_runs() {
    let root = tempfile::tempdir().unwrap();
    begun(root.path(), "table1/a-s7", State::Interrupted, "[optim]\nlr = 0.03\n[method]\nname = \"nce\"\n");
    let run = &find(root.path()).unwrap()[0];
    for yes in [
        "method=nce",
        "method = npsoftmax, nce",
        "seed=7",
        "seed=7.0",
        "seed>=7",
        "optim.lr<0.1",
        "optim.lr!=0.1",
        "state!=finished",
        "suite=table1",
        "knn_top1!=3",
        "epoch<=3",
    ] {
        assert!(holds(yes, run), "{yes}");
    }
    for no in ["method=NCE", "method!=nce", "seed>7", "optim.lr=0.3", "knn_top1>=0", "suite>0", "run=a"] {
        assert!(!holds(no, run), "{no}");
    }
    for text in ["nce", "=nce", "method=", "seed>many", "seed>1,2", "seed>nan", ""] {
        assert_eq!(text.parse::<Filter>().unwrap_err(), FilterError::Form(text.to_owned()));
    }
    let runs = std::slice::from_ref(run);
    Filter::check_all(["optim.lr", "row", "seconds"].into_iter(), runs).unwrap();
    let told = Filter::check_all(["optim.rl"].into_iter(), runs).unwrap_err().to_string();
    assert!(
        told.contains("`optim.rl`, which no run has") && told.contains("run, suite, row, state"),
        "{told}"
    );
}
