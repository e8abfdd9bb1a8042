//! Tests, from outside, of runs whose files were lost, and of signals.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SUITE: &str = r#"
title = "Three rows"
seeds = [0]
overrides = ["dataset=synthetic", "profile=smoke", "optim.epochs=1"]

[[row]]
key = "random"
overrides = ["method=random"]

[[row]]
key = "nce"
overrides = ["method=nce"]

[[row]]
key = "invaspread"
overrides = ["method=invaspread"]
"#;

fn folder_with_suite() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("experiments/suite")).unwrap();
    fs::write(folder.path().join("experiments/suite/trio.toml"), SUITE).unwrap();
    folder
}

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invaspread"));
    command.env_remove("INVASPREAD_DATA").env_remove("INVASPREAD_LOG").env("RUST_BACKTRACE", "0");
    command.current_dir(folder).args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn done(output: &Output) -> (String, String) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    (out, err)
}

fn runs_of(folder: &Path, suite: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("runs").join(suite)).unwrap();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    runs
}

#[test]
fn a_lost_table_of_measurements_is_named_by_report_and_made_again_by_reproduce() {
    let folder = folder_with_suite();
    let reproduce = || program(folder.path(), &["reproduce", "trio"]).output().unwrap();
    let report = || program(folder.path(), &["report", "trio", "--out", "out"]).output().unwrap();
    done(&reproduce());
    let runs = runs_of(folder.path(), "trio");
    let whole = fs::read(runs[0].join("metrics.parquet")).unwrap();
    fs::remove_file(runs[0].join("metrics.parquet")).unwrap();
    let mut bytes = fs::read(runs[1].join("metrics.parquet")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(runs[1].join("metrics.parquet"), bytes).unwrap();

    let said = report();
    let err = text(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{err}");
    for run in &runs[..2] {
        assert!(
            err.contains(&format!("{}: metrics.parquet is", run.file_name().unwrap().display())),
            "{err}"
        );
    }
    assert!(err.contains("invaspread reproduce trio"), "{err}");

    let (_, err) = done(&reproduce());
    assert!(err.contains("1 finished, 2 finished with files missing or damaged, 0 to do"), "{err}");
    assert_eq!(err.matches("made again without training: metrics.parquet").count(), 2, "{err}");
    assert!(fs::read(runs[0].join("metrics.parquet")).unwrap() == whole);
    done(&report());

    // A run that is not finished is left out, and the program says so.
    let status = fs::read_to_string(runs[2].join("status.json")).unwrap();
    fs::write(runs[2].join("status.json"), status.replace("done", "interrupted")).unwrap();
    fs::remove_file(runs[2].join("files.json")).unwrap();
    let (_, err) = done(&report());
    let name = runs[2].file_name().unwrap().display().to_string();
    assert!(err.contains("1 run is not finished and left out") && err.contains(&name), "{err}");
    assert!(err.contains("no finished run of"), "{err}");
}

/// The longest time to wait for anything here, even on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// A small run of more epochs than any test waits for. It is killed when a test fails.
struct LongRun(Child);

impl Drop for LongRun {
    fn drop(&mut self) {
        // A process that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl LongRun {
    /// Starts the run in `folder`, by a shell that first executes `shell`, and waits until its first epoch is
    /// done.
    fn new(folder: &Path, shell: &str) -> Self {
        let arguments = "train method=nce profile=smoke optim.epochs=100000 optim.batch_size=16 model.width=4 model.embedding=8 \
                         data.synthetic.train=32 data.synthetic.test=16 data.subset=32 data.test_subset=16";
        let mut command = Command::new("sh");
        command
            .current_dir(folder)
            .env_remove("INVASPREAD_DATA")
            .args(["-c", &format!("{shell} \"$0\" {arguments}")])
            .arg(env!("CARGO_BIN_EXE_invaspread"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let run = Self(command.spawn().unwrap());
        let from = Instant::now();
        while status(folder).is_none_or(|status| status["epoch"].as_u64() <= Some(0)) {
            assert!(from.elapsed() < PATIENCE, "no epoch is through");
            std::thread::sleep(Duration::from_millis(10));
        }
        run
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Checks that the run has ended as a run that was asked to stop, so that the same command can resume it.
    #[track_caller]
    fn was_stopped(mut self, folder: &Path) {
        assert_eq!(self.0.wait().unwrap().code(), Some(130));
        let status = status(folder).unwrap();
        assert_eq!(status["state"], "interrupted", "{status}");
    }
}

fn status(folder: &Path) -> Option<serde_json::Value> {
    let run = fs::read_dir(folder.join("runs/train")).ok()?.next()?.unwrap().path();
    serde_json::from_slice(&fs::read(run.join("status.json")).ok()?).ok()
}

#[test]
fn a_closed_terminal_stops_a_run_so_that_it_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    // If the tests themselves were started with `nohup`, a shell cannot undo that.
    let run = LongRun::new(folder.path(), "exec env --default-signal=HUP");
    run.signal("-HUP");
    run.signal("-HUP");
    run.was_stopped(folder.path());
}

#[test]
fn what_is_begun_to_outlive_its_terminal_does() {
    let folder = tempfile::tempdir().unwrap();
    // This is what `nohup` does.
    let mut run = LongRun::new(folder.path(), "trap '' HUP; exec");
    run.signal("-HUP");
    let epoch = |folder: &Path| status(folder).unwrap()["epoch"].as_u64().unwrap();
    let (from, before) = (Instant::now(), epoch(folder.path()));
    while epoch(folder.path()) < before + 2 {
        assert!(from.elapsed() < PATIENCE && run.0.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    run.signal("-TERM");
    run.was_stopped(folder.path());
}
