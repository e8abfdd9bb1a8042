//! Functions that the tests of several losses share: random rows, candle's gradients, finite differences,
//! thread pools.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};

/// Returns normal draws, rows x dim.
pub(crate) fn random_rows(rows: usize, dim: usize, seed: u64) -> Vec<f64> {
    let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
    (0..rows * dim).map(|_| stream.normal()).collect()
}

/// Returns random rows of unit length.
pub(crate) fn unit_rows(rows: usize, dim: usize, seed: u64) -> Vec<f64> {
    let mut x = random_rows(rows, dim, seed);
    for row in x.chunks_mut(dim) {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        for v in row {
            *v /= norm;
        }
    }
    x
}

/// Returns random indices below a bound.
pub(crate) fn random_index(len: usize, below: usize, seed: u64) -> Vec<u32> {
    let mut stream = Stream::new(seed, Purpose::Bootstrap, 1, 0);
    (0..len).map(|_| stream.below(below) as u32).collect()
}

pub(crate) fn matrix_f64(x: &[f64], dim: usize) -> Tensor {
    Tensor::from_slice(x, (x.len() / dim, dim), &Device::Cpu).unwrap()
}

pub(crate) fn matrix_f32(x: &[f64], dim: usize) -> Tensor {
    matrix_f64(x, dim).to_dtype(DType::F32).unwrap()
}

/// Returns all elements, in f64.
pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the loss at `x` and the gradient that `backward` gives there.
pub(crate) fn gradient_of(x: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) -> Result<(f64, Vec<f64>)> {
    let x = Var::from_tensor(x)?;
    let value = loss(&x)?;
    assert_eq!((value.dims(), value.dtype()), (&[][..], x.dtype()));
    let gradients = value.backward()?;
    let gradient = gradients.get(&x).unwrap();
    assert_eq!((gradient.dims(), gradient.dtype()), (x.dims(), x.dtype()));
    Ok((values(&value)[0], values(gradient)))
}

/// Returns `(f(x + h e_i) − f(x − h e_i)) / 2h` for every i.
pub(crate) fn central_differences(x: &[f64], step: f64, f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + step;
            let above = f(&x);
            x[i] = at - step;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// Panics unless the distance of the two vectors is at most `relative` times the length of `want`, plus
/// `absolute`.
pub(crate) fn assert_close(got: &[f64], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let away = norm(&mut got.iter().zip(want).map(|(g, w)| g - w));
    let length = norm(&mut want.iter().copied());
    assert!(away <= relative * length + absolute, "{away} away from a vector of length {length}");
}

/// Returns a value and a gradient as bits, so that a comparison accepts no difference.
pub(crate) fn bits((value, gradient): (f64, Vec<f64>)) -> Vec<u64> {
    std::iter::once(value).chain(gradient).map(f64::to_bits).collect()
}

/// Returns what `work` returns on one thread and on three.
pub(crate) fn in_pools<R: Send>(work: impl Fn() -> R + Sync) -> [R; 2] {
    [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&work))
}
