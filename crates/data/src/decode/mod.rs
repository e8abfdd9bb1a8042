//! Decodes an image file to RGB, as Pillow's `Image.open(FILE).convert("RGB")` does.
//!
//! The content of a file decides its format, not its name. Of an animation the first picture is taken. Gray
//! becomes three equal channels, CMYK is converted, transparency is dropped, 16 bits become 8 as in Pillow,
//! and the orientation that a camera stores (EXIF) is ignored, as in torchvision's loader. Lossless formats
//! give the same bytes as Pillow, with two exceptions: 16-bit gray, which Pillow clips at 255 so that nearly
//! every pixel is white, is scaled here like 16-bit color; and a BMP of 5 bits for each color may differ by
//! one step. A JPEG may differ: by at most four steps in the two photographs of scikit-learn; where the color is
//! subsampled, by up to 16 steps in noise, and by up to 49 in the last column of a width that is even and no
//! multiple of 16. A file that lacks part of its picture is an error.

mod gif;
mod jpeg;
mod tiff;
mod webp;

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use invaspread_augment::Image;
use invaspread_files::read_regular;

use crate::error::DataError;

/// The text that errors expect in place of a file that is not an image.
pub(crate) const EXPECTED: &str = "a whole image (PNG, JPEG, WebP, GIF, BMP, TIFF or PNM)";

/// The endings of image files, in lowercase: those of torchvision's `ImageFolder`, and other endings of the
/// same formats.
pub(crate) const ENDINGS: [&str; 14] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "ppm", "pgm", "pbm", "pnm", "bmp", "tif", "tiff", "webp", "gif"];

/// The largest number of bytes of an image in the form of its file and as RGB together, which is 89
/// megapixels of color. A file of kilobytes can claim billions of pixels, and a gray PNG can hold them.
const LARGEST: u64 = 512 << 20;

/// The largest length of a file in bytes: more than any image of [`LARGEST`] needs.
const LONGEST: u64 = 256 << 20;

/// Decodes `bytes`, whatever the name of their file.
///
/// # Errors
/// If the image cannot be decoded. The error says what is wrong, in words that follow "found".
pub(crate) fn decode(bytes: &[u8]) -> Result<Image, String> {
    if bytes.is_empty() {
        return Err("an empty file".to_owned());
    }
    let image = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes),
        Ok(ImageFormat::Gif) => gif::decode(bytes),
        Ok(ImageFormat::Tiff) => match tiff::indexed(bytes) {
            Some(tiff::Indexed { gray, colors }) => {
                let indices = other(&gray, ImageFormat::Tiff)?;
                let pixels =
                    indices.pixels.iter().step_by(3).flat_map(|index| colors[usize::from(*index)]).collect();
                Ok(Image::new(indices.width, indices.height, pixels))
            }
            None => other(bytes, ImageFormat::Tiff),
        },
        Ok(ImageFormat::WebP) => webp::check_length(bytes).and_then(|()| other(bytes, ImageFormat::WebP)),
        Ok(format) => other(bytes, format),
        Err(_) => Err("bytes of no known image format".to_owned()),
    }?;
    if image.width == 0 || image.height == 0 {
        return Err("an image without pixels".to_owned());
    }
    Ok(image)
}

/// Returns the text of the error for an image that a decoder refuses.
fn broken(error: &impl std::fmt::Display) -> String {
    format!("an image that fails to decode ({error})")
}

/// Returns an error if an image of this size, which has `bytes` in the form of its file, is too large to
/// decode.
fn within_limits(width: u64, height: u64, bytes: u64) -> Result<(), String> {
    let pixels = width.saturating_mul(height);
    if bytes.saturating_add(pixels.saturating_mul(3)) > LARGEST {
        return Err(format!("an image of {width} x {height} pixels, too many to decode"));
    }
    Ok(())
}

/// Decodes the formats that need no special treatment.
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
        // The file does not say whether its values go up to 1 or to 255.
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err("an image of floating-point samples, whose range is unknown".to_owned());
        }
        image => image.into_rgb8().into_raw(),
    };
    Ok(Image::new(width, height, pixels))
}

/// Returns RGB from the upper bytes of samples of `channels`: gray, gray and alpha, RGB, or RGB and alpha.
fn upper(samples: &[u16], channels: usize) -> Vec<u8> {
    let colors = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples.chunks_exact(channels).flat_map(|sample| colors.map(|color| (sample[color] >> 8) as u8)).collect()
}

/// Reads and decodes the file at `path`; `advice` says what to do if it is broken.
pub(crate) fn load(path: &Path, advice: &'static str) -> Result<Image, DataError> {
    let bytes = read(path, advice)?;
    decode(&bytes).map_err(|found| damaged(path, found, advice))
}

/// Reads the bytes of the image file at `path`, which must be a regular file and not too long for an image.
pub(crate) fn read(path: &Path, advice: &'static str) -> Result<Vec<u8>, DataError> {
    read_regular(path, LONGEST).map_err(|source| DataError::Io { source, advice })
}

/// Returns the error of the image file at `path` that holds `found`.
pub(crate) fn damaged(path: &Path, found: String, advice: &'static str) -> DataError {
    DataError::Damaged { path: path.to_owned(), found, expected: EXPECTED.to_owned(), advice }
}

/// Returns whether a file of this length is too long for an image.
pub(crate) fn is_too_long(length: u64) -> bool {
    length > LONGEST
}

#[cfg(test)]
pub(crate) mod tests;
