//! Computes the influence of each row on the shape of a set of embeddings, which gives intervals for it.
//!
//! A measure θ of n rows is a function of their weights w_i, all 1. With the influences `l_i = n ∂θ/∂w_i`, its value for
//! a draw of rows with the weights w* is, to first order, `θ + Σ_i w*_i l_i / Σ_i w*_i`:
//! [`Bootstrap::of_influence`](crate::Bootstrap::of_influence) computes it for many draws, at the cost of one number for
//! each row. Every l has the mean 0, since no measure changes if all weights grow together.
//!
//! With the names of [`EmbeddingShape`]'s equations, H the entropy and (v_k) the right singular vectors:
//!
//! - effective rank and RankMe, θ = exp(H): `l_i = n Σ_k ∂θ/∂σ_k (x_i · v_k)² / (2 σ_k)`, with
//!   `∂θ/∂σ_k = θ (Σ_j q_j t_j - t_k) / Σ_j σ_j`, `q_k = σ_k / Σ_j σ_j` and `t_k = 1 + log p_k`; a direction whose singular
//!   value is below 1e-8 of the largest has none, because its value is a rounding error. The mean row, which the
//!   effective rank subtracts, moves the singular values in second order only.
//! - uniformity, θ = log u: `l_i = 2 (u_i - u) / u`, u_i the mean of the kernel over the pairs of row i.
//! - spread: `l_i = Σ_k ((x_ik - m_k)² - s_k²) / (2 s_k √d)`, m_k and s_k the mean and the deviation of coordinate k.
//! - alignment of classes, θ = S / P, S the sum over P pairs: `l_i = n (D_i - θ (n_c - 1)) / P`, D_i the sum over the pairs
//!   of row i in its class of n_c rows.
//!
//! Source: the infinitesimal jackknife (Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982, chapter 6)
//! and the linear approximation of draws by influences (Davison and Hinkley, "Bootstrap Methods and their Application",
//! 1997, section 2.7.2). A bootstrap that measures each draw again would find copies of rows, which make the rank smaller
//! and the uniformity larger. Deviations: none.

use crate::embedding_shape::{
    RANKME_EPSILON, class_distances, kernel, pairs_within, plain_and_centered, smaller_gram,
};
use crate::{EmbeddingShape, MetricError, Rows};
use invaspread_tensor::gemm;
use rayon::prelude::*;

/// The influence of each row on the measures of [`EmbeddingShape`], each (n).
#[derive(Debug, Clone, PartialEq)]
pub struct ShapeInfluence {
    /// That on the effective rank. On `rank_share` it is the same share of this as of the rank.
    pub effective_rank: Vec<f64>,
    /// That on RankMe.
    pub rankme: Vec<f64>,
    /// That on the uniformity.
    pub uniformity: Vec<f64>,
    /// That on the spread.
    pub spread: Vec<f64>,
}

/// Blocks of rows whose kernels are summed together; not the number of threads, so that the sums have the same bits.
const BLOCKS: usize = 64;

/// Singular values below this share of the largest are rounding errors.
const NEGLIGIBLE: f64 = 1e-8;

