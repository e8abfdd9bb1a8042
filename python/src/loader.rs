//! One epoch of a loader: batches of views that the library's threads make ahead.

use std::sync::{Arc, Mutex, PoisonError};

use invaspread_augment::{BatchLoader, LoaderConfig, ViewGroup};
use invaspread_random::{Purpose, Stream};
use numpy::{IntoPyArray, PyArray1, PyArray4, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::images::Images;
use crate::views::Transforms;

/// The views of a batch by group, each (views * B, size, size, channels), and the numbers of its B images.
type Batch<'py> = (Vec<Bound<'py, PyArray4<f32>>>, Bound<'py, PyArray1<u32>>);

/// The batches of one epoch, as an iterator.
#[pyclass(frozen, module = "invaspread._native")]
pub(crate) struct Epoch {
    batches: Mutex<BatchLoader>,
    groups: Vec<Arc<invaspread_augment::Pipeline>>,
}

#[pymethods]
impl Epoch {
    /// Starts the threads that prepare the batches of `epoch`: all images in random order or, without
    /// `shuffle`, in their own, `batch_size` at a time. The order is that of the program's training.
    ///
    /// # Errors
    /// If the images cannot be used, or no thread can be started.
    #[new]
    #[pyo3(signature = (images, groups, *, batch_size, shuffle, drop_last, seed, epoch, ahead, threads))]
    fn new(
        py: Python<'_>,
        images: Py<Images>,
        groups: Vec<(Py<Transforms>, usize)>,
        batch_size: usize,
        shuffle: bool,
        drop_last: bool,
        seed: u64,
        epoch: u32,
        ahead: usize,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let images = Arc::clone(&images.get().source);
        if batch_size == 0 || groups.is_empty() || groups.iter().any(|(_, views)| *views == 0) {
            return Err(PyValueError::new_err("batch_size and the number of views must be at least 1"));
        }
        let order = if shuffle {
            Stream::new(seed, Purpose::Shuffle, u64::from(epoch), 0).permutation(images.len())
        } else {
            (0..images.len() as u32).collect()
        };
        let batches = order.chunks(batch_size).filter(|batch| !drop_last || batch.len() == batch_size);
        let mut groups = groups
            .into_iter()
            .map(|(transforms, views)| ViewGroup { pipeline: Arc::clone(&transforms.get().pipeline), views });
        let first = groups.next().expect("there is a group");
        let more: Vec<ViewGroup> = groups.collect();
        let pipelines = std::iter::once(&first).chain(&more).map(|group| Arc::clone(&group.pipeline));
        let groups = pipelines.collect();
        let config = LoaderConfig {
            views: first.views,
            more,
            seed,
            epoch: u64::from(epoch),
            ahead,
            threads,
            ..LoaderConfig::new(batches.map(<[u32]>::to_vec).collect())
        };
        let loader = py.detach(|| BatchLoader::new(images, first.pipeline, config));
        let batches = Mutex::new(loader.map_err(|error| PyRuntimeError::new_err(error.to_string()))?);
        Ok(Self { batches, groups })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Batch<'py>>> {
        let next = py.detach(|| self.batches.lock().unwrap_or_else(PoisonError::into_inner).next());
        let Some(batch) = next.transpose().map_err(|error| PyRuntimeError::new_err(error.to_string()))?
        else {
            return Ok(None);
        };
        let views = std::iter::once(batch.images).chain(batch.more);
        let arrays = views.zip(&self.groups).map(|(views, pipeline)| {
            let (size, rows) = (pipeline.size(), views.len() / pipeline.view_len());
            views.into_pyarray(py).reshape([rows, size, size, pipeline.channels()])
        });
        Ok(Some((arrays.collect::<PyResult<_>>()?, batch.index.into_pyarray(py))))
    }
}
