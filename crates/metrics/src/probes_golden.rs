//! Compares the linear probes with the values of scikit-learn's `LinearSVC`.
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
    // scikit-learn stops at a tolerance of 1e-4, so a row near the border of two classes may get either
    // class.
    let one_row = 100.0 / test_labels.len() as f64;
    assert!((got - want).abs() < 1.01 * one_row, "{got}, scikit-learn {want}");
}
