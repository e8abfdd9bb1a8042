//! The batches of an epoch: made by the loader's threads, or on a GPU from images that are stored there as
//! bytes. Both use the same draws.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{DType, Result, Tensor};
use invaspread_augment::{BatchLoader, ImageSource, LoaderConfig, Pipeline};
use invaspread_models::Network;
#[cfg(feature = "cuda")]
use invaspread_tensor::Precision;
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::augment::{ImageStore, PLAN_WORDS};

use super::EngineError;

/// The most bytes of images that are stored on a GPU.
#[cfg(feature = "cuda")]
const MOST_BYTES: usize = 8 << 30;

/// Images and the pipeline that makes views of them.
pub(crate) struct ImageFeed {
    source: Arc<dyn ImageSource>,
    pipeline: Arc<Pipeline>,
    #[cfg(feature = "cuda")]
    store: Option<(ImageStore, [usize; 2], DType)>,
}

impl ImageFeed {
    /// Makes a feed for `network`. If the network is on a GPU, the images are copied there, provided that
    /// they fit, have one size, are not squashed first, and their views are small enough for a thread block.
    /// Otherwise the loader makes views on the CPU.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "CUDA's memory can fail")
    )]
    pub(crate) fn new(
        source: Arc<dyn ImageSource>,
        pipeline: Arc<Pipeline>,
        network: &Network,
    ) -> std::result::Result<Self, EngineError> {
        #[cfg(feature = "cuda")]
        let store = {
            let dtype = match network.config().precision() {
                Precision::Bf16 => DType::BF16,
                Precision::F32 | Precision::Tf32 => DType::F32,
            };
            match network.device() {
                device @ Device::Cuda(_) => {
                    store(&source, &pipeline, device)?.map(|(store, sides)| (store, sides, dtype))
                }
                _ => None,
            }
        };
        Ok(Self {
            source,
            pipeline,
            #[cfg(feature = "cuda")]
            store,
        })
    }

    /// Returns the number of images.
    pub(crate) fn len(&self) -> usize {
        self.source.len()
    }

    /// Returns the batches of an epoch, in order.
    ///
    /// # Errors
    /// Returns an error if a batch names an image that does not exist, or the loader's threads cannot be
    /// started.
    pub(crate) fn epoch(&self, config: LoaderConfig) -> std::result::Result<EpochFeed, EngineError> {
        #[cfg(feature = "cuda")]
        if let Some((store, sides, dtype)) = &self.store {
            let LoaderConfig { batches, views, second_images, seed, epoch, .. } = config;
            let words: Vec<u32> = self
                .pipeline
                .plans(*sides, &batches, views, seed, epoch)
                .iter()
                .flat_map(|plan| plan.0)
                .collect();
            let second = |image: u32| second_images.as_ref().map_or(image, |of| of[image as usize]);
            let of_view = |image: u32, view: usize| if view == 0 { image } else { second(image) };
            let of_batch = |batch: &Vec<u32>| -> Vec<u32> {
                (0..views)
                    .flat_map(|view| batch.iter().map(move |&i| (i, view)))
                    .map(|(i, v)| of_view(i, v))
                    .collect()
            };
            let index: Vec<u32> = batches.iter().flat_map(of_batch).collect();
            let uploaded = if index.is_empty() { None } else { Some(store.upload(&index, &words)) };
            let uploaded =
                uploaded.transpose().map_err(EngineError::tensor("bring an epoch's draws to the device"))?;
            let store = store.clone();
            return Ok(EpochFeed::OnDevice {
                store,
                dtype: *dtype,
                views,
                uploaded,
                batches: batches.into_iter(),
                done: 0,
            });
        }
        Ok(EpochFeed::Host(BatchLoader::new(Arc::clone(&self.source), Arc::clone(&self.pipeline), config)?))
    }
}

