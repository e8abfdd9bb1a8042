//! `SimSiam`: the predictions of one view come near to the projection of the other view, without negatives
//! and without a momentum encoder.
//!
//! ```text
//! p in R^{2B x D} predictions, z in R^{2B x D} projections, constant; unit rows, view 1 of all images above
//! view 2;  i⁺ = (i + B) mod 2B
//! loss = −(1/2B) Σ_i p_i · z_{i⁺}
//! ```
//!
//! Source: Chen, He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 3, equations 1
//! to 4, and `main_simsiam.py` of facebookresearch/simsiam. No gradient flows to the projections through this
//! loss (the paper's stop-gradient, without which the loss collapses): `grad p_i = −z_{i⁺} / 2B`. The same
//! projections get a gradient as the input of the predictor.
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
/// use invaspread_losses::SimSiam;
///
/// // An image whose first view is predicted without an error, and whose second one at a right angle.
/// let predictions = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let projections = Tensor::new(&[[1f64, 0.0], [1.0, 0.0]], &Device::Cpu)?;
/// assert_eq!(SimSiam.loss(&predictions, &projections)?.to_scalar::<f64>()?, -0.5);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimSiam;

impl SimSiam {
    /// Returns the loss of `predictions` (2B x D, rows of unit length, row i and row i + B of two views of
    /// one image) and `projections` (2B x D, in the same order): a scalar from −1 to 1. No gradient flows to
    /// the projections.
    ///
    /// # Errors
    /// If the two are not such matrices of one shape in F32 or F64 (F32 on CUDA).
    pub fn loss(&self, predictions: &Tensor, projections: &Tensor) -> Result<Tensor> {
        check_partners(Self::NAME, predictions, projections)?;
        apply(self, [predictions, projections])
    }
}

impl Objective<2> for SimSiam {
    const NAME: &'static str = "simsiam";
    const CONSTANT: [bool; 2] = [false, true];

    fn evaluate<T: Float>(
        &self,
        [predictions, projections]: [Matrix<'_, T>; 2],
    ) -> Result<(f64, [Vec<T>; 2])> {
        let share = 1.0 / predictions.rows as f64;
        let (products, gradient) = products_with_partners(predictions, projections, -share);
        Ok((-products * share, [gradient, Vec::new()]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<2, SimSiam>("SimSiam", [Input::Views; 2], |x, _| SimSiam.loss(&x[0], &x[1]))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::SimSiam;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as equation 4 reads: `D(p1, z2) / 2 + D(p2, z1) / 2`.
    fn plain(p: &[f64], z: &[f64], dim: usize) -> f64 {
        let ((p1, p2), (z1, z2)) = (p.split_at(p.len() / 2), z.split_at(z.len() / 2));
        let images = (p1.len() / dim) as f64;
        let distance = |p: &[f64], z: &[f64]| -p.iter().zip(z).map(|(p, z)| p * z).sum::<f64>() / images;
        distance(p1, z2) / 2.0 + distance(p2, z1) / 2.0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            images in 1usize..9, dim in 1usize..12, seed in 0u64..1 << 40,
        ) {
            let (p, z) = (unit_rows(2 * images, dim, seed), unit_rows(2 * images, dim, seed + 1));
            let want = plain(&p, &z, dim);
            let constant = matrix_f64(&z, dim);
            let loss = |p: &Tensor| SimSiam.loss(p, &constant);
            let (value, gradient) = gradient_of(&matrix_f64(&p, dim), loss).unwrap();
            prop_assert!((value - want).abs() <= 1e-14, "{} {}", value, want);
            assert_close(&gradient, &central_differences(&p, 1e-5, |p| plain(p, &z, dim)), 1e-8, 1e-9);
            let constant = matrix_f32(&z, dim);
            let loss = |p: &Tensor| SimSiam.loss(p, &constant);
            let (single, in_single) = gradient_of(&matrix_f32(&p, dim), loss).unwrap();
            prop_assert!((single - want).abs() <= 1e-6);
            assert_close(&in_single, &gradient, 1e-6, 1e-7);
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // Both views of image 1 are predicted exactly, those of image 2 at a right angle.
        let p = matrix_f64(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2);
        let z = matrix_f64(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 2);
        let (value, gradient) = gradient_of(&p, |p| SimSiam.loss(p, &z)).unwrap();
        assert!((value + 0.5).abs() < 1e-15, "{value}");
        assert_close(&gradient, &[-0.25, 0.0, 0.0, -0.25, -0.25, 0.0, 0.0, -0.25], 1e-15, 0.0);
    }

    /// Section 3 of BYOL's paper: the distance of unit rows is an increasing function of this loss.
    #[test]
    fn is_the_loss_of_byol_but_for_scale_and_offset() {
        let (p, t) = (matrix_f64(&unit_rows(10, 6, 3), 6), matrix_f64(&unit_rows(10, 6, 4), 6));
        let (of_byol, gradient) = gradient_of(&p, |p| crate::Byol.loss(p, &t)).unwrap();
        let (value, own) = gradient_of(&p, |p| SimSiam.loss(p, &t)).unwrap();
        assert!((of_byol - (4.0 + 4.0 * value)).abs() < 1e-13, "{of_byol} {value}");
        let scaled: Vec<f64> = own.iter().map(|g| 4.0 * g).collect();
        assert_close(&gradient, &scaled, 1e-14, 0.0);
    }

    #[test]
    fn threads_change_no_bit() {
        let (p, z) = (matrix_f32(&unit_rows(64, 32, 0), 32), matrix_f32(&unit_rows(64, 32, 1), 32));
        let [one, three] = in_pools(|| bits(gradient_of(&p, |p| SimSiam.loss(p, &z)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |p: &Tensor, z: &Tensor, what: &str| {
            let error = SimSiam.loss(p, z).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let rows = zeros(&[4, 3], DType::F32);
        says(&zeros(&[5, 3], DType::F32), &rows, "5 rows");
        says(&rows, &zeros(&[2, 3], DType::F32), "they must agree");
        says(&rows, &zeros(&[4, 3], DType::F64), "F32 and F64");
    }
}
