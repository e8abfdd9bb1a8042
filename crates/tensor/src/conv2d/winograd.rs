//! Winograd's F(4x4, 3x3): a 3x3 convolution of stride 1 with 36 instead of 144 products per 4x4 output tile.
//!
//! Equation (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016): with the input
//! tile d (6x6), the kernel g (3x3) and the matrices B (6x6), G (6x3), A (6x4) of that paper, one output tile
//! is `Y = Aᵀ [ (G g Gᵀ) * (Bᵀ d B) ] A`, where `*` is the product element by element, summed over input
//! channels. That is 36 matrix products of tiles by channels. The input gradient is the same convolution with
//! the kernel turned by 180 degrees and its channels swapped; the weight gradient is
//! `Gᵀ [ sum over tiles (Bᵀ d B) * (A dY Aᵀ) ] G`.
//!
//! Where the sides of a map are not multiples of 4, tiles extend beyond it: pixels outside read as zero and
//! are not written. The rounding error is several times that of a direct convolution (the matrices hold
//! entries from 1/24 to 8), so Winograd can be turned off.
//!
//! Where the equation gives NaN or an infinity, this algorithm gives NaN or an infinity too, never a finite
//! number. It may also make the other outputs of the same tile NaN (for the weight gradient: all nine weights
//! of the same two channels). NaN stays within its image and its channels, which the next batch norm or
//! average would make NaN in any case.
//!
//! The file is long because the three passes share the transforms, the map of tiles and the scratch memory: a
//! change of the tile is a change of them all.

#![expect(
    unsafe_code,
    reason = "tiles are addressed by pointer; every load and store is checked against the map"
)]

use super::geometry::Geometry;
use super::tiles::{PANEL, outer_product, panel_product};
use crate::memory::Aligned;
use crate::simd::{Kernel, SharedMut, Vector, dispatch};
use crate::team;
use std::cell::RefCell;
use std::ops::Range;

/// Elements of a transformed tile.
const POINTS: usize = 36;
/// Output pixels on the side of a tile.
const SIDE: usize = 4;

/// Returns the distance between two of the 36 planes of `values` values. It is one cache line more than they
/// need: channel counts are powers of two, and at a distance of `values` all 36 values of a tile would
/// compete for one set of the first-level cache.
const fn plane(values: usize) -> usize {
    values + PANEL
}

/// Returns the number of tiles that are transformed and multiplied together. Their 36 planes fit into half of
/// a second-level cache of 1 MiB; there are enough of them that the transformed kernel is not read too often;
/// and each thread gets an equal share.
fn tiles_at_once(tiles: usize, ci: usize, co: usize, threads: usize) -> usize {
    // The transformed kernel of more channels does not fit into the second-level cache, so it must be read
    // less often.
    let least = if ci + co > 256 { 48 } else { 24 };
    let fitting = (1 << 19) / (POINTS * (ci + co) * size_of::<f32>());
    let blocks = tiles.div_ceil(fitting.max(least)).next_multiple_of(threads);
    // The number is rounded up to a multiple of 4, so that most register tiles are full.
    tiles.div_ceil(blocks).next_multiple_of(4)
}

/// The number of tiles that one task transforms if other tasks use the result.
const TASK: usize = 16;

/// Returns whether this path takes the shape: 3x3, stride 1, padding 1, channels in whole panels.
pub(crate) fn fits(g: &Geometry) -> bool {
    (g.kh, g.kw, g.stride, g.padding) == (3, 3, 1, 1)
        && g.ci.is_multiple_of(PANEL)
        && g.co.is_multiple_of(PANEL)
}

/// The tiles of a batch of maps with `c` channels.
#[derive(Clone, Copy)]
struct Map {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
}

impl Map {
    fn tiles(&self) -> usize {
        self.n * self.h.div_ceil(SIDE) * self.w.div_ceil(SIDE)
    }

    /// Returns the image of tile `t`, and the first row and column.
    #[inline(always)]
    fn corner(&self, t: usize) -> (usize, usize, usize) {
        let (down, across) = (self.h.div_ceil(SIDE), self.w.div_ceil(SIDE));
        (t / (down * across), t / across % down * SIDE, t % across * SIDE)
    }
}

