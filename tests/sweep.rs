//! A sweep on which several processes work at once, on what they take for different machines, while they are killed and
//! suspended: it ends complete, and equal to an undisturbed one.

#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use program::{done, empty, invaspread, refused};
use serde_json::Value;

/// Ten settings with four seeds each, of a few hundred milliseconds.
const SWEEP: [&str; 16] = [
    "train",
    "--multirun",
    "profile=smoke",
    "method=invaspread",
    "optim.lr=0.01,0.03",
    "method.temperature=0.05,0.1,0.2,0.5,1",
    "seed=0..3",
    "optim.epochs=3",
    "optim.batch_size=16",
    "data.synthetic.train=64",
    "data.synthetic.test=16",
    "data.synthetic.image_size=16",
    "augment.size=16",
    "model.pool=2",
    "model.width=4",
    // The shortest there is: whoever is silent for a second on another machine counts as dead.
    "runs.lease_seconds=1",
];
const RUNS: usize = 40;
const KILLS: usize = 12;
const SUSPENSIONS: usize = 3;
/// Longer than the lease.
const SUSPENDED: Duration = Duration::from_millis(2500);

/// A sequence of numbers that is the same on every call.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Starts a process on the sweep that takes itself for one of `machine`.
fn worker(folder: &Path, machine: usize, count: usize) -> Child {
    let log = fs::File::create(folder.join(format!("worker-{machine}-{count}.txt"))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_invaspread"));
    command
        .current_dir(folder)
        .args(SWEEP)
        .env("INVASPREAD_HOST", format!("machine-{machine}"))
        .env("RAYON_NUM_THREADS", "1")
        .env_remove("INVASPREAD_DATA")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    // A process that has just ended cannot be signaled.
    let _ =
        Command::new("kill").args([name, &child.id().to_string()]).stderr(Stdio::null()).status().unwrap();
}

fn folders_if_any(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("runs/train")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let found = folders_if_any(root);
    assert!(!found.is_empty(), "no run in {}", root.display());
    found
}

/// Returns what must be equal in two records of a run: everything that is not a time, a speed or the machine.
fn result(folder: &Path) -> BTreeMap<String, Value> {
    let record: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(folder.join("record.json")).unwrap()).unwrap();
    let differs = [
        "started",
        "finished",
        "seconds",
        "images_per_second",
        "training_processor_seconds",
        "peak_memory_bytes",
        "host",
        "threads",
    ];
    record.into_iter().filter(|(key, _)| !differs.contains(&key.as_str())).collect()
}

