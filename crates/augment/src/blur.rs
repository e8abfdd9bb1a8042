//! Gaussian blur that gives the same bytes as torchvision's `GaussianBlur` on Pillow images.
//!
//! ```text
//! k_i = exp(−(i/σ)²/2) / Σ_j exp(−(j/σ)²/2),   i, j from −r to r;   kernel length n = 2r + 1
//! out(y, x) = round( Σ_i Σ_j k_i k_j in(y + i, x + j) ),   the image is reflected at its borders
//! ```
//!
//! torchvision computes this in f32. Where a sum is nearly halfway between two bytes, the order of its terms
//! decides the byte. [`gaussian_blur`] therefore repeats the order of PyTorch's CPU kernels: the weights
//! `k_i k_j` are rounded products, and each output is one chain of fused multiply-adds, row after row. The
//! sum of the kernel is that of PyTorch for AVX2 ([`sum`]).
//!
//! Deviation: PyTorch takes the exponential from a closed library, whose result is the correctly rounded one,
//! as here, or (in 1 of 130 values) a neighbor of it. Such a neighbor moves a sum by about 1e-5, so a byte
//! could differ only where the sum is as near to a half. Of the 6,144,000 bytes of 2,000 random images (32 x
//! 32, kernel 23, σ from 0.1 to 2), none differed. Where PyTorch's kernels are those for AVX-512, the sum of
//! the kernel has another order, with the same consequence.
//!
//! The fast version, [`Blur::apply`], blurs rows and then columns, 2n terms for each output. It repeats the
//! n² terms of the exact version only where a proven bound of the difference does not decide the byte.
#![allow(
    clippy::inline_always,
    reason = "the functions must be compiled inside the dispatched one, with its instruction set"
)]

use crate::image::{Image, ImageRef};
use crate::planar::Planes;

/// Blurs by a Gaussian of standard deviation `sigma` pixels, cut to `kernel` x `kernel` pixels.
///
/// ```
/// use invaspread_augment::{Image, gaussian_blur};
///
/// // A white pixel on black keeps the square of the kernel's largest weight.
/// let mut image = Image::black(5, 5);
/// image.pixels[3 * 12..3 * 13].fill(255);
/// let blurred = gaussian_blur(image.as_ref(), 3, 1.0);
/// assert_eq!(blurred.pixels[3 * 12], 52);
/// ```
///
/// # Panics
/// If `kernel` is even, or a side of the image is not longer than half of it, so that it cannot be
/// reflected.
pub fn gaussian_blur(image: ImageRef<'_>, kernel: usize, sigma: f64) -> Image {
    let (width, height) = (image.width, image.height);
    assert_fits(kernel, width, height);
    let (weights, radius) = (weights(kernel, sigma), kernel / 2);
    let mut out = Image::black(width, height);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let at = |row: usize, column: usize| {
                    let (row, column) = (reflected(row, radius, height), reflected(column, radius, width));
                    image.pixels[(row * width + column) * 3 + channel]
                };
                out.pixels[(y * width + x) * 3 + channel] = byte(exact(&weights, |i, j| at(y + i, x + j)));
            }
        }
    }
    out
}

/// Returns the sum of one output in PyTorch's order; `pixel(i, j)` is the one that `k_i k_j` weighs.
#[inline(always)]
fn exact(weights: &[f32], pixel: impl Fn(usize, usize) -> u8) -> f32 {
    let mut sum = 0.0f32;
    for (i, down) in weights.iter().enumerate() {
        for (j, across) in weights.iter().enumerate() {
            sum = f32::from(pixel(i, j)).mul_add(down * across, sum);
        }
    }
    sum
}

#[inline(always)]
fn byte(sum: f32) -> u8 {
    sum.round_ties_even() as u8
}

/// Returns the place in an image that the place `at` of the image with `radius` reflected pixels before it
/// shows. The pixel at the border is not repeated.
#[inline(always)]
fn reflected(at: usize, radius: usize, length: usize) -> usize {
    let from_border = at.abs_diff(radius);
    if from_border < length { from_border } else { 2 * (length - 1) - from_border }
}

fn assert_fits(kernel: usize, width: usize, height: usize) {
    assert!(
        kernel % 2 == 1 && kernel / 2 < width.min(height),
        "a kernel of {kernel} pixels on an image of {width} x {height}"
    );
}

