//! Register tiles: the innermost loops of every convolution path.
//!
//! Channels lie in panels of 16, so that a tile of `MR` rows by `NV` vectors reads one contiguous panel of
//! the right operand and broadcasts single values of the left one. `MR` and `NV` are chosen so that the sums
//! fill the registers: 12 x 2 with 32 registers of 16 lanes, 6 x 2 with 16 registers of 8.

#![expect(
    unsafe_code,
    reason = "the innermost loops walk raw pointers; their callers have sized the buffers"
)]

use crate::simd::Vector;
use half::bf16;

/// Channels of a panel.
pub(crate) const PANEL: usize = 16;

/// How products are taken. The operands of [`panel_product`] and [`outer_product`] are counted in 32-bit
/// words, each of which holds [`Product::PAIR`] neighbors along the sum; results are f32.
pub(crate) trait Product: Copy + Send + Sync + 'static {
    /// Numbers of a word.
    const PAIR: usize;
    /// Words of 16 numbers.
    const ROW: usize = PANEL / Self::PAIR;
    /// Returns `sum + a * b`, over all numbers of each word.
    fn dot<V: Vector>(sum: V, a: V, b: V) -> V;
    /// Writes neighbors along the sum, from number `lane` on, to the words at `row`.
    ///
    /// # Safety
    /// `row` must have room for `lane + LANES` numbers.
    unsafe fn store_along<V: Vector>(value: V, row: *mut f32, lane: usize);
}

/// Products of f32.
#[derive(Clone, Copy)]
pub(crate) struct Single;

impl Product for Single {
    const PAIR: usize = 1;
    #[inline(always)]
    fn dot<V: Vector>(sum: V, a: V, b: V) -> V {
        a.mul_add(b, sum)
    }
    #[inline(always)]
    unsafe fn store_along<V: Vector>(value: V, row: *mut f32, lane: usize) {
        // SAFETY: the caller guarantees it.
        unsafe { value.store(row.add(lane)) }
    }
}

/// Products of bf16 and sums in f32, a pair of products at a time; see [`Vector::dot_pairs`].
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

impl Product for Pairs {
    const PAIR: usize = 2;
    #[inline(always)]
    fn dot<V: Vector>(sum: V, a: V, b: V) -> V {
        sum.dot_pairs(a, b)
    }
    #[inline(always)]
    unsafe fn store_along<V: Vector>(value: V, row: *mut f32, lane: usize) {
        // SAFETY: the caller guarantees it.
        unsafe { value.store_bf16(row.cast::<bf16>().add(lane)) }
    }
}

/// Returns the offset at which vector `v` of a group of panels starts.
#[inline(always)]
const fn lane_offset<V: Vector>(v: usize, panel_stride: usize) -> usize {
    v * V::LANES / PANEL * panel_stride + v * V::LANES % PANEL
}

/// Calls `$tile::<V, MR, NV>` (or `$tile::<V, P, MR, NV>`) over `rows` rows, widest tiles first, with `i` the
/// first row of each.
macro_rules! for_row_tiles {
    ($v:ty $(, $p:ident)?; $nv:literal, $rows:expr, |$i:ident| $tile:ident($($arg:expr),* $(,)?)) => {{
        let rows = $rows;
        let mut $i = 0;
        if <$v>::LANES == 16 {
            while rows - $i >= 12 { unsafe { $tile::<$v, $($p,)? 12, $nv>($($arg),*) }; $i += 12; }
            while rows - $i >= 8 { unsafe { $tile::<$v, $($p,)? 8, $nv>($($arg),*) }; $i += 8; }
        } else {
            while rows - $i >= 6 { unsafe { $tile::<$v, $($p,)? 6, $nv>($($arg),*) }; $i += 6; }
        }
        while rows - $i >= 4 { unsafe { $tile::<$v, $($p,)? 4, $nv>($($arg),*) }; $i += 4; }
        while rows - $i >= 2 { unsafe { $tile::<$v, $($p,)? 2, $nv>($($arg),*) }; $i += 2; }
        while rows - $i >= 1 { unsafe { $tile::<$v, $($p,)? 1, $nv>($($arg),*) }; $i += 1; }
    }};
}

