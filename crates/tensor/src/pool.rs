//! Maximum and average pooling with exact gradients, for any kernel, stride, padding and rounding of the
//! output size.
//!
//! candle's own pooling ops have a wrong gradient (max pooling scales it by 1/k²; average pooling is wrong
//! when the kernel does not divide the map) or no gradient (if the kernel and the stride differ). Shapes: `x`
//! (N, H, W, C), `y` (N, H', W', C), with `H' = round((H + 2p - k) / s) + 1`, rounded down, or up in ceil
//! mode, where a window that would start beyond the input and its left padding is dropped, as PyTorch does.
//!
//! Maximum: the first of equal values in row-major order gets the gradient; a NaN is larger than any number,
//! and the last NaN of a window gets the gradient, as in PyTorch. Average: the sum is divided by the number
//! of the window's pixels inside the padded input. So the padding counts (PyTorch's default), but pixels that
//! ceil mode adds beyond it do not.

use crate::one::{One, apply_one};
use crate::storage::Scalar;
use crate::team;
#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Result, Shape, Tensor, bail};

/// The windows of a pooling.
///
/// ```
/// use invaspread_tensor::PoolConfig;
///
/// assert_eq!(PoolConfig::square(2).out_len(5), Some(2));
/// assert_eq!(PoolConfig { ceil_mode: true, ..PoolConfig::square(2) }.out_len(5), Some(3));
/// assert_eq!(PoolConfig::square(4).out_len(3), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Side of the window.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Padding on all four sides, at most half of the kernel: minus infinity for the maximum, zero for the
    /// average.
    pub padding: usize,
    /// Whether the output size is rounded up.
    pub ceil_mode: bool,
}

impl PoolConfig {
    /// Returns windows that lie side by side: the stride is as large as the kernel, there is no padding, and
    /// the output size is rounded down.
    pub fn square(kernel: usize) -> Self {
        Self { kernel, stride: kernel, padding: 0, ceil_mode: false }
    }

    /// Returns the length of the output for an input of length `len`; `None` if the window does not fit.
    pub fn out_len(&self, len: usize) -> Option<usize> {
        let span = (len + 2 * self.padding).checked_sub(self.kernel)?;
        if !self.ceil_mode {
            return Some(span / self.stride + 1);
        }
        let out = span.div_ceil(self.stride) + 1;
        Some(if (out - 1) * self.stride >= len + self.padding { out - 1 } else { out })
    }
}

/// Returns the maximum over each window.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::{PoolConfig, max_pool2d};
///
/// let x = Tensor::arange(0f32, 16.0, &Device::Cpu)?.reshape((1, 4, 4, 1))?;
/// let y = max_pool2d(&x, PoolConfig::square(2))?;
/// assert_eq!(y.dims(), [1, 2, 2, 1]);
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [5.0, 7.0, 13.0, 15.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `x` is not (N, H, W, C) in f32, bf16 or f64 (on CUDA f32 or bf16), or the window does not fit.
pub fn max_pool2d(x: &Tensor, config: PoolConfig) -> Result<Tensor> {
    apply_one(&x.contiguous()?, Pool::maximum(x, config)?)
}

/// Returns the mean over each window. The mean of bf16 values is f32.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::{PoolConfig, avg_pool2d};
///
/// let x = Tensor::arange(0f32, 16.0, &Device::Cpu)?.reshape((1, 4, 4, 1))?;
/// let y = avg_pool2d(&x, PoolConfig::square(2))?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [2.5, 4.5, 10.5, 12.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Returns the errors of [`max_pool2d`].
pub fn avg_pool2d(x: &Tensor, config: PoolConfig) -> Result<Tensor> {
    apply_one(&x.contiguous()?, Pool::average(x, config)?)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Maximum,
    Average,
}

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    config: PoolConfig,
    kind: Kind,
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    out_h: usize,
    out_w: usize,
}

impl Pool {
    /// Returns the op that takes the maxima of windows of a tensor of this shape.
    pub(crate) fn maximum(x: &Tensor, config: PoolConfig) -> Result<Self> {
        Self::new(x, config, Kind::Maximum)
    }

    /// Returns the op that averages windows of a tensor of this shape.
    pub(crate) fn average(x: &Tensor, config: PoolConfig) -> Result<Self> {
        Self::new(x, config, Kind::Average)
    }

    fn new(x: &Tensor, config: PoolConfig, kind: Kind) -> Result<Self> {
        let (n, h, w, c) = x.dims4()?;
        if config.kernel == 0 || config.stride == 0 || config.padding > config.kernel / 2 {
            bail!(
                "pooling: kernel and stride must be at least 1 and padding at most half the kernel, found {}, {} and {}",
                config.kernel,
                config.stride,
                config.padding
            )
        }
        let (Some(out_h), Some(out_w)) = (config.out_len(h), config.out_len(w)) else {
            bail!(
                "pooling: a {0}x{0} window does not fit into {h}x{w} with padding {1}",
                config.kernel,
                config.padding
            )
        };
        Ok(Self { config, kind, n, h, w, c, out_h, out_w })
    }

