//! Direct convolution: matrix products that read rows through pointers, so that no patch is copied.
//!
//! The output (for the input gradient: the input) is cut into blocks of [`BLOCK`] pixels. For each block and
//! kernel tap a table holds the address of each row of channels; taps in the padding point at a row of zeros.

#![expect(
    unsafe_code,
    reason = "tables of row pointers are what makes this fast; offsets come from Geometry"
)]

use super::geometry::Geometry;
use super::im2col;
use super::sampling::Sampling;
use super::tiles::{Indirect, PANEL, Single, indirect_product, outer_product};
use crate::memory::{Aligned, uninitialized};
use crate::simd::{Kernel, Number, SharedMut, Vector, dispatch};
use crate::storage::{Convert, Scalar, convert_into, converted};
use crate::team;
use half::bf16;
use std::borrow::Cow;

/// Output pixels of one task: eight tiles of 12 rows.
const BLOCK: usize = 96;
/// Rows that the weight gradient sums at once; 256 rows of two 16-channel panels stay in the first-level
/// cache.
const SUM_ROWS: usize = 256;

/// Returns whether the direct forward pass takes this shape.
pub(crate) fn forward_fits(g: &Geometry) -> bool {
    g.co.is_multiple_of(PANEL)
}

/// Returns whether the direct input gradient takes this shape.
pub(crate) fn input_gradient_fits(g: &Geometry) -> bool {
    g.ci.is_multiple_of(PANEL)
}

/// Returns whether the direct weight gradient takes this shape.
pub(crate) fn weight_gradient_fits(g: &Geometry) -> bool {
    g.co.is_multiple_of(PANEL) && (g.ci.is_multiple_of(PANEL) || g.ci < PANEL)
}

struct IndirectBlock<'a> {
    rows: usize,
    panels: usize,
    left: Indirect,
    right: &'a [f32],
    out: *const *mut f32,
}

impl Kernel for IndirectBlock<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: `products` built the tables for exactly these rows, and the panels hold taps * depth rows
        // each.
        unsafe { indirect_product::<V>(self.rows, self.panels, self.left, self.right.as_ptr(), self.out) }
    }
}

/// The rows of one block's product: offsets in the input, and in the output.
pub(crate) struct Rows {
    /// `None` reads zeros.
    sources: Vec<Option<usize>>,
    targets: [usize; BLOCK],
}

/// Numbers that the direct kernels read and write.
pub(crate) trait Direct: Number + Scalar {
    /// Returns the numbers in f32.
    fn widened(values: &[Self]) -> Cow<'_, [f32]>;

    /// Returns the numbers if they are bf16.
    fn as_bf16(values: &[Self]) -> Option<&[bf16]>;

    /// Does the same as [`Direct::as_bf16`] for numbers to write.
    fn as_bf16_mut(values: &mut [Self]) -> Option<&mut [bf16]>;

    /// Calls `run` with the addresses of the block's rows in f32: of `depth` channels at each source.
    fn with_sources(rows: &Rows, input: (&[Self], usize), run: impl FnOnce(&[*const f32]));

    /// Calls `run` with the addresses to which it writes the block's `count` rows in f32: `outputs` channels
    /// at each target.
    fn with_targets(rows: &Rows, count: usize, out: (SharedMut<Self>, usize), run: impl FnOnce(&[*mut f32]));
}

impl Direct for f32 {
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }

    fn as_bf16(_: &[Self]) -> Option<&[bf16]> {
        None
    }

    fn as_bf16_mut(_: &mut [Self]) -> Option<&mut [bf16]> {
        None
    }

    fn with_sources(rows: &Rows, (input, depth): (&[Self], usize), run: impl FnOnce(&[*const f32])) {
        let zeros = vec![0.0; depth];
        let address =
            |source: &Option<usize>| source.map_or(zeros.as_ptr(), |at| input[at..at + depth].as_ptr());
        run(&rows.sources.iter().map(address).collect::<Vec<_>>());
    }

    fn with_targets(rows: &Rows, count: usize, (out, _): (SharedMut, usize), run: impl FnOnce(&[*mut f32])) {
        // SAFETY: each pixel has its own row of the output.
        run(&rows.targets[..count].iter().map(|at| unsafe { out.at(*at) }).collect::<Vec<_>>());
    }
}

