//! VICReg: the two views' features agree, every column keeps its variance, and columns are not correlated.
//!
//! ```text
//! z, z' in R^{B x D}: the features of view 1 and of view 2, not normalized;  λ, μ, ν weights;  ε = 1e-4
//! s = (1/BD) Σ_bj (z_bj − z'_bj)²
//! v(z) = (1/D) Σ_j max(0, 1 − √(var_b z_bj + ε))                        (var divides by B − 1)
//! c(z) = (1/D) Σ_{i≠j} Cov(z)_ij²,   Cov(z) = (1/(B − 1)) Σ_b (z_b − z̄)(z_b − z̄)ᵀ
//! loss = λ s + (μ/2) [v(z) + v(z')] + ν [c(z) + c(z')]
//! ```
//!
//! Source: Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
//! Learning", ICLR 2022, section 4.1, equations 1 to 6, in the form of the authors' code
//! (facebookresearch/vicreg, `main_vicreg.py`), with which the paper's weights 25, 25 and 1 go. Where that
//! code differs from the equations, this is the code: equation 5 has no 1/D in s, and equation 6 no 1/2
//! before the variances.
//!
//! With x = z − z̄ the gradient with respect to z is `2λ (z − z') / BD − μ x_bj / (2D (B − 1) √(var_j + ε))`,
//! the latter where the variance counts, `+ 4ν (x Cov_off)_bj / (D (B − 1))`, where `Cov_off` is Cov without
//! its diagonal. The last two have mean 0 over the batch, so the mean adds nothing.
//!
//! No further deviation. A batch of one image is an error: it has no variance. There is no CUDA kernel: for
//! features on a GPU the loss is computed on the host.

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::two_views;
use crate::columns::{halves, means, off_diagonal_squares, sums};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};

/// What is added to a variance.
const EPSILON: f64 = 1e-4;

/// The objective and its weights, each at least 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::Vicreg;
///
/// // Two columns without correlation, of variance 4/3, and both views agree.
/// let view = Tensor::new(&[[1f64, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], &Device::Cpu)?;
/// let loss = Vicreg::default().loss(&Tensor::cat(&[&view, &view], 0)?)?.to_scalar::<f64>()?;
/// assert_eq!(loss, 0.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vicreg {
    /// λ.
    pub invariance: f64,
    /// μ.
    pub variance: f64,
    /// ν.
    pub covariance: f64,
}

impl Default for Vicreg {
    fn default() -> Self {
        Self { invariance: 25.0, variance: 25.0, covariance: 1.0 }
    }
}

impl Vicreg {
    /// Returns the loss of `features` (2B x D, row i and row i + B two views of one image, at least two
    /// images): a scalar.
    ///
    /// # Errors
    /// If `features` is not such a matrix in F32 or F64 (F32 on CUDA), or a weight is out of range.
    pub fn loss(&self, features: &Tensor) -> Result<Tensor> {
        let name = Self::NAME;
        let (rows, _) = two_views(name, features)?;
        if rows < 4 {
            bail!("{name}: features are two views of one image; at least two images are needed")
        }
        let weights = [self.invariance, self.variance, self.covariance];
        for (weight, what) in weights.into_iter().zip(["invariance", "variance", "covariance"]) {
            if !(weight >= 0.0 && weight.is_finite()) {
                bail!("{name}: {what} must be a number of at least 0, it is {weight}")
            }
        }
        apply(self, [features])
    }

