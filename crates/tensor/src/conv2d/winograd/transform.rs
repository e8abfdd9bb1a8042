//! The two-dimensional transforms of one tile and one vector of channels, and where their results go.

use super::super::tiles::{PANEL, Product};
use super::map::{Map, Window};
use super::points::Points;
use crate::simd::{Number, SharedMut, Vector};
use std::marker::PhantomData;
use std::ops::Range;

/// Returns the distance in words between two planes of `words` words, each of which holds one point of many
/// tiles. It is one cache line more than they need: channel counts are powers of two, and at a distance of
/// `words` all values of a tile would compete for one set of the first-level cache.
pub(super) const fn plane(words: usize) -> usize {
    words + PANEL
}

/// Takes the transformed values of a tile, point by point. This is a trait, not a closure: it must be inlined
/// to be compiled with wide instructions.
pub(super) trait Sink<V: Vector> {
    /// # Safety
    /// The sink's memory must have room for every point of the tile.
    unsafe fn put(&mut self, point: usize, value: V);
}

/// Values that can be transformed.
pub(super) trait Tile<V: Vector> {
    /// Transforms the values.
    ///
    /// # Safety
    /// The values must be readable, and the sink's memory must have room for every point.
    unsafe fn transform(&self, sink: &mut impl Sink<V>);
}

/// An input tile `d`: `Bᵀ d B`, for the channels from `c` on.
pub(super) struct InputTile<'a, X, F> {
    pub(super) window: &'a Window<X>,
    pub(super) c: usize,
    pub(super) points: PhantomData<F>,
}

impl<V: Vector, X: Number, F: Points> Tile<V> for InputTile<'_, X, F> {
    #[inline(always)]
    unsafe fn transform(&self, sink: &mut impl Sink<V>) {
        let mut e = [[V::zero(); 6]; 6];
        for b in 0..F::TILE {
            let mut d = [V::zero(); 6];
            for a in 0..F::TILE {
                // SAFETY: each pixel, and the zeros, have channels up to c + LANES.
                d[a] = unsafe { X::load(self.window[a][b].add(self.c)) };
            }
            let d = F::input(d);
            for a in 0..F::TILE {
                e[a][b] = d[a];
            }
        }
        for (a, row) in e.into_iter().enumerate().take(F::TILE) {
            for (b, value) in F::input(row).into_iter().enumerate().take(F::TILE) {
                // SAFETY: the caller guarantees it.
                unsafe { sink.put(a * F::TILE + b, value) };
            }
        }
    }
}

/// A tile of the output gradient `y`: `A y Aᵀ`, for the channels from `c` on.
pub(super) struct GradientTile<'a, X, F> {
    pub(super) window: &'a Window<X>,
    pub(super) c: usize,
    pub(super) points: PhantomData<F>,
}

impl<V: Vector, X: Number, F: Points> Tile<V> for GradientTile<'_, X, F> {
    #[inline(always)]
    unsafe fn transform(&self, sink: &mut impl Sink<V>) {
        let mut e = [[V::zero(); 4]; 6];
        for b in 0..F::SIDE {
            let mut y = [V::zero(); 4];
            for a in 0..F::SIDE {
                // SAFETY: as for the input.
                y[a] = unsafe { X::load(self.window[a][b].add(self.c)) };
            }
            let y = F::gradient(y);
            for a in 0..F::TILE {
                e[a][b] = y[a];
            }
        }
        for (a, row) in e.into_iter().enumerate().take(F::TILE) {
            for (b, value) in F::gradient(row).into_iter().enumerate().take(F::TILE) {
                // SAFETY: the caller guarantees it.
                unsafe { sink.put(a * F::TILE + b, value) };
            }
        }
    }
}

/// A kernel `g`: `G g Gᵀ`. The taps are `distance` apart.
pub(super) struct KernelTile<F> {
    pub(super) taps: *const f32,
    pub(super) distance: usize,
    pub(super) points: PhantomData<F>,
}

impl<V: Vector, F: Points> Tile<V> for KernelTile<F> {
    #[inline(always)]
    unsafe fn transform(&self, sink: &mut impl Sink<V>) {
        let mut columns = [[V::zero(); 3]; 6];
        for x in 0..3 {
            let column = F::kernel(std::array::from_fn(|y| {
                // SAFETY: the nine taps of the kernel.
                unsafe { V::load(self.taps.add((y * 3 + x) * self.distance)) }
            }));
            for y in 0..F::TILE {
                columns[y][x] = column[y];
            }
        }
        for (y, row) in columns.into_iter().enumerate().take(F::TILE) {
            for (x, value) in F::kernel(row).into_iter().enumerate().take(F::TILE) {
                // SAFETY: the caller guarantees it.
                unsafe { sink.put(y * F::TILE + x, value) };
            }
        }
    }
}

