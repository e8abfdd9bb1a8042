//! Triplet: the two views of an image must be closer to each other than to another image, by a margin.
//!
//! ```text
//! a, b in R^{B x D} unit rows, the two views of B images;  d(x, y) = ‖x − y‖;  n_i ≠ i the negative of row i
//! loss = (1/B) Σ_i max(0, d(a_i, b_i) − d(a_i, b_{n_i}) + margin)
//! Random:   n_i drawn uniformly among the other images
//! Hardest:  n_i = argmin_{j≠i} d(a_i, b_j), the lower row on a tie
//! ```
//!
//! Paper: section 4.1, rows "Triplet" and "Triplet (Hard)", margin 0.5; the hard variant after Hermans et
//! al., section 2. The paper states neither the distance nor how the easy variant chooses a negative, and no
//! code was released. Euclidean distance, second views as negatives and a uniform draw are the interpretation
//! of this code. Distances are computed from differences and not from 2 − 2 a·b, which loses all digits for
//! close rows. The gradient of a distance is not defined where the distance is zero; zero is used there.

use candle_core::{Result, Tensor, bail};
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_index, matrix};
use crate::float::{Float, add_scaled};
use crate::op::{Matrix, Objective, apply};

const NAME: &str = "triplet";

/// The way in which a row's negative is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mining {
    /// The caller chooses it, with [`draw_negatives`].
    #[default]
    Random,
    /// The nearest second view of another image in the batch.
    Hardest,
}

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::{Mining, Triplet};
///
/// // Two images whose views agree, each the negative of the other: the negative is far enough away.
/// let views = Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &Device::Cpu)?;
/// let triplet = Triplet { margin: 0.5, mining: Mining::Random };
/// assert_eq!(triplet.loss(&views, &views, Some(&[1, 0]))?.to_scalar::<f64>()?, 0.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Triplet {
    /// The distance by which the negative must be farther away than the positive; 0.5 in the paper.
    pub margin: f64,
    /// The way in which negatives are found.
    pub mining: Mining,
}

impl Default for Triplet {
    fn default() -> Self {
        Self { margin: 0.5, mining: Mining::Random }
    }
}

impl Triplet {
    /// Returns the loss of `anchor` and `positive` (both B x D, row i of each a view of image i): a scalar.
    ///
    /// `negatives` are B row numbers of `positive`, none of them the row's own. They are given only with
    /// [`Mining::Random`].
    ///
    /// # Errors
    /// If shapes do not fit, if there is only one image, or if negatives are missing, not expected, out of
    /// range or the row's own.
    pub fn loss(&self, anchor: &Tensor, positive: &Tensor, negatives: Option<&[u32]>) -> Result<Tensor> {
        let (rows, _) = matrix(NAME, "anchor", anchor)?;
        if positive.dims() != anchor.dims() {
            bail!("{NAME}: anchor is {:?} and positive {:?}; they must agree", anchor.dims(), positive.dims())
        }
        if rows < 2 {
            bail!("{NAME}: a batch of one image has no negatives; at least 2 are needed")
        }
        if !(self.margin >= 0.0 && self.margin.is_finite()) {
            bail!("{NAME}: margin must be a number of at least 0, it is {}", self.margin)
        }
        match (self.mining, negatives) {
            (Mining::Random, Some(drawn)) => {
                check_index(NAME, "negative", drawn, rows, rows)?;
                if let Some(row) = (0..rows).find(|&i| drawn[i] as usize == i) {
                    bail!("{NAME}: row {row} is its own negative; draw it among the other rows")
                }
            }
            (Mining::Hardest, None) => {}
            (Mining::Random, None) => bail!("{NAME}: random mining needs negatives (see draw_negatives)"),
            (Mining::Hardest, Some(_)) => {
                bail!("{NAME}: hardest mining finds its negatives itself; give none")
            }
        }
        apply(&Batch { loss: self, negatives }, [anchor, positive])
    }
}

/// The objective, with the negatives of the batch if they were drawn.
struct Batch<'a> {
    loss: &'a Triplet,
    negatives: Option<&'a [u32]>,
}

