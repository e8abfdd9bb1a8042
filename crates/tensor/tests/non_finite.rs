//! NaN, infinities and signed zeros go through every op as IEEE arithmetic takes them through its equation:
//! forward and backward, in f32 on every instruction set of this machine and in f64. With an op that does not
//! pass a NaN on, a broken network would look like a sound one.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ieee;

use candle_core::{DType, Device, Tensor, Var};
use ieee::ops::{BatchNorm, BiasRelu, Convolution, LinearLayer, LocalResponse, Pooling, UnitRows};
use ieee::{Op, Rule, Values, check, compare, wide};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::inner_products::{PackedRows, positions_above};
use invaspread_tensor::{
    Algorithm, BatchNormConfig, Conv2dConfig, PoolConfig, RunningStatistics, Sgd, SgdConfig, Statistics,
    Tape, Value, batch_norm, batch_norm_with, bias_relu, gemm, l2_normalize, max_pool2d,
};
use proptest::prelude::*;

fn stream(seed: u64) -> Stream {
    Stream::new(seed, Purpose::Bootstrap, 7, 0)
}

fn check_both(op: &dyn Op, mut stream: Stream, in_gradient: bool) {
    for dtype in [DType::F32, DType::F64] {
        check(op, &Device::Cpu, dtype, (&mut stream, in_gradient));
    }
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

/// Runs these tests again with each smaller instruction set that this machine has: a process chooses its set
/// once.
#[test]
fn the_same_on_every_instruction_set() {
    const SET: &str = "INVASPREAD_SIMD";
    if std::env::var_os(SET).is_some() {
        return;
    }
    for set in ["avx512bf16", "avx512", "avx2", "baseline"] {
        let again =
            std::process::Command::new(std::env::current_exe().unwrap()).env(SET, set).output().unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && said.contains("test result: ok"), "{set}: {said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn convolution(
        seed: u64, n in 1usize..3, h in 1usize..8, w in 1usize..8,
        ci in prop::sample::select(vec![1, 3, 16, 32]), co in prop::sample::select(vec![1, 5, 16, 48]),
        kernel in 1usize..4, stride in 1usize..3, padding in 0usize..2, in_x: bool, in_w: bool, in_gradient: bool,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let mut stream = stream(seed);
        let config = Conv2dConfig { stride, padding, algorithm: Algorithm::Direct, tf32: false };
        let op = Convolution::draw(&mut stream, [n, h, w, ci, co, kernel], config, [in_x, in_w]);
        check_both(&op, stream, in_gradient);
    }

    #[test]
    fn winograd(
        seed: u64, n in 1usize..4, h in 1usize..11, w in 1usize..11, ci in prop::sample::select(vec![16, 32]),
        co in prop::sample::select(vec![16, 48]), in_x: bool, in_w: bool, in_gradient: bool,
    ) {
        let mut stream = stream(seed);
        let config = Conv2dConfig { padding: 1, ..Default::default() };
        let op = Convolution::draw(&mut stream, [n, h, w, ci, co, 3], config, [in_x, in_w]);
        check(&op, &Device::Cpu, DType::F32, (&mut stream, in_gradient));
    }

    #[test]
    fn batch_normalization(
        seed: u64, rows in 2usize..40, channels in prop::sample::select(vec![3usize, 16, 48]), relu: bool,
        with_residual: bool, in_x: bool, in_parameters: bool, in_residual: bool, in_gradient: bool,
    ) {
        let mut stream = stream(seed);
        let specials = [in_x, in_parameters, in_residual];
        let op = BatchNorm::draw(&mut stream, [rows, channels], relu, with_residual, specials);
        check_both(&op, stream, in_gradient);
    }

    /// Normalizes by given statistics, with and without ReLU and residual.
    #[test]
    fn batch_normalization_in_evaluation(
        seed: u64, rows in 1usize..20, channels in prop::sample::select(vec![3usize, 16, 48]), relu: bool, with_residual: bool,
    ) {
        let mut stream = stream(seed);
        let mut draw = |shape: &[usize]| Values::sprinkled(&mut stream, shape, true, 6);
        let [x, residual] = [(); 2].map(|()| draw(&[rows, channels]));
        let [gamma, beta, mean, variance] = [(); 4].map(|()| draw(&[channels]).values);
        let config = BatchNormConfig { eps: 0.1, relu, chunk: 0 };
        let want: Vec<f64> = (0..rows * channels)
            .map(|i| {
                let c = i % channels;
                let scale = gamma[c] / (variance[c] + config.eps).sqrt();
                let sum = (x.values[i] - mean[c]) * scale + beta[c] + if with_residual { residual.values[i] } else { 0.0 };
                if relu && sum < 0.0 { 0.0 } else { sum }
            })
            .collect();
        for dtype in [DType::F32, DType::F64] {
            let parameter = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let [x, residual] = [&x, &residual].map(|values| values.tensor(dtype, &Device::Cpu));
            let statistics = Statistics { mean: mean.clone(), variance: variance.clone() };
            let residual = with_residual.then_some(&residual);
            let y = batch_norm_with(&x, &parameter(&gamma), &parameter(&beta), residual, &statistics, config).unwrap();
            compare("batch_norm_with", &wide(&y), &want, 1e-5, |_| Rule::Same);
        }
    }

    #[test]
    fn bias_and_relu(seed: u64, rows in 1usize..300, channels in 1usize..20, in_x: bool, in_bias: bool, in_gradient: bool) {
        let mut stream = stream(seed);
        check_both(&BiasRelu::draw(&mut stream, [rows, channels], [in_x, in_bias]), stream, in_gradient);
    }

    #[test]
    fn pooling(
        seed: u64, h in 1usize..9, w in 1usize..9, kernel in 1usize..5, stride in 1usize..4, padding in 0usize..3,
        ceil_mode: bool, maximum: bool, in_gradient: bool,
    ) {
        prop_assume!(padding <= kernel / 2 && h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let mut stream = stream(seed);
        let config = PoolConfig { kernel, stride, padding, ceil_mode };
        check_both(&Pooling::draw(&mut stream, [2, h, w, 3], config, maximum), stream, in_gradient);
    }

    #[test]
    fn local_response_normalization(
        seed: u64, rows in 1usize..80, channels in 1usize..20, size in 1usize..8, usual: bool, in_gradient: bool,
    ) {
        let mut stream = stream(seed);
        check_both(&LocalResponse::draw(&mut stream, [rows, channels], size, usual), stream, in_gradient);
    }

    #[test]
    fn the_linear_layer(
        seed: u64, rows in 1usize..20, inputs in 1usize..40, outputs in 1usize..20, specials: [bool; 3], in_gradient: bool,
    ) {
        let mut stream = stream(seed);
        check_both(&LinearLayer::draw(&mut stream, [rows, inputs, outputs], specials), stream, in_gradient);
    }

    #[test]
    fn rows_of_length_one(seed: u64, rows in 1usize..20, dim in 1usize..40, in_gradient: bool) {
        let mut stream = stream(seed);
        check_both(&UnitRows::draw(&mut stream, [rows, dim]), stream, in_gradient);
    }

    #[test]
    fn matrix_products(seed: u64, m in 1usize..150, n in 1usize..12, k in 1usize..20) {
        let mut stream = stream(seed);
        let [a, b] = [[m, k], [k, n]].map(|shape| Values::sprinkled(&mut stream, &shape, true, 40).values);
        let want: Vec<f64> =
            (0..m * n).map(|at| (0..k).map(|l| a[at / n * k + l] * b[l * n + at % n]).sum()).collect();
        let transposed = |x: &[f64], rows: usize| -> Vec<f64> {
            (0..x.len()).map(|i| x[i % rows * (x.len() / rows) + i / rows]).collect()
        };
        let (at, bt) = (transposed(&a, m), transposed(&b, k));
        let mut got = [(); 3].map(|()| vec![9.0; m * n]);
        gemm::nn(m, n, k, &a, &b, &mut got[0]);
        gemm::nt(m, n, k, &a, &bt, &mut got[1]);
        gemm::tn(m, n, k, &at, &b, &mut got[2]);
        let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|x| *x as f32).collect() };
        let mut single = [(); 3].map(|()| vec![9.0; m * n]);
        gemm::nn(m, n, k, &narrow(&a), &narrow(&b), &mut single[0]);
        gemm::nt(m, n, k, &narrow(&a), &narrow(&bt), &mut single[1]);
        gemm::tn(m, n, k, &narrow(&at), &narrow(&b), &mut single[2]);
        for (got, single) in got.iter().zip(single) {
            compare("gemm, f64", got, &want, 1e-12, |_| Rule::Same);
            let single: Vec<f64> = single.into_iter().map(f64::from).collect();
            compare("gemm, f32", &single, &want, 1e-5, |_| Rule::Same);
        }
    }

    /// Checks products with packed rows, and the search among products: a NaN is never above the floor, and
    /// does not hide the values beside it.
    #[test]
    fn inner_products(seed: u64, rows in 1usize..60, queries in 1usize..20, dim in 1usize..30, floor in -1.0f32..3.0) {
        let mut stream = stream(seed);
        let mut draw = |rows: usize| Values::sprinkled(&mut stream, &[rows, dim], true, 30).values;
        let (gallery, asked) = (draw(rows), draw(queries));
        let packed = PackedRows::new(rows, dim, |row, to| {
            for (to, value) in to.iter_mut().zip(&gallery[row * dim..]) {
                *to = *value as f32;
            }
        });
        let width = PackedRows::width(&(0..rows));
        let mut out = vec![0.0f32; queries * width];
        let single: Vec<f32> = asked.iter().map(|v| *v as f32).collect();
        packed.products(&single, 0..rows, &mut out);
        for (query, out) in asked.chunks(dim).zip(out.chunks(width)) {
            let want: Vec<f64> =
                gallery.chunks(dim).map(|row| row.iter().zip(query).map(|(a, b)| a * b).sum()).collect();
            let got: Vec<f64> = out[..rows].iter().map(|v| f64::from(*v)).collect();
            compare("products", &got, &want, 1e-5, |_| Rule::Same);
        }
        let above: Vec<u32> = (0..out.len() as u32).filter(|&i| out[i as usize] > floor).collect();
        let mut found = Vec::new();
        positions_above(&out, floor, &mut found);
        prop_assert_eq!(found, above);
    }

    /// Takes two steps, so that the velocity takes part too.
    #[test]
    fn gradient_descent(seed: u64, len in 1usize..200, in_parameter: bool, in_gradient: bool) {
        let mut stream = stream(seed);
        let parameter = Values::sprinkled(&mut stream, &[len], in_parameter, 8);
        let gradient = Values::sprinkled(&mut stream, &[len], in_gradient, 8);
        for dtype in [DType::F32, DType::F64] {
            let p = Var::from_tensor(&parameter.tensor(dtype, &Device::Cpu)).unwrap();
            let g = gradient.tensor(dtype, &Device::Cpu);
            let config = SgdConfig { momentum: 0.9, weight_decay: 0.01 };
            let mut sgd = Sgd::new(vec![("p".to_owned(), p.clone())], config).unwrap();
            let (mut want, mut velocity) = (parameter.values.clone(), vec![0.0; len]);
            for _ in 0..2 {
                let gradients = (p.as_tensor() * &g).unwrap().sum_all().unwrap().backward().unwrap();
                sgd.step(&gradients, 0.1).unwrap();
                for ((p, v), g) in want.iter_mut().zip(&mut velocity).zip(&gradient.values) {
                    *v = 0.9 * *v + (g + 0.01 * *p);
                    *p -= 0.1 * *v;
                }
            }
            compare("sgd", &wide(&p), &want, 1e-5, |_| Rule::Same);
            compare("velocity", &wide(&sgd.state().unwrap()[0].1), &velocity, 1e-5, |_| Rule::Same);
        }
    }
}

