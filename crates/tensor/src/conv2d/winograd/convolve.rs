//! The forward pass and the input gradient.
//!
//! A task takes a block of tiles through all three stages, while its transformed tiles stay in the
//! second-level cache. Products are taken for a slab of two panels of outputs at a time and go through the
//! output transform at once: the sums of all panels would be many times as large as the input.

use super::super::geometry::Geometry;
use super::super::tiles::{PANEL, Product, panel_product};
use super::kernel::{Turn, Weights};
use super::map::{Map, Pixels};
use super::points::Points;
use super::transform::{Along, InputTile, Tile, plane, transform_output};
use super::{SLAB, TASK};
use crate::memory::{Aligned, with_scratch};
use crate::simd::{Kernel, Number, SharedMut, Vector, dispatch};
use crate::team;
use std::marker::PhantomData;
use std::ops::Range;

/// Tiles of one task: whole register tiles of 12 (AVX-512) and 6 rows.
const BLOCK: usize = 24;

/// Output channels of one task of the wide path.
const WIDE_SLAB: usize = 4 * PANEL;
/// The most tiles that the wide path holds transformed at once.
const WIDE_TILES: usize = 256;

/// Transforms the input tiles `first..first + count` into planes `[c / 16][capacity][16 / PAIR words]`, from
/// tile position `at` on.
struct TransformInput<'a, X, P, F> {
    x: Pixels<'a, X>,
    first: usize,
    count: usize,
    at: usize,
    capacity: usize,
    points: SharedMut,
    product: PhantomData<(P, F)>,
}

impl<X: Number, P: Product, F: Points> Kernel for TransformInput<'_, X, P, F> {
    const BF16: bool = X::HALF || P::PAIR == 2;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, first, count, at, capacity, points, .. } = self;
        let plane = plane(capacity * x.map.c / P::PAIR);
        for i in 0..count {
            let mut corner = x.map.corner::<F>(first + i);
            // The tile starts one pixel above and left of its outputs: padding 1.
            (corner.y, corner.x) = (corner.y.wrapping_sub(1), corner.x.wrapping_sub(1));
            let window = x.window(corner, F::TILE);
            for c in (0..x.map.c).step_by(V::LANES) {
                // SAFETY: the buffer holds planes of `capacity` tiles; tasks write disjoint tiles.
                unsafe {
                    let row = points.at((c / PANEL * capacity + at + i) * P::ROW);
                    let tile = InputTile::<X, F> { window: &window, c, points: PhantomData };
                    let mut sink = Along::<P> { row, lane: c % PANEL, plane, product: PhantomData };
                    Tile::<V>::transform(&tile, &mut sink);
                }
            }
        }
    }
}

/// Some panels of outputs of transformed tiles: the products at all points, and back to pixels.
struct Slab<'a, X, P, F> {
    points: &'a [f32],
    /// The weights of the first panel, and the distance between planes.
    kernel: (&'a [f32], usize),
    inputs: usize,
    output: Map,
    channels: Range<usize>,
    /// The first tile, the number of tiles, and the number of tiles that there is room for.
    tiles: (usize, usize, usize),
    sums: &'a mut [f32],
    y: SharedMut<X>,
    product: PhantomData<(P, F)>,
}

impl<X: Number, P: Product, F: Points> Kernel for Slab<'_, X, P, F> {
    const BF16: bool = X::HALF || P::PAIR == 2;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let (_, count, capacity) = self.tiles;
        let outputs = self.channels.len();
        let (from, to) = (plane(capacity * self.inputs / P::PAIR), plane(capacity * outputs));
        let (kernel, kernel_plane) = self.kernel;
        assert!(self.points.len() >= F::COUNT * from && self.sums.len() >= F::COUNT * to);
        assert!(kernel.len() >= (F::COUNT - 1) * kernel_plane + outputs * self.inputs / P::PAIR);
        // SAFETY: a plane for each point: points of `capacity` tiles, the slab's weights, and its sums.
        unsafe {
            for p in 0..F::COUNT {
                panel_product::<V, P>(
                    (count, capacity),
                    self.inputs,
                    outputs / PANEL,
                    self.points.as_ptr().add(p * from),
                    kernel.as_ptr().add(p * kernel_plane),
                    self.sums.as_mut_ptr().add(p * to),
                );
            }
            transform_output::<V, X, F>(self.sums.as_ptr(), self.output, self.channels, self.tiles, self.y);
        }
    }
}

/// Returns whether the transformed kernel is so large that writing it to memory and reading it back would
/// cost more than its transform (from about 208 channels on both sides on). If so, a task takes four panels
/// of the output, transforms their weights, and uses them up on all tiles at once.
fn wide(ci: usize, co: usize) -> bool {
    ci * co > 208 * 208
}

