//! Changes of color that give the same bytes as torchvision on Pillow images.
//!
//! Brightness, contrast and saturation blend each channel `x` with a degenerate image `d` in f32: `d + factor
//! (x - d)`, clamped to 0..255 and rounded towards zero, where `d` is black, the mean gray, or the gray of
//! the pixel. Hue converts to 8-bit HSV and adds to the hue byte, which wraps around. Sources: Pillow's
//! ImageEnhance.py, ImageOps.py, Blend.c and Convert.c; torchvision's `_functional_pil.py`. These are the
//! plain versions; `planar` holds the fast ones, which are tested against them.

use crate::image::{Image, ImageRef};

/// Returns the gray of a pixel as Pillow's `convert("L")` does: ITU-R 601-2 weights in 16-bit fixed point.
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000) >> 16) as u8
}

/// Multiplies every pixel by `factor`.
///
/// ```
/// use invaspread_augment::{Image, brightness};
///
/// let image = Image::new(1, 1, vec![10, 100, 200]);
/// assert_eq!(brightness(image.as_ref(), 1.5).pixels, [15, 150, 255]);
/// ```
pub fn brightness(image: ImageRef<'_>, factor: f64) -> Image {
    per_pixel(image, |pixel| pixel.map(|x| blend(0, x, factor)))
}

/// Blends every pixel with the mean gray of the image.
pub fn contrast(image: ImageRef<'_>, factor: f64) -> Image {
    let total: u64 = pixels(image).map(|pixel| u64::from(luma(pixel))).sum();
    let mean = mean_gray(total, image.width * image.height);
    per_pixel(image, |pixel| pixel.map(|x| blend(mean, x, factor)))
}

/// Blends each pixel with its own gray.
pub fn saturation(image: ImageRef<'_>, factor: f64) -> Image {
    per_pixel(image, |pixel| pixel.map(|x| blend(luma(pixel), x, factor)))
}

/// Shifts the hue by `factor` of a full circle, `-0.5..=0.5`.
pub fn hue(image: ImageRef<'_>, factor: f64) -> Image {
    let shift = hue_shift(factor);
    per_pixel(image, |pixel| {
        let [h, s, v] = rgb_to_hsv(pixel);
        hsv_to_rgb([h.wrapping_add(shift), s, v])
    })
}

/// Replaces each channel by the gray of its pixel.
///
/// ```
/// use invaspread_augment::{Image, grayscale, luma};
///
/// let image = Image::new(1, 1, vec![255, 0, 0]);
/// let gray = luma([255, 0, 0]);
/// assert_eq!(grayscale(image.as_ref()), Image::new(1, 1, vec![gray; 3]));
/// ```
pub fn grayscale(image: ImageRef<'_>) -> Image {
    per_pixel(image, |pixel| [luma(pixel); 3])
}

/// Inverts every channel value from `threshold` on.
///
/// ```
/// use invaspread_augment::{Image, solarize};
///
/// let image = Image::new(1, 1, vec![0, 127, 128]);
/// assert_eq!(solarize(image.as_ref(), 128).pixels, [0, 127, 127]);
/// ```
pub fn solarize(image: ImageRef<'_>, threshold: u8) -> Image {
    per_pixel(image, |pixel| pixel.map(|x| if x < threshold { x } else { 255 - x }))
}

/// Returns what is added to the hue byte: `factor * 255` rounded towards zero; negative values wrap around.
pub(crate) fn hue_shift(factor: f64) -> u8 {
    (factor * 255.0) as i32 as u8
}

/// Returns the mean of `count` gray values; halves are rounded up.
pub(crate) fn mean_gray(total: u64, count: usize) -> u8 {
    (total as f64 / count.max(1) as f64 + 0.5) as u8
}

fn pixels(image: ImageRef<'_>) -> impl Iterator<Item = [u8; 3]> {
    image.pixels.chunks_exact(3).map(|p| [p[0], p[1], p[2]])
}

fn per_pixel(image: ImageRef<'_>, change: impl Fn([u8; 3]) -> [u8; 3]) -> Image {
    Image::new(image.width, image.height, pixels(image).flat_map(change).collect())
}

fn blend(degenerate: u8, x: u8, factor: f64) -> u8 {
    let (degenerate, x) = (f32::from(degenerate), f32::from(x));
    (degenerate + factor as f32 * (x - degenerate)).clamp(0.0, 255.0) as u8
}

/// Converts to 8-bit HSV, with f32 and f64 in the same places as in Pillow, because their rounding decides
/// some bytes.
pub(crate) fn rgb_to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let saturation = range / f32::from(most);
    let below = |channel: u8| f32::from(most - channel) / range;
    let sixth = if r == most {
        below(b) - below(g)
    } else if g == most {
        (2.0 + f64::from(below(r)) - f64::from(below(b))) as f32
    } else {
        (4.0 + f64::from(below(g)) - f64::from(below(r))) as f32
    };
    let turn = ((f64::from(sixth) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(turn) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

/// Converts back from 8-bit HSV, again with the precisions of Pillow.
pub(crate) fn hsv_to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let turned = f64::from(h) * 6.0 / 255.0;
    let sector = turned.floor();
    let within = (turned - sector) as f32;
    let saturation = (f64::from(s) / 255.0) as f32;
    let shade = |keep: f64| (f64::from(v) * keep).round().clamp(0.0, 255.0) as u8;
    let p = shade(1.0 - f64::from(saturation));
    let q = shade(1.0 - f64::from(saturation * within));
    let t = shade(1.0 - f64::from(saturation) * (1.0 - f64::from(within)));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_one_and_zero() {
        let image = Image::new(2, 1, vec![10, 200, 30, 0, 255, 77]);
        for change in [brightness, contrast, saturation] {
            assert_eq!(change(image.as_ref(), 1.0), image);
        }
        assert!(brightness(image.as_ref(), 0.0).pixels.iter().all(|&p| p == 0));
        assert_eq!(saturation(image.as_ref(), 0.0), grayscale(image.as_ref()));
        // The gray values are 124 and 158, and their mean is 141.
        assert_eq!(contrast(image.as_ref(), 0.0).pixels, vec![141; 6]);
    }

    #[test]
    fn known_colors_have_their_hue() {
        assert_eq!(rgb_to_hsv([255, 0, 0]), [0, 255, 255]);
        assert_eq!(rgb_to_hsv([0, 255, 0]), [85, 255, 255]);
        assert_eq!(rgb_to_hsv([0, 0, 255]), [170, 255, 255]);
        assert_eq!(rgb_to_hsv([9, 9, 9]), [0, 0, 9]);
        assert_eq!(hsv_to_rgb([85, 255, 200]), [0, 200, 0]);
        assert_eq!(hsv_to_rgb([255, 255, 200]), [200, 0, 0]);
    }

    #[test]
    fn a_hue_shift_is_cut_towards_zero_and_wraps() {
        assert_eq!((hue_shift(0.4), hue_shift(-0.4), hue_shift(-0.003)), (102, 154, 0));
    }
}
