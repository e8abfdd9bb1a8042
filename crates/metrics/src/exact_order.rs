//! The order of neighbours where f32 is not enough: what is within its rounding is asked again in f64.
//!
//! A similarity taken in f32 is off by at most `E = c (|q| max|g| + max|b|)` ([`rounding`]; b is the term of a common offset, see below). So
//! the k nearest are among those whose f32 similarity is no further than 2 E below the k-th largest, and two that are further than 2 E apart
//! are in their true order. What is nearer is ordered by its product in f64, in which products of f32 are exact, equal ones by index.
//! Where more than a buffer holds are that near, as in a gallery of a few far-off narrow groups, the query's whole row is taken in
//! f64.

use crate::Rows;
use crate::rows::less_offset;
use invaspread_tensor::inner_products::{exact_product, rounding};
use std::borrow::Cow;
use std::cmp::Ordering;

/// What f32 may lose of a product below its range, for each term: graphics processors and some settings take such numbers as zero.
const UNDERFLOW: f64 = f32::MIN_POSITIVE as f64;

/// How a gallery's products are taken, and how far off they may be.
#[derive(Debug)]
pub(crate) struct Scale {
    dim: usize,
    /// (d) what is taken off both sides; none where it would help little.
    offset: Option<Vec<f32>>,
    /// The length of the gallery's longest row, less the offset.
    longest: f64,
    /// The largest term of the offset.
    largest_term: f64,
}

impl Scale {
    pub(crate) fn of(gallery: Rows) -> Self {
        let mut scale = Self { dim: gallery.dim, offset: gallery.common_offset(), longest: 0.0, largest_term: 0.0 };
        if let Some(offset) = &scale.offset {
            let mut row = vec![0.0; gallery.dim];
            let (mut longest, mut largest) = (0.0, 0.0);
            for values in gallery.values.chunks(gallery.dim) {
                row.iter_mut().zip(less_offset(values, offset)).for_each(|(to, v)| *to = v);
                longest = f64::max(longest, exact_product(&row, &row));
                largest = f64::max(largest, term_of(values, offset).abs());
            }
            (scale.longest, scale.largest_term) = (longest.sqrt(), largest);
        } else {
            scale.longest = gallery.longest_square().sqrt();
        }
        scale
    }

    pub(crate) fn has_offset(&self) -> bool {
        self.offset.is_some()
    }

    /// Numbers of a row as it is multiplied: d, or one more with an offset.
    pub(crate) fn width(&self) -> usize {
        self.dim + usize::from(self.has_offset())
    }

    /// Writes `row` (d) of the gallery as it is multiplied.
    pub(crate) fn write_row(&self, row: &[f32], to: &mut [f32]) {
        if let Some(offset) = &self.offset {
            to.iter_mut().zip(less_offset(row, offset)).for_each(|(to, v)| *to = v);
            to[self.dim] = term_of(row, offset) as f32;
        } else {
            to.copy_from_slice(row);
        }
    }

    /// (n, width) `queries` (n, d) as they are multiplied.
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

    /// 2 E for the query `row` (d): similarities further apart than this are in their true order. Infinite where products may leave the range
    /// of f32.
    pub(crate) fn margin(&self, row: &[f32]) -> f64 {
        let square: f64 = match &self.offset {
            None => exact_product(row, row),
            Some(offset) => less_offset(row, offset).map(|v| f64::from(v).powi(2)).sum(),
        };
        let size = square.sqrt() * self.longest + self.largest_term;
        twice_off(self.width(), size)
    }
}

/// Twice what a sum of `terms` products in f32 may be off by, with `size` the product of the two rows' lengths. Infinite where the sum may
/// leave the range of f32.
pub(crate) fn twice_off(terms: usize, size: f64) -> f64 {
    match size {
        // Zeros are exact.
        0.0 => 0.0,
        size if size > f64::from(f32::MAX) => f64::INFINITY,
        size => 2.0 * (rounding(terms) * size + terms as f64 * UNDERFLOW),
    }
}

/// `m · (g - m)`, from the differences in f64: their rounding to f32 would be larger than what is left of them in a narrow cone.
fn term_of(row: &[f32], offset: &[f32]) -> f64 {
    row.iter().zip(offset).map(|(&g, &m)| f64::from(m) * (f64::from(g) - f64::from(m))).sum()
}

