//! The paper's four transforms and the normalization, from u8 images to a batch in the network's layout, on
//! one thread or on the GPU.

#[cfg(feature = "cuda")]
use super::failed;
use super::noise::Noise;
use super::{BenchReport, Compute, Figures, Times};
use crate::engine::EngineError;
#[cfg(feature = "cuda")]
use candle_core::DType;
use invaspread_augment::{AugmentConfig, ImageSource, LoaderError, Pipeline, Scratch};
use invaspread_random::{Purpose, Stream};
use serde::Serialize;

/// The sizes of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AugmentBench {
    /// The number of views made in one repetition.
    pub images: usize,
    /// The side of an image and of a view, pixels.
    pub size: usize,
    /// The number of timed repetitions, after one that warms up.
    pub repeats: usize,
    /// The device and the precision.
    #[serde(flatten)]
    pub compute: Compute,
}

/// The number of views in a batch; the same batch is written again and again.
const BATCH: usize = 128;

/// Times the making of views.
///
/// # Errors
/// Returns an error if a view cannot have this size.
pub fn augment(bench: AugmentBench) -> Result<BenchReport, EngineError> {
    let AugmentBench { images, size, repeats, compute } = bench;
    #[cfg(feature = "cuda")]
    if compute.device.is_cuda() {
        return on_device(bench);
    }
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
        .memory(compute)?
        .report("augment", &bench))
}

/// Times the making of views on the GPU, from images and random parameters that are already there: the part
/// that a training step waits for.
#[cfg(feature = "cuda")]
fn on_device(bench: AugmentBench) -> Result<BenchReport, EngineError> {
    use invaspread_tensor::Precision;
    use invaspread_tensor::cuda::augment::ImageStore;
    let AugmentBench { images, size, repeats, compute } = bench;
    let pipeline = Pipeline::train(&AugmentConfig { size, ..AugmentConfig::default() })?;
    let settings = pipeline.view_settings().expect("the default squashes nothing");
    let source = Noise::new(images, size);
    let mut bytes = Vec::with_capacity(images * size * size * 3);
    for index in 0..images {
        let failed = |source| LoaderError::Image { index: index as u32, source };
        bytes.extend_from_slice(source.image(index).map_err(failed)?.as_ref().pixels);
    }
    let device = compute.device.open().map_err(failed)?;
    let store = ImageStore::new(&device, &bytes, [size, size], size, &settings.normalized, settings.bgr);
    let store = store.map_err(failed)?;
    let batches: Vec<Vec<u32>> =
        (0..images as u32).collect::<Vec<_>>().chunks(BATCH).map(<[u32]>::to_vec).collect();
    let words: Vec<u32> =
        pipeline.plans([size, size], &batches, 0..1, 0, 1).iter().flat_map(|plan| plan.0).collect();
    let [index, plans] = store.upload(&batches.concat(), &words).map_err(failed)?;
    let dtype = if compute.precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
    let times = Times::of(1, repeats, || -> candle_core::Result<()> {
        let mut done = 0;
        let mut last = None;
        for batch in &batches {
            let (index, plans) = (index.narrow(0, done, batch.len())?, plans.narrow(0, done, batch.len())?);
            last = Some(store.views(&index, &plans, dtype)?);
            done += batch.len();
        }
        // Only reading a number waits for the device.
        last.map(|views| views.flatten_all()?.get(0)?.to_dtype(DType::F32)?.to_scalar::<f32>())
            .transpose()
            .map(drop)
    })
    .map_err(failed)?;
    Ok(Figures::default()
        .times("seconds", &times, 1.0)
        .with("views_per_s", images as f64 / times.median())
        .memory(compute)?
        .report("augment", &bench))
}
