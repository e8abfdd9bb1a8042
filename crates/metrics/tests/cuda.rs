//! Compares search and clustering on the GPU with those on the CPU. The test is skipped where there is no
//! device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use candle_core::{Device, Tensor};
use invaspread_metrics::{
    KMeans, KnnResult, MetricError, RetrievalMetrics, RetrievalScores, Rows, Seeding, WeightedKnn,
    l2_normalize_rows, top_k, top_k_on,
};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::cuda::testing::device_or_skip;

/// Returns small whole numbers. Their products are exact in any order, so the lists must be equal, ties
/// included.
fn whole(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::Synthetic, 9, 0);
    (0..rows * dim).map(|_| stream.below(7) as f32 - 3.0).collect()
}

#[test]
fn the_same_neighbors() {
    if device_or_skip().is_none() {
        return;
    }
    let sizes = [(1, 1, 1, 1), (7, 40, 3, 5), (30, 300, 16, 200), (5, 1500, 4, 1024), (3, 1200, 2, 1100)];
    for (queries, gallery, dim, k) in sizes {
        let (q, g) = (whole(queries, dim, 1), whole(gallery, dim, 2));
        let (q, g) = (Rows::new(&q, dim), Rows::new(&g, dim));
        assert_eq!(top_k_on(DeviceKind::Cuda(0), q, g, k, false), top_k(q, g, k, false));
        assert_eq!(top_k_on(DeviceKind::Cuda(0), q, q, k, true), top_k(q, q, k, true));
    }
    let far = [f32::MAX, 1.0];
    let found = top_k_on(DeviceKind::Cuda(0), Rows::new(&far, 1), Rows::new(&far, 1), 1, false);
    assert_eq!(found, Err(MetricError::Overflow { row: 0 }));
    let bad = [1.0, f32::NAN];
    assert!(top_k_on(DeviceKind::Cuda(0), Rows::new(&bad, 1), Rows::new(&far, 1), 1, false).is_err());
}

#[test]
fn the_same_votes_and_clusters() {
    if device_or_skip().is_none() {
        return;
    }
    let (q, g) = (whole(20, 8, 3), whole(200, 8, 4));
    let labels: Vec<u32> = (0..200).map(|i| i % 5).collect();
    let vote = |device| {
        let knn = WeightedKnn { k: 30, temperature: 5.0, device };
        knn.evaluate(Rows::new(&q, 8), &labels[..20], Rows::new(&g, 8), &labels, 5).unwrap()
    };
    assert_eq!(vote(DeviceKind::Cuda(0)), vote(DeviceKind::Cpu));
    for (points, clusters) in [(200, 7), (50, 49)] {
        let x = whole(points, 6, 5);
        let cluster = |device| {
            let settings = KMeans {
                clusters,
                iterations: 15,
                tolerance: 0.0,
                restarts: 2,
                seeding: Seeding::PlusPlus,
                seed: 1,
                epoch: 0,
                device,
            };
            settings.fit(Rows::new(&x, 6)).unwrap()
        };
        let (there, here) = (cluster(DeviceKind::Cuda(0)), cluster(DeviceKind::Cpu));
        assert_eq!((&there.assignments, there.iterations), (&here.assignments, here.iterations));
        assert!((there.inertia - here.inertia).abs() < 1e-6 * here.inertia);
    }
}

/// Returns normal rows, of length 1 if asked; every fifth row repeats another one.
fn normal(rows: usize, dim: usize, seed: u64, unit: bool) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::Synthetic, 9, 1);
    let mut values: Vec<f32> = (0..rows * dim).map(|_| stream.normal() as f32).collect();
    for row in (5..rows).step_by(5) {
        values.copy_within((row - 4) * dim..(row - 3) * dim, row * dim);
    }
    if unit {
        l2_normalize_rows(&mut values, dim);
    }
    values
}

/// Returns the votes on the device and on the host.
fn votes(
    knn: &WeightedKnn,
    device: &Device,
    (queries, gallery, dim): (&[f32], &[f32], usize),
    classes: u32,
) -> (Option<KnnResult>, Result<KnnResult, MetricError>) {
    let there = |values: &[f32]| Tensor::from_slice(values, (values.len() / dim, dim), device).unwrap();
    // Repeated rows have different classes.
    let labels =
        |values: &[f32]| -> Vec<u32> { (0..(values.len() / dim) as u32).map(|i| i * 7 % classes).collect() };
    let (wanted, labels) = (labels(queries), labels(gallery));
    let classes = classes as usize;
    let found = knn.evaluate_on_device(&there(queries), &wanted, &there(gallery), &labels, classes).unwrap();
    (found, knn.evaluate(Rows::new(queries, dim), &wanted, Rows::new(gallery, dim), &labels, classes))
}

