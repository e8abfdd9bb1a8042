//! `launcher=slurm` with programs that stand for Slurm's: what is written, submitted, left out and refused. A real
//! Slurm is in `tests/slurm/run.py`.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use program::{Said, done, empty, refused};

/// Runs of a second.
const SMALL: [&str; 14] = [
    "dataset=synthetic",
    "profile=smoke",
    "device=cpu",
    "model.width=4",
    "model.embedding=8",
    "model.pool=2",
    "augment.size=16",
    "data.synthetic.image_size=16",
    "data.synthetic.train=64",
    "data.synthetic.test=16",
    "data.subset=64",
    "data.test_subset=16",
    "optim.batch_size=16",
    "eval.k=5",
];

/// A folder with programs that stand for Slurm's. Each writes its arguments, one a line, into a file.
struct Fake {
    folder: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { folder: empty() };
        fs::create_dir(fake.path("bin")).unwrap();
        fake.program("sbatch", "n=$(ls calls.sbatch.* 2>/dev/null | wc -l); echo $((101 + n))");
        fake.program("squeue", "cat queue 2>/dev/null; true");
        fake.program("scontrol", "echo no such job >&2; exit 1");
        fake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        let folder = self.folder.path().display();
        let script = format!(
            "#!/bin/sh\ncd '{folder}' || exit 9\nresult=$({body}\n) ; code=$?\nfor word in \"$@\"; do echo \"$word\"; done >calls.{name}.$$\n\
             [ -n \"$result\" ] && echo \"$result\"\nexit $code\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns the arguments of each call of a program.
    fn calls(&self, name: &str) -> Vec<Vec<String>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| {
            path.file_name().unwrap().to_string_lossy().starts_with(&format!("calls.{name}."))
        });
        let mut calls: Vec<Vec<String>> = files
            .iter()
            .map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect())
            .collect();
        calls.sort_by_key(Vec::len);
        calls
    }

    fn run(&self, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = Command::cargo_bin("invaspread").unwrap();
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).env("HOME", folder).envs(variables.iter().copied());
        let output = command.current_dir(folder).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked"), "{arguments:?}: {}", said.err);
        said
    }
}

fn request<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--multirun", "method=invaspread,nce", "seed=0,1"][..], &SMALL, &["launcher=slurm"], more]
        .concat()
}

/// Returns the folder of the only launch.
fn launch(folder: &Path) -> PathBuf {
    let mut all = fs::read_dir(folder.join("runs/launches")).unwrap().map(|entry| entry.unwrap().path());
    let one = all.next().unwrap();
    assert!(all.next().is_none());
    one
}

#[test]
fn what_is_submitted_is_done_task_by_task() {
    let (fake, work) = (Fake::new(), empty());
    let run = |arguments: &[&str], variables: &[(&str, &str)]| fake.run(work.path(), arguments, variables);
    let dry = run(&request(&["slurm.time=1-0", "slurm.at_once=2", "--dry-run"]), &[]);
    assert_eq!(dry.code, Some(0), "{}", dry.err);
    for line in [
        "#SBATCH --array=0-3%2",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --time=1-0",
        "#SBATCH --requeue",
        "exec ",
    ] {
        assert!(dry.out.contains(line), "{line}: {}", dry.out);
    }
    assert!(
        dry.err.contains("nothing is written or submitted") && !work.path().join("runs").exists(),
        "{}",
        dry.err
    );

    let said = run(&request(&["slurm.time=1-0"]), &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("job 101: 4 runs, one a task") && said.out.contains("squeue"), "{}", said.out);
    let folder = launch(work.path());
    let script = folder.join("array.sh").display().to_string();
    assert_eq!(fake.calls("sbatch"), [vec!["--parsable".to_owned(), script]]);
    let tasks = fs::read_to_string(folder.join("runs.jsonl")).unwrap();
    assert_eq!(tasks.lines().count(), 4);
    assert!(
        tasks.lines().next().unwrap().contains("method=invaspread") && !tasks.contains("slurm"),
        "{tasks}"
    );

    // A task by the variables of its job, and one by hand; both from another folder.
    let (elsewhere, name) = (empty(), folder.display().to_string());
    let of_job = [("SLURM_ARRAY_JOB_ID", "101"), ("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_CPUS_PER_TASK", "1")];
    let said = fake.run(elsewhere.path(), &["slurm", "task", &name], &of_job);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.err.contains("task 2 of ") && said.err.contains("job 101_2") && said.err.contains("nce"),
        "{}",
        said.err
    );
    let said = fake.run(elsewhere.path(), &["slurm", "task", &name, "0"], &[]);
    assert!(said.code == Some(0) && said.err.contains("by hand"), "{}", said.err);
    let listed = run(&["runs", "list", "--json"], &[]);
    assert_eq!(
        (listed.code, listed.out.matches("\"finished\"").count() > 0),
        (Some(0), true),
        "{}",
        listed.out
    );
    let done: Vec<bool> = tasks
        .lines()
        .map(|line| {
            let task: serde_json::Value = serde_json::from_str(line).unwrap();
            work.path().join("runs").join(task["run"].as_str().unwrap()).join("record.json").exists()
        })
        .collect();
    assert_eq!(done, [true, false, true, false]);

    // One of the others is in the queue, so that one is left.
    fs::write(fake.path("queue"), "101 1\n101 N/A\n7 3\n").unwrap();
    let said = run(&request(&["--json"]), &[]);
    let launched: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((launched["array"].as_u64(), launched["report"].as_u64()), (Some(102), None), "{}", said.err);
    assert_eq!(launched["runs"].as_array().unwrap().len(), 1);
    assert!(
        said.err.contains("2 finished, 2 to do") && said.err.contains("left out (job 101)"),
        "{}",
        said.err
    );
}

