//! Transforms that move pixels without changing their values: crop, pad, mirror; and the resized crop, which
//! is a crop and a resize.

use crate::image::{Image, ImageRef};
use crate::resize::{Filter, resize};

/// A rectangle of an image, in pixels from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

/// Returns the part of `image` in `window`.
///
/// ```
/// use invaspread_augment::{Image, Window, crop};
///
/// let image = Image::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
/// let right = crop(image.as_ref(), Window { top: 0, left: 1, height: 1, width: 1 });
/// assert_eq!(right, Image::new(1, 1, vec![4, 5, 6]));
/// ```
///
/// # Panics
/// If the window exceeds the image.
pub fn crop(image: ImageRef<'_>, window: Window) -> Image {
    let Window { top, left, height, width } = window;
    assert!(
        top + height <= image.height && left + width <= image.width,
        "{window:?} reaches beyond an image of {} x {}",
        image.width,
        image.height
    );
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in top..top + height {
        let start = (y * image.width + left) * 3;
        pixels.extend_from_slice(&image.pixels[start..start + width * 3]);
    }
    Image::new(width, height, pixels)
}

/// Crops, then resizes the crop to `size` x `size` bilinearly, as torchvision's `RandomResizedCrop` does.
///
/// # Panics
/// If the window is empty or exceeds the image.
pub fn resized_crop(image: ImageRef<'_>, window: Window, size: usize) -> Image {
    resize(crop(image, window).as_ref(), size, size, Filter::Bilinear)
}

/// Adds black borders of the given widths to `image`.
pub fn pad(image: ImageRef<'_>, left: usize, top: usize, right: usize, bottom: usize) -> Image {
    let mut out = Image::black(image.width + left + right, image.height + top + bottom);
    for y in 0..image.height {
        let to = ((y + top) * out.width + left) * 3;
        let row = &image.pixels[y * image.width * 3..(y + 1) * image.width * 3];
        out.pixels[to..to + row.len()].copy_from_slice(row);
    }
    out
}

/// Returns the middle `size` x `size` pixels, with black borders where the image is smaller, as torchvision
/// does.
///
/// ```
/// use invaspread_augment::{Image, center_crop};
///
/// let image = Image::new(3, 1, (1..10).collect());
/// assert_eq!(center_crop(image.as_ref(), 1), Image::new(1, 1, vec![4, 5, 6]));
/// ```
pub fn center_crop(image: ImageRef<'_>, size: usize) -> Image {
    let missing = |have: usize| size.saturating_sub(have);
    let (wide, high) = (missing(image.width), missing(image.height));
    if wide + high == 0 {
        return crop(image, centered(image.width, image.height, size));
    }
    let padded = pad(image, wide / 2, high / 2, wide.div_ceil(2), high.div_ceil(2));
    crop(padded.as_ref(), centered(padded.width, padded.height, size))
}

/// Adds `padding` black pixels on each side, and more where the image is still smaller than `size`, half of
/// them on either side. Returns the `size` x `size` pixels from `top`, `left` of the padded image.
///
/// # Panics
/// If these exceed the padded image.
pub fn random_crop(image: ImageRef<'_>, size: usize, padding: usize, top: usize, left: usize) -> Image {
    let (wide, high) = (crop_padding(image.width, size, padding), crop_padding(image.height, size, padding));
    let padded = pad(image, wide.0, high.0, wide.1, high.1);
    crop(padded.as_ref(), Window { top, left, height: size, width: size })
}

/// Returns the borders before and after `length` pixels that a random crop of `size` adds.
pub(crate) fn crop_padding(length: usize, size: usize, padding: usize) -> (usize, usize) {
    let missing = size.saturating_sub(length + 2 * padding);
    (padding + missing / 2, padding + missing.div_ceil(2))
}

/// Exchanges left and right.
///
/// ```
/// use invaspread_augment::{Image, hflip};
///
/// let image = Image::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
/// assert_eq!(hflip(image.as_ref()), Image::new(2, 1, vec![4, 5, 6, 1, 2, 3]));
/// ```
pub fn hflip(image: ImageRef<'_>) -> Image {
    let mut out = image.to_image();
    for (y, row) in out.pixels.chunks_exact_mut((image.width * 3).max(1)).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&image.pixel(image.width - 1 - x, y));
        }
    }
    out
}

/// Returns the window of the middle `size` x `size` pixels. Halves are rounded to even, as in Python.
pub(crate) fn centered(width: usize, height: usize, size: usize) -> Window {
    let start = |have: usize| ((have - size) as f64 / 2.0).round_ties_even() as usize;
    Window { top: start(height), left: start(width), height: size, width: size }
}

/// Returns width and height after a resize of the shorter side to `size` that keeps the aspect ratio (the
/// longer side is rounded down).
pub(crate) fn shorter_side_to(size: usize, width: usize, height: usize) -> (usize, usize) {
    if width <= height { (size, size * height / width) } else { (size * width / height, size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(width: usize, height: usize) -> Image {
        Image::new(width, height, (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect())
    }

    proptest! {
        #[test]
        fn mirroring_twice_changes_nothing(w in 1usize..12, h in 1usize..12) {
            let image = numbered(w, h);
            let once = hflip(image.as_ref());
            prop_assert_eq!(once.as_ref().pixel(0, h - 1), image.as_ref().pixel(w - 1, h - 1));
            prop_assert_eq!(hflip(once.as_ref()), image);
        }

        #[test]
        fn a_crop_holds_the_pixels_under_its_window(
            w in 1usize..12, h in 1usize..12, a in 0.0f64..1.0, b in 0.0f64..1.0, c in 0.0f64..1.0, d in 0.0f64..1.0,
        ) {
            let at = |u: f64, n: usize| (u * n as f64) as usize;
            let (top, left) = (at(a, h), at(b, w));
            let window = Window { top, left, height: 1 + at(c, h - top), width: 1 + at(d, w - left) };
            let image = numbered(w, h);
            let out = crop(image.as_ref(), window);
            for y in 0..window.height {
                for x in 0..window.width {
                    prop_assert_eq!(out.as_ref().pixel(x, y), image.as_ref().pixel(left + x, top + y));
                }
            }
        }
    }

    #[test]
    fn the_middle_rounds_a_half_to_even() {
        assert_eq!(centered(5, 7, 4), Window { top: 2, left: 0, height: 4, width: 4 });
        assert_eq!(center_crop(numbered(3, 8).as_ref(), 4).width, 4);
        assert_eq!(center_crop(numbered(3, 8).as_ref(), 4).as_ref().pixel(3, 0), [0; 3]);
    }

    #[test]
    fn a_padded_crop_begins_in_the_border() {
        let image = numbered(4, 4);
        let out = random_crop(image.as_ref(), 4, 2, 0, 1);
        assert_eq!(out.as_ref().pixel(0, 1), [0; 3]);
        assert_eq!(out.as_ref().pixel(1, 2), image.as_ref().pixel(0, 0));
        assert_eq!(random_crop(image.as_ref(), 8, 0, 0, 0).as_ref().pixel(2, 2), image.as_ref().pixel(0, 0));
    }
}