/// Computes `Bᵀ d`.
#[inline(always)]
fn input_points<V: Vector>(d: [V; 6]) -> [V; 6] {
    let (four, five) = (V::splat(4.0), V::splat(-5.0));
    let minus_four = V::splat(-4.0);
    let a = minus_four.mul_add(d[2], d[4]);
    let b = minus_four.mul_add(d[1], d[3]);
    let c = d[4].sub(d[2]);
    let e = V::splat(2.0).mul(d[3].sub(d[1]));
    [
        four.mul_add(d[0], five.mul_add(d[2], d[4])),
        a.add(b),
        a.sub(b),
        c.add(e),
        c.sub(e),
        four.mul_add(d[1], five.mul_add(d[3], d[5])),
    ]
}

/// Computes `Aᵀ m`.
#[inline(always)]
fn output_pixels<V: Vector>(m: [V; 6]) -> [V; 4] {
    let (a, b, c, d) = (m[1].add(m[2]), m[1].sub(m[2]), m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(a).add(c),
        V::splat(2.0).mul_add(d, b),
        V::splat(4.0).mul_add(c, a),
        V::splat(8.0).mul_add(d, b).add(m[5]),
    ]
}

/// Computes `A y`.
#[inline(always)]
fn gradient_points<V: Vector>(y: [V; 4]) -> [V; 6] {
    let (a, b) = (y[0].add(y[2]), y[1].add(y[3]));
    let (c, d) = (V::splat(4.0).mul_add(y[2], y[0]), V::splat(8.0).mul_add(y[3], V::splat(2.0).mul(y[1])));
    [y[0], a.add(b), a.sub(b), c.add(d), c.sub(d), y[3]]
}

/// Computes `G g`.
#[inline(always)]
fn kernel_points<V: Vector>(g: [V; 3]) -> [V; 6] {
    let a = V::splat(-1.0 / 6.0).mul(g[0].add(g[2]));
    let b = V::splat(1.0 / 6.0).mul(g[1]);
    let c = V::splat(1.0 / 24.0).mul_add(g[0], V::splat(1.0 / 6.0).mul(g[2]));
    let d = V::splat(1.0 / 12.0).mul(g[1]);
    [V::splat(0.25).mul(g[0]), a.sub(b), a.add(b), c.add(d), c.sub(d), g[2]]
}

/// Computes `Gᵀ u`.
#[inline(always)]
fn kernel_gradient<V: Vector>(u: [V; 6]) -> [V; 3] {
    let (p, q, r, s) = (u[1].add(u[2]), u[2].sub(u[1]), u[3].add(u[4]), u[3].sub(u[4]));
    let sixth = V::splat(1.0 / 6.0);
    [
        V::splat(0.25).mul_add(u[0], V::splat(-1.0 / 6.0).mul_add(p, V::splat(1.0 / 24.0).mul(r))),
        sixth.mul_add(q, V::splat(1.0 / 12.0).mul(s)),
        u[5].add(sixth.mul(r.sub(p))),
    ]
}

/// A batch of maps to read tiles from.
#[derive(Clone, Copy)]
struct Pixels<'a> {
    values: &'a [f32],
    map: Map,
    /// One zero for each channel of the map; pixels outside the map read these.
    zeros: &'a [f32],
}

impl Pixels<'_> {
    /// Returns the addresses of the pixels of the `SIDE` x `SIDE` window at row `y0` and column `x0` of an
    /// image; either may be -1.
    #[inline(always)]
    fn window<const SIDE: usize>(&self, image: usize, y0: usize, x0: usize) -> [[*const f32; SIDE]; SIDE] {
        let Map { h, w, c, .. } = self.map;
        let mut window = [[self.zeros.as_ptr(); SIDE]; SIDE];
        for (a, row) in window.iter_mut().enumerate() {
            let y = y0.wrapping_add(a);
            if y >= h {
                continue;
            }
            let start = (image * h + y) * w;
            for (b, pixel) in row.iter_mut().enumerate() {
                let x = x0.wrapping_add(b);
                if x < w {
                    *pixel = self.values[(start + x) * c..].as_ptr();
                }
            }
        }
        window
    }
}

