//! The cross-entropy of each view's predictions with the targets of the other views: the common part of SwAV
//! and DINO.
//!
//! ```text
//! x in R^{VB x D} rows, view 1 of all B images, then view 2, ...;  W in R^{K x D};  τ temperature
//! t in R^{AB x K}: targets of views 1 to A, constants, of which each row adds up to 1
//! p_v,b = softmax(x_v,b Wᵀ / τ)               (w_k / ‖w_k‖ in place of w_k with `unit_weight`)
//! loss = 1/(A (V − 1)) Σ_{a ≤ A} Σ_{v ≠ a} −(1/B) Σ_b Σ_k t_a,b,k log p_v,b,k
//! ```
//!
//! For row (v, b) let T be the sum of the targets of the other views and n their number. Its part of the loss
//! is `n log Σ_k exp(z_k) − Σ_k T_k z_k`, with gradient `n p − T` with respect to the scores z.

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use rayon::prelude::*;

use crate::check::{check_temperature, matrix};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::softmax::{maximum, shifted_exp};
use crate::unit_weight::{inverse_lengths, remove_along};

/// The objective for a batch.
pub(crate) struct Swapped {
    /// The loss that errors name.
    pub(crate) name: &'static str,
    /// B.
    pub(crate) images: usize,
    /// τ.
    pub(crate) temperature: f64,
    /// Whether the rows of the weight are scaled to length 1.
    pub(crate) unit_weight: bool,
}

impl Swapped {
    /// Returns the loss of `rows`, `weight` and `targets`.
    ///
    /// # Errors
    /// If shapes or types do not fit one another, there are fewer than two views, or the temperature is not
    /// positive.
    pub(crate) fn loss(&self, rows: &Tensor, weight: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let Self { name, images, .. } = *self;
        let (count, dim) = matrix(name, "rows", rows)?;
        let (prototypes, weight_dim) = matrix(name, "weight", weight)?;
        let (target_rows, columns) = matrix(name, "targets", targets)?;
        if weight_dim != dim || columns != prototypes {
            bail!(
                "{name}: rows of {dim} numbers, a weight of {prototypes} x {weight_dim} and targets of {columns} numbers do not fit"
            )
        }
        if images == 0 || count % images != 0 || count < 2 * images {
            bail!("{name}: {count} rows for {images} images; give at least two views of each image")
        }
        if target_rows % images != 0 || target_rows > count {
            bail!(
                "{name}: targets of {target_rows} rows for {images} images; give those of some of the views"
            )
        }
        check_temperature(name, self.temperature)?;
        apply(self, [rows, weight, targets])
    }
}

impl Objective<3> for Swapped {
    const NAME: &'static str = "swapped prediction";
    const CONSTANT: [bool; 3] = [false, false, true];

