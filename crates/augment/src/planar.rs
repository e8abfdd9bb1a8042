//! The same bytes as `resize` and `color`, several times faster: three planes held in reused buffers, and loops without
//! branches that the compiler turns into vector code.
//!
//! - Resizing goes across in strips of 16 rows, each turned so that a weight multiplies 48 neighbouring bytes at once.
//! - `byte_below` and `nearest_byte` replace float-to-integer conversions, which have no vector form of Rust's saturating kind.
//! - Hue: whenever Pillow's f64 and f32 roundings matter they are repeated, elsewhere exact small integers in f32 replace them.
//!   A test goes through all 2^24 colours both ways.
//!
//! Everything is `inline(always)`: `Pipeline` compiles it once per instruction set through `pulp`'s dispatch.
#![allow(
    clippy::inline_always,
    reason = "the functions must be compiled inside the dispatched one, with its instruction set"
)]

use crate::color::{hue_shift, mean_grey};
use crate::draw::Adjust;
use crate::geometry::Window;
use crate::image::ImageRef;
use crate::resize::{Coefficients, Filter, HALF, PRECISION_BITS};

/// Rows that the pass across takes at once.
const ROWS: usize = 16;
/// Bytes of one column of a strip: each channel's rows.
const COLUMN: usize = 3 * ROWS;
/// Tables are kept for sources up to this length; longer ones are computed anew each time.
const KEPT: usize = 512;

/// An RGB image as three planes of `width * height` bytes.
#[derive(Debug, Default)]
pub(crate) struct Planes {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Planes {
    #[inline(always)]
    fn reshape(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.bytes.resize(width * height * 3, 0);
    }

    #[inline(always)]
    pub(crate) fn channels(&self) -> [&[u8]; 3] {
        let (r, rest) = self.bytes.split_at(self.width * self.height);
        let (g, b) = rest.split_at(self.width * self.height);
        [r, g, b]
    }

    #[inline(always)]
    fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let plane = self.width * self.height;
        let (r, rest) = self.bytes.split_at_mut(plane);
        let (g, b) = rest.split_at_mut(plane);
        [r, g, b]
    }

