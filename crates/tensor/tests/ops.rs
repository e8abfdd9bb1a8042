//! Compares every op with loops that read like its equation, on random shapes, and with finite differences in
//! f64. The file is long because it goes over every op in one test binary: each further binary links candle
//! again.

#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::gradient_check::gradient_error;
use invaspread_tensor::{
    Algorithm, BatchNormConfig, Conv2dConfig, LocalResponseNormConfig, LocalResponseWindow, PoolConfig,
    RunningStatistics, Statistics, Tape, Value, avg_pool2d, batch_norm, batch_norm_with, bias_relu, conv2d,
    l2_normalize, linear, local_response_norm, max_pool2d,
};
use proptest::prelude::*;

fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn single(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the Euclidean norm of the difference, relative to the norm of `want`.
fn error(got: &Tensor, want: &[f64]) -> f64 {
    let difference: f64 = values(got).iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    (difference / size.max(1e-30)).sqrt()
}

/// The output and both gradients of a convolution, computed by its definition.
struct PlainConv {
    y: Vec<f64>,
    gx: Vec<f64>,
    gw: Vec<f64>,
}

fn plain_conv(x: &Tensor, w: &Tensor, gy: impl Fn(usize) -> f64, stride: usize, padding: usize) -> PlainConv {
    let (n, h, width, ci) = x.dims4().unwrap();
    let (kh, kw, _, co) = w.dims4().unwrap();
    let (oh, ow) = ((h + 2 * padding - kh) / stride + 1, (width + 2 * padding - kw) / stride + 1);
    let (x, w) = (values(x), values(w));
    let mut plain =
        PlainConv { y: vec![0.0; n * oh * ow * co], gx: vec![0.0; x.len()], gw: vec![0.0; w.len()] };
    for image in 0..n {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let (iy, ix) = (oy * stride + ky, ox * stride + kx);
                if iy < padding || ix < padding || iy - padding >= h || ix - padding >= width {
                    continue;
                }
                let pixel = ((image * h + iy - padding) * width + ix - padding) * ci;
                for (c, o) in (0..ci).flat_map(|c| (0..co).map(move |o| (c, o))) {
                    let out = ((image * oh + oy) * ow + ox) * co + o;
                    let weight = ((ky * kw + kx) * ci + c) * co + o;
                    plain.y[out] += x[pixel + c] * w[weight];
                    plain.gx[pixel + c] += gy(out) * w[weight];
                    plain.gw[weight] += gy(out) * x[pixel + c];
                }
            }
        }
    }
    plain
}

