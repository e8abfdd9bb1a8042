//! Runs whole suites, from the files to the report, on miniature sets in the exact formats of the published
//! ones. Their numbers mean nothing; the tests check that every step runs.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use invaspread_data::sample::cifar10::write_cifar10;
use invaspread_data::sample::pictures::{birds, cars_devkit, cars_union, products};
use invaspread_data::sample::stl10::MiniatureStl10;

/// Runs `reproduce SUITE` in `folder`, whose `data` holds the set, and returns `table.csv` and `report.md`.
fn reproduce(folder: &Path, suite: &str, settings: &[&str]) -> [String; 2] {
    let mut command = Command::cargo_bin("invaspread").unwrap();
    let output = command
        .current_dir(folder)
        .env("INVASPREAD_DATA", folder.join("data"))
        .env("RUST_BACKTRACE", "0")
        .args(["reproduce", suite, "--profile", "smoke", "--out", "results", "data.partial=true"])
        .args(settings)
        .output()
        .unwrap();
    assert!(output.status.success(), "{suite}: {}", String::from_utf8_lossy(&output.stderr));
    ["table.csv", "report.md"].map(|name| fs::read_to_string(folder.join("results").join(name)).unwrap())
}

/// Returns forty classes on each side of the border. Each gets three pictures, so that there are more images
/// than DeepCluster has clusters.
fn classes(border: u32) -> Vec<u32> {
    (1..=40).chain(border + 1..=border + 40).collect()
}

/// Checks that each row has every metric, in percent.
#[track_caller]
fn assert_measured(table: &str, rows: &[&str], metrics: &[&str]) {
    for row in rows {
        for metric in metrics {
            let line = table
                .lines()
                .map(|line| line.split(',').collect::<Vec<_>>())
                .find(|line| line[0] == *row && line[1] == *metric)
                .unwrap_or_else(|| panic!("no {metric} of {row} in {table}"));
            let mean: f64 = line[3].parse().unwrap();
            // AMI is about 0 by chance, and may be slightly negative.
            assert!((-10.0..=100.0).contains(&mean), "{row} {metric}: {mean}");
        }
    }
}

