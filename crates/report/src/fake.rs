//! Invented runs for the tests of this crate. No number here was ever measured: the processor and the
//! compiler are called "invented", and the runs are dated 2001.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use invaspread_record::{
    FORMAT, GroupSimilarity, Histogram, Layout, MetricRow, MetricSummary, MetricsTable, RunRecord,
};

use crate::records::{Point, Run};

/// The row, its kNN accuracy before training, the accuracy after training, and the number of epochs in which
/// it rises.
const ROWS: [(&str, f64, f64, f64); 9] = [
    ("random", 26.1, 26.1, 1.0),
    ("deepcluster_10", 26.1, 31.2, 3.0),
    ("deepcluster_1000", 26.1, 35.4, 3.0),
    ("exemplar", 26.1, 33.0, 5.0),
    ("npsoftmax", 26.1, 28.9, 5.0),
    ("nce", 26.1, 29.8, 5.0),
    ("triplet", 26.1, 34.6, 2.5),
    ("triplet_hard", 26.1, 44.7, 2.5),
    ("invaspread", 26.1, 50.3, 2.5),
];

/// The part of every run's config that says how it was measured.
const CONFIG: &str = "[eval]\nk = 200\ntemperature = 0.1\n[augment]\nsize = 32\n";

/// Returns one run of each row of Table 1 for each seed, 10 epochs of 10,000 images.
pub(crate) fn quick_runs(seeds: &[u64]) -> Vec<Run> {
    seeds.iter().flat_map(|&seed| ROWS.map(|row| run(row, seed, 10, "quick"))).collect()
}

/// Returns one run of each row at the paper's 200 epochs, with accuracies near the paper's.
pub(crate) fn full_runs(seeds: &[u64]) -> Vec<Run> {
    let ends = [30.4, 45.9, 66.2, 75.2, 79.0, 79.8, 60.1, 79.2, 83.1];
    let runs = |seed| {
        ROWS.iter()
            .zip(ends)
            .map(move |(&(row, start, _, _), end)| run((row, start, end, 28.0), seed, 200, "paper"))
    };
    seeds.iter().flat_map(|&seed| runs(seed)).collect()
}

fn run((row, start, end, pace): (&str, f64, f64, f64), seed: u64, epochs: u64, profile: &str) -> Run {
    let full = profile == "paper";
    let epochs = if row == "random" { 0 } else { epochs };
    let value = |epoch: u64| {
        let wobble = ((epoch * 7 + seed * 13 + row.len() as u64) as f64 * 1.7).sin() * 0.6;
        let risen = 1.0 - (-(epoch as f64) / pace).exp();
        ((start + (end - start) * risen + if row == "random" { seed as f64 * 0.2 } else { wobble }) * 100.0)
            .round()
            / 100.0
    };
    let knn: Vec<Point> = (0..=epochs).map(|epoch| Point { epoch, value: value(epoch) }).collect();
    let top5: Vec<Point> =
        knn.iter().map(|point| Point { value: point.value / 2.0 + 50.0, ..*point }).collect();
    let config_hash = format!(
        "{:08x}",
        row.bytes().fold(u32::from(full), |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()))
    );
    let id = format!("{config_hash}-s{seed}");
    let record = RunRecord {
        format: FORMAT,
        suite: "table1".into(),
        row: row.into(),
        method: row.trim_end_matches("_1000").trim_end_matches("_10").into(),
        dataset: "cifar10".into(),
        data_state: "verified".into(),
        profile: profile.into(),
        device: "cpu".into(),
        gpu: None,
        seed,
        epochs,
        batch_size: if full { 128 } else { 64 },
        train_images: if full { 50_000 } else { 10_000 },
        test_images: if full { 10_000 } else { 2_000 },
        held_out: false,
        width: if full { 64 } else { 16 },
        model: "resnet18".into(),
        protocol: "code".into(),
        label: None,
        arguments: Vec::new(),
        also: Vec::new(),
        main_metric: "knn_top1".into(),
        metrics: BTreeMap::from([("knn_top1".into(), summary(&knn)), ("knn_top5".into(), summary(&top5))]),
        shape: BTreeMap::new(),
        seconds: 30.0 + epochs as f64 * 11.5,
        images_per_second: (epochs > 0).then_some(913.0),
        training_processor_seconds: None,
        peak_memory_bytes: Some(612 << 20),
        config_hash,
        started: "2001-01-01T00:00:00Z".into(),
        finished: format!("2001-01-01T00:{:02}:00Z", seed + 1),
        version: "invaspread 0.0.0".into(),
        program: None,
        git: None,
        rustc: "rustc 0.0.0 (invented)".into(),
        cpu: "invented processor".into(),
        threads: 2,
        path: format!("table1/{id}"),
        reduced: !full,
        id: id.clone(),
    };
    let curves = BTreeMap::from([("knn_top1".into(), knn), ("knn_top5".into(), top5)]);
    let (folder, evaluation) = (format!("table1/{id}"), toml::from_str(CONFIG).unwrap());
    let training = training_of(&curves["knn_top1"]);
    Run { record, curves, shape: BTreeMap::new(), training, separations: Vec::new(), evaluation, folder }
}

