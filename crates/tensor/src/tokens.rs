//! The rows that enter a vision transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021,
//! equation 1): a class token, and a token for each patch, each plus the embedding of its position.
//!
//! ```text
//! y[n, 0] = class + position[0]        y[n, 1 + i] = x[n, i] + bias + position[1 + i]
//! ```
//!
//! Shapes: `x` (N, h, w, D), the patches after their convolution, patch i at row i / w and column i mod w;
//! `bias` (D), that of the convolution; `class` (1, 1, D); `position` (1, 1 + s·s, D); `y` (N·(1 + h·w), D).
//! The two parts are [`token_offsets`], which does not depend on the images, and [`tokens`].
//!
//! If the map is not s x s (an image of another size, such as a small view), the s x s position embeddings
//! are resized as timm's `resample_abs_pos_embed` does: bicubic with antialiasing, which is Pillow's filter
//! (a = -0.5, wider if the map is smaller), without clipping. The class token's position stays as it is.

use crate::gemm::{self, Element};
use crate::storage::{Scalar, for_scalar, with};
use crate::{differentiable, team};
use candle_core::{Result, Tensor, bail};

/// Returns what is added to each token of an image with `grid` (rows, columns) patches: (1 + h·w, D), the
/// class token first. In f32 or f64, differentiable in all three.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::token_offsets;
///
/// let bias = Tensor::new(&[10f64], &Device::Cpu)?;
/// let class = Tensor::new(&[[[20f64]]], &Device::Cpu)?;
/// let position = Tensor::new(&[[[1f64], [2.0], [3.0], [4.0], [5.0]]], &Device::Cpu)?;
/// let offsets = token_offsets(&bias, &class, &position, [2, 2])?;
/// assert_eq!(offsets.to_vec2::<f64>()?, [[21.0], [12.0], [13.0], [14.0], [15.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit one another, or the data type is neither f32 nor, on the CPU, f64.
pub fn token_offsets(bias: &Tensor, class: &Tensor, position: &Tensor, grid: [usize; 2]) -> Result<Tensor> {
    let op = Offsets::new(bias, class, position, grid)?;
    let (bias, class, position) = (bias.contiguous()?, class.contiguous()?, position.contiguous()?);
    let y = op.run(&bias, &class, &position)?;
    let backward =
        move |_: [&Tensor; 3], _: &Tensor, gy: &Tensor| op.gradients(gy).map(|gradients| gradients.map(Some));
    differentiable("token_offsets", [&bias, &class, &position], y, backward)
}

/// Returns the tokens of patches `x` (N, h, w, D) with their `offsets` (1 + h·w, D): (N·(1 + h·w), D). In f32
/// or f64, differentiable in both.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::tokens;
///
/// let x = Tensor::new(&[[[[1f64], [2.0]]]], &Device::Cpu)?; // one image, one row of two patches
/// let offsets = Tensor::new(&[[10f64], [20.0], [30.0]], &Device::Cpu)?;
/// assert_eq!(tokens(&x, &offsets)?.to_vec2::<f64>()?, [[10.0], [21.0], [32.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Returns the errors of [`token_offsets`].
pub fn tokens(x: &Tensor, offsets: &Tensor) -> Result<Tensor> {
    let op = Tokens::new(x, offsets)?;
    let (x, offsets) = (x.contiguous()?, offsets.contiguous()?);
    let y = op.run(&x, &offsets)?;
    let backward =
        move |_: [&Tensor; 2], _: &Tensor, gy: &Tensor| op.gradients(gy).map(|gradients| gradients.map(Some));
    differentiable("tokens", [&x, &offsets], y, backward)
}

#[derive(Debug, Clone)]
pub(crate) struct Offsets {
    dim: usize,
    /// Position embeddings of patches, s·s, and patches of the map, h·w.
    known: usize,
    asked: usize,
    /// The weights (h·w, s·s) of the known embeddings; `None` if the map is s x s.
    resize: Option<Vec<f64>>,
}

impl Offsets {
    pub(crate) fn new(bias: &Tensor, class: &Tensor, position: &Tensor, grid: [usize; 2]) -> Result<Self> {
        let dim = bias.dims1()?;
        let known = position.dims().get(1).copied().unwrap_or(0).saturating_sub(1);
        let side = known.isqrt();
        let fits =
            class.dims() == [1, 1, dim] && position.dims() == [1, 1 + known, dim] && side * side == known;
        if !fits || known == 0 || grid.contains(&0) {
            bail!(
                "token_offsets: bias {:?}, class token {:?}, positions {:?}, {} x {} patches: expected one length, and \
                a position for the class token and for each patch of a square",
                bias.shape(),
                class.shape(),
                position.shape(),
                grid[0],
                grid[1]
            )
        }
        let resize = (grid != [side, side]).then(|| resize_weights(side, grid));
        Ok(Self { dim, known, asked: grid[0] * grid[1], resize })
    }

