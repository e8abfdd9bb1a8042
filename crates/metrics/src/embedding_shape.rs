//! Measures the shape of a set of embeddings without labels: whether they use all dimensions and fill the
//! sphere, or have collapsed.
//!
//! For unit rows x_1 ... x_n (n, d), with the singular values σ_k of the matrix X of rows and τ_k of X less its
//! mean row:
//!
//! - effective rank `exp(-Σ_k p_k log p_k)`, `p_k = τ_k / Σ_j τ_j` (Roy & Vetterli, "The effective rank",
//!   EUSIPCO 2007). It lies between 1 and min(n - 1, d); `rank_share` is its share of that.
//! - RankMe: the same of `p_k = σ_k / Σ_j σ_j + 1e-7` (Garrido et al., "RankMe", ICML 2023), without
//!   subtraction of the mean.
//! - uniformity `log mean_{i<j} exp(-2 |x_i - x_j|²)` (Wang & Isola, "Understanding Contrastive Representation
//!   Learning through Alignment and Uniformity", ICML 2020, t = 2). It is 0 if all rows are equal, and near
//!   -4 for rows that are spread evenly over a sphere of many dimensions.
//! - spread: √d times the mean over dimensions of the standard deviation of a coordinate (Chen & He,
//!   "Exploring Simple Siamese Representation Learning", CVPR 2021, figure 2). It is 0 if all rows are equal,
//!   and near 1 for rows that are spread evenly over the sphere.
//! - alignment `mean_i |x_i - y_i|²` of two views x and y of the same images (Wang & Isola, α = 2); where there are
//!   classes but no views, the same mean over all pairs of rows of one class ([`class_alignment`]).
//!
//! Singular values are the square roots of the eigenvalues of `Xᵀ X` or `X Xᵀ`, the smaller one, in f64. So
//! values below 1e-8 of the largest are rounding errors; they change an effective rank by less than 1e-4 of
//! itself. If all rows are equal, the effective rank is 0, since no direction is left.

use crate::{MetricError, Rows};
use invaspread_tensor::gemm;
use invaspread_tensor::inner_products::exact_squared_distance;
use nalgebra::DMatrix;
use rayon::prelude::*;

/// What [`EmbeddingShape::of`] measures of a set of rows.
///
/// ```
/// use invaspread_metrics::{EmbeddingShape, Rows};
///
/// // Four directions of a plane, in three dimensions.
/// let rows = [1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0];
/// let shape = EmbeddingShape::of(Rows::new(&rows, 3))?;
/// assert!((shape.effective_rank - 2.0).abs() < 1e-9 && (shape.rank_share - 2.0 / 3.0).abs() < 1e-9);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbeddingShape {
    /// The effective rank, without the mean row.
    pub effective_rank: f64,
    /// The share of the effective rank in the largest possible one, min(n - 1, d).
    pub rank_share: f64,
    /// RankMe.
    pub rankme: f64,
    /// Uniformity, at most 0.
    pub uniformity: f64,
    /// The standard deviation of a coordinate, times √d.
    pub spread: f64,
}

/// The number that RankMe adds to each share.
pub(crate) const RANKME_EPSILON: f64 = 1e-7;

impl EmbeddingShape {
    /// Measures `rows` (n, d), which should have length 1. Needs n² d operations, so large sets should be
    /// sampled first.
    ///
    /// # Errors
    /// If there are fewer than two rows, or a row is not finite.
    pub fn of(rows: Rows) -> Result<Self, MetricError> {
        Self::with_kernel_sums(rows, |rows| {
            // Each row's sum is computed by one thread, and the sums are added in order.
            let sum = |i| (0..i).map(|j| kernel(rows, i, j)).sum::<f64>();
            (1..rows.len()).into_par_iter().map(sum).collect()
        })
    }