/// Checks PyTorch's rules: `relu(NaN)` is NaN and `relu(-inf)` is 0; `max_pool2d` passes NaN on, and so does
/// a ReLU that is fused with batch norm, with and without a residual; without a ReLU minus infinity stays
/// minus infinity.
#[test]
fn a_relu_and_a_maximum_hand_nan_on() {
    let special = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -1.0, 2.0];
    let row: Vec<f32> = (0..16).map(|c| special.get(c).copied().unwrap_or(0.5)).collect();
    let x = vector(&row).reshape((1, 16)).unwrap();
    let (ones, zeros) = (vector(&[1.0; 16]), vector(&[0.0; 16]));
    let statistics = Statistics { mean: vec![0.0; 16], variance: vec![1.0; 16] };
    let rest =
        |first: [f64; 5]| -> Vec<f64> { (0..16).map(|c| first.get(c).copied().unwrap_or(0.5)).collect() };
    let through_relu = rest([f64::NAN, 0.0, f64::INFINITY, 0.0, 2.0]);
    for relu in [true, false] {
        let config = BatchNormConfig { eps: 0.0, relu, chunk: 0 };
        let want = if relu {
            through_relu.clone()
        } else {
            rest([f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -1.0, 2.0])
        };
        let plain = batch_norm_with(&x, &ones, &zeros, None, &statistics, config).unwrap();
        let residual = zeros.reshape((1, 16)).unwrap();
        let added = batch_norm_with(&residual, &ones, &zeros, Some(&x), &statistics, config).unwrap();
        for y in [plain, added] {
            compare("batch norm", &wide(&y), &want, 1e-7, |_| Rule::Same);
        }
    }
    compare("bias_relu", &wide(&bias_relu(&x, &zeros).unwrap()), &through_relu, 1e-7, |_| Rule::Same);
    let map = vector(&[f32::NAN, 3.0, 1.0, f32::NEG_INFINITY]).reshape((1, 2, 2, 1)).unwrap();
    let y = max_pool2d(&map, PoolConfig::square(2)).unwrap();
    assert!(wide(&y)[0].is_nan());
}

