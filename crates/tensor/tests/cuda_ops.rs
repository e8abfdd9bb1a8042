//! Compares every op on the GPU with its CPU version, on random shapes. The tests are skipped where there is
//! no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ieee;

use candle_core::{DType, Device, Result, Tensor, Var};
use ieee::ops::{BatchNorm, BiasRelu, Convolution, LinearLayer, LocalResponse, Pooling, UnitRows};
use ieee::{Op, Rule, compare, wide};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::cuda::testing::device_or_skip;
use invaspread_tensor::cuda::{HostLog, Product, product};
use invaspread_tensor::self_check::self_check_on;
use invaspread_tensor::{
    BatchNormConfig, Conv2dConfig, LarsConfig, LocalResponseNormConfig, LocalResponseWindow, Optimizer,
    OptimizerConfig, PoolConfig, Precision, RunningStatistics, SgdConfig, Tape, Value, attention, avg_pool2d,
    batch_norm, bias_relu, conv2d, gelu, gemm, l2_normalize, layer_norm, linear, local_response_norm,
    max_pool2d, token_offsets, tokens,
};
use proptest::prelude::*;

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn relative(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    (difference / size.max(1e-30)).sqrt()
}

/// Returns the largest relative error of the output and the gradients of `f` on the device, with the inputs
/// at `maps` in `dtype`, against f64 on the CPU.
fn error(
    device: &Device,
    inputs: &[Tensor],
    maps: &[usize],
    dtype: DType,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> f64 {
    let run = |inputs: Vec<Tensor>| {
        let variables: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&tensors).unwrap();
        let wider = if y.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        // Random numbers: those of a wave can cancel in a sum over the rows, where a row has nearly half a
        // period; then the sum is rounding error alone.
        let weights = random(&mut Stream::new(0, Purpose::Synthetic, 6, 0), y.dims());
        // The gradient of the output has the type of the map: the same numbers on both sides.
        let weights = weights.to_dtype(dtype).unwrap();
        let weights = weights.to_dtype(wider).unwrap().to_device(y.device()).unwrap();
        let loss = (y.to_dtype(wider).unwrap() * weights).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let mut results = vec![values(&y)];
        results.extend(variables.iter().map(|v| values(gradients.get(v).unwrap())));
        results
    };
    let at = |i: usize| if maps.contains(&i) { dtype } else { DType::F32 };
    let got = run(inputs
        .iter()
        .enumerate()
        .map(|(i, x)| x.to_dtype(at(i)).unwrap().to_device(device).unwrap())
        .collect());
    let want = run(inputs
        .iter()
        .enumerate()
        .map(|(i, x)| x.to_dtype(at(i)).unwrap().to_dtype(DType::F64).unwrap())
        .collect());
    let worst = |worst: f64, e: f64| if e > worst || e.is_nan() { e } else { worst };
    got.iter().zip(&want).map(|(g, w)| relative(g, w)).fold(0.0, worst)
}

const BOTH: [(DType, f64); 2] = [(DType::F32, 1e-4), (DType::BF16, 1e-2)];