    /// Does the same with a function that gives, for each row but the first, the sum of [`kernel`] over the rows
    /// before it.
    pub(crate) fn with_kernel_sums(
        rows: Rows,
        sums: impl FnOnce(Rows) -> Vec<f64>,
    ) -> Result<Self, MetricError> {
        rows.check_finite("embeddings")?;
        let (n, d) = (rows.len(), rows.dim);
        if n < 2 {
            let (what, advice) = ("embeddings", "use more images");
            return Err(MetricError::TooFewRows { what, found: n, needed: 2, advice });
        }
        let [plain, centered] = plain_and_centered(rows);
        let effective_rank = entropy_rank(&singular_values(&centered, d), 0.0);
        let mut squares = vec![0.0; d];
        for row in centered.chunks(d) {
            squares.iter_mut().zip(row).for_each(|(sum, v)| *sum += v * v);
        }
        let deviations = squares.iter().map(|square| (square / n as f64).sqrt());
        Ok(Self {
            effective_rank,
            rank_share: effective_rank / (n - 1).min(d) as f64,
            rankme: entropy_rank(&singular_values(&plain, d), RANKME_EPSILON),
            uniformity: (sums(rows).iter().sum::<f64>() / (n * (n - 1) / 2) as f64).ln(),
            spread: deviations.sum::<f64>() / (d as f64).sqrt(),
        })
    }
}

/// Returns the mean of the squared distances between the rows of `first` and those of `second` (n, d), which
/// are two views of the same images: Wang & Isola's alignment, between 0 and 4 for unit rows.
///
/// # Errors
/// If there are no rows, the two differ in size, or a row is not finite.
pub fn alignment(first: Rows, second: Rows) -> Result<f64, MetricError> {
    for (what, rows) in [("first views", first), ("second views", second)] {
        rows.check_finite(what)?;
    }
    let (n, other) = (first.len(), second.len());
    if n == 0 || n != other {
        let (found, needed) = (n.min(other), n.max(other).max(1));
        let advice = "give both views of each image";
        return Err(MetricError::TooFewRows { what: "views", found, needed, advice });
    }
    if first.dim != second.dim {
        let (found, expected) = (second.dim, first.dim);
        return Err(MetricError::Dimension { what: "second views", found, expected });
    }
    let sum: f64 = (0..n).map(|row| exact_squared_distance(first.row(row), second.row(row))).sum();
    Ok(sum / n as f64)
}

/// Returns the mean of the squared distances between two rows of one class, over all such pairs in `rows` (n, d):
/// alignment with the rows of a class as positives, between 0 and 4 for unit rows. `None` if there is no such pair.
///
/// Of n_c rows with the mean m, the pairs have the sum `n_c Σ_i |x_i - m|²`.
///
/// # Errors
/// If there are more or fewer labels than rows, or a row is not finite.
pub fn class_alignment(rows: Rows, labels: &[u32]) -> Result<Option<f64>, MetricError> {
    rows.check_finite("embeddings")?;
    if rows.len() != labels.len() {
        let (rows, labels) = (rows.len(), labels.len());
        return Err(MetricError::LabelCount { what: "embeddings", rows, labels });
    }
    let (distances, counts) = class_distances(rows, labels);
    let sum: f64 = distances.iter().zip(labels).map(|(d, &label)| counts[label as usize] * d).sum();
    let pairs = pairs_within(&counts);
    Ok((pairs > 0.0).then(|| sum / pairs))
}

