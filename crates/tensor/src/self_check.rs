//! Every op in f32, as this machine runs it, against its plain version in f64: what `invaspread doctor` prints.

use crate::{
    Algorithm, BatchNormConfig, Conv2dConfig, LocalResponseNormConfig, PoolConfig, avg_pool2d, batch_norm,
    conv2d, l2_normalize, linear, local_response_norm, max_pool2d,
};
use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};

/// One op's error on this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    /// The op and the path it took.
    pub op: &'static str,
    /// Norm of the difference of output and gradients, relative to theirs.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
}

impl Check {
    /// Whether the error is within the tolerance; a NaN is not.
    pub fn is_good(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Runs every op forward and backward on small inputs.
///
/// # Errors
/// If an op fails outright.
pub fn self_check() -> Result<Vec<Check>> {
    let conv = |kernel: usize, stride, algorithm| Conv2dConfig { stride, padding: kernel / 2, algorithm };
    let shapes: [(&'static str, &[&[usize]], f64, Op); 11] = [
        (
            "conv2d 3x3, direct",
            &[&[3, 9, 7, 32], &[3, 3, 32, 48]],
            1e-5,
            Box::new(move |t| conv2d(&t[0], &t[1], conv(3, 1, Algorithm::Direct))),
        ),
        (
            "conv2d 3x3, Winograd",
            &[&[3, 9, 7, 32], &[3, 3, 32, 48]],
            1e-4,
            Box::new(move |t| conv2d(&t[0], &t[1], conv(3, 1, Algorithm::Fastest))),
        ),
        (
            "conv2d 3x3, stride 2",
            &[&[3, 9, 7, 32], &[3, 3, 32, 48]],
            1e-5,
            Box::new(move |t| conv2d(&t[0], &t[1], conv(3, 2, Algorithm::Fastest))),
        ),
        (
            "conv2d 3x3, stem",
            &[&[3, 9, 7, 3], &[3, 3, 3, 16]],
            1e-5,
            Box::new(move |t| conv2d(&t[0], &t[1], conv(3, 1, Algorithm::Fastest))),
        ),
        (
            "batch norm",
            &[&[6, 5, 5, 32], &[32], &[32]],
            1e-4,
            Box::new(|t| Ok(batch_norm(&t[0], &t[1], &t[2], None, BatchNormConfig::default())?.0)),
        ),
        (
            "batch norm, residual",
            &[&[6, 5, 5, 32], &[32], &[32], &[6, 5, 5, 32]],
            1e-4,
            Box::new(|t| Ok(batch_norm(&t[0], &t[1], &t[2], Some(&t[3]), BatchNormConfig::default())?.0)),
        ),
        (
            "maximum pooling",
            &[&[2, 7, 7, 16]],
            1e-6,
            Box::new(|t| max_pool2d(&t[0], PoolConfig { kernel: 3, stride: 2, padding: 1, ceil_mode: true })),
        ),
        ("average pooling", &[&[2, 7, 7, 16]], 1e-6, Box::new(|t| avg_pool2d(&t[0], PoolConfig::square(4)))),
        (
            "local response norm",
            &[&[2, 5, 5, 16]],
            1e-6,
            Box::new(|t| {
                local_response_norm(&t[0], LocalResponseNormConfig { alpha: 0.5, ..Default::default() })
            }),
        ),
        ("linear", &[&[9, 64], &[32, 64], &[32]], 1e-5, Box::new(|t| linear(&t[0], &t[1], &t[2]))),
        ("L2 normalisation", &[&[8, 128]], 1e-5, Box::new(|t| l2_normalize(&t[0]))),
    ];
    shapes
        .into_iter()
        .enumerate()
        .map(|(i, (op, shapes, tolerance, f))| {
            Ok(Check { op, error: error(i as u64, shapes, &f)?, tolerance })
        })
        .collect()
}

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// Largest relative error of the output and of every gradient, f32 against f64 on the same values.
fn error(index: u64, shapes: &[&[usize]], f: &Op) -> Result<f64> {
    let mut stream = Stream::new(0, Purpose::Bootstrap, 0, index);
    let inputs: Vec<Tensor> = shapes
        .iter()
        .map(|shape| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
            Tensor::from_vec(values, *shape, &Device::Cpu)
        })
        .collect::<Result<_>>()?;
    let run = |dtype: DType| -> Result<Vec<Vec<f64>>> {
        let variables: Vec<Var> =
            inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype)?)).collect::<Result<_>>()?;
        let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&tensors)?;
        let weights: Vec<f64> = (0..y.elem_count()).map(|i| (1.0 + i as f64 * 0.37).sin()).collect();
        let weights = Tensor::from_vec(weights, y.shape(), y.device())?.to_dtype(dtype)?;
        let gradients = (&y * weights)?.sum_all()?.backward()?;
        let wide = |x: &Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1();
        let mut results = vec![wide(&y)?];
        for variable in &variables {
            results.push(gradients.get(variable).map_or_else(|| Ok(Vec::new()), wide)?);
        }
        Ok(results)
    };
    let (single, double) = (run(DType::F32)?, run(DType::F64)?);
    let relative = |got: &[f64], want: &[f64]| {
        let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
        let size: f64 = want.iter().map(|w| w * w).sum();
        (difference / size.max(1e-30)).sqrt()
    };
    // A NaN must show: `f64::max` would drop it.
    Ok(single
        .iter()
        .zip(&double)
        .map(|(g, w)| relative(g, w))
        .fold(0.0, |worst, e| if e > worst || e.is_nan() { e } else { worst }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    #[test]
    fn this_machine_is_sound() {
        for check in super::self_check().unwrap() {
            assert!(check.is_good(), "{check:?}");
        }
    }
}