#[test]
fn every_op_of_the_doctor_agrees() {
    let Some(device) = device_or_skip() else { return };
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        for check in self_check_on(&device, precision).unwrap() {
            assert!(check.is_good(), "{precision:?}: {check:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn convolution(
        n in 1usize..4, h in 1usize..11, w in 1usize..11, ci in 1usize..20, co in 1usize..20, kernel in 1usize..5,
        stride in 1usize..3, padding in 0usize..3, seed: u64,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 0, 0);
        let inputs = [random(&mut stream, &[n, h, w, ci]), random(&mut stream, &[kernel, kernel, ci, co])];
        let config = Conv2dConfig { stride, padding, ..Default::default() };
        for (dtype, tolerance) in BOTH {
            // The device rounds the weight too; where few terms cancel, that alone would be a large part of
            // their sum.
            let rounded = inputs[1].to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            let inputs = [inputs[0].clone(), rounded];
            let error = error(&device, &inputs, &[0], dtype, |t| conv2d(&t[0], &t[1], config));
            prop_assert!(error < tolerance, "{dtype:?}: {error}");
        }
    }

    #[test]
    fn batch_normalization(
        chunks in 1usize..4, images in 1usize..4, side in 1usize..8, channels in prop_oneof![1usize..40, Just(64), Just(160), Just(520)],
        relu: bool, with_residual: bool, shift in -30.0f64..30.0, seed: u64,
    ) {
        // The gradient of a single row is zero.
        prop_assume!(images * side * side > 1);
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 1, 0);
        let x = (random(&mut stream, &[chunks * images, side, side, channels]) + shift).unwrap();
        let mut inputs = vec![x, random(&mut stream, &[channels]), random(&mut stream, &[channels])];
        if with_residual {
            inputs.push(random(&mut stream, &[chunks * images, side, side, channels]));
        }
        // With few values the variance of a channel may be so small that its inverse magnifies rounding: eps
        // limits this.
        let config = BatchNormConfig { relu, chunk: images, eps: 0.1 };
        for (dtype, tolerance) in BOTH {
            let error = error(&device, &inputs, &[0, 3], dtype, |t| {
                Ok(batch_norm(&t[0], &t[1], &t[2], t.get(3), config)?.0)
            });
            prop_assert!(error < tolerance, "{dtype:?}: {error}");
        }
    }

    #[test]
    fn transformers(
        images in 1usize..4, count in 1usize..70, heads in 1usize..4, dim in 1usize..20, side in 1usize..6,
        h in 1usize..6, w in 1usize..6, seed: u64,
    ) {
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 2, 0);
        let mut draw = |shape: &[usize]| random(&mut stream, shape);
        let single = |inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
            error(&device, inputs, &[], DType::F32, f)
        };
        let columns = 3 * heads * dim;
        let x = draw(&[images * count, columns]);
        let attended = single(std::slice::from_ref(&x), &|t| attention(&t[0], count, heads));
        let activated = single(std::slice::from_ref(&x), &|t| gelu(&t[0]));
        let normed = single(&[x, draw(&[columns]), draw(&[columns])], &|t| layer_norm(&t[0], &t[1], &t[2], 0.1));
        let joined = [draw(&[images, h, w, dim]), draw(&[1 + h * w, dim])];
        let joined = single(&joined, &|t| tokens(&t[0], &t[1]));
        let offsets = [draw(&[dim]), draw(&[1, 1, dim]), draw(&[1, 1 + side * side, dim])];
        let offsets = single(&offsets, &|t| token_offsets(&t[0], &t[1], &t[2], [h, w]));
        for (op, error) in [("attention", attended), ("gelu", activated), ("norm", normed), ("tokens", joined), ("offsets", offsets)] {
            prop_assert!(error < 1e-5, "{op}: {error:e}");
        }
    }

    #[test]
    fn pooling_and_local_response(
        n in 1usize..3, h in 3usize..12, w in 3usize..12, c in 1usize..20, kernel in 1usize..4, stride in 1usize..4,
        padding in 0usize..2, ceil_mode: bool, size in 1usize..7, seed: u64,
    ) {
        prop_assume!(padding <= kernel / 2);
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 2, 0);
        let inputs = [random(&mut stream, &[n, h, w, c])];
        let config = PoolConfig { kernel, stride, padding, ceil_mode };
        let norm = LocalResponseNormConfig { size, alpha: 0.5, ..Default::default() };
        for (dtype, tolerance) in BOTH {
            let maximum = error(&device, &inputs, &[0], dtype, |t| max_pool2d(&t[0], config));
            prop_assert!(maximum < tolerance, "maximum, {dtype:?}: {maximum}");
            let average = error(&device, &inputs, &[0], dtype, |t| avg_pool2d(&t[0], config));
            prop_assert!(average < tolerance, "average, {dtype:?}: {average}");
            let response = error(&device, &inputs, &[0], dtype, |t| local_response_norm(&t[0], norm));
            prop_assert!(response < tolerance, "local response, {dtype:?}: {response}");
            let window = LocalResponseWindow::CrossMapLrn2d;
            let norm = LocalResponseNormConfig { size: size | 1, window, ..norm };
            let response = error(&device, &inputs, &[0], dtype, |t| local_response_norm(&t[0], norm));
            prop_assert!(response < tolerance, "CrossMapLRN2d, {dtype:?}: {response}");
        }
    }

    #[test]
    fn bias_and_relu(rows in 1usize..3000, channels in 1usize..70, seed: u64) {
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 5, 0);
        let inputs = [random(&mut stream, &[rows, channels]), random(&mut stream, &[channels])];
        for (dtype, tolerance) in BOTH {
            let error = error(&device, &inputs, &[0], dtype, |t| bias_relu(&t[0], &t[1]));
            prop_assert!(error < tolerance, "{dtype:?}: {error}");
        }
    }

    #[test]
    fn rows_and_products(m in 1usize..20, k in 1usize..40, n in 1usize..20, seed: u64) {
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 3, 0);
        let inputs = [random(&mut stream, &[m, k]), random(&mut stream, &[n, k]), random(&mut stream, &[n])];
        let layer = error(&device, &inputs, &[], DType::F32, |t| linear(&t[0], &t[1], &t[2]));
        prop_assert!(layer < 1e-4, "linear: {layer}");
        // The gradient is the part of the output's gradient that is orthogonal to the row; with few columns
        // that may be rounding error alone.
        let wide = [random(&mut stream, &[m, k + 7])];
        let unit = error(&device, &wide, &[], DType::F32, |t| l2_normalize(&t[0]));
        prop_assert!(unit < 1e-5, "L2: {unit}");
        let (a, b) = (random(&mut stream, &[k, m]), random(&mut stream, &[k, n]));
        let mut want = vec![0.0; m * n];
        gemm::tn(m, n, k, &values(&a), &values(&b), &mut want);
        let there = |x: &Tensor| x.to_device(&device).unwrap();
        let got = product(&there(&a), &there(&b), Product::FirstTransposed, false).unwrap();
        prop_assert!(relative(&values(&got), &want) < 1e-5);
    }
}

