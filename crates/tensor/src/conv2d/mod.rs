//! Two-dimensional convolution with gradients, as a candle op:
//! `y[n,i,j,o] = sum x[n, i s + a - p, j s + b - p, c] w[a,b,c,o]`.
//!
//! Shapes: `x` (N, H, W, C_in), `w` (K_h, K_w, C_in, C_out), `y` (N, H', W', C_out) with
//! `H' = (H + 2p - K_h) / s + 1`. Channels come last in activations and in weights, so that the innermost
//! loop runs over output channels. PyTorch's layouts are (N, C, H, W) and (C_out, C_in, K_h, K_w); `models`
//! converts where weights are read and written.
//!
//! The algorithm for a shape, in f32:
//! 1. Winograd, if allowed, for 3x3 kernels of stride 1 and padding 1 with channels in multiples of 16 on
//!    both sides;
//! 2. direct, if the number of written channels is a multiple of 16;
//! 3. unrolled patches and a matrix product for everything else, and for f64.
//!
//! With activations in bf16 on a processor with AMX, all of these shapes, and those of few input channels,
//! are taken by products of tiles of bf16 (`amx`), if Winograd's algorithm would be allowed. Elsewhere weights
//! are f32, and so are products and sums: tiles and rows are widened where they are read and narrowed where
//! they are written, so that only half of the memory is read and written.
//!
//! On CUDA, in f32 or bf16: cuDNN (`cuda::conv2d`).

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "without_amx.rs"]
mod amx;
mod direct;
mod geometry;
mod im2col;
mod sampling;
mod tiles;
mod winograd;

use crate::memory::uninitialized;
use crate::storage::{converted, slice, with};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use direct::Direct;
pub(crate) use geometry::Geometry;
use half::bf16;
pub(crate) use tiles::{Indirect, PANEL, indirect_product};

/// The algorithms that a convolution may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// The fastest algorithm for the shape, including Winograd and products of bf16.
    #[default]
    Fastest,
    /// All algorithms with products of f32 except Winograd, so that the rounding error is as small as that of
    /// a plain sum.
    Direct,
}

/// Stride, padding and algorithm of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Step between output pixels, for both axes.
    pub stride: usize,
    /// Number of zeros around the map, for all four sides.
    pub padding: usize,
    /// The algorithms that may be used on the CPU.
    pub algorithm: Algorithm,
    /// Whether products of f32 may be computed in TF32, on CUDA.
    pub tf32: bool,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self { stride: 1, padding: 0, algorithm: Algorithm::Fastest, tf32: false }
    }
}

/// Convolves `x` (N, H, W, C_in) with `w` (K_h, K_w, C_in, C_out). Both are f32, or both f64
/// (on the CPU), or `x` is bf16 and `w` f32. Differentiable in both inputs.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use invaspread_tensor::{Conv2dConfig, conv2d};
///
/// // Each output of a 3x3 kernel of ones is the sum of the inputs around it, with zeros outside.
/// let x = Tensor::ones((1, 4, 4, 1), DType::F32, &Device::Cpu)?;
/// let w = Tensor::ones((3, 3, 1, 2), DType::F32, &Device::Cpu)?;
/// let y = conv2d(&x, &w, Conv2dConfig { padding: 1, ..Conv2dConfig::default() })?;
/// assert_eq!(y.dims(), [1, 4, 4, 2]);
/// let first = y.get(0)?.narrow(2, 0, 1)?.squeeze(2)?.to_vec2::<f32>()?;
/// assert_eq!(first[0], [4.0, 6.0, 6.0, 4.0]);
/// assert_eq!(first[1], [6.0, 9.0, 9.0, 6.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes do not match, or the data type is not one of these.
pub fn conv2d(x: &Tensor, w: &Tensor, config: Conv2dConfig) -> Result<Tensor> {
    let op = convolution(x, w, config)?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let y = op.apply(&x, &w)?;
        let backward = move |[x, w]: [&Tensor; 2], _: &Tensor, gy: &Tensor| {
            op.gradients(x, w, gy, [x.track_op(), w.track_op()], None).map(|(gx, gw)| [gx, gw])
        };
        return crate::differentiable("conv2d", [&x, &w], y, backward);
    }
    x.apply_op2(&w, op)
}

