//! Compares search and clustering on the GPU with those on the CPU. The test is skipped where there is no
//! device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use invaspread_metrics::{KMeans, MetricError, Rows, Seeding, WeightedKnn, top_k, top_k_on};
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
