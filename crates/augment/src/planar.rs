//! Gives the same bytes as `resize` and `color`, but is several times faster: it works on three planes in
//! reused buffers, with loops without branches, which the compiler turns into vector code.
//!
//! - The horizontal pass of a resize works on transposed strips of 16 rows, so that a weight multiplies 48
//!   neighboring bytes at once.
//! - `byte_below` and `nearest_byte` replace Rust's saturating conversions to integers, which have no vector
//!   form.
//! - The hue repeats Pillow's rounding in f64 and f32 where it matters. Elsewhere it uses small integers in
//!   f32, which are exact. A test compares all 2^24 colors.
//!
//! Everything is `inline(always)`: `Pipeline` compiles it once for each instruction set, through `pulp`'s
//! dispatch.
#![allow(
    clippy::inline_always,
    reason = "the functions must be compiled inside the dispatched one, with its instruction set"
)]

use crate::color::{hue_shift, mean_gray};
use crate::draw::Adjust;
use crate::geometry::Window;
use crate::image::ImageRef;
use crate::resize::{Coefficients, Filter, HALF, PRECISION_BITS, down_first};

/// The number of rows that the horizontal pass takes at once.
const ROWS: usize = 16;
/// Bytes of one column of a strip: the rows of each channel.
const COLUMN: usize = 3 * ROWS;
/// The number of pixels whose hue is shifted at once.
const LANES: usize = 32;
/// The longest source whose table is kept. Tables of longer sources are computed each time.
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
    pub(crate) fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let plane = self.width * self.height;
        let (r, rest) = self.bytes.split_at_mut(plane);
        let (g, b) = rest.split_at_mut(plane);
        [r, g, b]
    }

    /// Copies `window` of the padded image. `before` is the padding before the first column and row of
    /// `image`; what lies outside of the image is black.
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
                let mean = mean_gray(self.total_luma(), self.width * self.height);
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
            let gray = luma(*r, *g, *b) as f32;
            *r = blend(gray, f32::from(*r), factor);
            *g = blend(gray, f32::from(*g), factor);
            *b = blend(gray, f32::from(*b), factor);
        }
    }

    #[inline(always)]
    pub(crate) fn grayscale(&mut self) {
        let [r, g, b] = self.channels_mut();
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            let gray = luma(*r, *g, *b) as u8;
            (*r, *g, *b) = (gray, gray, gray);
        }
    }

    #[inline(always)]
    pub(crate) fn solarize(&mut self, threshold: u8) {
        for x in &mut self.bytes {
            *x = if *x < threshold { *x } else { 255 - *x };
        }
    }

    #[inline(always)]
    fn total_luma(&self) -> u64 {
        let [r, g, b] = self.channels();
        // The sum of 2^16 gray values is less than 2^24, so the inner sum fits into 32 bits.
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
        for [r, g, b] in lanes(self.channels_mut()) {
            let mut block = [[0; LANES]; 3];
            for (lanes, channel) in block.iter_mut().zip([&*r, &*g, &*b]) {
                lanes[..channel.len()].copy_from_slice(channel);
            }
            turn_hue(&mut block, shift);
            for (lanes, channel) in block.iter().zip([r, g, b]) {
                channel.copy_from_slice(&lanes[..channel.len()]);
            }
        }
    }
}

/// Returns the three planes together, up to [`LANES`] pixels at a time.
#[inline(always)]
fn lanes([r, g, b]: [&mut [u8]; 3]) -> impl Iterator<Item = [&mut [u8]; 3]> {
    let blocks = r.chunks_mut(LANES).zip(g.chunks_mut(LANES)).zip(b.chunks_mut(LANES));
    blocks.map(|((r, g), b)| [r, g, b])
}

#[inline(always)]
fn luma(r: u8, g: u8, b: u8) -> u32 {
    (19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000) >> 16
}

#[inline(always)]
fn blend(degenerate: f32, x: f32, factor: f32) -> u8 {
    byte_below((degenerate + factor * (x - degenerate)).clamp(0.0, 255.0))
}

/// After 2^23 is added, an f32 of 0..256 has no fraction bits, and the low byte of its bit pattern is the
/// nearest integer.
const INTEGERS: f32 = 8_388_608.0;

/// Returns the integer nearest to `x` in `0.0..=255.0`; callers never pass a value halfway between two.
#[inline(always)]
fn nearest_byte(x: f32) -> u8 {
    (x + INTEGERS).to_bits() as u8
}

/// Returns `x` in `0.0..=255.0` without its fraction.
#[inline(always)]
fn byte_below(x: f32) -> u8 {
    let shifted = x + INTEGERS;
    let above = shifted - INTEGERS > x;
    shifted.to_bits().wrapping_sub(u32::from(above)) as u8
}