/// Rows are widened before the products of a block and narrowed after them. They lie in the second-level
/// cache, so this costs little beside the products.
impl Direct for bf16 {
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Owned(converted(values))
    }

    fn as_bf16(values: &[Self]) -> Option<&[bf16]> {
        Some(values)
    }

    fn as_bf16_mut(values: &mut [Self]) -> Option<&mut [bf16]> {
        Some(values)
    }

    fn with_sources(rows: &Rows, (input, depth): (&[Self], usize), run: impl FnOnce(&[*const f32])) {
        let mut wide = Aligned::uninitialized((rows.sources.len() + 1) * depth);
        let (zeros, values) = wide.split_at_mut(depth);
        zeros.fill(0.0);
        dispatch(Widen { sources: &rows.sources, input, depth, to: &mut *values });
        let address = |(source, row): (&Option<usize>, &[f32])| match source {
            Some(_) => row.as_ptr(),
            None => zeros.as_ptr(),
        };
        let addresses: Vec<_> = rows.sources.iter().zip(values.chunks_exact(depth)).map(address).collect();
        run(&addresses);
    }

    fn with_targets(
        rows: &Rows,
        count: usize,
        (out, outputs): (SharedMut<Self>, usize),
        run: impl FnOnce(&[*mut f32]),
    ) {
        let mut sums = Aligned::uninitialized(count * outputs);
        run(&sums.chunks_exact_mut(outputs).map(<[f32]>::as_mut_ptr).collect::<Vec<_>>());
        dispatch(Narrow { sums: &sums, outputs, targets: &rows.targets, out });
    }
}

/// Widens the rows at the sources, each to its own row.
struct Widen<'a> {
    sources: &'a [Option<usize>],
    input: &'a [bf16],
    depth: usize,
    to: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (source, to) in self.sources.iter().zip(self.to.chunks_exact_mut(self.depth)) {
            if let Some(at) = *source {
                Convert { from: &self.input[at..at + self.depth], to }.run::<V>();
            }
        }
    }
}

/// Narrows rows of sums to their targets.
struct Narrow<'a> {
    sums: &'a [f32],
    outputs: usize,
    targets: &'a [usize],
    out: SharedMut<bf16>,
}

impl Kernel for Narrow<'_> {
    const BF16: bool = true;

    #[inline(always)]
    fn run<V: Vector>(self) {
        for (from, at) in self.sums.chunks_exact(self.outputs).zip(self.targets) {
            // SAFETY: each pixel has its own row of the output.
            let to = unsafe { std::slice::from_raw_parts_mut(self.out.at(*at), self.outputs) };
            Convert { from, to }.run::<V>();
        }
    }
}

/// Computes for each row of `sampling` the sum over its taps of the input's channels times the panels.
fn products<X: Direct, Y: Direct>(
    sampling: &Sampling,
    (input, depth): (&[X], usize),
    (panels, count): (&[f32], usize),
    out: SharedMut<Y>,
) {
    let (rows, taps) = (sampling.len(), sampling.taps.len());
    team::for_each(rows.div_ceil(BLOCK), |block| {
        let first = block * BLOCK;
        let block_rows = BLOCK.min(rows - first);
        let mut at = Rows { sources: vec![None; taps * BLOCK], targets: [0; BLOCK] };
        for (i, row) in sampling.rows(first).take(block_rows).enumerate() {
            at.targets[i] = sampling.target(row) * count * PANEL;
            for tap in 0..taps {
                at.sources[tap * BLOCK + i] = sampling.source(row, tap).map(|pixel| pixel * depth);
            }
        }
        X::with_sources(&at, (input, depth), |sources| {
            Y::with_targets(&at, block_rows, (out, count * PANEL), |targets| {
                dispatch(IndirectBlock {
                    rows: block_rows,
                    panels: count,
                    left: Indirect { pointers: sources.as_ptr(), pointer_stride: BLOCK, taps, depth },
                    right: panels,
                    out: targets.as_ptr(),
                });
            });
        });
    });
}

/// Computes `y = conv(x, w)`.
pub(crate) fn forward<X: Direct>(g: &Geometry, x: &[X], w: &[f32], y: &mut [X]) {
    let depth = g.taps() * g.ci;
    let mut panels = Aligned::uninitialized(g.weight_len());
    team::for_each_chunk(&mut panels, depth * PANEL, |j, panel| {
        for (k, to) in panel.chunks_exact_mut(PANEL).enumerate() {
            to.copy_from_slice(&w[k * g.co + j * PANEL..][..PANEL]);
        }
    });
    let (sampling, panels, out) = (Sampling::forward(g), (&panels[..], g.co / PANEL), SharedMut::new(y));
    if g.ci < PANEL {
        // The rows of few channels are widened faster all at once.
        return products(&sampling, (&X::widened(x)[..], g.ci), panels, out);
    }
    products(&sampling, (x, g.ci), panels, out);
}

/// Computes `gx`, the gradient of the input.
pub(crate) fn input_gradient<X: Direct>(g: &Geometry, w: &[f32], gy: &[X], gx: &mut [X]) {
    let out = SharedMut::new(gx);
    for sampling in Sampling::input_gradient(g) {
        let taps = &sampling.taps;
        let depth = taps.len() * g.co;
        let mut panels = Aligned::uninitialized(depth * g.ci);
        team::for_each_chunk(&mut panels, (depth * PANEL).max(1), |j, panel| {
            for (t, (ky, kx)) in taps.iter().enumerate() {
                for i in 0..PANEL {
                    let from = &w[((ky * g.kw + kx) * g.ci + j * PANEL + i) * g.co..][..g.co];
                    for (o, value) in from.iter().enumerate() {
                        panel[(t * g.co + o) * PANEL + i] = *value;
                    }
                }
            }
        });
        products(&sampling, (gy, g.co), (&panels, g.ci / PANEL), out);
    }
}

