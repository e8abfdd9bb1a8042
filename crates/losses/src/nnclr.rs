//! NNCLR: the nearest neighbor of one view in a support set must recognize the prediction of the other view
//! among the predictions of all images.
//!
//! ```text
//! n in R^{2B x D} neighbors, constant, p in R^{2B x D} predictions; unit rows, view 1 of all images above
//! view 2;  i⁺ = (i + B) mod 2B;  V(i⁺) the B rows of the view of i⁺;  τ temperature
//! loss = −(1/2B) Σ_i log [ exp(n_i · p_{i⁺} / τ) / Σ_{j in V(i⁺)} exp(n_i · p_j / τ) ]
//! ```
//!
//! Source: Dwibedi, Aytar, Tompson, Sermanet, Zisserman, "With a Little Help from My Friends:
//! Nearest-Neighbor Contrastive Learning of Visual Representations", ICCV 2021, section 3.2, made symmetric
//! as in the paper's pseudo-code: the mean of both directions. `n_i` is the row of the support set that is
//! the nearest to the projection of row i. No gradient flows to it: with `g_ij = ∂loss/∂(n_i · p_j / τ)`,
//! `grad p_j = Σ_i g_ij n_i / τ`.
//!
//! No deviation in value. The rows must already have unit length: the support set holds such rows, and the
//! last op of the heads makes them. A batch of one image has no negatives and loss 0.
//!
//! The B x B scores of a direction are held at once. There is no CUDA kernel: for rows on a GPU the loss is
//! computed on the host.

use candle_core::{Result, Tensor};
use invaspread_tensor::gemm;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_temperature, same_shape, two_views};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::softmax::cross_entropy;

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Nnclr;
///
/// // Two images; each view's neighbor equals the prediction of the other view, and is at a right angle to
/// // that of the other image.
/// let rows = Tensor::new(&[[1f64, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let loss = Nnclr { temperature: 1.0 }.loss(&rows, &rows)?.to_scalar::<f64>()?;
/// assert!((loss - (1.0 + (-1f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nnclr {
    /// τ, above 0; 0.1 in the paper.
    pub temperature: f64,
}

impl Default for Nnclr {
    fn default() -> Self {
        Self { temperature: 0.1 }
    }
}

impl Nnclr {
    /// Returns the loss of `predictions` (2B x D, rows of unit length, row i and row i + B of two views of
    /// one image) and the `neighbors` of the projections (2B x D, in the same order): a scalar. No gradient
    /// flows to the neighbors.
    ///
    /// # Errors
    /// If the two are not such matrices of one shape in F32 or F64 (F32 on CUDA), or the temperature is not
    /// positive.
    pub fn loss(&self, predictions: &Tensor, neighbors: &Tensor) -> Result<Tensor> {
        two_views(Self::NAME, predictions)?;
        same_shape(Self::NAME, ["neighbors", "predictions"], [neighbors, predictions])?;
        check_temperature(Self::NAME, self.temperature)?;
        apply(self, [predictions, neighbors])
    }
}

impl Objective<2> for Nnclr {
    const NAME: &'static str = "nnclr";
    const CONSTANT: [bool; 2] = [false, true];

