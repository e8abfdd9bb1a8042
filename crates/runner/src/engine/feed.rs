//! The batches of an epoch: made by the loader's threads, or on a GPU from images that are stored there as
//! bytes. Both use the same draws.

use std::sync::Arc;
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "cuda")]
use candle_core::{DType, Device};
use candle_core::{Result, Tensor};
#[cfg(feature = "cuda")]
use invaspread_augment::ViewSettings;
use invaspread_augment::{BatchLoader, ImageSource, LoaderConfig, Pipeline, ViewGroup};
use invaspread_models::Network;
#[cfg(feature = "cuda")]
use invaspread_tensor::Precision;
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::StepCounter;
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::augment::{ImageStore, PLAN_WORDS};

use super::EngineError;

/// The most bytes of images that are stored on a GPU.
#[cfg(feature = "cuda")]
const MOST_BYTES: usize = 8 << 30;

/// Images and the pipelines that make views of them.
pub(crate) struct ImageFeed {
    source: Arc<dyn ImageSource>,
    groups: Vec<ViewGroup>,
    #[cfg(feature = "cuda")]
    on_device: Option<OnDevice>,
}

/// The images on the device.
#[cfg(feature = "cuda")]
struct OnDevice {
    /// One store for each group of views.
    stores: Vec<ImageStore>,
    /// Width and height of the images.
    sides: [usize; 2],
    dtype: DType,
    /// For each group, where the draws of all epochs lie, one epoch after the other; `None` if each epoch's
    /// have a place of their own.
    rooms: Option<Mutex<Vec<[Tensor; 2]>>>,
}

impl ImageFeed {
    /// Makes a feed for `network` of one view of each image, as evaluation needs it; see
    /// [`ImageFeed::of_groups`].
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn new(
        source: Arc<dyn ImageSource>,
        pipeline: Arc<Pipeline>,
        network: &Network,
    ) -> std::result::Result<Self, EngineError> {
        Self::of_groups(source, vec![ViewGroup { pipeline, views: 1 }], network)
    }

    /// Makes a feed for `network` of the views of `groups`, at least one group. If the network is on a GPU,
    /// the images are copied there, provided that they fit, have one size, are not squashed, blurred or
    /// solarized, and their views are small enough for a thread block. Otherwise the loader makes views on
    /// the CPU.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "CUDA's memory can fail")
    )]
    pub(crate) fn of_groups(
        source: Arc<dyn ImageSource>,
        groups: Vec<ViewGroup>,
        network: &Network,
    ) -> std::result::Result<Self, EngineError> {
        #[cfg(feature = "cuda")]
        let on_device = {
            let dtype = match network.config().precision() {
                Precision::Bf16 => DType::BF16,
                Precision::F32 | Precision::Tf32 => DType::F32,
            };
            match network.device() {
                device @ Device::Cuda(_) => OnDevice::new(&source, &groups, device, dtype)?,
                _ => None,
            }
        };
        Ok(Self {
            source,
            groups,
            #[cfg(feature = "cuda")]
            on_device,
        })
    }

    /// Makes all epochs use the same place on the device for their draws, so that a recorded step finds them.
    /// An epoch must have ended before the next begins. Returns whether the views are made on a device at
    /// all.
    #[cfg(feature = "cuda")]
    pub(crate) fn keep_place(&mut self) -> bool {
        if let Some(on_device) = &mut self.on_device {
            on_device.rooms = Some(Mutex::default());
        }
        self.on_device.is_some()
    }

    /// Returns the number of images.
    pub(crate) fn len(&self) -> usize {
        self.source.len()
    }

    /// Returns the batches of an epoch, in order. The feed's groups of views replace those of `config`.
    ///
    /// # Errors
    /// Returns an error if a batch names an image that does not exist, or the loader's threads cannot be
    /// started.
    pub(crate) fn epoch(&self, config: LoaderConfig) -> std::result::Result<EpochFeed, EngineError> {
        #[cfg(feature = "cuda")]
        if let Some(on_device) = &self.on_device {
            return on_device.epoch(&self.groups, config);
        }
        let ViewGroup { pipeline, views } = self.groups[0].clone();
        let config = LoaderConfig { views, more: self.groups[1..].to_vec(), ..config };
        Ok(EpochFeed::Host(BatchLoader::new(Arc::clone(&self.source), pipeline, config)?))
    }
}

