//! Compares every op in f32, as this machine runs it, with its plain version in f64. `invaspread doctor`
//! prints the result.

use std::borrow::Cow;

use crate::{
    Algorithm, BatchNormConfig, Conv2dConfig, InstructionSet, LocalResponseNormConfig, PoolConfig, Precision,
    attention, avg_pool2d, batch_norm, bias_relu, conv2d, gelu, instruction_set, l2_normalize, layer_norm,
    linear, local_response_norm, max_pool2d, token_offsets, tokens,
};
use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};

/// The error of one op on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The op and the path it took.
    pub op: Cow<'static, str>,
    /// Norm of the difference between the f32 and f64 results, relative to the norm of the f64 result: the
    /// largest over the output and the gradients. For the NaN check: the number of ops that do not pass a NaN
    /// on.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
}

impl Check {
    /// Returns whether the error is within the tolerance; a NaN is not.
    pub fn is_good(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Runs every op of the CPU forward and backward on small inputs.
///
/// # Errors
/// If an op itself fails.
pub fn self_check() -> Result<Vec<Check>> {
    ops()
        .into_iter()
        .enumerate()
        .map(|(i, (op, shapes, tolerance, f))| {
            Ok(Check { op: op.into(), error: error(i as u64, shapes, &f)?, tolerance })
        })
        .chain([not_a_number(&Device::Cpu, DType::F32)])
        .collect()
}

/// Counts the ops with a maximum or a length that do not pass a NaN on. There must be none.
fn not_a_number(device: &Device, dtype: DType) -> Result<Check> {
    let map = [f32::NAN, -1.0, 2.0, f32::NAN];
    let x = Tensor::new(&map, &Device::Cpu)?.repeat(4)?.to_dtype(dtype)?.to_device(device)?;
    let (rows, map) = (x.reshape((1, 16))?, x.reshape((1, 2, 2, 4))?);
    let [ones, zeros] = [1.0f32, 0.0].map(|value| Tensor::new(&[value; 16], device));
    let (ones, zeros) = (ones?, zeros?);
    let none = rows.zeros_like()?;
    let config = BatchNormConfig { relu: true, ..BatchNormConfig::default() };
    let batch = Tensor::cat(&[&rows, &none], 0)?;
    let residual = Some(&batch);
    let normalized = batch_norm(&batch, &ones, &zeros, None, config)?.0;
    let added = batch_norm(&batch.zeros_like()?, &ones, &zeros, residual, config)?.0;
    let mut results = vec![
        bias_relu(&rows, &zeros)?,
        normalized,
        added,
        max_pool2d(&map, PoolConfig::square(2))?,
        l2_normalize(&rows.to_dtype(DType::F32)?)?,
    ];
    if dtype == DType::F32 {
        let three = rows.narrow(1, 0, 3)?.contiguous()?;
        results.extend([gelu(&rows)?, layer_norm(&batch, &ones, &zeros, 1e-6)?, attention(&three, 1, 1)?]);
    }
    let mut swallowed = 0;
    for y in results {
        let first: f32 =
            y.flatten_all()?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.get(0)?.to_scalar()?;
        swallowed += usize::from(!first.is_nan());
    }
    Ok(Check { op: "NaN through maximum and ReLU".into(), error: swallowed as f64, tolerance: 0.0 })
}

/// Runs every op forward and backward on `device` in `precision` (on the CPU f32 or bf16), and compares it
/// with the plain f64 version on the CPU. Both take the same inputs (rounded to bf16 if that is the
/// precision).
///
/// # Errors
/// If an op itself fails.
pub fn self_check_on(device: &Device, precision: Precision) -> Result<Vec<Check>> {
    let (dtype, tolerance) = match precision {
        Precision::F32 => (DType::F32, 1e-4),
        Precision::Tf32 => (DType::F32, 2e-3),
        Precision::Bf16 => (DType::BF16, 1e-2),
    };
    let tf32 = precision != Precision::F32;
    ops_with(tf32)
        .into_iter()
        .enumerate()
        // Ops on the embedding and those of transformers run in f32 in every precision.
        .filter(|(_, (op, ..))| dtype == DType::F32 || !["linear", "L2 normalization"].contains(op))
        .filter(|(_, (op, ..))| dtype == DType::F32 || !OF_TRANSFORMERS.contains(op))
        .map(|(i, (op, shapes, _, f))| {
            let inputs = inputs(i as u64, shapes)?;
            // Maps and residuals are activations; vectors and weights stay f32.
            let maps = |at: usize| at == 0 || (at == 3 && shapes[at].len() == 4);
            let rounded =
                inputs
                    .iter()
                    .enumerate()
                    .map(|(at, x)| {
                        if maps(at) {
                            x.to_dtype(dtype)?.to_dtype(DType::F64)
                        } else {
                            x.to_dtype(DType::F64)
                        }
                    })
                    .collect::<Result<Vec<_>>>()?;
            let double = run(&rounded, dtype, &f)?;
            let here = inputs
                .iter()
                .enumerate()
                .map(
                    |(at, x)| {
                        if maps(at) { x.to_dtype(dtype)?.to_device(device) } else { x.to_device(device) }
                    },
                )
                .collect::<Result<Vec<_>>>()?;
            let pairs = device.is_cpu() && instruction_set() == InstructionSet::Avx512Bf16;
            let tolerance = if pairs && op == WINOGRAD { WINOGRAD_IN_PAIRS } else { tolerance };
            Ok(Check { op: op.into(), error: largest(&run(&here, dtype, &f)?, &double), tolerance })
        })
        .chain([not_a_number(device, dtype)])
        .collect()
}

const WINOGRAD: &str = "conv2d 3x3, Winograd";

/// The error allowed of Winograd's algorithm with products of pairs of bf16. It was at most 0.015 over random
/// shapes, that of the gradients.
const WINOGRAD_IN_PAIRS: f64 = 2e-2;

/// An op's name, the shapes of its inputs, the error allowed on the CPU, and the op.
type Case = (&'static str, &'static [&'static [usize]], f64, Op);

/// The ops of vision transformers.
const OF_TRANSFORMERS: [&str; 4] = ["layer norm", "GELU", "attention", "tokens of patches"];

fn ops() -> [Case; 16] {
    ops_with(false)
}

/// Lists the ops; for `tf32` see [`Conv2dConfig`].
fn ops_with(tf32: bool) -> [Case; 16] {
    let conv = move |kernel: usize, stride, algorithm| {
        let padding = kernel / 2;
        Conv2dConfig { stride, padding, algorithm, tf32 }
    };
    [
        (
            "conv2d 3x3, direct",
            &[&[3, 9, 7, 32], &[3, 3, 32, 48]],
            1e-5,
            Box::new(move |t| conv2d(&t[0], &t[1], conv(3, 1, Algorithm::Direct))),
        ),
        (
            WINOGRAD,
            &[&[3, 9, 7, 32], &[3, 3, 32, 48]],
            1e-5,
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
        ("bias and ReLU", &[&[3, 9, 7, 24], &[24]], 1e-5, Box::new(|t| bias_relu(&t[0], &t[1]))),
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
        ("L2 normalization", &[&[8, 128]], 1e-5, Box::new(|t| l2_normalize(&t[0]))),
        (
            OF_TRANSFORMERS[0],
            &[&[70, 48], &[48], &[48]],
            1e-5,
            Box::new(|t| layer_norm(&t[0], &t[1], &t[2], 1e-6)),
        ),
        (OF_TRANSFORMERS[1], &[&[9, 64]], 1e-5, Box::new(|t| gelu(&t[0]))),
        (OF_TRANSFORMERS[2], &[&[2 * 17, 3 * 2 * 16]], 1e-5, Box::new(|t| attention(&t[0], 17, 2))),
        (
            OF_TRANSFORMERS[3],
            &[&[2, 3, 2, 16], &[16], &[1, 1, 16], &[1, 10, 16]],
            1e-5,
            Box::new(|t| tokens(&t[0], &token_offsets(&t[1], &t[2], &t[3], [3, 2])?)),
        ),
    ]
}

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// Returns the largest relative error of the output and of every gradient: f32 against f64 on the same
/// values.
fn error(index: u64, shapes: &[&[usize]], f: &Op) -> Result<f64> {
    let single = inputs(index, shapes)?;
    let double = single.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
    Ok(largest(&run(&single, DType::F32, f)?, &run(&double, DType::F32, f)?))
}

/// Draws normal values in f32 on the CPU.
fn inputs(index: u64, shapes: &[&[usize]]) -> Result<Vec<Tensor>> {
    let mut stream = Stream::new(0, Purpose::Bootstrap, 0, index);
    shapes
        .iter()
        .map(|shape| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
            Tensor::from_vec(values, *shape, &Device::Cpu)
        })
        .collect()
}

/// Returns the op's output and the gradients of its inputs, for one gradient of the output that is rounded to
/// `upstream`.
fn run(inputs: &[Tensor], upstream: DType, f: &Op) -> Result<Vec<Vec<f64>>> {
    let variables: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    // A sum of many values needs more digits than bf16 has.
    let wider = if y.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let weights: Vec<f64> = (0..y.elem_count()).map(|i| (1.0 + i as f64 * 0.37).sin()).collect();
    // The gradient of the output has the type of the map: the same numbers on every side.
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu)?.to_dtype(upstream)?;
    let weights = weights.to_dtype(wider)?.to_device(y.device())?;
    let gradients = (y.to_dtype(wider)? * weights)?.sum_all()?.backward()?;
    let wide = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1();
    let mut results = vec![wide(&y)?];
    for variable in &variables {
        results.push(gradients.get(variable).map_or_else(|| Ok(Vec::new()), wide)?);
    }
    Ok(results)
}

/// Returns the largest norm of a difference, each relative to the norm of the expected values.
fn largest(got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    let relative = |got: &[f64], want: &[f64]| {
        let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
        let size: f64 = want.iter().map(|w| w * w).sum();
        (difference / size.max(1e-30)).sqrt()
    };
    // A NaN must remain visible; `f64::max` would drop it.
    got.iter()
        .zip(want)
        .map(|(g, w)| if g.len() == w.len() { relative(g, w) } else { f64::INFINITY })
        .fold(0.0, |worst, e| if e > worst || e.is_nan() { e } else { worst })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use crate::Precision;
    use candle_core::Device;

    #[test]
    fn this_machine_is_sound() {
        for check in super::self_check().unwrap() {
            assert!(check.is_good(), "{check:?}");
        }
    }

    #[test]
    fn this_machine_is_sound_in_bf16() {
        for check in super::self_check_on(&Device::Cpu, Precision::Bf16).unwrap() {
            assert!(check.is_good(), "{check:?}");
        }
    }
}
