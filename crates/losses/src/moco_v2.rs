//! MoCo's contrastive loss (`InfoNCE`): each query is told apart from a queue of older keys by its own key.
//!
//! ```text
//! q in R^{B x D} queries, k in R^{B x D} keys, constant, Q in R^{K x D} queue, constant; unit rows;
//! τ temperature
//! loss = −(1/B) Σ_i log [ exp(q_i · k_i / τ) / (exp(q_i · k_i / τ) + Σ_j exp(q_i · Q_j / τ)) ]
//! ```
//!
//! Source: He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning",
//! CVPR 2020, section 3.1, equation 1, and algorithm 1; the same loss in Chen, Fan, Girshick, He, "Improved
//! Baselines with Momentum Contrastive Learning" (MoCo v2), 2020, equation 1. Keys and queue come from the
//! momentum encoder and are constants: with `g_ij = ∂loss/∂(q_i · Q_j / τ)` and `g_i` likewise for the own
//! key, `grad q_i = (g_i k_i + Σ_j g_ij Q_j) / τ`.
//!
//! No deviation in value. The rows must already have unit length, as in the authors' code. A batch of one
//! image has a loss like any other: its negatives are in the queue.
//!
//! The B x K scores are held at once. There is no CUDA kernel: for rows on a GPU the loss is computed on the
//! host.

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_temperature, matrix, same_shape};
use crate::float::{Float, add_scaled, dot};
use crate::op::{Matrix, Objective, apply};
use crate::softmax::{maximum, settle, shifted_exp};

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::MocoV2;
///
/// // A query that equals its key, and a queue of one row at a right angle to it.
/// let query = Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?;
/// let queue = Tensor::new(&[[0f64, 1.0]], &Device::Cpu)?;
/// let loss = MocoV2 { temperature: 1.0 }.loss(&query, &query.detach(), &queue)?.to_scalar::<f64>()?;
/// assert!((loss - (1.0 + (-1f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MocoV2 {
    /// τ, above 0; 0.2 in MoCo v2, 0.1 in the authors' demonstration on CIFAR-10.
    pub temperature: f64,
}

impl Default for MocoV2 {
    fn default() -> Self {
        Self { temperature: 0.1 }
    }
}

impl MocoV2 {
    /// Returns the loss of `queries` (B x D) with the `keys` of the same images (B x D) and a `queue` of
    /// other keys (K x D), all rows of unit length: a scalar. No gradient flows to keys and queue.
    ///
    /// # Errors
    /// If the three are not such matrices in F32 or F64 (F32 on CUDA), or the temperature is not positive.
    pub fn loss(&self, queries: &Tensor, keys: &Tensor, queue: &Tensor) -> Result<Tensor> {
        let (_, dim) = matrix(Self::NAME, "queries", queries)?;
        same_shape(Self::NAME, ["keys", "queries"], [keys, queries])?;
        let (_, columns) = matrix(Self::NAME, "the queue", queue)?;
        if columns != dim {
            bail!("{}: queries have {dim} columns, the queue {columns}; they must agree", Self::NAME)
        }
        check_temperature(Self::NAME, self.temperature)?;
        apply(self, [queries, keys, queue])
    }
}

impl Objective<3> for MocoV2 {
    const NAME: &'static str = "moco_v2";
    const CONSTANT: [bool; 3] = [false, true, true];

