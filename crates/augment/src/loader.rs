//! Prepares batches of views ahead of the training step, on the loader's own threads.
//!
//! One thread goes through the batches of an epoch. The views of a batch are made in parallel on a small
//! rayon pool that belongs to the loader, not on the global pool. The training step uses the global pool;
//! there the two would wait for each other.
//!
//! At 32 x 32 pixels the number of threads hardly matters. Measured three times on two busy cores, with steps
//! of 30 ms on both and 128 views in a batch: the step waited 0.2 to 0.8% of the time with two threads and
//! 1.3 to 2.4% with one; the whole run took 1 to 7% longer with two, which is within the noise. The default
//! is one thread for each core, since large images and images to be decoded need them.
//!
//! At most `ahead` finished batches wait in a channel, and the buffers of used batches come back through
//! [`Batch::recycle`]. View `v` (0 or 1) of image `i` in epoch `e` draws from the stream `(seed, Augment, e,
//! 2 i + v)`; further views have other indices (see `Purpose::Augment` of crate `random`). So a view does not
//! depend on threads, on the order of images or on `ahead`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::pipeline::{Pipeline, Scratch};
use crate::plan::view_stream;
use crate::source::{ImageSource, SourceError};

/// A group of views that one pipeline makes: the pipeline, and the number of views of each image.
#[derive(Debug, Clone)]
pub struct ViewGroup {
    /// The transforms and the size of the views.
    pub pipeline: Arc<Pipeline>,
    /// Views of each image.
    pub views: usize,
}

/// The batches that a loader prepares, and its settings.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// The numbers of the images of each batch, in order. Batches may differ in length; empty ones are
    /// skipped.
    pub batches: Vec<Vec<u32>>,
    /// Views of each image by the loader's own pipeline, at least 1.
    pub views: usize,
    /// Further views of each image by other pipelines, perhaps of other sizes, as for multi-crop. They do not
    /// change the views of the loader's own pipeline.
    pub more: Vec<ViewGroup>,
    /// For each image, the number of the image that all of its views except the first show. With `None`, all
    /// views show the image itself. The random draws are those of the image itself in both cases.
    pub second_images: Option<Arc<[u32]>>,
    /// The seed of the run.
    pub seed: u64,
    /// The epoch, for the streams of the views.
    pub epoch: u64,
    /// The number of finished batches that may wait; at least 1.
    pub ahead: usize,
    /// The number of threads that make views. `None` means one for each core, but at most
    /// [`LoaderConfig::MOST_THREADS`].
    pub threads: Option<usize>,
}

impl LoaderConfig {
    /// The largest default number of threads. With so many, the views of small images are ready before any
    /// step needs them.
    pub const MOST_THREADS: usize = 8;

    /// Returns the settings for `batches` with one view of each image, seed 0, epoch 0, and two batches
    /// ahead.
    pub fn new(batches: Vec<Vec<u32>>) -> Self {
        Self {
            batches,
            views: 1,
            more: Vec::new(),
            second_images: None,
            seed: 0,
            epoch: 0,
            ahead: 2,
            threads: None,
        }
    }

    /// Returns the settings for the images `0..n` in order, `batch` at a time, as in evaluation.
    ///
    /// # Panics
    /// If `batch` is zero.
    pub fn in_order(n: usize, batch: usize) -> Self {
        let order: Vec<u32> = (0..n as u32).collect();
        Self::new(order.chunks(batch).map(<[u32]>::to_vec).collect())
    }
}

/// A batch ready for the network.
#[derive(Debug)]
pub struct Batch {
    /// The views (views * B, S, S, 3): the first view of all B images, then the second view of all images,
    /// and so on.
    pub images: Vec<f32>,
    /// The views of each further group, in the same order.
    pub more: Vec<Vec<f32>>,
    /// The numbers of the B images.
    pub index: Vec<u32>,
    /// Views of each image in `images`.
    pub views: usize,
    /// Width and height of the views in `images`, then of those of each further group, in pixels.
    pub sizes: Vec<usize>,
    used: Sender<Buffers>,
}

/// The views of a batch, by group.
type Buffers = Vec<Vec<f32>>;

impl Batch {
    /// Returns the buffers of the views to the loader, for a later batch.
    pub fn recycle(self) {
        let Self { images, more, used, .. } = self;
        // A loader that has finished needs no more buffers.
        let _ = used.send(std::iter::once(images).chain(more).collect());
    }
}

