//! `NPSoftmax`: every image is a class of its own, represented by its entry in the memory bank instead of a
//! learned weight.
//!
//! ```text
//! f in R^{B x D} unit rows, v in R^{n x D} memory bank, y_i the image that row i shows
//! loss = −(1/B) Σ_i log [ exp(f_i · v_{y_i} / τ) / Σ_{j=1..n} exp(f_i · v_j / τ) ]
//! ```
//!
//! Paper: section 3.1, equation 2; lemniscate's `--nce-k 0`. Gradients go to f alone; the bank is moved after
//! the step ([`MemoryBank::update`]). No deviation in value.
//!
//! The bank is read once, in blocks of entries and with a running maximum, so that at most B x block scores
//! exist at any time. The exponentials of each block are added to a running sum and, multiplied by the
//! entries of the block, to a running gradient; both are rescaled when a larger score appears. The own entry
//! is left out of both and added at the end (see `softmax`).

use candle_core::{Result, Tensor, bail};
use invaspread_tensor::gemm;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Input};
use crate::check::{check_index, check_temperature, matrix};
use crate::float::Float;
use crate::memory_bank::MemoryBank;
use crate::op::{Matrix, Objective, apply};
use crate::softmax::{maximum, settle, shifted_exp};

const NAME: &str = "npsoftmax";

/// Bank entries per block: with D = 128 the block and its scores for 128 rows fit a core's second-level
/// cache.
const BLOCK: usize = 1024;

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::{MemoryBank, NpSoftmax};
///
/// // Two images, and a feature that equals the entry of the first.
/// let bank = MemoryBank::from_tensor(&Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu)?)?;
/// let feature = Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?;
/// let loss = NpSoftmax { temperature: 1.0 }.loss(&feature, &bank, &[0])?.to_scalar::<f64>()?;
/// assert!((loss - (1.0 + (-1f64).exp()).ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NpSoftmax {
    /// τ, above 0; 0.1 in the paper.
    pub temperature: f64,
}

impl Default for NpSoftmax {
    fn default() -> Self {
        Self { temperature: 0.1 }
    }
}

impl NpSoftmax {
    /// Returns the loss of `features` (B x D) against `bank` (n entries), where row i shows image `index[i]`
    /// (B numbers below n): a scalar.
    ///
    /// # Errors
    /// If shapes do not fit, an index is out of range, or the temperature is not positive.
    pub fn loss(&self, features: &Tensor, bank: &MemoryBank, index: &[u32]) -> Result<Tensor> {
        let (rows, dim) = matrix(NAME, "features", features)?;
        if dim != bank.dim() {
            bail!("{NAME}: features have {dim} columns, the bank's entries {}; they must agree", bank.dim())
        }
        check_index(NAME, "image index", index, rows, bank.len())?;
        check_temperature(NAME, self.temperature)?;
        apply(&Batch { loss: self, bank, index, block: BLOCK }, [features])
    }
}

/// The objective, with the bank that a batch's features are compared with.
struct Batch<'a> {
    loss: &'a NpSoftmax,
    bank: &'a MemoryBank,
    index: &'a [u32],
    /// Bank entries in a block.
    block: usize,
}

