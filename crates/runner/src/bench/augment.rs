//! The paper's four transforms and the normalisation, from u8 images to a batch in the network's layout, on one thread.

use super::noise::Noise;
use super::{Compute, Figures, Report, Times};
use crate::engine::EngineError;
use invaspread_augment::{AugmentConfig, ImageSource, LoaderError, Pipeline, Scratch};
use invaspread_random::{Purpose, Stream};
use serde::Serialize;

/// Sizes of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AugmentBench {
    /// Views made in one repetition.
    pub images: usize,
    /// Side of an image and of a view, in pixels.
    pub size: usize,
    /// Times that are measured, after one that is not.
    pub repeats: usize,
}

/// Views of a batch that is written over and over.
const BATCH: usize = 128;

/// Times the making of views.
///
/// # Errors
/// If the size is none that a view can have.
pub fn augment(bench: AugmentBench) -> Result<Report, EngineError> {
    let AugmentBench { images, size, repeats } = bench;
    let pipeline = Pipeline::train(&AugmentConfig { size, ..AugmentConfig::default() })?;
    let (source, len) = (Noise::new(images, size), pipeline.view_len());
    let (mut batch, mut scratch) = (vec![0.0; BATCH * len], Scratch::default());
    let mut epoch = 0;
    let times = Times::of(1, repeats, || {
        epoch += 1;
        for index in 0..images {
            let image =
                source.image(index).map_err(|source| LoaderError::Image { index: index as u32, source })?;
            let mut stream = Stream::new(0, Purpose::Augment, epoch, index as u64);
            pipeline.apply(
                image.as_ref(),
                &mut stream,
                &mut scratch,
                &mut batch[index % BATCH * len..][..len],
            );
        }
        Ok::<(), EngineError>(())
    })?;
    Ok(Figures::default()
        .times("seconds", &times, 1.0)
        .with("views_per_s_per_core", images as f64 / times.median())
        .memory(Compute::default())?
        .report("augment", &bench))
}
