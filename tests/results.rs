//! Checks that the committed tables equal, byte for byte, those made from the committed run records: no
//! number in `results/` was typed.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use assert_cmd::Command;
use std::fs;
use std::path::Path;

const SUITES: [&str; 15] = [
    "table1",
    "figure3",
    "figure4",
    "figure5",
    "figure6",
    "table7",
    "table8",
    "cars196-half",
    "cub200-2010",
    "pooling",
    "protocol",
    "winograd",
    "contrastive",
    "modern",
    "precision",
];

#[test]
fn committed_results_come_from_committed_records() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
    let folder = tempfile::tempdir().unwrap();
    for suite in SUITES {
        let out = folder.path().join(suite);
        let mut command = Command::cargo_bin("invaspread").unwrap();
        command
            .current_dir(folder.path())
            .args(["report", suite, "--json", "--runs"])
            .arg(results.join("runs"));
        // These are drawn from images and embeddings, which are not committed.
        let neighbors = results.join(suite).join("neighbours.png");
        if neighbors.is_file() {
            fs::create_dir_all(&out).unwrap();
            fs::copy(neighbors, out.join("neighbours.png")).unwrap();
        }
        let output = command.arg("--out").arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(table["suite"], suite);
        let made = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // The bytes of a PNG depend on its compressor. The same drawing is compared to the byte as SVG, and
        // the same numbers as text.
        let compared: Vec<String> = made
            .filter(|name| [".md", ".csv", ".tex", ".svg"].iter().any(|end| name.ends_with(end)))
            .collect();
        assert!(compared.len() > 4, "{suite}: {compared:?}");
        for file in compared {
            let (made, committed) =
                (fs::read(out.join(&file)).unwrap(), fs::read(results.join(suite).join(&file)).unwrap());
            assert!(
                made == committed,
                "results/{suite}/{file} is not what its records say: run `invaspread report {suite} --runs results/runs`"
            );
        }
    }
    let mut command = Command::cargo_bin("invaspread").unwrap();
    command.current_dir(folder.path()).args(["report", "all", "--out", ".", "--runs"]);
    command.arg(results.join("runs")).assert().success();
    let [made, committed] = [folder.path(), &results].map(|page| fs::read(page.join("index.md")).unwrap());
    assert!(
        made == committed,
        "results/index.md is not what the records say: run `invaspread report all --runs results/runs`"
    );
}
