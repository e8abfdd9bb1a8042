//! The tiles of AMX: permission, products, and the layout of their operands.
//!
//! The numbers along a sum come in steps of 32 bf16. A left tile is `[16 rows][32]`, a right one
//! `[16 pairs][16 columns][2]`. Seen as 32-bit words, each of two numbers that are neighbors along the sum, one
//! is the other's transpose.

mod permission;
mod tiles;

use half::bf16;
pub(super) use permission::is_permitted;
use std::arch::x86_64::{
    __m256bh, __m256i, __m512i, _mm512_cvtneps_pbh, _mm512_loadu_ps, _mm512_shuffle_i32x4,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
pub(crate) use tiles::{Left, Right, Tiles};

/// Numbers along a sum that a tile product takes.
pub(crate) const STEP: usize = 32;
/// Words of a tile.
pub(crate) const TILE: usize = 256;
/// Bytes of a tile.
pub(crate) const TILE_BYTES: usize = TILE * size_of::<f32>();
/// Bytes of a row of a tile: the numbers of one step.
pub(crate) const LINE: usize = STEP * size_of::<bf16>();
/// Rows of a tile.
pub(crate) const ROWS: usize = 16;

/// Returns the nearest bf16 of 16 numbers.
///
/// # Safety
/// The processor must have AVX512-BF16, and `p` must be readable for 16 numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn narrow(p: *const f32) -> __m256i {
    // SAFETY: the caller guarantees 16 numbers.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(p))) }
}

/// Transposes 16 x 16 words.
///
/// # Safety
/// The processor must have AVX-512. This is inlined into functions that are compiled with it, so that the rows
/// stay in registers.
#[inline(always)]
pub(crate) unsafe fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller guarantees AVX-512.
    unsafe {
        // After two steps, vector k of group g holds columns k, k + 4, k + 8 and k + 12 of rows 4 g to 4 g + 3.
        let mut groups = [[rows[0]; 4]; 4];
        for (group, rows) in groups.iter_mut().zip(rows.chunks_exact(4)) {
            let (low, high) =
                (_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
            let (low_2, high_2) =
                (_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
            *group = [
                _mm512_unpacklo_epi64(low, low_2),
                _mm512_unpackhi_epi64(low, low_2),
                _mm512_unpacklo_epi64(high, high_2),
                _mm512_unpackhi_epi64(high, high_2),
            ];
        }
        let mut columns = rows;
        for k in 0..4 {
            let [a, b, c, d] = groups.map(|group| group[k]);
            let (even, even_2) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
            let (odd, odd_2) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
            columns[k] = _mm512_shuffle_i32x4::<0x88>(even, even_2);
            columns[k + 4] = _mm512_shuffle_i32x4::<0x88>(odd, odd_2);
            columns[k + 8] = _mm512_shuffle_i32x4::<0xdd>(even, even_2);
            columns[k + 12] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_2);
        }
        columns
    }
}
