//! Batch normalization, fused with the addition and the ReLU that follow it in a residual network.
//!
//! `y = relu?(gamma (x - mean) / sqrt(variance + eps) + beta (+ residual))`, with mean and biased variance
//! over all axes but the last. Shapes: `x`, `residual` and `y` (N, H, W, C) or (N, C); `gamma`, `beta` (C).
//! Maps are f32, bf16 (with `gamma` and `beta` in f32) or f64. Fused kernels compute f32 and bf16 with C a
//! multiple of 16; plain code computes the rest.
//!
//! With `chunk`, the statistics are taken over that many images at a time, in order, as when a batch is split
//! over several GPUs. The official code ran on four GPUs by default, so 64 of its 256 views shared their
//! statistics, and the running statistics followed the first GPU's.

mod config;
mod evaluation;
mod fused;
mod plain;
mod running;

pub use config::{BatchNormConfig, Statistics};
pub use evaluation::batch_norm_with;
pub use running::RunningStatistics;

pub(crate) use config::Gradients;

use crate::memory::uninitialized;
use crate::simd::Number;
use crate::storage::{Scalar, slice, with};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;
use std::sync::{Arc, Mutex, PoisonError};

/// Normalizes by the batch's own statistics (training mode). Returns the output and the statistics of the
/// first chunk.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use invaspread_tensor::{BatchNormConfig, batch_norm};
///
/// // One channel with the values 1 and 3: mean 2, biased variance 1.
/// let x = Tensor::new(&[[1f64], [3.0]], &Device::Cpu)?;
/// let gain = Tensor::ones(1, DType::F64, &Device::Cpu)?;
/// let shift = Tensor::zeros(1, DType::F64, &Device::Cpu)?;
/// let config = BatchNormConfig { eps: 0.0, ..BatchNormConfig::default() };
/// let (y, statistics) = batch_norm(&x, &gain, &shift, None, config)?;
/// assert_eq!((statistics.mean[0], statistics.variance[0]), (2.0, 1.0));
/// assert_eq!(y.to_vec2::<f64>()?, [[-1.0], [1.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes or the data types do not match, or the chunk size does not divide the batch.
pub fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    config: BatchNormConfig,
) -> Result<(Tensor, Statistics)> {
    let chunk_len = check_training(x, gamma, beta, residual, config)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return on_device(x, [gamma, beta], residual, config, chunk_len);
    }
    let saved = Saved::default();
    let op = Differentiable { config, chunk_len, saved: saved.clone() };
    let parameters = Tensor::stack(&[gamma, beta], 0)?;
    let x = x.contiguous()?;
    let y = match residual {
        Some(residual) => x.apply_op3(&parameters, &residual.contiguous()?, op)?,
        None => x.apply_op2(&parameters, op)?,
    };
    let saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ran) = &*saved else { bail!("batch_norm: the forward pass did not run") };
    Ok((y, ran.first_statistics().clone()))
}

/// Runs [`batch_norm`] on CUDA, as part of candle's graph.
#[cfg(feature = "cuda")]
fn on_device(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    config: BatchNormConfig,
    chunk_len: usize,
) -> Result<(Tensor, Statistics)> {
    use crate::cuda::{normalize, normalize_gradients};
    use crate::differentiable;
    let (x, residual) = (x.contiguous()?, residual.map(Tensor::contiguous).transpose()?);
    let (saved, y) = normalize(&x, [gamma, beta], residual.as_ref(), config, chunk_len, None)?;
    let statistics = saved.first_statistics()?;
    let y = match residual {
        None => differentiable("batch_norm", [&x, gamma, beta], y, move |[x, gamma, beta], y, gy| {
            let back = normalize_gradients(&saved, [x, y, &gy.contiguous()?], [gamma, beta], false)?;
            Ok([Some(back.x), Some(back.gamma), Some(back.beta)])
        })?,
        // candle's ops take three inputs at most, so the two parameters go in as one.
        Some(residual) => {
            let parameters = Tensor::stack(&[gamma, beta], 0)?;
            let name = "batch_norm_residual";
            differentiable(name, [&x, &parameters, &residual], y, move |[x, parameters, _], y, gy| {
                let parameters = [parameters.get(0)?, parameters.get(1)?];
                let [gamma, beta] = [&parameters[0], &parameters[1]];
                let back = normalize_gradients(&saved, [x, y, &gy.contiguous()?], [gamma, beta], true)?;
                Ok([Some(back.x), Some(Tensor::stack(&[back.gamma, back.beta], 0)?), back.residual])
            })?
        }
    };
    Ok((y, statistics))
}

