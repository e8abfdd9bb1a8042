//! PCA whitening, as DeepCluster prepares features for k-means.
//!
//! `y = diag(λ + ε λ_1)^(-1/2) Vᵀ (x - μ)`, where Σ = V diag(λ) Vᵀ is the covariance (divisor n) and λ is in
//! descending order.
//!
//! Shapes: x (n, d), V's kept columns (d, c), y (n, c). DeepCluster's code (`clustering.preprocess_features`)
//! uses `faiss.PCAMatrix(d, 256, eigen_power=-0.5)` and L2-normalizes the rows
//! ([`crate::l2_normalize_rows`]). Deviations: covariance and eigenvectors are in f64; ε = 1e-9 prevents a
//! division by zero for directions without variance (fewer images than d, dead units), where faiss would
//! amplify rounding errors; the largest entry of each eigenvector is positive, so that the result is the same
//! on every machine.

use crate::{MetricError, Rows};
use invaspread_tensor::gemm;
use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;

/// ε: the variance added to every direction, relative to the largest.
const RELATIVE_EPSILON: f64 = 1e-9;

/// The number of rows that are centered and multiplied together.
const BLOCK: usize = 1024;

/// A fitted whitening.
///
/// ```
/// use invaspread_metrics::{Rows, Whitening};
///
/// let points = [1.0, 10.0, -1.0, 10.0, 0.0, 30.0, 0.0, -10.0];
/// let white = Whitening::fit(Rows::new(&points, 2), 2)?.transform(Rows::new(&points, 2));
/// let variance = |column: usize| white.chunks(2).map(|row| row[column].powi(2)).sum::<f32>() / 4.0;
/// assert!((variance(0) - 1.0).abs() < 1e-4 && (variance(1) - 1.0).abs() < 1e-4);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Whitening {
    dim: usize,
    components: usize,
    /// (d) the mean.
    mean: Vec<f64>,
    /// (c, d) the eigenvectors, divided by the square roots of their eigenvalues.
    projection: Vec<f32>,
    /// (c) the variance along each kept direction, λ.
    variances: Vec<f64>,
    /// The variance along all directions.
    total_variance: f64,
}

impl Whitening {
    /// Fits to `points` (n, d), keeping the `components` directions of most variance, or all d if that is
    /// less.
    ///
    /// # Errors
    /// If a row is not finite, or there are no rows.
    ///
    /// # Panics
    /// If `components` is zero.
    pub fn fit(points: Rows, components: usize) -> Result<Self, MetricError> {
        assert!(components > 0, "no components to keep");
        points.check_finite("points")?;
        if points.is_empty() {
            return Err(MetricError::TooFewRows {
                what: "points",
                found: 0,
                needed: 1,
                advice: "use more images",
            });
        }
        let dim = points.dim;
        let components = components.min(dim);
        let mean = points.column_means();
        let eigen = SymmetricEigen::new(DMatrix::from_vec(dim, dim, covariance(points, &mean)));
        let mut order: Vec<usize> = (0..dim).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let largest = eigen.eigenvalues[order[0]].max(0.0);

        let variances: Vec<f64> =
            order[..components].iter().map(|&column| eigen.eigenvalues[column].max(0.0)).collect();
        let total_variance = eigen.eigenvalues.iter().map(|value| value.max(0.0)).sum();
        let mut projection = Vec::with_capacity(components * dim);
        for &column in &order[..components] {
            let vector = eigen.eigenvectors.column(column);
            let variance = eigen.eigenvalues[column].max(0.0) + RELATIVE_EPSILON * largest;
            let scale = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
            let signed = if vector[vector.iamax()] < 0.0 { -scale } else { scale };
            projection.extend(vector.iter().map(|v| (v * signed) as f32));
        }
        Ok(Self { dim, components, mean, projection, variances, total_variance })
    }

    /// Returns the number of values of a whitened row.
    pub fn components(&self) -> usize {
        self.components
    }

    /// Returns the share of the variance along each kept direction, 0 to 1, the largest first; zeros if all points are equal.
    pub fn shares(&self) -> Vec<f64> {
        let total = if self.total_variance > 0.0 { self.total_variance } else { 1.0 };
        self.variances.iter().map(|variance| variance / total).collect()
    }

    /// Returns the coordinates of `points` (n, d) along the kept directions, (n, c): PCA without the whitening, so that
    /// distances are those of the points as far as the directions hold them.
    ///
    /// # Panics
    /// If d is not the dimension of the points that were fitted.
    pub fn unscaled(&self, points: Rows) -> Vec<f32> {
        let deviations: Vec<f32> = self.variances.iter().map(|variance| variance.sqrt() as f32).collect();
        let mut out = self.transform(points);
        for row in out.chunks_mut(self.components) {
            row.iter_mut().zip(&deviations).for_each(|(value, deviation)| *value *= deviation);
        }
        out
    }

    /// Whitens `points` (n, d) to (n, c).
    ///
    /// # Panics
    /// If d is not the dimension of the points that were fitted.
    pub fn transform(&self, points: Rows) -> Vec<f32> {
        assert_eq!(points.dim, self.dim, "fitted to another dimension");
        let mut out = vec![0.0; points.len() * self.components];
        out.par_chunks_mut(BLOCK * self.components).zip(points.values.par_chunks(BLOCK * self.dim)).for_each(
            |(out, block)| {
                let centered: Vec<f32> = center(block, &self.mean).map(|v| v as f32).collect();
                let rows = block.len() / self.dim;
                gemm::nt(rows, self.components, self.dim, &centered, &self.projection, out);
            },
        );
        out
    }
}