    /// Copies `window` of `image`; what lies outside of the image, `before` its first row and column or beyond its last, is
    /// black. `window` is in coordinates of the padded image.
    #[inline(always)]
    pub(crate) fn copy_padded(&mut self, image: ImageRef<'_>, window: Window, before: (usize, usize)) {
        self.reshape(window.width, window.height);
        self.bytes.fill(0);
        let columns = before.0.max(window.left)..(before.0 + image.width).min(window.left + window.width);
        let rows = before.1.max(window.top)..(before.1 + image.height).min(window.top + window.height);
        if columns.is_empty() {
            return;
        }
        for y in rows {
            let from = ((y - before.1) * image.width + columns.start - before.0) * 3;
            let to = (y - window.top) * window.width + columns.start - window.left;
            let source = &image.pixels[from..from + columns.len() * 3];
            let [r, g, b] = self.channels_mut().map(|channel| &mut channel[to..to + columns.len()]);
            for (((pixel, r), g), b) in source.chunks_exact(3).zip(r).zip(g).zip(b) {
                (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
            }
        }
    }

    /// Copies `window` of other planes.
    #[inline(always)]
    pub(crate) fn copy_middle(&mut self, from: &Self, window: Window) {
        self.reshape(window.width, window.height);
        for (to, from_channel) in self.channels_mut().into_iter().zip(from.channels()) {
            for (row, to) in to.chunks_exact_mut(window.width).enumerate() {
                let start = (window.top + row) * from.width + window.left;
                to.copy_from_slice(&from_channel[start..start + window.width]);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn adjust(&mut self, change: Adjust) {
        match change {
            Adjust::Brightness(factor) => self.blend_with(0, factor),
            Adjust::Contrast(factor) => {
                let mean = mean_grey(self.total_luma(), self.width * self.height);
                self.blend_with(mean, factor);
            }
            Adjust::Saturation(factor) => self.saturate(factor as f32),
            Adjust::Hue(factor) => self.turn_hue(hue_shift(factor)),
        }
    }

    #[inline(always)]
    fn blend_with(&mut self, degenerate: u8, factor: f64) {
        let (degenerate, factor) = (f32::from(degenerate), factor as f32);
        for x in &mut self.bytes {
            *x = blend(degenerate, f32::from(*x), factor);
        }
    }

    #[inline(always)]
    fn saturate(&mut self, factor: f32) {
        let [r, g, b] = self.channels_mut();
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            let grey = luma(*r, *g, *b) as f32;
            *r = blend(grey, f32::from(*r), factor);
            *g = blend(grey, f32::from(*g), factor);
            *b = blend(grey, f32::from(*b), factor);
        }
    }

    #[inline(always)]
    pub(crate) fn grayscale(&mut self) {
        let [r, g, b] = self.channels_mut();
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            let grey = luma(*r, *g, *b) as u8;
            (*r, *g, *b) = (grey, grey, grey);
        }
    }

    #[inline(always)]
    fn total_luma(&self) -> u64 {
        let [r, g, b] = self.channels();
        // 2^16 greys sum to less than 2^24, so the inner sum fits 32 bits.
        let part = 1 << 16;
        let mut total = 0;
        for ((r, g), b) in r.chunks(part).zip(g.chunks(part)).zip(b.chunks(part)) {
            let mut sum = 0;
            for ((&r, &g), &b) in r.iter().zip(g).zip(b) {
                sum += luma(r, g, b);
            }
            total += u64::from(sum);
        }
        total
    }

    #[inline(always)]
    fn turn_hue(&mut self, shift: u8) {
        let [r, g, b] = self.channels_mut();
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            (*r, *g, *b) = turn_hue(*r, *g, *b, shift);
        }
    }
}

#[inline(always)]
fn luma(r: u8, g: u8, b: u8) -> u32 {
    (19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000) >> 16
}

#[inline(always)]
fn blend(degenerate: f32, x: f32, factor: f32) -> u8 {
    byte_below((degenerate + factor * (x - degenerate)).clamp(0.0, 255.0))
}

/// Adding 2^23 leaves an f32 of 0..256 no fraction bits: the low byte of its pattern is the nearest integer.
const INTEGERS: f32 = 8_388_608.0;

/// The nearest integer to `x` in `0.0..=255.0`; the callers' values are never halfway.
#[inline(always)]
fn nearest_byte(x: f32) -> u8 {
    (x + INTEGERS).to_bits() as u8
}

/// `x` in `0.0..=255.0` without its fraction.
#[inline(always)]
fn byte_below(x: f32) -> u8 {
    let shifted = x + INTEGERS;
    let above = shifted - INTEGERS > x;
    shifted.to_bits().wrapping_sub(u32::from(above)) as u8
}

/// The integer part of the exact product `255 x` for `x` in `0.0..=1.0`, though f32 cannot hold that product: `256 x - n - x`
/// has its sign right.
#[inline(always)]
fn byte_of_unit(x: f32) -> u32 {
    let shifted = x * 255.0 + INTEGERS;
    let nearest = shifted - INTEGERS;
    let above = (x * 256.0 - nearest) - x < 0.0;
    (shifted.to_bits() & 0x1ff).wrapping_sub(u32::from(above))
}

#[inline(always)]
#[allow(
    clippy::float_cmp,
    reason = "each compares a value with one it was copied from, or an exact quotient"
)]
fn turn_hue(r: u8, g: u8, b: u8, shift: u8) -> (u8, u8, u8) {
    let (rf, gf, bf) = (f32::from(r), f32::from(g), f32::from(b));
    let most = rf.max(gf).max(bf);
    let range = most - rf.min(gf).min(bf);
    let grey = range == 0.0;

    // To HSV. Without a range there is no saturation, so whatever hue comes out changes nothing.
    let divisor = if grey { 1.0 } else { range };
    let saturation = range / most.max(1.0);
    let red = rf == most;
    let green = gf == most;
    // Pillow takes 2 + red - blue and 4 + green - red in f64; one of each pair is exactly 0 or 1, so f32 rounds as once.
    let plus = if red {
        bf
    } else if green {
        rf
    } else {
        gf
    };
    let minus = if red {
        gf
    } else if green {
        bf
    } else {
        rf
    };
    let base = if red {
        0.0
    } else if green {
        2.0
    } else {
        4.0
    };
    let plus = (most - plus) / divisor;
    let minus = (most - minus) / divisor;
    // (base + plus) - minus: base + plus would round when plus is the fraction, so the whole numbers go first.
    let sixth = if minus == 1.0 { (base - 1.0) + plus } else { (base + plus) - minus };
    let turn = f64::from(sixth) / 6.0 + 1.0;
    let turn = (turn - if turn >= 1.0 { 1.0 } else { 0.0 }) as f32;
    let s = byte_of_unit(saturation) as f32;
    let h = (byte_of_unit(turn) + u32::from(shift)) & 0xff;

    // Back: 6 h / 255 = sector + within / 85, and each shade is an integer over 255 * 85 (never halfway).
    let sector = (h * 1543) >> 16;
    let within = (2 * h - 85 * sector) as f32;
    let full = 255.0 * 85.0;
    let p = nearest_byte(most * (255.0 - s) / 255.0);
    let q = nearest_byte(most * (full - s * within) / full);
    let t = nearest_byte(most * (full - s * (85.0 - within)) / full);
    let v = most as u32 as u8;
    let sector = if sector == 6 { 0 } else { sector };
    let r = if sector == 0 || sector == 5 {
        v
    } else if sector == 1 {
        q
    } else if sector == 4 {
        t
    } else {
        p
    };
    let g = if sector == 1 || sector == 2 {
        v
    } else if sector == 0 {
        t
    } else if sector == 3 {
        q
    } else {
        p
    };
    let b = if sector == 3 || sector == 4 {
        v
    } else if sector == 2 {
        t
    } else if sector == 5 {
        q
    } else {
        p
    };
    (r, g, b)
}