/// The channels of slab `number` if each slab has `width` of them.
fn channels(number: usize, width: usize, outputs: usize) -> Range<usize> {
    number * width..(number * width + width).min(outputs)
}

fn convolve_wide<X: Number, P: Product, F: Points>(
    x: Pixels<'_, X>,
    output: Map,
    weights: Weights<'_>,
    y: SharedMut<X>,
) {
    let (tiles, inputs, product) = (x.map.tiles::<F>(), weights.inputs(), PhantomData::<(P, F)>);
    let capacity = tiles.min(WIDE_TILES);
    let mut points = Aligned::uninitialized(F::COUNT * plane(capacity * inputs / P::PAIR));
    for first in (0..tiles).step_by(capacity) {
        let count = capacity.min(tiles - first);
        let to = SharedMut::new(&mut points);
        team::for_each(count.div_ceil(TASK), |task| {
            let at = task * TASK;
            let count = TASK.min(count - at);
            dispatch(TransformInput { x, first: first + at, count, at, capacity, points: to, product });
        });
        team::for_each(weights.outputs().div_ceil(WIDE_SLAB), |slab| {
            let channels = channels(slab, WIDE_SLAB, weights.outputs());
            let (kernel_plane, kernel_len) = weights.slab_words::<P, F>(WIDE_SLAB);
            with_scratch(kernel_len + F::COUNT * plane(capacity * channels.len()), |scratch| {
                let (kernel, sums) = scratch.split_at_mut(kernel_len);
                let out = SharedMut::new(kernel);
                for j in 0..channels.len() / PANEL {
                    // SAFETY: the panels of this task's own scratch.
                    let out = SharedMut::from(unsafe { out.at(j * weights.panel_words::<P>()) });
                    weights.transform_panel::<P, F>(channels.start / PANEL + j, out, kernel_plane);
                }
                let (kernel, tiles) = ((&*kernel, kernel_plane), (first, count, capacity));
                dispatch(Slab { points: &points, kernel, inputs, output, channels, tiles, sums, y, product });
            });
        });
    }
}

fn convolve<X: Number, P: Product, F: Points>(
    (input, output): (Map, Map),
    x: &[X],
    weights: Weights<'_>,
    y: &mut [X],
) {
    let (tiles, product) = (input.tiles::<F>(), PhantomData::<(P, F)>);
    let zeros = vec![X::ZERO; input.w * input.c];
    let x = Pixels::new(x, input, &zeros);
    assert_eq!(y.len(), output.n * output.h * output.w * output.c);
    let y = SharedMut::new(y);
    if wide(input.c, output.c) {
        return convolve_wide::<X, P, F>(x, output, weights, y);
    }
    let (kernel, inputs) = (weights.transform::<P, F>(), weights.inputs());
    let (kernel_plane, kernel_slab) = weights.slab_words::<P, F>(SLAB);
    let capacity = tiles.div_ceil(tiles.div_ceil(BLOCK)).next_multiple_of(4);
    let points_len = F::COUNT * plane(capacity * inputs / P::PAIR);
    team::for_each(tiles.div_ceil(capacity), |block| {
        let first = block * capacity;
        let count = capacity.min(tiles - first);
        with_scratch(points_len + F::COUNT * plane(capacity * SLAB), |scratch| {
            let (points, sums) = scratch.split_at_mut(points_len);
            let to = SharedMut::new(points);
            dispatch(TransformInput { x, first, count, at: 0, capacity, points: to, product });
            for slab in 0..output.c.div_ceil(SLAB) {
                let (points, sums, channels) = (&*points, &mut *sums, channels(slab, SLAB, output.c));
                let kernel = (&kernel[slab * kernel_slab..], kernel_plane);
                let tiles = (first, count, capacity);
                dispatch(Slab { points, kernel, inputs, output, channels, tiles, sums, y, product });
            }
        });
    });
}

/// Computes `y = conv(x, w)`.
pub(super) fn forward<X: Number, P: Product, F: Points>(g: &Geometry, x: &[X], w: &[f32], y: &mut [X]) {
    let weights = Weights { values: w, ci: g.ci, co: g.co, turn: Turn::Forward };
    convolve::<X, P, F>(Map::of(g), x, weights, y);
}

/// Computes `gx`, the gradient of the input.
pub(super) fn input_gradient<X: Number, P: Product, F: Points>(
    g: &Geometry,
    w: &[f32],
    gy: &[X],
    gx: &mut [X],
) {
    let (input, output) = Map::of(g);
    let weights = Weights { values: w, ci: g.ci, co: g.co, turn: Turn::Backward };
    convolve::<X, P, F>((output, input), gy, weights, gx);
}
