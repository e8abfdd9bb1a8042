//! Inner products of rows with packed rows, and the search for large products. Nearest neighbors and k-means
//! are built on them.
//!
//! `p_ij = q_i · g_j` for a block of queries q and a range of the gallery g. The gallery is packed once into
//! panels of 16 rows, `[dim][16]`, so that a register tile reads one contiguous panel. Every product is one
//! sum over the dimension, in order, and does not depend on the blocks and the threads: the same pair of rows
//! always gives the same bits.
//!
//! Where f32 cannot decide between two products, [`exact_product`] and [`exact_squared_distance`] decide in
//! f64. [`rounding`] bounds the error of f32.

#![expect(unsafe_code, reason = "the register tiles walk raw pointers over buffers sized here")]

use crate::conv2d::{Indirect, PANEL, indirect_product};
use crate::memory::Aligned;
use crate::simd::{Kernel, Vector, dispatch};
use crate::team;
use std::ops::Range;

/// Rows packed into panels, ready for products.
///
/// ```
/// use invaspread_tensor::inner_products::PackedRows;
///
/// // Three rows of two numbers, and one query.
/// let rows = [[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]];
/// let packed = PackedRows::new(3, 2, |row, to| to.copy_from_slice(&rows[row]));
/// let mut products = vec![0.0; PackedRows::width(&(0..3))];
/// packed.products(&[3.0, 4.0], 0..3, &mut products);
/// assert_eq!(products[..3], [3.0, 4.0, 14.0]);
/// ```
#[derive(Debug)]
pub struct PackedRows {
    panels: Aligned,
    rows: usize,
    dim: usize,
}

impl PackedRows {
    /// Rows of a panel. A range of rows starts at a multiple of this number, and ends at a multiple or at the
    /// last row.
    pub const PANEL: usize = PANEL;

    /// Packs `rows` rows of `dim` values; `fill(row, to)` writes one row.
    ///
    /// # Panics
    /// If `dim` is zero.
    pub fn new(rows: usize, dim: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        assert!(dim > 0, "rows of no values");
        let mut panels = Aligned::uninitialized(rows.div_ceil(PANEL) * dim * PANEL);
        team::for_each_chunk(&mut panels, dim * PANEL, |number, panel| {
            let mut row = vec![0.0; dim];
            for lane in 0..PANEL {
                let from = number * PANEL + lane;
                if from < rows {
                    fill(from, &mut row);
                } else {
                    row.fill(0.0);
                }
                for (to, value) in panel[lane..].iter_mut().step_by(PANEL).zip(&row) {
                    *to = *value;
                }
            }
        });
        Self { panels, rows, dim }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the number of products that [`PackedRows::products`] writes for each query: the length of
    /// `range`, rounded up to whole panels.
    pub fn width(range: &Range<usize>) -> usize {
        range.len().next_multiple_of(PANEL)
    }

    /// Computes `out[i][j] = queries[i] · row[range.start + j]`, with [`PackedRows::width`] products in each
    /// row of `out`. Products past the last row are 0 (NaN if the query is not finite). Runs on the calling
    /// thread alone.
    ///
    /// # Panics
    /// If `range` does not start on a panel or exceeds the rows, or `queries` and `out` do not have these
    /// shapes.
    pub fn products(&self, queries: &[f32], range: Range<usize>, out: &mut [f32]) {
        let (width, count) = (Self::width(&range), queries.len() / self.dim);
        assert!(
            range.start.is_multiple_of(PANEL) && range.end <= self.rows,
            "{range:?} of {} rows",
            self.rows
        );
        assert_eq!((queries.len(), out.len()), (count * self.dim, count * width), "queries and products");
        let pointers: Vec<*const f32> = queries.chunks_exact(self.dim).map(<[f32]>::as_ptr).collect();
        let targets: Vec<*mut f32> = out.chunks_exact_mut(width.max(1)).map(<[f32]>::as_mut_ptr).collect();
        dispatch(Products {
            left: Indirect { pointers: pointers.as_ptr(), pointer_stride: 0, taps: 1, depth: self.dim },
            rows: targets.len(),
            panels: &self.panels[range.start * self.dim..][..width * self.dim],
            count: width / PANEL,
            out: &targets,
        });
    }
}

struct Products<'a> {
    left: Indirect,
    rows: usize,
    panels: &'a [f32],
    count: usize,
    out: &'a [*mut f32],
}

