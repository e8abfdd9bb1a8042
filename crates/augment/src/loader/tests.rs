#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::image::{Image, ImageRef};
use crate::{AugmentConfig, RandomSolarize, SourceImage};
use invaspread_random::{Purpose, Stream};

/// Some images, one of which may be broken; counts how many were requested.
struct Images {
    stored: Vec<Image>,
    broken: Option<usize>,
    panics: bool,
    asked: std::sync::atomic::AtomicUsize,
}

impl Images {
    fn new(n: usize) -> Self {
        let image = |i: usize| {
            let (w, h) = (8 + i % 5, 8 + i % 3);
            Image::new(w, h, (0..w * h * 3).map(|p| (p * 7 + i * 13) as u8).collect())
        };
        Self { stored: (0..n).map(image).collect(), broken: None, panics: false, asked: 0.into() }
    }
}

impl ImageSource for Images {
    fn len(&self) -> usize {
        self.stored.len()
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.broken == Some(index) {
            assert!(!self.panics, "the source fell over");
            return Err("bird.png: not a PNG file".into());
        }
        let image = &self.stored[index];
        Ok(ImageRef::new(image.width, image.height, &image.pixels).into())
    }
}

fn pipeline() -> Arc<Pipeline> {
    Arc::new(Pipeline::train(&AugmentConfig { size: 8, ..AugmentConfig::default() }).unwrap())
}

fn shuffled(n: usize, batch: usize) -> Vec<Vec<u32>> {
    let order = Stream::new(1, Purpose::Shuffle, 0, 0).permutation(n);
    order.chunks(batch).map(<[u32]>::to_vec).collect()
}

fn bits(config: LoaderConfig) -> Vec<(Vec<u32>, Vec<u32>)> {
    let loader = BatchLoader::new(Arc::new(Images::new(53)), pipeline(), config).unwrap();
    loader
        .map(|batch| {
            let batch = batch.unwrap();
            let bits = (batch.index.clone(), batch.images.iter().map(|x| x.to_bits()).collect());
            batch.recycle();
            bits
        })
        .collect()
}

fn config(threads: usize, ahead: usize) -> LoaderConfig {
    LoaderConfig {
        views: 2,
        seed: 3,
        epoch: 4,
        ahead,
        threads: Some(threads),
        ..LoaderConfig::new(shuffled(53, 10))
    }
}

#[test]
fn neither_threads_nor_depth_change_a_bit() {
    let one = bits(config(1, 1));
    assert_eq!(one.iter().map(|(index, _)| index.len()).collect::<Vec<_>>(), [10, 10, 10, 10, 10, 3]);
    for (threads, ahead) in [(2, 1), (2, 3), (1, 5), (5, 2)] {
        assert_eq!(bits(config(threads, ahead)), one, "{threads} threads, {ahead} ahead");
    }
}

#[test]
fn each_view_is_the_pipelines_with_its_own_stream() {
    let (images, pipeline) = (Images::new(53), pipeline());
    let view_len = pipeline.view_len();
    let mut expected = vec![0.0; view_len];
    let two = bits(config(2, 2));
    let five = bits(LoaderConfig { views: 5, ..config(3, 2) });
    for ((_, two), (_, five)) in two.iter().zip(&five) {
        assert_eq!(*two, five[..two.len()], "more views leave the first two as they are");
    }
    for (index, bits) in five {
        for (at, &image) in index.iter().enumerate() {
            for view in 0..5 {
                let further = [0, 0, 1 << 33, 1 << 33, 1 << 34][view];
                let number = further + 2 * u64::from(image) + view as u64 % 2;
                let mut stream = Stream::new(3, Purpose::Augment, 4, number);
                let pixels = images.stored[image as usize].as_ref();
                pipeline.apply(pixels, &mut stream, &mut Scratch::default(), &mut expected);
                let start = (view * index.len() + at) * view_len;
                let found = &bits[start..start + view_len];
                assert!(
                    expected.iter().zip(found).all(|(a, &b)| a.to_bits() == b),
                    "image {image} view {view}"
                );
            }
        }
    }
}

