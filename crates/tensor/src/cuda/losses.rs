//! The kernels of the losses. Each computes a loss on the device, and its gradient with respect to the
//! features. Crate `losses` defines the objectives, with their equations, and calls these kernels when its
//! tensors are on the device.
//!
//! Values are f32 scalars on the device. Reading one waits for the device.

use super::blas::{Product, product};
use super::device_of;
use super::input::Input;
use super::kernel::{Argument, launch, launch_with};

use super::memory::{staged, uninitialized};
use super::rows::inverse_lengths;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor, bail};

/// Threads of a block; a block takes one row.
const THREADS: u32 = 256;

/// A loss and its gradient with respect to the features.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The loss, a scalar of f32 on the device.
    pub value: Tensor,
    /// The gradient, of the features' shape.
    pub gradient: Tensor,
}

/// The negatives of a row that [`invaspread`] uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Kept {
    /// All negatives.
    All = 0,
    /// The most similar half.
    HardestHalf = 1,
    /// The least similar half.
    EasiestHalf = 2,
}

/// The struct `InvaSpreadSettings` of `kernels/losses.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct InvaSpreadSettings {
    temperature: f64,
    negative_weight: f64,
    negatives: i32,
}

// SAFETY: numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for InvaSpreadSettings {}

/// Returns features of f32 as a contiguous tensor, with their numbers of rows and columns.
fn features_of(features: &Tensor) -> Result<(Tensor, usize, usize)> {
    let (rows, dim) = features.dims2()?;
    if features.dtype() != DType::F32 {
        bail!("cuda: losses take features of f32, found {:?}", features.dtype())
    }
    Ok((features.detach().contiguous()?, rows, dim))
}

fn int(value: usize) -> Argument {
    Argument::Int(value as i32)
}

/// Runs a kernel with one block for each row.
fn by_rows(
    like: &Tensor,
    name: &str,
    rows: usize,
    shared_bytes: usize,
    arguments: &[Argument],
) -> Result<()> {
    launch(device_of(like)?, "losses", name, [rows as u32, 1, 1], [THREADS, 1, 1], shared_bytes, arguments)
}

/// Returns the sum of the rows' parts, a scalar.
fn total(losses: &Tensor) -> Result<Tensor> {
    let value = uninitialized((), DType::F32, device_of(losses)?)?;
    let arguments = [Argument::address(losses)?, Argument::address(&value)?, int(losses.elem_count())];
    by_rows(losses, "sum_losses", 1, 0, &arguments)?;
    Ok(value)
}

/// Computes InvaSpread on unit rows (2B, D).
///
/// # Errors
/// If the features are not such a matrix of f32 on the device.
pub fn invaspread(
    features: &Tensor,
    temperature: f64,
    negative_weight: f64,
    kept: Kept,
    both_sides: bool,
) -> Result<Settled> {
    let (features, views, _) = features_of(features)?;
    let device = device_of(&features)?;
    let scores = product(&features, &features, Product::SecondTransposed, false)?;
    let losses = uninitialized(views, DType::F32, device)?;
    let settings = InvaSpreadSettings { temperature, negative_weight, negatives: kept as i32 };
    let arguments = [Argument::address(&scores)?, Argument::address(&losses)?, int(views)];
    let grid = [views as u32, 1, 1];
    let block = [THREADS, 1, 1];
    launch_with(device, "losses", "invaspread_rows", grid, block, views, &arguments, Some(&settings))?;
    let gradient = product(&scores, &features, Product::Plain, false)?;
    if both_sides {
        let through_keys = product(&scores, &features, Product::FirstTransposed, false)?;
        super::add_into(Input::of(&gradient)?, Input::of(&through_keys)?, gradient.elem_count(), device)?;
    }
    Ok(Settled { value: total(&losses)?, gradient })
}

/// Computes softmax cross-entropy of `scores` (B, K), and replaces them by their gradient. The score that is
/// used is `score * scale * column_scale`.
fn cross_entropy(
    scores: &Tensor,
    labels: &Tensor,
    column_scale: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let (rows, columns) = scores.dims2()?;
    let losses = uninitialized(rows, DType::F32, device_of(scores)?)?;
    let arguments = [
        Argument::address(scores)?,
        Argument::address(labels)?,
        column_scale.map_or(Ok(Argument::Address(0)), Argument::address)?,
        Argument::address(&losses)?,
        int(columns),
        Argument::Float(scale as f32),
        Argument::Float((1.0 / rows as f64) as f32),
    ];
    by_rows(scores, "cross_entropy_rows", rows, 0, &arguments)?;
    total(&losses)
}

