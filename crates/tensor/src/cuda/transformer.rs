//! The ops of a vision transformer on the device, in f32: layer norm, GELU, attention and tokens. Products are
//! cuBLAS's, each for all images together.

use super::blas::{Factor, product_of_each};
use super::kernel::{Argument, launch};
use super::memory::{spread, tensor, uninitialized};
use super::rows::sum_rows;
use super::{Product, device_of, product};
use candle_core::{DType, Result, Tensor, bail};

/// Threads of a block of warps; each warp takes one row.
const THREADS: u32 = 256;

fn like(x: &Tensor) -> Result<Tensor> {
    matrix(x, x.dims())
}

/// Returns fresh memory of f32 on the device of `x`, which must be of f32.
fn matrix(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if x.dtype() != DType::F32 {
        bail!("cuda: expected f32, found {:?}", x.dtype())
    }
    uninitialized(dims, DType::F32, device_of(x)?)
}

/// Runs a kernel with one warp for each row.
fn by_rows(name: &str, tensors: &[&Tensor], [rows, columns]: [usize; 2], more: &[Argument]) -> Result<()> {
    let mut arguments = tensors.iter().map(|tensor| Argument::address(tensor)).collect::<Result<Vec<_>>>()?;
    arguments.extend([Argument::Int(rows as i32), Argument::Int(columns as i32)]);
    arguments.extend(more);
    let grid = [(rows as u32).div_ceil(THREADS / 32), 1, 1];
    launch(device_of(tensors[0])?, "transformer", name, grid, [THREADS, 1, 1], 0, &arguments)
}

/// Runs a kernel over `count` numbers.
fn by_numbers(name: &str, tensors: &[&Tensor], count: usize, more: &[Argument]) -> Result<()> {
    let mut arguments = tensors.iter().map(|tensor| Argument::address(tensor)).collect::<Result<Vec<_>>>()?;
    arguments.push(Argument::Long(count as i64));
    arguments.extend(more);
    let (grid, block) = spread(count);
    launch(device_of(tensors[0])?, "transformer", name, grid, block, 0, &arguments)
}

/// Normalizes the rows of `x` (R, C), then applies `gamma` and `beta` (C).
pub(crate) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    let y = like(x)?;
    by_rows("layer_norm", &[x, gamma, beta, &y], [rows, columns], &[Argument::Float(epsilon as f32)])?;
    Ok(y)
}

/// Returns the gradients of the input, the gain and the shift of [`layer_norm`].
pub(crate) fn layer_norm_gradients(
    x: &Tensor,
    gamma: &Tensor,
    gy: &Tensor,
    epsilon: f64,
) -> Result<[Tensor; 3]> {
    let (rows, columns) = x.dims2()?;
    let (gx, of_gamma) = (like(x)?, like(x)?);
    let tensors = [x, gamma, gy, &gx, &of_gamma];
    by_rows("layer_norm_gradient", &tensors, [rows, columns], &[Argument::Float(epsilon as f32)])?;
    Ok([gx, sum_many_rows(&of_gamma)?, sum_many_rows(gy)?])
}

/// The most pieces in which rows are summed, and the fewest rows of a piece.
const PIECES: usize = 256;
const TOGETHER: usize = 64;

/// Returns the sum of the rows of `x` (R, C): (C). Many rows are summed in pieces, whose sums are then added.
pub(crate) fn sum_many_rows(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    let together = rows.div_ceil(PIECES).max(TOGETHER);
    let pieces = rows.div_ceil(together);
    let sums = matrix(x, &[pieces, columns])?;
    let arguments = [
        Argument::address(x)?,
        Argument::address(&sums)?,
        Argument::Int(rows as i32),
        Argument::Int(columns as i32),
        Argument::Int(together as i32),
    ];
    let grid = [(columns as u32).div_ceil(32), pieces as u32, 1];
    launch(device_of(x)?, "transformer", "sum_pieces", grid, [32, 8, 1], 0, &arguments)?;
    sum_rows(&sums)
}

/// Returns `x Φ(x)`.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let y = like(x)?;
    by_numbers("gelu", &[x, &y], x.elem_count(), &[])?;
    Ok(y)
}