/// Returns the measurements of training after each epoch: the loss falls as the accuracy rises.
fn training_of(knn: &[Point]) -> BTreeMap<String, Vec<Point>> {
    let of = |value: fn(&Point) -> f64| -> Vec<Point> {
        knn.iter().skip(1).map(|point| Point { value: value(point), ..*point }).collect()
    };
    BTreeMap::from([
        ("loss".into(), of(|point| 5.0 - point.value / 50.0)),
        ("images_per_second".into(), of(|point| 900.0 + point.epoch as f64)),
        ("wait_seconds".into(), of(|point| 0.25 / point.epoch as f64)),
    ])
}

/// Adds the shape of the embedding to runs: the rank grows with the epoch.
pub(crate) fn with_shape(mut runs: Vec<Run>) -> Vec<Run> {
    for run in &mut runs {
        let of = |scale: f64| -> Vec<Point> {
            run.curves["knn_top1"]
                .iter()
                .map(|point| Point { value: scale * (1.0 + 0.1 * point.epoch as f64), ..*point })
                .collect()
        };
        run.shape = [
            ("effective_rank", 20.0),
            ("rank_share", 0.2),
            ("rankme", 15.0),
            ("uniformity", -1.5),
            ("spread", 0.4),
            ("alignment", 0.3),
        ]
        .map(|(name, scale)| (name.to_owned(), of(scale)))
        .into();
    }
    runs
}

/// Adds distributions of similarity to runs: two bell curves, which are the further apart the better the
/// run's kNN is.
pub(crate) fn with_separations(mut runs: Vec<Run>) -> Vec<Run> {
    for run in &mut runs {
        let knn = run.record.metrics["knn_top1"].last / 100.0;
        let bell = |mean: f64, deviation: f64| {
            let count = |bin: i32| {
                let at = (f64::from(bin) + 0.5) / 50.0 - 1.0;
                (1000.0 * (-((at - mean) / deviation).powi(2) / 2.0).exp()).round() as u64
            };
            Histogram { mean, deviation, counts: (0..100).map(count).collect() }
        };
        let (same, other) = (bell(0.7, 0.09), bell(0.75 - 0.4 * knn, 0.08));
        run.separations = vec![GroupSimilarity { name: "class".into(), same, other, overlap: 1.0 - knn }];
    }
    runs
}

/// Returns runs of a retrieval suite: three rows, two epochs.
pub(crate) fn retrieval_runs() -> Vec<Run> {
    let rows = [("random", 20.0), ("nce", 24.0), ("invaspread", 31.0)];
    rows.into_iter()
        .map(|(row, end)| {
            let mut run = run((row, 20.0, end, 2.0), 0, 2, "quick");
            let values = run.curves.remove("knn_top1").unwrap();
            let scaled = |by: f64| -> Vec<Point> {
                values.iter().map(|point| Point { value: point.value * by, ..*point }).collect()
            };
            let curves: Vec<(String, Vec<Point>)> = [
                ("recall_at_1", 1.0),
                ("recall_at_2", 1.3),
                ("recall_at_4", 1.7),
                ("recall_at_8", 2.1),
                ("map_at_r", 0.3),
                ("r_precision", 0.4),
                ("nmi_geometric", 1.5),
                ("nmi_arithmetic", 1.5),
                ("ami", 0.7),
            ]
            .map(|(name, by)| (name.to_owned(), scaled(by)))
            .into();
            run.record.main_metric = "recall_at_1".into();
            run.record.suite = "table3".into();
            run.record.dataset = "cub200-2011".into();
            run.record.metrics =
                curves.iter().map(|(name, points)| (name.clone(), summary(points))).collect();
            run.curves = curves.into_iter().collect();
            run
        })
        .collect()
}