/// The reason why a batch could not be prepared. No batch follows it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// The source could not give an image.
    #[error("failed to load image {index}: {source}")]
    Image {
        /// Number of the image in its source.
        index: u32,
        /// The error of the source.
        source: SourceError,
    },
    /// A batch names an image that does not exist.
    #[error("a batch names image {index}, but there are {len} images, numbered from 0")]
    NoSuchImage {
        /// The number found.
        index: u32,
        /// Images in the source.
        len: usize,
    },
    /// The image has no pixels.
    #[error("image {index} is {width} x {height} pixels; expected at least 1 x 1")]
    Empty {
        /// Number of the image in its source.
        index: u32,
        /// The width.
        width: usize,
        /// The height.
        height: usize,
    },
    /// The system refused to start a thread.
    #[error(
        "failed to start the loader's threads: {0}; raise the limit on processes (`ulimit -u`, a container's pids limit) or on memory"
    )]
    Threads(#[source] SourceError),
}

/// Starts the threads that make views: `threads` of them or, if the system refuses, half as many, and so on.
fn pool(threads: usize) -> Result<ThreadPool, LoaderError> {
    let mut threads = threads.max(1);
    loop {
        let started = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|number| format!("views-{number}"))
            .build();
        match started {
            Ok(pool) => return Ok(pool),
            Err(_) if threads > 1 => threads /= 2,
            Err(error) => return Err(LoaderError::Threads(error.into())),
        }
    }
}

/// An iterator over the prepared batches of an epoch. Dropping it stops its threads.
///
/// ```
/// use invaspread_augment::{
///     AugmentConfig, BatchLoader, Image, ImageSource, LoaderConfig, LoaderError, Pipeline, SourceError,
///     SourceImage,
/// };
/// use std::sync::Arc;
///
/// /// Ten images, each of a single gray value.
/// struct Greys;
///
/// impl ImageSource for Greys {
///     fn len(&self) -> usize {
///         10
///     }
///
///     fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
///         Ok(Image::new(8, 8, vec![index as u8; 8 * 8 * 3]).into())
///     }
/// }
///
/// let augment = AugmentConfig { size: 8, ..AugmentConfig::default() };
/// let pipeline = Pipeline::train(&augment).expect("the defaults are valid");
/// let config = LoaderConfig { views: 2, ..LoaderConfig::new(vec![vec![4, 7, 1], vec![0, 9, 5]]) };
/// let loader = BatchLoader::new(Arc::new(Greys), Arc::new(pipeline), config)?;
/// let batches = loader.collect::<Result<Vec<_>, LoaderError>>()?;
/// assert_eq!(batches[1].index, [0, 9, 5]);
/// assert_eq!(batches[1].images.len(), 2 * 3 * 8 * 8 * 3);
/// # Ok::<(), LoaderError>(())
/// ```
#[derive(Debug)]
pub struct BatchLoader {
    /// The channel of finished batches; `None` after the last batch or an error, and while the loader is
    /// dropped.
    batches: Option<Receiver<Result<Batch, LoaderError>>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    waited: Duration,
    remaining: usize,
}

impl BatchLoader {
    /// Starts to prepare the batches of `config`.
    ///
    /// # Errors
    /// If no thread can be started.
    ///
    /// # Panics
    /// If `views` is zero.
    pub fn new(
        source: Arc<dyn ImageSource>,
        pipeline: Arc<Pipeline>,
        config: LoaderConfig,
    ) -> Result<Self, LoaderError> {
        assert!(config.views > 0, "no views of an image were asked for");
        let threads = config.threads.unwrap_or_else(|| {
            std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(LoaderConfig::MOST_THREADS))
        });
        let (ready, batches) = sync_channel(config.ahead.max(1));
        // This thread is started first, so that the system allows it even if it allows few threads.
        let (hand_over, work) = sync_channel::<Worker>(1);
        let numbers = config.batches;
        let remaining = numbers.iter().filter(|batch| !batch.is_empty()).count();
        let thread = std::thread::Builder::new()
            .name("batches".to_owned())
            .spawn(move || {
                if let Ok(worker) = work.recv() {
                    worker.run(numbers, &ready);
                }
            })
            .map_err(|error| LoaderError::Threads(error.into()))?;
        let pool = pool(threads)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut groups = vec![ViewGroup { pipeline, views: config.views }];
        groups.extend(config.more);
        let worker = Worker {
            scratches: (0..pool.current_num_threads()).map(|_| Mutex::default()).collect(),
            pool,
            source,
            groups,
            second_images: config.second_images,
            seed: config.seed,
            epoch: config.epoch,
            stop: Arc::clone(&stop),
        };
        // The thread is waiting for this, so sending cannot fail.
        let _ = hand_over.send(worker);
        Ok(Self { batches: Some(batches), thread: Some(thread), stop, waited: Duration::ZERO, remaining })
    }

    /// Returns how long the consumer has waited for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Ends the thread, and resumes its panic if it had one.
    fn join(&mut self) {
        self.batches = None;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Iterator for BatchLoader {
    type Item = Result<Batch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let item = self.batches.as_ref()?.recv().ok();
        self.waited += start.elapsed();
        self.remaining = self.remaining.saturating_sub(1);
        if !matches!(item, Some(Ok(_))) {
            self.join();
        }
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = if self.batches.is_some() { self.remaining } else { 0 };
        (0, Some(most))
    }
}

