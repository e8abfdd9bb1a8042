//! NCE: instance discrimination against m randomly drawn noise images instead of all n images.
//!
//! ```text
//! f in R^{B x D} unit rows, v in R^{n x D} memory bank, y_i the image that row i shows
//! m noise images per row
//! P_ij = exp(f_i · v_j / τ) / Z,   c = m / n,   ε = 1e-7
//! h⁺ = P / (P + c + ε)  for the own entry,   1 − h⁻ = c / (P + c + ε)  for a noise entry
//! loss = −(1/B) Σ_i [ log h⁺_{i,y_i} + Σ_{j in noise_i} log(1 − h⁻_ij) ]
//! ```
//!
//! Paper: section 4.1, the NCE row (m = 4096, τ = 0.1, momentum 0.5); constants as lemniscate's `NCEAverage`
//! and `NCECriterion`. Z is n times the mean of exp(f · v / τ) over all B x (m + 1) entries of the first
//! batch. It then stays the same for the whole run, so a checkpoint has to keep it. Noise is uniform over all
//! n images with replacement, so it may hit the image's own entry, as in the released code. Gradients go to f
//! alone.
//!
//! A variant renews Z before each later batch's loss, with momentum μ and that batch's mean:
//!
//! ```text
//! Z ← μ Z + (1 − μ) n mean_{i, j} exp(f_i · v_j / τ)
//! ```
//!
//! K. He advises it, with μ = 0.99, where the bank does not stay as random as it is at the start (issue 23 of
//! `HobbitLong/CMC`). No gradient goes through Z.
//!
//! No deviation in value. P is computed as exp(f · v / τ − log Z) in f64, so that τ = 0.01 does not overflow.

use std::cell::Cell;

use candle_core::{Result, Tensor, bail};
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Context, Input};
use crate::check::{check_index, check_temperature, matrix};
use crate::float::{Float, add_scaled, dot};
use crate::memory_bank::MemoryBank;
use crate::op::{Matrix, Objective, apply};

const NAME: &str = "nce";

/// ε of the released code.
const EPSILON: f64 = 1e-7;

/// The objective and its settings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_losses::{MemoryBank, Nce, draw_noise};
///
/// // A feature that equals the entry of image 0, and one noise image, which is image 1.
/// let bank = MemoryBank::from_tensor(&Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu)?)?;
/// let feature = Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?;
/// let nce = Nce { temperature: 1.0, noise_per_row: 1, normalizer_momentum: None };
/// let mut normalizer = Some(1.0);
/// let loss = nce.loss(&feature, &bank, &[0], &[1], &mut normalizer)?.to_scalar::<f64>()?;
/// // With Z = 1 and c = 1/2: −log(e / (e + 1/2)) − log((1/2) / (1 + 1/2)).
/// let e = 1f64.exp();
/// assert!((loss - ((e + 0.5) / e).ln() - 3f64.ln()).abs() < 1e-5);
///
/// // In training the noise is drawn at random: here 4 image numbers below 2 for each of 8 rows.
/// assert_eq!(draw_noise(0, 1, 0, 8, 4, 2)?.len(), 8 * 4);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nce {
    /// τ, above 0; 0.1 in the paper.
    pub temperature: f64,
    /// m, the noise images per row; 4096 in the paper.
    pub noise_per_row: usize,
    /// μ, the share of the old Z in the new one, from 0 to below 1; `None` keeps the first batch's Z, as the
    /// released code does.
    pub normalizer_momentum: Option<f64>,
}

impl Default for Nce {
    fn default() -> Self {
        Self { temperature: 0.1, noise_per_row: 4096, normalizer_momentum: None }
    }
}