    /// Returns the inputs that output `o` covers on an axis of length `len`, and the number of positions that
    /// it covers on the padded axis.
    fn window(&self, o: usize, len: usize) -> (std::ops::Range<usize>, usize) {
        let PoolConfig { kernel, stride, padding, .. } = self.config;
        let start = o * stride;
        let end = (start + kernel).min(len + 2 * padding);
        (start.saturating_sub(padding)..end.saturating_sub(padding).min(len), end - start)
    }

    /// Calls `visit(output offset, input pixel offsets, divisor)` for each output pixel of one image; offsets
    /// count from its start.
    fn for_each_window(&self, mut visit: impl FnMut(usize, &[usize], f64)) {
        let mut pixels = Vec::with_capacity(self.config.kernel * self.config.kernel);
        for oy in 0..self.out_h {
            let (rows, height) = self.window(oy, self.h);
            for ox in 0..self.out_w {
                let (columns, width) = self.window(ox, self.w);
                pixels.clear();
                for y in rows.clone() {
                    pixels.extend(columns.clone().map(|x| (y * self.w + x) * self.c));
                }
                visit((oy * self.out_w + ox) * self.c, &pixels, (height * width) as f64);
            }
        }
    }

    /// Returns which of `pixels` holds the maximum of channel `c`; the last NaN, if there is one.
    fn largest<T: Scalar>(x: &[T], pixels: &[usize], c: usize) -> usize {
        let mut best = pixels[0] + c;
        for &pixel in &pixels[1..] {
            let value = x[pixel + c].read();
            if value > x[best].read() || value.is_nan() {
                best = pixel + c;
            }
        }
        best
    }

    #[cfg(feature = "cuda")]
    fn window_on_device(&self) -> crate::cuda::Window {
        let Self { config, h, w, c, out_h, out_w, .. } = self;
        let [h, w, c, out_h, out_w] = [h, w, c, out_h, out_w].map(|size| *size as i32);
        let [kernel, stride, padding] =
            [config.kernel, config.stride, config.padding].map(|size| size as i32);
        crate::cuda::Window { h, w, c, out_h, out_w, kernel, stride, padding }
    }

    /// Returns the number of values of one image's input and output.
    fn image_lens(&self) -> (usize, usize) {
        (self.h * self.w * self.c, self.out_h * self.out_w * self.c)
    }
}

impl One for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Maximum => "max_pool2d",
            Kind::Average => "avg_pool2d",
        }
    }

    fn widens(&self) -> bool {
        self.kind == Kind::Average
    }

    fn shape(&self, _: &Shape) -> Shape {
        (self.n, self.out_h, self.out_w, self.c).into()
    }

    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T> {
        let (in_len, out_len) = self.image_lens();
        let mut y = vec![T::write(0.0); self.n * out_len];
        team::for_each_chunk(&mut y, out_len, |image, y| {
            let x = &x[image * in_len..][..in_len];
            let mut sums = vec![0.0; self.c];
            self.for_each_window(|out, pixels, divisor| {
                let y = &mut y[out..out + self.c];
                if self.kind == Kind::Maximum {
                    for (c, y) in y.iter_mut().enumerate() {
                        *y = x[Self::largest(x, pixels, c)];
                    }
                    return;
                }
                sums.fill(0.0);
                for &p in pixels {
                    for (sum, x) in sums.iter_mut().zip(&x[p..p + self.c]) {
                        *sum += x.read();
                    }
                }
                for (y, sum) in y.iter_mut().zip(&sums) {
                    *y = T::write(sum / divisor);
                }
            });
        });
        y
    }

    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        let (in_len, out_len) = self.image_lens();
        let mut gx = vec![T::write(0.0); x.len()];
        let add = |to: &mut T, amount: f64| *to = T::write(to.read() + amount);
        team::for_each_chunk(&mut gx, in_len, |image, gx| {
            let (x, gy) = (&x[image * in_len..][..in_len], &gy[image * out_len..][..out_len]);
            self.for_each_window(|out, pixels, divisor| {
                let gy = &gy[out..out + self.c];
                if self.kind == Kind::Maximum {
                    for (c, g) in gy.iter().enumerate() {
                        add(&mut gx[Self::largest(x, pixels, c)], g.read());
                    }
                    return;
                }
                for &p in pixels {
                    for (gx, g) in gx[p..p + self.c].iter_mut().zip(gy) {
                        add(gx, g.read() / divisor);
                    }
                }
            });
        });
        gx
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor> {
        let window = self.window_on_device();
        match self.kind {
            Kind::Maximum => crate::cuda::maximum(x, window),
            Kind::Average => crate::cuda::average(x, window, DType::F32),
        }
    }

    #[cfg(feature = "cuda")]
    fn gradient_on_device(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        let window = self.window_on_device();
        match self.kind {
            Kind::Maximum => crate::cuda::maximum_gradient(x, gy, window),
            Kind::Average => crate::cuda::average_gradient(x, gy, window),
        }
    }
}