/// Transforms the input tiles `first..first + count` into 36 planes `[c / 16][capacity][16]`, from tile
/// position `at` on.
///
/// # Safety
/// `points` must hold `36 * plane(c * capacity)` values.
#[inline(always)]
unsafe fn transform_input<V: Vector>(
    x: Pixels<'_>,
    first: usize,
    count: usize,
    points: *mut f32,
    capacity: usize,
    at: usize,
) {
    let plane = plane(capacity * x.map.c);
    for i in 0..count {
        let (image, y0, x0) = x.map.corner(first + i);
        // The tile starts one pixel above and left of its outputs: padding 1.
        let window = x.window::<6>(image, y0.wrapping_sub(1), x0.wrapping_sub(1));
        for c in (0..x.map.c).step_by(V::LANES) {
            let mut e = [[V::zero(); 6]; 6];
            for b in 0..6 {
                // SAFETY: each pixel, and the zeros, have `map.c` channels, and c + LANES does not exceed
                // them.
                let column = input_points(std::array::from_fn(|a| unsafe { V::load(window[a][b].add(c)) }));
                for a in 0..6 {
                    e[a][b] = column[a];
                }
            }
            let to = (c / PANEL * capacity + at + i) * PANEL + c % PANEL;
            for (a, row) in e.into_iter().enumerate() {
                for (b, value) in input_points(row).into_iter().enumerate() {
                    // SAFETY: 36 planes at this distance.
                    unsafe { value.store(points.add((a * 6 + b) * plane + to)) };
                }
            }
        }
    }
}

/// Transforms tiles of the output gradient into the layout of [`transform_input`].
///
/// # Safety
/// `points` must hold `36 * plane(c * capacity)` values.
#[inline(always)]
unsafe fn transform_output_gradient<V: Vector>(
    gy: Pixels<'_>,
    first: usize,
    count: usize,
    points: *mut f32,
    capacity: usize,
    at: usize,
) {
    let plane = plane(capacity * gy.map.c);
    for i in 0..count {
        let (image, y0, x0) = gy.map.corner(first + i);
        let window = gy.window::<SIDE>(image, y0, x0);
        for c in (0..gy.map.c).step_by(V::LANES) {
            let mut e = [[V::zero(); 4]; 6];
            for b in 0..4 {
                // SAFETY: as above.
                let column =
                    gradient_points(std::array::from_fn(|a| unsafe { V::load(window[a][b].add(c)) }));
                for a in 0..6 {
                    e[a][b] = column[a];
                }
            }
            let to = (c / PANEL * capacity + at + i) * PANEL + c % PANEL;
            for (a, row) in e.into_iter().enumerate() {
                for (b, value) in gradient_points(row).into_iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { value.store(points.add((a * 6 + b) * plane + to)) };
                }
            }
        }
    }
}

/// Computes output tiles from their 36 sums, for some of the channels.
///
/// # Safety
/// `sums` must hold 36 planes of `channels * capacity` values; no other task may write these channels of
/// these tiles of `y`.
#[inline(always)]
unsafe fn transform_output<V: Vector>(
    sums: *const f32,
    map: Map,
    channels: Range<usize>,
    (first, count, capacity): (usize, usize, usize),
    y: SharedMut,
) {
    let plane = plane(capacity * channels.len());
    for i in 0..count {
        let (image, y0, x0) = map.corner(first + i);
        for c in (0..channels.len()).step_by(V::LANES) {
            let from = (c / PANEL * capacity + i) * PANEL + c % PANEL;
            let mut e = [[V::zero(); 6]; 4];
            for b in 0..6 {
                // SAFETY: 36 planes at this distance.
                let column = output_pixels(std::array::from_fn(|a| unsafe {
                    V::load(sums.add((a * 6 + b) * plane + from))
                }));
                for a in 0..4 {
                    e[a][b] = column[a];
                }
            }
            for (a, row) in e.into_iter().enumerate().take(map.h - y0) {
                for (b, value) in output_pixels(row).into_iter().enumerate().take(map.w - x0) {
                    let pixel = (image * map.h + y0 + a) * map.w + x0 + b;
                    // SAFETY: row, column and channel lie inside the map.
                    unsafe { value.store(y.at(pixel * map.c + channels.start + c)) };
                }
            }
        }
    }
}

/// The order in which the kernel is read when it is transformed.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// Unchanged: input channels to output channels.
    Forward,
    /// Turned by 180 degrees, output channels to input channels: the kernel of the input gradient.
    Backward,
}