#[test]
fn further_groups_have_views_of_their_own_size_and_draws() {
    let mut crops = AugmentConfig { size: 8, ..AugmentConfig::default() }.small_crops(5, [0.05, 0.14]);
    // The number that decides this is that within the group.
    crops.solarize = Some(RandomSolarize { threshold: 64, probability: vec![1.0, 0.0, 0.5] });
    let small = Arc::new(Pipeline::train(&crops).unwrap());
    let images = Images::new(53);
    let mut expected = vec![0.0; small.view_len()];
    let alone = bits(config(1, 1));
    for threads in [1, 3] {
        let more = vec![
            ViewGroup { pipeline: Arc::clone(&small), views: 3 },
            ViewGroup { pipeline: pipeline(), views: 1 },
        ];
        let config = LoaderConfig { more, ..config(threads, 2) };
        let loader = BatchLoader::new(Arc::new(Images::new(53)), pipeline(), config).unwrap();
        for (batch, (index, first)) in loader.zip(&alone) {
            let batch = batch.unwrap();
            assert_eq!((&batch.index, &batch.sizes), (index, &vec![8, 5, 8]));
            assert!(batch.images.iter().map(|x| x.to_bits()).eq(first.iter().copied()), "first views");
            assert_eq!(batch.more[1].len(), index.len() * 8 * 8 * 3);
            for (place, found) in batch.more[0].chunks_exact(small.view_len()).enumerate() {
                let image = index[place % index.len()];
                let view = place / index.len();
                let mut stream = view_stream(3, 4, image, 2 + view);
                let pixels = images.stored[image as usize].as_ref();
                small.apply_as(view, pixels, &mut stream, &mut Scratch::default(), &mut expected);
                assert!(expected.iter().zip(found).all(|(a, b)| a.to_bits() == b.to_bits()), "{place}");
            }
            batch.recycle();
        }
    }
}

#[test]
fn a_second_view_may_be_of_another_image() {
    let second: Vec<u32> =
        (0..53).map(|image| if image % 3 == 0 { (image + 5) % 53 } else { image }).collect();
    let with = LoaderConfig { second_images: Some(second.clone().into()), ..config(2, 2) };
    let (images, pipeline) = (Images::new(53), pipeline());
    let view_len = pipeline.view_len();
    let mut expected = vec![0.0; view_len];
    for ((index, got), (_, usual)) in bits(with).into_iter().zip(bits(config(1, 1))) {
        assert_eq!(got[..index.len() * view_len], usual[..index.len() * view_len], "first views");
        for (at, &image) in index.iter().enumerate() {
            // The view shows the other image's pixels with the image's own draws.
            let mut stream = Stream::new(3, Purpose::Augment, 4, 2 * u64::from(image) + 1);
            let pixels = images.stored[second[image as usize] as usize].as_ref();
            pipeline.apply(pixels, &mut stream, &mut Scratch::default(), &mut expected);
            let found = &got[(index.len() + at) * view_len..][..view_len];
            assert!(expected.iter().zip(found).all(|(a, &b)| a.to_bits() == b), "image {image}");
        }
    }
}

#[test]
fn a_broken_image_reaches_the_consumer_and_ends_the_epoch() {
    let source = Images { broken: Some(17), ..Images::new(53) };
    let config = LoaderConfig { threads: Some(2), ..LoaderConfig::in_order(53, 10) };
    let mut loader = BatchLoader::new(Arc::new(source), pipeline(), config).unwrap();
    assert_eq!(loader.next().unwrap().unwrap().index, (0..10).collect::<Vec<_>>());
    let message = loader.next().unwrap().unwrap_err().to_string();
    assert!(message.contains("image 17") && message.contains("bird.png"), "{message}");
    assert!(loader.next().is_none() && loader.next().is_none());
}

#[test]
fn an_image_that_does_not_exist_is_an_error() {
    let config = LoaderConfig::new(vec![vec![0, 5]]);
    let mut loader = BatchLoader::new(Arc::new(Images::new(5)), pipeline(), config).unwrap();
    assert!(matches!(loader.next(), Some(Err(LoaderError::NoSuchImage { index: 5, len: 5 }))));
}

#[test]
#[should_panic(expected = "the source fell over")]
fn a_panicking_source_does_not_end_the_epoch_quietly() {
    let source = Images { broken: Some(3), panics: true, ..Images::new(5) };
    let mut loader = BatchLoader::new(Arc::new(source), pipeline(), LoaderConfig::in_order(5, 5)).unwrap();
    let _ = loader.next();
}

#[test]
fn dropping_it_midway_stops_its_threads() {
    let source = Arc::new(Images::new(53));
    let config = LoaderConfig { ahead: 2, ..LoaderConfig::new(vec![(0..10).collect(); 100_000]) };
    let mut loader =
        BatchLoader::new(Arc::clone(&source) as Arc<dyn ImageSource>, pipeline(), config).unwrap();
    loader.next().unwrap().unwrap().recycle();
    drop(loader);
    // The thread has been joined, so it no longer holds the source and requests no more images.
    assert_eq!(Arc::strong_count(&source), 1);
    assert!(source.asked.load(Ordering::Relaxed) <= 10 * 5, "at most the queue and one batch beyond");
}

#[test]
fn recycled_buffers_are_used_again() {
    let loader = BatchLoader::new(Arc::new(Images::new(53)), pipeline(), config(1, 1)).unwrap();
    let mut addresses = std::collections::BTreeSet::new();
    for batch in loader {
        let batch = batch.unwrap();
        if batch.index.len() == 10 {
            addresses.insert(batch.images.as_ptr() as usize);
        }
        batch.recycle();
        // This gives the loader time to receive the buffer before it begins the next batch.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(addresses.len() < 5, "five whole batches in {} buffers", addresses.len());
}
