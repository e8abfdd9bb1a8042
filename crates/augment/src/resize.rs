//! Resizes 8-bit images with the same bytes as Pillow's `Image.resize`.
//!
//! There are two passes, horizontal and vertical. Each computes weighted sums of the source pixels under the
//! filter. When the image shrinks, the filter is stretched by the same factor, so that every source pixel
//! counts (plain bilinear interpolation would skip some). Weights are computed in f64 and rounded to 22-bit
//! fixed point; each pass rounds its sums to u8. A pass that would not change the size is left out. Source:
//! Pillow, libImaging/Resample.c.
//!
//! The order of the passes matters, because of the rounding between them. Up to Pillow 12 the horizontal pass
//! is always first. Since Pillow 13 the vertical pass is first if the image loses many more rows than
//! columns. This code follows Pillow 13. If a part of an image is resized to the size of the whole, as for
//! CIFAR-10, no rows are lost, and both orders give the same result.

use std::f64::consts::PI;

use crate::image::{Image, ImageRef};

/// Fixed-point bits of a weight: 32, minus 8 for the pixel and 2 for sums above one.
pub(crate) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half a unit, so that the shift after the sum rounds.
pub(crate) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A filter to resize with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// A triangle with a half-width of one.
    Bilinear,
    /// `sinc(x) sinc(x / 3)` with a half-width of three (Pillow once called it ANTIALIAS).
    Lanczos,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

/// Resizes `image` to `width` x `height` without keeping the aspect ratio.
///
/// ```
/// use invaspread_augment::{Filter, Image, resize};
///
/// let image = Image::new(2, 1, vec![0, 0, 0, 100, 100, 100]);
/// assert_eq!(resize(image.as_ref(), 1, 1, Filter::Bilinear), Image::new(1, 1, vec![50, 50, 50]));
/// ```
///
/// # Panics
/// If either image has no pixels.
pub fn resize(image: ImageRef<'_>, width: usize, height: usize, filter: Filter) -> Image {
    assert!(width * height > 0, "cannot resize to {width} x {height}");
    if down_first((image.width, image.height), (width, height)) {
        return across(down(image, height, filter).as_ref(), width, filter);
    }
    down(across(image, width, filter).as_ref(), height, filter)
}

/// Returns whether the vertical pass comes first; `from` and `to` are width and height.
pub(crate) fn down_first(from: (usize, usize), to: (usize, usize)) -> bool {
    from.1.saturating_sub(to.1) > 2 * from.0.saturating_sub(to.0)
}

fn across(image: ImageRef<'_>, width: usize, filter: Filter) -> Image {
    if width == image.width {
        return image.to_image();
    }
    let table = Coefficients::new(image.width, width, filter);
    let mut out = Image::black(width, image.height);
    for y in 0..image.height {
        for x in 0..width {
            let (first, weights) = table.of(x);
            for channel in 0..3 {
                let source = (0..).map(|tap| image.pixels[(y * image.width + first + tap) * 3 + channel]);
                out.pixels[(y * width + x) * 3 + channel] = weighted(weights, source);
            }
        }
    }
    out
}

fn down(image: ImageRef<'_>, height: usize, filter: Filter) -> Image {
    if height == image.height {
        return image.to_image();
    }
    let table = Coefficients::new(image.height, height, filter);
    let row = image.width * 3;
    let mut out = Image::black(image.width, height);
    for y in 0..height {
        let (first, weights) = table.of(y);
        for at in 0..row {
            let source = (0..).map(|tap| image.pixels[(first + tap) * row + at]);
            out.pixels[y * row + at] = weighted(weights, source);
        }
    }
    out
}

