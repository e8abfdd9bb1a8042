//! The images of a loader: arrays of Python, borrowed without a copy.

use std::sync::Arc;

use invaspread_augment::{ImageRef, ImageSource, SourceError, SourceImage};
use numpy::{
    PyArray, PyReadonlyArray, PyReadonlyArray3, PyReadonlyArray4, PyUntypedArrayMethods, ndarray::Dimension,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Images that a loader can use in any number of epochs.
#[pyclass(frozen, module = "invaspread._native")]
pub(crate) struct Images {
    pub(crate) source: Arc<Borrowed>,
}

/// Images in memory that Python owns.
pub(crate) struct Borrowed {
    images: Vec<Pixels>,
    /// The arrays that keep the memory of the images.
    _arrays: Vec<Py<PyAny>>,
}

/// The pixels of one image: `height * width * 3` bytes, row after row.
struct Pixels {
    address: *const u8,
    width: usize,
    height: usize,
}

#[expect(unsafe_code, reason = "the pixels stay in arrays that Python owns")]
// SAFETY: the pixels are only read, and `Borrowed` keeps their arrays alive. The documentation of `Loader`
// says that nobody may write to the images while a loader uses them; a write changes pixels, never an address.
unsafe impl Send for Pixels {}
#[expect(unsafe_code, reason = "the pixels stay in arrays that Python owns")]
// SAFETY: as for `Send`.
unsafe impl Sync for Pixels {}

#[pymethods]
impl Images {
    /// Borrows an array (images, height, width, 3).
    #[staticmethod]
    fn of_one_size(array: PyReadonlyArray4<'_, u8>) -> PyResult<Self> {
        let &[count, height, width, channels] = array.shape() else { unreachable!("it has four dimensions") };
        let bytes = bytes_of(&array, channels, "images")?;
        let length = height * width * channels;
        let pixels = |number: usize| Pixels { address: bytes[number * length..].as_ptr(), width, height };
        let images = (0..count).map(pixels).collect();
        Ok(Self { source: Arc::new(Borrowed { images, _arrays: vec![owner(&array)] }) })
    }

    /// Borrows arrays (height, width, 3) of any sizes.
    #[staticmethod]
    fn of_any_size(arrays: Vec<PyReadonlyArray3<'_, u8>>) -> PyResult<Self> {
        let images = arrays.iter().enumerate().map(|(number, array)| {
            let &[height, width, channels] = array.shape() else { unreachable!("it has three dimensions") };
            let bytes = bytes_of(array, channels, &format!("image {number}"))?;
            Ok(Pixels { address: bytes.as_ptr(), width, height })
        });
        let images = images.collect::<PyResult<_>>()?;
        Ok(Self { source: Arc::new(Borrowed { images, _arrays: arrays.iter().map(owner).collect() }) })
    }

    fn __len__(&self) -> usize {
        self.source.len()
    }
}

/// Returns the bytes of a contiguous array with three channels.
fn bytes_of<'a, D: Dimension>(
    array: &'a PyReadonlyArray<'_, u8, D>,
    channels: usize,
    name: &str,
) -> PyResult<&'a [u8]> {
    match array.as_slice() {
        Ok(bytes) if channels == 3 => Ok(bytes),
        found => Err(PyValueError::new_err(format!(
            "{name}: found an array of shape {:?}{}; expected a contiguous one whose last dimension is 3 (red, green, blue)",
            array.shape(),
            if found.is_ok() { "" } else { " that is not contiguous" }
        ))),
    }
}

/// Returns a reference to an array that keeps its memory alive.
fn owner<D>(array: &PyReadonlyArray<'_, u8, D>) -> Py<PyAny>
where
    D: Dimension,
{
    let array: &Bound<'_, PyArray<u8, D>> = array;
    array.as_any().clone().unbind()
}

impl ImageSource for Borrowed {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        let Some(&Pixels { address, width, height }) = self.images.get(index) else {
            return Err(format!("there is no image {index}").into());
        };
        #[expect(unsafe_code, reason = "the pixels stay in arrays that Python owns")]
        // SAFETY: the array is contiguous and holds these bytes from `address` on, and `self` keeps it alive.
        let pixels = unsafe { std::slice::from_raw_parts(address, width * height * 3) };
        Ok(ImageRef::new(width, height, pixels).into())
    }
}