/// Returns the kernel, with f32 in the same places as torchvision.
fn weights(kernel: usize, sigma: f64) -> Vec<f32> {
    let radius = (kernel / 2) as f32;
    let density = |i: usize| {
        let distance = (i as f32 - radius) / sigma as f32;
        f64::from(-0.5 * (distance * distance)).exp() as f32
    };
    let densities: Vec<f32> = (0..kernel).map(density).collect();
    let sum = sum(&densities);
    densities.into_iter().map(|density| density / sum).collect()
}

/// Adds up in PyTorch's order for AVX2: four interleaved vectors of eight lanes, or of one lane if there are
/// fewer than eight values; then the values after the last full vector, and to them the lanes.
fn sum(values: &[f32]) -> f32 {
    const VECTORS: usize = 4;
    let lanes = if values.len() < 8 { 1 } else { 8 };
    let mut sums = [[0.0f32; 8]; VECTORS];
    let full = values.chunks_exact(lanes);
    let rest = full.remainder();
    let interleaved = full.len() / VECTORS * VECTORS;
    for (place, vector) in full.enumerate() {
        let to = if place < interleaved { place % VECTORS } else { 0 };
        for (sum, value) in sums[to].iter_mut().zip(vector) {
            *sum += value;
        }
    }
    let [mut first, others @ ..] = sums;
    for other in others {
        for (sum, value) in first.iter_mut().zip(other) {
            *sum += value;
        }
    }
    let after_last = rest.iter().fold(0.0, |sum, value| sum + value);
    first[..lanes].iter().fold(after_last, |sum, value| sum + value)
}

/// The fast version, with the buffers that it keeps.
#[derive(Debug, Default)]
pub(crate) struct Blur {
    /// A row with its reflected borders.
    row: Vec<f32>,
    /// The plane after the pass along its rows.
    across: Vec<f32>,
    /// One row of sums.
    sums: Vec<f32>,
    /// The plane before.
    before: Vec<u8>,
}

impl Blur {
    /// Does the same as [`gaussian_blur`].
    #[inline(always)]
    pub(crate) fn apply(&mut self, planes: &mut Planes, kernel: usize, sigma: f64) {
        assert_fits(kernel, planes.width, planes.height);
        let (width, height) = (planes.width, planes.height);
        let weights = weights(kernel, sigma);
        for plane in planes.channels_mut() {
            self.blur(plane, (width, height), &weights);
        }
    }

