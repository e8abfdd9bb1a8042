//! `InvaSpread`: augmentation-invariant and instance-spreading softmax over one batch (the paper's own
//! objective).
//!
//! ```text
//! x in R^{2B x D}, unit rows, view 1 of all images above view 2;  i⁺ = (i + B) mod 2B
//! τ temperature;  m negative weight
//! s_ij = x_i · sg(x_j) / τ                                      (sg = no gradient, the "detached key side")
//! D_i  = exp(s_{i,i⁺}) + m Σ_{j∉{i,i⁺}} exp(s_ij)
//! p_ij = exp(s_ij) / D_i
//! loss = −(1/2B) Σ_i [ log p_{i,i⁺} + m Σ_{j∉{i,i⁺}} log(1 − p_ij) ]
//! ```
//!
//! Paper: section 3.3, equations 3 to 7. This is what the authors' released code computes, and it differs
//! from the equations: all 2B rows are anchors; a row's denominator does not contain the row itself; both
//! views of every other image are negatives; the sum is averaged over 2B; and no gradient flows through the
//! key side (`grad x_i = Σ_k g_ik x_k / τ`, about half the true gradient). [`KeySide::BothSides`] gives the
//! true gradient of the same value.
//!
//! Half of the negatives (table 8, "hard" and "easy"; the code's first release with `--batch-m 0.5`): of a
//! row's 2B − 2 negatives only the k = B most (least) similar are kept, in the denominator and in the sum;
//! the sum is halved, and the whole is divided by k + 1 instead of 2B. The code of "easy" was never released;
//! here it is the same with the least similar negatives. A negative weight other than 1 is a further factor.
//! No gradient goes through the choice of the negatives.
//!
//! Deviation: the released code takes `log(1 − p)` literally and does not shift exponents, so it gives
//! infinities for duplicate rows or low temperatures. Here the largest score of a row is treated separately:
//! every other p is at most 1/2, and 1 − p of the largest is computed as the sum of the others, never as a
//! difference.

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Context, Input};
use crate::check::{check_temperature, two_views};
use crate::float::Float;
use crate::op::{Matrix, Objective, apply};
use crate::similarities::{similarities, through_both_sides};

const NAME: &str = "invaspread";

/// Whether gradient flows through the second factor of each inner product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySide {
    /// The gradient does not flow through it, as in the released code (`.data`).
    #[default]
    Detached,
    /// The gradient flows through it, which gives the true gradient of the loss.
    BothSides,
}

/// The choice of negatives among the 2B − 2 of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// All negatives.
    #[default]
    All,
    /// The B most similar; ties go to the lower row.
    HardestHalf,
    /// The B least similar; ties go to the lower row.
    EasiestHalf,
}

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::InvaSpread;
///
/// // Two images whose views agree. With E = exp(1/τ), here e: log(1 + 2/E) + 2 log(1 + 1/(E + 1)).
/// let views = Tensor::new(&[[1f64, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let loss = InvaSpread { temperature: 1.0, ..InvaSpread::default() }.loss(&views)?.to_scalar::<f64>()?;
/// let e = 1f64.exp();
/// assert!((loss - ((1.0 + 2.0 / e).ln() + 2.0 * (1.0 + 1.0 / (e + 1.0)).ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvaSpread {
    /// τ, above 0; the paper uses 0.1.
    pub temperature: f64,
    /// m, at least 1 (below that a probability could exceed 1); the released code's `--batch-m`.
    pub negative_weight: f64,
    /// Whether gradients flow through the key side.
    pub key_side: KeySide,
    /// The negatives that are used.
    pub negatives: Negatives,
}

impl Default for InvaSpread {
    fn default() -> Self {
        Self {
            temperature: 0.1,
            negative_weight: 1.0,
            key_side: KeySide::Detached,
            negatives: Negatives::All,
        }
    }
}

impl InvaSpread {
    /// Returns the loss of `features` (2B x D, rows of unit length, row i and row i + B two views of one
    /// image): a scalar.
    ///
    /// # Errors
    /// If `features` is not such a matrix in F32 or F64 (F32 on CUDA), or a setting is out of its range.
    pub fn loss(&self, features: &Tensor) -> Result<Tensor> {
        two_views(NAME, features)?;
        check_temperature(NAME, self.temperature)?;
        if !(self.negative_weight >= 1.0 && self.negative_weight.is_finite()) {
            bail!("{NAME}: negative_weight must be a number of at least 1, it is {}", self.negative_weight)
        }
        apply(self, [features])
    }