impl Objective<1> for Batch<'_> {
    const NAME: &'static str = NAME;
    const HAS_CUDA_KERNEL: bool = true;

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let Self { loss, bank, index, block } = *self;
        let (rows, dim, f) = (index.len(), bank.dim(), features.values);
        let inverse = T::from_f64(1.0 / loss.temperature);
        let minus_infinity = T::from_f64(f64::NEG_INFINITY);
        let nothing = Running { own: 0.0, top: minus_infinity, sum: 0.0, rescale: T::ZERO };
        let mut running = vec![nothing; rows];
        let mut gradient = vec![T::ZERO; rows * dim];
        let mut scores = vec![T::ZERO; rows * block.min(bank.len())];
        let mut part = vec![T::ZERO; rows * dim];
        for start in (0..bank.len()).step_by(block) {
            let end = (start + block).min(bank.len());
            let columns = end - start;
            let entries = T::widen(bank.block(start..end));
            let scores = &mut scores[..rows * columns];
            gemm::nt(rows, columns, dim, f, &entries, scores);
            scores.par_chunks_mut(columns).zip(&mut running).zip(index).for_each(|((row, state), &y)| {
                for z in row.iter_mut() {
                    *z *= inverse;
                }
                let own = (y as usize).checked_sub(start).filter(|&own| own < columns);
                if let Some(own) = own {
                    state.own = row[own].to_f64();
                    row[own] = minus_infinity;
                }
                state.take_in(row, own);
            });
            gemm::nn(rows, dim, columns, scores, &entries, &mut part);
            for ((g, p), state) in gradient.chunks_mut(dim).zip(part.chunks(dim)).zip(&running) {
                for (g, &p) in g.iter_mut().zip(p) {
                    *g = *g * state.rescale + p;
                }
            }
        }
        let mut total = 0.0;
        for ((g, state), &y) in gradient.chunks_mut(dim).zip(&running).zip(index) {
            let settled = settle(state.own, state.top.to_f64(), state.sum);
            total += settled.loss;
            let away = settled.others / (loss.temperature * rows as f64);
            let mean = T::from_f64(if state.sum > 0.0 { away / state.sum } else { 0.0 * state.sum });
            let away = T::from_f64(away);
            for (g, &v) in g.iter_mut().zip(T::widen(bank.entry(y as usize)).iter()) {
                *g = *g * mean - away * v;
            }
        }
        Ok((total / rows as f64, [gradient]))
    }

    #[cfg(feature = "cuda")]
    fn evaluate_on_device(&self, [features]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 1])> {
        use invaspread_tensor::cuda::losses::{Settled, indices, npsoftmax};
        let index = indices(self.index, &[self.index.len()], features)?;
        let Settled { value, gradient } =
            npsoftmax(features, self.bank.on_device()?, &index, self.loss.temperature)?;
        Ok((value, [gradient]))
    }
}

/// The running values of one row after some of the blocks.
#[derive(Clone)]
struct Running<T> {
    /// The own entry's score, once its block has been seen.
    own: f64,
    /// The largest score of the others so far.
    top: T,
    /// Σ exp(score − top) of the others so far.
    sum: f64,
    /// The factor by which the last block requires earlier sums to be multiplied.
    rescale: T,
}