    /// Runs the op on contiguous tensors, outside of candle's graph.
    pub(crate) fn run(&self, bias: &Tensor, class: &Tensor, position: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if bias.device().is_cuda() {
            let weights = self.resize.as_deref().map(Self::weights::<f32>);
            return crate::cuda::transformer::token_offsets(
                [bias, class, position],
                self.asked,
                weights.as_deref(),
            );
        }
        let y = for_scalar!(bias.dtype(), "token_offsets", T => {
            let y = with::<T, _>(bias, |bias| {
                with::<T, _>(class, |class| with::<T, _>(position, |position| self.forward(bias, class, position)))
            })???;
            Tensor::from_vec(y, (1 + self.asked, self.dim), bias.device())?
        });
        Ok(y)
    }

    /// Returns the gradients of the bias, the class token and the positions.
    pub(crate) fn gradients(&self, gy: &Tensor) -> Result<[Tensor; 3]> {
        let (gy, device) = (gy.contiguous()?, gy.device().clone());
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            let weights = self.resize.as_deref().map(Self::weights::<f32>);
            let resize = weights.as_deref().map(|weights| (weights, self.known));
            let [bias, class, position] = crate::cuda::transformer::token_offsets_gradients(&gy, resize)?;
            let (class, position) = (class.reshape((1, 1, self.dim))?, position.unsqueeze(0)?);
            return Ok([bias, class, position]);
        }
        for_scalar!(gy.dtype(), "token_offsets", T => {
            let [bias, class, position] = with::<T, _>(&gy, |gy| self.backward(gy))?;
            Ok([
                Tensor::from_vec(bias, self.dim, &device)?,
                Tensor::from_vec(class, (1, 1, self.dim), &device)?,
                Tensor::from_vec(position, (1, 1 + self.known, self.dim), &device)?,
            ])
        })
    }

    /// Returns the weights in the type of the embeddings.
    fn weights<T: Scalar>(weights: &[f64]) -> Vec<T> {
        weights.iter().map(|&weight| T::write(weight)).collect()
    }

    fn forward<T: Scalar + Element>(&self, bias: &[T], class: &[T], position: &[T]) -> Vec<T> {
        let mut y = vec![<T as Element>::ZERO; (1 + self.asked) * self.dim];
        let (first, patches) = y.split_at_mut(self.dim);
        let (of_class, of_patches) = position.split_at(self.dim);
        for ((y, class), position) in first.iter_mut().zip(class).zip(of_class) {
            *y = *class + *position;
        }
        match &self.resize {
            Some(weights) => {
                gemm::nn(self.asked, self.dim, self.known, &Self::weights(weights), of_patches, patches);
            }
            None => patches.copy_from_slice(of_patches),
        }
        for row in patches.chunks_exact_mut(self.dim) {
            for (y, bias) in row.iter_mut().zip(bias) {
                *y += *bias;
            }
        }
        y
    }

    fn backward<T: Scalar + Element>(&self, gy: &[T]) -> [Vec<T>; 3] {
        let (of_class, of_patches) = gy.split_at(self.dim);
        let mut position = of_class.to_vec();
        match &self.resize {
            Some(weights) => {
                let mut of_known = vec![<T as Element>::ZERO; self.known * self.dim];
                gemm::tn(
                    self.known,
                    self.dim,
                    self.asked,
                    &Self::weights(weights),
                    of_patches,
                    &mut of_known,
                );
                position.extend(of_known);
            }
            None => position.extend_from_slice(of_patches),
        }
        let mut bias = vec![0.0; self.dim];
        for row in of_patches.chunks_exact(self.dim) {
            for (sum, g) in bias.iter_mut().zip(row) {
                *sum += g.read();
            }
        }
        [bias.into_iter().map(T::write).collect(), of_class.to_vec(), position]
    }
}

/// Returns the weights (h·w, `side`·`side`) of the numbers of a square in each number of the resized map.
fn resize_weights(side: usize, [height, width]: [usize; 2]) -> Vec<f64> {
    let (down, across) = (bicubic(side, height), bicubic(side, width));
    let mut weights = Vec::with_capacity(height * width * side * side);
    for row in down.chunks_exact(side) {
        for column in across.chunks_exact(side) {
            weights.extend(row.iter().flat_map(|down| column.iter().map(move |across| down * across)));
        }
    }
    weights
}