/// After three steps of a small network on the tape, parameters, momentum and running statistics agree with
/// the CPU's, with either optimizer.
#[test]
fn training_steps_agree() {
    let Some(device) = device_or_skip() else { return };
    let (momentum, weight_decay) = (0.9, 1e-3);
    steps_agree(&device, OptimizerConfig::Sgd(SgdConfig { momentum, weight_decay }));
    steps_agree(
        &device,
        OptimizerConfig::Lars(LarsConfig { momentum, weight_decay, trust_coefficient: 0.02 }),
    );
}

fn steps_agree(device: &Device, optimizer: OptimizerConfig) {
    let run = |device: &Device| {
        let mut stream = Stream::new(4, Purpose::Synthetic, 4, 0);
        let var = |x: Tensor| Var::from_tensor(&x.to_device(device).unwrap()).unwrap();
        let x = random(&mut stream, &[6, 8, 8, 3]).to_device(device).unwrap();
        let weight = var(random(&mut stream, &[3, 3, 3, 16]));
        let [gamma, beta] = [(); 2].map(|()| var(random(&mut stream, &[16])));
        let inner = var(random(&mut stream, &[3, 3, 16, 16]));
        let [gamma2, beta2] = [(); 2].map(|()| var(random(&mut stream, &[16])));
        let (head, bias) = (var(random(&mut stream, &[5, 16])), var(random(&mut stream, &[5])));
        let target = random(&mut stream, &[6, 5]).to_device(device).unwrap();
        let parameters = [&weight, &gamma, &beta, &inner, &gamma2, &beta2, &head, &bias];
        let named = parameters.iter().enumerate().map(|(i, p)| (i.to_string(), (*p).clone())).collect();
        let mut optimizer = Optimizer::new(named, optimizer).unwrap();
        let mut running = [(); 2].map(|()| RunningStatistics::new(16, DType::F32, device).unwrap());
        let conv = Conv2dConfig { padding: 1, ..Default::default() };
        let norm = BatchNormConfig { relu: true, chunk: 3, ..Default::default() };
        for _ in 0..3 {
            let mut tape = Tape::default();
            let start = tape.conv2d(&Value::constant(&x), &weight, conv).unwrap();
            let start = tape.batch_norm(&start, [&gamma, &beta], None, norm, &mut running[0]).unwrap();
            let y = tape.conv2d(&start, &inner, conv).unwrap();
            let y = tape.batch_norm(&y, [&gamma2, &beta2], Some(&start), norm, &mut running[1]).unwrap();
            let y = tape.avg_pool2d(&y, PoolConfig::square(8)).unwrap();
            let y = tape.flatten(&y).unwrap();
            let y = tape.linear(&y, &head, &bias).unwrap();
            let y = tape.l2_normalize(&y).unwrap();
            let leaf = tape.leaf(&y).unwrap();
            let mut gradients = (leaf * &target).unwrap().sum_all().unwrap().backward().unwrap();
            tape.backward(&mut gradients).unwrap();
            optimizer.step(&gradients, 0.1).unwrap();
        }
        let mut results: Vec<Vec<f64>> = parameters.iter().map(|p| values(p)).collect();
        results.extend(optimizer.state().unwrap().iter().map(|(_, v)| values(v)));
        results.extend(running.iter().flat_map(|r| r.tensors().unwrap()).map(|t| values(&t)));
        results
    };
    for (i, (got, want)) in run(device).iter().zip(run(&Device::Cpu)).enumerate() {
        let error = relative(got, &want);
        assert!(error < 1e-3, "result {i}: {error}");
    }
}

