//! Batch normalization by given statistics, as in evaluation.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use half::bf16;

use super::{Affine, BatchNormConfig, Statistics, apply, check, plain, values};
use crate::memory::uninitialized;
use crate::storage::slice;

/// Normalizes by the given statistics (evaluation mode). Not differentiable.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use invaspread_tensor::{BatchNormConfig, Statistics, batch_norm_with};
///
/// let x = Tensor::new(&[[5f64, 0.0]], &Device::Cpu)?;
/// let gain = Tensor::ones(2, DType::F64, &Device::Cpu)?;
/// let shift = Tensor::zeros(2, DType::F64, &Device::Cpu)?;
/// let statistics = Statistics { mean: vec![1.0, 1.0], variance: vec![4.0, 1.0] };
/// // A ReLU follows, so the second channel, which would be -1, is 0.
/// let config = BatchNormConfig { eps: 0.0, relu: true, ..BatchNormConfig::default() };
/// let y = batch_norm_with(&x, &gain, &shift, None, &statistics, config)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[2.0, 0.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes or the data types do not match.
pub fn batch_norm_with(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    statistics: &Statistics,
    config: BatchNormConfig,
) -> Result<Tensor> {
    let channels = check(x, gamma, beta, residual)?;
    if statistics.mean.len() != channels || statistics.variance.len() != channels {
        bail!("batch_norm: statistics of {} channels for {channels}", statistics.mean.len())
    }
    let (gamma, beta) = (values(gamma)?, values(beta)?);
    let op = Evaluation { affine: Affine::new(&gamma, &beta, statistics, config.eps), relu: config.relu };
    let x = x.detach().contiguous()?;
    match residual {
        Some(residual) => x.apply_op2(&residual.detach().contiguous()?, op),
        None => x.apply_op1(EvaluationAlone(op)),
    }
}

/// The candle op in evaluation mode, with a residual.
struct Evaluation {
    affine: Affine,
    relu: bool,
}

impl Evaluation {
    fn run(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        r: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        macro_rules! run {
            ($number:ty, $storage:path) => {{
                let x = slice::<$number>(x, lx)?;
                let mut y = uninitialized(x.len());
                let residual = r.map(|(r, l)| slice::<$number>(r, l)).transpose()?;
                apply(x, residual, &self.affine, self.relu, &mut y);
                $storage(y)
            }};
        }
        let y = match x {
            CpuStorage::F32(_) => run!(f32, CpuStorage::F32),
            CpuStorage::BF16(_) => run!(bf16, CpuStorage::BF16),
            _ => {
                let x = slice::<f64>(x, lx)?;
                let mut y = vec![0.0; x.len()];
                let residual = r.map(|(r, l)| slice::<f64>(r, l)).transpose()?;
                plain::apply(x, residual, &self.affine, self.relu, &mut y);
                CpuStorage::F64(y)
            }
        };
        Ok((y, lx.shape().clone()))
    }
}

impl CustomOp2 for Evaluation {
    fn name(&self) -> &'static str {
        "batch_norm_with_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        r: &CpuStorage,
        lr: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(x, lx, Some((r, lr)))
    }
}

/// The candle op in evaluation mode, without a residual.
struct EvaluationAlone(Evaluation);

impl CustomOp1 for EvaluationAlone {
    fn name(&self) -> &'static str {
        "batch_norm_with"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.run(x, lx, None)
    }
}