impl Drop for BatchLoader {
    fn drop(&mut self) {
        self.join();
    }
}

/// A view that is to be made: the memory that it is written to, and the pipeline that makes it.
struct View<'a> {
    pipeline: &'a Pipeline,
    /// The number of the view within its group.
    number: usize,
    out: &'a mut [f32],
}

/// The state of the loader's thread.
struct Worker {
    pool: ThreadPool,
    /// One scratch for each thread of the pool, so that no thread waits for a lock.
    scratches: Vec<Mutex<Scratch>>,
    source: Arc<dyn ImageSource>,
    /// The loader's own pipeline, then the further ones.
    groups: Vec<ViewGroup>,
    second_images: Option<Arc<[u32]>>,
    seed: u64,
    epoch: u64,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, batches: Vec<Vec<u32>>, ready: &SyncSender<Result<Batch, LoaderError>>) {
        let (used, free) = channel();
        for index in batches.into_iter().filter(|batch| !batch.is_empty()) {
            let buffers = free.try_recv().unwrap_or_default();
            let batch = self.prepare(index, buffers, &used);
            let failed = batch.is_err();
            if self.stop.load(Ordering::Relaxed) || ready.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn prepare(
        &self,
        index: Vec<u32>,
        mut buffers: Buffers,
        used: &Sender<Buffers>,
    ) -> Result<Batch, LoaderError> {
        buffers.resize_with(self.groups.len(), Vec::new);
        // For each image: its views, which lie a batch apart in the buffers, and the pipeline of each.
        let all_views = self.groups.iter().map(|group| group.views).sum();
        let mut of_image: Vec<Vec<View<'_>>> = index.iter().map(|_| Vec::with_capacity(all_views)).collect();
        for (ViewGroup { pipeline, views }, buffer) in self.groups.iter().zip(&mut buffers) {
            let view_len = pipeline.view_len();
            buffer.resize(views * index.len() * view_len, 0.0);
            for (place, out) in buffer.chunks_exact_mut(view_len).enumerate() {
                of_image[place % index.len()].push(View { pipeline, number: place / index.len(), out });
            }
        }
        self.pool.install(|| {
            index.par_iter().zip(of_image).try_for_each(|(image, views)| self.make_views(*image, views))
        })?;
        let more = buffers.split_off(1);
        let images = buffers.swap_remove(0);
        let sizes = self.groups.iter().map(|group| group.pipeline.size()).collect();
        Ok(Batch { images, more, index, views: self.groups[0].views, sizes, used: used.clone() })
    }

    fn make_views(&self, index: u32, mut views: Vec<View<'_>>) -> Result<(), LoaderError> {
        let second = self.second_images.as_ref().and_then(|second| second.get(index as usize));
        let second = second.copied().unwrap_or(index);
        if second == index {
            return self.make_views_of(index, index, 0, views);
        }
        let others = views.split_off(1);
        self.make_views_of(index, index, 0, views)?;
        self.make_views_of(second, index, 1, others)
    }

    /// Makes views of image `of` with the draws of image `index`; the first of these views has the number
    /// `first`.
    fn make_views_of(
        &self,
        of: u32,
        index: u32,
        first: usize,
        views: Vec<View<'_>>,
    ) -> Result<(), LoaderError> {
        if self.stop.load(Ordering::Relaxed) {
            // Nobody will use this batch.
            return Ok(());
        }
        let len = self.source.len();
        if of as usize >= len {
            return Err(LoaderError::NoSuchImage { index: of, len });
        }
        let image =
            self.source.image(of as usize).map_err(|source| LoaderError::Image { index: of, source })?;
        let image = image.as_ref();
        if image.width * image.height == 0 {
            return Err(LoaderError::Empty { index: of, width: image.width, height: image.height });
        }
        let thread = rayon::current_thread_index().expect("views are made on the loader's pool");
        // The content of a scratch has no influence on a view, so a scratch that a panic interrupted can
        // still be used.
        let mut scratch = self.scratches[thread].lock().unwrap_or_else(PoisonError::into_inner);
        for (view, View { pipeline, number, out }) in views.into_iter().enumerate() {
            let mut stream = view_stream(self.seed, self.epoch, index, first + view);
            pipeline.apply_as(number, image, &mut stream, &mut scratch, out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