fn weighted(weights: &[i32], source: impl Iterator<Item = u8>) -> u8 {
    let sum = weights.iter().zip(source).fold(HALF, |sum, (&weight, value)| sum + weight * i32::from(value));
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The fixed-point weights of every output position of one pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coefficients {
    /// First source position and number of weights of each output position.
    bounds: Vec<(u32, u32)>,
    /// `taps` weights for each output position. Weights beyond the position's own number are unused.
    weights: Vec<i32>,
    taps: usize,
    /// Weights of one output position before they are normalized.
    unscaled: Vec<f64>,
}

impl Coefficients {
    /// Computes the weights from `from` positions to `to`.
    pub(crate) fn new(from: usize, to: usize, filter: Filter) -> Self {
        let mut table = Self::default();
        table.fill(from, to, filter);
        table
    }

    /// Computes other weights in the same buffers.
    ///
    /// # Panics
    /// If `from` or `to` is zero.
    pub(crate) fn fill(&mut self, from: usize, to: usize, filter: Filter) {
        assert!(from > 0 && to > 0, "cannot resize {from} positions to {to}");
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        self.taps = support.ceil() as usize * 2 + 1;
        self.bounds.clear();
        self.weights.clear();
        self.weights.resize(self.taps * to, 0);
        for (position, weights) in self.weights.chunks_exact_mut(self.taps).enumerate() {
            let center = (position as f64 + 0.5) * scale;
            // Pillow adds a half, rounds towards zero, then clamps to the image.
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            self.bounds.push((first as u32, (end - first) as u32));
            self.unscaled.clear();
            let shrink = 1.0 / stretch;
            self.unscaled.extend((first..end).map(|at| filter.weight((at as f64 - center + 0.5) * shrink)));
            let total: f64 = self.unscaled.iter().sum();
            for (weight, &unscaled) in weights.iter_mut().zip(&self.unscaled) {
                let scaled = if total == 0.0 { unscaled } else { unscaled / total };
                let fixed = scaled * f64::from(1 << PRECISION_BITS);
                *weight = (if scaled < 0.0 { fixed - 0.5 } else { fixed + 0.5 }) as i32;
            }
        }
    }

    /// Returns the first source position of output `position`, and the weights from there on.
    #[inline]
    pub(crate) fn of(&self, position: usize) -> (usize, &[i32]) {
        let (first, count) = self.bounds[position];
        let start = position * self.taps;
        (first as usize, &self.weights[start..start + count as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_flat_image_stays_flat(value: u8, w in 1usize..40, h in 1usize..40, to_w in 1usize..80, to_h in 1usize..80) {
            let image = Image::new(w, h, vec![value; w * h * 3]);
            for filter in [Filter::Bilinear, Filter::Lanczos] {
                let out = resize(image.as_ref(), to_w, to_h, filter);
                prop_assert!(out.pixels.iter().all(|&p| p == value));
            }
        }

        #[test]
        fn weights_are_normalized_and_within_the_source(from in 1usize..600, to in 1usize..300, lanczos: bool) {
            let filter = if lanczos { Filter::Lanczos } else { Filter::Bilinear };
            let table = Coefficients::new(from, to, filter);
            for position in 0..to {
                let (first, weights) = table.of(position);
                prop_assert!(!weights.is_empty() && first + weights.len() <= from);
                let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                prop_assert!((sum - (1 << PRECISION_BITS)).abs() <= weights.len() as i64);
            }
        }
    }

    /// Compares with the bytes of Pillow 13.0.0 for both orders of the passes. From 2 x 5 to 3 x 2 the
    /// vertical pass is first, and from 2 x 4 to 1 x 2 the horizontal one.
    #[test]
    fn the_pass_down_comes_first_where_many_rows_go() {
        let gray = |width, values: &[u8]| {
            Image::new(width, values.len() / width, values.iter().flat_map(|&v| [v; 3]).collect())
        };
        let tall = gray(2, &[95, 130, 194, 217, 207, 235, 15, 163, 33, 215]);
        assert_eq!(resize(tall.as_ref(), 3, 2, Filter::Bilinear), gray(3, &[157, 174, 191, 72, 135, 198]));
        let broad = gray(2, &[120, 122, 50, 208, 78, 28, 64, 166]);
        assert_eq!(resize(broad.as_ref(), 1, 2, Filter::Bilinear), gray(1, &[115, 90]));
    }

    #[test]
    fn halving_bilinearly_looks_at_four_neighbors() {
        // The stretched triangle lies in the middle between two pixels, so the weights are 1/8, 3/8, 3/8,
        // 1/8. At the border they are cut and normalized.
        let gray = |values: &[u8]| Image::new(values.len(), 1, values.iter().flat_map(|&v| [v; 3]).collect());
        let out = resize(gray(&[0, 0, 80, 160, 0, 0]).as_ref(), 3, 1, Filter::Bilinear);
        assert_eq!(out, gray(&[11, 90, 23]));
    }
}
