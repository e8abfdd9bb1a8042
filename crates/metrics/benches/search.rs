//! Nearest neighbors and k-means at the paper's sizes: CIFAR-10's test set against its training set, and
//! Stanford Online Products.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use invaspread_metrics::{KMeans, Rows, Seeding, top_k};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::DeviceKind;
use std::hint::black_box;

const DIM: usize = 128;

fn unit_rows(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
    let mut values: Vec<f32> = (0..count * DIM).map(|_| stream.normal() as f32).collect();
    for row in values.chunks_mut(DIM) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in row {
            *x /= length;
        }
    }
    values
}

fn neighbors(criterion: &mut Criterion) {
    let (train, test) = (unit_rows(50_000, 0), unit_rows(10_000, 1));
    let mut group = criterion.benchmark_group("top_k");
    group.sample_size(10);
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("10,000 against 50,000 x 128, k = 200", |b| {
        b.iter(|| black_box(top_k(Rows::new(&test, DIM), Rows::new(&train, DIM), 200, false)));
    });
    group.finish();
}

fn clusters(criterion: &mut Criterion) {
    let points = unit_rows(60_502, 2);
    let kmeans = KMeans {
        clusters: 11_316,
        iterations: 1,
        tolerance: 0.0,
        restarts: 1,
        seeding: Seeding::Random,
        seed: 0,
        epoch: 0,
        device: DeviceKind::Cpu,
    };
    let mut group = criterion.benchmark_group("kmeans");
    group.sample_size(10);
    group.throughput(Throughput::Elements(60_502));
    group.bench_function("60,502 x 128, 11,316 clusters, one iteration", |b| {
        b.iter(|| black_box(kmeans.fit(Rows::new(&points, DIM))));
    });
    group.finish();
}

criterion_group!(benches, neighbors, clusters);
criterion_main!(benches);
