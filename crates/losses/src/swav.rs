//! SwAV: each view predicts the codes of the two large views of its image. The codes assign a batch's rows to
//! prototypes in equal shares.
//!
//! ```text
//! z in R^{VB x D}: unit rows, view 1 of all B images, then view 2, ..., then the small views
//! C in R^{K x D}: prototypes of unit length;  τ temperature, ε smoothness of the codes
//! Q = diag(u) exp(Z Cᵀ / ε) diag(v): of the rows Z of one large view and of its queue, where u and v make each
//!     row add up to 1 and each column to N/K (N rows); found by alternate normalization (Sinkhorn and Knopp)
//! q_a: the rows of Q that are those of large view a, constants
//! loss = (1/2) Σ_{a ≤ 2} 1/(V − 1) Σ_{v ≠ a} −(1/B) Σ_b Σ_k q_a,b,k log softmax(z_v,b Cᵀ / τ)_k
//! ```
//!
//! Source: Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by
//! Contrasting Cluster Assignments", NeurIPS 2020, equations 1 to 6 and section 3.2 (multi-crop). Shares and
//! order of normalization are those of the authors' code (facebookresearch/swav, `main_swav.py`): columns
//! first, then rows, `iterations` times.
//!
//! No deviation, except that the codes are computed in f64 from scores less the largest of all, so that no
//! exponential overflows; the shares do not depend on it. A score so far below that its exponential is 0 gets
//! no share. There is no CUDA kernel: for rows on a GPU, codes and loss are computed on the host.

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::matrix;
use crate::swapped::Swapped;

const NAME: &str = "swav";

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Swav;
///
/// // Both views of two images are at a prototype of their own.
/// let axes = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let swav = Swav::default();
/// let codes = swav.codes(&axes.matmul(&axes.t()?)?)?;
/// let codes = Tensor::cat(&[&codes, &codes], 0)?;
/// let loss = swav.loss(&Tensor::cat(&[&axes, &axes], 0)?, &axes, &codes, 2)?.to_scalar::<f64>()?;
/// assert!(loss < 1e-4);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Swav {
    /// τ, above 0.
    pub temperature: f64,
    /// ε, above 0.
    pub epsilon: f64,
    /// Normalizations of the codes' columns and rows, at least 1.
    pub iterations: usize,
}

impl Default for Swav {
    fn default() -> Self {
        Self { temperature: 0.1, epsilon: 0.05, iterations: 3 }
    }
}

impl Swav {
    /// Returns the codes of `scores` (N x K, the inner products of N rows with the prototypes): N x K, in the
    /// type of the scores and on their device, without a gradient. If a score is not finite, all codes are
    /// NaN.
    ///
    /// # Errors
    /// If `scores` is no such matrix, ε is not positive, or there is no iteration.
    pub fn codes(&self, scores: &Tensor) -> Result<Tensor> {
        let (rows, prototypes) = matrix(NAME, "scores", scores)?;
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            bail!("{NAME}: epsilon must be a positive number, it is {}", self.epsilon)
        }
        if self.iterations == 0 {
            bail!("{NAME}: no normalization of the codes; give at least one iteration")
        }
        let here = scores.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?;
        let mut q = here.to_vec1::<f64>()?;
        if q.iter().all(|score| score.is_finite()) {
            sinkhorn(&mut q, prototypes, self.epsilon, self.iterations);
        } else {
            // Each code depends on all scores.
            q.fill(f64::NAN);
        }
        let codes = Tensor::from_vec(q, (rows, prototypes), &Device::Cpu)?;
        codes.to_dtype(scores.dtype())?.to_device(scores.device())
    }

    /// Returns the loss of `rows` (V B x D, B = `images`) with `prototypes` (K x D), both of unit length, and
    /// the `codes` of the first views (2 B x K for two): a scalar. Gradients flow to the rows and to the
    /// prototypes.
    ///
    /// # Errors
    /// If shapes or types do not fit one another, there are fewer than two views, or the temperature is not
    /// positive.
    pub fn loss(&self, rows: &Tensor, prototypes: &Tensor, codes: &Tensor, images: usize) -> Result<Tensor> {
        let swapped = Swapped { name: NAME, images, temperature: self.temperature, unit_weight: false };
        swapped.loss(rows, prototypes, codes)
    }
}

