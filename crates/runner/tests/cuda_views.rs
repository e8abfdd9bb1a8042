//! Compares views made on the GPU with those of the CPU's pipeline, for the same draws: every number is
//! equal. The test is skipped where there is no device.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use candle_core::{DType, Device};
use invaspread_augment::{AugmentConfig, ChannelOrder, ImageRef, Pipeline, RandomCrop, Scratch};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::cuda::augment::ImageStore;
use invaspread_tensor::cuda::testing::device_or_skip;

const IMAGES: usize = 4;

/// Makes views of random images in both ways and returns how many numbers differ.
fn differing(device: &Device, pipeline: &Pipeline, [width, height]: [usize; 2], epoch: u64) -> usize {
    let mut stream = Stream::new(epoch, Purpose::Synthetic, 0, (width * 1000 + height) as u64);
    // The images have smooth parts, noise and flat parts, because each of these rounds in other places.
    let bytes: Vec<u8> = (0..IMAGES * height * width * 3)
        .map(|i| match i / (width * 3) % 3 {
            0 => (i % (width * 3) * 255 / (width * 3)) as u8,
            1 => stream.below(256) as u8,
            _ => 77,
        })
        .collect();
    let settings = pipeline.view_settings().unwrap();
    let store =
        ImageStore::new(device, &bytes, [width, height], settings.size, &settings.normalized, settings.bgr)
            .unwrap();
    let batches: Vec<Vec<u32>> = vec![(0..IMAGES as u32).collect(), vec![3, 1]];
    let plans = pipeline.plans([width, height], &batches, 0..2, 7, epoch);
    let index: Vec<u32> = batches.iter().flat_map(|batch| batch.repeat(2)).collect();
    let words: Vec<u32> = plans.iter().flat_map(|plan| plan.0).collect();
    let [there, uploaded] = store.upload(&index, &words).unwrap();
    let got = store.views(&there, &uploaded, DType::F32).unwrap();
    let got = got.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let padded = store.views(&there, &uploaded, DType::BF16).unwrap();
    assert_eq!(padded.dims(), [index.len(), settings.size, settings.size, 8]);
    let (mut scratch, mut differing) = (Scratch::default(), 0);
    let view_len = pipeline.view_len();
    let mut place = 0;
    for batch in &batches {
        for view in 0..2 {
            for &image in batch {
                let pixels = &bytes[image as usize * width * height * 3..][..width * height * 3];
                let mut stream = Stream::new(7, Purpose::Augment, epoch, 2 * u64::from(image) + view);
                let mut want = vec![0.0; view_len];
                pipeline.apply(ImageRef::new(width, height, pixels), &mut stream, &mut scratch, &mut want);
                let got = &got[place * view_len..][..view_len];
                differing += got.iter().zip(&want).filter(|(g, w)| g.to_bits() != w.to_bits()).count();
                place += 1;
            }
        }
    }
    differing
}

#[test]
fn every_number_is_the_cpus() {
    let Some(device) = device_or_skip() else { return };
    let sizes = [[32, 32], [32, 32], [96, 96], [40, 25], [13, 50], [7, 7], [64, 200]];
    for (epoch, sides) in (0..).zip(sizes) {
        for size in [32, 17] {
            let plain = AugmentConfig { size, ..AugmentConfig::default() };
            let bgr = AugmentConfig { crop: Some(RandomCrop { padding: 4 }), ..plain.clone() };
            let mut blue = bgr.clone();
            blue.normalize.channels = ChannelOrder::Bgr;
            for config in [&plain, &blue] {
                for pipeline in [Pipeline::train(config).unwrap(), Pipeline::evaluate(config).unwrap()] {
                    let found = differing(&device, &pipeline, sides, epoch);
                    assert_eq!(found, 0, "{sides:?} to {size}, {config:?}");
                }
            }
        }
    }
}
