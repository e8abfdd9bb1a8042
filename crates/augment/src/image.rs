//! Images: 8-bit RGB, rows of interleaved pixels, owned or borrowed.

/// An owned image (H x W x 3): row after row, with R, G and B of each pixel side by side.
///
/// ```
/// use invaspread_augment::Image;
///
/// let image = Image::new(2, 1, vec![255, 0, 0, 0, 0, 255]);
/// assert_eq!(image.as_ref().pixel(1, 0), [0, 0, 255]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// The pixels, `height * width * 3` bytes.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Makes an image of the given pixels.
    ///
    /// # Panics
    /// If `pixels` is not `height * width * 3` long.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        check(width, height, pixels.len());
        Self { width, height, pixels }
    }

    /// Makes a black image.
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![0; width * height * 3] }
    }

    /// Borrows the image.
    pub fn as_ref(&self) -> ImageRef<'_> {
        ImageRef { width: self.width, height: self.height, pixels: &self.pixels }
    }
}

/// A borrowed image with the layout of [`Image`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRef<'a> {
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// The pixels, `height * width * 3` bytes.
    pub pixels: &'a [u8],
}

impl<'a> ImageRef<'a> {
    /// Makes an image of the given pixels.
    ///
    /// # Panics
    /// If `pixels` is not `height * width * 3` long.
    pub fn new(width: usize, height: usize, pixels: &'a [u8]) -> Self {
        check(width, height, pixels.len());
        Self { width, height, pixels }
    }

    /// Copies the image.
    pub fn to_image(self) -> Image {
        Image { width: self.width, height: self.height, pixels: self.pixels.to_vec() }
    }

    /// Returns the three channels of the pixel at column `x`, row `y`.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }
}

fn check(width: usize, height: usize, found: usize) {
    assert!(
        found == width * height * 3,
        "an RGB image of {width} x {height} holds {} bytes, not {found}",
        width * height * 3
    );
}
