//! The gradient of the weights: `xᵀ gy`, summed over pixels.
//!
//! On large maps the whole batch is one line of pixels for both operands: after each row of a map and between
//! maps there are pixels of zeros, as many as a tap can reach beyond an edge. Then a tap's inputs lie at one
//! distance from the output's gradients, so the inputs are transposed to `[channels][pixels]` once, and each
//! tap's tiles are loaded from there. On small maps the zeros would be a large part of the sum: the pixels of
//! each tap are copied instead, and their cost is shared by many output channels.

use super::super::geometry::Geometry;
use super::super::sampling::Sampling;
use super::super::tiles::PANEL;
use super::{STEPS, pack, unrolled};
use crate::memory::{Aligned, uninitialized, with_scratch};
use crate::simd::SharedMut;
use crate::simd::amx::{LINE, Left, Right, STEP, TILE, TILE_BYTES, Tiles};
use crate::team;
use half::bf16;

/// Computes `gw`, the gradient of the weights.
pub(in super::super) fn weight_gradient(g: &Geometry, x: &[bf16], gy: &[bf16], gw: &mut [f32]) {
    if g.ci < PANEL {
        let (patches, x) = unrolled(g, x);
        let mut gradient = uninitialized(patches.weight_len());
        weight_gradient(&patches, &x, gy, &mut gradient);
        gw.copy_from_slice(&gradient[..gw.len()]);
        return;
    }
    assert_eq!((x.len(), gy.len(), gw.len()), (g.input_len(), g.output_len(), g.weight_len()));
    match Line::of(g) {
        Some(line) => in_line(g, line, x, gy, gw),
        None => by_taps(g, x, gy, gw),
    }
}

/// How the pixels of maps lie in one line.
#[derive(Clone, Copy)]
struct Line {
    /// Pixels of zeros after each row, and rows of zeros after each map.
    margin: usize,
    /// Pixels from row to row, and from map to map.
    pitch: usize,
    map: usize,
}

impl Line {
    /// Returns the line of a convolution whose output has the sides of its input, or `None` if copying the
    /// pixels of each tap is faster: it costs about as much as the products with three panels of outputs.
    fn of(g: &Geometry) -> Option<Self> {
        let same = g.stride == 1 && g.kh == g.kw && g.kh == 2 * g.padding + 1;
        let margin = g.padding;
        let pitch = g.w + margin;
        let map = (g.h + margin) * pitch;
        let outputs = g.co / PANEL;
        (same && map * outputs < (outputs + 3) * g.h * g.w).then_some(Self { margin, pitch, map })
    }

    /// Returns the place of the pixel that is read at the first place of the line by the first tap: so many
    /// pixels of zeros lie in front of the first pixel of the input's line.
    fn lead(&self) -> usize {
        self.margin * self.pitch + self.margin
    }

    /// Calls `visit` with the number of each step in a range and the addresses of its 32 pixels. The line
    /// begins with `lead` pixels of zeros, and holds the pixels of `maps`, `[maps][h][w][channels]`.
    fn visit(
        &self,
        (h, w): (usize, usize),
        (maps, channels, zeros): (&[bf16], usize, &[bf16]),
        lead: usize,
        steps: std::ops::Range<usize>,
        mut visit: impl FnMut(usize, &[*const bf16; STEP]),
    ) {
        let first = steps.start * STEP;
        let place = first.saturating_sub(lead);
        let (mut image, mut y, mut x) = (place / self.map, place % self.map / self.pitch, place % self.pitch);
        let mut ahead = lead.saturating_sub(first);
        let images = maps.len() / (h * w * channels);
        for step in steps {
            let mut pixels = [zeros.as_ptr(); STEP];
            let mut at = ahead.min(STEP);
            ahead -= at;
            while at < STEP {
                // The rest of this row of the line: pixels of the map, then zeros.
                let run = (self.pitch - x).min(STEP - at);
                if x < w && y < h && image < images {
                    let row = &maps[((image * h + y) * w + x) * channels..][..(w - x).min(run) * channels];
                    for (pixel, values) in pixels[at..].iter_mut().zip(row.chunks_exact(channels)) {
                        *pixel = values.as_ptr();
                    }
                }
                (at, x) = (at + run, x + run);
                if x == self.pitch {
                    (x, y) = (0, y + 1);
                }
                if y * self.pitch == self.map {
                    (y, image) = (0, image + 1);
                }
            }
            visit(step, &pixels);
        }
    }
}