    fn evaluate<T: Float>(&self, [queries, keys, queue]: [Matrix<'_, T>; 3]) -> Result<(f64, [Vec<T>; 3])> {
        let (rows, columns) = (queries.rows, queries.columns);
        let mut scores = vec![T::ZERO; rows * queue.rows];
        gemm::nt(rows, queue.rows, columns, queries.values, queue.values, &mut scores);
        let (inverse, share) = (1.0 / self.temperature, 1.0 / rows as f64);
        // The loss of each row, and the slope of its product with its own key.
        let settled: Vec<(f64, T)> = scores
            .par_chunks_mut(queue.rows)
            .enumerate()
            .map(|(row, scores)| {
                let factor = T::from_f64(inverse);
                let own = (dot(queries.row(row), keys.row(row)) * factor).to_f64();
                for z in scores.iter_mut() {
                    *z *= factor;
                }
                let top = maximum(scores);
                let sum = shifted_exp(scores, top, None);
                let settled = settle(own, top.to_f64(), sum);
                let slope = settled.others * share * inverse;
                let each = T::from_f64(slope / sum);
                for z in scores.iter_mut() {
                    *z *= each;
                }
                (settled.loss, T::from_f64(-slope))
            })
            .collect();
        let mut gradient = vec![T::ZERO; rows * columns];
        gemm::nn(rows, columns, queue.rows, &scores, queue.values, &mut gradient);
        for (row, (gradient, &(_, slope))) in gradient.chunks_mut(columns).zip(&settled).enumerate() {
            add_scaled(gradient, slope, keys.row(row));
        }
        let total: f64 = settled.iter().map(|(loss, _)| loss).sum();
        Ok((total * share, [gradient, Vec::new(), Vec::new()]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    let inputs = [Input::Images, Input::Images, Input::Entries];
    vec![Case::new::<3, MocoV2>("MoCo v2", inputs, |x, _| MocoV2::default().loss(&x[0], &x[1], &x[2]))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::MocoV2;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as the equation reads: plain sums of exponentials, nothing shifted.
    fn plain(temperature: f64, [q, k, queue]: [&[f64]; 3], dim: usize) -> f64 {
        let score =
            |a: &[f64], b: &[f64]| (a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / temperature).exp();
        let row = |(q, k): (&[f64], &[f64])| {
            let others: f64 = queue.chunks(dim).map(|other| score(q, other)).sum();
            -(score(q, k) / (score(q, k) + others)).ln()
        };
        let rows = q.len() / dim;
        q.chunks(dim).zip(k.chunks(dim)).map(row).sum::<f64>() / rows as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            rows in 1usize..9, entries in 1usize..20, dim in 2usize..12, seed in 0u64..1 << 40,
            temperature in prop_oneof![Just(0.07), Just(0.1), Just(0.2), Just(1.0)],
        ) {
            let loss = MocoV2 { temperature };
            let [q, k] = [0, 1].map(|more| unit_rows(rows, dim, seed + more));
            let queue = unit_rows(entries, dim, seed + 2);
            let want = plain(temperature, [&q, &k, &queue], dim);
            let [keys, others] = [&k, &queue].map(|x| matrix_f64(x, dim));
            let (value, gradient) =
                gradient_of(&matrix_f64(&q, dim), |q| loss.loss(q, &keys, &others)).unwrap();
            prop_assert!((value - want).abs() <= 1e-10 * want.max(1.0), "{} {}", value, want);
            let differences = central_differences(&q, 1e-5, |q| plain(temperature, [q, &k, &queue], dim));
            assert_close(&gradient, &differences, 1e-6, 1e-6);
            let [keys, others] = [&k, &queue].map(|x| matrix_f32(x, dim));
            let (single, in_single) =
                gradient_of(&matrix_f32(&q, dim), |q| loss.loss(q, &keys, &others)).unwrap();
            prop_assert!((single - want).abs() <= 2e-5 * want.max(0.1));
            assert_close(&in_single, &gradient, 1e-4, 1e-5);
        }
    }

    #[test]
    fn a_queue_at_right_angles_has_a_closed_form() {
        // The query is its own key, and the two rows of the queue are at right angles to it: scores 1/τ, 0
        // and 0. The loss is log(1 + 2 exp(−1/τ)). With e = 2/(2 + exp(1/τ)), the probability of both
        // negatives, the gradient is (−e k + e/2 (Q_1 + Q_2)) / τ.
        let loss = MocoV2 { temperature: 0.5 };
        let q = matrix_f64(&[1.0, 0.0, 0.0], 3);
        let queue = matrix_f64(&[0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 3);
        let (value, gradient) = gradient_of(&q, |x| loss.loss(x, &q, &queue)).unwrap();
        assert!((value - (2.0 * (-2.0_f64).exp()).ln_1p()).abs() < 1e-14, "{value}");
        let e = 2.0 / (2.0 + 2.0_f64.exp());
        assert_close(&gradient, &[-2.0 * e, e, e], 1e-13, 0.0);
    }

    #[test]
    fn identical_and_opposite_rows_are_safe_at_one_hundredth() {
        let loss = MocoV2 { temperature: 0.01 };
        for [of_key, of_queue] in [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]] {
            let rows = |sign: f64, count: usize| [sign, 0.0].repeat(count);
            let [q, k, queue] = [rows(1.0, 3), rows(of_key, 3), rows(of_queue, 4)];
            let [keys, others] = [&k, &queue].map(|x| matrix_f64(x, 2));
            let (double, in_double) =
                gradient_of(&matrix_f64(&q, 2), |q| loss.loss(q, &keys, &others)).unwrap();
            let [keys, others] = [&k, &queue].map(|x| matrix_f32(x, 2));
            let (single, in_single) =
                gradient_of(&matrix_f32(&q, 2), |q| loss.loss(q, &keys, &others)).unwrap();
            // The loss of a query that is nothing like the queue, e^-200, is 0 in f32.
            let tolerance = 1e-5 * double + f64::from(f32::MIN_POSITIVE);
            assert!((single - double).abs() <= tolerance, "{single} {double}");
            assert_close(&in_single, &in_double, 1e-5, 1e-4);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let [q, k] = [0, 1].map(|seed| matrix_f32(&unit_rows(64, 32, seed), 32));
        let queue = matrix_f32(&unit_rows(100, 32, 2), 32);
        let run = || bits(gradient_of(&q, |q| MocoV2::default().loss(q, &k, &queue)).unwrap());
        let [one, three] = in_pools(run);
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: MocoV2, inputs: [&Tensor; 3], what: &str| {
            let error = loss.loss(inputs[0], inputs[1], inputs[2]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let (loss, rows) = (MocoV2::default(), zeros(&[4, 3], DType::F32));
        says(loss, [&zeros(&[0, 3], DType::F32), &rows, &rows], "[0, 3]");
        says(loss, [&rows, &zeros(&[3, 3], DType::F32), &rows], "keys have the shape [3, 3]");
        says(loss, [&rows, &rows, &zeros(&[4, 2], DType::F32)], "the queue 2");
        says(loss, [&rows, &rows, &zeros(&[4, 3], DType::F64)], "F32 and F64");
        says(MocoV2 { temperature: 0.0 }, [&rows; 3], "temperature");
        says(MocoV2 { temperature: f64::NAN }, [&rows; 3], "temperature");
    }
}
