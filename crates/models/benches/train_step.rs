//! A whole training step of the paper's CIFAR network: forward, InvaSpread loss, backward, SGD.

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use invaspread_losses::InvaSpread;
use invaspread_models::{Mode, ResNet, ResNetConfig};
use invaspread_tensor::{Algorithm, Sgd, SgdConfig, prepare_process};

fn images(views: usize) -> Tensor {
    let values: Vec<f32> = (0..views * 3072).map(|i| ((i * 7919 % 1009) as f32) * 2e-3 - 1.0).collect();
    Tensor::from_vec(values, (views, 32, 32, 3), &Device::Cpu).expect("images")
}

fn train_step(criterion: &mut Criterion) {
    prepare_process();
    let mut group = criterion.benchmark_group("train_step");
    group.sample_size(10);
    for (width, views) in [(16, 64), (16, 128), (64, 64), (64, 128)] {
        for algorithm in [Algorithm::Direct, Algorithm::Fastest] {
            let network =
                ResNet::new(ResNetConfig { width, algorithm, ..Default::default() }, 0).expect("network");
            let config = SgdConfig { momentum: 0.9, weight_decay: 5e-4 };
            let mut sgd = Sgd::new(network.parameters(), config).expect("optimizer");
            let x = images(views);
            group.throughput(Throughput::Elements(views as u64));
            group.bench_function(
                BenchmarkId::new(format!("width {width}, {views} views"), format!("{algorithm:?}")),
                |b| {
                    b.iter(|| {
                        // The step runs on a worker thread of rayon, as in the engine.
                        rayon::scope(|_| {
                            let mut output = network.forward(&x, Mode::Train).expect("forward");
                            let loss = InvaSpread::default().loss(&output.embedding).expect("loss");
                            sgd.step(&output.backward(&loss).expect("backward"), 1e-4).expect("step");
                        });
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, train_step);
criterion_main!(benches);
