//! The main task at a small size: all nine rows of Table 1 on generated images, and their report. The test
//! prints its time but does not check it, because a busy machine must not make it fail; the goal is 90
//! seconds on two idle cores.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Instant;

use assert_cmd::Command;
use invaspread_runner::config::Suite;

#[test]
fn nine_rows_become_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let reproduce = || {
        let mut command = Command::cargo_bin("invaspread").unwrap();
        let arguments =
            ["reproduce", "table1", "dataset=synthetic", "--profile", "smoke", "--out", "results"];
        let output = command
            .current_dir(folder.path())
            .env_remove("INVASPREAD_DATA")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let read = |name: &str| fs::read(folder.path().join("results").join(name)).unwrap();

    let from = Instant::now();
    reproduce();
    eprintln!("nine rows in {:.1} s", from.elapsed().as_secs_f64());
    let table = String::from_utf8(read("table.csv")).unwrap();
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("row,metric,n,mean,std,best_mean,paper,difference,profile,device,data"));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let rows = Suite::open("table1").unwrap().rows;
    assert_eq!(rows.len(), 9);
    for row in rows.iter().map(|row| row.key.as_str()) {
        let line = lines
            .iter()
            .find(|line| line[0] == row && line[1] == "knn")
            .unwrap_or_else(|| panic!("{row}: {table}"));
        let mean: f64 = line[3].parse().unwrap();
        assert!((0.0..=100.0).contains(&mean), "{row}: {mean}");
        // One seed has no deviation, and the paper measured nothing on generated images.
        assert_eq!(
            (line[2], line[4], line[6], line[8], line[9], line[10]),
            ("1", "", "", "smoke", "cpu", "generated"),
            "{row}"
        );
    }
    for picture in ["curves.svg", "curves.png", "table.parquet", "table.tex", "report.md"] {
        assert!(!read(picture).is_empty(), "{picture}");
    }

    // The same command, given again, trains nothing and writes the same report, byte for byte.
    let report = read("report.md");
    reproduce();
    assert_eq!(String::from_utf8(read("table.csv")).unwrap(), table);
    assert_eq!(read("report.md"), report);
}