#[cfg(feature = "cuda")]
impl OnDevice {
    /// Copies all images of `source` to `device`, for the views of each group in `dtype`. Returns `None` if
    /// the images cannot be stored there.
    fn new(
        source: &Arc<dyn ImageSource>,
        groups: &[ViewGroup],
        device: &Device,
        dtype: DType,
    ) -> std::result::Result<Option<Self>, EngineError> {
        use invaspread_augment::LoaderError;
        let settings: Option<Vec<_>> = groups.iter().map(|group| group.pipeline.view_settings()).collect();
        let Some(settings) = settings else { return Ok(None) };
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
        // If a thread block cannot hold a view, or the device has too little memory, the images stay on the
        // CPU.
        let mut stores: Vec<ImageStore> = Vec::new();
        for ViewSettings { size, normalized, bgr } in settings {
            let store = match stores.first() {
                None => ImageStore::new(device, &bytes, sides, size, &normalized, bgr),
                Some(first) => first.with_views(size, &normalized, bgr),
            };
            let Ok(store) = store else { return Ok(None) };
            stores.push(store);
        }
        Ok(Some(Self { stores, sides, dtype, rooms: None }))
    }

    /// Copies the random parameters of an epoch's views to the device.
    fn epoch(
        &self,
        groups: &[ViewGroup],
        config: LoaderConfig,
    ) -> std::result::Result<EpochFeed, EngineError> {
        let LoaderConfig { batches, second_images, seed, epoch, .. } = config;
        let second = |image: u32| second_images.as_ref().map_or(image, |of| of[image as usize]);
        let mut first = 0;
        let mut on_device = Vec::new();
        for (ViewGroup { pipeline, views }, store) in groups.iter().zip(&self.stores) {
            let range = first..first + views;
            first += views;
            let plans = pipeline.plans(self.sides, &batches, range.clone(), seed, epoch);
            let words: Vec<u32> = plans.iter().flat_map(|plan| plan.0).collect();
            let of_view = |image: u32, view: usize| if view == 0 { image } else { second(image) };
            let of_batch = |batch: &Vec<u32>| -> Vec<u32> {
                range
                    .clone()
                    .flat_map(|view| batch.iter().map(move |&i| (i, view)))
                    .map(|(i, v)| of_view(i, v))
                    .collect()
            };
            let index: Vec<u32> = batches.iter().flat_map(of_batch).collect();
            if index.is_empty() {
                break;
            }
            let draws = self
                .bring(on_device.len(), *views, &index, &words)
                .map_err(EngineError::tensor("bring an epoch's draws to the device"))?;
            on_device.push(DeviceViews { store: store.clone(), views: *views, draws, done: 0 });
        }
        Ok(EpochFeed::OnDevice { groups: on_device, dtype: self.dtype, batches: batches.into_iter() })
    }
}

#[cfg(feature = "cuda")]
impl OnDevice {
    /// Copies the draws of group `group`, with so many views of each image, to the device.
    fn bring(&self, group: usize, views: usize, index: &[u32], words: &[u32]) -> Result<[Tensor; 2]> {
        let store = &self.stores[group];
        let Some(rooms) = &self.rooms else { return store.upload(index, words) };
        let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.get(group).is_none_or(|[numbers, _]| numbers.elem_count() < index.len()) {
            // A resumed epoch is shorter than the next one.
            let room = store.room(index.len().max(store.len() * views))?;
            rooms.truncate(group);
            rooms.push(room);
        }
        store.upload_into(&rooms[group], index, words)?;
        Ok(rooms[group].clone())
    }
}

/// The batches of one epoch, one after the other.
pub(crate) enum EpochFeed {
    /// Batches made by threads of the host.
    Host(BatchLoader),
    /// Batches that the device makes when they are needed.
    #[cfg(feature = "cuda")]
    OnDevice {
        /// None if the epoch has no batches.
        groups: Vec<DeviceViews>,
        dtype: DType,
        batches: std::vec::IntoIter<Vec<u32>>,
    },
}