/// Resizes into [`Planes`] with tables and buffers that it keeps.
#[derive(Debug, Default)]
pub(crate) struct Resizer {
    /// Bilinear tables to `kept_for` positions, by the source's length.
    kept: Vec<Option<Coefficients>>,
    kept_for: usize,
    /// Tables that are not kept: across, down.
    passing: [Coefficients; 2],
    /// One strip, column by column.
    strip: Vec<u8>,
    /// What the pass across made: for each row, each channel's positions.
    rows: Vec<u8>,
    sums: Vec<i32>,
}

impl Resizer {
    /// `window` of `image` made `width` x `height`, as [`crate::resize()`] of [`crate::crop()`].
    #[inline(always)]
    pub(crate) fn resize(
        &mut self,
        image: ImageRef<'_>,
        window: Window,
        (width, height): (usize, usize),
        filter: Filter,
        out: &mut Planes,
    ) {
        out.reshape(width, height);
        let across = self.table(0, window.width, width, filter);
        let down = self.table(1, window.height, height, filter);
        let row_bytes = width * 3;
        self.rows.resize(window.height * row_bytes, 0);
        let across = across.map(|at| at.pick(&self.kept, &self.passing));
        let down = down.map(|at| at.pick(&self.kept, &self.passing));

        self.strip.resize(window.width * COLUMN, 0);
        for (part, strip_rows) in self.rows.chunks_mut(ROWS * row_bytes).enumerate() {
            let first_row = window.top + part * ROWS;
            let count = strip_rows.len() / row_bytes;
            let source = |row: usize| {
                let start = ((first_row + row) * image.width + window.left) * 3;
                &image.pixels[start..start + window.width * 3]
            };
            let Some(table) = across else {
                for (row, to) in strip_rows.chunks_exact_mut(row_bytes).enumerate() {
                    let (r, rest) = to.split_at_mut(width);
                    let (g, b) = rest.split_at_mut(width);
                    for (((pixel, r), g), b) in source(row).chunks_exact(3).zip(r).zip(g).zip(b) {
                        (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
                    }
                }
                continue;
            };
            for row in 0..count {
                for (column, pixel) in self.strip.chunks_exact_mut(COLUMN).zip(source(row).chunks_exact(3)) {
                    column[row] = pixel[0];
                    column[ROWS + row] = pixel[1];
                    column[2 * ROWS + row] = pixel[2];
                }
            }
            for x in 0..width {
                let (first, weights) = table.of(x);
                let columns = self.strip[first * COLUMN..].chunks_exact(COLUMN);
                let mut sums = [HALF; COLUMN];
                for (&weight, column) in weights.iter().zip(columns) {
                    for (sum, &value) in sums.iter_mut().zip(column) {
                        *sum += weight * i32::from(value);
                    }
                }
                let bytes = sums.map(rounded);
                for (row, to) in strip_rows.chunks_exact_mut(row_bytes).enumerate() {
                    to[x] = bytes[row];
                    to[width + x] = bytes[ROWS + row];
                    to[2 * width + x] = bytes[2 * ROWS + row];
                }
            }
        }

        self.sums.resize(row_bytes, 0);
        let [r, g, b] = out.channels_mut();
        for y in 0..height {
            let at = y * width..(y + 1) * width;
            let to = [&mut r[at.clone()], &mut g[at.clone()], &mut b[at]];
            if let Some(table) = down {
                let (first, weights) = table.of(y);
                self.sums.fill(HALF);
                for (&weight, row) in
                    weights.iter().zip(self.rows[first * row_bytes..].chunks_exact(row_bytes))
                {
                    for (sum, &value) in self.sums.iter_mut().zip(row) {
                        *sum += weight * i32::from(value);
                    }
                }
                for (to, sums) in to.into_iter().zip(self.sums.chunks_exact(width)) {
                    for (to, &sum) in to.iter_mut().zip(sums) {
                        *to = rounded(sum);
                    }
                }
            } else {
                let row = &self.rows[y * row_bytes..(y + 1) * row_bytes];
                for (to, from) in to.into_iter().zip(row.chunks_exact(width)) {
                    to.copy_from_slice(from);
                }
            }
        }
    }

    /// Makes sure of the table from `from` to `to` positions and says where it is; `None` if nothing is to be resized.
    fn table(&mut self, pass: usize, from: usize, to: usize, filter: Filter) -> Option<TableAt> {
        if from == to {
            return None;
        }
        if filter != Filter::Bilinear || from > KEPT || (self.kept_for != to && pass == 1) {
            self.passing[pass].fill(from, to, filter);
            return Some(TableAt::Passing(pass));
        }
        if self.kept_for != to {
            self.kept.clear();
            self.kept.resize(KEPT + 1, None);
            self.kept_for = to;
        }
        self.kept[from].get_or_insert_with(|| Coefficients::new(from, to, filter));
        Some(TableAt::Kept(from))
    }
}

#[derive(Debug, Clone, Copy)]
enum TableAt {
    Kept(usize),
    Passing(usize),
}

impl TableAt {
    fn pick<'a>(self, kept: &'a [Option<Coefficients>], passing: &'a [Coefficients; 2]) -> &'a Coefficients {
        match self {
            Self::Kept(from) => kept[from].as_ref().expect("the table was just made sure of"),
            Self::Passing(pass) => &passing[pass],
        }
    }
}

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color;
    use crate::geometry;
    use crate::image::Image;
    use proptest::prelude::*;

