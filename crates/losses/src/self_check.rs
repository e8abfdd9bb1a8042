//! Compares value and gradients of every objective on the GPU with the same objective in f64 on the CPU.
//! `invaspread doctor` prints the result, and the tests check it.

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::self_check::Check;

use crate::{Case, Context, MemoryBank, Sizes, all_cases};

/// Error allowed in value and gradients, relative to their norms.
const TOLERANCE: f64 = 1e-4;

/// Runs every objective on `device`, which is CUDA, with batches of `images` images, features of `dim`
/// numbers and a memory of `entries`.
///
/// # Errors
/// If an objective returns an error.
pub fn self_check_on(device: &Device, images: usize, dim: usize, entries: usize) -> Result<Vec<Check>> {
    let index: Vec<u32> = (0..images).map(|i| ((i * 7 + 3) % entries) as u32).collect();
    let sizes = Sizes { images, dim, entries };
    let bank = MemoryBank::new(entries, dim, 0)?;
    let there = bank.to_device(device)?;
    let mut checks = Vec::new();
    for (number, case) in all_cases().into_iter().enumerate() {
        let inputs: Vec<Tensor> = case
            .inputs
            .iter()
            .enumerate()
            .map(|(i, input)| unit_rows(number + 100 * i, input.shape(sizes)))
            .collect::<Result<_>>()?;
        let run = |dtype, device: &Device, memory| {
            run(&inputs, dtype, device, &case, &Context { memory, index: &index })
        };
        let error = largest(&run(DType::F32, device, &there)?, &run(DType::F64, &Device::Cpu, &bank)?);
        let op = if case.has_cuda_kernel {
            case.name.into()
        } else {
            format!("{}, on the host", case.name).into()
        };
        checks.push(Check { op, error, tolerance: TOLERANCE });
    }
    checks.push(memory_update(device, &bank, &index)?);
    Ok(checks)
}

/// Returns the memory after two updates, with an image that comes twice.
fn memory_update(device: &Device, bank: &MemoryBank, index: &[u32]) -> Result<Check> {
    let mut index = index.to_vec();
    if let [first, .., last] = index.as_mut_slice() {
        *last = *first;
    }
    let features = unit_rows(1000, [index.len(), bank.dim()])?;
    let (mut here, mut there) = (bank.clone(), bank.to_device(device)?);
    for _ in 0..2 {
        here.update(&index, &features, 0.5)?;
        there.update(&index, &features.to_device(device)?, 0.5)?;
    }
    let wide = |bank: &MemoryBank| bank.tensor()?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    Ok(Check { op: "memory update".into(), error: relative(&wide(&there)?, &wide(&here)?), tolerance: 1e-6 })
}

/// Returns rows of length 1, f32 on the CPU, so close to one another that no softmax is nearly 0 or 1.
fn unit_rows(number: usize, [rows, dim]: [usize; 2]) -> Result<Tensor> {
    let mut stream = Stream::new(0, Purpose::Bootstrap, 1, number as u64);
    let mut values = Vec::with_capacity(rows * dim);
    for _ in 0..rows {
        let row: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        values.extend(row.iter().map(|x| (x / length) as f32));
    }
    Tensor::from_vec(values, (rows, dim), &Device::Cpu)
}

/// Returns the value, and the gradients of all inputs.
fn run(
    inputs: &[Tensor],
    dtype: DType,
    device: &Device,
    case: &Case,
    context: &Context<'_>,
) -> Result<Vec<Vec<f64>>> {
    let variables: Vec<Var> = inputs
        .iter()
        .map(|x| Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?))
        .collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let loss = (case.loss)(&tensors, context)?;
    let gradients = loss.backward()?;
    let wide = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let mut results = vec![wide(&loss)?];
    for variable in &variables {
        results.push(gradients.get(variable).map_or_else(|| Ok(Vec::new()), wide)?);
    }
    Ok(results)
}

fn relative(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    (difference / size.max(1e-30)).sqrt()
}

/// Returns the largest relative error; a NaN stays one.
fn largest(got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    got.iter()
        .zip(want)
        .map(|(g, w)| relative(g, w))
        .fold(0.0, |worst, e| if e > worst || e.is_nan() { e } else { worst })
}
