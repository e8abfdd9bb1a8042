//! Tests embeddings whose common part is far longer than their differences: nearly collapsed embeddings in a
//! narrow cone, unscaled rows far from the origin, and groups that are far from one another. Every metric
//! must have the value that f64 gives for the same rows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use invaspread_metrics::{
    Agreement, KMeans, RetrievalMetrics, Rows, Seeding, SimilarityDistribution, WeightedKnn, top_k_on,
};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;

const DIM: usize = 48;
const CLASSES: usize = 20;
const EACH: usize = 15;

#[cfg(not(feature = "cuda"))]
fn devices() -> Vec<DeviceKind> {
    vec![DeviceKind::Cpu]
}

/// Returns the CPU, and the GPU where there is one.
#[cfg(feature = "cuda")]
fn devices() -> Vec<DeviceKind> {
    let there = invaspread_tensor::cuda::testing::device_or_skip().is_some();
    if there { vec![DeviceKind::Cpu, DeviceKind::Cuda(0)] } else { vec![DeviceKind::Cpu] }
}

/// Returns rows `common + s z`, where the points z lie around 20 places (row i around place i mod 20) at
/// distances of about `noise`.
fn rows(common: impl Fn(usize) -> f64, s: f64, noise: f64, unit: bool) -> Vec<f32> {
    let mut stream = Stream::new(7, Purpose::Bootstrap, 0, 0);
    let places: Vec<f64> = (0..CLASSES * DIM).map(|_| stream.normal()).collect();
    let mut values = Vec::new();
    for point in 0..CLASSES * EACH {
        let class = point % CLASSES;
        let row: Vec<f64> = places[class * DIM..][..DIM]
            .iter()
            .map(|place| common(class) + s * (place + noise * stream.normal()))
            .collect();
        let length = if unit { row.iter().map(|v| v * v).sum::<f64>().sqrt() } else { 1.0 };
        values.extend(row.iter().map(|v| (v / length) as f32));
    }
    values
}

fn labels() -> Vec<u32> {
    (0..CLASSES * EACH).map(|point| (point % CLASSES) as u32).collect()
}

