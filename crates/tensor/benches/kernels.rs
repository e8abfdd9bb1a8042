//! Times convolution, batch norm and one stage of a network, each alone.

use candle_core::{DType, Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use invaspread_tensor::{Algorithm, BatchNormConfig, Conv2dConfig, batch_norm, conv2d, prepare_process};
use std::hint::black_box;

const BATCH: usize = 64;

fn uniform(shape: &[usize]) -> Tensor {
    let values: Vec<f32> =
        (0..shape.iter().product::<usize>()).map(|i| ((i * 7919 % 1000) as f32) * 1e-3 - 0.5).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("shape")
}

fn convolutions(criterion: &mut Criterion) {
    prepare_process();
    let mut group = criterion.benchmark_group("conv2d");
    group.sample_size(10);
    for (channels, side) in [(16, 32), (32, 16), (64, 32), (64, 8), (128, 16), (128, 4), (256, 8), (512, 4)] {
        let map = uniform(&[BATCH, side, side, channels]);
        let w = Var::from_tensor(&uniform(&[3, 3, channels, channels])).expect("w");
        let products = 9 * BATCH * side * side * channels * channels;
        let forms = [
            (DType::F32, Algorithm::Direct),
            (DType::F32, Algorithm::Fastest),
            (DType::BF16, Algorithm::Direct),
            (DType::BF16, Algorithm::Fastest),
        ];
        for (dtype, algorithm) in forms {
            let x = Var::from_tensor(&map.to_dtype(dtype).expect("numbers")).expect("x");
            let config = Conv2dConfig { stride: 1, padding: 1, algorithm, tf32: false };
            group.throughput(Throughput::Elements(2 * products as u64));
            let name = |pass| {
                BenchmarkId::new(
                    format!("{dtype:?}/{algorithm:?}/{pass}"),
                    format!("{channels}x{side}x{side}"),
                )
            };
            group.bench_function(name("forward"), |b| {
                b.iter(|| {
                    black_box(conv2d(&x.as_detached_tensor(), &w.as_detached_tensor(), config).expect("conv"))
                });
            });
            group.throughput(Throughput::Elements(6 * products as u64));
            group.bench_function(name("forward+backward"), |b| {
                b.iter(|| black_box(conv2d(&x, &w, config).and_then(|y| y.backward()).expect("gradients")));
            });
        }
    }
    group.finish();
}

fn batch_norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_norm");
    group.sample_size(10);
    for (channels, side) in [(16, 32), (64, 32), (512, 4)] {
        let x = Var::from_tensor(&uniform(&[BATCH, side, side, channels])).expect("x");
        let parameter = |value: f64| Tensor::full(value as f32, channels, &Device::Cpu).expect("parameter");
        let (gamma, beta) =
            (parameter(1.0), Tensor::zeros(channels, DType::F32, &Device::Cpu).expect("beta"));
        let config = BatchNormConfig { relu: true, ..Default::default() };
        group.throughput(Throughput::Elements(x.elem_count() as u64));
        group.bench_function(
            BenchmarkId::new("relu/forward+backward", format!("{channels}x{side}x{side}")),
            |b| {
                b.iter(|| {
                    let (y, _) = batch_norm(&x, &gamma, &beta, None, config).expect("batch norm");
                    black_box(y.backward().expect("gradients"))
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, convolutions, batch_norms);
criterion_main!(benches);