#[track_caller]
fn assert_picture(folder: &Path, name: &str) {
    let picture =
        fs::read(folder.join("results").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(&picture[1..4], b"PNG", "{name}");
}

const RETRIEVAL: [&str; 9] =
    ["r1", "r2", "r4", "r8", "map_at_r", "r_precision", "nmi", "nmi_arithmetic", "ami"];

const SMALL: [&str; 2] = ["optim.batch_size=16", "model.width=8"];

#[test]
fn unseen_birds() {
    let folder = tempfile::tempdir().unwrap();
    birds(&folder.path().join("data/cub200-2010"), &classes(100));
    let [table, report] = reproduce(folder.path(), "cub200-2010", &SMALL);
    let rows = ["random", "exemplar", "nce", "deepcluster_100", "invaspread"];
    assert_measured(&table, &rows, &RETRIEVAL);
    assert!(report.contains("R@1") && report.contains("CUB-200 of 2010"), "{report}");
    assert_picture(folder.path(), "neighbours.png");
    assert!(report.contains("(neighbours.png)"), "{report}");
    report_all(folder.path(), &["cub200-2010"]);
    let [table, _] = reproduce(folder.path(), "pooling", &SMALL);
    assert_measured(&table, &["whole_map", "upper_left"], &RETRIEVAL);
    report_all(folder.path(), &["cub200-2010", "pooling"]);
}

/// Writes the page of all suites and checks that it lists the reports of `suites` and that every file it
/// shows or links to exists.
#[track_caller]
fn report_all(folder: &Path, suites: &[&str]) {
    let pages = folder.join("pages");
    let mut command = Command::cargo_bin("invaspread").unwrap();
    command.current_dir(folder).args(["report", "all", "--out", "pages"]).assert().success();
    let index = fs::read_to_string(pages.join("index.md")).unwrap();
    let links: Vec<&str> = index.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    for link in &links {
        assert!(pages.join(link).is_file(), "{link} in {index}");
    }
    let reports: Vec<&str> = links.iter().filter_map(|link| link.strip_suffix("/report.md")).collect();
    assert_eq!(reports, suites, "{index}");
}

#[test]
fn unseen_cars() {
    let folder = tempfile::tempdir().unwrap();
    // Only the first picture of each class is an official training image, so each class is written three
    // times.
    cars_devkit(&folder.path().join("data/cars196-half"), &classes(98).repeat(3));
    let [table, _] = reproduce(folder.path(), "cars196-half", &SMALL);
    assert_measured(&table, &["random", "exemplar", "nce", "deepcluster_100", "invaspread"], &RETRIEVAL);
}

#[test]
fn stl10() {
    let folder = tempfile::tempdir().unwrap();
    MiniatureStl10::new([110, 30, 70]).write(&folder.path().join("data"));
    let [table, report] = reproduce(folder.path(), "table2", &SMALL);
    let rows = ["random", "npsoftmax_5k", "nce_5k", "deepcluster_100_5k", "invaspread_5k", "invaspread_105k"];
    assert_measured(&table, &rows, &["knn", "linear"]);
    assert!(report.contains("quoted by the paper"), "{report}");
}

/// Settings for Inception-v1: few images, because each batch takes seconds in a debug build, and training
/// from scratch, because no weights are available.
const INCEPTION: [&str; 5] = [
    "model.pretrained=false",
    "optim.batch_size=4",
    "data.subset=12",
    "data.test_subset=12",
    "methods.deepcluster.clusters=4",
];

const UNSEEN: [&str; 5] = ["initial", "exemplar", "nce", "deepcluster", "invaspread"];

#[test]
fn table3() {
    let folder = tempfile::tempdir().unwrap();
    birds(&folder.path().join("data/cub200-2011"), &classes(100));
    let [table, report] = reproduce(folder.path(), "table3", &INCEPTION);
    assert_measured(&table, &UNSEEN, &RETRIEVAL);
    assert!(report.contains("MOM, quoted by the paper"), "{report}");
}

#[test]
fn tables_4_and_6() {
    let folder = tempfile::tempdir().unwrap();
    let classes: Vec<u32> = (1..=20).chain(11_319..=11_338).collect();
    products(&folder.path().join("data/products"), &classes);
    let [table, _] = reproduce(folder.path(), "table4", &INCEPTION);
    let metrics = ["r1", "r10", "r100", "nmi"];
    assert_measured(&table, &UNSEEN, &metrics);
    let small = ["model.width=8", "optim.batch_size=4", "data.subset=12", "data.test_subset=12"];
    let [table, _] = reproduce(folder.path(), "table6", &small);
    assert_measured(&table, &["random", "exemplar", "nce", "invaspread"], &metrics);
}

#[test]
fn table5() {
    let folder = tempfile::tempdir().unwrap();
    cars_union(&folder.path().join("data/cars196"), &classes(98));
    let [table, _] = reproduce(folder.path(), "table5", &INCEPTION);
    assert_measured(&table, &UNSEEN, &RETRIEVAL);
}

#[test]
fn figure4() {
    let folder = tempfile::tempdir().unwrap();
    birds(&folder.path().join("data/cub200-2010"), &classes(100));
    let settings =
        ["dataset=cub200-2010", "model=resnet18", "model.width=8", "augment=paper", "optim.batch_size=16"];
    let [table, report] = reproduce(folder.path(), "figure4", &settings);
    assert_measured(&table, &["epoch_0", "epoch_1", "epoch_2"], &["r1"]);
    assert_picture(folder.path(), "neighbours.png");
    let again =
        format!("reproduce figure4 --profile smoke device=cpu data.partial=true {}\n", settings.join(" "));
    assert!(report.contains("(neighbours.png)") && report.contains(&again), "{report}");
}

#[test]
fn pretrained_weights_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("invaspread").unwrap();
    let output = command.current_dir(folder.path()).args(["reproduce", "table3"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("model.weights=FILE") && message.contains("model.pretrained=false"),
        "{message}"
    );
}

#[test]
fn cifar10_and_the_runs_that_its_suites_share() {
    let folder = tempfile::tempdir().unwrap();
    write_cifar10(&folder.path().join("data"));
    let small = ["model.width=8", "optim.batch_size=32", "data.test_subset=50"];
    let reproduce_with = |subset: &str, suite: &str, rows: &[&str], runs: usize| {
        let [table, report] = reproduce(folder.path(), suite, &[&small[..], &[subset]].concat());
        assert_measured(&table, rows, &["knn"]);
        let found = fs::read_dir(folder.path().join("runs/table1")).unwrap().count();
        assert_eq!(found, runs, "runs there are after {suite}, those before it included");
        report
    };
    let reproduce =
        |suite: &str, rows: &[&str], runs: usize| reproduce_with("data.subset=64", suite, rows, runs);
    let report = reproduce("protocol", &["invaspread", "gradient_of_both_sides"], 7);
    assert!(report.contains("unverified"), "drawn pictures are not CIFAR-10's: {report}");
    reproduce("table8", &["full", "no_augmentation"], 10);
    reproduce("table7", &["full", "without_resized_crop", "without_grayscale", "without_flip"], 14);
    let report = reproduce("figure5", &["random", "nce", "exemplar", "invaspread"], 17);
    assert!(report.contains("Overlap"), "{report}");
    assert_picture(folder.path(), "similarity-class.png");
    reproduce("figure6", &["random", "invaspread"], 17);
    for grouping in ["animals_artifacts", "big_small_animals"] {
        assert_picture(folder.path(), &format!("similarity-{grouping}.png"));
    }
    // The runs of this suite have a folder of their own.
    let report = reproduce("modern", &["invaspread", "simclr", "moco_v2", "byol", "simsiam", "nnclr"], 17);
    for column in
        ["Linear", "Training (min)", "Memory (MiB)", "RankMe", "lightly: kNN top-1, batch 128, 200 epochs"]
    {
        assert!(report.contains(column), "{column}: {report}");
    }
    // DeepCluster's thousand clusters need as many images, so these runs differ from those above.
    let rows = ["deepcluster_1000", "exemplar", "nce", "invaspread"];
    reproduce_with("data.subset=1024", "figure3", &rows, 21);
}