struct OuterBlock<'a, X> {
    rows: usize,
    panels: usize,
    /// Pointers to the first channel of the panel in each row.
    left: &'a [*const X],
    right: (&'a [f32], usize),
    out: (*mut f32, usize),
}

impl<X: Number> Kernel for OuterBlock<'_, X> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut gathered = [0.0f32; SUM_ROWS * PANEL];
        let mut first = 0;
        while first < self.rows {
            let count = SUM_ROWS.min(self.rows - first);
            for (i, from) in self.left[first..first + count].iter().enumerate() {
                for lane in (0..PANEL).step_by(V::LANES) {
                    // SAFETY: each pointer was made from a slice with 16 channels after it.
                    unsafe {
                        X::load::<V>(from.add(lane)).store(gathered.as_mut_ptr().add(i * PANEL + lane));
                    }
                }
            }
            // SAFETY: `right` holds `panels` panels of at least `rows` rows; `out` is this task's own 16 rows
            // of the gradient.
            unsafe {
                outer_product::<V, Single>(
                    count,
                    self.panels,
                    gathered.as_ptr(),
                    (self.right.0.as_ptr().add(first * PANEL), self.right.1),
                    (self.out.0, self.out.1, PANEL),
                    true,
                );
            }
            first += count;
        }
    }
}

/// Returns the number of pixel rows whose inputs and output gradients fit into the second-level cache
/// together.
fn rows_at_once(g: &Geometry) -> usize {
    let floats = (2 << 20) / size_of::<f32>();
    (floats / (g.co + g.ci * g.stride * g.stride) / SUM_ROWS * SUM_ROWS).clamp(SUM_ROWS, 1 << 16)
}

/// Computes `gw`, the gradient of the weights.
pub(crate) fn weight_gradient<X: Direct>(g: &Geometry, x: &[X], gy: &[X], gw: &mut [f32]) {
    if g.ci < PANEL {
        return weight_gradient_of_few_channels(g, x, gy, gw);
    }
    gw.fill(0.0);
    let (rows, taps, groups) = (g.out_rows(), g.taps(), g.ci / PANEL);
    let chunk = rows_at_once(g).min(rows.next_multiple_of(SUM_ROWS));
    let zeros = vec![X::ZERO; g.ci];
    let positions = g.tap_positions();
    let mut panels = Aligned::uninitialized(chunk * g.co);
    let mut pointers = vec![0usize; taps * chunk];
    let out = SharedMut::new(gw);
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        team::for_each_chunk(&mut panels, chunk * PANEL, |j, panel| {
            for (i, to) in panel.chunks_exact_mut(PANEL).take(count).enumerate() {
                convert_into(&gy[(first + i) * g.co + j * PANEL..][..PANEL], to);
            }
        });
        team::for_each_chunk(&mut pointers, chunk, |tap, pointers| {
            let (ky, kx) = positions[tap];
            for (pointer, window) in pointers[..count].iter_mut().zip(g.windows(first)) {
                *pointer = match g.source(window, ky, kx) {
                    Some(offset) => x[offset..offset + g.ci].as_ptr() as usize,
                    None => zeros.as_ptr() as usize,
                };
            }
        });
        team::for_each(taps * groups, |task| {
            let (tap, group) = (task / groups, task % groups);
            let left: Vec<*const X> = pointers[tap * chunk..][..count]
                .iter()
                .map(|&p| (p as *const X).wrapping_add(group * PANEL))
                .collect();
            dispatch(OuterBlock {
                rows: count,
                panels: g.co / PANEL,
                left: &left,
                right: (&panels, chunk * PANEL),
                // SAFETY: the tasks own disjoint 16-row blocks of the gradient.
                out: (unsafe { out.at((tap * g.ci + group * PANEL) * g.co) }, g.co),
            });
        });
    }
}

/// Computes the weight gradient for fewer than 16 input channels (a network's first layer): copies the
/// patches, which are small here, and pads them to panels.
fn weight_gradient_of_few_channels<X: Direct>(g: &Geometry, x: &[X], gy: &[X], gw: &mut [f32]) {
    let depth = g.taps() * g.ci;
    let padded = depth.next_multiple_of(PANEL);
    let mut columns = uninitialized(g.out_rows() * padded);
    im2col::unroll(g, (x, X::ZERO), 0, (&mut columns, padded));
    let unrolled = Geometry {
        n: g.n,
        h: g.out_h(),
        w: g.out_w(),
        ci: padded,
        co: g.co,
        kh: 1,
        kw: 1,
        stride: 1,
        padding: 0,
    };
    let mut padded_gradient = uninitialized(unrolled.weight_len());
    weight_gradient(&unrolled, &columns, gy, &mut padded_gradient);
    gw.copy_from_slice(&padded_gradient[..depth * g.co]);
}