    /// Replaces a row of inner products by the gradient with respect to them and returns the row's part of
    /// the loss.
    ///
    /// Let `t` be the index of the row's largest score. All other scores are taken relative to the second
    /// largest: `rest` = `Σ_{k≠t} a_k exp(s_k − second)` with a = m for a negative and 1 for the positive.
    /// With q = a p, r = p / (1 − p) and w the weight of the negatives' sum, the gradient is
    ///
    /// ```text
    /// ∂L/∂s_k = q_k (1 − w R) + w r_k [k negative] − [k positive],  R = Σ_negatives r
    /// ```
    ///
    /// `r_t` may be as large as exp(200), but its products with `1 − q_t` and with `q_k` are bounded; they
    /// are computed directly.
    fn settle_row<T: Float>(&self, row: &mut [T], own: usize) -> f64 {
        let views = row.len();
        let positive = (own + views / 2) % views;
        let minus_infinity = T::from_f64(f64::NEG_INFINITY);
        let inverse = 1.0 / self.temperature;
        let m = self.negative_weight;
        let (weight, share) = match self.negatives {
            Negatives::All => (m, 1.0 / views as f64),
            Negatives::HardestHalf | Negatives::EasiestHalf => (0.5 * m, 1.0 / (views / 2 + 1) as f64),
        };

        let scale = T::from_f64(inverse);
        for s in row.iter_mut() {
            *s *= scale;
        }
        // A negative that is not used gets the score minus infinity, so that its exponential, probability and
        // gradient are exactly zero.
        row[own] = minus_infinity;
        self.leave_out(row, own, positive);

        let mut top = positive;
        let mut second = minus_infinity;
        for (k, &s) in row.iter().enumerate() {
            if s > row[top] {
                second = row[top];
                top = k;
            } else if k != top && s > second {
                second = s;
            }
        }
        // The scan starts from the positive, so anything with a higher score is a negative.
        let top_is_negative = top != positive;
        let (top_score, positive_score) = (row[top], row[positive]);
        if second == minus_infinity {
            // In a batch of one image p = 1 and the loss is 0, or NaN if the score is NaN. In a larger batch
            // this happens only if the features are not finite.
            row.fill(T::ZERO);
            return if views == 2 { 0.0 * positive_score.to_f64() } else { f64::NAN };
        }
        row[top] = minus_infinity;
        for s in row.iter_mut() {
            *s = (*s - second).exp();
        }
        let e_positive = row[positive];
        row[positive] = T::ZERO;
        let negatives: f64 = row.iter().map(|e| e.to_f64()).sum();
        let rest = m * negatives + e_positive.to_f64();

        let gap = (top_score - second).to_f64();
        let rest_below_top = rest * (-gap).exp();
        let a_top = if top_is_negative { m } else { 1.0 };
        // log D − s_top.
        let above_top = (a_top - 1.0 + rest_below_top).ln_1p();
        // p_k = exp(s_k − second) * to_p, at most 1/2 for k ≠ top.
        let to_p = (-gap - above_top).exp();
        let (mut ratios, mut log_complements) = (0.0, 0.0);
        let to_p_native = T::from_f64(to_p);
        for &e in row.iter() {
            let p = e * to_p_native;
            ratios += (p / (T::ONE - p)).to_f64();
            log_complements += (-p).ln_1p().to_f64();
        }

        let log_p = (positive_score - top_score).to_f64() - above_top;
        let p_top = (-above_top).exp();
        let (weighted, settled_top, through_top);
        if top_is_negative {
            // log(Σ of all but the top) − s_top. It is computed as a sum, so no digits are lost if p_top is
            // close to 1.
            let (others, kept) = if m > 1.0 {
                let others = m - 1.0 + rest_below_top;
                (others.ln(), rest_below_top / others)
            } else {
                (rest.ln() - gap, 1.0)
            };
            weighted = weight * (log_complements + others - above_top);
            let q_top = m * p_top;
            settled_top = q_top + weight * (p_top * kept - q_top * ratios);
            // w p_k r_t = exp(s_k − second) * w p_t exp(second − log(all but the top)).
            through_top = weight * p_top * (-gap - others).exp();
        } else {
            weighted = weight * log_complements;
            settled_top = -(rest_below_top / (1.0 + rest_below_top)) - weight * p_top * ratios;
            through_top = 0.0;
        }

        let outer = share * inverse;
        let spread = to_p * (1.0 - weight * ratios) - through_top;
        let to_q = T::from_f64(m * spread * outer);
        let to_ratio = T::from_f64(weight * outer);
        for e in row.iter_mut() {
            let p = *e * to_p_native;
            *e = *e * to_q + p / (T::ONE - p) * to_ratio;
        }
        if top_is_negative {
            row[positive] = T::from_f64((e_positive.to_f64() * spread - 1.0) * outer);
        }
        row[top] = T::from_f64(settled_top * outer);
        -(log_p + weighted) * share
    }