/// Returns the gradient of [`gelu`].
pub(crate) fn gelu_gradient(x: &Tensor, gy: &Tensor) -> Result<Tensor> {
    let gx = like(x)?;
    by_numbers("gelu_gradient", &[x, gy, &gx], x.elem_count(), &[])?;
    Ok(gx)
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionSizes {
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    /// Columns of a head.
    pub(crate) dim: usize,
}

impl AttentionSizes {
    fn width(self) -> usize {
        self.heads * self.dim
    }

    /// Returns the queries (part 0), keys (1) or values (2) of a head in `x` (N·T, 3·H·d), or their place in the
    /// gradient.
    fn part(self, x: &Tensor, part: usize, head: usize) -> Result<Factor> {
        let row = 3 * self.width();
        Factor::of(x, part * self.width() + head * self.dim, row, self.tokens * row)
    }

    /// Returns the columns of a head in the output (N·T, H·d).
    fn output(self, y: &Tensor, head: usize) -> Result<Factor> {
        Factor::of(y, head * self.dim, self.width(), self.tokens * self.width())
    }

    /// Returns the scores (N, T, T) of a head.
    fn square(self, scores: &Tensor) -> Result<Factor> {
        Factor::of(scores, 0, self.tokens, self.tokens * self.tokens)
    }

    /// Computes the softmax of the scores of a head.
    fn weights(self, x: &Tensor, head: usize, weights: &Tensor) -> Result<()> {
        let Self { tokens, dim, .. } = self;
        let images = x.dims()[0] / tokens;
        let (q, k) = (self.part(x, 0, head)?, self.part(x, 1, head)?.transposed());
        let scale = 1.0 / (dim as f32).sqrt();
        product_of_each(device_of(x)?, [tokens, tokens, dim], scale, [q, k, self.square(weights)?], images)?;
        by_rows("softmax", &[weights], [images * tokens, tokens], &[])
    }
}

/// Returns the attention of `x` (N·T, 3·H·d): (N·T, H·d).
pub(crate) fn attention(x: &Tensor, sizes: AttentionSizes) -> Result<Tensor> {
    let AttentionSizes { tokens, heads, dim } = sizes;
    let rows = x.dims()[0];
    let y = matrix(x, &[rows, sizes.width()])?;
    let weights = matrix(x, &[rows, tokens])?;
    for head in 0..heads {
        sizes.weights(x, head, &weights)?;
        let factors = [sizes.square(&weights)?, sizes.part(x, 2, head)?, sizes.output(&y, head)?];
        product_of_each(device_of(x)?, [tokens, dim, tokens], 1.0, factors, rows / tokens)?;
    }
    Ok(y)
}

/// Returns the gradient of [`attention`].
pub(crate) fn attention_gradient(x: &Tensor, gy: &Tensor, sizes: AttentionSizes) -> Result<Tensor> {
    let AttentionSizes { tokens, heads, dim } = sizes;
    let (rows, device) = (x.dims()[0], device_of(x)?);
    let gx = like(x)?;
    let (weights, of_scores) = (matrix(x, &[rows, tokens])?, matrix(x, &[rows, tokens])?);
    let scale = 1.0 / (dim as f32).sqrt();
    for head in 0..heads {
        sizes.weights(x, head, &weights)?;
        let part = |part| sizes.part(x, part, head);
        let (gy, squares) = (sizes.output(gy, head)?, sizes.square(&of_scores)?);
        let images = rows / tokens;
        product_of_each(device, [tokens, tokens, dim], 1.0, [gy, part(2)?.transposed(), squares], images)?;
        by_rows("softmax_gradient", &[&weights, &of_scores], [rows, tokens], &[])?;
        let tall = [tokens, dim, tokens];
        let to = |part| sizes.part(&gx, part, head);
        product_of_each(device, tall, scale, [squares, part(1)?, to(0)?], images)?;
        product_of_each(device, tall, scale, [squares.transposed(), part(0)?, to(1)?], images)?;
        product_of_each(device, tall, 1.0, [sizes.square(&weights)?.transposed(), gy, to(2)?], images)?;
    }
    Ok(gx)
}

/// Returns the offsets (1 + h·w, D) of tokens. `resize` (h·w, s·s) has the weights of the known positions.
pub(crate) fn token_offsets(
    [bias, class, position]: [&Tensor; 3],
    asked: usize,
    resize: Option<&[f32]>,
) -> Result<Tensor> {
    let (_, rows, dim) = position.dims3()?;
    let position = position.reshape((rows, dim))?;
    let known = position.narrow(0, 1, rows - 1)?;
    let patches = match resize {
        Some(weights) => {
            let weights = tensor(weights, (asked, rows - 1), device_of(bias)?)?;
            product(&weights, &known, Product::Plain, false)?
        }
        None => known,
    };
    let y = matrix(bias, &[1 + asked, dim])?;
    let (grid, block) = spread(y.elem_count());
    let mut arguments = [bias, class, &position, &patches, &y]
        .map(Argument::address)
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    arguments.extend([Argument::Int(y.elem_count() as i32), Argument::Int(dim as i32)]);
    launch(device_of(bias)?, "transformer", "token_offsets", grid, block, 0, &arguments)?;
    Ok(y)
}

/// Returns the gradients of the bias (D), the class token (1, D) and the positions (1 + s·s, D) of
/// [`token_offsets`].
pub(crate) fn token_offsets_gradients(gy: &Tensor, resize: Option<(&[f32], usize)>) -> Result<[Tensor; 3]> {
    let (rows, _) = gy.dims2()?;
    let (class, patches) = (gy.narrow(0, 0, 1)?, gy.narrow(0, 1, rows - 1)?);
    let position = match resize {
        Some((weights, known)) => {
            let weights = tensor(weights, (rows - 1, known), device_of(gy)?)?;
            let known = product(&weights, &patches, Product::FirstTransposed, false)?;
            Tensor::cat(&[&class.contiguous()?, &known], 0)?
        }
        None => gy.copy()?,
    };
    Ok([sum_many_rows(&patches)?, class.copy()?, position])
}

/// Returns the tokens (N·(1 + p), D) of patches `x` (N, p, D) with their `offsets` (1 + p, D).
pub(crate) fn tokens(x: &Tensor, offsets: &Tensor) -> Result<Tensor> {
    let (images, _, dim) = x.dims3()?;
    let of_image = offsets.elem_count();
    let y = matrix(x, &[images * of_image / dim, dim])?;
    let sizes = [Argument::Int(of_image as i32), Argument::Int(dim as i32)];
    by_numbers("tokens", &[x, offsets, &y], y.elem_count(), &sizes)?;
    Ok(y)
}

/// Returns the gradients of the patches (N, p, D) and of the offsets (1 + p, D) of [`tokens`].
pub(crate) fn tokens_gradients(gy: &Tensor, [images, patches, dim]: [usize; 3]) -> Result<[Tensor; 2]> {
    let gx = matrix(gy, &[images, patches, dim])?;
    let of_image = (1 + patches) * dim;
    let sizes = [Argument::Int(of_image as i32), Argument::Int(dim as i32)];
    by_numbers("tokens_gradient", &[gy, &gx], gx.elem_count(), &sizes)?;
    let offsets = sum_many_rows(&gy.reshape((images, of_image))?)?;
    Ok([gx, offsets.reshape((1 + patches, dim))?])
}
