//! Finds the nearest centroid of each point, the step of k-means that takes nearly all of its time.
//!
//! `|x - c|² = |x|² - (2 x·c - |c|²)`, so the nearest centroid has the largest bracket. The bracket is one
//! inner product, of (x, 1) with (2 c, -|c|²), computed in f32 with an error of at most
//! `E = c (2 |x| max|c| + max|c|²)`. Centroids whose brackets are within 2 E of the largest are compared by
//! their distances in f64.
//!
//! Shapes: points (n, d), centroids (k, d), assignments (n).

use crate::Rows;
use crate::exact_order::{lowered, twice_off};
use invaspread_tensor::inner_products::{PackedRows, exact_product, exact_squared_distance, positions_above};
use rayon::prelude::*;

/// The numbers of points and of centroids of a block. Together with their products they fit into a
/// second-level cache of 1 MiB.
const POINT_BLOCK: usize = 192;
const CENTROID_BLOCK: usize = 512;

/// Returns the nearest of `centroids` (k, d) for each point, the first of equals, and the sum of the squared
/// distances. All numbers must be finite, which `KMeans::fit` checks: a NaN has no nearest centroid.
pub(crate) fn assign(points: Rows, centroids: &[f32]) -> (Vec<u32>, f64) {
    let dim = points.dim;
    let centroids = Rows::new(centroids, dim);
    let packed = PackedRows::new(centroids.len(), dim + 1, |row, to| {
        let centroid = centroids.row(row);
        to.iter_mut().zip(centroid).for_each(|(to, c)| *to = 2.0 * c);
        to[dim] = -exact_product(centroid, centroid) as f32;
    });
    let longest = centroids.longest_square().sqrt();
    let mut assignments = vec![0; points.len()];
    let mut distances = vec![0.0; points.len()];
    assignments
        .par_chunks_mut(POINT_BLOCK)
        .zip(distances.par_chunks_mut(POINT_BLOCK))
        .zip(points.values.par_chunks(POINT_BLOCK * dim))
        .for_each(|((assignments, distances), block)| {
            let extended: Vec<f32> =
                block.chunks(dim).flat_map(|x| x.iter().copied().chain(std::iter::once(1.0))).collect();
            let mut nearest: Vec<Nearest> = block
                .chunks(dim)
                .map(|x| {
                    let size = 2.0 * exact_product(x, x).sqrt() * longest + longest * longest;
                    Nearest::new(twice_off(dim + 1, size))
                })
                .collect();
            let (mut products, mut above) = (vec![0.0; assignments.len() * CENTROID_BLOCK], Vec::new());
            for start in (0..packed.len()).step_by(CENTROID_BLOCK) {
                let range = start..(start + CENTROID_BLOCK).min(packed.len());
                let width = PackedRows::width(&range);
                let products = &mut products[..assignments.len() * width];
                packed.products(&extended, range.clone(), products);
                for (products, nearest) in products.chunks(width).zip(&mut nearest) {
                    nearest.offer(&products[..range.len()], start as u32, &mut above);
                }
            }
            // The distance is computed from differences, because the expanded square loses its digits in f32
            // if a point is close to its centroid.
            for (((row, nearest), assignment), distance) in
                block.chunks(dim).zip(nearest).zip(assignments).zip(distances)
            {
                *assignment = nearest.decide(row, centroids);
                *distance = exact_squared_distance(row, centroids.row(*assignment as usize));
            }
        });
    (assignments, distances.iter().sum())
}

/// The number of candidate centroids that are held for a point.
const HELD: usize = 8;

/// The centroids offered so far that may be the nearest to one point.
#[derive(Clone, Copy)]
struct Nearest {
    /// The margin 2 E: a centroid whose bracket is further below the largest one is not the nearest.
    margin: f64,
    best: f32,
    /// Brackets at or below it are skipped.
    floor: f32,
    held: [(f32, u32); HELD],
    count: usize,
    /// Whether more centroids are within the margin than can be held, or the brackets are too large for f32.
    crowded: bool,
}

impl Nearest {
    fn new(margin: f64) -> Self {
        let (best, floor) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        // If brackets may be too large for f32, they cannot be compared.
        let crowded = margin.is_infinite();
        Self { margin, best, floor, held: [(0.0, 0); HELD], count: 0, crowded }
    }

