//! One image file to RGB, as Pillow's `Image.open(FILE).convert("RGB")` would have it.
//!
//! What a file holds decides, not what it is called. Of an animation the first picture is taken. Grey becomes three equal channels,
//! CMYK is converted, transparency is dropped, 16 bits become 8 as in Pillow, and the orientation that a camera notes down (EXIF) is
//! ignored, as torchvision's loader ignores it. Formats without loss come out byte for byte as from Pillow, with two exceptions: 16-bit
//! grey, which Pillow cuts at 255 so that nearly every pixel is white, is scaled here as 16-bit colour is; and a BMP of 5 bits a colour is
//! within one step. JPEG is within nine steps. A file that lacks part of its picture is an error.

mod gif;
mod jpeg;
mod tiff;

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use invaspread_augment::Image;
use invaspread_files::read_regular;

use crate::error::DataError;

/// What was expected of a file that is no image.
pub(crate) const EXPECTED: &str = "a whole image (PNG, JPEG, WebP, GIF, BMP, TIFF or PNM)";

/// Endings of the files that are taken for images, in lowercase: those of torchvision's `ImageFolder`, and others that the same formats
/// go by.
pub(crate) const ENDINGS: [&str; 14] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "ppm", "pgm", "pbm", "pnm", "bmp", "tif", "tiff", "webp", "gif"];

/// Bytes that an image may take, as its file has it and as RGB together: 89 megapixels of colour. A file of kilobytes can claim, and
/// a grey PNG hold, billions of pixels.
const LARGEST: u64 = 512 << 20;

/// Bytes that a file may have: more than any image of [`LARGEST`] needs.
const LONGEST: u64 = 256 << 20;

/// Decodes `bytes` by what they are, whatever the file was called.
///
/// # Errors
/// What is wrong, in words that follow "found".
pub(crate) fn decode(bytes: &[u8]) -> Result<Image, String> {
    if bytes.is_empty() {
        return Err("an empty file".to_owned());
    }
    let image = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes),
        Ok(ImageFormat::Gif) => gif::decode(bytes),
        Ok(ImageFormat::Tiff) => match tiff::indexed(bytes) {
            Some(tiff::Indexed { grey, colours }) => {
                let indices = other(&grey, ImageFormat::Tiff)?;
                let pixels =
                    indices.pixels.iter().step_by(3).flat_map(|index| colours[usize::from(*index)]).collect();
                Ok(Image::new(indices.width, indices.height, pixels))
            }
            None => other(bytes, ImageFormat::Tiff),
        },
        Ok(format) => other(bytes, format),
        Err(_) => Err("bytes of no known image format".to_owned()),
    }?;
    if image.width == 0 || image.height == 0 {
        return Err("an image without pixels".to_owned());
    }
    Ok(image)
}

/// What to say of an image that a decoder refuses.
fn broken(error: &impl std::fmt::Display) -> String {
    format!("an image that fails to decode ({error})")
}

/// An error where an image of this size, `bytes` long as its file has it, is too large to decode.
fn within_limits(width: u64, height: u64, bytes: u64) -> Result<(), String> {
    let pixels = width.saturating_mul(height);
    if bytes.saturating_add(pixels.saturating_mul(3)) > LARGEST {
        return Err(format!("an image of {width} x {height} pixels, too many to decode"));
    }
    Ok(())
}

/// The formats that need nothing of their own.
fn other(bytes: &[u8], format: ImageFormat) -> Result<Image, String> {
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let decoder = reader.into_decoder().map_err(|error: ImageError| broken(&error))?;
    let (width, height) = decoder.dimensions();
    within_limits(width.into(), height.into(), decoder.total_bytes())?;
    let image = DynamicImage::from_decoder(decoder).map_err(|error| broken(&error))?;
    let (width, height) = (width as usize, height as usize);
    let pixels = match image {
        // Pillow keeps the upper byte of each sample; the `image` crate would round.
        DynamicImage::ImageLuma16(image) => upper(image.as_raw(), 1),
        DynamicImage::ImageLumaA16(image) => upper(image.as_raw(), 2),
        DynamicImage::ImageRgb16(image) => upper(image.as_raw(), 3),
        DynamicImage::ImageRgba16(image) => upper(image.as_raw(), 4),
        // Whether these run to 1 or to 255 is not written down anywhere.
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err("an image of floating-point samples, whose range nothing tells".to_owned());
        }
        image => image.into_rgb8().into_raw(),
    };
    Ok(Image::new(width, height, pixels))
}

/// RGB of the upper bytes of samples that come in `channels`: grey, grey and alpha, RGB, or RGB and alpha.
fn upper(samples: &[u16], channels: usize) -> Vec<u8> {
    let colours = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples
        .chunks_exact(channels)
        .flat_map(|sample| colours.map(|colour| (sample[colour] >> 8) as u8))
        .collect()
}

/// Reads and decodes the file at `path`; `advice` is what to do if it is broken.
pub(crate) fn load(path: &Path, advice: &'static str) -> Result<Image, DataError> {
    let bytes = read(path, advice)?;
    decode(&bytes).map_err(|found| damaged(path, found, advice))
}

/// The bytes of the image file at `path`, which must be a regular file and no longer than any image.
pub(crate) fn read(path: &Path, advice: &'static str) -> Result<Vec<u8>, DataError> {
    read_regular(path, LONGEST).map_err(|source| DataError::Io { source, advice })
}

/// The error of the image file at `path` in which `found` was found.
pub(crate) fn damaged(path: &Path, found: String, advice: &'static str) -> DataError {
    DataError::Damaged { path: path.to_owned(), found, expected: EXPECTED.to_owned(), advice }
}

/// Whether a file of this length is too long to be read as an image.
pub(crate) fn is_too_long(length: u64) -> bool {
    length > LONGEST
}

#[cfg(test)]
pub(crate) mod tests;
