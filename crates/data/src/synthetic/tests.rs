//! Tests that images depend on what they should and on nothing else, and that they are as hard to classify as
//! they should be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::config::SyntheticConfig;

fn config(train: usize, test: usize) -> DataConfig {
    DataConfig { synthetic: SyntheticConfig { train, test, image_size: 32 }, ..DataConfig::default() }
}

#[test]
fn images_depend_on_seed_split_and_number_alone() {
    let many = open(&config(200, 50)).unwrap();
    assert_eq!(many.state, DataState::Generated);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let few = one_thread.install(|| open(&config(60, 10))).unwrap();
    let bytes = |split: &Split| split.bytes().unwrap().to_vec();
    assert_eq!(bytes(&few.train), bytes(&many.train)[..60 * 3072]);
    assert_eq!(bytes(&few.test), bytes(&many.test)[..10 * 3072]);
    assert_ne!(bytes(&many.train)[..50 * 3072], bytes(&many.test)[..]);
    let other = open(&DataConfig { seed: 1, ..config(60, 10) }).unwrap();
    assert_ne!(bytes(&other.train), bytes(&few.train));
}

#[test]
fn a_subset_draws_the_same_images_as_the_whole() {
    let whole = open(&config(300, 100)).unwrap();
    let some = DataConfig { subset: Some(35), test_subset: Some(9), ..config(300, 100) };
    let some = open(&some).unwrap();
    assert_eq!((some.train.len(), some.test.len()), (35, 9));
    for (index, &original) in some.train.original.iter().enumerate() {
        assert_eq!(some.train.pixels(index), whole.train.pixels(original as usize));
        assert_eq!(some.train.labels[index], original % 10);
    }
}

#[test]
fn held_out_images_are_those_of_the_training_split() {
    let whole = open(&config(300, 100)).unwrap();
    let held_out = DataConfig { test_subset: Some(50), held_out: Some(true), ..config(300, 100) };
    let held_out = open(&held_out).unwrap();
    assert_eq!((held_out.train.len(), held_out.test.len()), (250, 50));
    for (index, &original) in held_out.test.original.iter().enumerate() {
        assert_eq!(held_out.test.pixels(index), whole.train.pixels(original as usize));
    }
}

#[test]
fn numbers_out_of_range_name_their_key() {
    let message = open(&config(0, 1)).unwrap_err().to_string();
    assert!(message.starts_with("data.synthetic.train: found 0"), "{message}");
    let mut large = config(10, 10);
    large.synthetic.image_size = 5000;
    assert!(open(&large).unwrap_err().to_string().starts_with("data.synthetic.image_size: found 5000"));
}

/// Color and brightness give no information about the class: a classifier by the nearest class mean of an
/// image's mean color and contrast is not better than chance.
#[test]
fn mean_color_does_not_give_the_class_away() {
    let dataset = open(&config(4000, 1000)).unwrap();
    let summary = |split: &Split, index: usize| {
        let pixels = split.pixels(index).pixels;
        let mut sums = [0.0f64; 3];
        pixels.iter().enumerate().for_each(|(at, value)| sums[at % 3] += f64::from(*value) / 1024.0);
        sums
    };
    let mut means = [[0.0; 3]; 10];
    for index in 0..dataset.train.len() {
        let summary = summary(&dataset.train, index);
        (0..3).for_each(|channel| means[index % 10][channel] += summary[channel] / 400.0);
    }
    let right = (0..dataset.test.len()).filter(|&index| {
        let own = summary(&dataset.test, index);
        let distance = |class: usize| (0..3).map(|at| (own[at] - means[class][at]).powi(2)).sum::<f64>();
        (0..10).min_by(|&a, &b| distance(a).total_cmp(&distance(b))) == Some(index % 10)
    });
    let percent = right.count() as f64 / 10.0;
    assert!((5.0..16.0).contains(&percent), "{percent}% by mean color");
}

/// By its pixels alone, weighted kNN (k = 200, cosine of centered pixels, exp(s / 0.1)) classifies only some
/// images correctly.
#[test]
fn raw_pixels_are_a_poor_embedding() {
    let dataset = open(&config(2000, 300)).unwrap();
    let row = |split: &Split, index: usize| {
        let pixels: Vec<f32> = split.pixels(index).pixels.iter().map(|value| f32::from(*value)).collect();
        let mean = pixels.iter().sum::<f32>() / 3072.0;
        let norm = pixels.iter().map(|value| (value - mean).powi(2)).sum::<f32>().sqrt();
        pixels.into_iter().map(|value| (value - mean) / norm).collect::<Vec<f32>>()
    };
    let gallery: Vec<Vec<f32>> = (0..2000).map(|index| row(&dataset.train, index)).collect();
    let right = (0..300).into_par_iter().filter(|&index| {
        let query = row(&dataset.test, index);
        let dot = |other: &[f32]| query.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let mut near: Vec<(f32, usize)> =
            gallery.iter().enumerate().map(|(at, other)| (dot(other), at % 10)).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut votes = [0.0; 10];
        near[..200].iter().for_each(|(similarity, class)| votes[*class] += (similarity / 0.1).exp());
        (0..10).max_by(|&a, &b| f32::total_cmp(&votes[a], &votes[b])) == Some(index % 10)
    });
    let percent = right.count() as f64 / 3.0;
    assert!((11.0..36.0).contains(&percent), "{percent}% by raw pixels");
}

#[test]
#[ignore = "writes a sheet of images to look at into the temporary folder"]
fn contact_sheet() {
    let (columns, scale) = (12, 3);
    let side = 32 * scale;
    let tiles: Vec<Image> = (0..columns * 10).map(|index| draw(0, false, index, 32)).collect();
    let sheet = image::RgbImage::from_fn((columns * side) as u32, (10 * side) as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let tile = &tiles[x / side * 10 + y / side];
        image::Rgb(tile.as_ref().pixel(x % side / scale, y % side / scale))
    });
    let path = std::env::temp_dir().join("invaspread-synthetic.png");
    sheet.save(&path).unwrap();
    println!("{}", path.display());
}
