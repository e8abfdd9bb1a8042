//! Images of random bytes, in memory.

use invaspread_augment::{ImageRef, ImageSource, SourceError, SourceImage};
use invaspread_random::{Purpose, Stream};

/// `len` images of `side` x `side` pixels, which repeat after [`Noise::DISTINCT`] images.
pub(super) struct Noise {
    side: usize,
    len: usize,
    pixels: Vec<u8>,
}

impl Noise {
    /// At 32 x 32 pixels, these images are larger than a processor's cache.
    const DISTINCT: usize = 2048;

    pub(super) fn new(len: usize, side: usize) -> Self {
        let mut stream = Stream::new(0, Purpose::Synthetic, 0, 0);
        let bytes = len.min(Self::DISTINCT) * side * side * 3;
        let pixels =
            (0..bytes.div_ceil(4)).flat_map(|_| stream.next_u32().to_le_bytes()).take(bytes).collect();
        Self { side, len, pixels }
    }
}

impl ImageSource for Noise {
    fn len(&self) -> usize {
        self.len
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        let bytes = self.side * self.side * 3;
        let from = index % Self::DISTINCT.min(self.len) * bytes;
        Ok(ImageRef::new(self.side, self.side, &self.pixels[from..from + bytes]).into())
    }
}