    /// Returns the terms of one view, and adds their gradient.
    fn regularize<T: Float>(&self, z: Matrix<'_, T>, gradient: &mut [T]) -> f64 {
        let Matrix { rows, columns, values } = z;
        let (dim, freedom) = (columns as f64, (rows - 1) as f64);
        let means = means(z);
        let mut centered = values.to_vec();
        for row in centered.chunks_exact_mut(columns) {
            for (value, mean) in row.iter_mut().zip(&means) {
                *value = T::from_f64(value.to_f64() - mean);
            }
        }
        let squares = sums(columns, values, |column, value| (value - means[column]).powi(2));
        let deviations: Vec<f64> = squares.iter().map(|sum| (sum / freedom + EPSILON).sqrt()).collect();
        // A NaN is not below 1, but must not count as a large deviation.
        let hinge = |s: &f64| if *s >= 1.0 { 0.0 } else { 1.0 - s };
        let variance = deviations.iter().map(hinge).sum::<f64>() / dim;

        let mut covariance = vec![T::ZERO; columns * columns];
        gemm::tn(columns, columns, rows, &centered, &centered, &mut covariance);
        let squared = off_diagonal_squares(&covariance, columns) / (freedom * freedom);
        for (i, row) in covariance.chunks_exact_mut(columns).enumerate() {
            row[i] = T::ZERO;
        }
        let mut pulled = vec![T::ZERO; rows * columns];
        gemm::nn(rows, columns, columns, &centered, &covariance, &mut pulled);
        let of_covariance = 4.0 * self.covariance / (dim * freedom * freedom);
        let of_variance: Vec<f64> = deviations
            .iter()
            .map(|s| if *s >= 1.0 { 0.0 } else { -self.variance / (2.0 * dim * freedom * s) })
            .collect();
        let rows = centered.chunks_exact(columns).zip(pulled.chunks_exact(columns));
        for (g, (x, p)) in gradient.chunks_exact_mut(columns).zip(rows) {
            for (((g, x), p), of_variance) in g.iter_mut().zip(x).zip(p).zip(&of_variance) {
                *g += T::from_f64(of_variance * x.to_f64() + of_covariance * p.to_f64());
            }
        }
        self.variance / 2.0 * variance + self.covariance * squared / dim
    }
}