    /// Adds the brackets of the centroids numbered from `start` on. `above` is scratch memory.
    fn offer(&mut self, brackets: &[f32], start: u32, above: &mut Vec<u32>) {
        above.clear();
        positions_above(brackets, self.floor, above);
        for &place in above.iter() {
            let bracket = brackets[place as usize];
            // The floor may have risen meanwhile.
            if bracket > self.floor {
                self.hold(bracket, start + place);
            }
        }
    }

    fn hold(&mut self, bracket: f32, centroid: u32) {
        if bracket > self.best {
            self.best = bracket;
            self.floor = lowered(bracket, self.margin);
        }
        if self.count == HELD {
            self.drop_the_far();
        }
        if self.count == HELD {
            self.crowded = true;
        } else {
            self.held[self.count] = (bracket, centroid);
            self.count += 1;
        }
    }

    fn drop_the_far(&mut self) {
        let mut kept = 0;
        for place in 0..self.count {
            let (bracket, _) = self.held[place];
            // With a margin of zero the floor equals the best.
            if bracket > self.floor || bracket >= self.best {
                self.held[kept] = self.held[place];
                kept += 1;
            }
        }
        self.count = kept;
    }

    /// Returns the nearest of `centroids` to the point `row`, the first of equals.
    fn decide(mut self, row: &[f32], centroids: Rows) -> u32 {
        self.drop_the_far();
        if self.crowded {
            return first_least(0..centroids.len() as u32, row, centroids);
        }
        if let [(_, only)] = self.held[..self.count] {
            return only;
        }
        first_least(self.held[..self.count].iter().map(|&(_, centroid)| centroid), row, centroids)
    }
}

/// Returns which of the centroids `numbered`, in ascending order, is nearest to `row`; the first of equals.
fn first_least(numbered: impl Iterator<Item = u32>, row: &[f32], centroids: Rows) -> u32 {
    let (mut nearest, mut least) = (0, f64::INFINITY);
    for centroid in numbered {
        let distance = exact_squared_distance(row, centroids.row(centroid as usize));
        if distance < least {
            (nearest, least) = (centroid, distance);
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::assign;
    use crate::Rows;
    use invaspread_random::{Purpose, Stream};
    use invaspread_tensor::inner_products::exact_squared_distance;
    use proptest::prelude::*;

    fn plain_assign(points: Rows, centroids: &[f32]) -> (Vec<u32>, f64) {
        let mut inertia = 0.0;
        let assignments = points.values.chunks(points.dim).map(|row| {
            let distances: Vec<f64> =
                centroids.chunks(points.dim).map(|c| exact_squared_distance(row, c)).collect();
            let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
            inertia += least;
            distances.iter().position(|&d| d <= least).map_or(0, |at| at as u32)
        });
        (assignments.collect(), inertia)
    }

    proptest! {
        #[test]
        fn assignment_agrees_with_plain_distances(
            n in 1usize..600, k in 1usize..1100, dim in 1usize..12, seed: u64,
        ) {
            // With small integers, squares and products are exact, so both versions decide ties in the same
            // way.
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| stream.below(9) as f32 - 4.0).collect() };
            let (values, centroids) = (draw(n * dim), draw(k * dim));
            let points = Rows::new(&values, dim);
            prop_assert_eq!(assign(points, &centroids), plain_assign(points, &centroids));
        }

        #[test]
        fn what_f32_cannot_tell_apart_is_told_apart(
            n in 1usize..200, k in 1usize..60, dim in 1usize..20, far in 0i32..7, long in prop::sample::select(vec![1e-30, 1.0, 1e25]), seed: u64,
        ) {
            // Two groups of width 1 are far from each other: the f32 products of points near 1e6 have errors
            // of thousands.
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = |count: usize| -> Vec<f32> {
                (0..count).flat_map(|row| {
                    let side = if row % 2 == 0 { 10.0_f64.powi(far) } else { -(10.0_f64.powi(far)) };
                    (0..dim).map(|_| ((side + stream.normal()) * long) as f32).collect::<Vec<_>>()
                }).collect()
            };
            let (values, centroids) = (draw(n), draw(k));
            let points = Rows::new(&values, dim);
            prop_assert_eq!(assign(points, &centroids), plain_assign(points, &centroids));
        }
    }
}