/// Branches leave a map and are concatenated again along the channels: the gradients agree with the CPU's,
/// also where three gradients return to one map.
#[test]
fn branches_agree() {
    let Some(device) = device_or_skip() else { return };
    let run = |device: &Device| {
        let mut stream = Stream::new(6, Purpose::Synthetic, 6, 0);
        let var = |x: Tensor| Var::from_tensor(&x.to_device(device).unwrap()).unwrap();
        let x = random(&mut stream, &[2, 9, 9, 3]).to_device(device).unwrap();
        let (stem, stem_bias) = (var(random(&mut stream, &[3, 3, 3, 16])), var(random(&mut stream, &[16])));
        let (one, one_bias) = (var(random(&mut stream, &[1, 1, 16, 8])), var(random(&mut stream, &[8])));
        let (pooled, pooled_bias) =
            (var(random(&mut stream, &[1, 1, 16, 24])), var(random(&mut stream, &[24])));
        let target = random(&mut stream, &[2, 9, 9, 48]).to_device(device).unwrap();
        let mut tape = Tape::default();
        let conv = Conv2dConfig { padding: 1, ..Default::default() };
        let map = tape.conv2d(&Value::constant(&x), &stem, conv).unwrap();
        let map = tape.bias_relu(&map, &stem_bias).unwrap();
        let map = tape.local_response_norm(&map, LocalResponseNormConfig::default()).unwrap();
        let a = tape.conv2d(&map, &one, Conv2dConfig::default()).unwrap();
        let a = tape.bias_relu(&a, &one_bias).unwrap();
        let around = PoolConfig { kernel: 3, stride: 1, padding: 1, ceil_mode: true };
        let b = tape.max_pool2d(&map, around).unwrap();
        let b = tape.conv2d(&b, &pooled, Conv2dConfig::default()).unwrap();
        let b = tape.bias_relu(&b, &pooled_bias).unwrap();
        let joined = tape.concatenate(&[a, map, b]).unwrap();
        let leaf = tape.leaf(&joined).unwrap();
        let mut gradients = (&leaf * &target).unwrap().sum_all().unwrap().backward().unwrap();
        tape.backward(&mut gradients).unwrap();
        let parameters = [&stem, &stem_bias, &one, &one_bias, &pooled, &pooled_bias];
        let mut results: Vec<_> = parameters.iter().map(|p| values(gradients.get(p).unwrap())).collect();
        results.push(values(&leaf));
        results
    };
    for (i, (got, want)) in run(&device).iter().zip(run(&Device::Cpu)).enumerate() {
        let error = relative(got, &want);
        assert!(error < 1e-4, "result {i}: {error}");
    }
}