/// A kernel's weights (9, C_in, C_out) and the way they are read.
#[derive(Clone, Copy)]
struct Weights<'a> {
    values: &'a [f32],
    ci: usize,
    co: usize,
    turn: Turn,
}

impl Weights<'_> {
    /// Returns the number of channels that are summed over.
    fn inputs(&self) -> usize {
        if self.turn == Turn::Forward { self.ci } else { self.co }
    }

    /// Returns the number of channels of the result.
    fn outputs(&self) -> usize {
        if self.turn == Turn::Forward { self.co } else { self.ci }
    }

    /// Transforms the 16 outputs of panel `number` into `[inputs][16]`, the first plane at `out` and each of
    /// the 36 planes `plane` further.
    fn transform_panel(&self, number: usize, out: SharedMut, plane: usize) {
        let (inputs, Self { values, ci, co, .. }) = (self.inputs(), *self);
        if self.turn == Turn::Forward {
            return dispatch(Panel { taps: &values[number * PANEL..], distance: co, inputs, out, plane });
        }
        let mut taps = Aligned::uninitialized(9 * inputs * PANEL);
        for (t, taps) in taps.chunks_exact_mut(inputs * PANEL).enumerate() {
            let rows: [&[f32]; PANEL] =
                std::array::from_fn(|l| &values[((8 - t) * ci + number * PANEL + l) * co..][..co]);
            for (i, to) in taps.chunks_exact_mut(PANEL).enumerate() {
                for (to, row) in to.iter_mut().zip(rows) {
                    *to = row[i];
                }
            }
        }
        dispatch(Panel { taps: &taps, distance: PANEL, inputs, out, plane });
    }

    /// Returns the transformed kernel, 36 planes of `[outputs / 16][inputs][16]`.
    fn transform(&self) -> Aligned {
        let plane = plane(self.ci * self.co);
        let mut points = Aligned::uninitialized(POINTS * plane);
        let out = SharedMut::new(&mut points);
        team::for_each(self.outputs() / PANEL, |number| {
            // SAFETY: each task writes its own panel of the 36 planes.
            self.transform_panel(
                number,
                unsafe { SharedMut::from(out.at(number * self.inputs() * PANEL)) },
                plane,
            );
        });
        points
    }
}

struct Panel<'a> {
    /// The weights; the 16 outputs of tap t and input i are at `(t * inputs + i) * distance`.
    taps: &'a [f32],
    distance: usize,
    inputs: usize,
    out: SharedMut,
    plane: usize,
}

impl Kernel for Panel<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for i in 0..self.inputs {
            for lane in (0..PANEL).step_by(V::LANES) {
                let mut columns = [[V::zero(); 3]; 6];
                for x in 0..3 {
                    let column = kernel_points(std::array::from_fn(|y| {
                        let offset = ((y * 3 + x) * self.inputs + i) * self.distance + lane;
                        debug_assert!(offset + V::LANES <= self.taps.len());
                        // SAFETY: inside the nine taps of this panel.
                        unsafe { V::load(self.taps.as_ptr().add(offset)) }
                    }));
                    for y in 0..6 {
                        columns[y][x] = column[y];
                    }
                }
                for (y, row) in columns.into_iter().enumerate() {
                    for (x, value) in kernel_points(row).into_iter().enumerate() {
                        // SAFETY: `out` is this task's own panel in each of the 36 planes.
                        unsafe { value.store(self.out.at((y * 6 + x) * self.plane + i * PANEL + lane)) };
                    }
                }
            }
        }
    }
}

thread_local! {
    /// Transformed tiles of the block that a thread works on. The buffer is kept from block to block.
    static SCRATCH: RefCell<Aligned> = RefCell::default();
}

fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with(|scratch| {
        // The buffer is taken out while in use: a task that waits for rayon may run another task on this
        // thread.
        let mut values = std::mem::take(&mut *scratch.borrow_mut());
        if values.len() < len {
            values = Aligned::uninitialized(len);
        }
        work(&mut values[..len]);
        *scratch.borrow_mut() = values;
    });
}

struct Block<'a> {
    x: Pixels<'a>,
    kernel: &'a [f32],
    output: Map,
    first: usize,
    count: usize,
    capacity: usize,
    y: SharedMut,
    scratch: &'a mut [f32],
}