impl Objective<1> for Vicreg {
    const NAME: &'static str = "vicreg";

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let [one, two] = halves(features);
        let count = one.values.len() as f64;
        let mut gradient = vec![T::ZERO; features.values.len()];
        let (to_one, to_two) = gradient.split_at_mut(one.values.len());
        let mut distance = 0.0;
        let pairs = one.values.iter().zip(two.values).zip(to_one.iter_mut().zip(to_two.iter_mut()));
        for ((a, b), (to_a, to_b)) in pairs {
            let apart = a.to_f64() - b.to_f64();
            distance += apart * apart;
            let slope = T::from_f64(2.0 * self.invariance * apart / count);
            (*to_a, *to_b) = (slope, -slope);
        }
        let mut value = self.invariance * distance / count;
        value += self.regularize(one, to_one);
        value += self.regularize(two, to_two);
        Ok((value, [gradient]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<1, Vicreg>("VICReg", [Input::Views], |x, _| Vicreg::default().loss(&x[0]))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{EPSILON, Vicreg};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as the equations read, column by column.
    fn plain(loss: Vicreg, x: &[f64], dim: usize) -> f64 {
        let images = x.len() / dim / 2;
        let (one, two) = x.split_at(images * dim);
        let distance: f64 = one.iter().zip(two).map(|(a, b)| (a - b).powi(2)).sum();
        let mut total = loss.invariance * distance / (images * dim) as f64;
        for view in [one, two] {
            let column = |j: usize| view.iter().skip(j).step_by(dim).copied().collect::<Vec<f64>>();
            let covariance = |i: usize, j: usize| {
                let (a, b) = (column(i), column(j));
                let mean = |c: &[f64]| c.iter().sum::<f64>() / images as f64;
                let (of_a, of_b) = (mean(&a), mean(&b));
                a.iter().zip(&b).map(|(a, b)| (a - of_a) * (b - of_b)).sum::<f64>() / (images - 1) as f64
            };
            for i in 0..dim {
                let deviation = (covariance(i, i) + EPSILON).sqrt();
                total += loss.variance / 2.0 * (1.0 - deviation).max(0.0) / dim as f64;
                for j in (0..dim).filter(|&j| j != i) {
                    total += loss.covariance * covariance(i, j).powi(2) / dim as f64;
                }
            }
        }
        total
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            images in 2usize..9, dim in 1usize..8, seed: u64, spread in prop_oneof![Just(0.1), Just(0.7), Just(3.0)],
            invariance in prop_oneof![Just(0.0), Just(25.0)],
            variance in prop_oneof![Just(0.0), Just(25.0)],
            covariance in prop_oneof![Just(0.0), Just(1.0)],
        ) {
            let loss = Vicreg { invariance, variance, covariance };
            let x: Vec<f64> = random_rows(2 * images, dim, seed).iter().map(|v| spread * v).collect();
            let want = plain(loss, &x, dim);
            let (value, gradient) = gradient_of(&matrix_f64(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((value - want).abs() <= 1e-12 * (1.0 + want), "{} {}", value, want);
            let differences = central_differences(&x, 1e-6, |x| plain(loss, x, dim));
            assert_close(&gradient, &differences, 1e-5, 1e-5);
            let (single, in_single) = gradient_of(&matrix_f32(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((single - want).abs() <= 1e-5 * (1.0 + want), "{} {}", single, want);
            assert_close(&in_single, &gradient, 1e-4, 1e-4);
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // View 1 has the rows (a, a) and (−a, −a), with variance and covariance 2a²; view 2 is zero. So s =
        // a², v(z) = 1 − √(2a² + ε), v(z') = 1 − √ε, and c(z) = (1/2) · 2 · 4a⁴.
        let a = 0.25;
        let x = matrix_f64(&[a, a, -a, -a, 0.0, 0.0, 0.0, 0.0], 2);
        let loss = Vicreg { invariance: 3.0, variance: 5.0, covariance: 7.0 };
        let (value, gradient) = gradient_of(&x, |x| loss.loss(x)).unwrap();
        let deviation = (2.0 * a * a + EPSILON).sqrt();
        let want = 3.0 * a * a + 2.5 * (1.0 - deviation + 1.0 - EPSILON.sqrt()) + 7.0 * 4.0 * a.powi(4);
        assert!((value - want).abs() < 1e-13, "{value} {want}");
        // Of each number in row 1: 2·3·a/4 from s, −5a/(2·2·σ) from the variance, and 4·7/2 · a · 2a² from
        // the covariance. View 2 only gets the pull of s.
        let first = 6.0 * a / 4.0 - 5.0 * a / (4.0 * deviation) + 14.0 * a * 2.0 * a * a;
        let pull = 6.0 * a / 4.0;
        let signs = [1.0, 1.0, -1.0, -1.0];
        let want: Vec<f64> = signs.iter().map(|s| s * first).chain(signs.iter().map(|s| -s * pull)).collect();
        assert_close(&gradient, &want, 1e-13, 0.0);
    }

    #[test]
    fn constant_columns_are_finite_and_pull_nowhere() {
        for value in [0.0, 1e3] {
            let x = matrix_f32(&[value; 12], 2);
            let (found, gradient) = gradient_of(&x, |x| Vicreg::default().loss(x)).unwrap();
            // Both views have v = 1 − 0.01.
            assert!((found - 25.0 * 0.99).abs() < 1e-4, "{found}");
            assert!(gradient.iter().all(|&g| g == 0.0), "{gradient:?}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let x = matrix_f32(&random_rows(128, 48, 0), 48);
        let [one, three] = in_pools(|| bits(gradient_of(&x, |x| Vicreg::default().loss(x)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: Vicreg, x: &Tensor, what: &str| {
            let error = loss.loss(x).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let loss = Vicreg::default();
        says(loss, &zeros(&[3, 4], DType::F32), "3 rows");
        says(loss, &zeros(&[2, 4], DType::F32), "at least two images");
        says(loss, &zeros(&[4, 4], DType::U8), "U8");
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let x = zeros(&[4, 4], DType::F32);
            says(Vicreg { invariance: bad, ..loss }, &x, "invariance");
            says(Vicreg { variance: bad, ..loss }, &x, "variance");
            says(Vicreg { covariance: bad, ..loss }, &x, "covariance");
        }
    }
}