/// The left operand of an indirect product: for each tap, a pointer to the `depth` values of each row.
#[derive(Clone, Copy)]
pub(crate) struct Indirect {
    pub(crate) pointers: *const *const f32,
    pub(crate) pointer_stride: usize,
    pub(crate) taps: usize,
    pub(crate) depth: usize,
}

/// Computes `out[row][panel] = sum over taps and depth of left * panel`, for `rows` rows and `panels` panels
/// of `[taps * depth][16]` values.
///
/// # Safety
/// Every pointer of `left` must be readable for `depth` values, `right` for `panels * taps * depth * 16`, and
/// each of the `rows` pointers at `out` must be writable for `panels * 16`.
#[inline(always)]
pub(crate) unsafe fn indirect_product<V: Vector>(
    rows: usize,
    panels: usize,
    left: Indirect,
    right: *const f32,
    out: *const *mut f32,
) {
    let panel_stride = left.taps * left.depth * PANEL;
    let mut j = 0;
    while j < panels {
        // SAFETY: rows and panels stay below the counts that the caller guarantees.
        let panel = unsafe { right.add(j * panel_stride) };
        if V::LANES == PANEL && j + 1 == panels {
            for_row_tiles!(V; 1, rows, |i| indirect_tile(
                left,
                i,
                panel,
                panel_stride,
                out.add(i),
                j * PANEL
            ));
            j += 1;
        } else {
            for_row_tiles!(V; 2, rows, |i| indirect_tile(
                left,
                i,
                panel,
                panel_stride,
                out.add(i),
                j * PANEL
            ));
            j += 2 * V::LANES / PANEL;
        }
    }
}