    /// Sets the scores of the negatives that are not used to minus infinity.
    fn leave_out<T: Float>(&self, row: &mut [T], own: usize, positive: usize) {
        let sign = match self.negatives {
            Negatives::All => return,
            Negatives::HardestHalf => -1.0,
            Negatives::EasiestHalf => 1.0,
        };
        let mut order: Vec<(f64, usize)> = (0..row.len())
            .filter(|&k| k != own && k != positive)
            .map(|k| (sign * row[k].to_f64(), k))
            .collect();
        let keep = row.len() / 2;
        if keep < order.len() {
            order.select_nth_unstable_by(keep, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for &(_, k) in &order[keep..] {
                row[k] = T::from_f64(f64::NEG_INFINITY);
            }
        }
    }
}

impl Objective<1> for InvaSpread {
    const NAME: &'static str = NAME;
    const HAS_CUDA_KERNEL: bool = true;

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let Matrix { values: x, rows, columns: dim } = features;
        let mut scores = similarities(features);
        let losses: Vec<f64> =
            scores.par_chunks_mut(rows).enumerate().map(|(own, row)| self.settle_row(row, own)).collect();
        let gradient = match self.key_side {
            KeySide::BothSides => through_both_sides(&scores, features),
            KeySide::Detached => {
                let mut gradient = vec![T::ZERO; rows * dim];
                gemm::nn(rows, dim, rows, &scores, x, &mut gradient);
                gradient
            }
        };
        Ok((losses.iter().sum(), [gradient]))
    }