/// Returns the squared distance of each row to the mean of its class, and the number of rows of each class.
pub(crate) fn class_distances(rows: Rows, labels: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let (mut counts, mut means) = (vec![0.0; classes], vec![0.0; classes * rows.dim]);
    let of = |label: u32| label as usize * rows.dim..(label as usize + 1) * rows.dim;
    for (row, &label) in rows.values.chunks(rows.dim).zip(labels) {
        counts[label as usize] += 1.0;
        means[of(label)].iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    for (mean, count) in means.chunks_mut(rows.dim).zip(&counts) {
        for sum in mean {
            *sum /= f64::max(*count, 1.0);
        }
    }
    let distance = |(row, &label): (&[f32], &u32)| {
        row.iter().zip(&means[of(label)]).map(|(&v, m)| (f64::from(v) - m).powi(2)).sum()
    };
    (rows.values.chunks(rows.dim).zip(labels).map(distance).collect(), counts)
}

/// Returns the number of pairs of two rows of one class.
pub(crate) fn pairs_within(counts: &[f64]) -> f64 {
    counts.iter().map(|count| count * (count - 1.0) / 2.0).sum()
}

/// Returns the product of `values` (n, d) with themselves: `Xᵀ X` (d, d) or `X Xᵀ` (n, n), the smaller one.
pub(crate) fn smaller_gram(values: &[f64], d: usize) -> DMatrix<f64> {
    let n = values.len() / d;
    let side = n.min(d);
    let mut gram = vec![0.0; side * side];
    if d <= n {
        gemm::tn(d, d, n, values, values, &mut gram);
    } else {
        gemm::nt(n, n, d, values, values, &mut gram);
    }
    DMatrix::from_vec(side, side, gram)
}

/// Returns the singular values of `values` (n, d), in no order.
fn singular_values(values: &[f64], d: usize) -> Vec<f64> {
    let eigenvalues = smaller_gram(values, d).symmetric_eigenvalues();
    eigenvalues.iter().map(|value| value.max(0.0).sqrt()).collect()
}

/// Returns the exponential of the entropy of the values' shares, each with `epsilon` added; 0 if all are 0.
fn entropy_rank(values: &[f64], epsilon: f64) -> f64 {
    let sum: f64 = values.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let shares = values.iter().map(|value| value / sum + epsilon).filter(|&share| share > 0.0);
    (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
}

/// Returns the rows in f64, as they are and less their mean row.
pub(crate) fn plain_and_centered(rows: Rows) -> [Vec<f64>; 2] {
    let plain: Vec<f64> = rows.values.iter().map(|&v| f64::from(v)).collect();
    let mean = rows.column_means();
    let centered = plain.iter().zip(mean.iter().cycle()).map(|(v, m)| v - m).collect();
    [plain, centered]
}

/// Returns `exp(-2 |x_i - x_j|²)`, the kernel of uniformity.
pub(crate) fn kernel(rows: Rows, i: usize, j: usize) -> f64 {
    (-2.0 * exact_squared_distance(rows.row(i), rows.row(j))).exp()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{EmbeddingShape, alignment, class_alignment};
    use crate::{MetricError, Rows, l2_normalize_rows};
    use invaspread_random::{Purpose, Stream};

    fn normal(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Synthetic, 0, 0);
        let mut values: Vec<f32> = (0..n * dim).map(|_| stream.normal() as f32).collect();
        l2_normalize_rows(&mut values, dim);
        values
    }

    #[test]
    fn by_hand() {
        // The axes of four dimensions: X = I, so all four σ are 1. Without the mean three τ are 1 and one is 0.
        let mut axes = vec![0.0; 16];
        (0..4).for_each(|i| axes[5 * i] = 1.0);
        let shape = EmbeddingShape::of(Rows::new(&axes, 4)).unwrap();
        assert!((shape.effective_rank - 3.0).abs() < 1e-6, "{shape:?}");
        assert!((shape.rank_share - 1.0).abs() < 1e-6, "{shape:?}");
        assert!((shape.rankme - 4.0).abs() < 1e-5, "{shape:?}");
        // All pairs are √2 apart: log exp(-2 · 2) = -4.
        assert!((shape.uniformity + 4.0).abs() < 1e-12, "{shape:?}");
        // A coordinate is 1 in one of four rows: variance 3/16.
        assert!((shape.spread - 2.0 * (3.0_f64 / 16.0).sqrt()).abs() < 1e-12, "{shape:?}");
        let turned: Vec<f32> = axes.iter().cycle().skip(4).take(16).copied().collect();
        assert_eq!(alignment(Rows::new(&axes, 4), Rows::new(&turned, 4)).unwrap(), 2.0);
        assert_eq!(alignment(Rows::new(&axes, 4), Rows::new(&axes, 4)).unwrap(), 0.0);
    }

    #[test]
    fn rows_that_fill_the_sphere_and_rows_that_are_equal() {
        let (n, dim) = (800, 32);
        let shape = EmbeddingShape::of(Rows::new(&normal(n, dim, 1), dim)).unwrap();
        assert!(shape.rank_share > 0.95 && shape.rankme > 30.0, "{shape:?}");
        assert!((shape.spread - 1.0).abs() < 0.02 && shape.uniformity < -3.5, "{shape:?}");
        let equal: Vec<f32> = normal(1, dim, 2).repeat(n);
        let shape = EmbeddingShape::of(Rows::new(&equal, dim)).unwrap();
        assert!(shape.spread < 1e-6 && shape.uniformity.abs() < 1e-9, "{shape:?}");
        assert!((shape.rankme - 1.0).abs() < 1e-3, "{shape:?}");
        let zeros = EmbeddingShape::of(Rows::new(&[0.0; 12], 3)).unwrap();
        assert_eq!([zeros.effective_rank, zeros.rankme, zeros.spread, zeros.uniformity], [0.0; 4]);
    }

    #[test]
    fn fewer_rows_than_dimensions_are_measured_by_the_smaller_product() {
        // The same rows with zeros beside them have the same singular values.
        let (n, dim, wide) = (9, 5, 40);
        let rows = normal(n, dim, 3);
        let mut wider = vec![0.0; n * wide];
        for (to, from) in wider.chunks_mut(wide).zip(rows.chunks(dim)) {
            to[..dim].copy_from_slice(from);
        }
        let [narrow, wider] =
            [(rows, dim), (wider, wide)].map(|(v, d)| EmbeddingShape::of(Rows::new(&v, d)).unwrap());
        assert!((narrow.effective_rank - wider.effective_rank).abs() < 1e-4, "{narrow:?} {wider:?}");
        assert!((narrow.rankme - wider.rankme).abs() < 1e-4, "{narrow:?} {wider:?}");
        assert_eq!(narrow.uniformity, wider.uniformity);
        assert!((wider.rank_share - wider.effective_rank / 8.0).abs() < 1e-12);
    }

    #[test]
    fn the_alignment_of_classes_is_the_mean_over_their_pairs() {
        let (n, dim) = (40, 5);
        let values = normal(n, dim, 4);
        let rows = Rows::new(&values, dim);
        // Classes of different sizes; class 6 is one row.
        let labels: Vec<u32> = (0..n as u32).map(|row| if row == 0 { 6 } else { row % 7 % 3 }).collect();
        let (mut sum, mut pairs) = (0.0, 0.0);
        for i in 0..n {
            for j in (0..i).filter(|&j| labels[i] == labels[j]) {
                sum += alignment(Rows::new(rows.row(i), dim), Rows::new(rows.row(j), dim)).unwrap();
                pairs += 1.0;
            }
        }
        let found = class_alignment(rows, &labels).unwrap().unwrap();
        assert!((found - sum / pairs).abs() < 1e-12, "{found} {}", sum / pairs);
        assert_eq!(class_alignment(Rows::new(&values[..10], dim), &[0, 1]).unwrap(), None);
        let error = class_alignment(rows, &[0]).unwrap_err();
        assert!(matches!(error, MetricError::LabelCount { rows: 40, labels: 1, .. }));
        assert!(class_alignment(Rows::new(&[f32::NAN], 1), &[0]).is_err());
    }

    #[test]
    fn bad_input_is_refused() {
        let one = EmbeddingShape::of(Rows::new(&[1.0, 0.0], 2));
        assert!(matches!(one, Err(MetricError::TooFewRows { found: 1, needed: 2, .. })), "{one:?}");
        let nan = EmbeddingShape::of(Rows::new(&[1.0, f32::NAN], 1));
        assert!(matches!(nan, Err(MetricError::NotFinite { row: 1, .. })), "{nan:?}");
        let few = alignment(Rows::new(&[1.0, 0.0], 2), Rows::new(&[1.0; 4], 2));
        assert!(matches!(few, Err(MetricError::TooFewRows { found: 1, needed: 2, .. })), "{few:?}");
        let other = alignment(Rows::new(&[1.0, 0.0], 2), Rows::new(&[1.0], 1));
        assert!(matches!(other, Err(MetricError::Dimension { found: 1, expected: 2, .. })), "{other:?}");
        assert!(alignment(Rows::new(&[], 2), Rows::new(&[], 2)).is_err());
    }
}