impl Kernel for Products<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: `products` made one pointer to `depth` values and one to `count` panels of output for each
        // row.
        unsafe {
            indirect_product::<V>(self.rows, self.count, self.left, self.panels.as_ptr(), self.out.as_ptr());
        }
    }
}

/// Bounds the error of a sum of `terms` products of f32, relative to the product of the two rows' lengths:
/// `n u / (1 - n u)` with u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
/// The sum may be taken in any order, fused or not. The bound leaves room for three more roundings of each
/// product's factors. It is infinite where `n u` is too large for a bound.
///
/// ```
/// use invaspread_tensor::inner_products::{exact_product, rounding};
///
/// let row = [0.1f32; 128];
/// let in_f32: f32 = row.iter().map(|x| x * x).sum();
/// let error = (f64::from(in_f32) - exact_product(&row, &row)).abs();
/// assert!(error <= rounding(128) * exact_product(&row, &row));
/// ```
pub fn rounding(terms: usize) -> f64 {
    let share = (terms + 3) as f64 * f64::from(f32::EPSILON) / 2.0;
    if share < 0.5 { share / (1.0 - share) } else { f64::INFINITY }
}

/// Lanes of a sum in f64. The number is the same on every instruction set, so that all give the same bits.
const LANES: usize = 16;

/// Returns `a · b` in f64, where products of two f32 are exact: the same bits on every instruction set.
///
/// ```
/// // In f32 the ones would be lost beside 2^24.
/// let (a, b) = ([16_777_216f32, 1.0, 1.0], [1f32, 1.0, 1.0]);
/// assert_eq!(invaspread_tensor::inner_products::exact_product(&a, &b), 16_777_218.0);
/// ```
///
/// # Panics
/// If the two differ in length.
pub fn exact_product(a: &[f32], b: &[f32]) -> f64 {
    sum_in_lanes(a, b, |a, b| a * b)
}

/// Returns `|a - b|²`, computed from the differences in f64: the same bits on every instruction set.
///
/// ```
/// let squared = invaspread_tensor::inner_products::exact_squared_distance(&[1.0, 2.0], &[4.0, 6.0]);
/// assert_eq!(squared, 25.0);
/// ```
///
/// # Panics
/// If the two differ in length.
pub fn exact_squared_distance(a: &[f32], b: &[f32]) -> f64 {
    sum_in_lanes(a, b, |a, b| (a - b) * (a - b))
}

/// Returns `Σ term(a_i, b_i)`: term i goes to lane i mod [`LANES`], then the lanes are added in order.
fn sum_in_lanes(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(a.len(), b.len(), "one row against another");
    let mut sums = [0.0; LANES];
    dispatch(SumInLanes { a, b, term, sums: &mut sums });
    sums.iter().sum()
}

struct SumInLanes<'a, T> {
    a: &'a [f32],
    b: &'a [f32],
    term: T,
    sums: &'a mut [f64; LANES],
}

impl<T: Fn(f64, f64) -> f64> Kernel for SumInLanes<'_, T> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // The compiler vectorizes this plain code for the instruction set, and fuses no operations.
        let ((a, a_rest), (b, b_rest)) = (self.a.as_chunks::<LANES>(), self.b.as_chunks::<LANES>());
        let mut sums = [0.0; LANES];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                sums[lane] += (self.term)(f64::from(a[lane]), f64::from(b[lane]));
            }
        }
        for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
            *sum += (self.term)(f64::from(a), f64::from(b));
        }
        *self.sums = sums;
    }
}

/// Appends the places of the values that are greater than `floor`, in order, to `found`. A NaN is not greater
/// than anything, and does not hide the values beside it.
///
/// ```
/// use invaspread_tensor::inner_products::positions_above;
///
/// let mut found = Vec::new();
/// positions_above(&[0.0, 3.0, f32::NAN, 1.0, 2.0], 1.0, &mut found);
/// assert_eq!(found, [1, 4]);
/// ```
///
/// # Panics
/// If there are 2^32 values or more.
pub fn positions_above(values: &[f32], floor: f32, found: &mut Vec<u32>) {
    assert!(u32::try_from(values.len()).is_ok(), "{} values at once", values.len());
    dispatch(PositionsAbove { values, floor, found });
}

