//! DCL, which is NT-Xent without the positive pair in its denominator, and DCLW, which also gives the
//! positive pairs weights.
//!
//! ```text
//! x in R^{2B x D}, unit rows, view 1 of all images above view 2;  i⁺ = (i + B) mod 2B;  τ temperature
//! s_ij = x_i · x_j / τ
//! loss = (1/2B) Σ_i [ −w_i s_{i,i⁺} + log Σ_{j∉{i,i⁺}} exp(s_ij) ]
//! DCL:  w_i = 1
//! DCLW: w_i = 2 − exp(p_i/σ) / mean_k exp(p_k/σ),   p_i = x_i · x_{i⁺},  k over the B images
//! ```
//!
//! Source: Yeh, Hong, Hsu, Liu, Chen, LeCun, "Decoupled Contrastive Learning", ECCV 2022, section 3, equation
//! 6 (DCL) and the weighted loss that follows it (DCLW, with a negative von Mises-Fisher weighting). The
//! second sum runs over all views of all other images, in one logarithm.
//!
//! With `q_ij = exp(s_ij) / Σ_{k∉{i,i⁺}} exp(s_ik)` and the softmax `r_i = exp(p_i/σ) / Σ_k exp(p_k/σ)`, so
//! that `w_i = 2 − B r_i`, the gradient with respect to `x_i · x_j` is `q_ij / 2Bτ` for a negative and, for
//! the positive, `−[w_i − (B/σ) r_i (p_i − Σ_k r_k p_k)] / 2Bτ` (`−1 / 2Bτ` for DCL). It flows through both
//! sides of each inner product: `grad x_i = Σ_j (g_ij + g_ji) x_j`.
//!
//! Deviations: the paper adds up the 2B rows; this is their mean, as in NT-Xent, so that the learning rate
//! does not depend on the batch. The paper does not say whether the weights are constants in the gradient;
//! here they are not, so the gradient is that of the equation. The rows must already have unit length, as in
//! NT-Xent. A batch of one image is an error: it has no negatives, and the logarithm of an empty sum is not
//! defined.
//!
//! The loss may be negative. The 2B x 2B scores are held at once. There is no CUDA kernel: for features on a
//! GPU the loss is computed on the host.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_temperature, two_views};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::similarities::{similarities, through_both_sides};
use crate::softmax::{maximum, shifted_exp};

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Dcl;
///
/// // Two images whose views agree: each row has similarity 1 to its partner and 0 to the two others.
/// let views = Tensor::new(&[[1f64, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let loss = Dcl { temperature: 1.0, sigma: None }.loss(&views)?.to_scalar::<f64>()?;
/// assert!((loss - (2f64.ln() - 1.0)).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dcl {
    /// τ, above 0.
    pub temperature: f64,
    /// σ of DCLW's weights, above 0; 0.5 in the paper. `None` gives all pairs weight 1, which is DCL and the
    /// limit of large σ.
    pub sigma: Option<f64>,
}

impl Default for Dcl {
    fn default() -> Self {
        Self { temperature: 0.1, sigma: None }
    }
}

impl Dcl {
    /// Returns the loss of `features` (2B x D, rows of unit length, row i and row i + B two views of one
    /// image, at least two images): a scalar.
    ///
    /// # Errors
    /// If `features` is not such a matrix in F32 or F64 (F32 on CUDA), or the temperature or σ is not
    /// positive.
    pub fn loss(&self, features: &Tensor) -> Result<Tensor> {
        let (rows, _) = two_views(Self::NAME, features)?;
        if rows < 4 {
            bail!("{}: features are two views of one image; at least two images are needed", Self::NAME)
        }
        check_temperature(Self::NAME, self.temperature)?;
        if let Some(sigma) = self.sigma
            && !(sigma > 0.0 && sigma.is_finite())
        {
            bail!("{}: sigma must be a positive number, it is {sigma}", Self::NAME)
        }
        apply(self, [features])
    }

    /// Returns the mean over the images of `w_i p_i`, and its derivative with respect to each `p_i`.
    fn weighted_mean(&self, positives: &[f64]) -> (f64, Vec<f64>) {
        let images = positives.len() as f64;
        let Some(sigma) = self.sigma else {
            return (positives.iter().sum::<f64>() / images, vec![1.0 / images; positives.len()]);
        };
        let mut shares: Vec<f64> = positives.iter().map(|p| p / sigma).collect();
        let top = maximum(&shares);
        let sum = shifted_exp(&mut shares, top, None);
        for share in &mut shares {
            *share /= sum;
        }
        let center: f64 = shares.iter().zip(positives).map(|(r, p)| r * p).sum();
        let weights = shares.iter().map(|r| 2.0 - images * r);
        let mean = weights.clone().zip(positives).map(|(w, p)| w * p).sum::<f64>() / images;
        let slopes = weights.zip(&shares).zip(positives);
        let slopes = slopes.map(|((w, r), p)| w / images - r * (p - center) / sigma).collect();
        (mean, slopes)
    }
}

