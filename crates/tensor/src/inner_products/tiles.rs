//! Inner products of f32 rows by tiles of bf16 (AMX).
//!
//! Equation: each number is split into two, `x = h + l + e` with `h = bf16(x)` and `l = bf16(x - h)`, so that
//! `|e| <= 2^-17 |x|` and `|l| <= 2^-8 |x|`. Then `q · g` is taken as `Σ h h' + Σ h l' + Σ l h'`; what is left
//! out is at most `2^-16 + 2 * 2^-17 = 2^-15` of `|q| |g|` (Cauchy and Schwarz). The sum in f32 of three times as
//! many products adds the error of its roundings.
//!
//! Numbers below f32's smallest normal number (2^-126) count as zero. So that this is far below the other errors,
//! a gallery or a query whose largest number is not between 2^-40 and 2^40 is multiplied by a power of two, and
//! its products are divided by it.
//!
//! Shapes: queries (n, d), rows (m, d), products (n, m).

use super::rounding;
use crate::conv2d::PANEL;
use crate::memory::{Aligned, with_scratch};
use crate::simd::amx::{LINE, Left, ROWS, Right, STEP, TILE, TILE_BYTES, Tiles, narrow, transposed};
use crate::team;
use std::arch::x86_64::{
    _mm256_storeu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};

/// Steps that are taken at once: two tiles of rows and two of columns then stay in the first-level cache.
const STEPS: usize = 8;

/// Bounds the error of a product of two rows of `dim` values, relative to the product of their lengths. The sum
/// of the absolute products is at most `(1 + 2^-6) |q| |g|`.
pub(super) fn error(dim: usize) -> f64 {
    let split = f64::from(2.0f32.powi(-15));
    split + (1.0 + f64::from(2.0f32.powi(-6))) * rounding(3 * dim.next_multiple_of(STEP))
}

/// Rows split and packed as right operands: for each panel of 16 rows, the tiles of `h`, then those of `l`.
#[derive(Debug)]
pub(super) struct TiledRows {
    tiles: Aligned,
    dim: usize,
    /// Steps of one half: `h` or `l`.
    steps: usize,
    /// The rows were multiplied by 2 to this power.
    exponent: i32,
}

impl TiledRows {
    /// Packs `rows` rows of `dim` values; `fill(row, to)` writes one row.
    pub(super) fn new(rows: usize, dim: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let steps = dim.div_ceil(STEP);
        let panels = rows.div_ceil(PANEL);
        let in_panel = |panel: usize| panel * PANEL..rows.min((panel + 1) * PANEL);
        let largest = team::map(panels, |panel| {
            let mut row = vec![0.0; dim];
            in_panel(panel).fold(0.0f32, |largest, number| {
                fill(number, &mut row);
                largest.max(magnitude(&row))
            })
        });
        let exponent = exponent(largest.into_iter().fold(0.0, f32::max));
        let mut tiles = Aligned::uninitialized(panels * 2 * steps * TILE);
        team::for_each_chunk(&mut tiles, 2 * steps * TILE, |panel, tiles| {
            let width = steps * STEP;
            let mut values = Aligned::uninitialized(PANEL * width);
            values.fill(0.0);
            for (number, row) in in_panel(panel).zip(values.chunks_exact_mut(width)) {
                fill(number, &mut row[..dim]);
                scale(&mut row[..dim], exponent);
            }
            // Left tiles, row by row, and then their transposes.
            let mut halves = Aligned::uninitialized(tiles.len());
            for (number, row) in values.chunks_exact(width).enumerate() {
                // SAFETY: AMX implies AVX512-BF16; rows of whole steps, and a row of each tile.
                unsafe { split(row, halves[number * LINE / size_of::<f32>()..].as_mut_ptr()) };
            }
            for (from, to) in halves.chunks_exact(TILE).zip(tiles.chunks_exact_mut(TILE)) {
                // SAFETY: AMX implies AVX-512; two tiles.
                unsafe { transpose(from, to) };
            }
        });
        Self { tiles, dim, steps, exponent }
    }

