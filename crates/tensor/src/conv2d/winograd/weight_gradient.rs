//! The gradient of the weights: `Gᵀ [ sum over tiles (Bᵀ x B) * (A gy Aᵀ) ] G`.
//!
//! Some tiles of both maps are transformed at once, and their products are added to the sums at each point.
//! If the sums of all channels exceed the second-level cache, they are made in blocks of [`GROUP`] inputs by
//! two panels of outputs, which stay there and are transformed back before the next tiles.

use super::super::geometry::Geometry;
use super::super::tiles::{PANEL, Product, outer_product};
use super::map::{Map, Pixels};
use super::points::Points;
use super::transform::{GradientTile, InputTile, plane, put_both};
use super::{SLAB, TASK};
use crate::memory::{Aligned, with_scratch};
use crate::simd::{Kernel, Number, SharedMut, Vector, dispatch};
use crate::team;
use std::marker::PhantomData;

/// Input channels of a block of sums that stays in the second-level cache.
const GROUP: usize = 128;

/// The least tiles that are transformed at once if sums are made in blocks: each time, the whole gradient is
/// transformed back.
const LEAST_TILES: usize = 128;

/// Transforms tiles of both maps, an even number of them: neighbors along the sum are neighboring tiles.
/// Where the last pair has one tile, the second one is zero.
struct TransformBoth<'a, X, P, F> {
    x: Pixels<'a, X>,
    gy: Pixels<'a, X>,
    first: usize,
    count: usize,
    at: usize,
    capacity: usize,
    points: SharedMut,
    gradient_points: SharedMut,
    product: PhantomData<(P, F)>,
}

impl<X: Number, P: Product, F: Points> Kernel for TransformBoth<'_, X, P, F> {
    const BF16: bool = X::HALF || P::PAIR == 2;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, gy, first, count, at, capacity, .. } = self;
        let row = |c: usize, i: usize| (c / PANEL * capacity + at + i) * P::ROW + c % PANEL;
        for i in (0..count).step_by(2) {
            let corner = |k: usize| (i + k < count).then(|| x.map.corner::<F>(first + i + k));
            let windows: [_; 2] = std::array::from_fn(|k| match corner(k) {
                Some(mut corner) => {
                    (corner.y, corner.x) = (corner.y.wrapping_sub(1), corner.x.wrapping_sub(1));
                    x.window(corner, F::TILE)
                }
                None => x.nothing(),
            });
            for c in (0..x.map.c).step_by(V::LANES) {
                let tile = |k: usize| InputTile::<X, F> { window: &windows[k], c, points: PhantomData };
                // SAFETY: the buffer holds planes of `capacity` tiles, an even number; tasks write disjoint
                // tiles.
                unsafe {
                    let to = (self.points.at(row(c, i)), plane(capacity * x.map.c / P::PAIR));
                    put_both::<V, P>(&tile(0), &tile(1), to);
                }
            }
            let windows: [_; 2] = std::array::from_fn(|k| match corner(k) {
                Some(corner) => gy.window(corner, F::SIDE),
                None => gy.nothing(),
            });
            for c in (0..gy.map.c).step_by(V::LANES) {
                let tile = |k: usize| GradientTile::<X, F> { window: &windows[k], c, points: PhantomData };
                // SAFETY: as above.
                unsafe {
                    let to = (self.gradient_points.at(row(c, i)), plane(capacity * gy.map.c / P::PAIR));
                    put_both::<V, P>(&tile(0), &tile(1), to);
                }
            }
        }
    }
}

/// Adds up the products of tiles at one point, for some input channels and panels of output channels.
struct SumTiles<P> {
    /// Pairs of tiles.
    steps: usize,
    /// Distance between two panels of transformed tiles.
    panel: usize,
    /// Input channels, and the number of those of the sums.
    inputs: usize,
    sum_inputs: usize,
    /// Panels of output channels.
    panels: usize,
    points: *const f32,
    gradient_points: *const f32,
    sums: *mut f32,
    /// Whether to add to the sums of earlier tiles.
    add: bool,
    product: PhantomData<P>,
}

impl<P: Product> Kernel for SumTiles<P> {
    const BF16: bool = P::PAIR == 2;

    #[inline(always)]
    fn run<V: Vector>(self) {
        for group in 0..self.inputs / PANEL {
            // SAFETY: the planes hold the tiles of these channels; `sums` is `[panels][sum_inputs][16]`.
            unsafe {
                outer_product::<V, P>(
                    self.steps,
                    self.panels,
                    self.points.add(group * self.panel),
                    (self.gradient_points, self.panel),
                    (self.sums.add(group * PANEL * PANEL), PANEL, self.sum_inputs * PANEL),
                    self.add,
                );
            }
        }
    }
}

/// Transforms the sums of some inputs and one panel of outputs back to weights.
struct KernelGradient<'a, F> {
    /// The sums, `[inputs][16]` in each plane.
    sums: &'a [f32],
    plane: usize,
    inputs: usize,
    /// The weight of the first tap, input and output.
    to: *mut f32,
    /// Distances between taps and between inputs.
    tap: usize,
    row: usize,
    /// Whether to add to the values already there.
    add: bool,
    points: PhantomData<F>,
}

