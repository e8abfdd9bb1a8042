//! NT-Xent: normalized, temperature-scaled cross-entropy over one batch, the objective of `SimCLR`.
//!
//! ```text
//! x in R^{2B x D}, unit rows, view 1 of all images above view 2;  i⁺ = (i + B) mod 2B;  τ temperature
//! s_ij = x_i · x_j / τ
//! loss = −(1/2B) Σ_i log [ exp(s_{i,i⁺}) / Σ_{j≠i} exp(s_ij) ]
//! ```
//!
//! Source: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual
//! Representations", ICML 2020, section 2.1, equation 1. Gradient flows through both sides of each inner
//! product: with `g_ij = ∂loss/∂s_ij`, `grad x_i = Σ_j (g_ij + g_ji) x_j / τ`.
//!
//! No deviation in value. The paper's code computes one cross-entropy for each of the two views and averages
//! them, which is the same sum in another order. The rows must already have unit length (the paper divides by
//! their lengths within the similarity): the last op of the network does this, so that the same rows are
//! trained and measured. A batch of one image has no negatives and loss 0.
//!
//! The 2B x 2B scores are held at once. There is no CUDA kernel: for features on a GPU the loss is computed
//! on the host.

use candle_core::{Result, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_temperature, two_views};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::similarities::{similarities, through_both_sides};
use crate::softmax::cross_entropy_of_row;

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::NtXent;
///
/// // Two images whose views agree: each row has similarity 1 to its partner and 0 to the two others.
/// let views = Tensor::new(&[[1f64, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let loss = NtXent { temperature: 1.0 }.loss(&views)?.to_scalar::<f64>()?;
/// assert!((loss - (1.0 + 2.0 * (-1f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NtXent {
    /// τ, above 0; 0.5 in the paper's CIFAR-10 experiments (appendix B.9).
    pub temperature: f64,
}

impl Default for NtXent {
    fn default() -> Self {
        Self { temperature: 0.5 }
    }
}

impl NtXent {
    /// Returns the loss of `features` (2B x D, rows of unit length, row i and row i + B two views of one
    /// image): a scalar.
    ///
    /// # Errors
    /// If `features` is not such a matrix in F32 or F64 (F32 on CUDA), or the temperature is not positive.
    pub fn loss(&self, features: &Tensor) -> Result<Tensor> {
        two_views(Self::NAME, features)?;
        check_temperature(Self::NAME, self.temperature)?;
        apply(self, [features])
    }
}

