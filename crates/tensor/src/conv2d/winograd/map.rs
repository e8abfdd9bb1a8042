//! The tiles of a batch of maps, and the addresses of their pixels.

use super::super::geometry::Geometry;
use super::points::Points;
use crate::simd::Number;

/// A batch of maps with `c` channels.
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub(super) n: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
}

/// A tile: the number of its image, and its first row and column of outputs.
#[derive(Clone, Copy)]
pub(super) struct Corner {
    pub(super) image: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Map {
    /// Returns the maps of the input and of the output, which have the same sides.
    pub(super) fn of(g: &Geometry) -> (Self, Self) {
        let map = |c| Self { n: g.n, h: g.h, w: g.w, c };
        (map(g.ci), map(g.co))
    }

    /// Returns the number of tiles.
    pub(super) fn tiles<F: Points>(&self) -> usize {
        self.n * self.h.div_ceil(F::SIDE) * self.w.div_ceil(F::SIDE)
    }

    /// Returns the place of tile `t`.
    #[inline(always)]
    pub(super) fn corner<F: Points>(&self, t: usize) -> Corner {
        let (down, across) = (self.h.div_ceil(F::SIDE), self.w.div_ceil(F::SIDE));
        let (y, x) = (t / across % down * F::SIDE, t % across * F::SIDE);
        Corner { image: t / (down * across), y, x }
    }
}

/// The addresses of a tile's pixels by row and column.
pub(super) type Window<X> = [[*const X; 6]; 6];

/// A batch of maps to read tiles from.
#[derive(Clone, Copy)]
pub(super) struct Pixels<'a, X> {
    values: &'a [X],
    pub(super) map: Map,
    /// A row of zeros, which all rows outside of the map read.
    zeros: &'a [X],
}

impl<'a, X: Number> Pixels<'a, X> {
    /// Wraps the values of `map`. `zeros` must hold a row of the map.
    pub(super) fn new(values: &'a [X], map: Map, zeros: &'a [X]) -> Self {
        assert_eq!(values.len(), map.n * map.h * map.w * map.c);
        assert!(zeros.len() >= map.w * map.c);
        Self { values, map, zeros }
    }

    /// Returns a window whose pixels are all outside of the map.
    #[inline(always)]
    pub(super) fn nothing(&self) -> Window<X> {
        [[self.zeros.as_ptr(); 6]; 6]
    }

    /// Returns the addresses of the pixels of the `side` x `side` window at row `y` and column `x` of an
    /// image; either may be -1 (wrapped). Rows and columns are compared with the map's sides once each.
    #[inline(always)]
    pub(super) fn window(&self, Corner { image, y, x }: Corner, side: usize) -> Window<X> {
        let Map { h, w, c, .. } = self.map;
        let mut window = self.nothing();
        let rows: [*const X; 6] = std::array::from_fn(|a| {
            let y = y.wrapping_add(a);
            if y < h { self.values[(image * h + y) * w * c..].as_ptr() } else { self.zeros.as_ptr() }
        });
        for b in 0..side {
            let x = x.wrapping_add(b);
            if x < w {
                for a in 0..side {
                    // Within a row of the map or of zeros.
                    window[a][b] = rows[a].wrapping_add(x * c);
                }
            }
        }
        window
    }
}