/// Computes softmax cross-entropy of logits (B, K), with one target column for each row (u32 on the device).
///
/// # Errors
/// If shapes or types do not match.
pub fn softmax(logits: &Tensor, labels: &Tensor) -> Result<Settled> {
    let (logits, ..) = features_of(logits)?;
    let gradient = logits.copy()?;
    let value = cross_entropy(&gradient, labels, None, 1.0)?;
    Ok(Settled { value, gradient })
}

/// Computes NPSoftmax of features (B, D) against a memory (n, D), both on the device.
///
/// # Errors
/// If shapes or types do not match.
pub fn npsoftmax(features: &Tensor, bank: &Tensor, index: &Tensor, temperature: f64) -> Result<Settled> {
    let (features, ..) = features_of(features)?;
    let scores = product(&features, bank, Product::SecondTransposed, false)?;
    let value = cross_entropy(&scores, index, None, 1.0 / temperature)?;
    Ok(Settled { value, gradient: product(&scores, bank, Product::Plain, false)? })
}

/// Computes Exemplar of features (B, D) against weights (n, D): the loss, and the gradients of both.
///
/// # Errors
/// If shapes or types do not match.
pub fn exemplar(
    features: &Tensor,
    weight: &Tensor,
    index: &Tensor,
    temperature: f64,
    normalize_weight: bool,
) -> Result<(Settled, Tensor)> {
    let (features, ..) = features_of(features)?;
    let (weight, ..) = features_of(weight)?;
    let scores = product(&features, &weight, Product::SecondTransposed, false)?;
    if !normalize_weight {
        let value = cross_entropy(&scores, index, None, 1.0 / temperature)?;
        let gradient = product(&scores, &weight, Product::Plain, false)?;
        let to_weight = product(&scores, &features, Product::FirstTransposed, false)?;
        return Ok((Settled { value, gradient }, to_weight));
    }
    let lengths = inverse_lengths(&weight)?;
    let value = cross_entropy(&scores, index, Some(&lengths), 1.0 / temperature)?;
    let gradient = product(&scores, &weight, Product::Plain, false)?;
    let to_weight = product(&scores, &features, Product::FirstTransposed, false)?;
    across_weight(&to_weight, &weight, &lengths)?;
    Ok((Settled { value, gradient }, to_weight))
}

/// Removes from each row of a gradient its part along the weight. A weight that is divided by its length has
/// no gradient along itself.
fn across_weight(gradient: &Tensor, weight: &Tensor, lengths: &Tensor) -> Result<()> {
    let (rows, dim) = weight.dims2()?;
    let arguments = [
        Argument::address(gradient)?,
        Argument::address(weight)?,
        Argument::address(lengths)?,
        int(rows),
        int(dim),
    ];
    let grid = [(rows as u32).div_ceil(THREADS / 32), 1, 1];
    launch(device_of(weight)?, "losses", "across_weight", grid, [THREADS, 1, 1], 0, &arguments)
}

/// The inputs of NCE on the device: features (B, D), memory (n, D), images (B) and noise (B, m) as u32.
#[derive(Debug, Clone, Copy)]
pub struct NceInput<'a> {
    /// Unit rows.
    pub features: &'a Tensor,
    /// The memory.
    pub bank: &'a Tensor,
    /// The image of each row.
    pub index: &'a Tensor,
    /// The noise images of each row.
    pub noise: &'a Tensor,
    /// The temperature τ.
    pub temperature: f64,
}

