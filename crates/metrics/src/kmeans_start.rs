//! Chooses the first centroids of k-means: points drawn uniformly, or by their distance from the points drawn
//! before.

use crate::Rows;
use invaspread_random::Stream;
use invaspread_tensor::gemm;
use invaspread_tensor::inner_products::{exact_product, exact_squared_distance, rounding};
use rayon::prelude::*;

/// A squared distance is kept if it is at least this many times its possible error. Points are drawn in
/// proportion to it, so it must have some correct digits.
const DIGITS: f64 = 100.0;

/// Draws k distinct points at random.
pub(crate) fn random_start(points: Rows, clusters: usize, stream: &mut Stream) -> Vec<f32> {
    let order = stream.permutation(points.len());
    order[..clusters].iter().flat_map(|&i| points.row(i as usize).iter().copied()).collect()
}

/// Draws centroids by greedy k-means++: of 2 + ln k points drawn by squared distance, the one that leaves the
/// smallest sum of squared distances, the first of equals.
pub(crate) fn plus_plus_start(points: Rows, clusters: usize, stream: &mut Stream) -> Vec<f32> {
    let trials = 2 + (clusters as f64).ln() as usize;
    let squares: Vec<f32> =
        points.values.par_chunks(points.dim).map(|x| exact_product(x, x) as f32).collect();
    let first = stream.below(points.len());
    let mut centroids = points.row(first).to_vec();
    let mut nearest = distances_to(points, &squares, &[first]);
    while centroids.len() < clusters * points.dim {
        let drawn: Vec<usize> = draw_by_weight(&nearest, trials, stream);
        let mut distances = distances_to(points, &squares, &drawn);
        let mut best = (0, f64::INFINITY);
        for (trial, distances) in distances.chunks_mut(points.len()).enumerate() {
            for (d, n) in distances.iter_mut().zip(&nearest) {
                *d = if *d < *n { *d } else { *n };
            }
            let total = distances.iter().map(|&d| f64::from(d)).sum();
            if total < best.1 {
                best = (trial, total);
            }
        }
        centroids.extend_from_slice(points.row(drawn[best.0]));
        nearest.copy_from_slice(&distances[best.0 * points.len()..][..points.len()]);
    }
    centroids
}

/// Returns the squared distances of every point to the points `to`: (length of `to`, n).
///
/// `|x - t|² = |x|² + |t|² - 2 x · t` loses its digits in f32 where the two are near. A distance that is not
/// well above its possible error is computed from the differences instead.
fn distances_to(points: Rows, squares: &[f32], to: &[usize]) -> Vec<f32> {
    let targets: Vec<f32> = to.iter().flat_map(|&i| points.row(i).iter().copied()).collect();
    let mut out = vec![0.0; to.len() * points.len()];
    gemm::nt(to.len(), points.len(), points.dim, &targets, points.values, &mut out);
    let unsure = (DIGITS * rounding(points.dim)) as f32;
    for (row, &target) in out.chunks_mut(points.len()).zip(to) {
        row.par_iter_mut().zip(squares).enumerate().for_each(|(point, (value, &square))| {
            let both = square + squares[target];
            *value = both - 2.0 * *value;
            if *value <= unsure * both || value.is_nan() {
                *value = exact_squared_distance(points.row(point), points.row(target)) as f32;
            }
        });
    }
    out
}

/// Draws `count` indices in proportion to their weights, or uniformly if all weights are zero.
fn draw_by_weight(weights: &[f32], count: usize, stream: &mut Stream) -> Vec<usize> {
    let mut total = 0.0;
    let sums: Vec<f64> = weights
        .iter()
        .map(|&w| {
            total += f64::from(w);
            total
        })
        .collect();
    (0..count)
        .map(|_| {
            if total > 0.0 {
                let at = stream.uniform() * total;
                sums.partition_point(|&sum| sum <= at).min(weights.len() - 1)
            } else {
                stream.below(weights.len())
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::distances_to;
    use crate::Rows;
    use invaspread_tensor::inner_products::{exact_product, exact_squared_distance};

    #[test]
    fn distances_far_from_the_origin_keep_their_digits() {
        // Two groups are 2e4 apart and 1/100 wide: no single mean moves both to the origin.
        let values: Vec<f32> =
            (0..60).map(|i| if i % 2 == 0 { 1e4 } else { -1e4 } + ((i * 7) % 11) as f32 * 1e-2).collect();
        let points = Rows::new(&values, 1);
        let squares: Vec<f32> = values.iter().map(|v| exact_product(&[*v], &[*v]) as f32).collect();
        let found = distances_to(points, &squares, &[0, 7]);
        for (row, target) in found.chunks(60).zip([0, 7]) {
            for (point, &distance) in row.iter().enumerate() {
                let want = exact_squared_distance(points.row(point), points.row(target));
                assert!(
                    (f64::from(distance) - want).abs() <= 1e-2 * want,
                    "{point} {target}: {distance} {want}"
                );
            }
        }
    }
}