/// Returns how often each event stands in the log of a run.
fn events(folder: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(folder.join("log.jsonl")).unwrap().lines() {
        // A killed process leaves its last line incomplete.
        if let Ok(line) = serde_json::from_str::<Value>(line) {
            *counts.entry(line["event"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn a_sweep_survives_killed_and_suspended_processes() {
    let undisturbed = empty();
    done(undisturbed.path(), &SWEEP);
    assert_eq!(folders(undisturbed.path()).len(), RUNS);

    let disturbed = empty();
    let folder = disturbed.path();
    let mut dice = Dice(0x5EED);
    let mut started = 0;
    let mut begin = |machine: usize| {
        started += 1;
        worker(folder, machine, started)
    };
    let mut workers: Vec<Child> = (0..4).map(&mut begin).collect();
    let mut suspended: Vec<(usize, Instant)> = Vec::new();
    let (mut kills, mut suspensions) = (0, 0);
    let limit = Instant::now() + Duration::from_secs(400);
    loop {
        assert!(Instant::now() < limit, "the sweep does not end");
        std::thread::sleep(Duration::from_millis(100 + dice.below(400)));
        suspended.retain(|(machine, since)| {
            let waits = since.elapsed() < SUSPENDED;
            if !waits {
                signal(&workers[*machine], "-CONT");
            }
            waits
        });
        let machine = dice.below(4) as usize;
        let is_suspended = suspended.iter().any(|(other, _)| *other == machine);
        let has_begun = folder.join("runs/train").exists();
        if !is_suspended && has_begun && kills + suspensions < KILLS + SUSPENSIONS {
            // Every fifth disturbance is a suspension.
            if (kills + suspensions) % 5 == 2 {
                signal(&workers[machine], "-STOP");
                suspended.push((machine, Instant::now()));
                suspensions += 1;
            } else {
                workers[machine].kill().unwrap();
                workers[machine].wait().unwrap();
                workers[machine] = begin(machine);
                kills += 1;
            }
        } else if suspended.is_empty() && kills + suspensions == KILLS + SUSPENSIONS {
            break;
        }
    }
    for worker in &mut workers {
        let code = worker.wait().unwrap();
        assert!(code.success(), "{code}");
    }
    assert_eq!((kills, suspensions), (KILLS, SUSPENSIONS));

    let (theirs, ours) = (folders(undisturbed.path()), folders(folder));
    let names =
        |all: &[PathBuf]| -> Vec<_> { all.iter().map(|path| path.file_name().unwrap().to_owned()).collect() };
    assert_eq!(names(&ours), names(&theirs));
    let mut begun = 0;
    for (one, other) in ours.iter().zip(&theirs) {
        assert_eq!(result(one), result(other), "{}", one.display());
        for file in ["checkpoints/last.safetensors", "embeddings/test.safetensors", "similarity.json"] {
            assert!(fs::read(one.join(file)).unwrap() == fs::read(other.join(file)).unwrap(), "{file}");
        }
        let events = events(one);
        assert_eq!(events.get("run_finished"), Some(&1), "{}: {events:?}", one.display());
        begun += events["run_begun"];
    }
    assert!(begun > RUNS, "no run was taken over");

    // Asked for again, the sweep does nothing, and every file of every run is as its list says.
    let said = invaspread(folder, &SWEEP);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("40 finished, 0 to do"), "{}", said.err);
    let listed = done(folder, &["runs", "list"]);
    assert!(listed.contains("40 runs: 40 finished"), "{listed}");
}

/// Two processes believe at the same time that a run is theirs: one was suspended for longer than its lease, and another
/// took the run over. The first one wakes while the second is at work.
#[test]
fn an_owner_that_wakes_after_a_succession_changes_nothing() {
    let mut arguments = SWEEP[..4].to_vec();
    arguments.extend(["seed=0", "optim.epochs=60"]);
    arguments.extend(&SWEEP[8..]);
    let undisturbed = empty();
    done(undisturbed.path(), &arguments);

    let folder = empty();
    let folder = folder.path();
    let begin = |machine: &str| {
        let log = fs::File::create(folder.join(format!("{machine}.txt"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_invaspread"));
        command
            .current_dir(folder)
            .args(&arguments)
            .env("INVASPREAD_HOST", machine)
            .env_remove("INVASPREAD_DATA");
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    };
    let epoch = || -> Option<u64> {
        let run = folders_if_any(folder).into_iter().next()?;
        let status: Value = serde_json::from_slice(&fs::read(run.join("status.json")).ok()?).ok()?;
        status["epoch"].as_u64()
    };
    let limit = Instant::now() + Duration::from_mins(5);
    let wait_for = |wanted: u64| loop {
        assert!(Instant::now() < limit, "epoch {wanted} is not reached");
        match epoch().filter(|&epoch| epoch >= wanted) {
            Some(epoch) => break epoch,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut first = begin("machine-1");
    wait_for(2);
    signal(&first, "-STOP");
    let reached = epoch().unwrap();
    let mut second = begin("machine-2");
    assert!(wait_for(reached + 2) < 60, "the second process had ended before the first woke");
    signal(&first, "-CONT");
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let said = |machine: &str| fs::read_to_string(folder.join(format!("{machine}.txt"))).unwrap();
    assert!(
        said("machine-2").contains("gave no sign of life for 1 s and counts as dead"),
        "{}",
        said("machine-2")
    );
    assert!(said("machine-1").contains("another process has taken it over"), "{}", said("machine-1"));

    let (ours, theirs) = (folders(folder).remove(0), folders(undisturbed.path()).remove(0));
    assert_eq!(result(&ours), result(&theirs));
    for file in ["checkpoints/last.safetensors", "embeddings/test.safetensors", "similarity.json"] {
        assert!(fs::read(ours.join(file)).unwrap() == fs::read(theirs.join(file)).unwrap(), "{file}");
    }
    assert_eq!(events(&ours).get("run_finished"), Some(&1));
    let said = invaspread(folder, &arguments);
    assert!(said.err.contains("1 finished, 0 to do"), "{}", said.err);
}

#[test]
fn several_processes_of_one_machine_share_a_sweep() {
    let folder = empty();
    let folder = folder.path();
    let mut arguments = SWEEP[..3].to_vec();
    arguments.extend([
        "method=random,nce",
        "seed=0..2",
        "launcher=local",
        "local.processes=2",
        "local.threads=1",
    ]);
    arguments.extend(&SWEEP[7..]);
    let said = invaspread(folder, &arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for words in ["6 runs in", "2 processes with 1 thread each", "cpu #1  ", "cpu #2  "] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    assert_eq!(said.out.lines().count(), 6, "a line for each run: {}", said.out);
    assert!(done(folder, &["runs", "list"]).contains("6 runs: 6 finished"));
    // The launcher is not part of a run: without it, the same runs are meant.
    let alone: Vec<&str> = arguments.iter().copied().filter(|one| !one.starts_with('l')).collect();
    let said = invaspread(folder, &alone);
    assert!(said.err.contains("6 finished, 0 to do"), "{}", said.err);
    let told = ["`local.processes`", "launcher=local beside it"];
    refused(folder, &["train", "profile=smoke", "local.processes=2"], 2, &told);
}

#[test]
fn a_killed_run_is_resumed_by_the_command_that_asked_for_it_and_watched() {
    let folder = empty();
    let folder = folder.path();
    // The fourth epoch of the second seed cannot be reached before the process is killed.
    let mut arguments = SWEEP[..3].to_vec();
    arguments.extend(["method=nce", "seed=0,1", "optim.epochs=400"]);
    arguments.extend(&SWEEP[8..]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_invaspread"))
        .current_dir(folder)
        .args(&arguments)
        .env_remove("INVASPREAD_DATA")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_mins(2);
    let status = || -> Option<Value> {
        let run = folders(folder).into_iter().next()?;
        serde_json::from_slice(&fs::read(run.join("status.json")).ok()?).ok()
    };
    while !folder.join("runs/train").exists()
        || status().is_none_or(|status| status["epoch"].as_u64() < Some(2))
    {
        assert!(Instant::now() < limit);
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = done(folder, &["runs", "list"]);
    assert!(listed.contains("1 run: 1 killed"), "{listed}");
    let said = invaspread(folder, &["runs", "resume", "--dry-run"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("1 run in") && said.err.contains("1 to do"), "{}", said.err);

    // Without the request nobody knows how the run was asked for.
    let run = folders(folder).remove(0);
    let request = fs::read_to_string(run.join("request.json")).unwrap();
    assert!(request.contains("\"optim.epochs=400\"") && request.contains("--multirun"), "{request}");
    fs::remove_file(run.join("request.json")).unwrap();
    let said = invaspread(folder, &["runs", "resume"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("it has no request.json; give the command again"), "{}", said.err);
    fs::write(run.join("request.json"), &request).unwrap();

    // Another process resumes it, and a third one watches.
    let mut child = Command::new(env!("CARGO_BIN_EXE_invaspread"))
        .current_dir(folder.parent().unwrap())
        .args(["runs", "resume", "--runs"])
        .arg(folder.join("runs"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !done(folder, &["runs", "list"]).contains("1 running") {
        assert!(Instant::now() < limit);
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut watch = Command::new(env!("CARGO_BIN_EXE_invaspread"))
        .current_dir(folder)
        .args(["runs", "watch", "--seconds", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(watch.try_wait().unwrap().is_none(), "a process works on the run");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said = watch.wait_with_output().unwrap();
    assert!(said.status.success());
    let (out, err) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert!(out.contains("1 run: 1 stopped"), "{out}");
    assert!(err.contains("running") && err.contains("/400") && err.contains("an epoch, about"), "{err}");
    assert!(err.lines().last().unwrap().contains("stopped"), "{err}");
    assert!(done(folder, &["runs", "resume", "state=running"]).contains("nothing to resume"));
    for command in ["resume", "watch"] {
        refused(folder, &["runs", command, "optim.rl=1"], 2, &["`optim.rl`, which no run has"]);
    }
}