/// Returns the op that convolves tensors of these shapes.
pub(crate) fn convolution(x: &Tensor, w: &Tensor, config: Conv2dConfig) -> Result<Conv2d> {
    let (n, h, width, ci) = x.dims4()?;
    let (kh, kw, w_ci, co) = w.dims4()?;
    // In bf16 the first layer's input may arrive padded to the multiple of channels that tensor cores need.
    let padded = x.device().is_cuda() && ci == w_ci.next_multiple_of(8);
    if ci != w_ci && !padded {
        bail!("conv2d: the input {:?} has {ci} channels, the weight {:?} takes {w_ci}", x.shape(), w.shape())
    }
    if config.stride == 0 {
        bail!("conv2d: the stride must be at least 1")
    }
    if h + 2 * config.padding < kh || width + 2 * config.padding < kw {
        bail!("conv2d: the kernel {kh}x{kw} is larger than the padded input {:?}", x.shape())
    }
    let Conv2dConfig { stride, padding, algorithm, tf32 } = config;
    let geometry = Geometry { n, h, w: width, ci: w_ci, co, kh, kw, stride, padding };
    Ok(Conv2d { geometry, algorithm, tf32 })
}

#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "TF32 is CUDA's"))]
pub(crate) struct Conv2d {
    geometry: Geometry,
    algorithm: Algorithm,
    tf32: bool,
}

impl Conv2d {
    fn winograd(&self) -> bool {
        self.algorithm == Algorithm::Fastest && winograd::fits(&self.geometry)
    }

    /// Returns whether activations in bf16 are multiplied by tiles.
    fn amx(&self) -> bool {
        self.algorithm == Algorithm::Fastest && amx::fits(&self.geometry)
    }

    fn forward<X: Direct>(&self, x: &[X], w: &[f32]) -> Vec<X> {
        let g = &self.geometry;
        if g.n == 0 {
            return Vec::new();
        }
        let mut y = uninitialized(g.output_len());
        if let (true, Some(x), Some(y)) = (self.amx(), X::as_bf16(x), X::as_bf16_mut(&mut y)) {
            amx::forward(g, x, w, y);
        } else if self.winograd() {
            winograd::forward(g, x, w, &mut y);
        } else if direct::forward_fits(g) {
            direct::forward(g, x, w, &mut y);
        } else {
            let mut wide = uninitialized(y.len());
            im2col::forward(g, &X::widened(x), w, &mut wide);
            y = converted(&wide);
        }
        y
    }

    fn input_gradient<X: Direct>(&self, w: &[f32], gy: &[X]) -> Vec<X> {
        let g = &self.geometry;
        if g.n == 0 {
            return Vec::new();
        }
        let mut gx = uninitialized(g.input_len());
        let by_tiles = self.amx() && amx::input_gradient_fits(g);
        if let (true, Some(gy), Some(gx)) = (by_tiles, X::as_bf16(gy), X::as_bf16_mut(&mut gx)) {
            amx::input_gradient(g, w, gy, gx);
        } else if self.winograd() {
            winograd::input_gradient(g, w, gy, &mut gx);
        } else if direct::input_gradient_fits(g) {
            direct::input_gradient(g, w, gy, &mut gx);
        } else {
            let mut wide = uninitialized(gx.len());
            im2col::input_gradient(g, w, &X::widened(gy), &mut wide);
            gx = converted(&wide);
        }
        gx
    }