/// A batch norm after its forward pass, on either device, with what its gradients need.
pub(crate) enum Normalized {
    Host(BatchNorm),
    #[cfg(feature = "cuda")]
    OnDevice(crate::cuda::Saved),
}

impl Normalized {
    /// Computes the gradients; see [`BatchNorm::gradients`].
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the host keeps what it needs of the parameters")
    )]
    pub(crate) fn gradients(
        &self,
        flow: [&Tensor; 3],
        parameters: [&Tensor; 2],
        residual: bool,
    ) -> Result<Gradients> {
        match self {
            Self::Host(ran) => ran.gradients(flow[0], flow[1], flow[2], residual),
            #[cfg(feature = "cuda")]
            Self::OnDevice(saved) => {
                let [x, y, gy] = flow;
                crate::cuda::normalize_gradients(saved, [x, y, &gy.contiguous()?], parameters, residual)
            }
        }
    }
}

/// Runs training mode for the tape: returns the output and what its gradients need, and moves the running
/// statistics.
pub(crate) fn normalize(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    config: BatchNormConfig,
    running: &mut RunningStatistics,
) -> Result<(Normalized, Tensor)> {
    let chunk_len = check_training(x, gamma, beta, residual, config)?;
    let rows = chunk_len / gamma.elem_count();
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let numbers = Some((running.on_device()?, running::SHARE));
        let (saved, y) = crate::cuda::normalize(x, [gamma, beta], residual, config, chunk_len, numbers)?;
        running.track(None, rows);
        return Ok((Normalized::OnDevice(saved), y));
    }
    let (op, y) = on_host(x, [gamma, beta], residual, config, chunk_len)?;
    running.track(Some(op.first_statistics()), rows);
    Ok((Normalized::Host(op), y))
}

fn on_host(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    config: BatchNormConfig,
    chunk_len: usize,
) -> Result<(BatchNorm, Tensor)> {
    let (gamma, beta) = (values(gamma)?, values(beta)?);
    macro_rules! run {
        ($scalar:ty, $forward:path) => {{
            let forward =
                |x: &[_], residual: Option<&[_]>| $forward(config, chunk_len, gamma, beta, x, residual);
            let (op, y) = match residual {
                Some(residual) => {
                    with::<$scalar, _>(x, |x| with::<$scalar, _>(residual, |r| forward(x, Some(r))))??
                }
                None => with::<$scalar, _>(x, |x| forward(x, None))?,
            };
            Ok((op, Tensor::from_vec(y, x.shape(), x.device())?))
        }};
    }
    match x.dtype() {
        DType::F32 => run!(f32, BatchNorm::forward),
        DType::BF16 => run!(bf16, BatchNorm::forward),
        _ => run!(f64, BatchNorm::forward_f64),
    }
}

fn check(x: &Tensor, gamma: &Tensor, beta: &Tensor, residual: Option<&Tensor>) -> Result<usize> {
    let channels = x.dim(candle_core::D::Minus1)?;
    if gamma.dims() != [channels] || beta.dims() != [channels] {
        bail!("batch_norm: {channels} channels, but gamma {:?} and beta {:?}", gamma.shape(), beta.shape())
    }
    if let Some(residual) = residual
        && residual.dims() != x.dims()
    {
        bail!("batch_norm: input {:?}, but residual {:?}", x.shape(), residual.shape())
    }
    Ok(channels)
}

/// Checks the arguments of training mode and returns the number of values of each chunk of images.
fn check_training(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    config: BatchNormConfig,
) -> Result<usize> {
    check(x, gamma, beta, residual)?;
    let images = x.dim(0)?;
    let chunk = if config.chunk == 0 { images } else { config.chunk };
    if images == 0 || images % chunk != 0 {
        bail!("batch_norm: a batch of {images} images cannot be cut into chunks of {chunk}")
    }
    Ok(x.elem_count() / images * chunk)
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.to_vec1()
}

/// The function `scale (x - mean) + shift` of each channel.
struct Affine {
    mean: Vec<f64>,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn new(gamma: &[f64], beta: &[f64], statistics: &Statistics, eps: f64) -> Self {
        let scale = gamma.iter().zip(&statistics.variance).map(|(g, v)| g / (v + eps).sqrt()).collect();
        Self { mean: statistics.mean.clone(), scale, shift: beta.to_vec() }
    }