    #[inline(always)]
    fn blur(&mut self, plane: &mut [u8], (width, height): (usize, usize), weights: &[f32]) {
        let (kernel, radius) = (weights.len(), weights.len() / 2);
        // The exact sum of n² fused terms and this sum of n and n terms both differ from the real one by at
        // most the number of their roundings times 2^-24, relative to it, since no term is negative. A
        // hundredth is added for products of such errors.
        let relative = 1.01 * ((kernel * kernel + 2 * kernel + 4) as f32) * (f32::EPSILON / 2.0);
        self.before.clear();
        self.before.extend_from_slice(plane);
        self.across.resize(width * height, 0.0);
        self.row.resize(width + 2 * radius, 0.0);
        for (from, to) in self.before.chunks_exact(width).zip(self.across.chunks_exact_mut(width)) {
            for (at, value) in self.row.iter_mut().enumerate() {
                *value = f32::from(from[reflected(at, radius, width)]);
            }
            to.fill(0.0);
            for (j, &weight) in weights.iter().enumerate() {
                for (sum, value) in to.iter_mut().zip(&self.row[j..j + width]) {
                    *sum += weight * value;
                }
            }
        }
        self.sums.resize(width, 0.0);
        for (y, out) in plane.chunks_exact_mut(width).enumerate() {
            self.sums.fill(0.0);
            for (i, &weight) in weights.iter().enumerate() {
                let from = &self.across[reflected(y + i, radius, height) * width..][..width];
                for (sum, value) in self.sums.iter_mut().zip(from) {
                    *sum += weight * value;
                }
            }
            for (x, (out, &sum)) in out.iter_mut().zip(&self.sums).enumerate() {
                let decided = (sum - sum.floor() - 0.5).abs() > relative * sum;
                *out = byte(if decided {
                    sum
                } else {
                    exact(weights, |i, j| {
                        let (row, column) =
                            (reflected(y + i, radius, height), reflected(x + j, radius, width));
                        self.before[row * width + column]
                    })
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Blur, gaussian_blur, sum, weights};
    use crate::image::Image;
    use crate::planar::Planes;
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    fn noise(width: usize, height: usize, seed: u64, levels: u32) -> Image {
        let mut stream = Stream::new(seed, Purpose::Synthetic, 0, 0);
        let byte = |_| (stream.next_u32() % levels * (255 / (levels - 1))) as u8;
        Image::new(width, height, (0..width * height * 3).map(byte).collect())
    }

    fn fast(image: &Image, kernel: usize, sigma: f64) -> Image {
        let mut planes = Planes::of(image.as_ref());
        Blur::default().apply(&mut planes, kernel, sigma);
        planes.interleaved()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Images of few gray levels have many sums that are nearly halfway between two bytes.
        #[test]
        fn the_fast_version_equals_the_plain_one(
            width in 1usize..40, height in 1usize..40, radius in 0usize..12, sigma in 0.05f64..8.0, seed: u64,
            levels in prop_oneof![Just(2u32), Just(4), Just(256)],
        ) {
            let kernel = 2 * radius.min(width.min(height) - 1) + 1;
            let image = noise(width, height, seed, levels);
            prop_assert_eq!(fast(&image, kernel, sigma), gaussian_blur(image.as_ref(), kernel, sigma));
        }
    }

    /// With three equal weights, a white column beside two black ones gives 85 in its neighborhood; on a
    /// board of two colors whose mean is a half, the order of the sums decides the byte.
    #[test]
    fn sums_at_a_half_are_decided_by_the_exact_order() {
        for sigma in [1e3, 1e5] {
            let mut image = noise(16, 16, 3, 2);
            for byte in &mut image.pixels {
                *byte = if *byte == 0 { 0 } else { 9 };
            }
            for kernel in [3, 9] {
                assert_eq!(fast(&image, kernel, sigma), gaussian_blur(image.as_ref(), kernel, sigma));
            }
        }
    }

    #[test]
    fn one_color_stays_and_a_narrow_kernel_changes_nothing() {
        let gray = Image::new(12, 7, vec![77; 12 * 7 * 3]);
        assert_eq!(gaussian_blur(gray.as_ref(), 13, 2.0), gray);
        let image = noise(9, 9, 1, 256);
        // The neighbor's weight is exp(−200).
        assert_eq!(gaussian_blur(image.as_ref(), 5, 0.05), image);
        assert_eq!(gaussian_blur(image.as_ref(), 1, 2.0), image);
    }

    #[test]
    fn borders_are_reflected_without_repeating_the_last_pixel() {
        // Equal weights: the corner sees its right neighbor twice.
        let mut image = Image::black(3, 3);
        for row in 0..3 {
            image.pixels[(3 * row + 1) * 3] = 90;
        }
        let blurred = gaussian_blur(image.as_ref(), 3, 1e6);
        assert_eq!([0, 1, 2].map(|x| blurred.pixels[x * 3]), [60, 30, 60]);
    }

    #[test]
    fn weights_are_a_gaussian_and_add_up_to_one() {
        for (kernel, sigma) in [(3, 0.1), (23, 2.0), (9, 0.7), (41, 5.0)] {
            let weights = weights(kernel, sigma);
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            assert!((total - 1.0).abs() < 1e-6, "{total}");
            let middle = kernel / 2;
            let ratio = f64::from(weights[middle + 1] / weights[middle]);
            let want = (-0.5 / (sigma * sigma)).exp();
            assert!((ratio - want).abs() <= 1e-6 * want, "{ratio} {want}");
        }
    }

    #[test]
    fn sums_have_pytorchs_order() {
        // One by one, 2^24 would lose each 1 that is added to it.
        let large = 16_777_216.0f32;
        // Five values are interleaved: (1 + 1) + 2^24, + 1 and + 1, of which one is rounded up, one down.
        assert_eq!(sum(&[1.0, large, 1.0, 1.0, 1.0]).to_bits(), 16_777_220.0f32.to_bits());
        // Of nine values, the last begins the sum, and the others follow one by one.
        let mut values = vec![1.0f32; 9];
        values[0] = large;
        assert_eq!(sum(&values).to_bits(), large.to_bits());
        // Of ten values, two are added to each other first.
        values.push(1.0);
        assert_eq!(sum(&values).to_bits(), 16_777_220.0f32.to_bits());
    }
}