/// A task plans its run from the arguments in its line alone, whatever form they had.
#[test]
fn the_arguments_of_a_task_plan_its_run() {
    let (fake, work) = (Fake::new(), empty());
    let flags = ["train", "--multirun", "--runs", "r, 1", "--data-root", "/no, 'where'", "--seeds", "3,4"];
    let lists = [
        "method=\"nce\",random",
        "augment.without=[flip,grayscale],[]",
        "launcher=slurm",
        "slurm.options=[--exclusive]",
    ];
    let said = fake.run(work.path(), &[&flags[..], &SMALL, &lists].concat(), &[]);
    assert!(said.out.contains("8 runs"), "{}", said.err);
    let root = work.path().join("r, 1");
    let folder = fs::read_dir(root.join("launches")).unwrap().next().unwrap().unwrap().path();
    let tasks: Vec<serde_json::Value> = fs::read_to_string(folder.join("runs.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let different: std::collections::BTreeSet<&str> =
        tasks.iter().map(|task| task["run"].as_str().unwrap()).collect();
    assert_eq!((tasks.len(), different.len()), (8, 8));
    for index in [1, 4, 7] {
        let said =
            fake.run(work.path(), &["slurm", "task", folder.to_str().unwrap(), &index.to_string()], &[]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(root.join(tasks[index]["run"].as_str().unwrap()).join("record.json").exists());
    }
}

#[test]
fn nothing_is_submitted_twice_or_for_nothing() {
    let (fake, work) = (Fake::new(), empty());
    let one = [&["train", "method=random"][..], &SMALL].concat();
    done(work.path(), &one);
    let said = fake.run(work.path(), &[&one[..], &["launcher=slurm"]].concat(), &[]);
    assert!(
        said.code == Some(0) && said.err.contains("all runs are finished: nothing is submitted"),
        "{}",
        said.err
    );
    assert!(fake.calls("sbatch").is_empty() && !work.path().join("runs/launches").exists());
}

#[test]
fn what_slurm_says_is_shown() {
    let (fake, work) = (Fake::new(), empty());
    let run = |arguments: &[&str], variables: &[(&str, &str)]| fake.run(work.path(), arguments, variables);
    let told = |said: &Said, words: &[&str]| {
        assert_eq!((said.code, said.err.contains("\nerror: ")), (Some(1), true), "{}", said.err);
        for word in words {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
    };
    refused(work.path(), &request(&["--gpus", "0"]), 2, &["--gpus", "slurm.gpus=NUMBER"]);
    refused(work.path(), &["train", "slurm.time=1-0"], 2, &["slurm.time", "launcher=slurm beside it"]);
    refused(work.path(), &["demo", "launcher=slurm", "device=cpu"], 2, &["launcher", "reproduce demo"]);

    fake.program("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1");
    let said = run(&request(&[]), &[]);
    told(&said, &["Invalid account", "sbatch --parsable", "by hand"]);
    fake.program("sbatch", "echo Welcome");
    told(&run(&request(&[]), &[]), &["Welcome", "expected the number of a job"]);
    fs::remove_file(fake.path("bin/sbatch")).unwrap();
    let none = [("PATH", "/nowhere")];
    told(&run(&request(&[]), &none), &["failed to start sbatch", "login node"]);
}

#[test]
fn a_task_says_what_does_not_fit() {
    let (fake, work) = (Fake::new(), empty());
    let run = |arguments: &[&str], variables: &[(&str, &str)]| fake.run(work.path(), arguments, variables);
    assert_eq!(run(&request(&[]), &[]).code, Some(0));
    let folder = launch(work.path());
    let name = folder.display().to_string();
    let said = run(&["slurm", "task", &name], &[]);
    assert!(said.code == Some(2) && said.err.contains("SLURM_ARRAY_TASK_ID"), "{}", said.err);
    let said = run(&["slurm", "task", &name, "4"], &[]);
    assert!(
        said.code == Some(1) && said.err.contains("no task 4, expected an index from 0 to 3"),
        "{}",
        said.err
    );
    let said = run(&["slurm", "report", &name], &[]);
    assert!(
        said.code == Some(2) && said.err.contains("runs of `train`, which have no report"),
        "{}",
        said.err
    );

    // Another build, and settings that plan another run.
    let about = folder.join("launch.json");
    let text = fs::read_to_string(&about).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["program_hash"] = "0".into();
    fs::write(&about, value.to_string()).unwrap();
    let tasks = folder.join("runs.jsonl");
    let text = fs::read_to_string(&tasks).unwrap();
    fs::write(&tasks, text.replacen("eval.k=5", "eval.k=6", 1)).unwrap();
    let said = run(&["slurm", "task", &name, "0"], &[]);
    assert!(said.code == Some(1) && said.err.contains("another build of the program"), "{}", said.err);
    assert!(
        said.err.contains("task 0 is run train/")
            && said.err.contains("Give the command of the launch again"),
        "{}",
        said.err
    );
    fs::write(&tasks, "{}\n").unwrap();
    let said = run(&["slurm", "task", &name, "0"], &[]);
    assert!(said.code == Some(1) && said.err.contains("runs.jsonl is damaged: line 1"), "{}", said.err);
}
