//! Compares with the goldens: values of the official code, faiss and scikit-learn in `metrics.safetensors`
//! and `values.json`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::{Agreement, KMeans, RetrievalMetrics, Rows, Seeding, WeightedKnn};
use invaspread_tensor::DeviceKind;
use safetensors::{Dtype, SafeTensors};
use std::path::PathBuf;

/// Returns the folder that `INVASPREAD_GOLDENS` names, or `tests/goldens` of the workspace.
fn folder() -> PathBuf {
    std::env::var_os("INVASPREAD_GOLDENS")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens").into(), PathBuf::from)
}

/// Reads the golden file `name`. A folder that was made before that file existed is checked with the
/// workspace's own.
pub(crate) fn file_or_own(name: &str) -> Vec<u8> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");
    let file = Some(folder().join(name))
        .filter(|file| file.exists())
        .unwrap_or_else(|| PathBuf::from(own).join(name));
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Returns the numbers of a tensor of f32.
pub(crate) fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

pub(crate) struct Goldens {
    bytes: Vec<u8>,
    pub(crate) values: serde_json::Value,
}

impl Goldens {
    pub(crate) fn open() -> Self {
        let read = |name| std::fs::read(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        Self {
            bytes: read("metrics.safetensors"),
            values: serde_json::from_slice(&read("values.json")).unwrap(),
        }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub(crate) fn rows(&self, name: &str) -> (Vec<f32>, usize) {
        let file = self.file();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        (f32s(tensor.data()), tensor.shape()[1])
    }

    pub(crate) fn labels(&self, name: &str) -> Vec<u32> {
        let file = self.file();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64);
        tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }
}

#[test]
fn golden_knn() {
    let goldens = Goldens::open();
    let ((train, dim), (test, _)) = (goldens.rows("train"), goldens.rows("test"));
    let (train_labels, test_labels) = (goldens.labels("train_labels"), goldens.labels("test_labels"));
    let classes = 1 + train_labels.iter().chain(&test_labels).max().copied().unwrap() as usize;
    let file = goldens.file();
    let names: Vec<&str> = file.names().into_iter().filter(|name| name.ends_with(".predictions")).collect();
    assert!(!names.is_empty(), "no knn case in {}", folder().display());
    for name in names {
        let case = name.strip_suffix(".predictions").unwrap();
        let (k, temperature) = case.strip_prefix("knn.k").unwrap().split_once(".t").unwrap();
        let knn = WeightedKnn {
            k: k.parse().unwrap(),
            temperature: temperature.parse().unwrap(),
            device: DeviceKind::Cpu,
        };
        let got = knn
            .evaluate(Rows::new(&test, dim), &test_labels, Rows::new(&train, dim), &train_labels, classes)
            .unwrap();
        assert_eq!(got.predictions, goldens.labels(name), "{name}");
        for (metric, value) in [("top1", got.top1), ("top5", got.top5)] {
            if let Some(want) = goldens.values[format!("{case}.{metric}")].as_f64() {
                assert!((value - want).abs() < 0.01, "{case}.{metric}: {value}, expected {want}");
            } else {
                assert_eq!(metric, "top5", "{case} has no top1");
            }
        }
    }
}

#[test]
fn golden_kmeans_inertia() {
    let goldens = Goldens::open();
    let (test, dim) = goldens.rows("test");
    let mut classes = goldens.labels("test_labels");
    classes.sort_unstable();
    classes.dedup();
    let want = goldens.values["kmeans.sklearn.inertia"].as_f64().unwrap();
    let kmeans = KMeans {
        clusters: classes.len(),
        iterations: 300,
        tolerance: 0.0,
        restarts: 10,
        seeding: Seeding::PlusPlus,
        seed: 0,
        epoch: 0,
        device: DeviceKind::Cpu,
    };
    let got = kmeans.fit(Rows::new(&test, dim)).unwrap().inertia;
    assert!(got < 1.01 * want, "{got}, scikit-learn {want}");
}

#[test]
fn golden_retrieval() {
    let goldens = Goldens::open();
    let ((test, dim), labels) = (goldens.rows("test"), goldens.labels("test_labels"));
    let wanted: Vec<(usize, f64)> = goldens
        .values
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("recall@")?.parse().ok()?, value.as_f64()?)))
        .collect();
    assert!(!wanted.is_empty(), "no recall in {}", folder().display());
    let recall_at = wanted.iter().map(|(k, _)| *k).collect();
    let got = RetrievalMetrics { recall_at, device: DeviceKind::Cpu }
        .evaluate(Rows::new(&test, dim), &labels)
        .unwrap();
    let close = |what: &str, value: f64, want: f64| {
        assert!((value - want).abs() < 1e-3, "{what}: {value}, expected {want}");
    };
    for ((k, want), (_, value)) in wanted.iter().zip(&got.recall_at) {
        close(&format!("recall@{k}"), *value, *want);
    }
    close("map@r", got.map_at_r, goldens.values["map@r"].as_f64().unwrap());
    close("r_precision", got.r_precision, goldens.values["r_precision"].as_f64().unwrap());
}

#[test]
fn golden_agreement() {
    let goldens = Goldens::open();
    let got = Agreement::between(&goldens.labels("test_labels"), &goldens.labels("assignments")).unwrap();
    for (name, value) in [("nmi.arithmetic", got.nmi_arithmetic), ("nmi.geometric", got.nmi_geometric)] {
        let want = goldens.values[name].as_f64().unwrap();
        assert!((value - want).abs() < 1e-9, "{name}: {value}, expected {want}");
    }
}