impl Kernel for Block<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (ci, co, capacity) = (self.x.map.c, self.output.c, self.capacity);
        let (to_plane, from_plane) = (plane(capacity * ci), plane(capacity * co));
        let (points, sums) = self.scratch.split_at_mut(POINTS * to_plane);
        // SAFETY: `points` and `sums` hold 36 planes of `capacity` tiles, `kernel` 36 planes of ci * co.
        unsafe {
            transform_input::<V>(self.x, self.first, self.count, points.as_mut_ptr(), capacity, 0);
            for p in 0..POINTS {
                panel_product::<V>(
                    self.count,
                    capacity,
                    ci,
                    co / PANEL,
                    points.as_ptr().add(p * to_plane),
                    self.kernel.as_ptr().add(p * plane(ci * co)),
                    sums.as_mut_ptr().add(p * from_plane),
                );
            }
            let tiles = (self.first, self.count, capacity);
            transform_output::<V>(sums.as_ptr(), self.output, 0..co, tiles, self.y);
        }
    }
}

/// Output channels of one task of the wide path: two panels.
const SLAB: usize = 2 * PANEL;
/// The most tiles that the wide path holds transformed at once.
const WIDE_TILES: usize = 256;

/// Returns whether all 36 transformed planes of the kernel exceed the caches (from about 200 channels on both
/// sides on). If so, a task takes two panels of the output, transforms their weights, and applies them to all
/// tiles at once.
fn wide(ci: usize, co: usize) -> bool {
    POINTS * ci * co * size_of::<f32>() > 6 << 20
}

struct TransformInput<'a> {
    x: Pixels<'a>,
    first: usize,
    count: usize,
    at: usize,
    capacity: usize,
    points: SharedMut,
}

impl Kernel for TransformInput<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: the buffer holds 36 planes of `capacity` tiles; tasks write disjoint tiles.
        unsafe {
            transform_input::<V>(self.x, self.first, self.count, self.points.at(0), self.capacity, self.at);
        }
    }
}

struct Slab<'a> {
    points: &'a [f32],
    kernel: &'a [f32],
    inputs: usize,
    output: Map,
    channels: Range<usize>,
    /// The first tile, the number of tiles, and the number of tiles that there is room for.
    tiles: (usize, usize, usize),
    sums: &'a mut [f32],
    y: SharedMut,
}

impl Kernel for Slab<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (_, count, capacity) = self.tiles;
        let outputs = self.channels.len();
        // SAFETY: 36 planes each: points of `capacity` tiles, the slab's weights, and its sums.
        unsafe {
            for p in 0..POINTS {
                panel_product::<V>(
                    count,
                    capacity,
                    self.inputs,
                    outputs / PANEL,
                    self.points.as_ptr().add(p * plane(capacity * self.inputs)),
                    self.kernel.as_ptr().add(p * plane(self.inputs * outputs)),
                    self.sums.as_mut_ptr().add(p * plane(capacity * outputs)),
                );
            }
            transform_output::<V>(self.sums.as_ptr(), self.output, self.channels, self.tiles, self.y);
        }
    }
}

fn convolve_wide(x: Pixels<'_>, output: Map, weights: Weights<'_>, y: SharedMut) {
    let (tiles, inputs) = (x.map.tiles(), weights.inputs());
    let capacity = tiles.min(WIDE_TILES);
    let mut points = Aligned::uninitialized(POINTS * plane(capacity * inputs));
    for first in (0..tiles).step_by(capacity) {
        let count = capacity.min(tiles - first);
        let to = SharedMut::new(&mut points);
        team::for_each(count.div_ceil(TASK), |task| {
            let at = task * TASK;
            let count = TASK.min(count - at);
            dispatch(TransformInput { x, first: first + at, count, at, capacity, points: to });
        });
        team::for_each(weights.outputs().div_ceil(SLAB), |slab| {
            let channels = slab * SLAB..(slab * SLAB + SLAB).min(weights.outputs());
            let outputs = channels.len();
            let kernel_len = POINTS * plane(inputs * outputs);
            with_scratch(kernel_len + POINTS * plane(capacity * outputs), |scratch| {
                let (kernel, sums) = scratch.split_at_mut(kernel_len);
                let out = SharedMut::new(kernel);
                for panel in 0..outputs / PANEL {
                    // SAFETY: the panels of this task's own scratch.
                    let out = unsafe { SharedMut::from(out.at(panel * inputs * PANEL)) };
                    weights.transform_panel(channels.start / PANEL + panel, out, plane(inputs * outputs));
                }
                let tiles = (first, count, capacity);
                dispatch(Slab { points: &points, kernel, inputs, output, channels, tiles, sums, y });
            });
        });
    }
}