#[test]
fn numbers_reach_the_host_in_their_places() {
    let Some(device) = device_or_skip() else { return };
    let mut log = HostLog::new(&device, 3).unwrap();
    assert!(log.read(0).is_none());
    for (at, number) in [(0, 1.5f32), (2, f32::NAN)] {
        log.write(at, &Tensor::new(number, &device).unwrap()).unwrap();
    }
    log.wait().unwrap();
    assert_eq!(log.read(0), Some(1.5));
    assert!(log.read(1).is_none());
    assert!(log.read(2).unwrap().is_nan());
    log.clear().unwrap();
    assert!(log.read(0).is_none());
    assert!(log.write(3, &Tensor::new(1.0f32, &device).unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// As on the CPU, NaN, infinities and signed zeros go through every op as through its equation.
    #[test]
    fn what_is_not_finite_goes_through_every_op(
        seed: u64, n in 1usize..3, side in 3usize..7, channels in prop::sample::select(vec![3usize, 8, 32]), kernel in 1usize..4,
        relu: bool, with_residual: bool, maximum: bool, specials: [bool; 3], in_gradient: bool,
    ) {
        let Some(device) = device_or_skip() else { return Ok(()) };
        let mut stream = Stream::new(seed, Purpose::Synthetic, 7, 0);
        let s = &mut stream;
        let conv = Conv2dConfig { padding: 1, ..Default::default() };
        let sizes = [n, side, side, channels, channels, kernel];
        let pool = PoolConfig { kernel, stride: 2, padding: kernel / 2, ceil_mode: relu };
        let ops: [Box<dyn Op>; 7] = [
            Box::new(Convolution::draw(s, sizes, conv, [specials[0], specials[1]])),
            Box::new(BatchNorm::draw(s, [n * side + 1, channels], relu, with_residual, specials)),
            Box::new(BiasRelu::draw(s, [n * side, channels], [specials[0], specials[1]])),
            Box::new(Pooling::draw(s, [n, side, side, channels], pool, maximum)),
            Box::new(LocalResponse::draw(s, [n * side, channels], kernel, relu)),
            Box::new(LinearLayer::draw(s, [n * side, channels, side], specials)),
            Box::new(UnitRows::draw(s, [n * side, channels])),
        ];
        for op in ops {
            ieee::check(&*op, &device, DType::F32, (&mut stream, in_gradient));
        }
    }
}

/// The same in bf16 and in evaluation mode: `relu(NaN)` is NaN, and minus infinity stays minus infinity where
/// no ReLU follows.
#[test]
fn a_relu_and_a_maximum_hand_nan_on() {
    let Some(device) = device_or_skip() else { return };
    let special = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -1.0, 2.0, 0.5, 0.5, 0.5];
    let x = Tensor::new(&special, &Device::Cpu).unwrap().reshape((1, 8)).unwrap();
    let parameter = |value: f32| Tensor::new(&[value; 8], &device).unwrap();
    let mut running = RunningStatistics::new(8, DType::F32, &device).unwrap();
    running.set([&parameter(0.0), &parameter(1.0)], 1).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let x = x.to_dtype(dtype).unwrap().to_device(&device).unwrap();
        for relu in [true, false] {
            let config = BatchNormConfig { eps: 0.0, relu, chunk: 0 };
            let want: Vec<f64> =
                special.iter().map(|&v| if relu && v < 0.0 { 0.0 } else { f64::from(v) }).collect();
            let parameters = [&parameter(1.0), &parameter(0.0)];
            let y = running.normalize(&x, parameters, None, config).unwrap();
            compare("batch norm", &wide(&y), &want, 1e-6, |_| Rule::Same);
            if relu {
                compare("bias_relu", &wide(&bias_relu(&x, &parameter(0.0)).unwrap()), &want, 1e-6, |_| {
                    Rule::Same
                });
            }
        }
        let map = x.narrow(1, 0, 4).unwrap().contiguous().unwrap().reshape((1, 2, 2, 1)).unwrap();
        assert!(wide(&max_pool2d(&map, PoolConfig::square(2)).unwrap())[0].is_nan());
    }
}

/// Rows whose squared length overflows or underflows f32 keep their direction; so do channels of huge values.
#[test]
fn squares_that_leave_f32_cost_nothing() {
    let Some(device) = device_or_skip() else { return };
    let rows = Tensor::new(&[[3e30f32, 4e30], [3e-30, 4e-30]], &device).unwrap();
    compare("rows", &wide(&l2_normalize(&rows).unwrap()), &[0.6, 0.8, 0.6, 0.8], 1e-6, |_| Rule::Same);
    let values: Vec<f32> = (0..8 * 4).map(|i| 1e30 * ((i % 7) as f32 - 3.0)).collect();
    let run = |dtype: DType, device: &Device| {
        let x = Tensor::from_slice(&values, (8, 4), &Device::Cpu).unwrap();
        let x = x.to_dtype(dtype).unwrap().to_device(device).unwrap();
        let parameter = |value: f32| {
            Tensor::new(&[value; 4], &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
                .to_device(device)
                .unwrap()
        };
        wide(&batch_norm(&x, &parameter(2.0), &parameter(0.5), None, BatchNormConfig::default()).unwrap().0)
    };
    compare("batch norm", &run(DType::F32, &device), &run(DType::F64, &Device::Cpu), 1e-5, |_| Rule::Same);
}
