//! One image file to RGB, as Pillow's `convert("RGB")` would have it.

use std::path::Path;

use invaspread_augment::Image;

use crate::error::{DataError, reading};

/// What was expected of a file that is no image.
pub(crate) const EXPECTED: &str = "a whole PNG or JPEG";

/// Decodes `bytes` by what they are, whatever the file was called. Grey becomes three equal channels, CMYK is converted,
/// transparency is dropped.
///
/// # Errors
/// What is wrong, in words that follow "found".
pub(crate) fn decode(bytes: &[u8]) -> Result<Image, String> {
    let image = image::load_from_memory(bytes)
        .map_err(|error| format!("an image that fails to decode ({error})"))?
        .into_rgb8();
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