/// The views of one group in an epoch.
#[cfg(feature = "cuda")]
pub(crate) struct DeviceViews {
    store: ImageStore,
    /// Views of each image.
    views: usize,
    /// The image number and the plan of each view of the epoch.
    draws: [Tensor; 2],
    /// The number of views made so far.
    done: usize,
}

#[cfg(feature = "cuda")]
impl DeviceViews {
    /// Returns what makes the views of the next `images` images.
    fn next(&mut self, images: usize, dtype: DType) -> Result<BatchViews> {
        let count = images * self.views;
        let [index, plans] = &self.draws;
        let draws = [index.narrow(0, self.done, count)?, plans.narrow(0, self.done, count)?];
        debug_assert_eq!(draws[1].dims(), [count, PLAN_WORDS]);
        self.done += count;
        Ok(BatchViews { store: self.store.clone(), draws, dtype })
    }
}

/// The views of one group in a batch, which the device has still to make.
#[cfg(feature = "cuda")]
pub(crate) struct BatchViews {
    store: ImageStore,
    /// Of this batch.
    draws: [Tensor; 2],
    dtype: DType,
}

/// One batch, ready for a step.
pub(crate) enum ReadyBatch {
    Host(Box<invaspread_augment::Batch>),
    #[cfg(feature = "cuda")]
    OnDevice(Vec<BatchViews>, Vec<u32>),
}

impl EpochFeed {
    /// Returns the next batch; `None` after the last.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read or the device fails.
    pub(crate) fn next(&mut self) -> std::result::Result<Option<ReadyBatch>, EngineError> {
        match self {
            Self::Host(loader) => {
                Ok(loader.next().transpose()?.map(|batch| ReadyBatch::Host(Box::new(batch))))
            }
            #[cfg(feature = "cuda")]
            Self::OnDevice { groups, dtype, batches } => {
                let Some(batch) = batches.next() else { return Ok(None) };
                let made = groups.iter_mut().map(|group| group.next(batch.len(), *dtype));
                let views = made.collect::<Result<_>>().map_err(EngineError::tensor("make views"))?;
                Ok(Some(ReadyBatch::OnDevice(views, batch)))
            }
        }
    }

    /// Makes the views (v, S, S, C) of each group of `images` images, in the step whose number `counter`
    /// counts from the beginning of this feed.
    ///
    /// # Errors
    /// Returns an error if the views are made on the host, or the device fails.
    #[cfg(feature = "cuda")]
    pub(crate) fn views_counted(&self, images: usize, counter: &StepCounter) -> Result<Vec<Tensor>> {
        let Self::OnDevice { groups, dtype, .. } = self else {
            candle_core::bail!(
                "the views are made on the host, expected a feed on the device that counts the steps"
            )
        };
        let make = |group: &DeviceViews| {
            let [index, plans] = &group.draws;
            group.store.views_counted([index, plans], images * group.views, counter, *dtype)
        };
        groups.iter().map(make).collect()
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
    /// Returns the views (v, S, S, C) of each group on the device and in the precision of `network`, and the
    /// number of the image of each row of the batch.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub(crate) fn views(self, network: &Network) -> Result<(Vec<Tensor>, Vec<u32>)> {
        match self {
            Self::Host(batch) => {
                let invaspread_augment::Batch { images, more, index, sizes, .. } = *batch;
                let channels = network.config().channels();
                let tensor = |(values, side): (Vec<f32>, usize)| {
                    let rows = values.len() / (side * side * channels);
                    let x = Tensor::from_vec(values, (rows, side, side, channels), network.device())?;
                    x.to_dtype(network.config().dtype())
                };
                let views =
                    std::iter::once(images).chain(more).zip(sizes).map(tensor).collect::<Result<_>>()?;
                Ok((views, index))
            }
            #[cfg(feature = "cuda")]
            Self::OnDevice(views, index) => {
                let make = |BatchViews { store, draws: [index, plans], dtype }: BatchViews| {
                    store.views(&index, &plans, dtype)
                };
                Ok((views.into_iter().map(make).collect::<Result<_>>()?, index))
            }
        }
    }
}