#[inline(always)]
unsafe fn indirect_tile<V: Vector, const MR: usize, const NV: usize>(
    left: Indirect,
    first: usize,
    mut panel: *const f32,
    panel_stride: usize,
    out: *const *mut f32,
    column: usize,
) {
    // SAFETY: the caller gives the guarantees of `indirect_product`.
    unsafe {
        let mut sums = [[V::zero(); NV]; MR];
        for tap in 0..left.taps {
            let rows: [*const f32; MR] =
                std::array::from_fn(|i| *left.pointers.add(tap * left.pointer_stride + first + i));
            for k in 0..left.depth {
                let b: [V; NV] =
                    std::array::from_fn(|v| V::load(panel.add(lane_offset::<V>(v, panel_stride))));
                panel = panel.add(PANEL);
                for i in 0..MR {
                    let a = V::splat(*rows[i].add(k));
                    for v in 0..NV {
                        sums[i][v] = a.mul_add(b[v], sums[i][v]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store((*out.add(i)).add(column + v * V::LANES));
            }
        }
    }
}

/// Computes `out = left * right`, where all three lie in panels of 16 columns:
/// `left[depth / 16][left_rows][ROW]` and `right[panels][depth / PAIR][16]` words,
/// `out[panels][left_rows][16]`. Only the first `rows` rows are computed.
///
/// # Safety
/// The buffers must hold that many values.
#[inline(always)]
pub(crate) unsafe fn panel_product<V: Vector, P: Product>(
    (rows, left_rows): (usize, usize),
    depth: usize,
    panels: usize,
    left: *const f32,
    right: *const f32,
    out: *mut f32,
) {
    let (left_stride, out_stride) = (left_rows * P::ROW, left_rows * PANEL);
    let right_stride = depth * P::ROW;
    let mut j = 0;
    while j < panels {
        // SAFETY: the caller guarantees it.
        let (right, out) = unsafe { (right.add(j * right_stride), out.add(j * out_stride)) };
        if V::LANES == PANEL && j + 1 == panels {
            for_row_tiles!(V, P; 1, rows, |i| panel_tile(
                depth,
                (left.add(i * P::ROW), left_stride),
                (right, right_stride),
                (out.add(i * PANEL), out_stride)
            ));
            j += 1;
        } else {
            for_row_tiles!(V, P; 2, rows, |i| panel_tile(
                depth,
                (left.add(i * P::ROW), left_stride),
                (right, right_stride),
                (out.add(i * PANEL), out_stride)
            ));
            j += 2 * V::LANES / PANEL;
        }
    }
}

#[inline(always)]
unsafe fn panel_tile<V: Vector, P: Product, const MR: usize, const NV: usize>(
    depth: usize,
    (left, left_stride): (*const f32, usize),
    (mut right, right_stride): (*const f32, usize),
    (out, out_stride): (*mut f32, usize),
) {
    // SAFETY: the caller gives the guarantees of `panel_product`.
    unsafe {
        let mut sums = [[V::zero(); NV]; MR];
        for group in 0..depth / PANEL {
            let left = left.add(group * left_stride);
            for k in 0..P::ROW {
                let b: [V; NV] =
                    std::array::from_fn(|v| V::load(right.add(lane_offset::<V>(v, right_stride))));
                right = right.add(PANEL);
                for i in 0..MR {
                    let a = V::splat(*left.add(i * P::ROW + k));
                    for v in 0..NV {
                        sums[i][v] = P::dot(sums[i][v], a, b[v]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(out.add(i * PANEL + lane_offset::<V>(v, out_stride)));
            }
        }
    }
}

/// Computes `out = leftᵀ * right`, or `out += leftᵀ * right`, for 16 columns of `left` and `panels` panels of
/// `right`, over `rows` rows of words.
///
/// `left` is `[rows][16]`; panel `j` of `right` starts at `right + j * right_stride` and is `[rows][16]`; row
/// `r`, panel `j` of `out` starts at `out + r * row_stride + j * panel_stride`.
///
/// # Safety
/// The buffers must hold that many values.
#[inline(always)]
pub(crate) unsafe fn outer_product<V: Vector, P: Product>(
    rows: usize,
    panels: usize,
    left: *const f32,
    (right, right_stride): (*const f32, usize),
    (out, row_stride, panel_stride): (*mut f32, usize, usize),
    add: bool,
) {
    macro_rules! tiles {
        ($nv:literal, $right:expr, $out:expr, [$($mr:literal),*]) => {{
            let mut first = 0;
            $(
                unsafe {
                    outer_tile::<V, P, $mr, $nv>(
                        rows, left.add(first), ($right, right_stride),
                        ($out.add(first * row_stride), row_stride, panel_stride), add,
                    );
                }
                first += $mr;
            )*
            debug_assert_eq!(first, PANEL);
        }};
    }
    let mut j = 0;
    while j < panels {
        // SAFETY: the caller guarantees it.
        let (right, out) = unsafe { (right.add(j * right_stride), out.add(j * panel_stride)) };
        if V::LANES == PANEL {
            if j + 1 == panels {
                tiles!(1, right, out, [16]);
                j += 1;
            } else {
                tiles!(2, right, out, [8, 8]);
                j += 2;
            }
        } else {
            tiles!(2, right, out, [6, 6, 4]);
            j += 1;
        }
    }
}

#[inline(always)]
unsafe fn outer_tile<V: Vector, P: Product, const MR: usize, const NV: usize>(
    rows: usize,
    left: *const f32,
    (right, right_stride): (*const f32, usize),
    (out, row_stride, panel_stride): (*mut f32, usize, usize),
    add: bool,
) {
    // SAFETY: the caller gives the guarantees of `outer_product`.
    unsafe {
        let mut sums = [[V::zero(); NV]; MR];
        for r in 0..rows {
            let b: [V; NV] =
                std::array::from_fn(|v| V::load(right.add(r * PANEL + lane_offset::<V>(v, right_stride))));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = V::splat(*left.add(r * PANEL + i));
                for v in 0..NV {
                    sums[v] = P::dot(sums[v], a, b[v]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = out.add(i * row_stride + lane_offset::<V>(v, panel_stride));
                if add { V::load(to).add(*sum).store(to) } else { sum.store(to) }
            }
        }
    }
}