/// Returns the integer part of the exact product `255 x` for `x` in `0.0..=1.0`. f32 cannot hold that
/// product, but the sign of `256 x - n - x` is right.
#[inline(always)]
fn byte_of_unit(x: f32) -> u32 {
    let shifted = x * 255.0 + INTEGERS;
    let nearest = shifted - INTEGERS;
    let above = (x * 256.0 - nearest) - x < 0.0;
    (shifted.to_bits() & 0x1ff).wrapping_sub(u32::from(above))
}

/// Shifts the hue of a block of pixels, given as separate R, G and B. Each stage is a loop of its own,
/// because the compiler would not vectorize a single loop.
#[inline(always)]
#[allow(clippy::float_cmp, reason = "the quotient of equal numbers is exactly one")]
#[allow(clippy::needless_range_loop, reason = "a stage reads and writes several arrays in step")]
fn turn_hue([r, g, b]: &mut [[u8; LANES]; 3], shift: u8) {
    // Conversion to HSV: finds which channels are subtracted from the greatest one, and whether the hue
    // starts at 0, 2 or 4 sixths of the circle.
    let (mut most, mut range) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (mut plus, mut minus, mut base) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    for i in 0..LANES {
        let (red, green, blue) = (r[i], g[i], b[i]);
        let greatest = red.max(green).max(blue);
        most[i] = f32::from(greatest);
        // If the range is zero, so is the saturation, and the hue, which is computed with a divisor of one,
        // has no effect.
        range[i] = f32::from(greatest - red.min(green).min(blue));
        let (is_red, is_green) = (red == greatest, green == greatest);
        let add = if is_green { red } else { green };
        let subtract = if is_green { blue } else { red };
        let add = if is_red { blue } else { add };
        let subtract = if is_red { green } else { subtract };
        plus[i] = f32::from(greatest - add);
        minus[i] = f32::from(greatest - subtract);
        base[i] = f32::from(if is_red { 0 } else { 4 - 2 * u8::from(is_green) });
    }
    // Pillow computes 2 + plus - minus and 4 + plus - minus in f64 and rounds once. Either plus or minus is
    // exactly 0 or 1; if that one is added first, f32 rounds only once too.
    let mut sixths = [0.0f32; LANES];
    for i in 0..LANES {
        let divisor = range[i].max(1.0);
        let (plus, minus) = (plus[i] / divisor, minus[i] / divisor);
        let whole_minus = (base[i] - minus) + plus;
        let whole_plus = (base[i] + plus) - minus;
        sixths[i] = if minus == 1.0 { whole_minus } else { whole_plus };
    }
    let mut turns = [0.0f32; LANES];
    for i in 0..LANES {
        let turn = f64::from(sixths[i]) / 6.0 + 1.0;
        turns[i] = (turn - if turn >= 1.0 { 1.0 } else { 0.0 }) as f32;
    }
    let (mut hue, mut saturation) = ([0i32; LANES], [0.0f32; LANES]);
    for i in 0..LANES {
        saturation[i] = byte_of_unit(range[i] / most[i].max(1.0)) as i32 as f32;
        hue[i] = (byte_of_unit(turns[i]) as i32 + i32::from(shift)) & 0xff;
    }

    // Conversion back, without Pillow's six cases: from its own offset on, each channel has its largest value
    // for a third of the circle, its smallest for another third, and decreases or increases in between. In
    // steps of 1/510 of the circle all numbers are integers, and each channel is an integer divided by 255 *
    // 85, which is never halfway between two bytes.
    for (channel, offset) in [(r, 425), (g, 255), (b, 85)] {
        for i in 0..LANES {
            let place = offset + 2 * hue[i];
            let place = if place >= 510 { place - 510 } else { place };
            let fallen = place.min(340 - place).clamp(0, 85) as f32;
            channel[i] = nearest_byte(most[i] * (255.0 * 85.0 - saturation[i] * fallen) / (255.0 * 85.0));
        }
    }
}

/// Resizes into [`Planes`] with tables and buffers that it keeps.
#[derive(Debug, Default)]
pub(crate) struct Resizer {
    /// Bilinear tables to `kept_for` positions, by the source's length.
    kept: Vec<Option<Coefficients>>,
    kept_for: usize,
    /// The tables that are not kept: that of the horizontal pass, and that of the vertical one.
    passing: [Coefficients; 2],
    /// One strip, column by column.
    strip: Vec<u8>,
    /// The result of the horizontal pass: for each row, the positions of each channel.
    rows: Vec<u8>,
    sums: Vec<i32>,
    /// The window after the vertical pass, if that comes first, as interleaved pixels.
    shortened: Vec<u8>,
}

impl Resizer {
    /// Resizes `window` of `image` to `width` x `height`, as [`crate::resize()`] of [`crate::crop()`] does.
    #[inline(always)]
    pub(crate) fn resize(
        &mut self,
        image: ImageRef<'_>,
        window: Window,
        (width, height): (usize, usize),
        filter: Filter,
        out: &mut Planes,
    ) {
        if down_first((window.width, window.height), (width, height)) {
            let mut shortened = std::mem::take(&mut self.shortened);
            self.shorten(image, window, height, filter, &mut shortened);
            let image = ImageRef::new(window.width, height, &shortened);
            let whole = Window { top: 0, left: 0, height, width: window.width };
            self.across_then_down(image, whole, (width, height), filter, out);
            self.shortened = shortened;
        } else {
            self.across_then_down(image, window, (width, height), filter, out);
        }
    }

