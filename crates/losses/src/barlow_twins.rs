//! Barlow Twins: the cross-correlation of the two views' features is to be the identity.
//!
//! ```text
//! z, z' in R^{B x D}: the features of view 1 and of view 2, not normalized; λ weight; ε = 1e-5
//! ẑ_bi = (z_bi − mean_b z_bi) / √(var_b z_bi + ε)                (var divides by B), ẑ' likewise
//! C_ij = (1/B) Σ_b ẑ_bi ẑ'_bj
//! loss = s [ Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij² ]
//! ```
//!
//! Source: Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy
//! Reduction", ICML 2021, equations 1 and 2. As in the authors' code (facebookresearch/barlowtwins,
//! `main.py`), a batch norm without gain and shift standardizes the columns, which adds ε; equation 2 has no
//! ε. The factor s is 1 in the paper. The loss is a sum over D² numbers, so that an optimizer whose steps
//! depend on its size may need a smaller one: solo-learn's recipe for CIFAR-10 has s = 0.1.
//!
//! With G = ∂loss/∂C, that is −2s (1 − C_ii) on the diagonal and 2sλ C_ij beside it, the gradient with
//! respect to ẑ is `g = ẑ' Gᵀ / B` (to ẑ', `ẑ G / B`), and with respect to z `(g − mean_b g − ẑ mean_b (g ẑ))
//! / √(var + ε)`.
//!
//! No further deviation. A batch of one image is an error: it has no correlation. A column that is constant
//! over the images has ẑ = 0, adds s to the loss and gets no gradient. There is no CUDA kernel: for features
//! on a GPU the loss is computed on the host.

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::two_views;
use crate::columns::{halves, means, off_diagonal_squares, sums};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};

/// What is added to a variance: the default of PyTorch's batch norm.
const EPSILON: f64 = 1e-5;

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::BarlowTwins;
///
/// // Two columns that take all four pairs of signs are not correlated, and both views agree.
/// let view = Tensor::new(&[[1f64, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], &Device::Cpu)?;
/// let loss = BarlowTwins::default().loss(&Tensor::cat(&[&view, &view], 0)?)?.to_scalar::<f64>()?;
/// assert!(loss < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BarlowTwins {
    /// λ, at least 0.
    pub off_diagonal_weight: f64,
    /// s, above 0.
    pub scale: f64,
}

impl Default for BarlowTwins {
    fn default() -> Self {
        Self { off_diagonal_weight: 0.0051, scale: 1.0 }
    }
}

impl BarlowTwins {
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
        let Self { off_diagonal_weight, scale } = *self;
        if !(off_diagonal_weight >= 0.0 && off_diagonal_weight.is_finite()) {
            bail!("{name}: off_diagonal_weight must be a number of at least 0, it is {off_diagonal_weight}")
        }
        if !(scale > 0.0 && scale.is_finite()) {
            bail!("{name}: scale must be a positive number, it is {scale}")
        }
        apply(self, [features])
    }
}

impl Objective<1> for BarlowTwins {
    const NAME: &'static str = "barlow twins";

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let dim = features.columns;
        let [one, two] = halves(features).map(Standardized::new);
        let images = features.rows / 2;
        let mut correlation = vec![T::ZERO; dim * dim];
        gemm::tn(dim, dim, images, &one.values, &two.values, &mut correlation);
        let share = 1.0 / images as f64;
        for c in &mut correlation {
            *c *= T::from_f64(share);
        }
        let beside = off_diagonal_squares(&correlation, dim);
        let missing = |i: usize| 1.0 - correlation[i * dim + i].to_f64();
        let on = (0..dim).map(|i| missing(i) * missing(i)).sum::<f64>();
        let value = self.scale * (on + self.off_diagonal_weight * beside);
        let mut slopes = correlation;
        for (i, row) in slopes.chunks_exact_mut(dim).enumerate() {
            let on_diagonal = 1.0 - row[i].to_f64();
            let each = T::from_f64(2.0 * self.scale * self.off_diagonal_weight * share);
            for c in row.iter_mut() {
                *c *= each;
            }
            row[i] = T::from_f64(-2.0 * self.scale * on_diagonal * share);
        }
        let mut to_one = vec![T::ZERO; images * dim];
        gemm::nt(images, dim, dim, &two.values, &slopes, &mut to_one);
        let mut to_two = vec![T::ZERO; images * dim];
        gemm::nn(images, dim, dim, &one.values, &slopes, &mut to_two);
        one.through(&mut to_one);
        two.through(&mut to_two);
        to_one.extend(to_two);
        Ok((value, [to_one]))
    }
}