#[test]
fn votes_on_the_device_are_those_of_the_host() {
    let Some(device) = device_or_skip() else { return };
    for (queries, gallery, dim, k, classes, temperature) in [
        (1, 30, 2, 1, 2, 0.1),
        (9, 40, 3, 200, 4, 0.1),
        (40, 900, 16, 20, 10, 0.1),
        (33, 700, 130, 200, 300, 0.07),
        (5, 3000, 7, 900, 11, 1.0),
        (5, 3000, 7, 1000, 11, 1.0),
        (25, 600, 48, 1, 2, 0.5),
    ] {
        for unit in [false, true] {
            let (q, g) = (normal(queries, dim, 1, unit), normal(gallery, dim, 2, unit));
            let knn = WeightedKnn { k, temperature, device: DeviceKind::Cpu };
            let (there, here) = votes(&knn, &device, (&q, &g, dim), classes);
            assert_eq!(there, here.ok(), "{queries} x {dim} among {gallery}, k = {k}, unit: {unit}");
        }
    }
    // Rows in a narrow cone, rows far from the origin, and equal rows: f32 products would lose what tells
    // them apart, or there is nothing.
    for (shift, scale) in [(1.0, 1e-3), (100.0, 1.0), (0.3, 0.0)] {
        for unit in [false, true] {
            let moved = |rows, seed| {
                let mut values = normal(rows, 24, seed, false);
                for value in &mut values {
                    *value = shift + scale * *value;
                }
                if unit {
                    l2_normalize_rows(&mut values, 24);
                }
                values
            };
            let (q, g) = (moved(30, 1), moved(500, 2));
            let knn = WeightedKnn { k: 20, ..WeightedKnn::default() };
            let (there, here) = votes(&knn, &device, (&q, &g, 24), 10);
            // The rounding of equal unit rows is an offset of its own: more rows tie than there are
            // candidates.
            let here = here.ok().filter(|_| scale > 0.0 || !unit);
            assert_eq!(there, here, "shift {shift}, scale {scale}, unit: {unit}");
        }
    }
    // Ties at the last place: decided only if all rows are candidates.
    let knn = WeightedKnn { k: 9, temperature: 3.0, device: DeviceKind::Cpu };
    for (gallery, is_decided) in [(41, true), (2000, false)] {
        let (there, here) = votes(&knn, &device, (&whole(20, 2, 3), &whole(gallery, 2, 4), 2), 5);
        assert_eq!(there, here.ok().filter(|_| is_decided), "{gallery} rows");
    }
}

#[test]
fn the_host_decides_where_f32_or_the_candidates_are_not_enough() {
    let Some(device) = device_or_skip() else { return };
    let knn = WeightedKnn { k: 9, ..WeightedKnn::default() };
    let (q, g) = (normal(20, 8, 1, false), normal(300, 8, 2, false));
    let is_left =
        |queries: &[f32], gallery: &[f32]| votes(&knn, &device, (queries, gallery, 8), 5).0.is_none();
    assert!(!is_left(&q, &g));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let with = |values: &[f32]| {
            let mut values = values.to_vec();
            values[37] = value;
            values
        };
        assert!(is_left(&with(&q), &g) && is_left(&q, &with(&g)), "{value}");
    }
    let knn = WeightedKnn { k: 1024, ..knn };
    let many = normal(2000, 8, 2, false);
    assert!(votes(&knn, &device, (&q, &many, 8), 5).0.is_none(), "too many neighbors for the device");
}

/// Returns the scores of retrieval on the device and on the host.
fn scores(
    ks: &[usize],
    device: &Device,
    (rows, dim): (&[f32], usize),
    classes: u32,
) -> (Option<RetrievalScores>, Result<RetrievalScores, MetricError>) {
    let count = rows.len() / dim;
    // Repeated rows have different classes, and the last row is alone in its class.
    let mut labels: Vec<u32> = (0..count as u32).map(|i| i * 7 % classes).collect();
    labels[count - 1] = classes;
    let metrics = RetrievalMetrics { recall_at: ks.to_vec(), device: DeviceKind::Cpu };
    let there = Tensor::from_slice(rows, (count, dim), device).unwrap();
    let found = metrics.evaluate_on_device(&there, &labels).unwrap();
    (found, metrics.evaluate(Rows::new(rows, dim), &labels))
}

#[test]
fn scores_of_retrieval_on_the_device_are_those_of_the_host() {
    let Some(device) = device_or_skip() else { return };
    for (rows, dim, classes, ks) in [
        (2, 1, 1, &[1][..]),
        (9, 2, 3, &[1, 2, 4, 8]),
        (60, 16, 60, &[8, 1]),
        (700, 130, 11, &[1, 10]),
        (900, 7, 300, &[1, 10, 100]),
        (1100, 5, 200, &[1, 1000]),
    ] {
        for unit in [false, true] {
            let (there, here) = scores(ks, &device, (&normal(rows, dim, 3, unit), dim), classes);
            assert_eq!(there, here.ok(), "{rows} x {dim}, {classes} classes, unit: {unit}");
        }
    }
    for unit in [false, true] {
        let mut cone: Vec<f32> = normal(300, 24, 4, false).iter().map(|value| 1.0 + 1e-3 * value).collect();
        if unit {
            l2_normalize_rows(&mut cone, 24);
        }
        let (there, here) = scores(&[1, 4], &device, (&cone, 24), 20);
        assert_eq!(there, here.ok(), "in a narrow cone, unit: {unit}");
    }
}

#[test]
fn the_host_decides_about_retrieval_where_the_device_cannot() {
    let Some(device) = device_or_skip() else { return };
    let rows = normal(100, 8, 2, false);
    assert!(scores(&[1], &device, (&rows, 8), 5).0.is_some());
    for value in [f32::NAN, f32::INFINITY, f32::MAX] {
        let mut with = rows.clone();
        with[37] = value;
        assert!(scores(&[1], &device, (&with, 8), 5).0.is_none(), "{value}");
    }
    let many = normal(1500, 8, 2, false);
    assert!(scores(&[1024], &device, (&many, 8), 300).0.is_none(), "too many neighbors for the device");
    assert!(scores(&[1], &device, (&many, 8), 1).0.is_none(), "a class is too large for the device");
    let ties = whole(2000, 2, 4);
    assert!(scores(&[1], &device, (&ties, 2), 500).0.is_none(), "more ties than candidates");
    let one = Tensor::from_slice(&rows[..8], (1, 8), &device).unwrap();
    let metrics = RetrievalMetrics { recall_at: vec![1], device: DeviceKind::Cpu };
    let found = metrics.evaluate_on_device(&one, &[0]);
    assert!(matches!(found, Err(MetricError::TooFewRows { found: 1, needed: 2, .. })), "{found:?}");
}