    /// Writes the products of `queries` with `width` rows from panel `first` on.
    pub(super) fn products(&self, queries: &[f32], first: usize, width: usize, out: &mut [f32]) {
        let Self { dim, steps, .. } = *self;
        let count = queries.len() / dim;
        if count == 0 || width == 0 {
            return;
        }
        let row_tiles = count.div_ceil(ROWS);
        // A row tile has the tiles of `h`, then those of `l`.
        let tile = 2 * steps * TILE;
        let padded = steps * STEP;
        let offset = |half: usize, step: usize| (half * steps + step) * TILE_BYTES;
        let (low, high): (Vec<usize>, Vec<usize>) =
            (0..steps).map(|step| (offset(1, step), offset(0, step))).unzip();
        with_scratch(row_tiles * tile + row_tiles * 2 * TILE + padded, |scratch| {
            let (left, rest) = scratch.split_at_mut(row_tiles * tile);
            let (sums, row) = rest.split_at_mut(row_tiles * 2 * TILE);
            let mut exponents = Vec::with_capacity(count);
            for (number, query) in queries.chunks_exact(dim).enumerate() {
                let exponent = exponent(magnitude(query));
                row[..dim].copy_from_slice(query);
                row[dim..].fill(0.0);
                scale(&mut row[..dim], exponent);
                exponents.push(-exponent - self.exponent);
                let to = number / ROWS * tile + number % ROWS * LINE / size_of::<f32>();
                // SAFETY: AMX implies AVX512-BF16; a row of whole steps, and a row of each tile.
                unsafe { split(row, left[to..].as_mut_ptr()) };
            }
            // SAFETY: rows are packed in tiles only where there is AMX (`by_tiles`).
            let tiles = unsafe { Tiles::take() };
            for panel in (0..width / PANEL).step_by(2) {
                let columns = (width / PANEL - panel).min(2);
                let right = self.tiles[(first + panel) * tile..].as_ptr().cast::<u8>();
                let mut add = false;
                // The query's l and the row's h; then its h and both halves of the row.
                for (half, of_left) in [(0, &low), (0, &high), (1, &high)] {
                    for (part, offsets) in of_left.chunks(STEPS).enumerate() {
                        let (start, tile) = (left.as_ptr().cast(), tile * size_of::<f32>());
                        let operand = Left { start, tile, pair: 2 * tile, row: LINE, offsets };
                        // SAFETY: tiles of all rows, columns and steps, and room for the sums. Rows of the
                        // last tile that there is no query for have any numbers, and their sums are not read.
                        unsafe {
                            let start = right.add(offset(half, part * STEPS));
                            let right = Right { start, column: tile };
                            tiles.multiply(operand, right, (row_tiles, columns), sums.as_mut_ptr(), add);
                        }
                        add = true;
                    }
                }
                for (number, (out, &exponent)) in out.chunks_exact_mut(width).zip(&exponents).enumerate() {
                    for column in 0..columns {
                        let from = (number / ROWS * columns + column) * TILE + number % ROWS * PANEL;
                        let to = &mut out[(panel + column) * PANEL..][..PANEL];
                        to.copy_from_slice(&sums[from..][..PANEL]);
                        if exponent != 0 {
                            to.iter_mut().for_each(|value| *value = scaled(*value, exponent));
                        }
                    }
                }
            }
        });
    }
}

/// Returns the largest absolute value; NaN is passed over.
fn magnitude(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()))
}

/// Returns the power of two that brings `largest` near 1; zero if it is near enough, zero or infinite.
fn exponent(largest: f32) -> i32 {
    let range = 2.0f32.powi(-40)..2.0f32.powi(40);
    if largest == 0.0 || largest.is_infinite() || range.contains(&largest) {
        return 0;
    }
    -f64::from(largest).log2() as i32
}

/// Multiplies a number by a power of two.
fn scaled(value: f32, exponent: i32) -> f32 {
    (f64::from(value) * 2.0f64.powi(exponent)) as f32
}

/// Multiplies a row by a power of two.
fn scale(row: &mut [f32], exponent: i32) {
    if exponent != 0 {
        row.iter_mut().for_each(|value| *value = scaled(*value, exponent));
    }
}

/// Writes one row of left tiles, a tile behind the other: those of `h`, then those of `l`.
///
/// # Safety
/// The processor must have AVX512-BF16; the row must be whole steps, and `to` must hold as many tiles twice.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split(row: &[f32], to: *mut f32) {
    let steps = row.len() / STEP;
    for step in 0..steps {
        for half in 0..2 {
            // SAFETY: half a step of the row, and of a row of each tile.
            unsafe {
                let from = row.as_ptr().add(step * STEP + half * ROWS);
                let high = narrow(from);
                let wide = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high)));
                let mut rest = [0.0f32; 16];
                _mm512_storeu_ps(rest.as_mut_ptr(), _mm512_sub_ps(_mm512_loadu_ps(from), wide));
                let at = step * TILE + half * ROWS / 2;
                _mm256_storeu_si256(to.add(at).cast(), high);
                _mm256_storeu_si256(to.add(steps * TILE + at).cast(), narrow(rest.as_ptr()));
            }
        }
    }
}

/// Writes the transpose of a tile of 16 x 16 words.
///
/// # Safety
/// The processor must have AVX-512; both must hold a tile.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(from: &[f32], to: &mut [f32]) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let rows = std::array::from_fn(|i| _mm512_loadu_si512(from.as_ptr().add(i * ROWS).cast()));
        for (i, row) in transposed(rows).into_iter().enumerate() {
            _mm512_storeu_si512(to.as_mut_ptr().add(i * ROWS).cast(), row);
        }
    }
}