/// Values that are compared together: most groups have none above the floor.
const GROUP: usize = 32;

struct PositionsAbove<'a> {
    values: &'a [f32],
    floor: f32,
    found: &'a mut Vec<u32>,
}

impl Kernel for PositionsAbove<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { values, floor, found } = self;
        let lowest = V::splat(floor);
        let groups = values.chunks_exact(GROUP);
        let rest = groups.remainder();
        for (number, group) in groups.enumerate() {
            let mut bits = 0;
            for lane in (0..GROUP).step_by(V::LANES) {
                // SAFETY: the vectors of a whole group.
                bits |= unsafe { V::load(group.as_ptr().add(lane)) }.above(lowest) << lane;
            }
            while bits != 0 {
                found.push((number * GROUP) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        let start = values.len() - rest.len();
        let above = rest.iter().enumerate().filter(|(_, value)| **value > floor);
        found.extend(above.map(|(place, _)| (start + place) as u32));
    }
}

#[cfg(test)]
mod tests {
    use super::{PackedRows, exact_product, exact_squared_distance, positions_above, rounding};
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn products_are_inner_products(
            rows in 1usize..80, queries in 0usize..40, dim in 1usize..40, start in 0usize..5, len in 0usize..80, seed: u64,
        ) {
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| stream.normal() as f32).collect() };
            let (gallery, queries) = (draw(rows * dim), draw(queries * dim));
            let packed = PackedRows::new(rows, dim, |row, to| to.copy_from_slice(&gallery[row * dim..][..dim]));
            let start = (start * PackedRows::PANEL).min(rows / PackedRows::PANEL * PackedRows::PANEL);
            let range = start..(start + len).min(rows);
            let width = PackedRows::width(&range);
            let mut out = vec![f32::NAN; queries.len() / dim * width];
            packed.products(&queries, range.clone(), &mut out);
            for (i, query) in queries.chunks(dim).enumerate() {
                for j in range.clone() {
                    let want: f64 = query.iter().zip(&gallery[j * dim..]).map(|(a, b)| f64::from(a * b)).sum();
                    let got = f64::from(out[i * width + j - start]);
                    prop_assert!((got - want).abs() < 1e-5 * (1.0 + dim as f64), "{got} {want}");
                }
            }
        }

        #[test]
        fn sums_in_f64_are_exact_and_those_of_f32_within_the_bound(dim in 1usize..300, scale in -12i32..12, seed: u64) {
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let mut draw = || -> Vec<f32> { (0..dim).map(|_| (stream.normal() * 2.0_f64.powi(scale)) as f32).collect() };
            let (a, b) = (draw(), draw());
            let pairs = || a.iter().zip(&b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
            let (product, distance) = (exact_product(&a, &b), exact_squared_distance(&a, &b));
            let lengths = (exact_product(&a, &a) * exact_product(&b, &b)).sqrt();
            prop_assert!((product - pairs().map(|(a, b)| a * b).sum::<f64>()).abs() <= 1e-13 * lengths);
            let want: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
            prop_assert!((distance - want).abs() <= 1e-13 * want);
            let packed = PackedRows::new(1, dim, |_, to| to.copy_from_slice(&b));
            let mut out = vec![0.0; PackedRows::width(&(0..1))];
            packed.products(&a, 0..1, &mut out);
            prop_assert!((f64::from(out[0]) - product).abs() <= rounding(dim) * lengths);
        }

        #[test]
        fn the_positions_above_are_found(len in 0usize..200, floor in -2.0f32..3.0, seed: u64) {
            let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
            let values: Vec<f32> = (0..len).map(|_| stream.normal() as f32).collect();
            let mut found = vec![7];
            positions_above(&values, floor, &mut found);
            let want: Vec<u32> = (0..len as u32).filter(|&i| values[i as usize] > floor).collect();
            prop_assert_eq!(found[0], 7);
            prop_assert_eq!(&found[1..], want);
        }
    }
}