/// Bytes of both operands that are held at once: they stay in the second-level caches of two cores.
const LINE_BYTES: usize = 1 << 20;
/// Steps of one task that writes operands.
const TASK: usize = 16;

/// Sums all pixels of the line, some maps at a time.
fn in_line(g: &Geometry, line: Line, x: &[bf16], gy: &[bf16], gw: &mut [f32]) {
    let (inputs, outputs) = (g.ci / PANEL, g.co / PANEL);
    let maps = (LINE_BYTES / (line.map * (g.ci + g.co) * size_of::<bf16>())).clamp(1, g.n);
    let zeros = vec![bf16::ZERO; g.ci.max(g.co)];
    let steps = (maps * line.map).div_ceil(STEP);
    // The last tap reads as far behind the last pixel as the first one reads ahead of the first. Rows of
    // channels are an odd number of cache lines apart, so that a tile's rows lie in different sets.
    let row = ((steps + (2 * line.lead()).div_ceil(STEP)) | 1) * STEP;
    let mut left = Aligned::uninitialized(g.ci * row / 2);
    let mut right = Aligned::uninitialized(outputs * steps * TILE);
    let groups = Groups::new(g, line, row);
    let mut sums = Aligned::uninitialized(groups.parts * groups.number * groups.words);
    for first in (0..g.n).step_by(maps) {
        let maps = maps.min(g.n - first);
        let (x, gy) = (part(x, g.h * g.w * g.ci, first, maps), part(gy, g.h * g.w * g.co, first, maps));
        let steps = (maps * line.map).div_ceil(STEP);
        let (to_left, to_right) = (SharedMut::new(&mut left), SharedMut::new(&mut right));
        let right_len = steps * TILE;
        let left_tasks = (row / STEP).div_ceil(TASK);
        team::for_each(left_tasks + steps.div_ceil(TASK), |task| {
            if task < left_tasks {
                let range = task * TASK..(task * TASK + TASK).min(row / STEP);
                line.visit((g.h, g.w), (x, g.ci, &zeros), line.lead(), range, |step, pixels| {
                    for c in 0..inputs {
                        // SAFETY: AMX implies AVX-512; the pixels have `ci` channels; each step has its own
                        // words of each channel's row.
                        unsafe {
                            let to = to_left.at(c * PANEL * row / 2 + step * STEP / 2);
                            pack::transpose_pixels(pixels, c * PANEL, to, row / 2);
                        }
                    }
                });
                return;
            }
            let task = task - left_tasks;
            let range = task * TASK..(task * TASK + TASK).min(steps);
            line.visit((g.h, g.w), (gy, g.co, &zeros), 0, range, |step, pixels| {
                for c in 0..outputs {
                    // SAFETY: as above; each step has its own tile of each panel.
                    unsafe { pack::pair_pixels(pixels, c * PANEL, to_right.at(c * right_len + step * TILE)) };
                }
            });
        });
        team::for_each_chunk(&mut sums, groups.words, |task, sums| {
            let (group, part) = (task % groups.number, task / groups.number);
            let (output, columns) = groups.outputs(group);
            let of_part = steps.div_ceil(groups.parts);
            let end = steps.min((part + 1) * of_part);
            // SAFETY: `fits` has found AMX.
            let tiles = unsafe { Tiles::take() };
            let offsets: [usize; STEPS] = std::array::from_fn(|step| step * LINE);
            let mut add = first > 0;
            if !add && part * of_part >= end {
                sums.fill(0.0);
            }
            // The operands of some steps stay in the first-level cache for all taps.
            for step in (part * of_part..end).step_by(STEPS) {
                let offsets = &offsets[..STEPS.min(end - step)];
                for (turn, sums) in sums.chunks_exact_mut(groups.tiles * TILE).enumerate() {
                    let (start, tile, rows) = groups.operand(group, turn);
                    // SAFETY: rows of all channels, with all pixels that the taps reach, tiles of all outputs,
                    // and room for the sums.
                    unsafe {
                        let start = left.as_ptr().cast::<u8>().add(start + step * LINE);
                        let row = row * size_of::<bf16>();
                        let left = Left { start, tile, pair: 2 * tile, row, offsets };
                        let start = right.as_ptr().add(output * right_len + step * TILE).cast();
                        let right = Right { start, column: right_len * size_of::<f32>() };
                        tiles.multiply(left, right, (rows, columns), sums.as_mut_ptr(), add);
                    }
                }
                add = true;
            }
        });
    }
    let gw = SharedMut::new(gw);
    team::for_each(groups.number, |group| {
        let (output, columns) = groups.outputs(group);
        for turn in 0..groups.turns {
            let (_, _, rows) = groups.operand(group, turn);
            for tile in 0..rows * columns {
                let place = group * groups.words + (turn * groups.tiles + tile) * TILE;
                for channel in 0..PANEL {
                    let mut total = [0.0f32; PANEL];
                    for part in 0..groups.parts {
                        let from = part * groups.number * groups.words + place + channel * PANEL;
                        for (total, value) in total.iter_mut().zip(&sums[from..]) {
                            *total += value;
                        }
                    }
                    let row = groups.row(group, turn, tile / columns) + channel;
                    // SAFETY: each group has its own rows and columns of the gradient.
                    unsafe {
                        let to = gw.at(row * g.co + (output + tile % columns) * PANEL);
                        to.copy_from_nonoverlapping(total.as_ptr(), PANEL);
                    }
                }
            }
        }
    });
}