    fn evaluate<T: Float>(&self, [rows, weight, targets]: [Matrix<'_, T>; 3]) -> Result<(f64, [Vec<T>; 3])> {
        let (count, dim, prototypes) = (rows.rows, rows.columns, weight.rows);
        let (views, with_targets) = (count / self.images, targets.rows / self.images);
        let mut scores = vec![T::ZERO; count * prototypes];
        gemm::nt(count, prototypes, dim, rows.values, weight.values, &mut scores);
        let inverse = T::from_f64(1.0 / self.temperature);
        let lengths =
            if self.unit_weight { inverse_lengths(weight.values, dim) } else { vec![T::ONE; prototypes] };
        let share = 1.0 / (with_targets * (views - 1) * self.images) as f64;
        let losses: Vec<f64> = scores
            .par_chunks_mut(prototypes)
            .enumerate()
            .map(|(row, scores)| {
                let (view, image) = (row / self.images, row % self.images);
                let others = (0..with_targets).filter(|&other| other != view);
                let number = others.clone().count() as f64;
                for (z, length) in scores.iter_mut().zip(&lengths) {
                    *z *= inverse * *length;
                }
                let mut wanted = vec![0.0; prototypes];
                for other in others {
                    for (sum, t) in wanted.iter_mut().zip(targets.row(other * self.images + image)) {
                        *sum += t.to_f64();
                    }
                }
                let attraction: f64 = wanted.iter().zip(scores.iter()).map(|(t, z)| t * z.to_f64()).sum();
                let top = maximum(scores);
                let sum = shifted_exp(scores, top, None);
                for ((z, t), length) in scores.iter_mut().zip(&wanted).zip(&lengths) {
                    let slope = T::from_f64((number * z.to_f64() / sum - t) * share);
                    *z = slope * inverse * *length;
                }
                number * (top.to_f64() + sum.ln()) - attraction
            })
            .collect();
        let mut to_rows = vec![T::ZERO; count * dim];
        gemm::nn(count, dim, prototypes, &scores, weight.values, &mut to_rows);
        let mut to_weight = vec![T::ZERO; prototypes * dim];
        gemm::tn(prototypes, dim, count, &scores, rows.values, &mut to_weight);
        if self.unit_weight {
            remove_along(&mut to_weight, weight.values, &lengths);
        }
        Ok((losses.iter().sum::<f64>() * share, [to_rows, to_weight, Vec::new()]))
    }
}

/// Returns the loss as the equations read, for the tests of the losses that use it.
#[cfg(test)]
pub(crate) fn plain(loss: &Swapped, x: &[f64], w: &[f64], t: &[f64], dim: usize) -> f64 {
    let (prototypes, images) = (w.len() / dim, loss.images);
    let (views, with_targets) = (x.len() / dim / images, t.len() / prototypes / images);
    let score = |row: usize, k: usize| {
        let w = &w[k * dim..(k + 1) * dim];
        let length = if loss.unit_weight { w.iter().map(|v| v * v).sum::<f64>().sqrt() } else { 1.0 };
        let product: f64 = w.iter().zip(&x[row * dim..]).map(|(w, x)| w * x).sum();
        product / length / loss.temperature
    };
    let mut total = 0.0;
    for a in 0..with_targets {
        for v in (0..views).filter(|&v| v != a) {
            for b in 0..images {
                let row = v * images + b;
                let sum: f64 = (0..prototypes).map(|k| score(row, k).exp()).sum();
                let log = |k: usize| score(row, k) - sum.ln();
                let term: f64 = (0..prototypes).map(|k| t[(a * images + b) * prototypes + k] * log(k)).sum();
                total -= term / images as f64;
            }
        }
    }
    total / (with_targets * (views - 1)) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Swapped, plain};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_rows,
        unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    /// Returns rows of positive numbers that add up to 1.
    fn targets(rows: usize, columns: usize, seed: u64) -> Vec<f64> {
        let mut t: Vec<f64> = random_rows(rows, columns, seed).iter().map(|v| v.exp()).collect();
        for row in t.chunks_mut(columns) {
            let sum: f64 = row.iter().sum();
            for v in row {
                *v /= sum;
            }
        }
        t
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            images in 1usize..5, views in 2usize..5, targeted in 1usize..3, dim in 1usize..6,
            prototypes in 1usize..7, seed: u64, unit_weight: bool,
            temperature in prop_oneof![Just(0.1), Just(0.5)],
        ) {
            let loss = Swapped { name: "test", images, temperature, unit_weight };
            let (x, w) = (unit_rows(views * images, dim, seed), random_rows(prototypes, dim, seed ^ 1));
            let t = targets(targeted * images, prototypes, seed ^ 2);
            let want = plain(&loss, &x, &w, &t, dim);
            let (x64, w64, t64) = (matrix_f64(&x, dim), matrix_f64(&w, dim), matrix_f64(&t, prototypes));
            let (value, to_rows) = gradient_of(&x64, |x| loss.loss(x, &w64, &t64)).unwrap();
            let (_, to_weight) = gradient_of(&w64, |w| loss.loss(&x64, w, &t64)).unwrap();
            prop_assert!((value - want).abs() <= 1e-11 * (1.0 + want), "{} {}", value, want);
            let of_rows = central_differences(&x, 1e-5, |x| plain(&loss, x, &w, &t, dim));
            assert_close(&to_rows, &of_rows, 1e-5, 1e-6);
            let of_weight = central_differences(&w, 1e-6, |w| plain(&loss, &x, w, &t, dim));
            assert_close(&to_weight, &of_weight, 1e-4, 1e-5);
            let narrow = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
            let (w32, t32) = (narrow(&w64), narrow(&t64));
            let (single, in_single) = gradient_of(&narrow(&x64), |x| loss.loss(x, &w32, &t32)).unwrap();
            prop_assert!((single - want).abs() <= 1e-4 * (1.0 + want.abs()), "{} {}", single, want);
            assert_close(&in_single, &to_rows, 1e-3, 1e-4);
        }
    }

    #[test]
    fn two_views_of_one_image_have_a_closed_form() {
        // Each view is at its own prototype, and the target of view 1 is prototype 1, that of view 2
        // prototype 2. View 1 must predict prototype 2, and view 2 prototype 1, each of which has score 0
        // beside 1/τ: log(1 + e^{1/τ}). With p the probability of the own prototype, the gradient with
        // respect to the scores is p/2 there and −p/2 at the other, and is divided by τ.
        let axes = matrix_f64(&[1.0, 0.0, 0.0, 1.0], 2);
        let loss = Swapped { name: "test", images: 1, temperature: 0.5, unit_weight: false };
        let (value, gradient) = gradient_of(&axes, |x| loss.loss(x, &axes, &axes)).unwrap();
        let p = 1.0 / (1.0 + (-2.0f64).exp());
        assert!((value - (1.0 + 2.0f64.exp()).ln()).abs() < 1e-13, "{value}");
        assert_close(&gradient, &[p, -p, -p, p], 1e-13, 0.0);
    }

    #[test]
    fn a_target_that_is_predicted_costs_its_entropy() {
        // All views and prototypes are alike, so each prediction is uniform: log K, the entropy of the
        // target.
        let x = matrix_f32(&[1.0, 0.0].repeat(6), 2);
        let w = matrix_f32(&[1.0, 0.0].repeat(4), 2);
        let t = matrix_f32(&[0.25; 16], 4);
        let loss = Swapped { name: "test", images: 2, temperature: 0.01, unit_weight: true };
        let (value, gradient) = gradient_of(&x, |x| loss.loss(x, &w, &t)).unwrap();
        assert!((value - 4.0f64.ln()).abs() < 1e-4, "{value}");
        assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{gradient:?}");
    }

    #[test]
    fn threads_change_no_bit() {
        let (x, w) = (matrix_f32(&unit_rows(96, 16, 0), 16), matrix_f32(&random_rows(40, 16, 1), 16));
        let t = matrix_f32(&targets(64, 40, 2), 40);
        let loss = Swapped { name: "test", images: 32, temperature: 0.1, unit_weight: true };
        let [one, three] = in_pools(|| {
            let mut all = bits(gradient_of(&x, |x| loss.loss(x, &w, &t)).unwrap());
            all.extend(bits(gradient_of(&w, |w| loss.loss(&x, w, &t)).unwrap()));
            all
        });
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: [usize; 2]| Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap();
        let says = |images: usize, shapes: [[usize; 2]; 3], what: &str| {
            let [x, w, t] = shapes.map(zeros);
            let loss = Swapped { name: "test", images, temperature: 0.1, unit_weight: false };
            let error = loss.loss(&x, &w, &t).unwrap_err().to_string();
            assert!(error.contains(what) && error.starts_with("test"), "{error}");
        };
        says(2, [[4, 3], [5, 2], [4, 5]], "rows of 3 numbers");
        says(2, [[4, 3], [5, 3], [4, 6]], "targets of 6 numbers");
        says(3, [[4, 3], [5, 3], [3, 5]], "4 rows for 3 images");
        says(4, [[4, 3], [5, 3], [4, 5]], "at least two views");
        says(2, [[4, 3], [5, 3], [3, 5]], "targets of 3 rows");
    }
}