fn convolve(input: Map, output: Map, x: &[f32], weights: Weights<'_>, y: &mut [f32]) {
    let tiles = input.tiles();
    let zeros = vec![0.0; input.c];
    let x = Pixels { values: x, map: input, zeros: &zeros };
    let y = SharedMut::new(y);
    if wide(input.c, output.c) {
        return convolve_wide(x, output, weights, y);
    }
    let kernel = weights.transform();
    let capacity = tiles_at_once(tiles, input.c, output.c, rayon::current_num_threads());
    team::for_each(tiles.div_ceil(capacity), |block| {
        let first = block * capacity;
        let count = capacity.min(tiles - first);
        with_scratch(POINTS * (plane(capacity * input.c) + plane(capacity * output.c)), |scratch| {
            dispatch(Block { x, kernel: &kernel, output, first, count, capacity, y, scratch });
        });
    });
}

fn maps(g: &Geometry) -> (Map, Map) {
    let map = |c| Map { n: g.n, h: g.h, w: g.w, c };
    (map(g.ci), map(g.co))
}

/// Computes `y = conv(x, w)`.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (input, output) = maps(g);
    convolve(input, output, x, Weights { values: w, ci: g.ci, co: g.co, turn: Turn::Forward }, y);
}

/// Computes `gx`, the gradient of the input.
pub(crate) fn input_gradient(g: &Geometry, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let (input, output) = maps(g);
    convolve(output, input, gy, Weights { values: w, ci: g.ci, co: g.co, turn: Turn::Backward }, gx);
}

struct TransformBoth<'a> {
    x: Pixels<'a>,
    gy: Pixels<'a>,
    first: usize,
    count: usize,
    at: usize,
    capacity: usize,
    points: SharedMut,
    gradient_points: SharedMut,
}

impl Kernel for TransformBoth<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: both buffers hold 36 planes of `capacity` tiles; tasks write disjoint tiles.
        unsafe {
            let (points, gradients) = (self.points.at(0), self.gradient_points.at(0));
            transform_input::<V>(self.x, self.first, self.count, points, self.capacity, self.at);
            transform_output_gradient::<V>(
                self.gy,
                self.first,
                self.count,
                gradients,
                self.capacity,
                self.at,
            );
        }
    }
}

struct SumTiles<'a> {
    tiles: usize,
    capacity: usize,
    ci: usize,
    /// Panels of output channels, from the first of `gradient_points` on.
    panels: usize,
    points: &'a [f32],
    gradient_points: &'a [f32],
    sums: *mut f32,
    /// Whether to add to the sums of earlier tiles.
    add: bool,
}

impl Kernel for SumTiles<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for group in 0..self.ci / PANEL {
            // SAFETY: the planes hold `capacity` tiles of ci and co channels; `sums` is this point's
            // `[co / 16][ci][16]`.
            unsafe {
                outer_product::<V>(
                    self.tiles,
                    self.panels,
                    self.points.as_ptr().add(group * self.capacity * PANEL),
                    (self.gradient_points.as_ptr(), self.capacity * PANEL),
                    (self.sums.add(group * PANEL * PANEL), PANEL, self.ci * PANEL),
                    self.add,
                );
            }
        }
    }
}

struct KernelGradient<'a> {
    /// 36 planes of `[panels][ci][16]`.
    sums: &'a [f32],
    /// Number of the panel.
    panel: usize,
    plane: usize,
    ci: usize,
    co: usize,
    /// The first of the 16 output channels.
    channel: usize,
    gw: SharedMut,
    /// Whether to add to the values already there.
    add: bool,
}