impl NceInput<'_> {
    fn sizes(&self) -> Result<(Tensor, usize, usize, usize)> {
        let (features, rows, dim) = features_of(self.features)?;
        let (noise_rows, negatives) = self.noise.dims2()?;
        if noise_rows != rows || self.bank.dim(1)? != dim || self.index.elem_count() != rows {
            bail!(
                "cuda: features {:?}, memory {:?}, noise {:?}",
                features.shape(),
                self.bank.shape(),
                self.noise.shape()
            )
        }
        Ok((features, rows, dim, negatives))
    }

    fn addresses(&self, features: &Tensor) -> Result<Vec<Argument>> {
        [features, self.bank, self.index, self.noise].into_iter().map(Argument::address).collect()
    }

    /// Returns the normalizer: n times the mean of exp(f · v / τ) over the rows' own entries and their noise
    /// entries. Waits for the device.
    ///
    /// # Errors
    /// If shapes or types do not match.
    pub fn normalizer(&self) -> Result<f64> {
        let (features, rows, dim, negatives) = self.sizes()?;
        let sums = uninitialized(rows, DType::F64, device_of(&features)?)?;
        let mut arguments = self.addresses(&features)?;
        arguments.extend([
            Argument::address(&sums)?,
            int(dim),
            int(negatives),
            Argument::Double(1.0 / self.temperature),
        ]);
        by_rows(&features, "nce_sums", rows, dim * size_of::<f32>(), &arguments)?;
        let sum: f64 = sums.to_vec1::<f64>()?.iter().sum();
        Ok(sum / (rows * (negatives + 1)) as f64 * self.bank.dim(0)? as f64)
    }

    /// Computes the loss with the normalizer `z`, and its gradient.
    ///
    /// # Errors
    /// If shapes or types do not match.
    pub fn settle(&self, z: f64) -> Result<Settled> {
        let (features, rows, dim, negatives) = self.sizes()?;
        let device = device_of(&features)?;
        let losses = uninitialized(rows, DType::F32, device)?;
        let gradient = uninitialized((rows, dim), DType::F32, device)?;
        let mut arguments = self.addresses(&features)?;
        arguments.extend([
            Argument::Double(z.ln()),
            Argument::address(&losses)?,
            Argument::address(&gradient)?,
            int(dim),
            int(negatives),
            Argument::Double(1.0 / self.temperature),
            Argument::Double(negatives as f64 / self.bank.dim(0)? as f64),
            Argument::Double(1.0 / rows as f64),
        ]);
        let shared = dim * (1 + THREADS as usize / 32) * size_of::<f32>();
        by_rows(&features, "nce_rows", rows, shared, &arguments)?;
        Ok(Settled { value: total(&losses)?, gradient })
    }
}

/// Computes Triplet of two views (B, D) each, with the given negatives (u32 on the device) or with each row's
/// nearest second view of another image. Returns the loss and the gradient of the first views (together), and
/// the gradient of the second views.
///
/// # Errors
/// If shapes or types do not match.
pub fn triplet(
    anchor: &Tensor,
    positive: &Tensor,
    negatives: Option<&Tensor>,
    margin: f64,
) -> Result<(Settled, Tensor)> {
    let (anchor, rows, dim) = features_of(anchor)?;
    let (positive, ..) = features_of(positive)?;
    let device = device_of(&anchor)?;
    let [near, away, losses] = [(); 3].map(|()| uninitialized(rows, DType::F32, device));
    let (near, away, losses) = (near?, away?, losses?);
    let chosen = uninitialized(rows, DType::U32, device)?;
    let arguments = [
        Argument::address(&anchor)?,
        Argument::address(&positive)?,
        negatives.map_or(Ok(Argument::Address(0)), Argument::address)?,
        Argument::address(&chosen)?,
        Argument::address(&near)?,
        Argument::address(&away)?,
        Argument::address(&losses)?,
        int(rows),
        int(dim),
        Argument::Float(margin as f32),
        Argument::Float((1.0 / rows as f64) as f32),
    ];
    by_rows(&anchor, "triplet_choose", rows, 0, &arguments)?;
    let gradient = uninitialized((rows, dim), DType::F32, device)?;
    let to_positive = uninitialized((rows, dim), DType::F32, device)?;
    let arguments = [
        Argument::address(&anchor)?,
        Argument::address(&positive)?,
        Argument::address(&chosen)?,
        Argument::address(&near)?,
        Argument::address(&away)?,
        Argument::address(&gradient)?,
        Argument::address(&to_positive)?,
        int(rows),
        int(dim),
    ];
    by_rows(&anchor, "triplet_gradients", rows, 0, &arguments)?;
    Ok((Settled { value: total(&losses)?, gradient }, to_positive))
}

/// Moves the memory's entries of `index` (u32 on the device) towards the features, in place.
///
/// # Errors
/// If shapes or types do not match.
pub fn update_memory(bank: &Tensor, index: &Tensor, features: &Tensor, momentum: f64) -> Result<()> {
    let (features, rows, dim) = features_of(features)?;
    let arguments = [
        Argument::address(bank)?,
        Argument::address(index)?,
        Argument::address(&features)?,
        int(rows),
        int(dim),
        Argument::Float(momentum as f32),
        Argument::Float((1.0 - momentum) as f32),
    ];
    let grid = [(rows as u32).div_ceil(THREADS / 32), 1, 1];
    launch(device_of(bank)?, "losses", "memory_bank_update", grid, [THREADS, 1, 1], 0, &arguments)
}

/// Copies numbers of the host as u32 to the device of `like`, shaped (rows) or (rows, columns).
///
/// # Errors
/// If their number does not match the shape, or the memory cannot be allocated.
pub fn indices(values: &[u32], shape: &[usize], like: &Tensor) -> Result<Tensor> {
    staged(values, shape, device_of(like)?)
}
