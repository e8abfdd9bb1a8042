//! The transforms of one image.

use std::sync::Arc;

use invaspread_augment::{AugmentConfig, ImageRef, Pipeline, Scratch, view_stream};
use numpy::{IntoPyArray, PyArray3, PyArrayMethods, PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A pipeline of transforms, made from its settings as JSON.
#[pyclass(frozen, module = "invaspread._native")]
pub(crate) struct Transforms {
    pub(crate) pipeline: Arc<Pipeline>,
}

#[pymethods]
impl Transforms {
    /// Makes the transforms of training, or of evaluation if `train` is false.
    ///
    /// # Errors
    /// If a setting is unknown or has a value that it cannot have.
    #[new]
    fn new(settings: &str, train: bool) -> PyResult<Self> {
        let wrong = |error: String| PyValueError::new_err(error);
        let config: AugmentConfig =
            serde_json::from_str(settings).map_err(|error| wrong(error.to_string()))?;
        let pipeline = if train { Pipeline::train(&config) } else { Pipeline::evaluate(&config) };
        Ok(Self { pipeline: Arc::new(pipeline.map_err(|error| wrong(error.to_string()))?) })
    }

    /// Width and height of a view, in pixels.
    #[getter]
    fn size(&self) -> usize {
        self.pipeline.size()
    }

    /// Returns a view of `image` (height, width, 3) as (size, size, channels), as a loader makes it for image
    /// `index` in `epoch`. The view has the number `view` among those of all transforms, which chooses its
    /// draws, and the number `of_group` among those of these transforms, on which some probabilities depend.
    fn view<'py>(
        &self,
        py: Python<'py>,
        image: PyReadonlyArray3<'py, u8>,
        view: usize,
        of_group: usize,
        index: u32,
        seed: u64,
        epoch: u32,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let &[height, width, channels] = image.shape() else { unreachable!("it has three dimensions") };
        if channels != 3 || height == 0 || width == 0 {
            return Err(PyValueError::new_err(format!(
                "found an image of shape ({height}, {width}, {channels}); expected (height, width, 3) with at least one pixel"
            )));
        }
        let pixels = image.as_slice()?;
        let size = self.pipeline.size();
        let out = py.detach(|| {
            let mut out = vec![0.0; self.pipeline.view_len()];
            let mut stream = view_stream(seed, u64::from(epoch), index, view);
            let image = ImageRef::new(width, height, pixels);
            self.pipeline.apply_as(of_group, image, &mut stream, &mut Scratch::default(), &mut out);
            out
        });
        out.into_pyarray(py).reshape([size, size, self.pipeline.channels()])
    }
}