impl Objective<1> for Dcl {
    const NAME: &'static str = "dcl";

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let rows = features.rows;
        let images = rows / 2;
        let mut scores = similarities(features);
        let positives: Vec<f64> = (0..images).map(|i| scores[i * rows + i + images].to_f64()).collect();
        let (attraction, slopes) = self.weighted_mean(&positives);
        let (inverse, share) = (1.0 / self.temperature, 1.0 / rows as f64);
        let repulsions: Vec<f64> = scores
            .par_chunks_mut(rows)
            .enumerate()
            .map(|(own, row)| {
                // Both views of the row's own image are left out: one in each half of the row.
                let (image, partner) = (own % images, (own + images) % rows);
                for z in row.iter_mut() {
                    *z *= T::from_f64(inverse);
                }
                for left_out in [own, partner] {
                    row[left_out] = T::from_f64(f64::NEG_INFINITY);
                }
                let top = maximum(row);
                let (first, second) = row.split_at_mut(images);
                let sum = shifted_exp(first, top, Some(image)) + shifted_exp(second, top, Some(image));
                let each = T::from_f64(share * inverse / sum);
                for z in row.iter_mut() {
                    *z *= each;
                }
                // Each of the two rows of an image gets half of the derivative.
                row[partner] = T::from_f64(-slopes[image] * inverse / 2.0);
                top.to_f64() + sum.ln()
            })
            .collect();
        let value = repulsions.iter().sum::<f64>() * share - attraction * inverse;
        Ok((value, [through_both_sides(&scores, features)]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new::<1, Dcl>("DCL", [Input::Views], |x, _| Dcl::default().loss(&x[0])),
        Case::new::<1, Dcl>("DCLW", [Input::Views], |x, _| {
            Dcl { sigma: Some(0.5), ..Dcl::default() }.loss(&x[0])
        }),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Dcl;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as the equations read: plain sums of exponentials, nothing shifted.
    fn plain(loss: Dcl, x: &[f64], dim: usize) -> f64 {
        let rows = x.len() / dim;
        let product = |i: usize, j: usize| (0..dim).map(|c| x[i * dim + c] * x[j * dim + c]).sum::<f64>();
        let partner = |i: usize| (i + rows / 2) % rows;
        let weight = |i: usize| {
            loss.sigma.map_or(1.0, |sigma| {
                let density = |k: usize| (product(k, partner(k)) / sigma).exp();
                let mean = (0..rows / 2).map(density).sum::<f64>() / (rows / 2) as f64;
                2.0 - density(i) / mean
            })
        };
        let row = |i: usize| {
            let negatives = (0..rows).filter(|&j| j != i && j != partner(i));
            let sum: f64 = negatives.map(|j| (product(i, j) / loss.temperature).exp()).sum();
            -weight(i) * product(i, partner(i)) / loss.temperature + sum.ln()
        };
        (0..rows).map(row).sum::<f64>() / rows as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            pairs in 2usize..9, dim in 2usize..12, seed: u64,
            temperature in prop_oneof![Just(0.07), Just(0.1), Just(0.5), Just(1.0)],
            sigma in prop_oneof![Just(None), Just(Some(0.1)), Just(Some(0.5)), Just(Some(2.0))],
        ) {
            let (loss, x) = (Dcl { temperature, sigma }, unit_rows(2 * pairs, dim, seed));
            let want = plain(loss, &x, dim);
            let (value, gradient) = gradient_of(&matrix_f64(&x, dim), |x| loss.loss(x)).unwrap();
            // The loss is a difference of terms of the order of 1/τ.
            let scale = 1.0 / temperature;
            prop_assert!((value - want).abs() <= 1e-11 * scale, "{} {}", value, want);
            let differences = central_differences(&x, 1e-5, |x| plain(loss, x, dim));
            assert_close(&gradient, &differences, 1e-6, 1e-6);
            let (single, in_single) = gradient_of(&matrix_f32(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((single - want).abs() <= 2e-6 * scale, "{} {}", single, want);
            assert_close(&in_single, &gradient, 1e-4, 1e-5);
        }
    }

    #[test]
    fn two_pairs_have_a_closed_form() {
        // Both views of image 1 are e1, both views of image 2 are e2. So each row scores 1/τ with its
        // positive and 0 with the two negatives, and the loss is log 2 − 1/τ. The gradient with respect to a
        // row's scores is −1/4 for the positive and 1/8 for each negative. A row's gradient adds what it gets
        // as query and as key, divided by τ: (−1/2, 1/2)/τ along (own, other axis). Both pairs are equally
        // close, so DCLW gives them the same weight, and its weights have no gradient.
        let x = matrix_f64(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 2);
        for sigma in [None, Some(0.5)] {
            let loss = Dcl { temperature: 0.5, sigma };
            let (value, gradient) = gradient_of(&x, |x| loss.loss(x)).unwrap();
            assert!((value - (2.0_f64.ln() - 2.0)).abs() < 1e-14, "{value}");
            assert_close(&gradient, &[-1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0], 1e-13, 0.0);
        }
    }

    #[test]
    fn the_weights_of_two_pairs_have_a_closed_form() {
        // Both views of image 1 are e1; the views of image 2 are e2 and −e2. So p = (1, −1), and all
        // negatives score 0. With t = tanh(1/σ) the softmax of p/σ is ((1 + t)/2, (1 − t)/2), the weights are
        // (1 − t, 1 + t), and the loss is log 2 + t/τ. The derivative of the weighted sum with respect to p_1
        // is (1 − t)/2 − (1 + t)/2 · (1 − t)/σ; that with respect to p_2 is (1 + t)/2 + (1 − t)/2 · (1 +
        // t)/σ. From its positive, each view of an image gets this derivative times the other view, divided
        // by −τ. From its negatives, a row gets 1/8 of each as query and 1/8 of each as key, divided by τ,
        // which is 1/4τ times their sum: zero for the rows of image 1, and e1/2τ for those of image 2.
        let (temperature, sigma) = (0.5, 0.8);
        let loss = Dcl { temperature, sigma: Some(sigma) };
        let x = matrix_f64(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, -1.0], 2);
        let (value, gradient) = gradient_of(&x, |x| loss.loss(x)).unwrap();
        let t = (1.0_f64 / sigma).tanh();
        assert!((value - (2.0_f64.ln() + t / temperature)).abs() < 1e-14, "{value}");
        let one = 0.5 * (1.0 - t) - 0.5 * (1.0 + t) * (1.0 - t) / sigma;
        let two = 0.5 * (1.0 + t) + 0.5 * (1.0 - t) * (1.0 + t) / sigma;
        let want = [-one, 0.0, 0.5, two, -one, 0.0, 0.5, -two].map(|g| g / temperature);
        assert_close(&gradient, &want, 1e-13, 0.0);
    }

    /// Section 3: DCL is the limit of DCLW for large σ.
    #[test]
    fn a_large_sigma_weighs_all_pairs_alike() {
        let x = matrix_f64(&unit_rows(10, 6, 3), 6);
        let of = |sigma| gradient_of(&x, |x| Dcl { temperature: 0.5, sigma }.loss(x)).unwrap();
        let ((decoupled, gradient), (weighted, in_weighted)) = (of(None), of(Some(1e9)));
        assert!((decoupled - weighted).abs() < 1e-8, "{decoupled} {weighted}");
        assert_close(&in_weighted, &gradient, 1e-8, 0.0);
    }

    #[test]
    fn identical_and_opposite_rows_are_safe_at_one_hundredth() {
        for sigma in [None, Some(0.01)] {
            let loss = Dcl { temperature: 0.01, sigma };
            for signs in [[1.0; 6], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]] {
                let rows: Vec<f64> = signs.iter().flat_map(|&s| [s, 0.0]).collect();
                let want = gradient_of(&matrix_f64(&rows, 2), |x| loss.loss(x)).unwrap();
                let (single, in_single) = gradient_of(&matrix_f32(&rows, 2), |x| loss.loss(x)).unwrap();
                let (double, in_double) = want;
                assert!(
                    single.is_finite() && (single - double).abs() <= 1e-5 * double.abs(),
                    "{single} {double}"
                );
                // Terms of up to 1/τ cancel, and their rounding errors are left.
                assert_close(&in_single, &in_double, 1e-5, 1e-4);
            }
        }
        // Each row has four negatives as near as its positive: log 4.
        let same = matrix_f32(&[1.0, 0.0].repeat(6), 2);
        let (value, _) = gradient_of(&same, |x| Dcl { temperature: 0.01, sigma: None }.loss(x)).unwrap();
        assert!((value - 4.0_f64.ln()).abs() < 1e-5, "{value}");
    }

    #[test]
    fn threads_change_no_bit() {
        let x = matrix_f32(&unit_rows(64, 32, 0), 32);
        for sigma in [None, Some(0.5)] {
            let loss = Dcl { sigma, ..Dcl::default() };
            let [one, three] = in_pools(|| bits(gradient_of(&x, |x| loss.loss(x)).unwrap()));
            assert_eq!(one, three);
        }
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: Dcl, x: &Tensor, what: &str| {
            let error = loss.loss(x).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let loss = Dcl::default();
        says(loss, &zeros(&[3, 4], DType::F32), "3 rows");
        says(loss, &zeros(&[0, 4], DType::F32), "[0, 4]");
        says(loss, &zeros(&[2, 4], DType::F32), "at least two images");
        says(loss, &zeros(&[4, 4], DType::U8), "U8");
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            says(Dcl { temperature: bad, ..loss }, &zeros(&[4, 4], DType::F32), "temperature");
            says(Dcl { sigma: Some(bad), ..loss }, &zeros(&[4, 4], DType::F32), "sigma");
        }
    }
}