    #[cfg(feature = "cuda")]
    fn evaluate_on_device(&self, [features]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 1])> {
        use invaspread_tensor::cuda::losses::{Kept, Settled, invaspread};
        let kept = match self.negatives {
            Negatives::All => Kept::All,
            Negatives::HardestHalf => Kept::HardestHalf,
            Negatives::EasiestHalf => Kept::EasiestHalf,
        };
        let both_sides = self.key_side == KeySide::BothSides;
        let Settled { value, gradient } =
            invaspread(features, self.temperature, self.negative_weight, kept, both_sides)?;
        Ok((value, [gradient]))
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    fn case(name: &'static str, loss: fn(&[Tensor], &Context<'_>) -> Result<Tensor>) -> Case {
        Case::new::<1, InvaSpread>(name, [Input::Views], loss)
    }
    vec![
        case("InvaSpread", |x, _| InvaSpread::default().loss(&x[0])),
        case("InvaSpread, both sides", |x, _| {
            InvaSpread { key_side: KeySide::BothSides, ..InvaSpread::default() }.loss(&x[0])
        }),
        case("InvaSpread, weight 2", |x, _| {
            InvaSpread { negative_weight: 2.0, temperature: 0.05, ..InvaSpread::default() }.loss(&x[0])
        }),
        case("InvaSpread, hardest half", |x, _| {
            InvaSpread { negatives: Negatives::HardestHalf, ..InvaSpread::default() }.loss(&x[0])
        }),
        case("InvaSpread, easiest half", |x, _| {
            InvaSpread { negatives: Negatives::EasiestHalf, ..InvaSpread::default() }.loss(&x[0])
        }),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{InvaSpread, KeySide, Negatives};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_rows,
        unit_rows, values,
    };
    use candle_core::{DType, Device, Tensor, Var};
    use proptest::prelude::*;

    /// Returns the loss from its definition, with queries and keys apart: plain sums of exponentials, nothing
    /// shifted or shared.
    fn plain(loss: &InvaSpread, queries: &[f64], keys: &[f64], dim: usize) -> f64 {
        let views = queries.len() / dim;
        let (m, mut total) = (loss.negative_weight, 0.0);
        for i in 0..views {
            let positive = (i + views / 2) % views;
            let score = |k: usize| {
                let inner: f64 = (0..dim).map(|c| queries[i * dim + c] * keys[k * dim + c]).sum();
                inner / loss.temperature
            };
            let mut negatives: Vec<usize> = (0..views).filter(|&k| k != i && k != positive).collect();
            let (mut weight, mut divisor) = (m, views as f64);
            if loss.negatives != Negatives::All {
                negatives.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
                if loss.negatives == Negatives::EasiestHalf {
                    negatives.sort_by(|&a, &b| score(a).total_cmp(&score(b)).then(a.cmp(&b)));
                }
                negatives.truncate(views / 2);
                (weight, divisor) = (0.5 * m, (views / 2 + 1) as f64);
            }
            let sum = score(positive).exp() + m * negatives.iter().map(|&k| score(k).exp()).sum::<f64>();
            let mut part = (score(positive).exp() / sum).ln();
            for &k in &negatives {
                // 1 - p is computed as the rest of the sum: a difference loses its digits where p is close to
                // 1, and finite differences would lose them too.
                let others: f64 = negatives.iter().filter(|&&l| l != k).map(|&l| m * score(l).exp()).sum();
                let left = score(positive).exp() + others + (m - 1.0) * score(k).exp();
                part += weight * (left / sum).ln();
            }
            total -= part / divisor;
        }
        total
    }

    fn settings() -> impl Strategy<Value = InvaSpread> {
        (
            prop_oneof![Just(0.07), Just(0.1), Just(0.5), Just(1.0)],
            prop_oneof![Just(1.0), Just(1.5), Just(2.0)],
            prop_oneof![Just(KeySide::Detached), Just(KeySide::BothSides)],
            prop_oneof![Just(Negatives::All), Just(Negatives::HardestHalf), Just(Negatives::EasiestHalf)],
        )
            .prop_map(|(temperature, negative_weight, key_side, negatives)| InvaSpread {
                temperature,
                negative_weight,
                key_side,
                negatives,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            loss in settings(), pairs in 1usize..9, dim in 2usize..12, seed: u64,
        ) {
            let x = unit_rows(2 * pairs, dim, seed);
            let (value, gradient) = gradient_of(&matrix_f64(&x, dim), |x| loss.loss(x)).unwrap();
            let want = plain(&loss, &x, &x, dim);
            prop_assert!((value - want).abs() <= 1e-9 * want.abs().max(1.0), "{value} {want}");
            // A change of one coordinate may change which half is kept; finite differences are meaningless
            // there.
            let swaps = loss.negatives != Negatives::All;
            if !swaps {
                let want = match loss.key_side {
                    KeySide::Detached => central_differences(&x, 1e-5, |q| plain(&loss, q, &x, dim)),
                    KeySide::BothSides => central_differences(&x, 1e-5, |x| plain(&loss, x, x, dim)),
                };
                assert_close(&gradient, &want, 1e-5, 1e-6);
            }
        }

        #[test]
        fn single_precision_follows_double(loss in settings(), pairs in 1usize..20, dim in 2usize..40, seed: u64) {
            // In f32, close scores may fall into other halves. With all negatives there is no choice.
            let loss = InvaSpread { negatives: Negatives::All, ..loss };
            let x = unit_rows(2 * pairs, dim, seed);
            let (value, gradient) = gradient_of(&matrix_f32(&x, dim), |x| loss.loss(x)).unwrap();
            let (want, want_gradient) = gradient_of(&matrix_f64(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!((value - want).abs() <= 2e-5 * want.abs().max(1e-2), "{value} {want}");
            assert_close(&gradient, &want_gradient, 1e-3, 1e-4);
        }

        #[test]
        fn any_temperature_from_a_hundredth_is_finite(
            pairs in 1usize..10, dim in 1usize..6, seed: u64, temperature in 0.01f64..0.05, weight in prop_oneof![Just(1.0), Just(2.0)],
        ) {
            let x = unit_rows(2 * pairs, dim, seed);
            let loss = InvaSpread { temperature, negative_weight: weight, ..InvaSpread::default() };
            let (value, gradient) = gradient_of(&matrix_f32(&x, dim), |x| loss.loss(x)).unwrap();
            prop_assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn halves_differentiate_what_they_keep() {
        // These scores are so far apart that a step of 1e-5 does not change their order.
        for negatives in [Negatives::HardestHalf, Negatives::EasiestHalf] {
            for key_side in [KeySide::Detached, KeySide::BothSides] {
                let loss = InvaSpread { negatives, key_side, temperature: 0.3, negative_weight: 1.5 };
                let x = unit_rows(10, 7, 5);
                let (_, gradient) = gradient_of(&matrix_f64(&x, 7), |x| loss.loss(x)).unwrap();
                let want = match key_side {
                    KeySide::Detached => central_differences(&x, 1e-6, |q| plain(&loss, q, &x, 7)),
                    KeySide::BothSides => central_differences(&x, 1e-6, |x| plain(&loss, x, x, 7)),
                };
                assert_close(&gradient, &want, 1e-6, 1e-8);
            }
        }
    }

    #[test]
    fn one_pair_is_already_spread() {
        let x = unit_rows(2, 5, 0);
        for negatives in [Negatives::All, Negatives::HardestHalf, Negatives::EasiestHalf] {
            let loss = InvaSpread { negatives, ..InvaSpread::default() };
            let (value, gradient) = gradient_of(&matrix_f64(&x, 5), |x| loss.loss(x)).unwrap();
            assert!(value == 0.0 && gradient.iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn two_orthogonal_pairs_have_a_closed_form() {
        // Both views of image 1 are e1, of image 2 are e2: s⁺ = 1/τ, both negatives score 0. With E =
        // exp(1/τ), D = E + 2: L = −log(E/D) − 2 log(1 − 1/D) = log(1 + 2/E) + 2 log(1 + 1/(E + 1)), the same
        // for each row. dL/ds⁺ = E/D − 1 − 2 (1/(D−1)) E/D; dL/ds⁻ = 1/D − 2/(D(D−1)) + 1/(D−1).
        for temperature in [0.05, 0.1, 1.0] {
            let loss = InvaSpread { temperature, ..InvaSpread::default() };
            let x = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
            let (value, gradient) = gradient_of(&matrix_f64(&x, 2), |x| loss.loss(x)).unwrap();
            let e = (1.0_f64 / temperature).exp();
            let d = e + 2.0;
            let want = (2.0 / e).ln_1p() + 2.0 * (1.0 / (e + 1.0)).ln_1p();
            assert!((value - want).abs() < 1e-12 * want, "{value} {want}");
            let positive = -2.0 / d - 2.0 / (d - 1.0) * e / d;
            let negative = 1.0 / d - 2.0 / (d * (d - 1.0)) + 1.0 / (d - 1.0);
            let outer = 1.0 / (4.0 * temperature);
            // Row 0 (e1): its positive is e1, its two negatives are e2.
            assert_close(&gradient[..2], &[positive * outer, 2.0 * negative * outer], 1e-12, 0.0);
        }
    }

    #[test]
    fn duplicates_and_opposites_are_safe_at_one_hundredth() {
        let e = |signs: &[f64]| signs.iter().flat_map(|&s| [s, 0.0, 0.0]).collect::<Vec<f64>>();
        for x in
            [e(&[1.0; 8]), e(&[1.0, -1.0, 1.0, -1.0]), e(&[1.0, -1.0, -1.0, 1.0]), e(&[1.0, 1.0, -1.0, -1.0])]
        {
            for negative_weight in [1.0, 2.0] {
                for negatives in [Negatives::All, Negatives::HardestHalf, Negatives::EasiestHalf] {
                    let loss =
                        InvaSpread { temperature: 0.01, negative_weight, negatives, ..InvaSpread::default() };
                    let (single, gradient) = gradient_of(&matrix_f32(&x, 3), |x| loss.loss(x)).unwrap();
                    let (double, want) = gradient_of(&matrix_f64(&x, 3), |x| loss.loss(x)).unwrap();
                    assert!(single.is_finite() && gradient.iter().all(|g| g.is_finite()), "{loss:?}");
                    // A loss below f32's smallest number, such as 1e-87, may be zero in f32.
                    assert!((single - double).abs() <= 1e-5 * double + 1e-37, "{single} {double}");
                    assert_close(&gradient, &want, 1e-4, 1e-4);
                }
            }
        }
        // Computed by hand: one negative is identical to the anchor (score +100), the positive and the other
        // negative are opposite (score −100 each). D = e^100 + 2e^-100; log p⁺ = −200; 1 − p of the top =
        // 2e^-200 -> log 2 − 200; the last log(1 − e^-200) is 0.
        let loss = InvaSpread { temperature: 0.01, ..InvaSpread::default() };
        let (value, _) = gradient_of(&matrix_f32(&e(&[1.0, 1.0, -1.0, -1.0]), 3), |x| loss.loss(x)).unwrap();
        assert!((value - (400.0 - 2.0_f64.ln())).abs() < 1e-3, "{value}");
    }

    #[test]
    fn threads_change_no_bit() {
        let x = matrix_f32(&unit_rows(128, 64, 3), 64);
        for key_side in [KeySide::Detached, KeySide::BothSides] {
            for negatives in [Negatives::All, Negatives::HardestHalf] {
                let loss = InvaSpread { key_side, negatives, ..InvaSpread::default() };
                let [one, three] = in_pools(|| bits(gradient_of(&x, |x| loss.loss(x)).unwrap()));
                assert_eq!(one, three);
            }
        }
    }

    #[test]
    fn upstream_gradient_scales_and_accumulates() {
        let x = Var::from_tensor(&matrix_f64(&unit_rows(8, 6, 1), 6)).unwrap();
        let loss = InvaSpread::default();
        let once = loss.loss(&x).unwrap();
        let want: Vec<f64> =
            values(once.backward().unwrap().get(&x).unwrap()).iter().map(|g| 3.0 * g).collect();
        let thrice = (loss.loss(&x).unwrap().affine(2.0, 1.0).unwrap() + loss.loss(&x).unwrap()).unwrap();
        assert_close(&values(thrice.backward().unwrap().get(&x).unwrap()), &want, 1e-12, 0.0);
    }

    #[test]
    fn strided_input_is_read_by_its_strides() {
        let x = unit_rows(6, 4, 2);
        let columns =
            Tensor::from_vec(x.clone(), (6, 4), &Device::Cpu).unwrap().t().unwrap().contiguous().unwrap();
        let loss = InvaSpread::default();
        let a: f64 = loss.loss(&columns.t().unwrap()).unwrap().to_scalar().unwrap();
        let b: f64 = loss.loss(&matrix_f64(&x, 4)).unwrap().to_scalar().unwrap();
        assert_eq!(a.to_bits(), b.to_bits());
    }

    #[test]
    fn not_a_number_reaches_the_value() {
        for rows in [2, 6] {
            let mut x = random_rows(rows, 3, 0);
            x[4] = f64::NAN;
            for negatives in [Negatives::All, Negatives::HardestHalf, Negatives::EasiestHalf] {
                let loss = InvaSpread { negatives, ..InvaSpread::default() };
                let value: f32 = loss.loss(&matrix_f32(&x, 3)).unwrap().to_scalar().unwrap();
                assert!(value.is_nan());
            }
        }
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |loss: InvaSpread, x: Tensor, what: &str| {
            let error = loss.loss(&x).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let loss = InvaSpread::default();
        says(loss, zeros(&[5, 4], DType::F32), "5 rows");
        says(loss, zeros(&[0, 4], DType::F32), "[0, 4]");
        says(loss, zeros(&[4], DType::F32), "[4]");
        says(loss, zeros(&[4, 4], DType::U32), "U32");
        says(InvaSpread { temperature: 0.0, ..loss }, zeros(&[4, 4], DType::F32), "temperature");
        says(InvaSpread { temperature: f64::NAN, ..loss }, zeros(&[4, 4], DType::F32), "temperature");
        says(InvaSpread { negative_weight: 0.5, ..loss }, zeros(&[4, 4], DType::F32), "negative_weight");
    }

    #[test]
    fn settings_are_read_by_name() {
        let loss: InvaSpread = serde_json::from_str(
            r#"{"temperature": 0.2, "negatives": "hardest_half", "key_side": "both_sides"}"#,
        )
        .unwrap();
        assert_eq!((loss.negatives, loss.key_side), (Negatives::HardestHalf, KeySide::BothSides));
        assert!(serde_json::from_str::<InvaSpread>(r#"{"temperatur": 0.2}"#).is_err());
    }
}
