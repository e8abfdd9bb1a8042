//! Finds the order of neighbors where f32 is not precise enough: similarities that differ by less than its
//! rounding errors are computed again in f64.
//!
//! A similarity computed in f32 has an error of at most `E = c (|q| max|g| + max|b|)` ([`rounding`]; b is the
//! term of a common offset, see `write_row`). So the k nearest are among the rows whose f32 similarity is at
//! most 2 E below the k-th largest, and two similarities that are more than 2 E apart are in their true
//! order. Similarities that are closer than that are ordered by the inner product in f64, which holds each
//! product of two f32 exactly, and by index if those are equal. A row of length 1 has that length only up to
//! the rounding of its numbers to f32, and in a narrow cone that rounding is larger than the differences
//! between rows. So if all rows of a gallery have length 1 up to rounding, the similarity is that of the
//! directions: `q · g / |g|`, in f64.
//!
//! If more rows are that close than a buffer holds, as in a gallery of a few distant narrow groups, all
//! similarities of the query are computed in f64.

use crate::Rows;
use crate::rows::less_offset;
use invaspread_tensor::inner_products::{exact_product, rounding};
use rayon::prelude::*;
use std::borrow::Cow;
use std::cmp::Ordering;

/// The largest error of f32 in a product below its normal range. GPUs, and CPUs with some settings, replace
/// such products by zero.
pub(crate) const UNDERFLOW: f64 = f32::MIN_POSITIVE as f64;

/// The largest distance from 1 of the square of a unit row's length.
pub(crate) const UNIT_ERROR: f64 = 2.0 * f32::EPSILON as f64;

/// The way in which products with a gallery are computed, and the sizes that bound their errors.
#[derive(Debug)]
pub(crate) struct Scale {
    dim: usize,
    /// Whether all rows of the gallery have length 1, up to the rounding of f32.
    unit: bool,
    /// (d) the vector that is subtracted from queries and gallery; `None` where that would not help.
    offset: Option<Vec<f32>>,
    /// The length of the longest row of the gallery after the offset is subtracted.
    longest: f64,
    /// The largest term of the offset.
    largest_term: f64,
}

impl Scale {
    pub(crate) fn of(gallery: Rows) -> Self {
        let unit = gallery.values.chunks(gallery.dim).all(is_unit);
        let mut scale =
            Self { dim: gallery.dim, unit, offset: gallery.common_offset(), longest: 0.0, largest_term: 0.0 };
        if scale.has_offset() {
            let mut row = vec![0.0; scale.width()];
            let (mut longest, mut largest) = (0.0, 0.0);
            for values in gallery.values.chunks(gallery.dim) {
                scale.write_row(values, &mut row);
                let (values, term) = row.split_at(gallery.dim);
                longest = f64::max(longest, exact_product(values, values));
                largest = f64::max(largest, f64::from(term[0]).abs());
            }
            // The term has been rounded once.
            (scale.longest, scale.largest_term) = (longest.sqrt(), largest * (1.0 + f64::from(f32::EPSILON)));
        } else {
            scale.longest = gallery.longest_square().sqrt();
        }
        scale
    }

    /// Returns the similarity of two rows (d) in f64.
    pub(crate) fn exact(&self, query: &[f32], row: &[f32]) -> f64 {
        let product = exact_product(query, row);
        if !self.unit {
            return product;
        }
        let own = if is_unit(query) { exact_product(query, query).sqrt() } else { 1.0 };
        product / (own * exact_product(row, row).sqrt())
    }

    pub(crate) fn has_offset(&self) -> bool {
        self.offset.is_some()
    }

    /// Returns the number of values of a row in the form in which it is multiplied: d, or d + 1 with an
    /// offset.
    pub(crate) fn width(&self) -> usize {
        self.dim + usize::from(self.has_offset())
    }

    /// Writes a gallery `row` (d) in the form in which it is multiplied.
    pub(crate) fn write_row(&self, row: &[f32], to: &mut [f32]) {
        let Some(offset) = &self.offset else { return to.copy_from_slice(row) };
        let length = if self.unit { exact_product(row, row).sqrt() } else { 1.0 };
        // The term is computed from differences in f64. In a narrow cone, the rounding of the differences to
        // f32 would exceed their sum.
        let mut term = 0.0;
        for ((to, &value), &offset) in to.iter_mut().zip(row).zip(offset) {
            let less = f64::from(value) / length - f64::from(offset);
            term += f64::from(offset) * less;
            *to = less as f32;
        }
        to[self.dim] = term as f32;
    }