/// Returns the largest relative error of the output and the gradients of the f32 convolution against the
/// plain one.
fn conv_error(x: &Tensor, w: &Tensor, config: Conv2dConfig) -> f64 {
    let (vx, vw) = (Var::from_tensor(&single(x)).unwrap(), Var::from_tensor(&single(w)).unwrap());
    let y = conv2d(&vx, &vw, config).unwrap();
    let weight = |i: usize| (1.0 + i as f64 * 0.37).sin();
    let weights: Vec<f32> = (0..y.elem_count()).map(|i| weight(i) as f32).collect();
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu).unwrap();
    let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let plain =
        plain_conv(&single(x), &single(w), |i| f64::from(weight(i) as f32), config.stride, config.padding);
    let errors = [
        error(&y, &plain.y),
        error(gradients.get(&vx).unwrap(), &plain.gx),
        error(gradients.get(&vw).unwrap(), &plain.gw),
    ];
    // `f64::max` would drop a NaN.
    errors.into_iter().fold(0.0, |worst, e| if e > worst || e.is_nan() { e } else { worst })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Checks the direct and the unrolled path, with any kernel, stride, padding, channels and size.
    #[test]
    fn convolution_is_its_definition(
        seed: u64, n in 1usize..4, h in 1usize..11, w in 1usize..11,
        ci in prop::sample::select(vec![1, 3, 7, 16, 32, 48]), co in prop::sample::select(vec![1, 5, 16, 32, 48]),
        kernel in 1usize..5, stride in 1usize..4, padding in 0usize..3,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let (x, weight) = (random(&mut stream, &[n, h, w, ci]), random(&mut stream, &[kernel, kernel, ci, co]));
        let error = conv_error(&x, &weight, Conv2dConfig { stride, padding, algorithm: Algorithm::Direct, tf32: false });
        prop_assert!(error < 1e-5, "{error:e}");
    }

    /// Checks Winograd, with maps whose sides are not multiples of its tiles.
    #[test]
    fn winograd_is_a_convolution(
        seed: u64, n in 1usize..5, h in 1usize..14, w in 1usize..14,
        ci in prop::sample::select(vec![16, 32, 48]), co in prop::sample::select(vec![16, 32, 48]),
    ) {
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let (x, weight) = (random(&mut stream, &[n, h, w, ci]), random(&mut stream, &[3, 3, ci, co]));
        let error = conv_error(&x, &weight, Conv2dConfig { stride: 1, padding: 1, algorithm: Algorithm::Fastest, tf32: false });
        prop_assert!(error < 1e-5, "{error:e}");
    }

    /// Compares fused batch norm in f32 with the plain one in f64, forward and backward, with and without
    /// residual, ReLU and chunks.
    #[test]
    fn batch_norm_is_its_equation(
        seed: u64, chunks in 1usize..4, images in 1usize..5, side in 1usize..8,
        channels in prop::sample::select(vec![3usize, 16, 32, 64]), relu: bool, with_residual: bool, mean in -20.0f64..20.0,
    ) {
        // With two or three rows the projection removes nearly all of the gradient, and the rest is rounding
        // error.
        prop_assume!(images * side * side > 3);
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let shape = [chunks * images, side, side, channels];
        let x = (random(&mut stream, &shape) + mean).unwrap();
        let (gamma, beta) = (random(&mut stream, &[channels]), random(&mut stream, &[channels]));
        let residual = random(&mut stream, &shape);
        let weights = random(&mut stream, &shape);
        let config = BatchNormConfig { relu, chunk: images, ..Default::default() };
        // Both start from the same f32 values.
        let double = |t: &Tensor| single(t).to_dtype(DType::F64).unwrap();
        if relu {
            // A value within rounding of zero may fall on either side of the ReLU, and its whole gradient
            // with it.
            let open = BatchNormConfig { relu: false, ..config };
            let residual = with_residual.then(|| double(&residual));
            let (y, _) = batch_norm(&double(&x), &double(&gamma), &double(&beta), residual.as_ref(), open).unwrap();
            prop_assume!(values(&y).iter().all(|y| y.abs() > 2e-5));
        }
        let run = |dtype: DType| -> Result<(Vec<Tensor>, Statistics)> {
            let var = |t: &Tensor| Var::from_tensor(&single(t).to_dtype(dtype)?);
            let inputs = [var(&x)?, var(&gamma)?, var(&beta)?, var(&residual)?];
            let residual = with_residual.then(|| inputs[3].as_tensor());
            let (y, statistics) = batch_norm(&inputs[0], &inputs[1], &inputs[2], residual, config)?;
            let gradients = (&y * single(&weights).to_dtype(dtype)?)?.sum_all()?.backward()?;
            let used = if with_residual { 4 } else { 3 };
            let mut results = vec![y];
            results.extend(inputs[..used].iter().map(|v| gradients.get(v).unwrap().clone()));
            Ok((results, statistics))
        };
        let (got, got_statistics) = run(DType::F32).unwrap();
        let (want, want_statistics) = run(DType::F64).unwrap();
        for (c, (got, want)) in got_statistics.variance.iter().zip(&want_statistics.variance).enumerate() {
            prop_assert!((got - want).abs() <= 1e-4 * want + 1e-6, "variance of channel {c}: {got} {want}");
        }
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let error = error(got, &values(want));
            prop_assert!(error < 1e-3, "result {i}: {error:e}");
        }
    }

    /// Compares pooling with explicit loops over the windows.
    #[test]
    fn pooling_is_its_definition(
        seed: u64, h in 1usize..12, w in 1usize..12, kernel in 1usize..5, stride in 1usize..4, padding in 0usize..3, ceil_mode: bool,
    ) {
        prop_assume!(padding <= kernel / 2 && h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let x = random(&mut stream, &[2, h, w, 3]);
        let config = PoolConfig { kernel, stride, padding, ceil_mode };
        let (maximum, average) = (max_pool2d(&x, config).unwrap(), avg_pool2d(&x, config).unwrap());
        let (_, oh, ow, _) = maximum.dims4().unwrap();
        let (data, maximum, average) = (values(&x), values(&maximum), values(&average));
        for (image, oy, ox, c) in itertools(2, oh, ow, 3) {
            let (mut largest, mut sum, mut count) = (f64::NEG_INFINITY, 0.0, 0.0);
            for (ky, kx) in (0..kernel).flat_map(|a| (0..kernel).map(move |b| (a, b))) {
                let (y, x) = (oy * stride + ky, ox * stride + kx);
                if y < h + 2 * padding && x < w + 2 * padding {
                    count += 1.0;
                }
                if y >= padding && x >= padding && y - padding < h && x - padding < w {
                    let value = data[((image * h + y - padding) * w + x - padding) * 3 + c];
                    largest = largest.max(value);
                    sum += value;
                }
            }
            let at = ((image * oh + oy) * ow + ox) * 3 + c;
            prop_assert!((maximum[at] - largest).abs() < 1e-12);
            prop_assert!((average[at] - sum / count).abs() < 1e-12);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

        /// Compares bias and ReLU in f32 with their definition.
    #[test]
    fn bias_relu_is_its_definition(seed: u64, rows in 1usize..600, channels in 1usize..20) {
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let (x, bias) = (random(&mut s, &[rows, channels]), random(&mut s, &[channels]));
        let want: Vec<f64> = values(&x)
            .chunks(channels)
            .flat_map(|row| row.iter().zip(values(&bias)).map(|(x, b)| (x + b).max(0.0)).collect::<Vec<_>>())
            .collect();
        let y = bias_relu(&single(&x), &single(&bias)).unwrap();
        prop_assert!(error(&y, &want) < 1e-6);
        prop_assert!(error(&bias_relu(&x, &bias).unwrap(), &want) < 1e-15);
    }

    /// Compares the linear layer in f32 with candle's own in f64, forward and backward.
    #[test]
    fn linear_is_candles(seed: u64, rows in 1usize..40, inputs in 1usize..40, outputs in 1usize..40) {
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let inputs = [random(&mut s, &[rows, inputs]), random(&mut s, &[outputs, inputs]), random(&mut s, &[outputs])];
        let weights = random(&mut s, &[rows, outputs]);
        let run = |dtype: DType| -> Vec<Tensor> {
            let vars: Vec<Var> = inputs
                .iter()
                .map(|t| Var::from_tensor(&single(t).to_dtype(dtype).unwrap()).unwrap())
                .collect();
            let y = if dtype == DType::F32 {
                linear(&vars[0], &vars[1], &vars[2]).unwrap()
            } else {
                let layer = candle_nn::Linear::new(vars[1].as_tensor().clone(), Some(vars[2].as_tensor().clone()));
                candle_nn::Module::forward(&layer, &vars[0]).unwrap()
            };
            let loss = (&y * single(&weights).to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            let mut results = vec![y];
            results.extend(vars.iter().map(|v| gradients.get(v).unwrap().clone()));
            results
        };
        for (got, want) in run(DType::F32).iter().zip(run(DType::F64)) {
            let error = error(got, &values(&want));
            prop_assert!(error < 1e-5, "{error:e}");
        }
    }

    /// Compares local response norm with its equation.
    #[test]
    fn local_response_norm_is_its_equation(
        seed: u64, rows in 1usize..200, channels in 1usize..20, size in 1usize..8, alpha in 0.0f64..2.0, usual: bool, k in 0.5f64..2.0,
    ) {
        let beta = if usual { 0.75 } else { 0.6 };
        let x = random(&mut Stream::new(seed, Purpose::Bootstrap, 0, 0), &[rows, channels]);
        let y = values(&local_response_norm(&x, LocalResponseNormConfig { size, alpha, beta, k, ..Default::default() }).unwrap());
        let x = values(&x);
        for (at, y) in y.into_iter().enumerate() {
            let (row, c) = (at / channels * channels, at % channels);
            let window = c.saturating_sub(size / 2)..(c + (size - 1) / 2 + 1).min(channels);
            let squares: f64 = x[row..][window].iter().map(|x| x * x).sum();
            let want = x[at] / (k + alpha / size as f64 * squares).powf(beta);
            prop_assert!((y - want).abs() < 1e-12, "{y} {want}");
        }
    }

    /// A small network gives the same gradients on the tape as in candle's graph. Values meet in a residual,
    /// and one value enters two losses.
    #[test]
    fn the_tape_goes_back_as_candles_graph_does(
        seed: u64, images in 2usize..5, side in 4usize..9, channels in prop::sample::select(vec![3usize, 16]), relu: bool,
    ) {
        let mut s = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        let mut var = |shape: &[usize]| Var::from_tensor(&single(&random(&mut s, shape))).unwrap();
        let x = var(&[images, side, side, channels]);
        let w = var(&[3, 3, channels, channels]);
        let (gamma, beta) = (var(&[channels]), var(&[channels]));
        let (weight, bias) = (var(&[5, channels]), var(&[5]));
        let config = Conv2dConfig { stride: 1, padding: 1, algorithm: Algorithm::Fastest, tf32: false };
        let norm = BatchNormConfig { relu, ..Default::default() };
        let pool = PoolConfig::square(side);
        let loss =
            |pooled: &Tensor, unit: &Tensor| pooled.sqr()?.sum_all()? + unit.narrow(1, 0, 2)?.sum_all()?;

        let x_graph = x.as_detached_tensor();
        let y = conv2d(&x_graph, &w, config).unwrap();
        let (y, _) = batch_norm(&y, &gamma, &beta, Some(&x_graph), norm).unwrap();
        let pooled = avg_pool2d(&y, pool).unwrap().flatten_from(1).unwrap();
        let unit = l2_normalize(&linear(&pooled, &weight, &bias).unwrap()).unwrap();
        let want = loss(&pooled, &unit).unwrap().backward().unwrap();

        let mut tape = Tape::default();
        let start = Value::constant(&x.as_detached_tensor());
        let y = tape.conv2d(&start, &w, config).unwrap();
        let mut running = RunningStatistics::new(gamma.elem_count(), y.tensor().dtype(), &Device::Cpu).unwrap();
        let y = tape.batch_norm(&y, [&gamma, &beta], Some(&start), norm, &mut running).unwrap();
        let pooled = tape.avg_pool2d(&y, pool).unwrap();
        let pooled = tape.flatten(&pooled).unwrap();
        let projection = tape.linear(&pooled, &weight, &bias).unwrap();
        let unit = tape.l2_normalize(&projection).unwrap();
        let (pooled, unit) = (tape.leaf(&pooled).unwrap(), tape.leaf(&unit).unwrap());
        let mut got = loss(&pooled, &unit).unwrap().backward().unwrap();
        tape.backward(&mut got).unwrap();
        for parameter in [&w, &gamma, &beta, &weight, &bias] {
            let (got, want) = (values(got.get(parameter).unwrap()), values(want.get(parameter).unwrap()));
            let error = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
            prop_assert!(error <= 1e-5 * want.iter().fold(1e-3, |m: f64, w| m.max(w.abs())), "{error:e}");
        }
        prop_assert!(got.get(&pooled).is_none() && got.get(&unit).is_none());
    }
}

/// Compares with the values and gradients (of the values weighted by 1 to 8) of PyTorch 2.15's
/// `CrossMapLRN2d(5, 0.5, 0.6, 2.0)`, in f64, including the known errors of that class.
#[test]
#[allow(clippy::unreadable_literal, reason = "the digits as PyTorch prints them")]
fn local_response_norm_is_pytorchs_cross_map() {
    let values_of = [1.0f64, -2.0, 3.0, 0.5, 4.0, -1.0, 2.5, -0.5];
    let x = Var::from_tensor(&Tensor::new(&[values_of], &Device::Cpu).unwrap()).unwrap();
    let weights = Tensor::arange(1f64, 9.0, &Device::Cpu).unwrap();
    let window = LocalResponseWindow::CrossMapLrn2d;
    let config = LocalResponseNormConfig { size: 5, alpha: 0.5, beta: 0.6, k: 2.0, window };
    let y = local_response_norm(&x, config).unwrap();
    let want = [
        0.47985790076901175,
        -0.9555065096843369,
        1.1387794333202437,
        0.1875658124218099,
        1.4623378534991853,
        -0.4069341863006613,
        1.020760843433519,
        -0.2667246097219525,
    ];
    let value = error(&y, &want);
    let gradients = y.broadcast_mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
    let want = [
        0.52987694024401,
        1.0186368271503752,
        0.9913825386065703,
        1.3939600967882895,
        1.3050285804505126,
        2.831966698315222,
        2.310797103516352,
        4.368276837418304,
    ];
    let gradient = error(gradients.get(&x).unwrap(), &want);
    assert!(value < 1e-14 && gradient < 1e-14, "{value:e} {gradient:e}");
    let even = local_response_norm(&x, LocalResponseNormConfig { size: 4, window, ..Default::default() });
    assert!(even.unwrap_err().to_string().contains("odd number"));
}

/// Branches leave one map and are concatenated along the channels, as in Inception's modules; one of the
/// branches is the map itself. In f64 the tape's gradients are those of candle's graph.
#[test]
fn branches_meet_on_the_tape_as_in_candles_graph() {
    let mut s = stream();
    let mut var = |shape: &[usize]| Var::from_tensor(&random(&mut s, shape)).unwrap();
    let x = var(&[2, 7, 6, 3]);
    let (w, bias) = (var(&[3, 3, 3, 4]), var(&[4]));
    let (inner, inner_bias) = (var(&[1, 1, 4, 5]), var(&[5]));
    let (projection, projection_bias) = (var(&[1, 1, 4, 2]), var(&[2]));
    let same = Conv2dConfig { padding: 1, ..Default::default() };
    let plain = Conv2dConfig::default();
    let pool = PoolConfig { kernel: 3, stride: 1, padding: 1, ceil_mode: true };
    let norm = LocalResponseNormConfig { alpha: 0.5, ..Default::default() };

    let start = bias_relu(&conv2d(&x, &w, same).unwrap(), &bias).unwrap();
    let start = local_response_norm(&start, norm).unwrap();
    let a = bias_relu(&conv2d(&start, &inner, plain).unwrap(), &inner_bias).unwrap();
    let b = max_pool2d(&start, pool).unwrap();
    let b = bias_relu(&conv2d(&b, &projection, plain).unwrap(), &projection_bias).unwrap();
    let y = Tensor::cat(&[&a, &start, &b], 3).unwrap();
    let want = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();

    let mut tape = Tape::default();
    let start = tape.conv2d(&Value::constant(&x), &w, same).unwrap();
    let start = tape.bias_relu(&start, &bias).unwrap();
    let start = tape.local_response_norm(&start, norm).unwrap();
    let a = tape.conv2d(&start, &inner, plain).unwrap();
    let a = tape.bias_relu(&a, &inner_bias).unwrap();
    let b = tape.max_pool2d(&start, pool).unwrap();
    let b = tape.conv2d(&b, &projection, plain).unwrap();
    let b = tape.bias_relu(&b, &projection_bias).unwrap();
    let joined = tape.concatenate(&[a, start, b]).unwrap();
    assert_eq!(values(joined.tensor()), values(&y));
    let leaf = tape.leaf(&joined).unwrap();
    let mut got = leaf.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    tape.backward(&mut got).unwrap();
    for parameter in [&w, &bias, &inner, &inner_bias, &projection, &projection_bias] {
        let error = error(got.get(parameter).unwrap(), &values(want.get(parameter).unwrap()));
        assert!(error < 1e-12, "{:?}: {error:e}", parameter.shape());
    }
}

/// Compares with PyTorch 2.15's values and gradients (of the values weighted by 1 to 6), in f64.
#[test]
#[allow(clippy::unreadable_literal, reason = "the digits as PyTorch prints them")]
fn local_response_norm_is_pytorchs() {
    let x = Var::from_tensor(&Tensor::new(&[[1.0f64, -2.0, 3.0, 0.5, 4.0, -1.0]], &Device::Cpu).unwrap())
        .unwrap();
    let weights = Tensor::new(&[[1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0]], &Device::Cpu).unwrap();
    let even = LocalResponseNormConfig { size: 4, alpha: 0.5, beta: 0.6, k: 2.0, ..Default::default() };
    let cases = [
        (
            LocalResponseNormConfig::default(),
            [
                0.9997900514367979,
                -1.9995726065799686,
                2.998639470212306,
                0.4997732450353843,
                3.9984257231676037,
                -0.9997413280854619,
            ],
            [
                0.9996102919294636,
                2.000051998650247,
                2.99612203466387,
                3.997871326032762,
                4.995035319263229,
                5.998927462811719,
            ],
        ),
        (
            even,
            [
                0.5604313423073425,
                -0.9049221840724235,
                1.3506412814920268,
                0.1767880259428725,
                1.4737301059483021,
                -0.4253818957708203,
            ],
            [
                0.44006299407909666,
                1.183165290452707,
                0.40148921940425986,
                1.2659716955396394,
                1.2984524356974183,
                2.6694657188475155,
            ],
        ),
    ];
    for (config, y, gx) in cases {
        let got = local_response_norm(&x, config).unwrap();
        assert!(error(&got, &y) < 1e-14, "{config:?}");
        let gradients = (got * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(error(gradients.get(&x).unwrap(), &gx) < 1e-14, "{config:?}");
    }
}

fn itertools(n: usize, h: usize, w: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..n * h * w * c).map(move |i| (i / (h * w * c), i / (w * c) % h, i / c % w, i % c))
}

fn stream() -> Stream {
    Stream::new(5, Purpose::Bootstrap, 0, 0)
}

/// There are more tiles than are transformed at once, so the gradient of the weights is summed in several
/// rounds.
#[test]
fn winograd_in_several_rounds() {
    let mut s = stream();
    let (x, w) = (random(&mut s, &[20, 16, 15, 48]), random(&mut s, &[3, 3, 48, 48]));
    let error = conv_error(
        &x,
        &w,
        Conv2dConfig { stride: 1, padding: 1, algorithm: Algorithm::Fastest, tf32: false },
    );
    assert!(error < 1e-5, "{error:e}");
}

/// There are so many channels that the transformed kernel is never held whole, an odd number of panels, and
/// more tiles than fit into one round.
#[test]
fn winograd_of_many_channels() {
    let mut s = stream();
    for (n, side, ci, co) in [(3, 5, 208, 240), (70, 8, 224, 208)] {
        let (x, w) = (random(&mut s, &[n, side, side, ci]), random(&mut s, &[3, 3, ci, co]));
        let config = |algorithm| Conv2dConfig { stride: 1, padding: 1, algorithm, tf32: false };
        if n == 3 {
            let error = conv_error(&x, &w, config(Algorithm::Fastest));
            assert!(error < 1e-5, "{error:e}");
            continue;
        }
        // The shape is too large for the plain version, so it is compared with the direct path, which has its
        // own tests.
        let run = |algorithm| -> Vec<Vec<f64>> {
            let (x, w) = (Var::from_tensor(&single(&x)).unwrap(), Var::from_tensor(&single(&w)).unwrap());
            let y = conv2d(&x, &w, config(algorithm)).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vec![values(&y), values(gradients.get(&x).unwrap()), values(gradients.get(&w).unwrap())]
        };
        for (got, want) in run(Algorithm::Fastest).into_iter().zip(run(Algorithm::Direct)) {
            let got = Tensor::new(got, &Device::Cpu).unwrap();
            let error = error(&got, &want);
            assert!(error < 1e-5, "{error:e}");
        }
    }
}

#[test]
fn gradient_of_convolution() {
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 3, 1)] {
        let inputs = [random(&mut stream(), &[2, 5, 4, 3]), random(&mut stream(), &[kernel, kernel, 3, 2])];
        let config = Conv2dConfig { stride, padding, algorithm: Algorithm::Direct, tf32: false };
        let error = gradient_error(&inputs, |t| conv2d(&t[0], &t[1], config)).unwrap();
        assert!(error < 1e-8, "kernel {kernel} stride {stride}: {error:e}");
    }
}

#[test]
fn gradient_of_batch_norm() {
    let mut s = stream();
    let shape = [4, 2, 3, 5];
    let inputs = [random(&mut s, &shape), random(&mut s, &[5]), random(&mut s, &[5]), random(&mut s, &shape)];
    for (relu, chunk) in [(false, 0), (true, 0), (true, 2)] {
        let config = BatchNormConfig { relu, chunk, ..Default::default() };
        let with =
            gradient_error(&inputs, |t| Ok(batch_norm(&t[0], &t[1], &t[2], Some(&t[3]), config)?.0)).unwrap();
        let without =
            gradient_error(&inputs[..3], |t| Ok(batch_norm(&t[0], &t[1], &t[2], None, config)?.0)).unwrap();
        assert!(with < 1e-6 && without < 1e-6, "relu {relu} chunk {chunk}: {with:e} {without:e}");
    }
}

#[test]
fn gradient_of_pooling_and_normalization() {
    let x = random(&mut stream(), &[2, 7, 6, 2]);
    for config in [
        PoolConfig::square(2),
        PoolConfig { kernel: 3, stride: 2, padding: 1, ceil_mode: true },
        PoolConfig { kernel: 5, stride: 5, padding: 0, ceil_mode: false },
    ] {
        let maximum = gradient_error(std::slice::from_ref(&x), |t| max_pool2d(&t[0], config)).unwrap();
        let average = gradient_error(std::slice::from_ref(&x), |t| avg_pool2d(&t[0], config)).unwrap();
        assert!(maximum < 1e-7 && average < 1e-7, "{config:?}: {maximum:e} {average:e}");
    }
    let config = LocalResponseNormConfig { size: 4, alpha: 0.7, ..Default::default() };
    let error =
        gradient_error(&[random(&mut stream(), &[3, 2, 2, 7])], |t| local_response_norm(&t[0], config))
            .unwrap();
    assert!(error < 1e-8, "{error:e}");
    let mut s = stream();
    let inputs = [random(&mut s, &[4, 3]), random(&mut s, &[2, 3]), random(&mut s, &[2])];
    let error = gradient_error(&inputs, |t| linear(&t[0], &t[1], &t[2])).unwrap();
    assert!(error < 1e-8, "{error:e}");
    let mut s = stream();
    let inputs = [random(&mut s, &[2, 3, 2, 5]), random(&mut s, &[5])];
    let error = gradient_error(&inputs, |t| bias_relu(&t[0], &t[1])).unwrap();
    assert!(error < 1e-8, "{error:e}");
    let rows = random(&mut stream(), &[4, 6]);
    let error = gradient_error(&[rows], |t| l2_normalize(&t[0])).unwrap();
    assert!(error < 1e-8, "{error:e}");
}

/// Checks two gradients that candle's own pooling gets wrong: a strict maximum in a 2x2 window gets the whole
/// gradient, and the average of a 7x7 window in a 12x12 map distributes exactly 1.
#[test]
fn pooling_gradients_that_candle_gets_wrong() {
    let x = Var::from_tensor(&Tensor::new(&[[[[1.0f32], [2.0]], [[3.0], [9.0]]]], &Device::Cpu).unwrap())
        .unwrap();
    let gradients = max_pool2d(&x, PoolConfig::square(2)).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(values(gradients.get(&x).unwrap()), [0.0, 0.0, 0.0, 1.0]);
    let x = Var::from_tensor(&Tensor::ones((1, 12, 12, 1), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let gradients = avg_pool2d(&x, PoolConfig::square(7)).unwrap().sum_all().unwrap().backward().unwrap();
    let total: f64 = values(gradients.get(&x).unwrap()).iter().sum();
    assert!((total - 1.0).abs() < 1e-6, "{total}");
}

/// The results have the same bits on one thread and on three.
#[test]
fn thread_count_changes_nothing() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut s = stream();
            let mut bits = Vec::new();
            for algorithm in [Algorithm::Direct, Algorithm::Fastest] {
                let x = Var::from_tensor(&single(&random(&mut s, &[9, 13, 13, 32]))).unwrap();
                let w = Var::from_tensor(&single(&random(&mut s, &[3, 3, 32, 32]))).unwrap();
                let (gamma, beta) = (single(&random(&mut s, &[32])), single(&random(&mut s, &[32])));
                let y =
                    conv2d(&x, &w, Conv2dConfig { stride: 1, padding: 1, algorithm, tf32: false }).unwrap();
                let config = BatchNormConfig { relu: true, ..Default::default() };
                let (y, _) = batch_norm(&y, &gamma, &beta, None, config).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                for t in [&y, gradients.get(&x).unwrap(), gradients.get(&w).unwrap()] {
                    bits.extend(
                        t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits),
                    );
                }
            }
            bits
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn evaluation_uses_the_statistics_it_is_given() {
    let x = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
    let (gamma, beta) = (
        Tensor::new(&[2.0f32, 1.0], &Device::Cpu).unwrap(),
        Tensor::new(&[0.5f32, 0.0], &Device::Cpu).unwrap(),
    );
    let statistics = Statistics { mean: vec![1.0, 4.0], variance: vec![4.0, 1.0] };
    let config = BatchNormConfig { eps: 0.0, relu: true, chunk: 0 };
    let y = batch_norm_with(&x, &gamma, &beta, None, &statistics, config).unwrap();
    assert_eq!(values(&y), [0.5, 0.0, 2.5, 0.0]);
}

#[test]
fn a_batch_without_images_gives_none() {
    for (channels, stride) in [(16, 1), (16, 2), (3, 1)] {
        let x = Var::zeros((0, 8, 8, channels), DType::F32, &Device::Cpu).unwrap();
        let w = Var::ones((3, 3, channels, 16), DType::F32, &Device::Cpu).unwrap();
        let config = Conv2dConfig { stride, padding: 1, ..Conv2dConfig::default() };
        let y = conv2d(x.as_tensor(), w.as_tensor(), config).unwrap();
        assert_eq!(y.dims(), [0, 8 / stride, 8 / stride, 16]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        let gw = grads.get(&w).unwrap();
        assert_eq!((gw.dims(), values(gw).iter().all(|&v| v == 0.0)), (&[3, 3, channels, 16][..], true));
        assert_eq!(grads.get(&x).unwrap().dims(), [0, 8, 8, channels]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let channels = message(conv2d(&zeros(&[1, 4, 4, 3]), &zeros(&[3, 3, 4, 8]), Conv2dConfig::default()));
    assert!(channels.contains("3 channels") && channels.contains("takes 4"), "{channels}");
    let kernel = message(conv2d(&zeros(&[1, 2, 2, 3]), &zeros(&[3, 3, 3, 8]), Conv2dConfig::default()));
    assert!(kernel.contains("larger than the padded input"), "{kernel}");
    let window = message(max_pool2d(&zeros(&[1, 2, 2, 3]), PoolConfig::square(3)));
    assert!(window.contains("does not fit"), "{window}");
    let bias = message(bias_relu(&zeros(&[1, 2, 2, 3]), &zeros(&[4])));
    assert!(bias.contains("bias_relu") && bias.contains("[4]"), "{bias}");
    let config = BatchNormConfig { chunk: 3, ..Default::default() };
    let chunk = batch_norm(&zeros(&[4, 2]), &zeros(&[2]), &zeros(&[2]), None, config).map(|r| r.0);
    assert!(message(chunk).contains("chunks of 3"));
}