    fn evaluate<T: Float>(&self, [predictions, neighbors]: [Matrix<'_, T>; 2]) -> Result<(f64, [Vec<T>; 2])> {
        let (images, columns) = (predictions.rows / 2, predictions.columns);
        let own: Vec<u32> = (0..images as u32).collect();
        let inverse = T::from_f64(1.0 / self.temperature);
        let half = images * columns;
        let mut gradient = vec![T::ZERO; 2 * half];
        let mut scores = vec![T::ZERO; images * images];
        let mut total = 0.0;
        // The neighbors of one view, and the predictions of the other.
        for (of_neighbors, of_predictions) in [(0..half, half..2 * half), (half..2 * half, 0..half)] {
            let n = &neighbors.values[of_neighbors];
            gemm::nt(images, images, columns, n, &predictions.values[of_predictions.clone()], &mut scores);
            total += cross_entropy(&mut scores, images, &own, |_| inverse) / 2.0;
            for slope in &mut scores {
                *slope *= T::from_f64(0.5);
            }
            gemm::tn(images, columns, images, &scores, n, &mut gradient[of_predictions]);
        }
        Ok((total, [gradient, Vec::new()]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<2, Nnclr>("NNCLR", [Input::Views; 2], |x, _| Nnclr::default().loss(&x[0], &x[1]))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Nnclr;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as the equation reads: plain sums of exponentials, nothing shifted.
    fn plain(temperature: f64, p: &[f64], n: &[f64], dim: usize) -> f64 {
        let images = p.len() / dim / 2;
        let score = |i: usize, j: usize| {
            ((0..dim).map(|c| n[i * dim + c] * p[j * dim + c]).sum::<f64>() / temperature).exp()
        };
        let row = |i: usize| {
            let partner = (i + images) % (2 * images);
            let view = if partner < images { 0..images } else { images..2 * images };
            -(score(i, partner) / view.map(|j| score(i, j)).sum::<f64>()).ln()
        };
        (0..2 * images).map(row).sum::<f64>() / (2 * images) as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            images in 1usize..9, dim in 2usize..12, seed in 0u64..1 << 40,
            temperature in prop_oneof![Just(0.07), Just(0.1), Just(0.2), Just(1.0)],
        ) {
            let loss = Nnclr { temperature };
            let (p, n) = (unit_rows(2 * images, dim, seed), unit_rows(2 * images, dim, seed + 1));
            let want = plain(temperature, &p, &n, dim);
            let constant = matrix_f64(&n, dim);
            let (value, gradient) = gradient_of(&matrix_f64(&p, dim), |p| loss.loss(p, &constant)).unwrap();
            prop_assert!((value - want).abs() <= 1e-10 * want.max(1.0), "{} {}", value, want);
            let differences = central_differences(&p, 1e-5, |p| plain(temperature, p, &n, dim));
            assert_close(&gradient, &differences, 1e-6, 1e-6);
            let constant = matrix_f32(&n, dim);
            let (single, in_single) = gradient_of(&matrix_f32(&p, dim), |p| loss.loss(p, &constant)).unwrap();
            prop_assert!((single - want).abs() <= 2e-5 * want.max(0.1));
            assert_close(&in_single, &gradient, 1e-4, 1e-5);
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // Each neighbor scores 1/τ with its own prediction and 0 with that of the other image: the loss is
        // log(1 + exp(−1/τ)). With e = 1/(1 + exp(1/τ)), each of the four neighbors gives −e/4τ of itself to
        // its own prediction and e/4τ to the other.
        let rows = matrix_f64(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 2);
        let (value, gradient) = gradient_of(&rows, |p| Nnclr { temperature: 0.5 }.loss(p, &rows)).unwrap();
        assert!((value - (-2.0_f64).exp().ln_1p()).abs() < 1e-14, "{value}");
        let e = 0.5 / (1.0 + 2.0_f64.exp());
        assert_close(&gradient, &[-e, e, e, -e, -e, e, e, -e], 1e-13, 0.0);
    }

    #[test]
    fn one_image_alone_costs_nothing() {
        let (p, n) = (matrix_f64(&[1.0, 0.0, 0.6, 0.8], 2), matrix_f64(&[0.0, 1.0, 0.8, 0.6], 2));
        let (value, gradient) = gradient_of(&p, |p| Nnclr::default().loss(p, &n)).unwrap();
        assert!(value == 0.0 && gradient.iter().all(|g| *g == 0.0));
    }

    #[test]
    fn identical_and_opposite_rows_are_safe_at_one_hundredth() {
        let loss = Nnclr { temperature: 0.01 };
        for signs in [[1.0; 6], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]] {
            let p: Vec<f64> = signs.iter().flat_map(|&s| [s, 0.0]).collect();
            let n = [1.0, 0.0].repeat(6);
            let constant = matrix_f64(&n, 2);
            let (double, in_double) = gradient_of(&matrix_f64(&p, 2), |p| loss.loss(p, &constant)).unwrap();
            let constant = matrix_f32(&n, 2);
            let (single, in_single) = gradient_of(&matrix_f32(&p, 2), |p| loss.loss(p, &constant)).unwrap();
            assert!(single.is_finite() && (single - double).abs() <= 1e-5 * double, "{single} {double}");
            assert_close(&in_single, &in_double, 1e-5, 1e-4);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (p, n) = (matrix_f32(&unit_rows(64, 32, 0), 32), matrix_f32(&unit_rows(64, 32, 1), 32));
        let [one, three] = in_pools(|| bits(gradient_of(&p, |p| Nnclr::default().loss(p, &n)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: Nnclr, p: &Tensor, n: &Tensor, what: &str| {
            let error = loss.loss(p, n).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let (loss, rows) = (Nnclr::default(), zeros(&[4, 3], DType::F32));
        says(loss, &zeros(&[3, 3], DType::F32), &rows, "3 rows");
        says(loss, &rows, &zeros(&[4, 2], DType::F32), "neighbors have the shape [4, 2]");
        says(loss, &rows, &zeros(&[4, 3], DType::F64), "F32 and F64");
        says(Nnclr { temperature: 0.0 }, &rows, &rows, "temperature");
    }
}
