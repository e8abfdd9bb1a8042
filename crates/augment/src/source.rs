//! Sources of images. Images in memory are borrowed; images that must be decoded or drawn are made for each
//! call.

use crate::image::{Image, ImageRef};

/// The error of a source that cannot give an image, for example because a file cannot be decoded.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// An image from a source: borrowed from its storage (no copy) or made for this call.
#[derive(Debug, Clone)]
pub enum SourceImage<'a> {
    /// A part of the source's own storage.
    Borrowed(ImageRef<'a>),
    /// An image that was decoded or drawn for this call.
    Owned(Image),
}

impl SourceImage<'_> {
    /// Borrows the image, owned or not.
    pub fn as_ref(&self) -> ImageRef<'_> {
        match self {
            Self::Borrowed(image) => *image,
            Self::Owned(image) => image.as_ref(),
        }
    }
}

impl<'a> From<ImageRef<'a>> for SourceImage<'a> {
    fn from(image: ImageRef<'a>) -> Self {
        Self::Borrowed(image)
    }
}

impl From<Image> for SourceImage<'_> {
    fn from(image: Image) -> Self {
        Self::Owned(image)
    }
}

/// A numbered set of RGB images. `image` is called from several threads at once and must give the same pixels
/// each time.
///
/// ```
/// use invaspread_augment::{Image, ImageSource, SourceError, SourceImage};
///
/// /// Squares, each of a single gray value.
/// struct Grays;
///
/// impl ImageSource for Grays {
///     fn len(&self) -> usize {
///         256
///     }
///
///     fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
///         Ok(Image::new(8, 8, vec![u8::try_from(index)?; 8 * 8 * 3]).into())
///     }
/// }
///
/// assert_eq!(Grays.image(7)?.as_ref().pixel(0, 0), [7; 3]);
/// assert!(Grays.image(256).is_err());
/// # Ok::<(), SourceError>(())
/// ```
pub trait ImageSource: Send + Sync {
    /// Returns the number of images; `image` accepts `0..len()`.
    fn len(&self) -> usize;

    /// Returns image `index`.
    ///
    /// # Errors
    /// If the image cannot be read. The error should name the file and say what was expected.
    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError>;

    /// Returns whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