    /// Returns mean, scale and shift in the precision of the fused kernels.
    fn narrow(&self) -> [Vec<f32>; 3] {
        [&self.mean, &self.scale, &self.shift].map(|values| values.iter().map(|v| *v as f32).collect())
    }
}

fn apply<X: Number + Scalar>(x: &[X], residual: Option<&[X]>, affine: &Affine, relu: bool, y: &mut [X]) {
    if fused::fits(affine.scale.len()) {
        fused::apply(x, residual, affine, relu, y);
    } else {
        plain::apply(x, residual, affine, relu, y);
    }
}

/// A batch norm after its forward pass: what its gradients need besides the tensors.
#[derive(Debug, Clone)]
pub(crate) struct BatchNorm {
    config: BatchNormConfig,
    chunk_len: usize,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    with_residual: bool,
    /// The statistics of each chunk.
    statistics: Vec<Statistics>,
}

/// The normalization of one chunk.
#[derive(Clone, Copy)]
pub(crate) struct Ran<'a> {
    gamma: &'a [f64],
    beta: &'a [f64],
    statistics: &'a Statistics,
    eps: f64,
    relu: bool,
    with_residual: bool,
}

impl BatchNorm {
    pub(crate) fn first_statistics(&self) -> &Statistics {
        &self.statistics[0]
    }

    fn forward<X: Number + Scalar>(
        config: BatchNormConfig,
        chunk_len: usize,
        gamma: Vec<f64>,
        beta: Vec<f64>,
        x: &[X],
        residual: Option<&[X]>,
    ) -> (Self, Vec<X>) {
        let channels = gamma.len();
        let mut y = uninitialized(x.len());
        let mut all = Vec::new();
        for (i, (x, y)) in x.chunks(chunk_len).zip(y.chunks_mut(chunk_len)).enumerate() {
            let statistics = if fused::fits(channels) {
                fused::statistics(x, channels)
            } else {
                plain::statistics(x, channels)
            };
            let affine = Affine::new(&gamma, &beta, &statistics, config.eps);
            let residual = residual.map(|r| &r[i * chunk_len..][..x.len()]);
            apply(x, residual, &affine, config.relu, y);
            all.push(statistics);
        }
        (Self { config, chunk_len, gamma, beta, with_residual: residual.is_some(), statistics: all }, y)
    }

    fn forward_f64(
        config: BatchNormConfig,
        chunk_len: usize,
        gamma: Vec<f64>,
        beta: Vec<f64>,
        x: &[f64],
        residual: Option<&[f64]>,
    ) -> (Self, Vec<f64>) {
        let mut y = vec![0.0; x.len()];
        let mut all = Vec::new();
        for (i, (x, y)) in x.chunks(chunk_len).zip(y.chunks_mut(chunk_len)).enumerate() {
            let statistics = plain::statistics(x, gamma.len());
            let affine = Affine::new(&gamma, &beta, &statistics, config.eps);
            let residual = residual.map(|r| &r[i * chunk_len..][..x.len()]);
            plain::apply(x, residual, &affine, config.relu, y);
            all.push(statistics);
        }
        (Self { config, chunk_len, gamma, beta, with_residual: residual.is_some(), statistics: all }, y)
    }

    /// Returns the gradients, given the input, the output and the output's gradient. The residual's gradient
    /// is among them if there is a residual and `residual` is true.
    pub(crate) fn gradients(&self, x: &Tensor, y: &Tensor, gy: &Tensor, residual: bool) -> Result<Gradients> {
        let gy = gy.contiguous()?;
        let channels = self.gamma.len();
        let (mut grad_gamma, mut grad_beta) = (vec![0.0; channels], vec![0.0; channels]);
        let mut add = |(gamma, beta): (Vec<f64>, Vec<f64>)| {
            grad_gamma.iter_mut().zip(gamma).for_each(|(total, part)| *total += part);
            grad_beta.iter_mut().zip(beta).for_each(|(total, part)| *total += part);
        };
        let len = x.elem_count();
        macro_rules! run {
            ($scalar:ty, $buffer:expr, $backward:expr) => {{
                let mut gx = $buffer;
                let mut gr = if residual { Some($buffer) } else { None };
                with::<$scalar, _>(x, |x| {
                    with::<$scalar, _>(y, |y| {
                        with::<$scalar, _>(&gy, |gy| {
                            for (i, statistics) in self.statistics.iter().enumerate() {
                                let range = i * self.chunk_len..(i + 1) * self.chunk_len;
                                let flow = (&x[range.clone()], &y[range.clone()], &gy[range.clone()]);
                                let gr = gr.as_mut().map(|g| &mut g[range.clone()]);
                                let ran = Ran {
                                    gamma: &self.gamma,
                                    beta: &self.beta,
                                    statistics,
                                    eps: self.config.eps,
                                    relu: self.config.relu,
                                    with_residual: self.with_residual,
                                };
                                add($backward(flow, &ran, &mut gx[range], gr));
                            }
                        })
                    })
                })???;
                let tensor = |values| Tensor::from_vec(values, x.shape(), x.device());
                (tensor(gx)?, gr.map(tensor).transpose()?)
            }};
        }
        let (gx, gr) = match x.dtype() {
            DType::F32 if fused::fits(channels) => run!(f32, uninitialized(len), fused::backward),
            DType::F32 => run!(f32, uninitialized(len), plain::backward),
            DType::BF16 if fused::fits(channels) => run!(bf16, uninitialized(len), fused::backward),
            DType::BF16 => run!(bf16, uninitialized(len), plain::backward),
            _ => run!(f64, vec![0.0f64; len], plain::backward),
        };
        let of_parameters = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let parameter = |values: Vec<f64>| Tensor::new(values, x.device())?.to_dtype(of_parameters);
        Ok(Gradients { x: gx, gamma: parameter(grad_gamma)?, beta: parameter(grad_beta)?, residual: gr })
    }
}