/// Replaces scores, row by row, by codes: rows that add up to 1 and columns that add up to nearly the same.
fn sinkhorn(q: &mut [f64], columns: usize, epsilon: f64, iterations: usize) {
    let top = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for score in &mut *q {
        *score = ((*score - top) / epsilon).exp();
    }
    for _ in 0..iterations {
        let mut sums = vec![0.0; columns];
        for row in q.chunks_exact(columns) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        for row in q.chunks_exact_mut(columns) {
            for (value, sum) in row.iter_mut().zip(&sums) {
                // A column without any weight stays empty.
                *value /= if *sum > 0.0 { *sum } else { 1.0 };
            }
            let sum: f64 = row.iter().sum();
            for value in row.iter_mut() {
                *value = if sum > 0.0 { *value / sum } else { 1.0 / columns as f64 };
            }
        }
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<3, Swapped>("SwAV", [Input::Views, Input::Entries, Input::ViewScores], |x, _| {
        let swav = Swav::default();
        swav.loss(&x[0], &x[1], &swav.codes(&x[2])?, x[0].dim(0)? / 2)
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Swav, sinkhorn};
    use crate::testing::{matrix_f64, random_rows, values};
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Repeats the authors' program step by step: prototypes are rows, and everything is divided by sums, K
    /// and N as it is there.
    fn plain(scores: &[f64], columns: usize, epsilon: f64, iterations: usize) -> Vec<f64> {
        let rows = scores.len() / columns;
        let mut q: Vec<f64> = scores.iter().map(|s| (s / epsilon).exp()).collect();
        let total: f64 = q.iter().sum();
        for v in &mut q {
            *v /= total;
        }
        for _ in 0..iterations {
            for k in 0..columns {
                let sum: f64 = (0..rows).map(|n| q[n * columns + k]).sum();
                (0..rows).for_each(|n| q[n * columns + k] /= sum * columns as f64);
            }
            for n in 0..rows {
                let sum: f64 = (0..columns).map(|k| q[n * columns + k]).sum();
                (0..columns).for_each(|k| q[n * columns + k] /= sum * rows as f64);
            }
        }
        for v in &mut q {
            *v *= rows as f64;
        }
        q
    }

    proptest! {
        #[test]
        fn codes_are_those_of_the_authors_steps(
            rows in 1usize..9, columns in 1usize..9, iterations in 1usize..5, seed: u64,
        ) {
            let scores: Vec<f64> = random_rows(rows, columns, seed).iter().map(|s| (s / 3.0).tanh()).collect();
            let mut found = scores.clone();
            sinkhorn(&mut found, columns, 0.05, iterations);
            for (found, want) in found.iter().zip(plain(&scores, columns, 0.05, iterations)) {
                prop_assert!((found - want).abs() <= 1e-10, "{} {}", found, want);
            }
            for row in found.chunks(columns) {
                prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn many_iterations_share_the_rows_equally() {
        let mut q: Vec<f64> = random_rows(12, 4, 0).iter().map(|s| s / 10.0).collect();
        sinkhorn(&mut q, 4, 0.05, 500);
        for k in 0..4 {
            let sum: f64 = q.iter().skip(k).step_by(4).sum();
            assert!((sum - 3.0).abs() < 1e-9, "{sum}");
        }
    }

    #[test]
    fn two_rows_have_a_closed_form() {
        // Scores [[s, 0], [0, 0]]: the solution [[p, 1 − p], [1 − p, p]] has p² / (1 − p)² = e^{s/ε}, as
        // scaling rows and columns keeps the ratio of the products of the diagonals.
        let mut q = [0.1, 0.0, 0.0, 0.0];
        sinkhorn(&mut q, 2, 0.05, 200);
        let p = 1.0 / (1.0 + (-1.0f64).exp());
        for (found, want) in q.iter().zip([p, 1.0 - p, 1.0 - p, p]) {
            assert!((found - want).abs() < 1e-12, "{q:?}");
        }
    }

    #[test]
    fn scores_far_apart_give_finite_codes() {
        for scores in [[1e3, -1e3, 1e3, -1e3], [-1e3, -1e3, 1e3, 1e3], [0.0; 4]] {
            let codes = Swav::default().codes(&matrix_f64(&scores, 2)).unwrap();
            assert!(values(&codes).iter().all(|q| (0.0..=1.0).contains(q)), "{scores:?}");
        }
    }

    #[test]
    fn a_score_that_is_not_finite_leaves_no_code() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let codes = Swav::default().codes(&matrix_f64(&[0.1, bad, 0.2, 0.3], 2)).unwrap();
            assert!(values(&codes).iter().all(|q| q.is_nan()), "{bad}");
        }
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let error = Swav { epsilon: 0.0, ..Swav::default() }.codes(&zeros).unwrap_err().to_string();
        assert!(error.contains("epsilon"), "{error}");
        let error = Swav { iterations: 0, ..Swav::default() }.codes(&zeros).unwrap_err().to_string();
        assert!(error.contains("at least one iteration"), "{error}");
        let error = Swav::default().loss(&zeros, &zeros, &zeros, 2).unwrap_err().to_string();
        assert!(error.starts_with("swav") && error.contains("two views"), "{error}");
    }
}
