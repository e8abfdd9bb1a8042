//! `synthetic`: images that are generated when they are needed, so that everything runs without a file.
//!
//! A class is a shape with its kind of texture; [`CLASSES`] lists them. Everything else is random for each
//! image and independent of the class: the colors, the place, the size and the rotation of the object, the
//! scale and the phase of its texture, the gradient, the blobs and the lines of the background, fragments of
//! other objects, the light and the noise. The object fills between half and almost all of the frame and
//! differs from the background in brightness. So a crop, a mirror image, a change of color or a gray copy
//! still shows the class, while single pixels hardly do.
//!
//! Image `i` of a split depends only on the seed, the split and `i`, and its class is `i` modulo 10. So a set
//! of n images is the beginning of every larger set.

mod scene;
mod shape;
mod texture;

use invaspread_augment::Image;
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

use crate::config::DataConfig;
use crate::dataset::{DataState, Dataset, Evaluation, Split};
use crate::error::DataError;
use crate::subset;

/// The names of the classes, by shape.
pub const CLASSES: [&str; 10] =
    ["disc", "square", "triangle", "star", "ring", "cross", "crescent", "arrow", "heart", "hexagon"];

/// Draws image `index` of the training split (or the test split), `size` x `size` pixels, of class
/// `index % 10`.
///
/// ```
/// use invaspread_data::synthetic::draw;
///
/// let image = draw(0, false, 13, 32);
/// assert_eq!((image.width, image.height), (32, 32));
/// assert_eq!(image, draw(0, false, 13, 32));
/// assert_ne!(image, draw(0, true, 13, 32));
/// ```
///
/// # Panics
/// If `size` is zero.
pub fn draw(seed: u64, test: bool, index: usize, size: usize) -> Image {
    let mut stream = Stream::new(seed, Purpose::Synthetic, test.into(), index as u64);
    scene::draw(&mut stream, index % CLASSES.len(), size)
}

/// Draws the configured images, or the configured subsets of them.
pub(crate) fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let numbers = &config.synthetic;
    let within = |key, found: usize, least: usize, most: usize| {
        let expected = format!("between {least} and {most}");
        let good = (least..=most).contains(&found);
        if good { Ok(()) } else { Err(DataError::Value { key, found: found.to_string(), expected }) }
    };
    within("synthetic.train", numbers.train, 1, 10_000_000)?;
    within("synthetic.test", numbers.test, 1, 10_000_000)?;
    within("synthetic.image_size", numbers.image_size, 16, 512)?;
    let labels: Vec<u32> = (0..numbers.train).map(label).collect();
    let kept = subset::training(config, &labels, CLASSES.len(), numbers.train)?;
    let test = match kept.held_out {
        Some(held_out) => split(config, false, held_out),
        None => {
            let keep = subset::at_most(config.test_subset, numbers.test);
            split(config, true, subset::test(keep, numbers.test)?)
        }
    };
    Ok(Dataset {
        name: "synthetic".to_owned(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        image_size: numbers.image_size,
        evaluation: Evaluation::Neighbors,
        labeled: None,
        train: split(config, false, kept.train),
        test,
        state: DataState::Generated,
        skipped: 0,
        notes: subset::notes(config, numbers.train, numbers.test),
    })
}

fn label(index: usize) -> u32 {
    (index % CLASSES.len()) as u32
}

fn split(config: &DataConfig, test: bool, kept: Vec<u32>) -> Split {
    let size = config.synthetic.image_size;
    let mut images = vec![0; kept.len() * size * size * 3];
    images.par_chunks_exact_mut(size * size * 3).zip(&kept).for_each(|(pixels, &index)| {
        pixels.copy_from_slice(&draw(config.seed, test, index as usize, size).pixels);
    });
    let labels = kept.iter().map(|&index| label(index as usize)).collect();
    Split::new(images, labels, kept, size)
}

#[cfg(test)]
mod tests;
