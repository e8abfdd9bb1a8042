//! The committed tables are what the committed run records say, to the byte: no number in `results/` was typed.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use assert_cmd::Command;
use std::fs;
use std::path::Path;

#[test]
fn committed_results_come_from_committed_records() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
    let folder = tempfile::tempdir().unwrap();
    for suite in ["table1", "figure3", "table8", "winograd"] {
        let out = folder.path().join(suite);
        let mut command = Command::cargo_bin("invaspread").unwrap();
        command
            .current_dir(folder.path())
            .args(["report", suite, "--json", "--runs"])
            .arg(results.join("runs"));
        let output = command.arg("--out").arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(table["suite"], suite);
        for file in ["report.md", "table.csv", "table.tex", "curves.svg"] {
            let (made, committed) =
                (fs::read(out.join(file)).unwrap(), fs::read(results.join(suite).join(file)).unwrap());
            assert!(
                made == committed,
                "results/{suite}/{file} is not what its records say: run `invaspread report {suite} --runs results/runs`"
            );
        }
    }
}