    fn interleaved(planes: &Planes) -> Image {
        let [r, g, b] = planes.channels();
        let pixels = r.iter().zip(g).zip(b).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
        Image::new(planes.width, planes.height, pixels)
    }

    fn planes(image: &Image) -> Planes {
        let mut planes = Planes::default();
        let whole = Window { top: 0, left: 0, height: image.height, width: image.width };
        planes.copy_padded(image.as_ref(), whole, (0, 0));
        planes
    }

    /// Pillow's two conversions, over every colour: forward for each RGB, back for each HSV.
    #[test]
    fn hue_is_exact_for_every_colour() {
        for r in 0..=255u8 {
            for g in 0..=255u8 {
                for b in 0..=255u8 {
                    let [h, s, v] = color::rgb_to_hsv([r, g, b]);
                    // All shifts would be 2^32 colours; each shade's hue and saturation are met under other shifts too.
                    let shift = r.wrapping_mul(31) ^ g.wrapping_mul(17) ^ b;
                    let expected = color::hsv_to_rgb([h.wrapping_add(shift), s, v]);
                    assert_eq!(<[u8; 3]>::from(turn_hue(r, g, b, shift)), expected, "{r} {g} {b} by {shift}");
                }
            }
        }
    }

    fn image() -> impl Strategy<Value = Image> {
        (1usize..50, 1usize..50).prop_flat_map(|(w, h)| {
            prop::collection::vec(any::<u8>(), w * h * 3).prop_map(move |pixels| Image::new(w, h, pixels))
        })
    }

    proptest! {
        #[test]
        fn each_change_equals_the_plain_one(image in image(), factor in 0.0f64..3.0, turn in -0.5f64..0.5) {
            let check = |change: Adjust, plain: Image| {
                let mut fast = planes(&image);
                fast.adjust(change);
                prop_assert_eq!(interleaved(&fast), plain);
                Ok(())
            };
            check(Adjust::Brightness(factor), color::brightness(image.as_ref(), factor))?;
            check(Adjust::Contrast(factor), color::contrast(image.as_ref(), factor))?;
            check(Adjust::Saturation(factor), color::saturation(image.as_ref(), factor))?;
            check(Adjust::Hue(turn), color::hue(image.as_ref(), turn))?;
            let mut grey = planes(&image);
            grey.grayscale();
            prop_assert_eq!(interleaved(&grey), color::grayscale(image.as_ref()));
        }

        #[test]
        fn resizing_equals_the_plain_one(
            images in prop::collection::vec((image(), 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0), 3),
            width in 1usize..70, height in 1usize..70, lanczos: bool,
        ) {
            let filter = if lanczos { Filter::Lanczos } else { Filter::Bilinear };
            // One resizer for all, so that what it keeps is used again.
            let (mut resizer, mut out) = (Resizer::default(), Planes::default());
            for (image, a, b, c, d) in images {
                let part = |u: f64, n: usize| (u * n as f64) as usize;
                let (top, left) = (part(a, image.height), part(b, image.width));
                let window = Window {
                    top,
                    left,
                    height: 1 + part(c, image.height - top),
                    width: 1 + part(d, image.width - left),
                };
                for size in [(width, height), (width, width)] {
                    resizer.resize(image.as_ref(), window, size, filter, &mut out);
                    let plain = crate::resize(geometry::crop(image.as_ref(), window).as_ref(), size.0, size.1, filter);
                    prop_assert_eq!(interleaved(&out), plain);
                }
            }
        }
    }
}
