//! One image file to RGB, as Pillow's `convert("RGB")` would have it.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};
use invaspread_augment::Image;

use crate::error::{DataError, reading};

/// What was expected of a file that is no image.
pub(crate) const EXPECTED: &str = "a whole PNG or JPEG";

/// Bytes that an image may take, as its file has it and as RGB together: 89 megapixels of colour. A file of kilobytes can claim, and
/// a grey PNG hold, billions of pixels.
const LARGEST: u64 = 512 << 20;

/// Decodes `bytes` by what they are, whatever the file was called. Grey becomes three equal channels, CMYK is converted,
/// transparency is dropped.
///
/// # Errors
/// What is wrong, in words that follow "found".
pub(crate) fn decode(bytes: &[u8]) -> Result<Image, String> {
    let broken = |error: ImageError| format!("an image that fails to decode ({error})");
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let decoder = reader.map_err(|error| broken(error.into()))?.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if decoder.total_bytes().saturating_add(pixels.saturating_mul(3)) > LARGEST {
        return Err(format!("an image of {width} x {height} pixels, too many to decode"));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err("an image without pixels".to_owned());
    }
    Ok(Image::new(width, height, image.into_raw()))
}

/// Decodes the file at `path`; `advice` is what to do if it is broken.
pub(crate) fn load(path: &Path, advice: &'static str) -> Result<Image, DataError> {
    let bytes = fs_err::read(path).map_err(reading)?;
    decode(&bytes).map_err(|found| DataError::Damaged {
        path: path.to_owned(),
        found,
        expected: EXPECTED.to_owned(),
        advice,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::sample::png;

    #[test]
    fn an_image_that_claims_any_number_of_pixels_is_not_decoded() {
        let mut bytes = png((3, 2), |_, _| [1, 2, 3]);
        assert_eq!(decode(&bytes).unwrap().pixels, [1, 2, 3].repeat(6));
        // Width and height, and the checksum of their chunk.
        bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let sum = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(decode(&bytes).unwrap_err(), "an image of 16384 x 16384 pixels, too many to decode");
    }
}