impl ShapeInfluence {
    /// Measures `rows` (n, d) as [`EmbeddingShape::of`] does, and the influence of each.
    ///
    /// ```
    /// use invaspread_metrics::{Bootstrap, Rows, ShapeInfluence};
    ///
    /// // Of 60 rows of length 1 most lie near one direction of the plane.
    /// let angle = |row: usize| 0.02 * (row % 7) as f32 + f32::from(u8::from(row % 10 == 0));
    /// let values: Vec<f32> = (0..60).flat_map(|row| [angle(row).cos(), angle(row).sin()]).collect();
    /// let (shape, influence) = ShapeInfluence::measure(Rows::new(&values, 2))?;
    /// let rows: Vec<u32> = (0..60).collect();
    /// let interval = Bootstrap::default().of_influence(shape.spread, &influence.spread, &rows)?.unwrap();
    /// assert!(interval.contains(shape.spread) && interval.low > 0.0);
    /// # Ok::<(), invaspread_metrics::MetricError>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`EmbeddingShape::of`].
    pub fn measure(rows: Rows) -> Result<(EmbeddingShape, Self), MetricError> {
        let mut kernels = Vec::new();
        let shape = EmbeddingShape::with_kernel_sums(rows, |rows| {
            let (before, all) = kernel_sums(rows);
            kernels = all;
            before
        })?;
        let [plain, centered] = plain_and_centered(rows);
        let (n, d) = (rows.len() as f64, rows.dim);
        let mean = shape.uniformity.exp();
        let of_kernel = |sum: f64| 2.0 * (sum / (n - 1.0) - mean) / mean;
        let influence = Self {
            effective_rank: on_rank(&centered, d, 0.0),
            rankme: on_rank(&plain, d, RANKME_EPSILON),
            uniformity: kernels.into_iter().map(of_kernel).collect(),
            spread: on_spread(&centered, d),
        };
        Ok((shape, influence))
    }
}

/// Returns the influence of each row on the alignment of classes, as [`class_alignment`](crate::class_alignment) measures
/// it; `None` if it has no value. If classes are drawn as a whole, so is each pair, once and not for both its rows: the
/// influence is then half of this.
///
/// # Errors
/// If there are more or fewer labels than rows, or a row is not finite.
pub fn class_alignment_influence(rows: Rows, labels: &[u32]) -> Result<Option<Vec<f64>>, MetricError> {
    let Some(alignment) = crate::class_alignment(rows, labels)? else { return Ok(None) };
    let (distances, counts) = class_distances(rows, labels);
    let mut sums = vec![0.0; counts.len()];
    distances.iter().zip(labels).for_each(|(distance, &label)| sums[label as usize] += distance);
    let (n, pairs) = (rows.len() as f64, pairs_within(&counts));
    let of_row = |(distance, &label): (&f64, &u32)| {
        let (count, sum) = (counts[label as usize], sums[label as usize]);
        // The squared distances to the rows of a class have the sum `n_c |x - m|² + Σ_j |x_j - m|²`.
        n * (count * distance + sum - alignment * (count - 1.0)) / pairs
    };
    Ok(Some(distances.iter().zip(labels).map(of_row).collect()))
}

/// Returns the influences on exp(H) of the singular values of `values` (n, d), each share with `epsilon` added.
fn on_rank(values: &[f64], d: usize, epsilon: f64) -> Vec<f64> {
    let n = values.len() / d;
    let eigen = smaller_gram(values, d).symmetric_eigen();
    let singular: Vec<f64> = eigen.eigenvalues.iter().map(|value| value.max(0.0).sqrt()).collect();
    let sum: f64 = singular.iter().sum();
    if sum <= 0.0 {
        return vec![0.0; n];
    }
    let largest = singular.iter().copied().fold(0.0, f64::max);
    let share = |value: f64| value / sum + epsilon;
    let with_logarithm = |value: f64| 1.0 + share(value).ln();
    let shares = singular.iter().filter(|&&value| share(value) > 0.0);
    let rank = (-shares.clone().map(|&value| share(value) * share(value).ln()).sum::<f64>()).exp();
    let mean: f64 = shares.map(|&value| value / sum * with_logarithm(value)).sum();
    // The derivative by the square of a singular value.
    let slope = |value: f64| {
        if value <= NEGLIGIBLE * largest {
            0.0
        } else {
            rank * (mean - with_logarithm(value)) / sum / (2.0 * value)
        }
    };
    if d <= n {
        // x_i · (Σ_k slope_k v_k v_kᵀ) x_i
        let mut scaled = eigen.eigenvectors.clone();
        scaled.column_iter_mut().zip(&singular).for_each(|(mut column, &value)| column *= slope(value));
        let form = scaled * eigen.eigenvectors.transpose();
        let mut turned = vec![0.0; values.len()];
        gemm::nn(n, d, d, values, form.as_slice(), &mut turned);
        let product = |(row, turned): (&[f64], &[f64])| {
            n as f64 * row.iter().zip(turned).map(|(a, b)| a * b).sum::<f64>()
        };
        values.chunks(d).zip(turned.chunks(d)).map(product).collect()
    } else {
        // x_i · v_k is σ_k times the coordinate i of the left singular vector.
        let of_row = |row: usize| {
            let left = eigen.eigenvectors.row(row);
            let terms = left.iter().zip(&singular).map(|(u, &value)| slope(value) * (value * u).powi(2));
            n as f64 * terms.sum::<f64>()
        };
        (0..n).map(of_row).collect()
    }
}