    /// Returns `queries` (n, d) in the form in which they are multiplied, (n, width).
    pub(crate) fn queries<'a>(&self, queries: Rows<'a>) -> Cow<'a, [f32]> {
        match &self.offset {
            None => Cow::Borrowed(queries.values),
            Some(offset) => queries
                .values
                .chunks(self.dim)
                .flat_map(|row| less_offset(row, offset).chain(std::iter::once(1.0)))
                .collect(),
        }
    }

    /// Returns 2 E for the query `row` (d): similarities further apart than this are in their true order.
    /// Infinite where products may be too large for f32.
    pub(crate) fn margin(&self, row: &[f32]) -> f64 {
        let square: f64 = match &self.offset {
            None => exact_product(row, row),
            Some(offset) => less_offset(row, offset).map(|v| f64::from(v).powi(2)).sum(),
        };
        let size = square.sqrt() * self.longest + self.largest_term;
        twice_off(self.width() + 2, size) // a length of 1 adds the error of two more roundings
    }
}

/// The similarities in f64 of queries with the rows of a gallery, beside the products in f32 that approximate them.
#[derive(Debug)]
pub(crate) struct ExactSimilarities<'a> {
    gallery: Rows<'a>,
    scale: &'a Scale,
    /// (m) the lengths of the rows; `None` if they do not count.
    lengths: Option<Vec<f64>>,
    /// The length of the longest row.
    longest: f64,
}

impl<'a> ExactSimilarities<'a> {
    pub(crate) fn new(gallery: Rows<'a>, scale: &'a Scale) -> Self {
        let squares: Vec<f64> =
            gallery.values.par_chunks(gallery.dim).map(|row| exact_product(row, row)).collect();
        let longest = squares.iter().copied().fold(0.0, f64::max).sqrt();
        let lengths = scale.unit.then(|| squares.into_iter().map(f64::sqrt).collect());
        Self { gallery, scale, lengths, longest }
    }

    /// Returns the similarities of `query` (d); `None` if its products may be too large for f32.
    pub(crate) fn of(&'a self, query: &'a [f32]) -> Option<OfQuery<'a>> {
        let margin = self.scale.margin(query);
        if margin.is_infinite() {
            return None;
        }
        let length = exact_product(query, query).sqrt();
        let own = if self.scale.unit && is_unit(query) { length } else { 1.0 };
        let offset = self.scale.offset.as_deref();
        let shift = offset.map_or(0.0, |offset| exact_product(query, offset));
        // What f64 itself rounds in the similarity, the shift and the step from one to the other.
        let terms = (self.scale.dim + 8) as f64;
        let size = length * (self.longest + offset.map_or(0.0, |o| exact_product(o, o).sqrt()));
        let margin = margin + 4.0 * terms * f64::EPSILON * size;
        Some(OfQuery { of: self, query, own, shift, margin })
    }
}

/// The similarities of one query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfQuery<'a> {
    of: &'a ExactSimilarities<'a>,
    query: &'a [f32],
    own: f64,
    shift: f64,
    /// Two products in f32, or one of them and [`OfQuery::as_product`] of a similarity, that are further apart than
    /// this are in the order of the similarities.
    pub(crate) margin: f64,
}

impl OfQuery<'_> {
    /// Returns the similarity to gallery row `row`: that of [`Scale::exact`].
    pub(crate) fn similarity(&self, row: usize) -> f64 {
        let product = exact_product(self.query, self.of.gallery.row(row));
        match &self.of.lengths {
            Some(lengths) => product / (self.own * lengths[row]),
            None => product,
        }
    }

    /// Returns the product that a similarity would have without rounding. Larger similarities have larger products.
    pub(crate) fn as_product(&self, similarity: f64) -> f64 {
        similarity * self.own - self.shift
    }

    /// Returns the similarity that a product stands for. Its error is at most `margin / own`.
    pub(crate) fn of_product(&self, product: f32) -> f64 {
        (f64::from(product) + self.shift) / self.own
    }

    /// Returns the largest error of [`OfQuery::of_product`].
    pub(crate) fn error(&self) -> f64 {
        self.margin / self.own
    }
}

/// Returns twice the largest error of a sum of `terms` products in f32, where `size` is the product of the
/// lengths of the two rows. Infinite where the sum may be too large for f32.
pub(crate) fn twice_off(terms: usize, size: f64) -> f64 {
    match size {
        // Products of zeros are exact.
        0.0 => 0.0,
        size if size > f64::from(f32::MAX) => f64::INFINITY,
        size => 2.0 * (rounding(terms) * size + terms as f64 * UNDERFLOW),
    }
}

/// Returns whether the length of a row is 1 up to the rounding of f32.
fn is_unit(row: &[f32]) -> bool {
    (exact_product(row, row) - 1.0).abs() <= UNIT_ERROR
}