    fn weight_gradient<X: Direct>(&self, x: &[X], gy: &[X]) -> Vec<f32> {
        let g = &self.geometry;
        if g.n == 0 {
            return vec![0.0; g.weight_len()];
        }
        let mut gw = uninitialized(g.weight_len());
        if let (true, Some(x), Some(gy)) = (self.amx(), X::as_bf16(x), X::as_bf16(gy)) {
            amx::weight_gradient(g, x, gy, &mut gw);
        } else if self.winograd() {
            winograd::weight_gradient(g, x, gy, &mut gw);
        } else if direct::weight_gradient_fits(g) {
            direct::weight_gradient(g, x, gy, &mut gw);
        } else {
            im2col::weight_gradient(g, &X::widened(x), &X::widened(gy), &mut gw);
        }
        gw
    }

    /// Returns both gradients of tensors on the CPU whose activations are `X`, each if it is needed.
    fn gradients_in<X: Direct>(
        &self,
        [x, w, gy]: [&Tensor; 3],
        [need_gx, need_gw]: [bool; 2],
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gx = if need_gx {
            let gx: Vec<X> = with::<f32, _>(w, |w| with::<X, _>(gy, |gy| self.input_gradient(w, gy)))??;
            Some(Tensor::from_vec(gx, x.shape(), x.device())?)
        } else {
            None
        };
        let gw = if need_gw {
            let gw = with::<X, _>(x, |x| with::<X, _>(gy, |gy| self.weight_gradient(x, gy)))??;
            Some(Tensor::from_vec(gw, w.shape(), w.device())?)
        } else {
            None
        };
        Ok((gx, gw))
    }

    /// Convolves contiguous tensors.
    pub(crate) fn apply(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return crate::cuda::convolve(&self.geometry, x, w, self.tf32);
        }
        x.apply_op2(w, self.clone())
    }

    /// Returns the gradients of the input and the weight, each if it is needed. On CUDA, the input's gradient
    /// may be added to `sum`, the sum of the gradients that arrived before, and is then not returned.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "on the CPU the caller adds"))]
    pub(crate) fn gradients(
        &self,
        x: &Tensor,
        w: &Tensor,
        gy: &Tensor,
        [need_gx, need_gw]: [bool; 2],
        sum: Option<&Tensor>,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gy = gy.contiguous()?;
        let g = &self.geometry;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return crate::cuda::convolution_gradients(g, x, w, &gy, self.tf32, [need_gx, need_gw], sum);
        }
        match x.dtype() {
            DType::F32 => return self.gradients_in::<f32>([x, w, &gy], [need_gx, need_gw]),
            DType::BF16 => return self.gradients_in::<bf16>([x, w, &gy], [need_gx, need_gw]),
            _ => {}
        }
        let mut gx = vec![0.0f64; if need_gx { g.input_len() } else { 0 }];
        let mut gw = vec![0.0f64; if need_gw { g.weight_len() } else { 0 }];
        with::<f64, _>(&gy, |gy| {
            if need_gx {
                with::<f64, _>(w, |w| im2col::input_gradient(g, w, gy, &mut gx))?;
            }
            if need_gw {
                with::<f64, _>(x, |x| im2col::weight_gradient(g, x, gy, &mut gw))?;
            }
            Ok::<(), candle_core::Error>(())
        })??;
        let tensor = |values: Vec<f64>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
        Ok((need_gx.then(|| tensor(gx, x)).transpose()?, need_gw.then(|| tensor(gw, w)).transpose()?))
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let shape = Shape::from((g.n, g.out_h(), g.out_w(), g.co));
        let y = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.forward(slice::<f32>(x, lx)?, slice(w, lw)?)),
            CpuStorage::BF16(_) => CpuStorage::BF16(self.forward(slice::<bf16>(x, lx)?, slice(w, lw)?)),
            _ => {
                let mut y = vec![0.0f64; g.output_len()];
                im2col::forward(g, slice::<f64>(x, lx)?, slice::<f64>(w, lw)?, &mut y);
                CpuStorage::F64(y)
            }
        };
        Ok((y, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, w, gy, [x.track_op(), w.track_op()], None)
    }
}
