//! Exemplar: every image is a class of its own, with a learned weight vector.
//!
//! ```text
//! f in R^{B x D} features, W in R^{n x D} weights, y_i the image that row i shows
//! z_ij = f_i · w_j / τ                 (w_j / ‖w_j‖ in place of w_j with `normalize_weight`)
//! loss = −(1/B) Σ_i log softmax(z_i)_{y_i}
//! ```
//!
//! Paper: section 3.1, equation 1. The equation has neither τ nor normalized weights, and no code for it was
//! released. So both are settings, and both are off by default (temperature 1). Gradients go to the features
//! and to the weights.
//!
//! All B x n scores are held at once. The gradient of the weights, n x D, is returned and is held in any
//! case.

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_index, check_temperature, matrix};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::softmax::cross_entropy;
use crate::unit_weight::{inverse_lengths, remove_along};

const NAME: &str = "exemplar";

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Exemplar;
///
/// // A feature of image 0, and a weight vector for each of two images.
/// let feature = Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[2f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let loss = Exemplar::default().loss(&feature, &weight, &[0])?.to_scalar::<f64>()?;
/// assert!((loss - (1.0 + (-2f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exemplar {
    /// τ, above 0; a value of 1 changes nothing.
    pub temperature: f64,
    /// Whether each image's weight vector is scaled to unit length first.
    pub normalize_weight: bool,
}

impl Default for Exemplar {
    fn default() -> Self {
        Self { temperature: 1.0, normalize_weight: false }
    }
}

impl Exemplar {
    /// Returns the loss of `features` (B x D) against `weight` (n x D), where row i shows image `index[i]` (B
    /// numbers below n): a scalar.
    ///
    /// # Errors
    /// If shapes or types do not fit one another, an index is out of range, or the temperature is not
    /// positive.
    pub fn loss(&self, features: &Tensor, weight: &Tensor, index: &[u32]) -> Result<Tensor> {
        let (rows, dim) = matrix(NAME, "features", features)?;
        let (images, weight_dim) = matrix(NAME, "weight", weight)?;
        if weight_dim != dim {
            bail!("{NAME}: features have {dim} columns and weight {weight_dim}; they must agree")
        }
        check_index(NAME, "image index", index, rows, images)?;
        check_temperature(NAME, self.temperature)?;
        apply(&Batch { loss: self, index }, [features, weight])
    }
}

/// A batch, with the image that each row of the features shows.
struct Batch<'a> {
    loss: &'a Exemplar,
    index: &'a [u32],
}

