//! Tests of the pages that the program writes, from outside: `report SUITE --html`, `report all --html` and `look RUN`. How
//! pages behave in a browser is checked by `crates/report/browser/check.py`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use program::{done, empty, refused};
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder of the committed records.
fn records() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/runs")
}

/// Checks that a page asks for nothing outside of itself, and that its links to files beside it exist.
fn assert_alone(page: &Path) -> String {
    let html = fs::read_to_string(page).unwrap();
    for attribute in ["src=\"", "href=\""] {
        for target in html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            if target.starts_with('#') || target.starts_with("data:image/jpeg;base64,") {
                continue;
            }
            assert!(page.parent().unwrap().join(target).is_file(), "{}: {target}", page.display());
        }
    }
    assert!(html.contains("default-src 'none'"), "{}", page.display());
    html
}

#[test]
fn a_report_of_committed_records_is_one_page() {
    // Records are linked if they and the page have a folder in common, as in a checkout.
    let folder = empty();
    let runs = folder.path().join("results/runs");
    copy(&records().join("table1"), &runs.join("table1"));
    let at = folder.path();
    let report = ["report", "table1", "--runs", "results/runs", "--out", "results/table1"];
    let page = at.join("results/table1/report.html");
    assert!(!done(at, &report).contains("report.html") && !page.exists(), "nobody asked for a page");
    let said = done(at, &[&report[..], &["--html"]].concat());
    assert!(said.contains("results/table1/report.html"), "{said}");
    let html = assert_alone(&page);
    assert!(html.len() < 500_000, "{} bytes", html.len());
    assert!(html.contains("../runs/table1/a12844807e57-s0/record.json"));
    for said in [
        "InvaSpread, paper",
        "Loss by epoch",
        "Images per second by epoch",
        "Difference (reduced: not comparable)",
    ] {
        assert!(html.contains(said), "{said}");
    }
    // The same records give the same bytes, and a report without --html renews a page that is there.
    fs::write(&page, html.replace("InvaSpread", "an older row")).unwrap();
    done(at, &report);
    assert!(fs::read_to_string(&page).unwrap() == html);
    // A file of somebody else stays.
    fs::write(&page, "my own").unwrap();
    done(at, &report);
    refused(at, &[&report[..], &["--html"]].concat(), 2, &["report.html", "did not write"]);
    assert_eq!(fs::read_to_string(&page).unwrap(), "my own");
}

