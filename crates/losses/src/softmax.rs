//! Softmax cross-entropy of rows of scores, value and gradient in one pass over each row.
//!
//! Let `o = log Σ_{k≠y} exp(z_k)`, computed with the maximum of the others subtracted. The loss of a row is
//! `softplus(o − z_y)`, and the probability of "not y" is `sigmoid(o − z_y)`. The gradient is minus that
//! probability at y, and that probability times the softmax of the others at the others. Because y is kept
//! apart, no digits are lost where `p_y` is nearly 1, as they would be in `p_y − 1`.
//!
//! A score that is not finite makes the row's loss NaN, also if it is minus infinity: such a score comes from
//! features or weights that are not finite, and does not mean that a class is certain or impossible.

use rayon::prelude::*;

use crate::float::Float;

/// Returns the mean loss over the rows; `scores` (rows x columns, unscaled) are replaced by the gradient with
/// respect to them.
///
/// The score used is `scores[i][k] * scale(k)`; the gradient contains that factor and the 1/rows of the mean.
pub(crate) fn cross_entropy<T: Float>(
    scores: &mut [T],
    columns: usize,
    labels: &[u32],
    scale: impl Fn(usize) -> T + Sync,
) -> f64 {
    let rows = labels.len();
    let share = 1.0 / rows as f64;
    let losses: Vec<f64> = scores
        .par_chunks_mut(columns)
        .zip(labels)
        .map(|(row, &label)| cross_entropy_of_row(row, label as usize, share, &scale))
        .collect();
    losses.iter().sum::<f64>() * share
}

/// Returns the loss of one row of scores and replaces the scores by the gradient, as [`cross_entropy`] does.
/// The gradient contains the factor `share`; the loss does not.
pub(crate) fn cross_entropy_of_row<T: Float>(
    row: &mut [T],
    label: usize,
    share: f64,
    scale: impl Fn(usize) -> T,
) -> f64 {
    for (k, z) in row.iter_mut().enumerate() {
        *z *= scale(k);
    }
    let own = row[label].to_f64();
    row[label] = T::from_f64(f64::NEG_INFINITY);
    let top = maximum(row);
    let sum = shifted_exp(row, top, Some(label));
    let Settled { loss, others } = settle(own, top.to_f64(), sum);
    let each = T::from_f64(if sum > 0.0 { others / sum * share } else { 0.0 * sum });
    for (k, z) in row.iter_mut().enumerate() {
        *z *= each * scale(k);
    }
    row[label] = T::from_f64(-others * share) * scale(label);
    loss
}

/// A row's loss, and the probability of all classes but its label.
pub(crate) struct Settled {
    /// `−log p_y`.
    pub(crate) loss: f64,
    /// `1 − p_y`.
    pub(crate) others: f64,
}

/// Returns the loss and the probability of the other classes, from the label's score `own` and the sum over
/// the other classes, `sum` = `Σ exp(z_k − top)`. Without other classes `sum` is 0 and the loss is 0.
pub(crate) fn settle(own: f64, top: f64, sum: f64) -> Settled {
    if sum == 0.0 || !own.is_finite() {
        let nothing_or_nan = if own.is_finite() { 0.0 } else { f64::NAN };
        return Settled { loss: nothing_or_nan, others: nothing_or_nan };
    }
    let x = top + sum.ln() - own;
    if x > 0.0 {
        let e = (-x).exp();
        Settled { loss: x + e.ln_1p(), others: 1.0 / (1.0 + e) }
    } else {
        let e = x.exp();
        Settled { loss: e.ln_1p(), others: e / (1.0 + e) }
    }
}

/// Returns the largest of the scores; minus infinity if there are none.
pub(crate) fn maximum<T: Float>(scores: &[T]) -> T {
    let mut top = T::from_f64(f64::NEG_INFINITY);
    for &z in scores {
        if z > top {
            top = z;
        }
    }
    top
}

/// Replaces each z by exp(z − top), and the one at `own` by 0; returns the sum, computed in f64. A score of
/// minus infinity becomes NaN.
pub(crate) fn shifted_exp<T: Float>(scores: &mut [T], top: T, own: Option<usize>) -> f64 {
    let minus_infinity = T::from_f64(f64::NEG_INFINITY);
    let top = if top > minus_infinity { top } else { T::ZERO };
    let mut sum = 0.0;
    let mut take = |scores: &mut [T]| {
        for z in scores {
            *z = if *z == minus_infinity { T::from_f64(f64::NAN) } else { (*z - top).exp() };
            sum += z.to_f64();
        }
    };
    match own {
        None => take(scores),
        Some(own) => {
            let (before, rest) = scores.split_at_mut(own);
            take(before);
            rest[0] = T::ZERO;
            take(&mut rest[1..]);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::cross_entropy;

    #[test]
    fn a_lone_class_costs_nothing() {
        let mut scores = [3.0_f32, -2.0];
        assert!(cross_entropy(&mut scores, 1, &[0, 0], |_| 1.0).abs() < f64::MIN_POSITIVE);
        assert!(scores.iter().all(|&g| g == 0.0));
    }

    #[test]
    fn two_classes_have_a_closed_form() {
        // −log p_0 = log(1 + e^{b−a}); the gradient at a is p_0 − 1 = −1/(1 + e^{a−b}).
        for (a, b) in [(0.3_f64, -0.2), (40.0, 0.0), (0.0, 300.0), (-5.0, -5.0)] {
            let mut scores = [a, b];
            let loss = cross_entropy(&mut scores, 2, &[0], |_| 1.0);
            let other = 1.0 / (1.0 + (a - b).exp());
            let want = if b > a { b - a + (a - b).exp().ln_1p() } else { (b - a).exp().ln_1p() };
            assert!((loss - want).abs() <= 1e-14 * want, "{loss} {want}");
            assert!((scores[0] + other).abs() <= 1e-14 * other && (scores[1] - other).abs() <= 1e-14 * other);
        }
    }

    #[test]
    fn not_a_number_is_passed_on() {
        assert!(cross_entropy(&mut [1.0_f32, f32::NAN], 2, &[0], |_| 1.0).is_nan());
    }
}
