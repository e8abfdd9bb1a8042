//! Where the loader gets its images: whatever can hand out image `index`, borrowed when it is in memory, owned when it
//! had to be decoded or drawn.

use crate::image::{Image, ImageRef};

/// What went wrong when a source was asked for an image (a file that cannot be decoded, say).
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// An image out of a source: borrowed from its storage (no copy) or made for this call.
#[derive(Debug, Clone)]
pub enum SourceImage<'a> {
    /// Part of the source's own storage.
    Borrowed(ImageRef<'a>),
    /// Decoded or drawn for this call.
    Owned(Image),
}

impl SourceImage<'_> {
    /// The image, whoever owns it.
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

/// A numbered set of RGB images. `image` is called from several threads at once and must give the same pixels each time.
pub trait ImageSource: Send + Sync {
    /// How many images there are; `image` accepts `0..len()`.
    fn len(&self) -> usize;

    /// Image `index`.
    ///
    /// # Errors
    /// If the image cannot be read; the error should name the file and say what was expected.
    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError>;

    /// Whether there is no image at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
