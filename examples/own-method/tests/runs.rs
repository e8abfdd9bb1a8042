//! The method of this package has everything that the built-in ones have: config, errors, runs that resume
//! exactly after a kill, suites and reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The settings of runs that take a second or two.
const SMALL: [&str; 9] = [
    "model.width=4",
    "model.embedding=8",
    "data.synthetic.train=96",
    "data.synthetic.test=32",
    "data.subset=96",
    "data.test_subset=32",
    "optim.epochs=6",
    "optim.batch_size=16",
    "methods.align_uniform.queue=40",
];

/// Returns the program, in the folder where it finds this package's `experiments`.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-method"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("INVASPREAD_DATA").args(arguments);
    command
}

fn output(arguments: &[&str], code: i32) -> String {
    let output = program(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

fn reproduce(folder: &Path) -> Command {
    let mut command = program(&["reproduce", "own", "--profile", "smoke"]);
    command.arg("--runs").arg(folder.join("runs")).arg("--out").arg(folder.join("report")).args(SMALL);
    command
}

/// Returns the folder of the method's run, if it exists.
fn run_of_the_method(folder: &Path) -> Option<PathBuf> {
    let runs = fs::read_dir(folder.join("runs/own")).ok()?.map(|entry| entry.unwrap().path());
    let is_ours = |run: &PathBuf| {
        let config = fs::read_to_string(run.join("config.toml"));
        config.is_ok_and(|config| config.contains("name = \"align_uniform\""))
    };
    runs.into_iter().find(is_ours)
}

#[test]
fn a_killed_run_ends_as_one_left_alone_and_stands_in_the_report() {
    let [alone, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    assert!(reproduce(alone.path()).output().unwrap().status.success());

    let mut child = reproduce(killed.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    // The run is killed when some of its epochs are done and others are not.
    let is_half_done = || {
        let run = run_of_the_method(killed.path())?;
        let status: serde_json::Value =
            serde_json::from_slice(&fs::read(run.join("status.json")).ok()?).ok()?;
        (status["epoch"].as_u64()? >= 2).then_some(())
    };
    while is_half_done().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let run = run_of_the_method(killed.path()).unwrap();
    assert!(!run.join("record.json").exists(), "the kill came too late to test anything");
    assert!(reproduce(killed.path()).output().unwrap().status.success());

    let unbroken = run_of_the_method(alone.path()).unwrap();
    assert_eq!(run.file_name(), unbroken.file_name(), "one config, one name");
    for file in
        ["checkpoints/last.safetensors", "checkpoints/best.safetensors", "embeddings/test.safetensors"]
    {
        assert!(fs::read(run.join(file)).unwrap() == fs::read(unbroken.join(file)).unwrap(), "{file}");
    }
    let report = |folder: &Path, file: &str| fs::read_to_string(folder.join("report").join(file)).unwrap();
    assert_eq!(report(alone.path(), "table.csv"), report(killed.path(), "table.csv"));
    assert!(
        report(killed.path(), "report.md").contains("| Align + uniform |"),
        "{}",
        report(killed.path(), "report.md")
    );
    assert!(report(killed.path(), "curves.svg").contains("Align + uniform"));
}

#[test]
fn its_name_chooses_it_where_no_file_does() {
    let elsewhere = tempfile::tempdir().unwrap();
    let output = |arguments: &[&str]| {
        let output = program(arguments).current_dir(elsewhere.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, shown) = output(&["config", "show", "method=align_uniform", "method.queue=8"]);
    assert!(code == Some(0) && shown.contains("name = \"align_uniform\""), "{shown}");
    assert!(shown.contains("queue = 8\n"), "{shown}");
    let (code, told) = output(&["config", "show", "method=align_unform"]);
    assert!(code == Some(2) && told.contains("did you mean `align_uniform`"), "{told}");
}

#[test]
fn its_keys_are_known() {
    let shown = output(&["config", "show", "method=align_uniform", "method.queue=8"], 0);
    assert!(
        shown.contains("queue = 8\n") && shown.contains("# Weight λ of the uniformity, above 0."),
        "{shown}"
    );
    let told = output(&["train", "method=align_uniform", "method.temperature=0.1"], 2);
    assert!(told.contains("method.sharpness") && told.contains("it is a key of"), "{told}");
    let told = output(&["train", "method=align_uniform", "method.sharpness=0"], 2);
    assert!(told.contains("`method.sharpness`") && told.contains("a number above 0"), "{told}");
    assert!(
        output(&["config", "methods"], 0).contains("align_uniform: Align + uniform, 2 views of an image")
    );
}