/// The numbers that the forward pass of the candle op leaves for its backward pass.
type Saved = Arc<Mutex<Option<BatchNorm>>>;

/// The candle op in training mode. Its inputs are the input, gamma and beta stacked, and optionally a
/// residual.
struct Differentiable {
    config: BatchNormConfig,
    chunk_len: usize,
    saved: Saved,
}

impl Differentiable {
    fn forward(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        p: &CpuStorage,
        lp: &Layout,
        r: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let split = |parameters: Vec<f64>| {
            let (gamma, beta) = parameters.split_at(parameters.len() / 2);
            (gamma.to_vec(), beta.to_vec())
        };
        let (op, y) = match x {
            CpuStorage::F32(_) => {
                let residual = r.map(|(r, l)| slice::<f32>(r, l)).transpose()?;
                let (gamma, beta) = split(slice::<f32>(p, lp)?.iter().map(|p| f64::from(*p)).collect());
                let x = slice::<f32>(x, lx)?;
                let (op, y) = BatchNorm::forward(self.config, self.chunk_len, gamma, beta, x, residual);
                (op, CpuStorage::F32(y))
            }
            CpuStorage::BF16(_) => {
                let residual = r.map(|(r, l)| slice::<bf16>(r, l)).transpose()?;
                let (gamma, beta) = split(slice::<f32>(p, lp)?.iter().map(|p| f64::from(*p)).collect());
                let x = slice::<bf16>(x, lx)?;
                let (op, y) = BatchNorm::forward(self.config, self.chunk_len, gamma, beta, x, residual);
                (op, CpuStorage::BF16(y))
            }
            _ => {
                let residual = r.map(|(r, l)| slice::<f64>(r, l)).transpose()?;
                let (gamma, beta) = split(slice::<f64>(p, lp)?.to_vec());
                let x = slice::<f64>(x, lx)?;
                let (op, y) = BatchNorm::forward_f64(self.config, self.chunk_len, gamma, beta, x, residual);
                (op, CpuStorage::F64(y))
            }
        };
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(op);
        Ok((y, lx.shape().clone()))
    }

    /// Returns the gradients of the input, the stacked parameters and the residual.
    fn backward(
        &self,
        x: &Tensor,
        y: &Tensor,
        gy: &Tensor,
        residual: bool,
    ) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ran) = &*saved else { bail!("batch_norm: there was no forward pass to go back through") };
        let back = ran.gradients(x, y, gy, residual)?;
        Ok((back.x, Tensor::stack(&[back.gamma, back.beta], 0)?, back.residual))
    }
}

impl CustomOp2 for Differentiable {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        p: &CpuStorage,
        lp: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(x, lx, p, lp, None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        _parameters: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gp, _) = self.backward(x, y, gy, false)?;
        Ok((Some(gx), Some(gp)))
    }
}

impl CustomOp3 for Differentiable {
    fn name(&self) -> &'static str {
        "batch_norm_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        p: &CpuStorage,
        lp: &Layout,
        r: &CpuStorage,
        lr: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(x, lx, p, lp, Some((r, lr)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _parameters: &Tensor,
        _residual: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (gx, gp, gr) = self.backward(x, y, gy, true)?;
        Ok((Some(gx), Some(gp), gr))
    }
}
