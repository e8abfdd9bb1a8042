//! A photograph within the page. The picture beside `report.md` is a PNG at twice its size; the page holds it as a JPEG,
//! which is a tenth as large.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;

use crate::error::ReportError;

/// The widest that a photograph may be, pixels: a wide page shows it at about its own size.
const WIDEST: u32 = 1280;
/// The quality of the JPEG, of 100.
const QUALITY: u8 = 75;

/// Returns the picture in `file` as a data URI.
///
/// # Errors
/// If the file cannot be read or is not a picture.
pub(crate) fn data_uri(file: &Path) -> Result<String, ReportError> {
    let bytes = fs_err::read(file).map_err(|source| ReportError::File {
        action: "read",
        path: file.to_path_buf(),
        source,
    })?;
    let failed = |error: image::ImageError| ReportError::Draw {
        figure: "the retrieved neighbors",
        reason: format!("{}: {error}; draw it again with `invaspread reproduce`", file.display()),
    };
    let mut picture = image::load_from_memory(&bytes).map_err(failed)?;
    if picture.width() > WIDEST {
        picture = picture.resize(WIDEST, u32::MAX, FilterType::CatmullRom);
    }
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&picture.to_rgb8()).map_err(failed)?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