impl Nce {
    /// Returns the loss of `features` (B x D) against `bank` (n entries), where row i shows image `index[i]`
    /// (B numbers below n) and is compared with the images `noise[i*m..(i+1)*m]` (B x m numbers below n, as
    /// [`draw_noise`] gives them): a scalar.
    ///
    /// `normalizer` is Z. If it is `None`, this batch sets it. Otherwise it is only read, or moves with
    /// [`Nce::normalizer_momentum`]. An error leaves it as it was.
    ///
    /// # Errors
    /// If shapes do not fit, an index is out of range, m is 0, μ is not from 0 to below 1, or the temperature
    /// or Z is not a positive number.
    pub fn loss(
        &self,
        features: &Tensor,
        bank: &MemoryBank,
        index: &[u32],
        noise: &[u32],
        normalizer: &mut Option<f64>,
    ) -> Result<Tensor> {
        let (rows, dim) = matrix(NAME, "features", features)?;
        if dim != bank.dim() {
            bail!("{NAME}: features have {dim} columns, the bank's entries {}; they must agree", bank.dim())
        }
        check_index(NAME, "image index", index, rows, bank.len())?;
        check_temperature(NAME, self.temperature)?;
        if self.noise_per_row == 0 {
            bail!("{NAME}: noise_per_row is 0; at least one noise image per row is needed")
        }
        if let Some(momentum) = self.normalizer_momentum.filter(|momentum| !(0.0..1.0).contains(momentum)) {
            bail!("{NAME}: normalizer_momentum is {momentum}; it must be from 0 to below 1")
        }
        if noise.len() != rows * self.noise_per_row {
            bail!(
                "{NAME}: {} noise images for {rows} rows; {} for each are needed",
                noise.len(),
                self.noise_per_row
            )
        }
        check_index(NAME, "noise image", noise, noise.len(), bank.len())?;
        let batch = Batch { loss: self, bank, index, noise, normalizer: Cell::new(*normalizer) };
        let loss = apply(&batch, [features])?;
        *normalizer = batch.normalizer.get();
        Ok(loss)
    }
}

/// The objective, with the entries that a batch's features are compared with.
struct Batch<'a> {
    loss: &'a Nce,
    bank: &'a MemoryBank,
    index: &'a [u32],
    noise: &'a [u32],
    /// Z, once it is known.
    normalizer: Cell<Option<f64>>,
}

impl Batch<'_> {
    /// Returns the Z of this batch's loss and keeps it. `of_batch` returns n times the mean of exp(f · v / τ)
    /// over the own and the noise entries; it is called where this batch sets or moves Z.
    fn settle_normalizer(&self, of_batch: impl FnOnce() -> Result<f64>) -> Result<f64> {
        let z = match (self.normalizer.get(), self.loss.normalizer_momentum) {
            (None, _) => of_batch()?,
            (Some(z), None) => z,
            (Some(z), Some(momentum)) => momentum * z + (1.0 - momentum) * of_batch()?,
        };
        if !(z > 0.0 && z.is_finite()) {
            bail!(
                "{NAME}: the normalizer Z must be a positive number, it is {z}; check that all features are finite"
            )
        }
        self.normalizer.set(Some(z));
        Ok(z)
    }

    /// Returns n times the mean of exp(f · v / τ) over the own and the noise entries.
    fn mean_score<T: Float>(&self, features: Matrix<'_, T>) -> f64 {
        let Self { loss, bank, index, noise, .. } = *self;
        let sums: Vec<f64> = features
            .values
            .par_chunks(bank.dim())
            .zip(index)
            .zip(noise.par_chunks(loss.noise_per_row))
            .map(|((f, y), noise)| {
                let exp =
                    |&j: &u32| (dot(f, &T::widen(bank.entry(j as usize))).to_f64() / loss.temperature).exp();
                std::iter::once(y).chain(noise).map(exp).sum()
            })
            .collect();
        let entries = index.len() + noise.len();
        sums.iter().sum::<f64>() / entries as f64 * bank.len() as f64
    }
}

impl Objective<1> for Batch<'_> {
    const NAME: &'static str = NAME;
    const HAS_CUDA_KERNEL: bool = true;

    fn evaluate<T: Float>(&self, [features]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
        let z = self.settle_normalizer(|| Ok(self.mean_score(features)))?;
        let Self { loss, bank, index, noise, .. } = *self;
        let (rows, dim) = (index.len(), bank.dim());
        let (log_z, inverse) = (z.ln(), 1.0 / loss.temperature);
        let c = loss.noise_per_row as f64 / bank.len() as f64;
        let outer = inverse / rows as f64;
        let mut gradient = vec![T::ZERO; rows * dim];
        // Each entry is read once: its score, its part of the loss and its part of the gradient are computed
        // while it is in the cache.
        let losses: Vec<f64> = gradient
            .par_chunks_mut(dim)
            .zip(features.values.par_chunks(dim))
            .zip(index)
            .zip(noise.par_chunks(loss.noise_per_row))
            .map(|(((g, f), &y), noise)| {
                let own = T::widen(bank.entry(y as usize));
                let log_p = dot(f, &own).to_f64() * inverse - log_z;
                let p = log_p.exp();
                // log h⁺ = log P − log(P + c + ε); its slope along log P is (c + ε) / (P + c + ε).
                let mut loss = (p + c + EPSILON).ln() - log_p;
                add_scaled(g, T::from_f64(-(c + EPSILON) / (p + c + EPSILON) * outer), &own);
                for &j in noise {
                    let entry = T::widen(bank.entry(j as usize));
                    let p = (dot(f, &entry).to_f64() * inverse - log_z).exp();
                    loss += ((p + EPSILON) / c).ln_1p();
                    add_scaled(g, T::from_f64(p / (p + c + EPSILON) * outer), &entry);
                }
                loss
            })
            .collect();
        Ok((losses.iter().sum::<f64>() / rows as f64, [gradient]))
    }

    #[cfg(feature = "cuda")]
    fn evaluate_on_device(&self, [features]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 1])> {
        use invaspread_tensor::cuda::losses::{NceInput, Settled, indices};
        let rows = self.index.len();
        let input = NceInput {
            features,
            bank: self.bank.on_device()?,
            index: &indices(self.index, &[rows], features)?,
            noise: &indices(self.noise, &[rows, self.loss.noise_per_row], features)?,
            temperature: self.loss.temperature,
        };
        let z = self.settle_normalizer(|| input.normalizer())?;
        let Settled { value, gradient } = input.settle(z)?;
        Ok((value, [gradient]))
    }
}