impl Objective<2> for Batch<'_> {
    const NAME: &'static str = NAME;
    const HAS_CUDA_KERNEL: bool = true;

    fn evaluate<T: Float>(&self, [anchor, positive]: [Matrix<'_, T>; 2]) -> Result<(f64, [Vec<T>; 2])> {
        let Self { loss, negatives } = *self;
        let (rows, dim) = (anchor.rows, anchor.columns);
        let (a, b) = (anchor.values, positive.values);
        let view = |j: usize| &b[j * dim..(j + 1) * dim];
        let chosen: Vec<Chosen> = a
            .par_chunks(dim)
            .enumerate()
            .map(|(i, a)| {
                let (negative, away) = match negatives {
                    Some(drawn) => (drawn[i] as usize, distance(a, view(drawn[i] as usize))),
                    None => nearest(a, view, (0..rows).filter(|&j| j != i)),
                };
                let near = distance(a, view(i));
                Chosen { negative, near, away, violation: near - away + loss.margin }
            })
            .collect();
        let mut total = 0.0;
        let (mut to_anchor, mut to_positive) = (vec![T::ZERO; rows * dim], vec![T::ZERO; rows * dim]);
        for (i, c) in chosen.iter().enumerate() {
            // Written so that a NaN stays a NaN.
            if c.violation <= 0.0 {
                continue;
            }
            total += c.violation;
            for (j, distance, sign) in [(i, c.near, 1.0), (c.negative, c.away, -1.0)] {
                if distance > 0.0 {
                    let factor = T::from_f64(sign / (distance * rows as f64));
                    let (x, y) = (&a[i * dim..(i + 1) * dim], view(j));
                    let to_x = &mut to_anchor[i * dim..(i + 1) * dim];
                    add_scaled(to_x, factor, x);
                    add_scaled(to_x, -factor, y);
                    let to_y = &mut to_positive[j * dim..(j + 1) * dim];
                    add_scaled(to_y, factor, y);
                    add_scaled(to_y, -factor, x);
                }
            }
        }
        Ok((total / rows as f64, [to_anchor, to_positive]))
    }

    #[cfg(feature = "cuda")]
    fn evaluate_on_device(&self, [anchor, positive]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
        use invaspread_tensor::cuda::losses::{indices, triplet};
        let negatives = self.negatives.map(|drawn| indices(drawn, &[drawn.len()], anchor)).transpose()?;
        let (settled, to_positive) = triplet(anchor, positive, negatives.as_ref(), self.loss.margin)?;
        Ok((settled.value, [settled.gradient, to_positive]))
    }
}

/// The triplet of one row.
struct Chosen {
    negative: usize,
    /// `d(a_i, b_i)`.
    near: f64,
    /// `d(a_i, b_n)`.
    away: f64,
    /// near − away + margin; it adds to the loss if it is above 0.
    violation: f64,
}

/// Returns the Euclidean distance, computed from differences.
fn distance<T: Float>(x: &[T], y: &[T]) -> f64 {
    let squared = x.iter().zip(y).map(|(&x, &y)| (x - y).to_f64().powi(2)).sum::<f64>();
    squared.sqrt()
}

/// Returns the candidate whose view is nearest to `a`, the first of equals, and its distance. If a distance
/// is NaN, returns the last such candidate.
fn nearest<'a, T: Float>(
    a: &[T],
    view: impl Fn(usize) -> &'a [T],
    mut candidates: impl Iterator<Item = usize>,
) -> (usize, f64) {
    let first = candidates.next().expect("a batch of at least two images was asked for");
    let mut best = (first, distance(a, view(first)));
    for j in candidates {
        let d = distance(a, view(j));
        if d < best.1 || d.is_nan() {
            best = (j, d);
        }
    }
    best
}

