//! Decodes the first picture of a GIF as Pillow does: transparent pixels keep the color that the palette has
//! for them, and the part of the screen that the picture does not cover has the color of the transparent
//! index, or of index 0.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};
use invaspread_augment::Image;

use super::{LARGEST, broken, within_limits};

/// Decodes the first picture in `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Image, String> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // A picture whose data ends too soon is an error, and not a picture with missing parts.
    options.check_lzw_end_code(true);
    options.set_memory_limit(NonZeroU64::new(LARGEST).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    let mut decoder = options.read_info(bytes).map_err(|error| broken(&error))?;
    let screen = (usize::from(decoder.width()), usize::from(decoder.height()));
    let frame = decoder.read_next_frame().map_err(|error| broken(&error))?;
    let frame = frame.ok_or_else(|| "a GIF without a picture".to_owned())?.clone();
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (wide, high) = (usize::from(frame.width), usize::from(frame.height));
    let (width, height) = (screen.0.max(left + wide), screen.1.max(top + high));
    within_limits(width as u64, height as u64, (width * height) as u64)?;

    let palette = frame.palette.as_deref().or(decoder.global_palette()).unwrap_or_default();
    // An index beyond the palette is black.
    let mut colors = [[0; 3]; 256];
    for (color, given) in colors.iter_mut().zip(palette.as_chunks::<3>().0) {
        *color = *given;
    }
    let free = colors[usize::from(frame.transparent.unwrap_or(0))];
    let mut pixels = free.repeat(width * height);
    if wide > 0 {
        for (y, row) in frame.buffer.chunks_exact(wide).enumerate() {
            let start = ((top + y) * width + left) * 3;
            for (pixel, index) in pixels[start..].as_chunks_mut::<3>().0.iter_mut().zip(row) {
                *pixel = colors[usize::from(*index)];
            }
        }
    }
    Ok(Image::new(width, height, pixels))
}