/// Returns the values of some maps of `len` values.
fn part(values: &[bf16], len: usize, first: usize, maps: usize) -> &[bf16] {
    &values[first * len..][..maps * len]
}

/// The tasks of the product in line. A group is two tiles of input channels by two of output channels, for all
/// taps: a turn for each tap. If there are 16 input channels, a turn is for all taps of a row of the kernel.
struct Groups {
    number: usize,
    /// Parts of the steps that are summed apart, so that narrow layers have enough tasks too. They depend only
    /// on the shape.
    parts: usize,
    turns: usize,
    /// Tiles of a turn, and words of the sums of a group.
    tiles: usize,
    words: usize,
    inputs: usize,
    panels: usize,
    side: usize,
    pitch: usize,
    /// Numbers of a channel's row.
    row: usize,
}

impl Groups {
    fn new(g: &Geometry, line: Line, row: usize) -> Self {
        let (inputs, panels, side) = (g.ci / PANEL, g.co / PANEL, g.kw);
        let number = inputs.div_ceil(2) * panels.div_ceil(2);
        let (turns, rows) = if inputs == 1 { (side, side) } else { (side * side, 2) };
        let tiles = rows * panels.min(2);
        let (parts, words) = (8usize.div_ceil(number), turns * tiles * TILE);
        Self { number, parts, turns, tiles, words, inputs, panels, side, pitch: line.pitch, row }
    }

    /// Returns the first panel of outputs of a group, and their number.
    fn outputs(&self, group: usize) -> (usize, usize) {
        let first = group / self.inputs.div_ceil(2) * 2;
        (first, (self.panels - first).min(2))
    }

    /// Returns the first tile of inputs of a group.
    fn input(&self, group: usize) -> usize {
        group % self.inputs.div_ceil(2) * 2
    }

    /// Returns the byte at which the first left tile of a turn begins, the distance to the next tile, and the
    /// number of tiles.
    fn operand(&self, group: usize, turn: usize) -> (usize, usize, usize) {
        let input = self.input(group);
        let (tap, next, rows) = if self.inputs == 1 {
            (turn * self.side, 1, self.side)
        } else {
            (turn, PANEL * self.row, (self.inputs - input).min(2))
        };
        let start = input * PANEL * self.row + tap / self.side * self.pitch + tap % self.side;
        (start * size_of::<bf16>(), next * size_of::<bf16>(), rows)
    }

    /// Returns the row of the gradient that is the first channel of left tile `i` of a turn.
    fn row(&self, group: usize, turn: usize, i: usize) -> usize {
        let input = self.input(group);
        let (tap, input) = if self.inputs == 1 { (turn * self.side + i, 0) } else { (turn, input + i) };
        (tap * self.inputs + input) * PANEL
    }
}

/// Returns the number of pixels that are summed at once, a multiple of 32: the tiles of the output's gradient
/// stay in the second-level cache. It depends only on the shape, so the sums do not depend on the number of
/// threads.
fn pixels_at_once(g: &Geometry) -> usize {
    let fitting = (1 << 19) / (g.co * size_of::<bf16>());
    fitting.clamp(1024, 8192).min(g.out_rows()).next_multiple_of(STEP)
}