/// Returns the noise of one step: `rows * noise_per_row` image numbers below `images`, uniform with
/// replacement, row after row.
///
/// # Errors
/// If there are no images.
pub fn draw_noise(
    seed: u64,
    epoch: u64,
    step: u64,
    rows: usize,
    noise_per_row: usize,
    images: usize,
) -> Result<Vec<u32>> {
    if images == 0 {
        bail!("{NAME}: there are no images to draw noise from")
    }
    let mut stream = Stream::new(seed, Purpose::NegativeNoise, epoch, step);
    Ok((0..rows * noise_per_row).map(|_| stream.below(images) as u32).collect())
}

/// Returns the objective at its settings, for checks that go over all objectives.
pub(crate) fn cases() -> Vec<Case> {
    fn loss(
        x: &Tensor,
        context: &Context<'_>,
        mut normalizer: Option<f64>,
        normalizer_momentum: Option<f64>,
    ) -> Result<Tensor> {
        let objective = Nce { noise_per_row: 50, normalizer_momentum, ..Nce::default() };
        let rows = context.index.len();
        let noise = draw_noise(0, 1, 0, rows, objective.noise_per_row, context.memory.len())?;
        objective.loss(x, context.memory, context.index, &noise, &mut normalizer)
    }
    vec![
        Case::new::<1, Batch<'_>>("NCE", [Input::Images], |x, context| loss(&x[0], context, None, None)),
        Case::new::<1, Batch<'_>>("NCE, normalizer of an earlier batch", [Input::Images], |x, context| {
            loss(&x[0], context, Some(context.memory.len() as f64), None)
        }),
        // Z changes with the features here, but no gradient goes through it: the gradient is that at a Z that
        // barely moves.
        Case::new::<1, Batch<'_>>("NCE, normalizer with momentum", [Input::Images], |x, context| {
            loss(&x[0], context, Some(context.memory.len() as f64), Some(1.0 - 1e-12))
        }),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Nce, draw_noise};
    use crate::memory_bank::MemoryBank;
    use crate::testing::{
        assert_close, bits, central_differences, gradient_of, in_pools, matrix_f32, matrix_f64, random_index,
        unit_rows,
    };
    use candle_core::{DType, Device, Tensor};
    use proptest::prelude::*;

    fn score(f: &[f64], v: &[f32], temperature: f64) -> f64 {
        (f.iter().zip(v).map(|(a, &b)| a * f64::from(b)).sum::<f64>() / temperature).exp()
    }

    fn plain(loss: &Nce, f: &[f64], bank: &MemoryBank, index: &[u32], noise: &[u32], z: f64) -> f64 {
        let c = loss.noise_per_row as f64 / bank.len() as f64;
        let mut total = 0.0;
        for (i, f) in f.chunks(bank.dim()).enumerate() {
            let p = |j: u32| score(f, bank.entry(j as usize), loss.temperature) / z;
            total += (p(index[i]) / (p(index[i]) + c + 1e-7)).ln();
            for &j in &noise[i * loss.noise_per_row..(i + 1) * loss.noise_per_row] {
                total += (c / (p(j) + c + 1e-7)).ln();
            }
        }
        -total / index.len() as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition_and_its_differences(
            rows in 1usize..6, images in 1usize..40, dim in 1usize..20, negatives in 1usize..12, seed: u64,
            temperature in prop_oneof![Just(0.07), Just(0.1), Just(1.0)],
        ) {
            let loss = Nce { temperature, noise_per_row: negatives, normalizer_momentum: None };
            let (f, bank) = (unit_rows(rows, dim, seed), MemoryBank::new(images, dim, seed).unwrap());
            let index = random_index(rows, images, seed);
            let noise = draw_noise(seed, 1, 2, rows, negatives, images).unwrap();
            let mut sum = 0.0;
            for (i, f) in f.chunks(dim).enumerate() {
                for &j in noise[i * negatives..(i + 1) * negatives].iter().chain([&index[i]]) {
                    sum += score(f, bank.entry(j as usize), temperature);
                }
            }
            let z = sum / (rows * (negatives + 1)) as f64 * images as f64;
            let mut normalizer = None;
            loss.loss(&matrix_f64(&f, dim), &bank, &index, &noise, &mut normalizer).unwrap();
            prop_assert!((normalizer.unwrap() - z).abs() < 1e-10 * z);
            for z in [z, 3.0 * z] {
                let run = |x: &Tensor| {
                    gradient_of(x, |x| loss.loss(x, &bank, &index, &noise, &mut Some(z))).unwrap()
                };
                let (value, gradient) = run(&matrix_f64(&f, dim));
                let want = plain(&loss, &f, &bank, &index, &noise, z);
                prop_assert!((value - want).abs() <= 1e-10 * want);
                let differences = central_differences(&f, 1e-5, |f| plain(&loss, f, &bank, &index, &noise, z));
                assert_close(&gradient, &differences, 1e-6, 1e-7);
                let (single, single_gradient) = run(&matrix_f32(&f, dim));
                prop_assert!((single - want).abs() <= 1e-5 * want);
                // The gradients of the own entry and of the noise have opposite signs and sizes of up to 1/τ.
                // If they cancel (the noise image is the own image), only their rounding errors are left in
                // f32.
                assert_close(&single_gradient, &gradient, 1e-4, 1e-6 / temperature);
            }
        }
    }

    #[test]
    fn the_first_batch_sets_z_and_later_ones_keep_it() {
        let bank = MemoryBank::new(20, 4, 0).unwrap();
        let loss = Nce { noise_per_row: 3, ..Nce::default() };
        let mut z = None;
        let noise = draw_noise(0, 1, 0, 2, 3, 20).unwrap();
        loss.loss(&matrix_f32(&unit_rows(2, 4, 0), 4), &bank, &[1, 2], &noise, &mut z).unwrap();
        let first = z;
        assert!(first.is_some());
        loss.loss(&matrix_f32(&unit_rows(2, 4, 1), 4), &bank, &[3, 4], &noise, &mut z).unwrap();
        assert_eq!(z, first);
    }

    #[test]
    fn with_momentum_each_later_batch_moves_z_and_uses_it() {
        let bank = MemoryBank::new(20, 4, 0).unwrap();
        let frozen = Nce { noise_per_row: 3, ..Nce::default() };
        let moving = Nce { normalizer_momentum: Some(0.75), ..frozen };
        let noise = draw_noise(0, 1, 0, 2, 3, 20).unwrap();
        let rows = [0, 1].map(|seed| matrix_f64(&unit_rows(2, 4, seed), 4));
        let run = |loss: Nce, rows: &Tensor, z: &mut Option<f64>| {
            loss.loss(rows, &bank, &[1, 2], &noise, z).unwrap().to_scalar::<f64>().unwrap()
        };
        // The first batch sets Z in both.
        let (mut z, mut first, mut second) = (None, None, None);
        assert_eq!(run(moving, &rows[0], &mut z).to_bits(), run(frozen, &rows[0], &mut first).to_bits());
        assert_eq!(z, first);
        run(frozen, &rows[1], &mut second);
        let value = run(moving, &rows[1], &mut z);
        let want = 0.75 * first.unwrap() + 0.25 * second.unwrap();
        assert!((z.unwrap() - want).abs() < 1e-12 * want && second != first);
        assert_eq!(value.to_bits(), run(frozen, &rows[1], &mut z.clone()).to_bits());
    }

    #[test]
    fn two_images_have_a_closed_form() {
        // f = v_0 = e1, v_1 = e2, one noise image v_1, τ = 1, Z = 1, n = 2: c = 1/2, P⁺ = e, P⁻ = 1.
        let bank = MemoryBank::from_tensor(&matrix_f32(&[1.0, 0.0, 0.0, 1.0], 2)).unwrap();
        let loss = Nce { temperature: 1.0, noise_per_row: 1, ..Nce::default() };
        let (value, gradient) =
            gradient_of(&matrix_f64(&[1.0, 0.0], 2), |f| loss.loss(f, &bank, &[0], &[1], &mut Some(1.0)))
                .unwrap();
        let (e, c) = (1.0_f64.exp(), 0.5 + 1e-7);
        assert!((value - ((e + c) / e).ln() - ((1.0 + c) / 0.5).ln()).abs() < 1e-14);
        assert_close(&gradient, &[-c / (e + c), 1.0 / (1.0 + c)], 1e-14, 0.0);
    }

    #[test]
    fn extremes_are_safe_at_one_hundredth() {
        let loss = Nce { temperature: 0.01, noise_per_row: 2, ..Nce::default() };
        for signs in [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]] {
            let rows: Vec<f64> = signs.iter().flat_map(|&s| [s, 0.0]).collect();
            let bank = MemoryBank::from_tensor(&matrix_f32(&rows, 2)).unwrap();
            for normalizer in [None, Some(1.0), Some(1e40)] {
                let (value, gradient) = gradient_of(&matrix_f32(&[1.0, 0.0], 2), |f| {
                    loss.loss(f, &bank, &[0], &[1, 2], &mut normalizer.clone())
                })
                .unwrap();
                assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
            }
        }
    }

    #[test]
    fn noise_is_uniform_and_named_by_its_step() {
        let draw = |epoch, step| draw_noise(5, epoch, step, 100, 200, 10).unwrap();
        let noise = draw(1, 0);
        for image in 0..10 {
            let times = noise.iter().filter(|&&j| j == image).count();
            // Expected value 2000, standard deviation 42.
            assert!((1800..2200).contains(&times), "{image}: {times}");
        }
        assert_eq!(noise, draw(1, 0));
        assert_ne!(noise, draw(1, 1));
        assert_ne!(noise, draw(2, 0));
    }

    #[test]
    fn threads_change_no_bit() {
        let (f, bank) = (matrix_f32(&unit_rows(32, 64, 0), 64), MemoryBank::new(500, 64, 1).unwrap());
        let index = random_index(32, 500, 2);
        let loss = Nce { noise_per_row: 100, ..Nce::default() };
        let noise = draw_noise(0, 1, 0, 32, 100, 500).unwrap();
        let [one, three] = in_pools(|| {
            let mut z = None;
            loss.loss(&f, &bank, &index, &noise, &mut z).unwrap();
            let run = gradient_of(&f, |f| loss.loss(f, &bank, &index, &noise, &mut z.clone())).unwrap();
            (z.map(f64::to_bits), bits(run))
        });
        assert_eq!(one, three);
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_was_wrong() {
        let bank = MemoryBank::new(5, 4, 0).unwrap();
        let loss = Nce { noise_per_row: 2, ..Nce::default() };
        let f = Tensor::ones((1, 4), DType::F32, &Device::Cpu).unwrap();
        let says = |loss: Nce, f: &Tensor, index: &[u32], noise: &[u32], mut z: Option<f64>, what: &str| {
            let before = z;
            let error = loss.loss(f, &bank, index, noise, &mut z).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(z.map(f64::to_bits), before.map(f64::to_bits));
        };
        says(loss, &f, &[5], &[0, 1], None, "image index 5");
        says(loss, &f, &[0], &[0, 9], None, "noise image 9 (row 1) is out of range");
        says(loss, &f, &[0], &[0], None, "1 noise images for 1 rows; 2");
        says(loss, &f, &[0], &[0, 1], Some(0.0), "normalizer");
        says(loss, &(&f * f64::NAN).unwrap(), &[0], &[0, 1], None, "NaN");
        says(Nce { noise_per_row: 0, ..loss }, &f, &[0], &[], None, "noise_per_row is 0");
        for momentum in [1.0, -0.1, f64::NAN] {
            let loss = Nce { normalizer_momentum: Some(momentum), ..loss };
            says(loss, &f, &[0], &[0, 1], Some(1.0), "from 0 to below 1");
        }
        let moving = Nce { normalizer_momentum: Some(0.5), ..loss };
        says(moving, &(&f * f64::NAN).unwrap(), &[0], &[0, 1], Some(1.0), "NaN");
        says(Nce { temperature: 0.0, ..loss }, &f, &[0], &[0, 1], None, "temperature");
        assert!(draw_noise(0, 0, 0, 1, 1, 0).is_err());
    }
}