    /// Does the vertical pass on interleaved pixels.
    #[inline(always)]
    fn shorten(
        &mut self,
        image: ImageRef<'_>,
        window: Window,
        height: usize,
        filter: Filter,
        out: &mut Vec<u8>,
    ) {
        let row_bytes = window.width * 3;
        out.resize(height * row_bytes, 0);
        self.sums.resize(row_bytes, 0);
        let table = &mut self.passing[1];
        table.fill(window.height, height, filter);
        for (y, to) in out.chunks_exact_mut(row_bytes).enumerate() {
            let (first, weights) = table.of(y);
            self.sums.fill(HALF);
            for (tap, &weight) in weights.iter().enumerate() {
                let start = ((window.top + first + tap) * image.width + window.left) * 3;
                for (sum, &value) in self.sums.iter_mut().zip(&image.pixels[start..start + row_bytes]) {
                    *sum += weight * i32::from(value);
                }
            }
            for (to, &sum) in to.iter_mut().zip(&self.sums) {
                *to = rounded(sum);
            }
        }
    }

    #[inline(always)]
    fn across_then_down(
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
                let mut bytes = [0; COLUMN];
                for (byte, &sum) in bytes.iter_mut().zip(&sums) {
                    *byte = rounded(sum);
                }
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

    /// Prepares the table from `from` to `to` positions and returns where it is; `None` if the size does not
    /// change.
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

#[cfg(test)]
impl Planes {
    /// Returns the planes of an image.
    pub(crate) fn of(image: ImageRef<'_>) -> Self {
        let mut planes = Self::default();
        let whole = Window { top: 0, left: 0, height: image.height, width: image.width };
        planes.copy_padded(image, whole, (0, 0));
        planes
    }

    /// Returns the image of the planes.
    pub(crate) fn interleaved(&self) -> crate::Image {
        let [r, g, b] = self.channels();
        let pixels = r.iter().zip(g).zip(b).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
        crate::Image::new(self.width, self.height, pixels)
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
            Self::Kept(from) => kept[from].as_ref().expect("the table was just prepared"),
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

    /// Checks Pillow's two conversions for every color: forward for each RGB, back for each HSV.
    #[test]
    fn hue_is_exact_for_every_color() {
        let ramp: [u8; 256] = std::array::from_fn(|b| b as u8);
        for r in 0..=255u8 {
            for g in 0..=255u8 {
                // All shifts of all colors would be 2^32 cases. Each pair of hue and saturation also occurs
                // with other shifts.
                let shift = r.wrapping_mul(31) ^ g.wrapping_mul(17);
                for blues in ramp.chunks_exact(LANES) {
                    let mut block = [[r; LANES], [g; LANES], blues.try_into().expect("a whole block")];
                    turn_hue(&mut block, shift);
                    for (i, &b) in blues.iter().enumerate() {
                        let [h, s, v] = color::rgb_to_hsv([r, g, b]);
                        let expected = color::hsv_to_rgb([h.wrapping_add(shift), s, v]);
                        assert_eq!(block.map(|channel| channel[i]), expected, "{r} {g} {b} by {shift}");
                    }
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
                let mut fast = Planes::of(image.as_ref());
                fast.adjust(change);
                prop_assert_eq!(fast.interleaved(), plain);
                Ok(())
            };
            check(Adjust::Brightness(factor), color::brightness(image.as_ref(), factor))?;
            check(Adjust::Contrast(factor), color::contrast(image.as_ref(), factor))?;
            check(Adjust::Saturation(factor), color::saturation(image.as_ref(), factor))?;
            check(Adjust::Hue(turn), color::hue(image.as_ref(), turn))?;
            let mut gray = Planes::of(image.as_ref());
            gray.grayscale();
            prop_assert_eq!(gray.interleaved(), color::grayscale(image.as_ref()));
            let mut solarized = Planes::of(image.as_ref());
            solarized.solarize((factor * 85.0) as u8);
            let plain = color::solarize(image.as_ref(), (factor * 85.0) as u8);
            prop_assert_eq!(solarized.interleaved(), plain);
        }

        #[test]
        fn resizing_equals_the_plain_one(
            images in prop::collection::vec((image(), 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0), 3),
            width in 1usize..70, height in 1usize..70, lanczos: bool,
        ) {
            let filter = if lanczos { Filter::Lanczos } else { Filter::Bilinear };
            // One resizer does all resizes, so that its kept tables are used again.
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
                    prop_assert_eq!(out.interleaved(), plain);
                }
            }
        }
    }
}