/// Sums the pixels of each tap, copied tap by tap.
fn by_taps(g: &Geometry, x: &[bf16], gy: &[bf16], gw: &mut [f32]) {
    let (sampling, rows) = (Sampling::forward(g), g.out_rows());
    let (outputs, inputs, taps) = (g.co / PANEL, g.ci / PANEL, g.taps());
    // The columns of the product are the input's channels in sixteens, for each tap; a task takes some.
    let columns = taps * inputs;
    let together = if outputs == 1 { 4 } else { 2 };
    let chunk = pixels_at_once(g);
    let chunk_steps = chunk / STEP;
    let mut left = Aligned::uninitialized(outputs * chunk_steps * TILE);
    let mut sources = vec![0usize; taps * chunk];
    let mut sums = Aligned::uninitialized(columns * outputs * TILE);
    let zeros = vec![bf16::ZERO; g.ci.max(g.co)];
    let offsets: [usize; STEPS] = std::array::from_fn(|step| step * TILE_BYTES);
    let gw = SharedMut::new(gw);
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        let steps = count.div_ceil(STEP);
        team::for_each_chunk(&mut left, chunk_steps * TILE, |output, tiles| {
            for (step, tile) in tiles.chunks_exact_mut(TILE).take(steps).enumerate() {
                let pixels = std::array::from_fn(|i| match step * STEP + i {
                    i if i < count => gy[(first + i) * g.co..][..g.co].as_ptr(),
                    _ => zeros.as_ptr(),
                });
                // SAFETY: AMX implies AVX-512; 16 channels of each pixel, and a tile.
                unsafe { pack::transpose_pixels(&pixels, output * PANEL, tile.as_mut_ptr(), PANEL) };
            }
        });
        team::for_each_chunk(&mut sources, chunk, |tap, sources| {
            let mut rows = sampling.rows(first).take(count);
            for source in &mut sources[..steps * STEP] {
                *source = match rows.next().and_then(|row| sampling.source(row, tap)) {
                    Some(pixel) => x[pixel * g.ci..][..g.ci].as_ptr() as usize,
                    None => zeros.as_ptr() as usize,
                };
            }
        });
        team::for_each_chunk(&mut sums, together * outputs * TILE, |task, sums| {
            let here = together.min(columns - task * together);
            with_scratch(here * steps * TILE, |right| {
                for (i, tiles) in right.chunks_exact_mut(steps * TILE).enumerate() {
                    let column = task * together + i;
                    let (tap, channel) = (column / inputs, column % inputs * PANEL);
                    let sources = sources[tap * chunk..].chunks_exact(STEP);
                    for (tile, sources) in tiles.chunks_exact_mut(TILE).zip(sources) {
                        let pixels = std::array::from_fn(|i| sources[i] as *const bf16);
                        // SAFETY: as above.
                        unsafe { pack::pair_pixels(&pixels, channel, tile.as_mut_ptr()) };
                    }
                }
                // SAFETY: `fits` has found AMX.
                let tiles = unsafe { Tiles::take() };
                for step in (0..steps).step_by(STEPS) {
                    let offsets = &offsets[..STEPS.min(steps - step)];
                    let bytes = |tiles: usize| tiles * TILE_BYTES;
                    let add = first > 0 || step > 0;
                    // SAFETY: tiles of all outputs, columns and steps, and room for the sums.
                    unsafe {
                        let start = left.as_ptr().add(step * TILE).cast();
                        let tile = bytes(chunk_steps);
                        let left = Left { start, tile, pair: 2 * tile, row: LINE, offsets };
                        let start = right.as_ptr().add(step * TILE).cast();
                        let right = Right { start, column: bytes(steps) };
                        tiles.multiply(left, right, (outputs, here), sums.as_mut_ptr(), add);
                    }
                }
                if first + count < rows {
                    return;
                }
                for (number, sums) in sums.chunks_exact(TILE).take(outputs * here).enumerate() {
                    let (output, column) = (number / here, task * together + number % here);
                    let row = column / inputs * g.ci + column % inputs * PANEL;
                    // SAFETY: AMX implies AVX-512; each column has its own 16 rows of the gradient.
                    unsafe {
                        pack::transpose_sums(sums.as_ptr(), gw.at(row * g.co + output * PANEL), g.co);
                    }
                }
            });
        });
    }
}