/// Returns the largest f32 below all numbers within `margin` of `similarity`; the similarity itself for a
/// margin of zero.
pub(crate) fn lowered(similarity: f32, margin: f64) -> f32 {
    if margin == 0.0 { similarity } else { ((f64::from(similarity) - margin) as f32).next_down() }
}

/// A query and the gallery that it is looked up in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// (d)
    pub(crate) query: &'a [f32],
    pub(crate) gallery: Rows<'a>,
    /// The scale of the gallery.
    pub(crate) scale: &'a Scale,
    pub(crate) k: usize,
    /// The gallery row to leave out.
    pub(crate) itself: Option<usize>,
}

impl Asked<'_> {
    /// Returns the similarity to gallery row `row`, in f64.
    fn similarity(&self, row: u32) -> f64 {
        self.scale.exact(self.query, self.gallery.row(row as usize))
    }
}

/// Writes the k nearest rows to `indices` and `similarities` (k), nearest first. `keys` are the candidates by
/// their f32 similarities, largest first: at least all within `margin` of the k-th, or `None` if they were
/// too many. With an offset, every similarity is computed in f64; without one, only those that decide an
/// order.
///
/// Returns `None` if NaN or infinite similarities leave fewer than k.
pub(crate) fn settle(
    asked: &Asked,
    keys: Option<&[u64]>,
    margin: f64,
    indices: &mut [u32],
    similarities: &mut [f32],
) -> Option<()> {
    let mut places = indices.iter_mut().zip(similarities.iter_mut());
    let Some(keys) = keys else {
        for ((index, similarity), (exact, row)) in places.zip(nearest_in_f64(asked)) {
            (*index, *similarity) = (row, exact as f32);
        }
        return similarities.iter().all(|s| s.is_finite()).then_some(());
    };
    if keys.len() < asked.k || similarity_of(keys[0]).is_infinite() {
        return None;
    }
    let near = |a: &u64, b: &u64| f64::from(similarity_of(*a)) - f64::from(similarity_of(*b)) <= margin;
    for group in keys.chunk_by(near) {
        if places.len() == 0 {
            break;
        }
        if let ([key], false) = (group, asked.scale.has_offset()) {
            let (index, similarity) = places.next()?;
            (*index, *similarity) = (index_of(*key), similarity_of(*key));
            continue;
        }
        let mut exact: Vec<(f64, u32)> =
            group.iter().map(|&key| (asked.similarity(index_of(key)), index_of(key))).collect();
        exact.sort_unstable_by(nearer);
        // `zip` takes from `places` second, so that a neighbor for which there is no place uses none up.
        for ((product, row), (index, similarity)) in exact.into_iter().zip(places.by_ref()) {
            (*index, *similarity) = (row, product as f32);
        }
    }
    similarities.iter().all(|s| s.is_finite()).then_some(())
}

/// Orders by descending product, then by ascending index.
fn nearer(a: &(f64, u32), b: &(f64, u32)) -> Ordering {
    (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1)) // -0.0 + 0.0 is 0.0: both zeros are equal
}

/// Returns the k nearest by products in f64, nearest first.
fn nearest_in_f64(asked: &Asked) -> Vec<(f64, u32)> {
    let &Asked { gallery, k, itself, .. } = asked;
    let capacity = 2 * k + 64;
    let mut kept: Vec<(f64, u32)> = Vec::with_capacity(capacity);
    let mut floor = f64::NEG_INFINITY;
    for row in 0..gallery.len() as u32 {
        let product = asked.similarity(row);
        if product > floor && Some(row as usize) != itself {
            kept.push((product, row));
            if kept.len() == capacity {
                kept.select_nth_unstable_by(k - 1, nearer);
                kept.truncate(k);
                floor = kept[k - 1].0; // of equal products the one with the lower index stays
            }
        }
    }
    kept.sort_unstable_by(nearer);
    kept.truncate(k);
    kept
}

/// Returns one integer that orders by similarity, then by descending index.
pub(crate) fn key(similarity: f32, index: u32) -> u64 {
    let bits = (similarity + 0.0).to_bits(); // -0.0 + 0.0 is 0.0: both zeros are equal
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(u32::MAX - index)
}

/// Returns the similarity in a [`key`].
pub(crate) fn similarity_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

/// Returns the index in a [`key`].
fn index_of(key: u64) -> u32 {
    u32::MAX - key as u32
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{index_of, key, similarity_of};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_orders_by_similarity_then_index(a: f32, b: f32, i: u32, j: u32) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            let want = a.partial_cmp(&b).unwrap().then(j.cmp(&i));
            prop_assert_eq!(key(a, i).cmp(&key(b, j)), want);
            prop_assert_eq!(similarity_of(key(a, i)), a);
            prop_assert_eq!(index_of(key(a, i)), i);
        }
    }
}