impl Objective<2> for Batch<'_> {
    const NAME: &'static str = NAME;
    const HAS_CUDA_KERNEL: bool = true;

    fn evaluate<T: Float>(&self, [features, weight]: [Matrix<'_, T>; 2]) -> Result<(f64, [Vec<T>; 2])> {
        let Self { loss: Exemplar { temperature, normalize_weight }, index } = *self;
        let (rows, dim, f) = (features.rows, features.columns, features.values);
        let (images, w) = (weight.rows, weight.values);
        let mut scores = vec![T::ZERO; rows * images];
        gemm::nt(rows, images, dim, f, w, &mut scores);
        let inverse = T::from_f64(1.0 / temperature);
        let lengths = if *normalize_weight { inverse_lengths(w, dim) } else { Vec::new() };
        let value = if *normalize_weight {
            cross_entropy(&mut scores, images, index, |k| inverse * lengths[k])
        } else {
            cross_entropy(&mut scores, images, index, |_| inverse)
        };
        let mut to_features = vec![T::ZERO; rows * dim];
        gemm::nn(rows, dim, images, &scores, w, &mut to_features);
        let mut to_weight = vec![T::ZERO; images * dim];
        gemm::tn(images, dim, rows, &scores, f, &mut to_weight);
        if *normalize_weight {
            remove_along(&mut to_weight, w, &lengths);
        }
        Ok((value, [to_features, to_weight]))
    }

    #[cfg(feature = "cuda")]
    fn evaluate_on_device(&self, [features, weight]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        use invaspread_tensor::cuda::losses::{exemplar, indices};
        let index = indices(self.index, &[self.index.len()], features)?;
        let Exemplar { temperature, normalize_weight } = *self.loss;
        let (settled, to_weight) = exemplar(features, weight, &index, temperature, normalize_weight)?;
        Ok((settled.value, [settled.gradient, to_weight]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    let inputs = [Input::Images, Input::Entries];
    vec![
        Case::new::<2, Batch<'_>>("Exemplar", inputs, |x, context| {
            Exemplar { temperature: 0.2, normalize_weight: false }.loss(&x[0], &x[1], context.index)
        }),
        Case::new::<2, Batch<'_>>("Exemplar, unit weights", inputs, |x, context| {
            Exemplar { temperature: 0.1, normalize_weight: true }.loss(&x[0], &x[1], context.index)
        }),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Exemplar;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_index,
        random_rows, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    fn plain(loss: &Exemplar, f: &[f64], w: &[f64], index: &[u32], dim: usize) -> f64 {
        let mut total = 0.0;
        for (f, &y) in f.chunks(dim).zip(index) {
            let scores: Vec<f64> = w
                .chunks(dim)
                .map(|w| {
                    let inner: f64 = f.iter().zip(w).map(|(a, b)| a * b).sum();
                    let length = w.iter().map(|v| v * v).sum::<f64>().sqrt();
                    inner / loss.temperature / if loss.normalize_weight { length } else { 1.0 }
                })
                .collect();
            let sum: f64 = scores.iter().map(|z| z.exp()).sum();
            total -= (scores[y as usize].exp() / sum).ln();
        }
        total / index.len() as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            rows in 1usize..6, images in 1usize..9, dim in 1usize..7, seed: u64,
            temperature in prop_oneof![Just(1.0), Just(0.2)], normalize_weight: bool,
        ) {
            let loss = Exemplar { temperature, normalize_weight };
            let (f, w) = (unit_rows(rows, dim, seed), random_rows(images, dim, seed.wrapping_add(1)));
            // Finite differences are meaningless for the direction of a vector of nearly zero length.
            prop_assume!(w.chunks(dim).all(|w| w.iter().map(|v| v * v).sum::<f64>() > 0.01));
            let index = random_index(rows, images, seed);
            let (ft, wt) = (matrix_f64(&f, dim), matrix_f64(&w, dim));
            let (value, to_f) = gradient_of(&ft, |f| loss.loss(f, &wt, &index)).unwrap();
            let (_, to_w) = gradient_of(&wt, |w| loss.loss(&ft, w, &index)).unwrap();
            let want = plain(&loss, &f, &w, &index, dim);
            prop_assert!((value - want).abs() <= 1e-10 * want.max(1.0));
            assert_close(&to_f, &central_differences(&f, 1e-5, |f| plain(&loss, f, &w, &index, dim)), 1e-6, 1e-7);
            assert_close(&to_w, &central_differences(&w, 1e-5, |w| plain(&loss, &f, w, &index, dim)), 1e-5, 1e-7);
            let (single, _) = gradient_of(&matrix_f32(&f, dim), |f| loss.loss(f, &matrix_f32(&w, dim), &index)).unwrap();
            prop_assert!((single - want).abs() <= 2e-5 * want.max(0.1));
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // f = e1, w_1 = a e1, w_2 = b e1: loss = log(1 + exp((b − a)/τ)); with normalized weights, a and b of
        // one sign, it is log 2.
        let (f, w) = (matrix_f64(&[1.0, 0.0], 2), matrix_f64(&[2.0, 0.0, 0.5, 0.0], 2));
        let loss = Exemplar { temperature: 0.5, normalize_weight: false };
        let (value, gradient) = gradient_of(&f, |f| loss.loss(f, &w, &[0])).unwrap();
        let other = 1.0 / (1.0 + 3.0_f64.exp());
        assert!((value - (-3.0_f64).exp().ln_1p()).abs() < 1e-14);
        assert_close(&gradient, &[other * (0.5 - 2.0) / 0.5, 0.0], 1e-13, 0.0);
        let unit = Exemplar { normalize_weight: true, ..loss };
        let (value, _) = gradient_of(&f, |f| unit.loss(f, &w, &[0])).unwrap();
        assert!((value - 2.0_f64.ln()).abs() < 1e-14);
    }

    #[test]
    fn extremes_are_safe_at_one_hundredth() {
        let loss = Exemplar { temperature: 0.01, normalize_weight: true };
        for rows in [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [0.0, 1.0, -1.0]] {
            let (f, w) =
                (matrix_f32(&[1.0, 0.0], 2), rows.iter().flat_map(|&a| [a, 0.0]).collect::<Vec<_>>());
            let w = matrix_f32(&w, 2);
            let (value, gradient) = gradient_of(&f, |f| loss.loss(f, &w, &[0])).unwrap();
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
            let (_, gradient) = gradient_of(&w, |w| loss.loss(&f, w, &[0])).unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (f, w) = (matrix_f32(&unit_rows(16, 32, 0), 32), matrix_f32(&random_rows(300, 32, 1), 32));
        let index = random_index(16, 300, 2);
        let loss = Exemplar { temperature: 0.1, normalize_weight: true };
        let [one, three] = in_pools(|| {
            let to_f = bits(gradient_of(&f, |f| loss.loss(f, &w, &index)).unwrap());
            [to_f, bits(gradient_of(&w, |w| loss.loss(&f, w, &index)).unwrap())]
        });
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let loss = Exemplar::default();
        let (f, w) = (zeros(&[2, 4], DType::F32), zeros(&[7, 4], DType::F32));
        let says = |result: candle_core::Result<Tensor>, what: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        says(loss.loss(&f, &w, &[0, 7]), "image index 7 (row 1) is out of range, there are 7");
        says(loss.loss(&f, &w, &[0]), "1 image index for 2 rows");
        says(loss.loss(&f, &zeros(&[7, 5], DType::F32), &[0, 0]), "4 columns and weight 5");
        says(loss.loss(&f, &zeros(&[7, 4], DType::F64), &[0, 0]), "F64");
        says(Exemplar { temperature: -1.0, ..loss }.loss(&f, &w, &[0, 0]), "temperature");
    }
}