/// The largest f32 that is below everything within `margin` of `similarity`; the similarity itself for a margin of zero.
pub(crate) fn lowered(similarity: f32, margin: f64) -> f32 {
    if margin == 0.0 { similarity } else { ((f64::from(similarity) - margin) as f32).next_down() }
}

/// A query that asks for its nearest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// (d)
    pub(crate) query: &'a [f32],
    pub(crate) gallery: Rows<'a>,
    pub(crate) k: usize,
    /// The gallery's row that is left out.
    pub(crate) itself: Option<usize>,
}

/// Writes the k nearest to `to`, indices and similarities, nearest first. `keys` are those of f32, largest first: all within `margin` of the
/// k-th at least, or none if they were too many. With `all` every similarity is taken in f64, not only those that decide an order.
///
/// `None` if NaN or infinite similarities left fewer than k.
pub(crate) fn settle(
    asked: &Asked,
    keys: Option<Vec<u64>>,
    margin: f64,
    all: bool,
    to: (&mut [u32], &mut [f32]),
) -> Option<()> {
    let mut places = to.0.iter_mut().zip(to.1.iter_mut());
    let Some(keys) = keys else {
        for ((index, similarity), (exact, row)) in places.zip(nearest_in_f64(asked)) {
            (*index, *similarity) = (row, exact as f32);
        }
        return to.1.iter().all(|s| s.is_finite()).then_some(());
    };
    if keys.len() < asked.k || similarity_of(keys[0]).is_infinite() {
        return None;
    }
    let near = |a: &u64, b: &u64| f64::from(similarity_of(*a)) - f64::from(similarity_of(*b)) <= margin;
    for group in keys.chunk_by(near) {
        if places.len() == 0 {
            break;
        }
        if let ([key], false) = (group, all) {
            let (index, similarity) = places.next()?;
            (*index, *similarity) = (index_of(*key), similarity_of(*key));
            continue;
        }
        let mut exact: Vec<(f64, u32)> = group
            .iter()
            .map(|&key| (exact_product(asked.query, asked.gallery.row(index_of(key) as usize)), index_of(key)))
            .collect();
        exact.sort_unstable_by(nearer);
        // The places come second: a neighbour left over must not use one up.
        for ((product, row), (index, similarity)) in exact.into_iter().zip(places.by_ref()) {
            (*index, *similarity) = (row, product as f32);
        }
    }
    to.1.iter().all(|s| s.is_finite()).then_some(())
}

/// By product downwards, then by index upwards.
fn nearer(a: &(f64, u32), b: &(f64, u32)) -> Ordering {
    (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1)) // -0.0 + 0.0 is 0.0: the two zeros tie
}

/// The k nearest by products in f64 alone, nearest first.
fn nearest_in_f64(asked: &Asked) -> Vec<(f64, u32)> {
    let &Asked { query, gallery, k, itself } = asked;
    let capacity = 2 * k + 64;
    let mut kept: Vec<(f64, u32)> = Vec::with_capacity(capacity);
    let mut floor = f64::NEG_INFINITY;
    for (row, values) in gallery.values.chunks(gallery.dim).enumerate() {
        let product = exact_product(query, values);
        if product > floor && Some(row) != itself {
            kept.push((product, row as u32));
            if kept.len() == capacity {
                kept.select_nth_unstable_by(k - 1, nearer);
                kept.truncate(k);
                floor = kept[k - 1].0; // what comes later loses a tie
            }
        }
    }
    kept.sort_unstable_by(nearer);
    kept.truncate(k);
    kept
}

/// One integer that orders by similarity, then by falling index.
pub(crate) fn key(similarity: f32, index: u32) -> u64 {
    let bits = (similarity + 0.0).to_bits(); // -0.0 + 0.0 is 0.0: the two zeros tie
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(u32::MAX - index)
}

/// The similarity in a [`key`].
pub(crate) fn similarity_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

/// The index in a [`key`].
fn index_of(key: u64) -> u32 {
    u32::MAX - key as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the values compared are exact")]

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