/// The square of 1e30 overflows f32; the output is nevertheless that of the equations.
#[test]
fn batch_norm_of_huge_values_is_right() {
    let values: Vec<f32> = (0..8 * 16).map(|i| 1e30 * ((i % 7) as f32 - 3.0)).collect();
    let single = Tensor::from_vec(values, (8, 16), &Device::Cpu).unwrap();
    let run = |dtype: DType| {
        let x = single.to_dtype(dtype).unwrap();
        let parameter = |value: f32| vector(&[value; 16]).to_dtype(dtype).unwrap();
        let y = batch_norm(&x, &parameter(2.0), &parameter(0.5), None, BatchNormConfig::default()).unwrap();
        wide(&y.0)
    };
    let want = run(DType::F64);
    assert!(want.iter().any(|y| (y - 0.5).abs() > 1.0));
    compare("batch norm", &run(DType::F32), &want, 1e-5, |_| Rule::Same);
}

/// A NaN in a batch enters the running mean and variance of its channel, and of no other channel. An
/// embedding with a NaN becomes NaN throughout.
#[test]
fn a_nan_goes_through_a_network_on_the_tape() {
    for channels in [3usize, 16] {
        let mut values = Values::sprinkled(&mut stream(1), &[4, 5, 5, channels], false, 1);
        values.values[2 * 25 * channels + 1] = f64::NAN;
        let x = values.tensor(DType::F32, &Device::Cpu);
        let var = |value: f32, shape: &[usize]| {
            Var::from_tensor(
                &(Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap() * f64::from(value)).unwrap(),
            )
            .unwrap()
        };
        let (gamma, beta) = (var(1.0, &[channels]), var(0.0, &[channels]));
        let (weight, bias) = (var(0.25, &[4, channels]), var(0.1, &[4]));
        let mut running = RunningStatistics::new(channels, DType::F32, &Device::Cpu).unwrap();
        let mut tape = Tape::default();
        let config = BatchNormConfig { relu: true, ..Default::default() };
        let y = tape.batch_norm(&Value::constant(&x), [&gamma, &beta], None, config, &mut running).unwrap();
        let y = tape.avg_pool2d(&y, PoolConfig::square(5)).unwrap();
        let y = tape.flatten(&y).unwrap();
        let y = tape.linear(&y, &weight, &bias).unwrap();
        let y = tape.l2_normalize(&y).unwrap();
        assert!(wide(y.tensor()).iter().all(|v| v.is_nan()));
        for numbers in running.tensors().unwrap() {
            let nan: Vec<bool> = wide(&numbers).iter().map(|v| v.is_nan()).collect();
            assert_eq!(nan, (0..channels).map(|c| c == 1).collect::<Vec<_>>());
        }
    }
}

/// Every value of a row with a NaN becomes NaN, because its length is NaN.
#[test]
fn a_row_with_a_nan_has_no_direction() {
    let rows = Tensor::new(&[[1.0f32, f32::NAN, 2.0], [3.0, 0.0, 4.0]], &Device::Cpu).unwrap();
    let y = wide(&l2_normalize(&rows).unwrap());
    assert!(y[..3].iter().all(|v| v.is_nan()));
    compare("rows", &y[3..], &[0.6, 0.0, 0.8], 1e-6, |_| Rule::Same);
}