/// Writes to channels along the sum, from `lane` on, of a row of 16 in each plane.
pub(super) struct Along<P> {
    pub(super) row: *mut f32,
    pub(super) lane: usize,
    pub(super) plane: usize,
    pub(super) product: PhantomData<P>,
}

impl<V: Vector, P: Product> Sink<V> for Along<P> {
    #[inline(always)]
    unsafe fn put(&mut self, point: usize, value: V) {
        // SAFETY: the caller guarantees it.
        unsafe { P::store_along(value, self.row.add(point * self.plane), self.lane) };
    }
}

/// Writes f32 to each plane.
struct Plain {
    to: *mut f32,
    plane: usize,
}

impl<V: Vector> Sink<V> for Plain {
    #[inline(always)]
    unsafe fn put(&mut self, point: usize, value: V) {
        // SAFETY: the caller guarantees it.
        unsafe { value.store(self.to.add(point * self.plane)) };
    }
}

/// Keeps the values.
struct Held<V>([V; 36]);

impl<V: Vector> Sink<V> for Held<V> {
    #[inline(always)]
    unsafe fn put(&mut self, point: usize, value: V) {
        self.0[point] = value;
    }
}

/// Writes pairs of the values that were kept and of these to each plane.
struct Joined<'a, V> {
    first: &'a Held<V>,
    to: *mut f32,
    plane: usize,
}

impl<V: Vector> Sink<V> for Joined<'_, V> {
    #[inline(always)]
    unsafe fn put(&mut self, point: usize, value: V) {
        // SAFETY: the caller guarantees it.
        unsafe { V::pair(self.first.0[point], value).store(self.to.add(point * self.plane)) };
    }
}

/// Transforms two tiles that are neighbors along the sum and writes them: to two rows of words, or to one row
/// of pairs.
///
/// # Safety
/// Both tiles must be readable; `to` must have room for a vector in two rows (one of pairs) of each plane.
#[inline(always)]
pub(super) unsafe fn put_both<V: Vector, P: Product>(
    first: &impl Tile<V>,
    second: &impl Tile<V>,
    (to, plane): (*mut f32, usize),
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        if P::PAIR == 2 {
            let mut held = Held([V::zero(); 36]);
            first.transform(&mut held);
            return second.transform(&mut Joined { first: &held, to, plane });
        }
        first.transform(&mut Plain { to, plane });
        second.transform(&mut Plain { to: to.add(PANEL), plane });
    }
}

/// Computes output tiles from the sums of their points, for some of the channels.
///
/// # Safety
/// `sums` must hold a plane of `channels * capacity` values for each point; no other task may write these
/// channels of these tiles of `y`.
#[inline(always)]
pub(super) unsafe fn transform_output<V: Vector, X: Number, F: Points>(
    sums: *const f32,
    map: Map,
    channels: Range<usize>,
    (first, count, capacity): (usize, usize, usize),
    y: SharedMut<X>,
) {
    let plane = plane(capacity * channels.len());
    for i in 0..count {
        let corner = map.corner::<F>(first + i);
        for c in (0..channels.len()).step_by(V::LANES) {
            let from = (c / PANEL * capacity + i) * PANEL + c % PANEL;
            let mut e = [[V::zero(); 6]; 4];
            for b in 0..F::TILE {
                let mut m = [V::zero(); 6];
                for a in 0..F::TILE {
                    // SAFETY: the planes at this distance.
                    m[a] = unsafe { V::load(sums.add((a * F::TILE + b) * plane + from)) };
                }
                let column = F::output(m);
                for a in 0..F::SIDE {
                    e[a][b] = column[a];
                }
            }
            for (a, row) in e.into_iter().enumerate().take(F::SIDE.min(map.h - corner.y)) {
                let row = F::output(row);
                let start = ((corner.image * map.h + corner.y + a) * map.w + corner.x) * map.c;
                for (b, value) in row.into_iter().enumerate().take(F::SIDE.min(map.w - corner.x)) {
                    // SAFETY: row, column and channel lie inside the map.
                    unsafe { X::store(value, y.at(start + b * map.c + channels.start + c)) };
                }
            }
        }
    }
}
