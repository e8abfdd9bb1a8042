//! Linear probes at CIFAR-10's size: 50,000 training embeddings of 128 numbers in 10 classes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use invaspread_metrics::{LinearSvm, LogisticRegression, Rows, l2_normalize_rows};
use invaspread_random::{Purpose, Stream};
use std::hint::black_box;

const ROWS: usize = 50_000;
const DIM: usize = 128;
const CLASSES: usize = 10;

/// Returns unit rows around one direction for each class, so near to one another that no plane separates the
/// classes.
fn embeddings() -> (Vec<f32>, Vec<u32>) {
    let mut stream = Stream::new(0, Purpose::Bootstrap, 0, 0);
    let centers: Vec<f64> = (0..CLASSES * DIM).map(|_| stream.normal()).collect();
    let (mut values, mut labels) = (Vec::with_capacity(ROWS * DIM), Vec::with_capacity(ROWS));
    for _ in 0..ROWS {
        let class = stream.below(CLASSES);
        labels.push(class as u32);
        values.extend((0..DIM).map(|i| (0.25 * centers[class * DIM + i] + stream.normal()) as f32));
    }
    l2_normalize_rows(&mut values, DIM);
    (values, labels)
}

fn probes(criterion: &mut Criterion) {
    let (values, labels) = embeddings();
    let rows = Rows::new(&values, DIM);
    let mut group = criterion.benchmark_group("linear probe, 50,000 x 128, 10 classes");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("linear SVM", |b| b.iter(|| black_box(LinearSvm::default().fit(rows, &labels))));
    group.bench_function("logistic regression", |b| {
        b.iter(|| black_box(LogisticRegression::default().fit(rows, &labels)));
    });
    group.finish();
}

criterion_group!(benches, probes);
criterion_main!(benches);