#[test]
fn all_reports_have_an_index() {
    let folder = empty();
    let at = folder.path();
    copy(&records().join("table1"), &at.join("runs/table1"));
    copy(&records().join("contrastive"), &at.join("runs/contrastive"));
    let said = done(at, &["report", "all", "--html", "--out", "results"]);
    assert!(said.contains("results/index.md") && said.contains("results/index.html"), "{said}");
    let html = assert_alone(&at.join("results/index.html"));
    for suite in ["table1", "figure3", "contrastive"] {
        assert!(html.contains(&format!("href=\"{suite}/report.html\"")), "{suite}");
        assert_alone(&at.join(format!("results/{suite}/report.html")));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Trains a small network on generated images and returns the folder and the run's folder in it.
fn trained() -> (tempfile::TempDir, PathBuf) {
    let folder = empty();
    let tiny = [
        "train",
        "dataset=synthetic",
        "--profile",
        "smoke",
        "optim.epochs=2",
        "data.synthetic.train=64",
        "data.synthetic.test=40",
        "data.synthetic.image_size=16",
        "augment.size=16",
        "model.pool=2",
        "model.width=8",
        "optim.batch_size=16",
    ];
    done(folder.path(), &tiny);
    let mut runs = fs::read_dir(folder.path().join("runs/train")).unwrap();
    let run = runs.next().unwrap().unwrap().path();
    (folder, run)
}

#[test]
fn a_run_has_a_page_with_a_map_and_neighbors() {
    let (folder, run) = trained();
    let at = folder.path();
    let id = run.file_name().unwrap().to_str().unwrap();
    let said = done(at, &["look", &id[..6]]);
    assert!(said.trim().ends_with("look.html"), "{said}");
    let page = run.join("look.html");
    let html = assert_alone(&page);
    for said in [
        "Map of the test images",
        "t-SNE",
        "PCA",
        "Classes taken for others",
        "Nearest neighbors",
        "optim.epochs",
        "kNN top-1 (%) by epoch",
    ] {
        assert!(html.contains(said), "{said}");
    }
    assert_eq!(
        html.matches("data:image/jpeg;base64,").count(),
        2,
        "thumbnails of the map and of the neighbors"
    );
    // The predictions are those of the run's own kNN: no note says otherwise.
    assert!(!html.contains("The predictions of this page are right for"));
    let data = html.split("id=\"points\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["labels"].as_array().unwrap().len(), 40);
    assert_eq!(data["views"][1]["places"].as_array().unwrap().len(), 80);
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("record.json")).unwrap()).unwrap();
    let pairs = || data["labels"].as_array().unwrap().iter().zip(data["predictions"].as_array().unwrap());
    let right = pairs().filter(|(label, predicted)| label == predicted).count();
    let recorded = record["metrics"]["knn_top1"]["last"].as_f64().unwrap();
    assert!((100.0 * right as f64 / 40.0 - recorded).abs() < 1e-9, "{right} {recorded}");

    // The same run gives the same bytes, elsewhere too, and the run is still whole.
    done(at, &["look", run.to_str().unwrap(), "--out", "pages"]);
    assert!(fs::read(at.join("pages/look.html")).unwrap() == fs::read(&page).unwrap());
    assert!(done(at, &["runs", "list"]).contains("1 finished"));
    // Other images are not shown as those of the run, although their classes are the same.
    done(at, &["look", id, "--out", "pages", "data.seed=9"]);
    let other = assert_alone(&at.join("pages/look.html"));
    assert!(other.contains("is not the one that the run was measured on"), "{other}");
    assert!(!other.contains("data:image/jpeg;base64,") && html.contains("data:image/jpeg;base64,"));
    fs::create_dir(at.join("mine")).unwrap();
    fs::write(at.join("mine/look.html"), "my own").unwrap();
    refused(at, &["look", id, "--out", "mine"], 2, &["look.html", "did not write"]);
}

#[test]
fn what_is_missing_of_a_run_is_said_on_its_page() {
    let (folder, run) = trained();
    let at = folder.path();
    let id = run.file_name().unwrap().to_str().unwrap();
    let page = || {
        done(at, &["look", id]);
        assert_alone(&run.join("look.html"))
    };
    fs::remove_file(run.join("embeddings/train.safetensors")).unwrap();
    let html = page();
    assert!(
        html.contains("embeddings/train.safetensors) are missing")
            && html.contains("nearest other test image")
    );
    fs::write(run.join("embeddings/test.safetensors"), "damaged").unwrap();
    let html = page();
    assert!(
        html.contains("The map and the neighbors are missing") && !html.contains("Map of the test images")
    );
    assert!(html.contains("kNN top-1 (%) by epoch") && html.contains("optim.epochs"), "the rest is there");
    fs::remove_dir_all(run.join("embeddings")).unwrap();
    assert!(page().contains("the run has no embeddings/test.safetensors"));
    fs::remove_file(run.join("record.json")).unwrap();
    let html = page();
    assert!(html.contains("is not finished") && html.contains("optim.epochs"), "{html}");
}

#[test]
fn wrong_requests_are_refused() {
    let (folder, run) = trained();
    let at = folder.path();
    let id = run.file_name().unwrap().to_str().unwrap();
    refused(at, &["look", "0000nothing"], 2, &["found no run 0000nothing"]);
    refused(at, &["look", id, "optim.lr=1"], 2, &["optim.lr=1", "data.root=FOLDER"]);
    fs::write(at.join("blocked"), "a file").unwrap();
    refused(at, &["look", id, "--out", "blocked"], 1, &["blocked", "--out FOLDER"]);
}