/// Returns the influences on the spread of rows (n, d) whose mean is 0.
fn on_spread(centered: &[f64], d: usize) -> Vec<f64> {
    let n = (centered.len() / d) as f64;
    let mut variances = vec![0.0; d];
    for row in centered.chunks(d) {
        variances.iter_mut().zip(row).for_each(|(sum, v)| *sum += v * v / n);
    }
    let of_row = |row: &[f64]| {
        let terms = row.iter().zip(&variances).filter(|(_, variance)| **variance > 0.0);
        terms.map(|(v, variance)| (v * v - variance) / (2.0 * variance.sqrt())).sum::<f64>()
            / (d as f64).sqrt()
    };
    centered.chunks(d).map(of_row).collect()
}

/// Returns for each row but the first the sum of the kernel over the rows before it, and for each row that over all
/// others.
fn kernel_sums(rows: Rows) -> (Vec<f64>, Vec<f64>) {
    let n = rows.len();
    let of_block: Vec<(Vec<f64>, Vec<f64>)> = (0..BLOCKS)
        .into_par_iter()
        .map(|block| {
            let (from, to) = (block * n / BLOCKS, (block + 1) * n / BLOCKS);
            let mut after = vec![0.0; to];
            let before = (from..to).map(|i| {
                let add = |(j, after): (usize, &mut f64)| {
                    let value = kernel(rows, i, j);
                    *after += value;
                    value
                };
                after[..i].iter_mut().enumerate().map(add).sum::<f64>()
            });
            (before.collect(), after)
        })
        .collect();
    let mut all = vec![0.0; n];
    let mut sums = Vec::with_capacity(n);
    for (before, after) in of_block {
        sums.extend(before);
        all.iter_mut().zip(after).for_each(|(all, sum)| *all += sum);
    }
    all.iter_mut().zip(&sums).for_each(|(all, before)| *all += before);
    (sums.split_off(1.min(n)), all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{ShapeInfluence, class_alignment_influence};
    use crate::{Bootstrap, EmbeddingShape, Rows, class_alignment, l2_normalize_rows};
    use invaspread_random::{Purpose, Stream};

    /// Rows whose dimensions differ in their deviation, of length 1.
    fn drawn(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Synthetic, 0, 0);
        let mut values: Vec<f32> =
            (0..n * dim).map(|at| (stream.normal() / (1 + at % dim) as f64) as f32 + 0.2).collect();
        l2_normalize_rows(&mut values, dim);
        values
    }

    #[test]
    fn the_shape_is_that_of_embedding_shape_and_influences_have_the_mean_zero() {
        for (n, dim) in [(2, 3), (70, 6), (10, 30), (200, 5)] {
            let values = drawn(n, dim, 1);
            let rows = Rows::new(&values, dim);
            let (shape, influence) = ShapeInfluence::measure(rows).unwrap();
            assert_eq!(shape, EmbeddingShape::of(rows).unwrap(), "{n} {dim}");
            let ShapeInfluence { effective_rank, rankme, uniformity, spread } = influence;
            let labels: Vec<u32> = (0..n as u32).map(|row| row % 2).collect();
            let of_classes = class_alignment_influence(rows, &labels).unwrap();
            for one in [effective_rank, rankme, uniformity, spread].into_iter().chain(of_classes) {
                let mean = one.iter().sum::<f64>() / n as f64;
                assert!(one.len() == n && mean.abs() < 1e-6, "{n} {dim}: {mean}");
            }
        }
        let (_, equal) = ShapeInfluence::measure(Rows::new(&[0.0; 12], 3)).unwrap();
        assert_eq!(equal.effective_rank, [0.0; 4]);
        assert_eq!(equal.spread, [0.0; 4]);
    }

    /// One row more of 4,000 that are 100 times the same 40 changes a measure by its influence / 4,000.
    #[test]
    fn an_influence_is_the_derivative() {
        let (n, dim, times) = (40, 5, 100);
        let values = drawn(n, dim, 2);
        let (_, influence) = ShapeInfluence::measure(Rows::new(&values, dim)).unwrap();
        let repeated = values.repeat(times);
        let whole = EmbeddingShape::of(Rows::new(&repeated, dim)).unwrap();
        for row in [0, 7, 23] {
            let more: Vec<f32> = repeated.iter().chain(&values[row * dim..][..dim]).copied().collect();
            let more = EmbeddingShape::of(Rows::new(&more, dim)).unwrap();
            for (value, before, slope) in [
                (more.effective_rank, whole.effective_rank, influence.effective_rank[row]),
                (more.rankme, whole.rankme, influence.rankme[row]),
                (more.spread, whole.spread, influence.spread[row]),
            ] {
                let found = (value - before) * (n * times) as f64;
                assert!((found - slope).abs() < 2e-3 * slope.abs().max(1.0), "{found} {slope}");
            }
        }
    }

    /// Many sets of rows are drawn from one distribution. The interval of one is to tell how they vary.
    #[test]
    fn the_intervals_are_as_wide_as_the_measures_vary() {
        let (n, dim, sets) = (600, 6, 150);
        let labels: Vec<u32> = (0..n as u32).map(|row| row % 3).collect();
        let of = |set: u64| {
            let values = drawn(n, dim, 100 + set);
            let rows = Rows::new(&values, dim);
            let shape = EmbeddingShape::of(rows).unwrap();
            let of_classes = class_alignment(rows, &labels).unwrap().unwrap();
            [shape.effective_rank, shape.rankme, shape.uniformity, shape.spread, of_classes]
        };
        let of_sets: Vec<[f64; 5]> = (0..sets).map(of).collect();
        let values = drawn(n, dim, 99);
        let rows = Rows::new(&values, dim);
        let (shape, influence) = ShapeInfluence::measure(rows).unwrap();
        let of_classes = class_alignment_influence(rows, &labels).unwrap().unwrap();
        let ShapeInfluence { effective_rank, rankme, uniformity, spread } = influence;
        let influences = [effective_rank, rankme, uniformity, spread, of_classes];
        let alignment = class_alignment(rows, &labels).unwrap().unwrap();
        let all = [shape.effective_rank, shape.rankme, shape.uniformity, shape.spread, alignment];
        let units: Vec<u32> = (0..n as u32).collect();
        for (which, (value, influence)) in all.into_iter().zip(influences).enumerate() {
            let mut sorted: Vec<f64> = of_sets.iter().map(|measures| measures[which]).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let varies = sorted[sets as usize - 4] - sorted[3];
            let interval = Bootstrap::default().of_influence(value, &influence, &units).unwrap().unwrap();
            let width = interval.high - interval.low;
            assert!(interval.contains(value), "{which}: {interval:?} {value}");
            assert!((0.75..1.35).contains(&(width / varies)), "{which}: {width} {varies}");
        }
    }

    #[test]
    fn bad_rows_are_refused_and_single_classes_have_no_alignment() {
        assert!(ShapeInfluence::measure(Rows::new(&[1.0, f32::NAN], 1)).is_err());
        assert!(ShapeInfluence::measure(Rows::new(&[1.0], 1)).is_err());
        let rows = Rows::new(&[1.0, 0.5], 1);
        assert_eq!(class_alignment_influence(rows, &[0, 1]).unwrap(), None);
        assert!(class_alignment_influence(rows, &[0]).is_err());
    }
}