impl<T: Float> Running<T> {
    /// Adds one block's scores. Replaces each of them by exp(score − top), and the one at `own` by 0.
    fn take_in(&mut self, scores: &mut [T], own: Option<usize>) {
        let here = maximum(scores);
        if here > self.top {
            self.rescale = (self.top - here).exp();
            self.top = here;
        } else {
            self.rescale = T::ONE;
        }
        self.sum = self.sum * self.rescale.to_f64() + shifted_exp(scores, self.top, own);
    }
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new::<1, Batch<'_>>("NPSoftmax", [Input::Images], |x, context| {
        NpSoftmax::default().loss(&x[0], context.memory, context.index)
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Batch, NpSoftmax};
    use crate::float::Float;
    use crate::memory_bank::MemoryBank;
    use crate::op::{Matrix, Objective};
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_index,
        unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    fn plain(temperature: f64, f: &[f64], bank: &MemoryBank, index: &[u32]) -> f64 {
        let mut total = 0.0;
        for (f, &y) in f.chunks(bank.dim()).zip(index) {
            let score = |j: usize| {
                f.iter().zip(bank.entry(j)).map(|(a, &b)| a * f64::from(b)).sum::<f64>() / temperature
            };
            let sum: f64 = (0..bank.len()).map(|j| score(j).exp()).sum();
            total -= (score(y as usize).exp() / sum).ln();
        }
        total / index.len() as f64
    }

    /// Returns value and gradient in `T`, with the bank in blocks of the given number of entries.
    fn evaluate<T: Float>(
        loss: NpSoftmax,
        f: &[f64],
        bank: &MemoryBank,
        index: &[u32],
        block: usize,
    ) -> (f64, Vec<f64>) {
        let values: Vec<T> = f.iter().map(|&x| T::from_f64(x)).collect();
        let features = Matrix { values: &values, rows: index.len(), columns: bank.dim() };
        let (value, [gradient]) = Batch { loss: &loss, bank, index, block }.evaluate([features]).unwrap();
        (value, gradient.into_iter().map(T::to_f64).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            rows in 1usize..6, images in 1usize..40, dim in 1usize..9, seed: u64, block in 1usize..50,
            temperature in prop_oneof![Just(0.07), Just(0.1), Just(1.0)],
        ) {
            let loss = NpSoftmax { temperature };
            let (f, bank) = (unit_rows(rows, dim, seed), MemoryBank::new(images, dim, seed).unwrap());
            let index = random_index(rows, images, seed);
            let want = plain(temperature, &f, &bank, &index);
            let (value, gradient) = gradient_of(&matrix_f64(&f, dim), |f| loss.loss(f, &bank, &index)).unwrap();
            prop_assert!((value - want).abs() <= 1e-10 * want.max(1.0));
            let differences = central_differences(&f, 1e-5, |f| plain(temperature, f, &bank, &index));
            assert_close(&gradient, &differences, 1e-6, 1e-6);
            // Every block size gives the same result, and f32 agrees with it.
            let (value, in_blocks) = evaluate::<f64>(loss, &f, &bank, &index, block);
            prop_assert!((value - want).abs() <= 1e-10 * want.max(1.0));
            assert_close(&in_blocks, &gradient, 1e-10, 1e-12);
            let (value, in_single) = evaluate::<f32>(loss, &f, &bank, &index, block);
            prop_assert!((value - want).abs() <= 2e-5 * want.max(0.1));
            assert_close(&in_single, &gradient, 1e-4, 1e-5);
        }
    }

    #[test]
    fn two_images_have_a_closed_form() {
        let bank = MemoryBank::from_tensor(&matrix_f32(&[1.0, 0.0, 0.0, 1.0], 2)).unwrap();
        let loss = NpSoftmax { temperature: 0.5 };
        let (value, gradient) =
            gradient_of(&matrix_f64(&[1.0, 0.0], 2), |f| loss.loss(f, &bank, &[0])).unwrap();
        let other = 1.0 / (1.0 + 2.0_f64.exp());
        assert!((value - (-2.0_f64).exp().ln_1p()).abs() < 1e-14);
        assert_close(&gradient, &[-other / 0.5, other / 0.5], 1e-13, 0.0);
    }

    #[test]
    fn extremes_are_safe_at_one_hundredth() {
        let loss = NpSoftmax { temperature: 0.01 };
        for signs in [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]] {
            let rows: Vec<f64> = signs.iter().flat_map(|&s| [s, 0.0]).collect();
            let bank = MemoryBank::from_tensor(&matrix_f32(&rows, 2)).unwrap();
            let f = [1.0, 0.0];
            for block in [1, 2, 3] {
                let (single, gradient) = evaluate::<f32>(loss, &f, &bank, &[0], block);
                let (double, want) = evaluate::<f64>(loss, &f, &bank, &[0], block);
                assert!(single.is_finite() && (single - double).abs() <= 1e-5 * double);
                assert_close(&gradient, &want, 1e-5, 1e-30);
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (f, bank) = (matrix_f32(&unit_rows(32, 64, 0), 64), MemoryBank::new(2500, 64, 1).unwrap());
        let index = random_index(32, 2500, 2);
        let loss = NpSoftmax::default();
        let [one, three] = in_pools(|| bits(gradient_of(&f, |f| loss.loss(f, &bank, &index)).unwrap()));
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let bank = MemoryBank::new(5, 4, 0).unwrap();
        let loss = NpSoftmax::default();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let says = |result: candle_core::Result<Tensor>, what: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        says(loss.loss(&zeros(&[2, 4]), &bank, &[0, 5]), "image index 5 (row 1)");
        says(loss.loss(&zeros(&[2, 4]), &bank, &[0, 1, 2]), "3 image index for 2 rows");
        says(loss.loss(&zeros(&[2, 3]), &bank, &[0, 1]), "3 columns");
        says(NpSoftmax { temperature: 0.0 }.loss(&zeros(&[1, 4]), &bank, &[0]), "temperature");
    }
}
