//! A queue of runs on several GPUs, tested from outside: each GPU gets runs, no run is lost if a process
//! dies, and a request to stop reaches all processes. The tests run on the emulator's two devices and are
//! skipped if there are fewer than two.

#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use invaspread_tensor::DeviceKind;
use serde_json::Value;

const RUNS: usize = 4;

fn has_two_gpus() -> bool {
    let gpus = DeviceKind::gpus();
    let expected = std::env::var_os("INVASPREAD_EMULATOR_DEVICES").is_some();
    assert!(gpus > 1 || !expected, "{:?}", DeviceKind::Cuda(1).why_not());
    gpus > 1
}

/// Returns the command of four runs of a few seconds each.
fn command(folder: &Path, epochs: usize, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invaspread"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["train", "--multirun", "seed=0,1", "method=invaspread,npsoftmax", "device=cuda"]);
    command.args(["dataset=synthetic", "profile=smoke", "model.width=4", "model.embedding=8", "eval.k=5"]);
    command.args(["data.synthetic.train=32", "data.synthetic.test=16", "optim.batch_size=16"]);
    command.args(["data.synthetic.image_size=16", "augment.size=16", "model.pool=2"]);
    command.arg(format!("optim.epochs={epochs}")).args(more);
    command
}

fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let runs = fs::read_dir(folder.join("runs/train")).into_iter().flatten().flatten();
    runs.map(|run| run.path().join(name)).filter(|path| path.is_file()).collect()
}

/// Returns the GPU and the measurements of each finished run.
fn records(folder: &Path) -> BTreeMap<String, (String, Value)> {
    files(folder, "record.json")
        .iter()
        .map(|path| {
            let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let text = |key: &str| record[key].as_str().unwrap().to_owned();
            assert_eq!(text("device"), "cuda");
            (text("id"), (text("gpu"), record["metrics"].clone()))
        })
        .collect()
}

fn waited(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Waits until `found` returns a value.
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(3), "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// Returns the processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let is_child = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    };
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

#[test]
fn runs_are_spread_over_the_gpus_and_come_to_the_same() {
    if !has_two_gpus() {
        return;
    }
    let (both, one) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (code, said) = waited(command(both.path(), 2, &[]).spawn().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("a process on each of cuda:0, cuda:1"), "{said}");
    for gpu in ["cuda:0  ", "cuda:1  "] {
        assert!(
            said.lines().any(|line| line.starts_with(gpu) && line.contains("epoch 2/2")),
            "{gpu}: {said}"
        );
    }
    let found = records(both.path());
    assert_eq!(found.len(), RUNS);
    for gpu in ["(cuda:0)", "(cuda:1)"] {
        assert!(found.values().any(|(on, _)| on.ends_with(gpu)), "{found:?}");
    }
    // With one numbered GPU alone, the runs have the same names and results.
    let (code, said) = waited(command(one.path(), 2, &["--gpus", "1"]).spawn().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("a process on each"), "{said}");
    let alone = records(one.path());
    assert!(alone.values().all(|(on, _)| on.ends_with("(cuda:1)")), "{alone:?}");
    let measured = |records: &BTreeMap<String, (String, Value)>| -> Vec<(String, Value)> {
        records.iter().map(|(id, (_, metrics))| (id.clone(), metrics.clone())).collect()
    };
    assert_eq!(measured(&found), measured(&alone));
    // A GPU that does not exist, and runs on the CPU, are errors of the request.
    let (code, said) = waited(command(one.path(), 2, &["--gpus", "0,9"]).spawn().unwrap());
    assert!(code == Some(2) && said.contains("there is no cuda:9: there are 2 GPUs"), "{code:?}: {said}");
    let mut on_cpu = Command::new(env!("CARGO_BIN_EXE_invaspread"));
    on_cpu.args(["train", "dataset=synthetic", "profile=smoke", "device=cpu", "--gpus", "0"]);
    let (code, said) = waited(on_cpu.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    assert!(code == Some(2) && said.contains("--gpus") && said.contains("device=cuda"), "{code:?}: {said}");
}

#[test]
fn a_process_that_dies_loses_no_run() {
    if !has_two_gpus() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let parent = command(folder.path(), 6, &[]).spawn().unwrap();
    let worker = until("a run of a second process", || {
        let begun = files(folder.path(), "status.json").len() > 1;
        children(parent.id()).into_iter().next().filter(|_| begun)
    });
    signal("-KILL", worker);
    let (code, said) = waited(parent);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ended early") && said.contains("others do its runs"), "{said}");
    assert_eq!(records(folder.path()).len(), RUNS);
}

#[test]
fn a_request_to_stop_reaches_every_process_and_the_same_command_resumes() {
    if !has_two_gpus() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let parent = command(folder.path(), 6, &[]).spawn().unwrap();
    let workers = until("two runs", || {
        let workers = children(parent.id());
        (files(folder.path(), "status.json").len() > 1 && workers.len() == 2).then_some(workers)
    });
    // No interrupt is sent, because a process that a shell without job control starts in the background
    // ignores it.
    signal("-TERM", parent.id());
    let (code, said) = waited(parent);
    assert_eq!(code, Some(130), "{said}");
    assert!(workers.iter().all(|worker| !Path::new(&format!("/proc/{worker}")).exists()), "all have ended");
    assert!(records(folder.path()).len() < RUNS);
    let (code, said) = waited(command(folder.path(), 6, &[]).spawn().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(records(folder.path()).len(), RUNS);
}
