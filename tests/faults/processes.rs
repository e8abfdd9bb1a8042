//! Several processes that are given the same suite: each run is trained once, each process ends with exit
//! code 0, and the report exists.

use std::path::Path;
use std::process::Stdio;

use crate::program::{SMALL, folder, invaspread, said, times};

fn suite() -> String {
    let overrides: Vec<String> =
        SMALL.iter().filter(|text| !text.starts_with("profile=")).map(|text| format!("{text:?}")).collect();
    let row = |key: &str| format!("[[row]]\nkey = \"{key}\"\noverrides = [\"method={key}\"]\n");
    format!(
        "title = \"Three methods\"\nseeds = [0]\noverrides = [{}]\n{}{}{}",
        overrides.join(", "),
        row("random"),
        row("npsoftmax"),
        row("invaspread")
    )
}

/// Returns how often `event` occurs in the log of each run below `root`.
fn logged(root: &Path, event: &str) -> Vec<usize> {
    let word = format!("\"event\":\"{event}\"");
    let runs = std::fs::read_dir(root.join("together")).unwrap().map(|entry| entry.unwrap().path());
    runs.filter(|path| path.is_dir())
        .map(|path| std::fs::read_to_string(path.join("log.jsonl")).unwrap().matches(&word).count())
        .collect()
}

#[test]
fn nothing_is_trained_twice_and_every_process_ends_well() {
    let rounds = times(1, 20);
    for round in 0..rounds {
        let processes = 2 + round % 3;
        let shared = folder();
        std::fs::create_dir_all(shared.path().join("experiments/suite")).unwrap();
        std::fs::write(shared.path().join("experiments/suite/together.toml"), suite()).unwrap();
        let start = |_| {
            let mut command = invaspread(shared.path());
            command.args(["reproduce", "together", "--profile", "smoke", "--out", "report"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..processes).map(start).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let text = said(&output);
            assert!(output.status.success(), "{processes} processes: {text}");
        }
        let root = shared.path().join("runs");
        assert_eq!(logged(&root, "run_finished"), [1, 1, 1], "{processes} processes");
        assert_eq!(logged(&root, "run_begun"), [1, 1, 1], "{processes} processes");
        let report = std::fs::read_to_string(shared.path().join("report/report.md")).unwrap();
        for label in ["NPSoftmax", "InvaSpread"] {
            assert!(report.contains(label), "{report}");
        }
    }
    eprintln!("{rounds} rounds of 2 to 4 processes: nothing trained twice, every process ended well");
}