/// Returns the random negatives of one step: for each of `rows` rows another row, uniformly.
///
/// ```
/// let negatives = invaspread_losses::draw_negatives(0, 1, 0, 4)?;
/// assert!(negatives.iter().enumerate().all(|(row, &negative)| negative != row as u32 && negative < 4));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If there are fewer than two rows.
pub fn draw_negatives(seed: u64, epoch: u64, step: u64, rows: usize) -> Result<Vec<u32>> {
    if rows < 2 {
        bail!("{NAME}: a batch of {rows} has no other image to draw; at least 2 are needed")
    }
    let mut stream = Stream::new(seed, Purpose::TripletNegative, epoch, step);
    // One of the rows − 1 other rows: a number from the own row on is increased by one.
    Ok((0..rows)
        .map(|own| {
            let other = stream.below(rows - 1);
            (other + usize::from(other >= own)) as u32
        })
        .collect())
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    let inputs = [Input::Images; 2];
    vec![
        Case::new::<2, Batch<'_>>("triplet", inputs, |x, _| {
            let drawn = draw_negatives(0, 1, 0, x[0].dim(0)?)?;
            Triplet::default().loss(&x[0], &x[1], Some(&drawn))
        }),
        Case::new::<2, Batch<'_>>("triplet, hardest", inputs, |x, _| {
            Triplet { mining: Mining::Hardest, ..Triplet::default() }.loss(&x[0], &x[1], None)
        }),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Mining, Triplet, draw_negatives};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    fn plain(loss: &Triplet, a: &[f64], b: &[f64], negatives: Option<&[u32]>, dim: usize) -> f64 {
        let rows = a.len() / dim;
        let d = |i: usize, j: usize| {
            (0..dim).map(|c| (a[i * dim + c] - b[j * dim + c]).powi(2)).sum::<f64>().sqrt()
        };
        let mut total = 0.0;
        for i in 0..rows {
            let away = match negatives {
                Some(n) => d(i, n[i] as usize),
                None => (0..rows).filter(|&j| j != i).map(|j| d(i, j)).fold(f64::INFINITY, f64::min),
            };
            total += (d(i, i) - away + loss.margin).max(0.0);
        }
        total / rows as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            rows in 2usize..9, dim in 2usize..9, seed: u64, margin in 0.0f64..1.5, hardest: bool,
        ) {
            let mining = if hardest { Mining::Hardest } else { Mining::Random };
            let loss = Triplet { margin, mining };
            let drawn = draw_negatives(seed, 1, 0, rows).unwrap();
            let negatives = (!hardest).then_some(&drawn[..]);
            let (a, b) = (unit_rows(rows, dim, seed), unit_rows(rows, dim, seed.wrapping_add(1)));
            let (at, bt) = (matrix_f64(&a, dim), matrix_f64(&b, dim));
            let (value, to_a) = gradient_of(&at, |a| loss.loss(a, &bt, negatives)).unwrap();
            let (_, to_b) = gradient_of(&bt, |b| loss.loss(&at, b, negatives)).unwrap();
            let want = plain(&loss, &a, &b, negatives, dim);
            prop_assert!((value - want).abs() < 1e-12);
            assert_close(&to_a, &central_differences(&a, 1e-7, |a| plain(&loss, a, &b, negatives, dim)), 1e-5, 1e-6);
            assert_close(&to_b, &central_differences(&b, 1e-7, |b| plain(&loss, &a, b, negatives, dim)), 1e-5, 1e-6);
            let bt = matrix_f32(&b, dim);
            let (single, _) = gradient_of(&matrix_f32(&a, dim), |a| loss.loss(a, &bt, negatives)).unwrap();
            prop_assert!((single - want).abs() < 1e-5);
        }
    }

    #[test]
    fn two_pairs_have_a_closed_form() {
        // Images at e1 and e2, views identical: d⁺ = 0, d⁻ = √2, so a margin of 2 is violated by 2 − √2. The
        // positive's distance is zero and adds no gradient; the gradient of the negative's distance is (e1 −
        // e2)/√2.
        let x = matrix_f64(&[1.0, 0.0, 0.0, 1.0], 2);
        let half_root = 0.5 * 0.5_f64.sqrt();
        for (mining, negatives) in [(Mining::Hardest, None), (Mining::Random, Some(&[1, 0][..]))] {
            let loss = Triplet { margin: 2.0, mining };
            let (value, gradient) = gradient_of(&x, |a| loss.loss(a, &x, negatives)).unwrap();
            assert!((value - (2.0 - 2.0_f64.sqrt())).abs() < 1e-14);
            assert_close(&gradient, &[-half_root, half_root, half_root, -half_root], 1e-14, 0.0);
            let satisfied = Triplet { margin: 0.5, mining };
            let (value, gradient) = gradient_of(&x, |a| satisfied.loss(a, &x, negatives)).unwrap();
            assert!(value == 0.0 && gradient.iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn duplicates_cost_the_margin_and_have_no_direction() {
        let x = matrix_f32(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2);
        let loss = Triplet { mining: Mining::Hardest, ..Triplet::default() };
        let (value, gradient) = gradient_of(&x, |a| loss.loss(a, &x, None)).unwrap();
        assert!((value - 0.5).abs() < 1e-7 && gradient.iter().all(|&g| g == 0.0));
        // Opposite views of the same image: d⁺ = 2.
        let opposite = matrix_f32(&[-1.0, 0.0, -1.0, 0.0, -1.0, 0.0], 2);
        let (value, gradient) = gradient_of(&x, |a| loss.loss(a, &opposite, None)).unwrap();
        assert!((value - 0.5).abs() < 1e-7 && gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn one_tensor_may_be_both_sides() {
        let x = unit_rows(5, 3, 4);
        let loss = Triplet { margin: 2.0, mining: Mining::Hardest };
        let (_, gradient) = gradient_of(&matrix_f64(&x, 3), |x| loss.loss(x, x, None)).unwrap();
        let want = central_differences(&x, 1e-7, |x| plain(&loss, x, x, None, 3));
        assert_close(&gradient, &want, 1e-5, 1e-6);
    }

    #[test]
    fn negatives_are_other_rows_and_all_of_them() {
        let mut seen = [[0; 4]; 4];
        for step in 0..600 {
            for (own, &other) in draw_negatives(3, 1, step, 4).unwrap().iter().enumerate() {
                seen[own][other as usize] += 1;
            }
        }
        for (own, counts) in seen.iter().enumerate() {
            for (other, &times) in counts.iter().enumerate() {
                assert!(if own == other { times == 0 } else { (150..250).contains(&times) }, "{seen:?}");
            }
        }
    }

    #[test]
    fn not_a_number_reaches_the_value() {
        let x = matrix_f32(&[1.0, 0.0, f64::NAN, 1.0], 2);
        let loss = Triplet { mining: Mining::Hardest, ..Triplet::default() };
        assert!(loss.loss(&x, &x, None).unwrap().to_scalar::<f32>().unwrap().is_nan());
    }

    #[test]
    fn threads_change_no_bit() {
        let (a, b) = (matrix_f32(&unit_rows(64, 32, 0), 32), matrix_f32(&unit_rows(64, 32, 1), 32));
        let loss = Triplet { mining: Mining::Hardest, ..Triplet::default() };
        let [one, three] = in_pools(|| bits(gradient_of(&a, |a| loss.loss(a, &b, None)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let zeros = |rows: usize| Tensor::zeros((rows, 4), DType::F32, &Device::Cpu).unwrap();
        let random = Triplet::default();
        let hardest = Triplet { mining: Mining::Hardest, ..random };
        let says = |result: candle_core::Result<Tensor>, what: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        says(hardest.loss(&zeros(1), &zeros(1), None), "one image");
        says(hardest.loss(&zeros(3), &zeros(2), None), "[2, 4]");
        says(hardest.loss(&zeros(2), &zeros(2), Some(&[1, 0])), "give none");
        says(random.loss(&zeros(2), &zeros(2), None), "draw_negatives");
        says(random.loss(&zeros(2), &zeros(2), Some(&[1, 2])), "negative 2 (row 1)");
        says(random.loss(&zeros(2), &zeros(2), Some(&[1, 1])), "row 1 is its own negative");
        says(Triplet { margin: f64::NAN, ..hardest }.loss(&zeros(2), &zeros(2), None), "margin");
        assert!(draw_negatives(0, 0, 0, 1).is_err());
    }
}
