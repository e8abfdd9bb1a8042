//! Measures views per second on one core: the paper's four transforms at 32 x 32, each transform alone, a
//! blur, and a 227-pixel view.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use invaspread_augment::{AugmentConfig, Image, Pipeline, RandomBlur, Scratch};
use invaspread_random::{Purpose, Stream};

fn noise(side: usize) -> Image {
    let mut stream = Stream::new(0, Purpose::Synthetic, 0, 0);
    Image::new(side, side, (0..side * side * 3).map(|_| stream.next_u32() as u8).collect())
}

fn bench(criterion: &mut Criterion) {
    let all = ["resized_crop", "color_jitter", "grayscale", "flip"];
    let only = |kept: &str| all.iter().filter(|name| **name != kept).map(|name| (*name).to_owned()).collect();
    let mut cases = vec![("32/all".to_owned(), 32, AugmentConfig::default())];
    for kept in all {
        cases.push((
            format!("32/{kept}"),
            32,
            AugmentConfig { without: only(kept), ..AugmentConfig::default() },
        ));
    }
    let blur = Some(RandomBlur { probability: vec![1.0], ..RandomBlur::default() });
    cases.push((
        "32/blur".to_owned(),
        32,
        AugmentConfig { without: only("blur"), blur, ..AugmentConfig::default() },
    ));
    cases.push(("227/all".to_owned(), 256, AugmentConfig { size: 227, ..AugmentConfig::default() }));
    let mut group = criterion.benchmark_group("views");
    group.throughput(Throughput::Elements(1));
    for (name, side, config) in cases {
        let pipeline = Pipeline::train(&config).expect("the bench's configs are valid");
        let (image, mut scratch, mut out) = (noise(side), Scratch::default(), vec![0.0; pipeline.view_len()]);
        let mut index = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                index += 1;
                let mut stream = Stream::new(0, Purpose::Augment, 0, index);
                pipeline.apply(black_box(image.as_ref()), &mut stream, &mut scratch, &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
