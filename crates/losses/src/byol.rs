//! BYOL: the predictions of one view come near to what a momentum encoder makes of the other view.
//!
//! ```text
//! p in R^{2B x D} predictions, t in R^{2B x D} targets, constant; unit rows, view 1 of all images above
//! view 2;  i⁺ = (i + B) mod 2B
//! loss = (1/B) Σ_i ‖p_i − t_{i⁺}‖² = (1/B) Σ_i (2 − 2 p_i · t_{i⁺})
//! ```
//!
//! Source: Grill, Strub, Altché, Tallec, Richemond et al., "Bootstrap your own latent: A new approach to
//! self-supervised learning", `NeurIPS` 2020, section 3.1, equation 2, and the symmetric loss after it: the
//! sum of both directions, averaged over the images. The targets come from the momentum encoder and are
//! constants: `grad p_i = −(2/B) t_{i⁺}`.
//!
//! No deviation in value. The rows must already have unit length (the paper divides by their lengths within
//! the loss): the last op of the heads does this. A batch of one image has a loss like any other, because
//! there are no negatives. There is no CUDA kernel: for rows on a GPU the loss is computed on the host.

use candle_core::{Result, Tensor};

use crate::cases::{Case, Input};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::partners::{check_partners, products_with_partners};

/// The objective. It has no settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Byol;
///
/// // An image whose first view is predicted without an error, and whose second one at a right angle.
/// let predictions = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let targets = Tensor::new(&[[1f64, 0.0], [1.0, 0.0]], &Device::Cpu)?;
/// assert_eq!(Byol.loss(&predictions, &targets)?.to_scalar::<f64>()?, 2.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Byol;

impl Byol {
    /// Returns the loss of `predictions` (2B x D, rows of unit length, row i and row i + B of two views of
    /// one image) and `targets` (2B x D, in the same order): a scalar. No gradient flows to the targets.
    ///
    /// # Errors
    /// If the two are not such matrices of one shape in F32 or F64 (F32 on CUDA).
    pub fn loss(&self, predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
        check_partners(Self::NAME, predictions, targets)?;
        apply(self, [predictions, targets])
    }
}

impl Objective<2> for Byol {
    const NAME: &'static str = "byol";
    const CONSTANT: [bool; 2] = [false, true];

    fn evaluate<T: Float>(&self, [predictions, targets]: [Matrix<'_, T>; 2]) -> Result<(f64, [Vec<T>; 2])> {
        let images = (predictions.rows / 2) as f64;
        let (products, gradient) = products_with_partners(predictions, targets, -2.0 / images);
        Ok((4.0 - 2.0 * products / images, [gradient, Vec::new()]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<2, Byol>("BYOL", [Input::Views; 2], |x, _| Byol.loss(&x[0], &x[1]))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Byol;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss in its second form, which is the gradient's: the first holds for unit rows alone.
    fn plain(p: &[f64], t: &[f64], dim: usize) -> f64 {
        let images = p.len() / dim / 2;
        let row = |x: &[f64], i: usize| x[i * dim..(i + 1) * dim].to_vec();
        let direction = |from: usize, to: usize| {
            let of_image = |i| -> f64 {
                let (p, t) = (row(p, from * images + i), row(t, to * images + i));
                2.0 - 2.0 * p.iter().zip(&t).map(|(p, t)| p * t).sum::<f64>()
            };
            (0..images).map(of_image).sum::<f64>() / images as f64
        };
        direction(0, 1) + direction(1, 0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            images in 1usize..9, dim in 1usize..12, seed in 0u64..1 << 40,
        ) {
            let (p, t) = (unit_rows(2 * images, dim, seed), unit_rows(2 * images, dim, seed + 1));
            let want = plain(&p, &t, dim);
            let constant = matrix_f64(&t, dim);
            let (value, gradient) = gradient_of(&matrix_f64(&p, dim), |p| Byol.loss(p, &constant)).unwrap();
            prop_assert!((value - want).abs() <= 1e-13, "{} {}", value, want);
            assert_close(&gradient, &central_differences(&p, 1e-5, |p| plain(p, &t, dim)), 1e-8, 1e-9);
            let squares: f64 = (0..2 * images)
                .flat_map(|i| (0..dim).map(move |c| (i * dim + c, (i + images) % (2 * images) * dim + c)))
                .map(|(of_p, of_t)| (p[of_p] - t[of_t]).powi(2))
                .sum();
            prop_assert!((value - squares / images as f64).abs() <= 1e-12, "{} {}", value, squares);
            let constant = matrix_f32(&t, dim);
            let (single, in_single) = gradient_of(&matrix_f32(&p, dim), |p| Byol.loss(p, &constant)).unwrap();
            prop_assert!((single - want).abs() <= 2e-6);
            assert_close(&in_single, &gradient, 1e-6, 1e-7);
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // Both views of image 1 are predicted exactly, and those of image 2 as the opposite of their targets:
        // squared distances of 0 and 4 in each direction. The gradient is minus the partner's target.
        let p = matrix_f64(&[1.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, -1.0], 2);
        let t = matrix_f64(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 2);
        let (value, gradient) = gradient_of(&p, |p| Byol.loss(p, &t)).unwrap();
        assert!((value - 4.0).abs() < 1e-15, "{value}");
        assert_close(&gradient, &[-1.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0, -1.0], 1e-15, 0.0);
    }

    #[test]
    fn threads_change_no_bit() {
        let (p, t) = (matrix_f32(&unit_rows(64, 32, 0), 32), matrix_f32(&unit_rows(64, 32, 1), 32));
        let [one, three] = in_pools(|| bits(gradient_of(&p, |p| Byol.loss(p, &t)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |p: &Tensor, t: &Tensor, what: &str| {
            let error = Byol.loss(p, t).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let rows = zeros(&[4, 3], DType::F32);
        says(&zeros(&[3, 3], DType::F32), &rows, "3 rows");
        says(&zeros(&[0, 3], DType::F32), &rows, "[0, 3]");
        says(&rows, &zeros(&[4, 2], DType::F32), "targets have the shape [4, 2]");
        says(&rows, &zeros(&[4, 3], DType::F64), "F32 and F64");
    }
}