/// Copies all images of `source` to `device`; returns them with their width and height, or `None` if they
/// cannot be stored there.
#[cfg(feature = "cuda")]
fn store(
    source: &Arc<dyn ImageSource>,
    pipeline: &Pipeline,
    device: &Device,
) -> std::result::Result<Option<(ImageStore, [usize; 2])>, EngineError> {
    use invaspread_augment::LoaderError;
    let Some(settings) = pipeline.view_settings() else { return Ok(None) };
    let (mut bytes, mut sides) = (Vec::new(), None);
    for index in 0..source.len() {
        let image =
            source.image(index).map_err(|source| LoaderError::Image { index: index as u32, source })?;
        let image = image.as_ref();
        let these = [image.width, image.height];
        let fits = image.pixels.len() * source.len() <= MOST_BYTES && !image.pixels.is_empty();
        if *sides.get_or_insert(these) != these || !fits {
            return Ok(None);
        }
        bytes.extend_from_slice(image.pixels);
    }
    let Some(sides) = sides else { return Ok(None) };
    // Views that a thread block cannot hold, or images for which the device has no memory, stay on the CPU.
    let store = ImageStore::new(device, &bytes, sides, settings.size, &settings.normalized, settings.bgr);
    Ok(store.ok().map(|store| (store, sides)))
}

/// The batches of one epoch, one after the other.
pub(crate) enum EpochFeed {
    /// Batches made by threads of the host.
    Host(BatchLoader),
    /// Batches that the device makes when they are needed.
    #[cfg(feature = "cuda")]
    OnDevice {
        store: ImageStore,
        dtype: DType,
        views: usize,
        /// The image number and the plan of each view of the epoch.
        uploaded: Option<[Tensor; 2]>,
        batches: std::vec::IntoIter<Vec<u32>>,
        /// The number of views made so far.
        done: usize,
    },
}

/// One batch, ready for a step.
pub(crate) enum ReadyBatch {
    Host(invaspread_augment::Batch),
    #[cfg(feature = "cuda")]
    OnDevice(Tensor, Vec<u32>),
}

impl EpochFeed {
    /// Returns the next batch; `None` after the last.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read or the device fails.
    pub(crate) fn next(&mut self) -> std::result::Result<Option<ReadyBatch>, EngineError> {
        match self {
            Self::Host(loader) => Ok(loader.next().transpose()?.map(ReadyBatch::Host)),
            #[cfg(feature = "cuda")]
            Self::OnDevice { store, dtype, views, uploaded, batches, done } => {
                let (Some(batch), Some([index, plans])) = (batches.next(), uploaded) else { return Ok(None) };
                let count = batch.len() * *views;
                let views = || {
                    let (index, plans) = (index.narrow(0, *done, count)?, plans.narrow(0, *done, count)?);
                    debug_assert_eq!(plans.dims(), [count, PLAN_WORDS]);
                    store.views(&index, &plans, *dtype)
                };
                let made = views().map_err(EngineError::tensor("make views"))?;
                *done += count;
                Ok(Some(ReadyBatch::OnDevice(made, batch)))
            }
        }
    }

    /// Returns the time spent waiting for batches.
    pub(crate) fn waited(&self) -> Duration {
        match self {
            Self::Host(loader) => loader.waited(),
            #[cfg(feature = "cuda")]
            Self::OnDevice { .. } => Duration::ZERO,
        }
    }
}

impl ReadyBatch {
    /// Returns the views (v, S, S, C) on the device and in the precision of `network`, and the number of the
    /// image of each row of the batch.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub(crate) fn views(self, network: &Network) -> Result<(Tensor, Vec<u32>)> {
        match self {
            Self::Host(batch) => {
                let rows = batch.views * batch.index.len();
                let side = (batch.images.len() / rows / 3).isqrt();
                let x = Tensor::from_vec(batch.images, (rows, side, side, 3), network.device())?;
                let dtype: DType = network.config().dtype();
                Ok((x.to_dtype(dtype)?, batch.index))
            }
            #[cfg(feature = "cuda")]
            Self::OnDevice(views, index) => Ok((views, index)),
        }
    }
}
