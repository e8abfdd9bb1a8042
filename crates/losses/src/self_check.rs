//! Compares value and gradients of every objective on the GPU with the same objective in f64 on the CPU.
//! `invaspread doctor` prints the result, and the tests check it.

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::self_check::Check;

use crate::{
    Dcl, Exemplar, InvaSpread, KeySide, MemoryBank, Mining, Nce, Negatives, NpSoftmax, NtXent, Triplet,
    cluster_cross_entropy, draw_negatives, draw_noise,
};

/// Error allowed in value and gradients, relative to their norms.
const TOLERANCE: f64 = 1e-4;

/// An objective as a function of its inputs, which are on the device of the bank.
type Objective = Box<dyn Fn(&[Tensor], &MemoryBank) -> Result<Tensor>>;

/// Runs every objective on `device`, which is CUDA, with batches of `images` images, features of `dim`
/// numbers and a memory of `entries`.
///
/// # Errors
/// If an objective returns an error.
pub fn self_check_on(device: &Device, images: usize, dim: usize, entries: usize) -> Result<Vec<Check>> {
    let index: Vec<u32> = (0..images).map(|i| ((i * 7 + 3) % entries) as u32).collect();
    let inva = |key_side, negatives, negative_weight, temperature| -> Objective {
        let loss = InvaSpread { temperature, negative_weight, key_side, negatives };
        Box::new(move |x, _| loss.loss(&x[0]))
    };
    let exemplar = |temperature, normalize_weight| -> Objective {
        let index = index.clone();
        Box::new(move |x, _| Exemplar { temperature, normalize_weight }.loss(&x[0], &x[1], &index))
    };
    let (views, memory) = ([2 * images, dim], [entries, dim]);
    let (of_bank, of_noise, of_clusters) = (index.clone(), index.clone(), index.clone());
    let cases: Vec<(&'static str, Vec<[usize; 2]>, Objective)> = vec![
        ("InvaSpread", vec![views], inva(KeySide::Detached, Negatives::All, 1.0, 0.1)),
        ("InvaSpread, both sides", vec![views], inva(KeySide::BothSides, Negatives::All, 1.0, 0.1)),
        ("InvaSpread, weight 2", vec![views], inva(KeySide::Detached, Negatives::All, 2.0, 0.05)),
        ("InvaSpread, hardest half", vec![views], inva(KeySide::Detached, Negatives::HardestHalf, 1.0, 0.1)),
        ("InvaSpread, easiest half", vec![views], inva(KeySide::Detached, Negatives::EasiestHalf, 1.0, 0.1)),
        // Without a kernel: computed on the host, with copies from and to the GPU.
        ("NT-Xent, on the host", vec![views], Box::new(|x, _| NtXent::default().loss(&x[0]))),
        ("DCL, on the host", vec![views], Box::new(|x, _| Dcl::default().loss(&x[0]))),
        (
            "DCLW, on the host",
            vec![views],
            Box::new(|x, _| Dcl { sigma: Some(0.5), ..Dcl::default() }.loss(&x[0])),
        ),
        (
            "NPSoftmax",
            vec![[images, dim]],
            Box::new(move |x, bank| NpSoftmax::default().loss(&x[0], bank, &of_bank)),
        ),
        (
            "NCE",
            vec![[images, dim]],
            Box::new(move |x, bank| {
                let loss = Nce { noise_per_row: 50, ..Nce::default() };
                let noise = draw_noise(0, 1, 0, of_noise.len(), loss.noise_per_row, bank.len())?;
                loss.loss(&x[0], bank, &of_noise, &noise, &mut None)
            }),
        ),
        ("Exemplar", vec![[images, dim], memory], exemplar(0.2, false)),
        ("Exemplar, unit weights", vec![[images, dim], memory], exemplar(0.1, true)),
        (
            "triplet",
            vec![[images, dim], [images, dim]],
            Box::new(move |x, _| {
                let drawn = draw_negatives(0, 1, 0, x[0].dim(0)?)?;
                Triplet::default().loss(&x[0], &x[1], Some(&drawn))
            }),
        ),
        (
            "triplet, hardest",
            vec![[images, dim], [images, dim]],
            Box::new(|x, _| {
                Triplet { mining: Mining::Hardest, ..Triplet::default() }.loss(&x[0], &x[1], None)
            }),
        ),
        (
            "softmax of clusters",
            vec![[images, entries]],
            Box::new(move |x, _| cluster_cross_entropy(&x[0], &of_clusters)),
        ),
    ];
    let bank = MemoryBank::new(entries, dim, 0)?;
    let there = bank.to_device(device)?;
    let mut checks = Vec::new();
    for (number, (op, shapes, objective)) in cases.into_iter().enumerate() {
        let inputs: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(i, &shape)| unit_rows(number + 100 * i, shape))
            .collect::<Result<_>>()?;
        let want = run(&inputs, DType::F64, &Device::Cpu, &bank, &objective)?;
        let got = run(&inputs, DType::F32, device, &there, &objective)?;
        checks.push(Check { op, error: largest(&got, &want), tolerance: TOLERANCE });
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
    Ok(Check { op: "memory update", error: relative(&wide(&there)?, &wide(&here)?), tolerance: 1e-6 })
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
    bank: &MemoryBank,
    objective: &Objective,
) -> Result<Vec<Vec<f64>>> {
    let variables: Vec<Var> = inputs
        .iter()
        .map(|x| Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?))
        .collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let loss = objective(&tensors, bank)?;
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
