//! The images of a loader: arrays of Python, borrowed without a copy, or files, decoded when they are needed.

use std::collections::HashSet;
use std::sync::Arc;

use invaspread_augment::{ImageRef, ImageSource, SourceError, SourceImage};
use invaspread_data::{DataError, ImageFiles, SampleLabel};
use numpy::{
    PyArray, PyReadonlyArray, PyReadonlyArray3, PyReadonlyArray4, PyUntypedArrayMethods, ndarray::Dimension,
};
use pyo3::exceptions::{PyFileNotFoundError, PyValueError};
use pyo3::prelude::*;

use crate::interrupt::interruptible;

/// Images that a loader can use in any number of epochs.
#[pyclass(frozen, module = "invaspread._native")]
pub(crate) struct Images {
    pub(crate) source: Arc<dyn ImageSource>,
}

/// The label of each image (`None` if no image has one), and the names of the classes (`None` if the labels are numbers).
type Classes = (Option<Vec<i64>>, Option<Vec<String>>);

/// What the files of images tell beside their pixels: the name of each image, the classes, sentences about the input, and the errors of
/// the images that were left out.
type Told = (Vec<String>, Classes, Vec<String>, Vec<String>);

/// The advice for an image that cannot be read.
const BROKEN: &str = "repair or remove it, or make the loader with skip_broken=True";

/// Images in memory that Python owns.
struct Borrowed {
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

    /// Opens a folder of images, a list of paths, tar shards or Parquet files. With `skip_broken`, every image is decoded once, and those
    /// that cannot be are left out. With `needs_labels`, either all images have a class or none has.
    ///
    /// # Errors
    /// If there is nothing at `path`, it holds no images, a shard is damaged, or only some images have a class.
    #[staticmethod]
    fn of_path(
        py: Python<'_>,
        path: String,
        skip_broken: bool,
        needs_labels: bool,
    ) -> PyResult<(Self, Told)> {
        let unopened = |error: DataError| match &error {
            DataError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                PyFileNotFoundError::new_err(error.to_string())
            }
            _ => PyValueError::new_err(error.to_string()),
        };
        // Shards are listed, Parquet files are copied, and with `skip_broken` every image is decoded.
        let (mut images, words, broken) = interruptible(py, move || {
            let mut images = ImageFiles::open(&path, BROKEN).map_err(unopened)?;
            // Of all images, so that classes keep their numbers where images are left out.
            let words = words(&images);
            let broken = if skip_broken { images.leave_out_broken() } else { Vec::new() };
            Ok((images, words, broken))
        })?;
        let classes = if needs_labels { numbered(&images, words)? } else { (None, None) };
        let emptied = emptied(&classes).into_iter().map(|class| {
            format!(
                "no image of the class \"{class}\" can be decoded: it keeps its number, and no image has it"
            )
        });
        images.notes.extend(emptied);
        let names = images.names().map(str::to_owned).collect();
        let broken = broken.iter().map(ToString::to_string).collect();
        let told = (names, classes, images.notes.clone(), broken);
        Ok((Self { source: Arc::new(images) }, told))
    }

    fn __len__(&self) -> usize {
        self.source.len()
    }
}

/// Returns the classes in their order, or `None` if they are numbers.
fn words(images: &ImageFiles) -> Option<Vec<String>> {
    let labels = || images.labels().flatten();
    if labels().all(|label| matches!(label, SampleLabel::Number(_))) {
        return None;
    }
    let mut words: Vec<String> = labels().map(ToString::to_string).collect();
    words.sort_unstable();
    words.dedup();
    Some(words)
}

/// Returns the classes that no image has.
fn emptied((labels, classes): &Classes) -> Vec<&str> {
    let held: HashSet<i64> = labels.iter().flatten().copied().collect();
    let numbered = (0..).zip(classes.iter().flatten());
    numbered.filter(|(number, _)| !held.contains(number)).map(|(_, class)| class.as_str()).collect()
}

/// Returns the label of each image and the names of the classes. The words `classes` are numbered in their order, as by torchvision;
/// numbers stay as they are.
fn numbered(images: &ImageFiles, classes: Option<Vec<String>>) -> PyResult<Classes> {
    let labels: Vec<&SampleLabel> = images.labels().flatten().collect();
    if labels.is_empty() {
        return Ok((None, None));
    }
    if labels.len() < images.len() {
        return Err(PyValueError::new_err(format!(
            "images: found {} of {} images without a class, such as {}; expected one for each or for none, or labels=...",
            images.len() - labels.len(),
            images.len(),
            images.unlabeled().unwrap_or_default()
        )));
    }
    let numbers = match &classes {
        Some(classes) => {
            let place = |word: String| classes.partition_point(|class| *class < word) as i64;
            labels.iter().map(|label| place(label.to_string())).collect()
        }
        None => {
            let number = |label: &&SampleLabel| match label {
                SampleLabel::Number(number) => Some(*number),
                SampleLabel::Word(_) => None,
            };
            labels.iter().filter_map(number).collect()
        }
    };
    Ok((Some(numbers), classes))
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