impl Objective<1> for NtXent {
    const NAME: &'static str = "ntxent";

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let rows = features.rows;
        let mut scores = similarities(features);
        let (inverse, share) = (T::from_f64(1.0 / self.temperature), 1.0 / rows as f64);
        let losses: Vec<f64> = scores
            .par_chunks_mut(rows)
            .enumerate()
            .map(|(own, row)| {
                // The row's product with itself is moved to the end, so that the softmax is over all others.
                // Its gradient is 0.
                let (positive, last) = ((own + rows / 2) % rows, rows - 1);
                row.swap(own, last);
                let positive = if positive == last { own } else { positive };
                let loss = cross_entropy_of_row(&mut row[..last], positive, share, |_| inverse);
                row[last] = T::ZERO;
                row.swap(own, last);
                loss
            })
            .collect();
        Ok((losses.iter().sum::<f64>() * share, [through_both_sides(&scores, features)]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<1, NtXent>("NT-Xent", [Input::Views], |x, _| NtXent::default().loss(&x[0]))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::NtXent;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as the equation reads: plain sums of exponentials, nothing shifted.
    fn plain(temperature: f64, x: &[f64], dim: usize) -> f64 {
        let rows = x.len() / dim;
        let score =
            |i: usize, j: usize| (0..dim).map(|c| x[i * dim + c] * x[j * dim + c]).sum::<f64>() / temperature;
        let row = |i: usize| {
            let all: f64 = (0..rows).filter(|&j| j != i).map(|j| score(i, j).exp()).sum();
            (score(i, (i + rows / 2) % rows).exp() / all).ln()
        };
        -(0..rows).map(row).sum::<f64>() / rows as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            pairs in 1usize..9, dim in 2usize..12, seed: u64,
            temperature in prop_oneof![Just(0.07), Just(0.1), Just(0.5), Just(1.0)],
        ) {
            let (loss, x) = (NtXent { temperature }, unit_rows(2 * pairs, dim, seed));
            let want = plain(temperature, &x, dim);
            let (value, gradient) = gradient_of(&matrix_f64(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((value - want).abs() <= 1e-10 * want.max(1.0), "{} {}", value, want);
            let differences = central_differences(&x, 1e-5, |x| plain(temperature, x, dim));
            assert_close(&gradient, &differences, 1e-6, 1e-6);
            let (single, in_single) = gradient_of(&matrix_f32(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((single - want).abs() <= 2e-5 * want.max(0.1));
            assert_close(&in_single, &gradient, 1e-4, 1e-5);
        }
    }

    #[test]
    fn two_pairs_have_a_closed_form() {
        // Both views of image 1 are e1, both views of image 2 are e2. So each row scores 1/τ with its
        // positive and 0 with the two negatives, and the loss is log(1 + 2 exp(−1/τ)). With q = 2/(2 +
        // exp(1/τ)) = 1 − p, the gradient with respect to a row's scores is −q/4 for the positive and q/8 for
        // each negative. A row's gradient adds what it gets as query and as key, divided by τ: −q/2 ·
        // positive + q/4 · (sum of the negatives), which is (−q/2, q/2)/τ along (own, other axis).
        let loss = NtXent { temperature: 0.5 };
        let x = matrix_f64(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 2);
        let (value, gradient) = gradient_of(&x, |x| loss.loss(x)).unwrap();
        assert!((value - (2.0 * (-2.0_f64).exp()).ln_1p()).abs() < 1e-14);
        let q = 2.0 / (2.0 + 2.0_f64.exp());
        assert_close(&gradient, &[-q, q, q, -q, -q, q, q, -q], 1e-13, 0.0);
    }

    #[test]
    fn one_image_alone_costs_nothing() {
        let (value, gradient) =
            gradient_of(&matrix_f64(&[1.0, 0.0, 0.6, 0.8], 2), |x| NtXent::default().loss(x)).unwrap();
        assert!(value == 0.0 && gradient.iter().all(|g| *g == 0.0));
    }

    #[test]
    fn identical_and_opposite_rows_are_safe_at_one_hundredth() {
        let loss = NtXent { temperature: 0.01 };
        for signs in [[1.0; 6], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]] {
            let rows: Vec<f64> = signs.iter().flat_map(|&s| [s, 0.0]).collect();
            let (single, in_single) = gradient_of(&matrix_f32(&rows, 2), |x| loss.loss(x)).unwrap();
            let (double, in_double) = gradient_of(&matrix_f64(&rows, 2), |x| loss.loss(x)).unwrap();
            assert!(single.is_finite() && (single - double).abs() <= 1e-5 * double, "{single} {double}");
            // Terms of up to 1/τ cancel, and their rounding errors are left.
            assert_close(&in_single, &in_double, 1e-5, 1e-4);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let x = matrix_f32(&unit_rows(64, 32, 0), 32);
        let [one, three] = in_pools(|| bits(gradient_of(&x, |x| NtXent::default().loss(x)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: NtXent, x: &Tensor, what: &str| {
            let error = loss.loss(x).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let loss = NtXent::default();
        says(loss, &zeros(&[3, 4], DType::F32), "3 rows");
        says(loss, &zeros(&[0, 4], DType::F32), "[0, 4]");
        says(loss, &zeros(&[4, 4], DType::U8), "U8");
        says(NtXent { temperature: 0.0 }, &zeros(&[4, 4], DType::F32), "temperature");
        says(NtXent { temperature: f64::NAN }, &zeros(&[4, 4], DType::F32), "temperature");
    }
}