impl<F: Points> Kernel for KernelGradient<'_, F> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        assert!(self.sums.len() >= (F::COUNT - 1) * self.plane + self.inputs * PANEL);
        for i in 0..self.inputs {
            for lane in (0..PANEL).step_by(V::LANES) {
                let from = i * PANEL + lane;
                let mut e = [[V::zero(); 6]; 3];
                for b in 0..F::TILE {
                    let mut u = [V::zero(); 6];
                    for a in 0..F::TILE {
                        // SAFETY: a plane of sums for each point.
                        u[a] =
                            unsafe { V::load(self.sums.as_ptr().add((a * F::TILE + b) * self.plane + from)) };
                    }
                    let column = F::kernel_gradient(u);
                    for a in 0..3 {
                        e[a][b] = column[a];
                    }
                }
                for (a, row) in e.into_iter().enumerate() {
                    for (b, value) in F::kernel_gradient(row).into_iter().enumerate() {
                        // SAFETY: each task writes its own inputs and outputs of the nine taps.
                        unsafe {
                            let to = self.to.add((a * 3 + b) * self.tap + i * self.row + lane);
                            if self.add { V::load(to).add(value).store(to) } else { value.store(to) }
                        }
                    }
                }
            }
        }
    }
}

/// Returns whether the sums of all channels exceed the second-level cache by far.
fn in_blocks<F: Points>(ci: usize, co: usize) -> bool {
    F::COUNT * ci * co * size_of::<f32>() > 3 << 20
}

/// Returns the number of tiles that are transformed at once, an even number. It depends only on the shape, so
/// the sums do not depend on the number of threads. Narrow layers profit if the tiles stay in the
/// second-level cache; wide ones lose more by adding to their large sums more often.
fn tiles_at_once<P: Product, F: Points>(tiles: usize, ci: usize, co: usize) -> usize {
    let bytes = if ci * co <= 64 * 64 { 1 << 20 } else { 4 << 20 };
    let fitting = bytes / (F::COUNT * size_of::<f32>() * (ci + co) / P::PAIR);
    let least = if in_blocks::<F>(ci, co) { LEAST_TILES } else { 2 * TASK };
    (fitting / TASK * TASK).max(least).min(tiles.next_multiple_of(2))
}

/// Computes `gw`, the gradient of the weights.
pub(super) fn weight_gradient<X: Number, P: Product, F: Points>(
    g: &Geometry,
    x: &[X],
    gy: &[X],
    gw: &mut [f32],
) {
    let (input, output) = Map::of(g);
    let (ci, co, product) = (g.ci, g.co, PhantomData::<(P, F)>);
    let tiles = input.tiles::<F>();
    let zeros = vec![X::ZERO; g.w * ci.max(co)];
    let (x, gy) = (Pixels::new(x, input, &zeros), Pixels::new(gy, output, &zeros));
    let capacity = tiles_at_once::<P, F>(tiles, ci, co);
    // Words of a panel of 16 channels of transformed tiles.
    let panel = capacity * P::ROW;
    let (of_points, of_gradients) = (plane(ci / PANEL * panel), plane(co / PANEL * panel));
    let mut points = Aligned::uninitialized(F::COUNT * of_points);
    let mut gradient_points = Aligned::uninitialized(F::COUNT * of_gradients);
    let in_blocks = in_blocks::<F>(ci, co);
    let sum_plane = plane(ci * co);
    let mut sums = Aligned::uninitialized(if in_blocks { 0 } else { F::COUNT * sum_plane });
    assert_eq!(gw.len(), g.weight_len());
    let gw = SharedMut::new(gw);
    for chunk in (0..tiles).step_by(capacity) {
        let (count, add) = (capacity.min(tiles - chunk), chunk > 0);
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
                product,
            });
        });
        // Sums `inputs` channels from `first` on by `panels` panels from channel `channel` on, at point `p`.
        let sum =
            |p: usize, (first, inputs): (usize, usize), (channel, panels): (usize, usize), sums, add| {
                dispatch(SumTiles {
                    steps: count.div_ceil(P::PAIR),
                    panel,
                    inputs,
                    sum_inputs: inputs,
                    panels,
                    points: points[p * of_points + first / PANEL * panel..].as_ptr(),
                    gradient_points: gradient_points[p * of_gradients + channel / PANEL * panel..].as_ptr(),
                    sums,
                    add,
                    product: PhantomData::<P>,
                });
            };
        if !in_blocks {
            team::for_each_chunk(&mut sums, sum_plane, |p, sums| {
                sum(p, (0, ci), (0, co / PANEL), sums.as_mut_ptr(), add);
            });
            continue;
        }
        let groups = ci.div_ceil(GROUP);
        team::for_each(groups * co.div_ceil(SLAB), |task| {
            let (first, channel) = (task % groups * GROUP, task / groups * SLAB);
            let (inputs, panels) = (GROUP.min(ci - first), SLAB.min(co - channel) / PANEL);
            let plane = plane(inputs * panels * PANEL);
            with_scratch(F::COUNT * plane, |sums| {
                for (p, sums) in sums.chunks_exact_mut(plane).enumerate() {
                    sum(p, (first, inputs), (channel, panels), sums.as_mut_ptr(), false);
                }
                for j in 0..panels {
                    let sums = &sums[j * inputs * PANEL..];
                    // SAFETY: each task writes its own inputs and outputs.
                    let to = unsafe { gw.at(first * co + channel + j * PANEL) };
                    let points = PhantomData::<F>;
                    dispatch(KernelGradient { sums, plane, inputs, to, tap: ci * co, row: co, add, points });
                }
            });
        });
    }
    if in_blocks {
        return;
    }
    team::for_each(co / PANEL, |j| {
        let sums = &sums[j * ci * PANEL..];
        // SAFETY: each task writes its own outputs.
        let to = unsafe { gw.at(j * PANEL) };
        let (inputs, plane, points) = (ci, sum_plane, PhantomData::<F>);
        dispatch(KernelGradient { sums, plane, inputs, to, tap: ci * co, row: co, add: false, points });
    });
}