/// Returns rows of every kind, each kind with its name.
fn kinds(noise: f64) -> Vec<(String, Vec<f32>)> {
    let mut kinds: Vec<(String, Vec<f32>)> = (0..=5)
        .map(|power| (format!("a cone of 1e-{power}"), rows(|_| 1.0, 10.0_f64.powi(-power), noise, true)))
        .collect();
    kinds.push(("an offset of 1e4".to_owned(), rows(|_| 1e4, 1.0, noise, false)));
    let sides = |class: usize| if class.is_multiple_of(2) { 1e4 } else { -1e4 };
    kinds.push(("two groups 2e4 apart".to_owned(), rows(sides, 1.0, noise, false)));
    kinds.push(("rows of 1e-25".to_owned(), rows(|_| 0.0, 1e-25, noise, false)));
    kinds
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Returns the cosine of rows that were scaled to length 1 (and then rounded), and the inner product of other
/// rows.
fn exact(a: &[f32], b: &[f32], unit: bool) -> f64 {
    if unit { product(a, b) / (product(a, a) * product(b, b)).sqrt() } else { product(a, b) }
}

/// Returns whether similarity `a` is larger than `b` by more than the last digits of a sum in f64, which
/// depend on the order of its terms.
fn clearly_nearer(a: f64, b: f64) -> bool {
    a - b > 1e-13 * a.abs().max(b.abs())
}

#[test]
fn neighbors_are_in_the_order_of_f64() {
    for device in devices() {
        for (kind, values) in kinds(0.5) {
            let rows = Rows::new(&values, DIM);
            for (k, exclude_self) in [(1, true), (25, false), (299, true), (300, false)] {
                let found = top_k_on(device, rows, rows, k, exclude_self).unwrap();
                let unit = kind.starts_with("a cone");
                for query in 0..rows.len() {
                    let products: Vec<f64> =
                        (0..rows.len()).map(|row| exact(rows.row(query), rows.row(row), unit)).collect();
                    let (indices, similarities) = found.of(query);
                    let mut left: Vec<bool> = vec![true; rows.len()];
                    left[query] = !exclude_self;
                    for (&index, &similarity) in indices.iter().zip(similarities) {
                        let product = products[index as usize];
                        assert!(left[index as usize], "{kind}: {index} twice");
                        left[index as usize] = false;
                        let missed =
                            (0..rows.len()).find(|&row| left[row] && clearly_nearer(products[row], product));
                        assert_eq!(missed, None, "{kind}, {device:?}, query {query}, k {k}: before {index}");
                        let off = (f64::from(similarity) - product).abs();
                        let lengths = products[query].abs().max(1e-38);
                        assert!(off <= 1e-5 * 10.0 * lengths, "{kind}: {similarity} {product}");
                    }
                }
            }
        }
    }
}

#[test]
fn clear_classes_are_clear_however_narrow_the_cone() {
    let labels = labels();
    for device in devices() {
        for (kind, values) in kinds(0.1) {
            let rows = Rows::new(&values, DIM);
            // Unscaled rows have other neighbors by inner product than by distance; the test above compares
            // those with f64.
            if kind.starts_with("a cone") {
                let found = RetrievalMetrics { recall_at: vec![1], device }.evaluate(rows, &labels).unwrap();
                assert!(found.recall_at[0].1 > 99.999, "{kind}, {device:?}: {found:?}");
                assert!(found.map_at_r >= 99.99, "{kind}, {device:?}: {found:?}");
                let knn = WeightedKnn { k: EACH, temperature: 0.1, device };
                let found = knn.evaluate(rows, &labels, rows, &labels, CLASSES).unwrap();
                assert!(found.top1 > 99.999, "{kind}, {device:?}: {}", found.top1);
            }
            let kmeans = KMeans {
                clusters: CLASSES,
                iterations: 300,
                tolerance: 1e-4,
                restarts: 5,
                seeding: Seeding::PlusPlus,
                seed: 0,
                epoch: 0,
                device,
            };
            let clusters = kmeans.fit(rows).unwrap();
            let agreement = Agreement::between(&labels, &clusters.assignments).unwrap();
            assert!(agreement.nmi_arithmetic > 0.99999, "{kind}, {device:?}: {agreement:?}");
            assert!(agreement.ami > 0.99999, "{kind}, {device:?}: {agreement:?}");
        }
    }
}

#[test]
fn votes_and_deviations_are_those_of_f64() {
    // The labels have little to do with the places, so the votes for the classes are close to one another; in
    // a narrow cone all votes are nearly 1.
    let labels: Vec<u32> = (0..CLASSES * EACH).map(|point| ((point / 3 + point) % 4) as u32).collect();
    for device in devices() {
        for power in 0..=4 {
            let values = rows(|_| 1.0, 10.0_f64.powi(-power), 1.0, true);
            let rows = Rows::new(&values, DIM);
            let knn = WeightedKnn { k: 40, temperature: 0.1, device };
            let found = knn.evaluate(rows, &labels, rows, &labels, 4).unwrap();
            let neighbors = top_k_on(device, rows, rows, 40, false).unwrap();
            for query in 0..rows.len() {
                let mut scores = [0.0_f64; 4];
                let nearest = exact(rows.row(query), rows.row(neighbors.of(query).0[0] as usize), true);
                for &index in neighbors.of(query).0 {
                    let above = exact(rows.row(query), rows.row(index as usize), true) - nearest;
                    scores[labels[index as usize] as usize] += (above / 0.1).exp();
                }
                let best = scores.iter().copied().fold(0.0, f64::max);
                let got = scores[found.predictions[query] as usize];
                assert!(got >= best - 1e-12 * best, "1e-{power}, query {query}: {got} of {scores:?}");
            }
            let groups: Vec<Option<u32>> = (0..CLASSES * EACH).map(|p| Some((p % CLASSES) as u32)).collect();
            let distribution = SimilarityDistribution { neighbors: 3, bins: 10, device };
            let found = distribution.evaluate(rows, &groups, rows, &groups).unwrap().unwrap();
            let mut cosines = Vec::new();
            for query in 0..rows.len() {
                let others = (0..rows.len()).filter(|row| row % CLASSES != query % CLASSES);
                let mut all: Vec<f64> =
                    others.map(|row| exact(rows.row(query), rows.row(row), true)).collect();
                all.sort_by(|a, b| b.total_cmp(a));
                cosines.extend_from_slice(&all[..3]);
            }
            let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
            let variance = cosines.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / cosines.len() as f64;
            let deviation = variance.sqrt();
            let off = (found.other.deviation - deviation).abs();
            assert!(off < 1e-3 * deviation, "1e-{power}: {} {deviation}", found.other.deviation);
        }
    }
}
