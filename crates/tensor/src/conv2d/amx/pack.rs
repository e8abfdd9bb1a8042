//! The operands of tile products, in the order in which the tiles read them; see `simd::amx` for the layout.

use crate::conv2d::geometry::Geometry;
use crate::conv2d::tiles::PANEL;
use crate::memory::Aligned;
use crate::simd::amx::{STEP, TILE, narrow, transposed};
use crate::team;
use half::bf16;
use std::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_cvtepu16_epi32, _mm512_loadu_si512, _mm512_or_si512,
    _mm512_setzero_si512, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_zextsi256_si512,
};

/// Weights as the right operand: `[outputs / 16][steps]` tiles.
pub(super) struct Weights {
    pub(super) tiles: Aligned,
    pub(super) steps: usize,
    pub(super) outputs: usize,
}

impl Weights {
    /// Returns two panels of outputs, or one if there is no other: their number, the address of the first one's
    /// tiles, and the distance in bytes to those of the second one.
    pub(super) fn columns(&self, panel: usize) -> (usize, *const u8, usize) {
        let column = self.steps * TILE;
        let count = (self.outputs / PANEL - panel).min(2);
        (count, self.tiles[panel * column..].as_ptr().cast(), column * size_of::<f32>())
    }
}

/// Packs the weights of some taps; the input channels of the taps are summed. A missing tap has weights of
/// zero.
pub(super) fn weights(g: &Geometry, values: &[f32], taps: &[Option<usize>]) -> Weights {
    let (ci, outputs) = (g.ci, g.co);
    let steps = (taps.len() * ci).div_ceil(STEP);
    let mut tiles = Aligned::uninitialized(outputs / PANEL * steps * TILE);
    team::for_each_chunk(&mut tiles, (steps * TILE).max(1), |j, tiles| {
        let mut pairs = tiles.chunks_exact_mut(PANEL);
        for tap in taps {
            for i in (0..ci).step_by(2) {
                let words = pairs.next().expect("a row of a tile for each pair");
                let Some(tap) = tap else {
                    words.fill(0.0);
                    continue;
                };
                let row = |i: usize| &values[(tap * ci + i) * outputs + j * PANEL..][..PANEL];
                // SAFETY: AMX implies AVX512-BF16; rows of 16 weights, and 16 words.
                unsafe { pair_weights(row(i), row(i + 1), words) };
            }
        }
        pairs.for_each(|rest| rest.fill(0.0));
    });
    Weights { tiles, steps, outputs }
}

/// Packs the weights of some taps for the input gradient: the output channels of the taps are summed.
pub(super) fn turned_weights(g: &Geometry, values: &[f32], taps: &[Option<(usize, usize)>]) -> Weights {
    let steps = (taps.len() * g.co).div_ceil(STEP);
    let mut tiles = Aligned::uninitialized(g.ci / PANEL * steps * TILE);
    team::for_each_chunk(&mut tiles, (steps * TILE).max(1), |j, tiles| {
        // Half tiles: eight pairs, since channels come in sixteens.
        let mut halves = tiles.chunks_exact_mut(TILE / 2);
        for tap in taps {
            for o in (0..g.co).step_by(PANEL) {
                let words = halves.next().expect("half a tile for 16 channels of a tap");
                let Some((ky, kx)) = tap else {
                    words.fill(0.0);
                    continue;
                };
                let first = ((ky * g.kw + kx) * g.ci + j * PANEL) * g.co + o;
                // SAFETY: AMX implies AVX512-BF16; 16 rows of 16 weights, `co` apart, and half a tile.
                unsafe { turn_weights(&values[first..][..15 * g.co + PANEL], g.co, words) };
            }
        }
        halves.for_each(|rest| rest.fill(0.0));
    });
    Weights { tiles, steps, outputs: g.ci }
}

/// Writes 16 words of the nearest bf16 of two rows of weights.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pair_weights(first: &[f32], second: &[f32], words: &mut [f32]) {
    // SAFETY: the caller guarantees 16 values in each.
    unsafe {
        let [first, second] = [first, second].map(|row| _mm512_cvtepu16_epi32(narrow(row.as_ptr())));
        let pairs = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
        _mm512_storeu_si512(words.as_mut_ptr().cast(), pairs);
    }
}

/// Writes eight pairs of 16 columns: the rows of `values` are the columns.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn turn_weights(values: &[f32], row: usize, words: &mut [f32]) {
    // SAFETY: the caller guarantees 16 rows of 16 numbers, and eight rows of 16 words.
    unsafe {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (i, to) in rows.iter_mut().enumerate() {
            *to = _mm512_zextsi256_si512(narrow(values.as_ptr().add(i * row)));
        }
        for (pair, row) in transposed(rows).into_iter().take(8).enumerate() {
            _mm512_storeu_si512(words.as_mut_ptr().add(pair * PANEL).cast(), row);
        }
    }
}

/// Writes the transpose of 16 x 16 sums to rows that are `row` apart.
///
/// # Safety
/// The processor must have AVX-512; `sums` must hold 256 numbers, and `to` 16 rows of 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose_sums(sums: *const f32, to: *mut f32, row: usize) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let rows = std::array::from_fn(|i| _mm512_loadu_si512(sums.add(i * PANEL).cast()));
        for (i, values) in transposed(rows).into_iter().enumerate() {
            _mm512_storeu_si512(to.add(i * row).cast(), values);
        }
    }
}

/// Writes a right tile of 32 pixels: 16 of their channels, from `channel` on.
///
/// # Safety
/// The processor must have AVX-512; each address must be readable for `channel + 16` numbers, and `tile` must
/// hold a tile.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pair_pixels(pixels: &[*const bf16; STEP], channel: usize, tile: *mut f32) {
    // SAFETY: the caller guarantees it.
    unsafe {
        for (i, row) in paired(pixels, channel).into_iter().enumerate() {
            _mm512_storeu_si512(tile.add(i * PANEL).cast(), row);
        }
    }
}

/// Writes a left tile whose rows are 16 channels, from `channel` on, and whose 32 columns are pixels. Its rows
/// are `row` words apart.
///
/// # Safety
/// As for [`pair_pixels`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose_pixels(
    pixels: &[*const bf16; STEP],
    channel: usize,
    tile: *mut f32,
    row: usize,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        for (i, values) in transposed(paired(pixels, channel)).into_iter().enumerate() {
            _mm512_storeu_si512(tile.add(i * row).cast(), values);
        }
    }
}

/// Returns words of two neighboring pixels each, for 16 channels.
///
/// # Safety
/// As for [`pair_pixels`], into which this is inlined.
#[inline(always)]
unsafe fn paired(pixels: &[*const bf16; STEP], channel: usize) -> [__m512i; 16] {
    // SAFETY: the caller guarantees AVX-512, and 16 numbers behind each address.
    unsafe {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (row, pair) in rows.iter_mut().zip(pixels.chunks_exact(2)) {
            let half = |p: *const bf16| _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.add(channel).cast()));
            *row = _mm512_or_si512(half(pair[0]), _mm512_slli_epi32::<16>(half(pair[1])));
        }
        rows
    }
}