fn center<'a>(block: &'a [f32], mean: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    block.iter().zip(mean.iter().cycle()).map(|(&v, m)| f64::from(v) - m)
}

/// Returns the covariance (d, d), divisor n. Blocks are added in order, so threads do not change it.
fn covariance(points: Rows, mean: &[f64]) -> Vec<f64> {
    let dim = points.dim;
    let mut sum = vec![0.0; dim * dim];
    let mut product = vec![0.0; dim * dim];
    for block in points.values.chunks(BLOCK * dim) {
        let centered: Vec<f64> = center(block, mean).collect();
        gemm::tn(dim, dim, block.len() / dim, &centered, &centered, &mut product);
        sum.iter_mut().zip(&product).for_each(|(s, p)| *s += p);
    }
    for s in &mut sum {
        *s /= points.len() as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Whitening, covariance};
    use crate::{MetricError, Rows};
    use invaspread_random::{Purpose, Stream};

    /// Returns rows that are strongly correlated, badly scaled and off center.
    fn correlated(n: usize, dim: usize) -> Vec<f32> {
        let mut stream = Stream::new(5, Purpose::Bootstrap, 0, 0);
        let mixing: Vec<f64> = (0..dim * dim).map(|i| stream.normal() / (1 + i % dim) as f64).collect();
        let mut values = Vec::new();
        for _ in 0..n {
            let z: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
            for row in mixing.chunks(dim) {
                values.push((7.0 + row.iter().zip(&z).map(|(a, b)| a * b).sum::<f64>()) as f32);
            }
        }
        values
    }

    #[test]
    fn unscaled_coordinates_keep_distances_and_shares_add_up() {
        let values = correlated(300, 3);
        let points = Rows::new(&values, 3);
        let pca = Whitening::fit(points, 3).unwrap();
        let shares = pca.shares();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        assert!(shares[0] >= shares[1] && shares[1] >= shares[2], "{shares:?}");
        let places = pca.unscaled(points);
        let distance = |values: &[f32], i: usize, j: usize| {
            let row = |at: usize| &values[3 * at..3 * at + 3];
            row(i).iter().zip(row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        for (i, j) in [(0, 1), (5, 250), (17, 99)] {
            let (before, after) = (distance(&values, i, j), distance(&places, i, j));
            assert!((before - after).abs() < 1e-3 * before, "{before} {after}");
        }
        let equal = Whitening::fit(Rows::new(&[1.0; 12], 3), 2).unwrap();
        assert_eq!(equal.shares(), [0.0, 0.0]);
        assert_eq!(equal.unscaled(Rows::new(&[1.0; 3], 3)), [0.0, 0.0]);
    }

    fn assert_identity(values: &[f32], dim: usize, tolerance: f64) {
        let rows = Rows::new(values, dim);
        let mean = rows.column_means();
        assert!(mean.iter().all(|m| m.abs() < tolerance), "{mean:?}");
        for (i, v) in covariance(rows, &mean).into_iter().enumerate() {
            let want = f64::from(u8::from(i / dim == i % dim));
            assert!((v - want).abs() < tolerance, "({}, {}): {v}", i / dim, i % dim);
        }
    }

    #[test]
    fn the_output_has_the_identity_as_covariance() {
        let values = correlated(3000, 24);
        let rows = Rows::new(&values, 24);
        for components in [24, 300, 5] {
            let whitening = Whitening::fit(rows, components).unwrap();
            assert_eq!(whitening.components(), components.min(24));
            assert_identity(&whitening.transform(rows), components.min(24), 1e-3);
        }
    }

    #[test]
    fn the_directions_of_most_variance_are_kept() {
        // The standard deviations along the axes are 1, 10 and 0.1, so the first component is axis 1 and the
        // second one axis 0.
        let mut stream = Stream::new(6, Purpose::Bootstrap, 0, 0);
        let values: Vec<f32> =
            (0..6000).map(|i| (stream.normal() * [1.0, 10.0, 0.1][i % 3]) as f32).collect();
        let rows = Rows::new(&values, 3);
        let out = Whitening::fit(rows, 2).unwrap().transform(rows);
        for (x, y) in values.chunks(3).zip(out.chunks(2)) {
            assert!((y[0] - x[1] / 10.0).abs() < 0.3 && (y[1] - x[0]).abs() < 0.3, "{x:?} {y:?}");
        }
    }

    #[test]
    fn directions_without_variance_stay_finite() {
        let few = correlated(5, 24);
        let constant = vec![2.5; 24 * 10];
        for values in [few, constant] {
            let rows = Rows::new(&values, 24);
            let out = Whitening::fit(rows, 24).unwrap().transform(rows);
            assert!(out.iter().all(|v| v.is_finite() && v.abs() < 10.0), "{out:?}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let values = correlated(2500, 70);
        let rows = Rows::new(&values, 70);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Whitening::fit(rows, 70).unwrap().transform(rows))
        };
        assert_eq!(on(1), on(4));
    }

    #[test]
    fn bad_rows_are_refused() {
        let error = Whitening::fit(Rows::new(&[1.0, f32::NAN], 1), 1).unwrap_err();
        assert!(matches!(error, MetricError::NotFinite { row: 1, .. }));
        let error = Whitening::fit(Rows::new(&[], 3), 1).unwrap_err();
        assert!(matches!(error, MetricError::TooFewRows { found: 0, .. }));
    }
}
