//! Ops whose activations are bf16, on the CPU: compared with f64 on the same numbers, over random shapes; and
//! the same bits on any number of threads.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests; the compared numbers are exact")]

use candle_core::{DType, Device, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::{
    Algorithm, BatchNormConfig, Conv2dConfig, InstructionSet, LocalResponseNormConfig, PoolConfig,
    RunningStatistics, Tape, Value, avg_pool2d, batch_norm, bias_relu, conv2d, instruction_set,
    local_response_norm, max_pool2d,
};
use proptest::prelude::*;

/// The largest error of a result in bf16, which has eight bits: half of the last one, and the rounding of
/// f32.
const ROUNDED: f64 = 1.0 / 256.0 + 1e-5;

/// Draws normal numbers that bf16 holds, as f64.
fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    let values = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    values.to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the Euclidean norm of the difference, relative to the norm of `want`.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    let (got, want) = (values(got), values(want));
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(&want).map(|(g, w)| (g - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    (difference / size.max(1e-30)).sqrt()
}

/// Returns an op's result, and the gradients of its inputs for a gradient of the result that bf16 holds. The
/// first `maps` inputs are activations.
fn run(inputs: &[Tensor], maps: usize, half: bool, f: &dyn Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let variables: Vec<Var> = inputs
        .iter()
        .enumerate()
        .map(|(i, x)| {
            let dtype = match half {
                true if i < maps => DType::BF16,
                true => DType::F32,
                false => DType::F64,
            };
            Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()
        })
        .collect();
    let y = f(&variables.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>());
    let gradient =
        random(&mut Stream::new(9, Purpose::Bootstrap, 0, 1), y.dims()).to_dtype(y.dtype()).unwrap();
    // candle multiplies gradients of bf16 exactly by one, so the op gets the gradient as it is.
    let gradients = (&y * gradient).unwrap().sum_all().unwrap().backward().unwrap();
    std::iter::once(y.detach()).chain(variables.iter().map(|v| gradients.get(v).unwrap().clone())).collect()
}

/// Compares the results with those of f64. Maps are bf16; gradients of parameters are f32.
fn compare(
    inputs: &[Tensor],
    maps: usize,
    slack: f64,
    f: &dyn Fn(&[Tensor]) -> Tensor,
) -> Result<(), String> {
    let (got, want) = (run(inputs, maps, true, f), run(inputs, maps, false, f));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let allowed = if got.dtype() == DType::BF16 { ROUNDED } else { 1e-5 } * slack;
        let error = error(got, want);
        if error.is_nan() || error > allowed {
            return Err(format!("result {i} ({:?}): {error:e}, allowed {allowed:e}", got.dtype()));
        }
        let parameter = i > maps;
        if parameter && got.dtype() != DType::F32 {
            return Err(format!("the gradient of parameter {i} is {:?}", got.dtype()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn convolution(
        seed: u64, n in 1usize..4, h in 1usize..11, w in 1usize..11,
        ci in prop::sample::select(vec![1, 3, 7, 16, 32, 48]), co in prop::sample::select(vec![1, 5, 16, 32, 48]),
        kernel in 1usize..5, stride in 1usize..4, padding in 0usize..3,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let inputs = [random(&mut s, &[n, h, w, ci]), random(&mut s, &[kernel, kernel, ci, co])];
        let config = Conv2dConfig { stride, padding, algorithm: Algorithm::Direct, tf32: false };
        prop_assert_eq!(compare(&inputs, 1, 1.0, &|t| conv2d(&t[0], &t[1], config).unwrap()), Ok(()));
    }

    #[test]
    fn winograd(
        seed: u64, n in 1usize..5, h in 1usize..14, w in 1usize..14,
        ci in prop::sample::select(vec![16, 32, 48]), co in prop::sample::select(vec![16, 32, 48]),
    ) {
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let inputs = [random(&mut s, &[n, h, w, ci]), random(&mut s, &[3, 3, ci, co])];
        let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
        let conv = |t: &[Tensor]| conv2d(&t[0], &t[1], config).unwrap();
        if instruction_set() == InstructionSet::Avx512Bf16 {
            // The transformed values are rounded to bf16 too.
            for (got, want) in run(&inputs, 1, true, &conv).iter().zip(&run(&inputs, 1, false, &conv)) {
                prop_assert!(error(got, want) < 2e-2, "{}", error(got, want));
            }
            return Ok(());
        }
        prop_assert_eq!(compare(&inputs, 1, 1.0, &conv), Ok(()));
    }

    /// Without a ReLU, as a value that rounds to zero would gate another gradient; the next test has one.
    #[test]
    fn batch_normalization(
        seed: u64, images in 1usize..5, side in 2usize..8, channels in prop::sample::select(vec![3usize, 16, 32]),
        with_residual: bool,
    ) {
        prop_assume!(images * side * side > 12);
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let shape = [images, side, side, channels];
        let (x, residual) = (random(&mut s, &shape), random(&mut s, &shape));
        let (gamma, beta) = (random(&mut s, &[channels]), random(&mut s, &[channels]));
        let norm = |x: &Tensor, residual: Option<&Tensor>, gamma: &Tensor, beta: &Tensor| {
            batch_norm(x, gamma, beta, residual, BatchNormConfig::default()).unwrap().0
        };
        let checked = if with_residual {
            compare(&[x, residual, gamma, beta], 2, 1.5, &|t| norm(&t[0], Some(&t[1]), &t[2], &t[3]))
        } else {
            compare(&[x, gamma, beta], 1, 1.5, &|t| norm(&t[0], None, &t[1], &t[2]))
        };
        prop_assert_eq!(checked, Ok(()));
    }

    #[test]
    fn bias_pools_and_local_response(seed: u64, h in 2usize..9, w in 2usize..9, channels in 1usize..20) {
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let (x, bias) = (random(&mut s, &[2, h, w, channels]), random(&mut s, &[channels]));
        prop_assert_eq!(compare(&[x.clone(), bias], 1, 1.0, &|t| bias_relu(&t[0], &t[1]).unwrap()), Ok(()));
        let pool = PoolConfig { kernel: 2, stride: 1, padding: 1, ceil_mode: false };
        prop_assert_eq!(compare(std::slice::from_ref(&x), 1, 1.0, &|t| max_pool2d(&t[0], pool).unwrap()), Ok(()));
        prop_assert_eq!(compare(std::slice::from_ref(&x), 1, 1.0, &|t| avg_pool2d(&t[0], pool).unwrap()), Ok(()));
        let local = |t: &[Tensor]| local_response_norm(&t[0], LocalResponseNormConfig::default()).unwrap();
        prop_assert_eq!(compare(&[x], 1, 1.0, &local), Ok(()));
    }
}

/// A residual block and a head on the tape.
fn block(half: bool) -> Vec<Tensor> {
    let mut s = Stream::new(4, Purpose::Bootstrap, 0, 0);
    let dtype = if half { DType::F32 } else { DType::F64 };
    let mut var =
        |shape: &[usize]| Var::from_tensor(&random(&mut s, shape).to_dtype(dtype).unwrap()).unwrap();
    let x = var(&[6, 13, 9, 32]);
    let weights = [var(&[3, 3, 32, 48]), var(&[3, 3, 48, 48]), var(&[1, 1, 32, 48])];
    let norms = [var(&[48]), var(&[48])];
    let head = [var(&[5, 48]), var(&[5])];
    let x = if half { x.to_dtype(DType::BF16).unwrap() } else { x.as_detached_tensor() };
    let mut tape = Tape::default();
    let mut running = RunningStatistics::new(48, dtype, &Device::Cpu).unwrap();
    let x = Value::constant(&x);
    let conv = |stride, padding| Conv2dConfig { stride, padding, ..Conv2dConfig::default() };
    let norm = BatchNormConfig { relu: true, ..BatchNormConfig::default() };
    let shortcut = tape.conv2d(&x, &weights[2], conv(2, 0)).unwrap();
    let y = tape.conv2d(&x, &weights[0], conv(2, 1)).unwrap();
    let y = tape.batch_norm(&y, norms.each_ref(), None, norm, &mut running).unwrap();
    let y = tape.conv2d(&y, &weights[1], conv(1, 1)).unwrap();
    let y = tape.batch_norm(&y, norms.each_ref(), Some(&shortcut), norm, &mut running).unwrap();
    // The map enters twice, so that its gradients are added.
    let z = tape.conv2d(&y, &weights[1], conv(1, 1)).unwrap();
    let y = tape.batch_norm(&z, norms.each_ref(), Some(&y), norm, &mut running).unwrap();
    assert_eq!(y.tensor().dtype(), if half { DType::BF16 } else { DType::F64 });
    let pooled = tape.avg_pool2d(&y, PoolConfig { kernel: 5, ..PoolConfig::square(5) }).unwrap();
    let pooled = tape.flatten(&pooled).unwrap();
    let y = tape.linear(&pooled, &head[0], &head[1]).unwrap();
    let leaf = tape.leaf(&y).unwrap();
    let mut gradients = leaf.sin().unwrap().sum_all().unwrap().backward().unwrap();
    tape.backward(&mut gradients).unwrap();
    let parameters = weights.iter().chain(&norms).chain(&head);
    let mut results = vec![y.tensor().clone()];
    results.extend(parameters.map(|v| gradients.get(v).unwrap().clone()));
    results
}

/// Rounding of activations shows in the gradients many times: by the ReLUs that it opens or closes.
#[test]
fn a_block_on_the_tape_is_near_that_of_f64() {
    for (i, (got, want)) in block(true).iter().zip(&block(false)).enumerate() {
        let error = error(got, want);
        assert!(error < if i == 0 { 0.02 } else { 0.15 }, "result {i}: {error}");
        assert_eq!(got.dtype(), DType::F32);
    }
}

#[test]
fn thread_count_changes_nothing() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            block(true).iter().flat_map(|t| bits(t).into_iter().map(f32::to_bits)).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1), run(3));
}

/// What is not a number stays so, and what bf16 cannot hold becomes infinite, not a NaN or a finite number.
#[test]
fn numbers_outside_of_the_range() {
    let x =
        Tensor::new(&[[f32::NAN, f32::MAX, -f32::MAX, 1.0, f32::INFINITY, 0.5, -0.0, 2.0]; 2], &Device::Cpu)
            .unwrap();
    let (ones, zeros) = (
        Tensor::ones(8, DType::F32, &Device::Cpu).unwrap(),
        Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap(),
    );
    let x = x.to_dtype(DType::BF16).unwrap();
    let y = values(&bias_relu(&x, &zeros).unwrap().get(0).unwrap());
    assert!(y[0].is_nan() && y[1] == f64::INFINITY && y[4] == f64::INFINITY && y[3] == 1.0, "{y:?}");
    let weight = Tensor::full(3e38f32, (1, 1, 8, 16), &Device::Cpu).unwrap();
    let map = ones.reshape((1, 1, 1, 8)).unwrap().to_dtype(DType::BF16).unwrap();
    let y = values(&conv2d(&map, &weight, Conv2dConfig::default()).unwrap());
    assert!(y.iter().all(|y| *y == f64::INFINITY), "{y:?}");
}