/// A matrix whose columns have mean 0 and variance 1, nearly.
struct Standardized<T> {
    values: Vec<T>,
    /// `1/√(var + ε)` of each column before.
    inverse_deviations: Vec<f64>,
}

impl<T: Float> Standardized<T> {
    fn new(x: Matrix<'_, T>) -> Self {
        let means = means(x);
        let squares = sums(x.columns, x.values, |column, value| (value - means[column]).powi(2));
        let inverse_deviations: Vec<f64> =
            squares.iter().map(|square| (square / x.rows as f64 + EPSILON).sqrt().recip()).collect();
        let mut values = x.values.to_vec();
        for row in values.chunks_exact_mut(x.columns) {
            for ((value, mean), inverse) in row.iter_mut().zip(&means).zip(&inverse_deviations) {
                *value = T::from_f64((value.to_f64() - mean) * inverse);
            }
        }
        Self { values, inverse_deviations }
    }

    /// Replaces the gradient with respect to the standardized values by that with respect to those before.
    fn through(&self, gradient: &mut [T]) {
        let columns = self.inverse_deviations.len();
        let rows = (gradient.len() / columns) as f64;
        let mut along = vec![0.0; columns];
        for (g, z) in gradient.chunks_exact(columns).zip(self.values.chunks_exact(columns)) {
            for ((sum, g), z) in along.iter_mut().zip(g).zip(z) {
                *sum += g.to_f64() * z.to_f64() / rows;
            }
        }
        let total = sums(columns, gradient, |_, g| g);
        for (g, z) in gradient.chunks_exact_mut(columns).zip(self.values.chunks_exact(columns)) {
            for (column, (g, z)) in g.iter_mut().zip(z).enumerate() {
                let left = g.to_f64() - total[column] / rows - z.to_f64() * along[column];
                *g = T::from_f64(left * self.inverse_deviations[column]);
            }
        }
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<1, BarlowTwins>("Barlow Twins", [Input::Views], |x, _| {
        BarlowTwins::default().loss(&x[0])
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{BarlowTwins, EPSILON};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns the loss as the equations read, column by column.
    fn plain(loss: BarlowTwins, x: &[f64], dim: usize) -> f64 {
        let images = x.len() / dim / 2;
        let column = |view: usize, i: usize| -> Vec<f64> {
            let raw: Vec<f64> = (0..images).map(|b| x[(view * images + b) * dim + i]).collect();
            let mean = raw.iter().sum::<f64>() / images as f64;
            let variance = raw.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / images as f64;
            raw.iter().map(|v| (v - mean) / (variance + EPSILON).sqrt()).collect()
        };
        let mut total = 0.0;
        for i in 0..dim {
            for j in 0..dim {
                let pairs = column(0, i).into_iter().zip(column(1, j));
                let c = pairs.map(|(a, b)| a * b).sum::<f64>() / images as f64;
                total += if i == j { (1.0 - c).powi(2) } else { loss.off_diagonal_weight * c * c };
            }
        }
        loss.scale * total
    }

    /// Returns two views that agree more or less.
    fn views(images: usize, dim: usize, seed: u64) -> Vec<f64> {
        let (mut x, noise) = (random_rows(images, dim, seed), random_rows(images, dim, seed ^ 1));
        let second: Vec<f64> = x.iter().zip(noise).map(|(x, n)| x + 0.5 * n).collect();
        x.extend(second);
        x
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            images in 2usize..9, dim in 1usize..8, seed: u64,
            off_diagonal_weight in prop_oneof![Just(0.0), Just(0.0051), Just(0.5)],
            scale in prop_oneof![Just(0.1), Just(1.0)],
        ) {
            let loss = BarlowTwins { off_diagonal_weight, scale };
            let x = views(images, dim, seed);
            let want = plain(loss, &x, dim);
            let (value, gradient) = gradient_of(&matrix_f64(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((value - want).abs() <= 1e-12 * (1.0 + want), "{} {}", value, want);
            let differences = central_differences(&x, 1e-5, |x| plain(loss, x, dim));
            assert_close(&gradient, &differences, 1e-5, 1e-6);
            let (single, in_single) = gradient_of(&matrix_f32(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((single - want).abs() <= 1e-5 * (1.0 + want), "{} {}", single, want);
            // Of two images, every column is ±1 whatever its values are, and no gradient is left.
            assert_close(&in_single, &gradient, 1e-3, 1e-4);
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // Each column is (a, −a), so ẑ is (c, −c) with c² = a²/(a² + ε). The second view's second column has
        // the other sign: C = c² [[1, −1], [1, −1]], and the loss is (1 − c²)² + (1 + c²)² + 2λ c⁴.
        let x = matrix_f64(&[1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0, 1.0], 2);
        let loss = BarlowTwins { off_diagonal_weight: 0.25, scale: 1.0 };
        let (value, gradient) = gradient_of(&x, |x| loss.loss(x)).unwrap();
        let c = 1.0 / (1.0 + EPSILON);
        let want = (1.0 - c).powi(2) + (1.0 + c).powi(2) + 2.0 * 0.25 * c * c;
        assert!((value - want).abs() < 1e-13, "{value} {want}");
        // The derivative of c = a/√(a² + ε) is ε/(a² + ε)^{3/2}: nearly nothing.
        assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{gradient:?}");
    }

    #[test]
    fn a_constant_column_costs_its_scale_and_gets_no_gradient() {
        for value in [0.0, 1e4, -3.0] {
            let x: Vec<f64> = (0..8).flat_map(|i| [value, f64::from((i * i) % 5)]).collect();
            let loss = BarlowTwins { off_diagonal_weight: 0.5, scale: 2.0 };
            let (full, gradient) = gradient_of(&matrix_f32(&x, 2), |x| loss.loss(x)).unwrap();
            let other: Vec<f64> = x.iter().skip(1).step_by(2).copied().collect();
            let (alone, _) = gradient_of(&matrix_f32(&other, 1), |x| loss.loss(x)).unwrap();
            assert!((full - alone - 2.0).abs() < 1e-5, "{full} {alone}");
            assert!(gradient.iter().step_by(2).all(|&g| g == 0.0), "{gradient:?}");
        }
    }

    #[test]
    fn a_large_offset_keeps_its_digits() {
        let x = views(16, 4, 7);
        let far: Vec<f64> = x.iter().map(|v| v + 64.0).collect();
        let of = |x: &[f64]| gradient_of(&matrix_f32(x, 4), |x| BarlowTwins::default().loss(x)).unwrap();
        let ((near, to_near), (far, to_far)) = (of(&x), of(&far));
        assert!((near - far).abs() < 1e-4 * near, "{near} {far}");
        assert_close(&to_far, &to_near, 1e-3, 1e-6);
    }

    #[test]
    fn threads_change_no_bit() {
        let x = matrix_f32(&views(64, 48, 0), 48);
        let [one, three] = in_pools(|| bits(gradient_of(&x, |x| BarlowTwins::default().loss(x)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: BarlowTwins, x: &Tensor, what: &str| {
            let error = loss.loss(x).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let loss = BarlowTwins::default();
        says(loss, &zeros(&[3, 4], DType::F32), "3 rows");
        says(loss, &zeros(&[2, 4], DType::F32), "at least two images");
        says(loss, &zeros(&[4, 4], DType::U8), "U8");
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let x = zeros(&[4, 4], DType::F32);
            says(BarlowTwins { off_diagonal_weight: bad, ..loss }, &x, "off_diagonal_weight");
            says(BarlowTwins { scale: bad, ..loss }, &x, "scale");
        }
    }
}