fn summary(points: &[Point]) -> MetricSummary {
    let best =
        points.iter().copied().reduce(|best, point| if point.value > best.value { point } else { best });
    let (best, last) = (best.unwrap(), points.last().unwrap());
    MetricSummary { last: last.value, best: best.value, best_epoch: best.epoch as i64 }
}

/// Writes the records and measurements of runs and returns the runs.
pub(crate) fn write_suite(root: &Path, runs: &[Run]) -> Vec<Run> {
    for run in runs {
        let layout = Layout::of(root.join(&run.folder));
        fs::create_dir_all(layout.folder()).unwrap();
        let mut record = serde_json::to_value(&run.record).unwrap();
        record["a_key_from_the_future"] = true.into();
        fs::write(layout.record(), record.to_string()).unwrap();
        fs::write(layout.config(), CONFIG).unwrap();
        let row = |split: &str, name: &str, point: &Point, value| MetricRow {
            epoch: point.epoch as i64,
            step: point.epoch as i64 * 156,
            split: split.into(),
            name: name.into(),
            value,
            seconds: point.epoch as f64,
        };
        let test = run
            .curves
            .iter()
            .flat_map(|(name, points)| points.iter().map(|point| row("test", name, point, point.value)));
        let train = run
            .training
            .iter()
            .flat_map(|(name, points)| points.iter().map(|point| row("train", name, point, point.value)));
        MetricsTable::new(test.chain(train).collect()).write(&layout.metrics()).unwrap();
    }
    runs.to_vec()
}

/// Draws every figure for a person to look at: `REPORT_LOOK=folder cargo test -p invaspread-report look --
/// --ignored` writes them into the folder.
#[test]
#[ignore = "writes pictures for a person to look at"]
fn look() {
    let Some(folder) = std::env::var_os("REPORT_LOOK") else { return };
    let folder = Path::new(&folder);
    for (name, runs) in [
        ("quick", quick_runs(&[0])),
        ("quick3", quick_runs(&[0, 1, 2])),
        ("full", full_runs(&[0])),
        ("full3", full_runs(&[0, 1, 2])),
    ] {
        crate::write_report("table1", &with_separations(runs), &["class".into()], &folder.join(name))
            .unwrap();
    }
    crate::write_report("table3", &retrieval_runs(), &[], &folder.join("retrieval")).unwrap();
    let shade = |label: u32, variant: u32| crate::gallery::Picture {
        width: 32,
        height: 32,
        pixels: (0..32 * 32)
            .flat_map(|pixel: u32| {
                let (x, y) = (pixel % 32, pixel / 32);
                let ring = ((x as i32 - 16).pow(2) + (y as i32 - 16).pow(2)) as u32 / (6 + variant);
                [(ring * 20 + label * 60) as u8, (x * 8 + variant * 20) as u8, (y * 4 + label * 30) as u8]
            })
            .collect(),
        label,
    };
    let classes = ["airplane", "automobile", "bird", "cat", "American_Crow"].map(str::to_owned).to_vec();
    let query = |label: u32| crate::gallery::Query {
        picture: shade(label, 0),
        found: [3, 4]
            .map(|wrong| {
                let label = |n| if n % wrong == 0 { 4 - label } else { label };
                (1..=4).map(|n| (shade(label(n), n), 1.0 - n as f32 * 0.07)).collect()
            })
            .into(),
    };
    let gallery = crate::gallery::Gallery {
        title: "InvaSpread after 10 epochs, invented pictures".into(),
        networks: ["epoch 0", "epoch 2"].map(str::to_owned).into(),
        classes,
        queries: (0..4).map(query).collect(),
    };
    fs::write(folder.join("gallery.png"), crate::gallery::draw_gallery(&gallery).unwrap()).unwrap();
}
