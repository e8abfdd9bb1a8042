//! The golden of the linear probes: what scikit-learn's `LinearSVC` got.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::golden::Goldens;
use crate::{LinearSvm, Rows};

#[test]
fn golden_linear_svm() {
    let goldens = Goldens::open();
    let want = goldens.values["linear_svm.top1"].as_f64().unwrap();
    let ((train, dim), (test, _)) = (goldens.rows("train"), goldens.rows("test"));
    let classifier =
        LinearSvm::default().fit(Rows::new(&train, dim), &goldens.labels("train_labels")).unwrap();
    let test_labels = goldens.labels("test_labels");
    let got = classifier.accuracy(Rows::new(&test, dim), &test_labels).unwrap();
    assert!((got - want).abs() < 0.01, "{got}, scikit-learn {want}");
}
