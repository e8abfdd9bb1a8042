//! Thumbnails in one picture, which a page shows piece by piece: 10,000 files would be 10,000 decodings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageError, Rgb, RgbImage};

use crate::error::ReportError;
use crate::gallery::Picture;

/// The most bytes of a sprite before base64, which adds a third.
const MOST_BYTES: usize = 7 << 20;
/// The qualities that are tried, until the sprite is small enough; the last one is taken in any case.
const QUALITIES: [u8; 5] = [88, 80, 70, 55, 40];
/// A tile's side is a multiple of the blocks of JPEG, so that tiles do not bleed into their neighbors.
const BLOCK: usize = 8;

/// Thumbnails in rows of [`Self::columns`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sprite {
    /// The JPEG as a data URI.
    pub(crate) data: String,
    pub(crate) columns: usize,
    /// The rows of tiles.
    pub(crate) rows: usize,
}

impl Sprite {
    /// Draws `pictures` with a side of at most `side` pixels each; `None` if there are none.
    ///
    /// # Errors
    /// If the bytes of a picture do not match its size, or the JPEG cannot be encoded.
    pub(crate) fn of<'a>(
        pictures: impl ExactSizeIterator<Item = &'a Picture>,
        side: usize,
    ) -> Result<Option<Self>, ReportError> {
        let count = pictures.len();
        let mut pictures = pictures.peekable();
        let Some(first) = pictures.peek() else { return Ok(None) };
        let side = first.width.max(first.height).min(side).div_ceil(BLOCK) * BLOCK;
        let columns = (count as f64).sqrt().ceil() as usize;
        let rows = count.div_ceil(columns);
        let mut sheet = RgbImage::from_pixel((columns * side) as u32, (rows * side) as u32, Rgb([128; 3]));
        for (place, picture) in pictures.enumerate() {
            let Picture { width, height, pixels, .. } = picture;
            let image =
                RgbImage::from_raw(*width as u32, *height as u32, pixels.clone()).ok_or_else(|| {
                    ReportError::Pixels {
                        what: format!("thumbnail {place}"),
                        found: pixels.len(),
                        width: *width,
                        height: *height,
                        expected: width * height * 3,
                    }
                })?;
            let side = side as u32;
            let tile = if (image.width(), image.height()) == (side, side) {
                image
            } else {
                imageops::resize(&image, side, side, FilterType::Triangle)
            };
            let (x, y) = ((place % columns) as i64, (place / columns) as i64);
            imageops::replace(&mut sheet, &tile, x * i64::from(side), y * i64::from(side));
        }
        let jpeg = encoded(&sheet)
            .map_err(|error| ReportError::Draw { figure: "the thumbnails", reason: error.to_string() })?;
        Ok(Some(Self { data: format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)), columns, rows }))
    }
}

/// Encodes at the highest quality that is small enough.
fn encoded(sheet: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut jpeg = Vec::new();
    for quality in QUALITIES {
        jpeg.clear();
        JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(sheet)?;
        if jpeg.len() <= MOST_BYTES {
            break;
        }
    }
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn picture(side: usize, shade: u8) -> Picture {
        Picture { width: side, height: side, pixels: vec![shade; side * side * 3], label: 0 }
    }

    #[test]
    fn each_tile_lies_at_its_place() {
        let pictures: Vec<Picture> = (0..5).map(|number| picture(30, number * 50)).collect();
        let sprite = Sprite::of(pictures.iter(), 64).unwrap().unwrap();
        assert_eq!((sprite.columns, sprite.rows), (3, 2));
        let bytes = STANDARD.decode(sprite.data.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let sheet = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (96, 64), "tiles of 32 pixels");
        for (number, (x, y)) in [(16, 16), (48, 16), (80, 16), (16, 48), (48, 48)].into_iter().enumerate() {
            let found = i32::from(sheet.get_pixel(x, y)[0]);
            assert!((found - 50 * number as i32).abs() < 4, "{number}: {found}");
        }
        assert_eq!(Sprite::of([].iter(), 64).unwrap(), None);
    }

    #[test]
    fn large_pictures_are_reduced_and_damaged_ones_named() {
        let sprite = Sprite::of([picture(100, 9)].iter(), 64).unwrap().unwrap();
        let bytes = STANDARD.decode(sprite.data.rsplit(',').next().unwrap()).unwrap();
        assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 64);
        let damaged = Picture { width: 31, ..picture(30, 1) };
        let error = Sprite::of([damaged].iter(), 64).unwrap_err();
        assert!(error.to_string().contains("thumbnail 0 has 2700 bytes"), "{error}");
    }
}