impl Kernel for KernelGradient<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for i in 0..self.ci {
            for lane in (0..PANEL).step_by(V::LANES) {
                let from = (self.panel * self.ci + i) * PANEL + lane;
                let mut e = [[V::zero(); 6]; 3];
                for b in 0..6 {
                    // SAFETY: 36 planes of sums.
                    let column = kernel_gradient(std::array::from_fn(|a| unsafe {
                        V::load(self.sums.as_ptr().add((a * 6 + b) * self.plane + from))
                    }));
                    for a in 0..3 {
                        e[a][b] = column[a];
                    }
                }
                for (a, row) in e.into_iter().enumerate() {
                    for (b, value) in kernel_gradient(row).into_iter().enumerate() {
                        let to = ((a * 3 + b) * self.ci + i) * self.co + self.channel + lane;
                        // SAFETY: each task writes its own 16 output channels.
                        unsafe {
                            let to = self.gw.at(to);
                            if self.add { V::load(to).add(value).store(to) } else { value.store(to) }
                        }
                    }
                }
            }
        }
    }
}

/// Computes `gw`, the gradient of the weights.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let (input, output) = maps(g);
    let tiles = input.tiles();
    let zeros = vec![0.0; g.ci.max(g.co)];
    let (x, gy) =
        (Pixels { values: x, map: input, zeros: &zeros }, Pixels { values: gy, map: output, zeros: &zeros });
    // Tiles that are transformed at once: as many as fit into 4 MiB, but at least 64; WIDE_TILES on the wide
    // path. The number depends only on the shape, so the sums do not depend on the number of threads.
    let wide = wide(g.ci, g.co);
    let fitting = (4 << 20) / (POINTS * size_of::<f32>() * (g.ci + g.co));
    let capacity = if wide { WIDE_TILES } else { fitting.max(64) }.min(tiles);
    let (of_points, of_gradients) = (plane(capacity * g.ci), plane(capacity * g.co));
    let mut points = Aligned::uninitialized(POINTS * of_points);
    let mut gradient_points = Aligned::uninitialized(POINTS * of_gradients);
    let mut sums = Aligned::uninitialized(if wide { 0 } else { POINTS * plane(g.ci * g.co) });
    let gw = SharedMut::new(gw);
    for chunk in (0..tiles).step_by(capacity) {
        let count = capacity.min(tiles - chunk);
        let (to_points, to_gradients) = (SharedMut::new(&mut points), SharedMut::new(&mut gradient_points));
        team::for_each(count.div_ceil(TASK), |task| {
            let at = task * TASK;
            dispatch(TransformBoth {
                x,
                gy,
                first: chunk + at,
                count: TASK.min(count - at),
                at,
                capacity,
                points: to_points,
                gradient_points: to_gradients,
            });
        });
        let sum_tiles = |p: usize, panels: Range<usize>, sums: *mut f32, add| {
            dispatch(SumTiles {
                tiles: count,
                capacity,
                ci: g.ci,
                panels: panels.len(),
                points: &points[p * of_points..][..of_points],
                gradient_points: &gradient_points[p * of_gradients + panels.start * capacity * PANEL..],
                sums,
                add,
            });
        };
        if !wide {
            team::for_each_chunk(&mut sums, plane(g.ci * g.co), |p, sums| {
                sum_tiles(p, 0..g.co / PANEL, sums.as_mut_ptr(), chunk > 0);
            });
            continue;
        }
        team::for_each(g.co.div_ceil(SLAB), |slab| {
            let panels = slab * SLAB / PANEL..(slab * SLAB + SLAB).min(g.co) / PANEL;
            let plane = plane(g.ci * panels.len() * PANEL);
            with_scratch(POINTS * plane, |sums| {
                for (p, sums) in sums.chunks_exact_mut(plane).enumerate() {
                    sum_tiles(p, panels.clone(), sums.as_mut_ptr(), false);
                }
                for (panel, channel) in panels.map(|panel| panel * PANEL).enumerate() {
                    let add = chunk > 0;
                    dispatch(KernelGradient { sums, panel, plane, ci: g.ci, co: g.co, channel, gw, add });
                }
            });
        });
    }
    if wide {
        return;
    }
    team::for_each(g.co / PANEL, |panel| {
        let (plane, channel) = (plane(g.ci * g.co), panel * PANEL);
        dispatch(KernelGradient { sums: &sums, panel, plane, ci: g.ci, co: g.co, channel, gw, add: false });
    });
}