/// Returns the weights (`to`, `from`) of the numbers of a line in each number of the resized line.
fn bicubic(from: usize, to: usize) -> Vec<f64> {
    let step = from as f64 / to as f64;
    // The filter is wider if the line gets shorter, so that every number counts.
    let width = step.max(1.0);
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let center = (i as f64 + 0.5) * step;
        for (j, weight) in row.iter_mut().enumerate() {
            *weight = keys_cubic((j as f64 + 0.5 - center) / width);
        }
        let sum: f64 = row.iter().sum();
        for weight in row {
            *weight /= sum;
        }
    }
    weights
}

/// Returns Keys' cubic filter with a = -0.5 at `x`.
fn keys_cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    images: usize,
    grid: [usize; 2],
    dim: usize,
}

impl Tokens {
    pub(crate) fn new(x: &Tensor, offsets: &Tensor) -> Result<Self> {
        let (images, height, width, dim) = x.dims4()?;
        if offsets.dims() != [1 + height * width, dim] || [height, width, dim].contains(&0) {
            bail!(
                "tokens: patches {:?}, offsets {:?}: expected an offset for the class token and for each patch",
                x.shape(),
                offsets.shape()
            )
        }
        Ok(Self { images, grid: [height, width], dim })
    }

    /// Returns the numbers of an image's tokens.
    fn of_image(&self) -> usize {
        (1 + self.grid[0] * self.grid[1]) * self.dim
    }

    /// Runs the op on contiguous tensors, outside of candle's graph.
    pub(crate) fn run(&self, x: &Tensor, offsets: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return crate::cuda::transformer::tokens(&x.flatten(1, 2)?, offsets);
        }
        for_scalar!(x.dtype(), "tokens", T => {
            let y = with::<T, _>(x, |x| with::<T, _>(offsets, |offsets| self.forward(x, offsets)))??;
            Tensor::from_vec(y, (self.images * self.of_image() / self.dim, self.dim), x.device())
        })
    }

    /// Returns the gradients of the patches and of the offsets.
    pub(crate) fn gradients(&self, gy: &Tensor) -> Result<[Tensor; 2]> {
        let (gy, device) = (gy.contiguous()?, gy.device().clone());
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            let [height, width] = self.grid;
            let sizes = [self.images, height * width, self.dim];
            let [gx, offsets] = crate::cuda::transformer::tokens_gradients(&gy, sizes)?;
            return Ok([gx.reshape((self.images, height, width, self.dim))?, offsets]);
        }
        for_scalar!(gy.dtype(), "tokens", T => {
            let [x, offsets] = with::<T, _>(&gy, |gy| self.backward(gy))?;
            let [height, width] = self.grid;
            Ok([
                Tensor::from_vec(x, (self.images, height, width, self.dim), &device)?,
                Tensor::from_vec(offsets, (1 + height * width, self.dim), &device)?,
            ])
        })
    }

    fn forward<T: Scalar>(&self, x: &[T], offsets: &[T]) -> Vec<T> {
        let mut y = vec![T::write(0.0); self.images * self.of_image()];
        let patches = self.of_image() - self.dim;
        team::for_each_chunk(&mut y, self.of_image(), |image, y| {
            let (class, rest) = y.split_at_mut(self.dim);
            class.copy_from_slice(&offsets[..self.dim]);
            let x = &x[image * patches..][..patches];
            for ((y, x), offset) in rest.iter_mut().zip(x).zip(&offsets[self.dim..]) {
                *y = *x + *offset;
            }
        });
        y
    }

    fn backward<T: Scalar>(&self, gy: &[T]) -> [Vec<T>; 2] {
        let (of_image, patches) = (self.of_image(), self.of_image() - self.dim);
        let mut gx = vec![T::write(0.0); self.images * patches];
        team::for_each_chunk(&mut gx, patches, |image, gx| {
            gx.copy_from_slice(&gy[image * of_image + self.dim..][..patches]);
        });
        let mut offsets = vec![T::write(0.0); of_image];
        // A task has one token, so that the images are added in order on any number of threads.
        team::for_each_chunk(&mut offsets, self.dim, |token, sums| {
            let mut wide = vec![0.0; self.dim];
            for image in gy.chunks_exact(of_image) {
                for (sum, g) in wide.iter_mut().zip(&image[token * self.dim..]) {
                    *sum += g.read();
                }
            }
            sums.iter_mut().zip(wide).for_each(|(to, sum)| *to = T::write(sum));
        });
        [gx, offsets]
    }
}
