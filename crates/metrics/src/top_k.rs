//! Finds the exact nearest neighbors of every query by inner product, in blocks.
//!
//! With `s_ij = q_i · g_j`, it returns the k largest of each row i of s, by descending similarity, and by
//! ascending index if similarities are equal.
//!
//! Shapes: queries (n, d), gallery (m, d), result (n, k). Blocks of queries are processed in parallel; for
//! each block, the gallery is multiplied block by block. A query keeps its candidates in a buffer of a few
//! times k. Only similarities above the k-th best so far enter it, and a full buffer is cut back to the k
//! best. So a similarity costs one comparison, and n x m numbers are never held.
//!
//! Neighbors whose f32 similarities differ by more than the rounding errors are ordered by them. The others
//! are compared again in f64 (`crate::exact_order`), so the order is that of the exact products of the given
//! rows, ties included. (If all rows of the gallery have length 1 up to rounding, it is the order of the
//! exact cosines.) If the gallery lies in a narrow cone, as nearly collapsed embeddings do, or far from the
//! origin, its mean m is subtracted from both sides first: `q · g = (q - m) · (g - m) + m · (g - m) + q · m`.
//! The last term is the same for all g; the middle one is stored with the row as one more number.
//!
//! The result does not depend on threads or blocks: every inner product is one sum, taken in the same order
//! everywhere.

use crate::exact_order::{Asked, Scale, key, lowered, settle, similarity_of};
use crate::{MetricError, Rows};
use invaspread_tensor::inner_products::{PackedRows, positions_above};
use rayon::prelude::*;
use std::ops::Range;

/// The k nearest gallery rows of each query.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbors {
    /// The number of neighbors of each query: the requested k, or all rows of a smaller gallery.
    pub k: usize,
    /// (n, k) the indices of the gallery rows, nearest first.
    pub indices: Vec<u32>,
    /// (n, k) the inner products of these rows with the query.
    pub similarities: Vec<f32>,
}

impl Neighbors {
    /// Returns the neighbors of query `row`, nearest first, and their similarities.
    pub fn of(&self, row: usize) -> (&[u32], &[f32]) {
        let range = row * self.k..(row + 1) * self.k;
        (&self.indices[range.clone()], &self.similarities[range])
    }
}

/// Finds for each query the `k` gallery rows with the largest inner products; equal similarities are ordered
/// by index.
///
/// If the gallery has fewer rows, fewer are returned. With `exclude_self`, queries and gallery must be the
/// same rows, and query i leaves out gallery row i.
///
/// ```
/// use invaspread_metrics::{Rows, top_k};
///
/// let gallery = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
/// let found = top_k(Rows::new(&[0.8, 0.6], 2), Rows::new(&gallery, 2), 2, false)?;
/// assert_eq!(found.of(0).0, [2, 0]);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
///
/// # Errors
/// If a row holds NaN or an infinity (`NotFinite` names the first one), or the inner products of a query are
/// too large for f32 (`Overflow` names the query).
///
/// # Panics
/// If the dimensions differ, the gallery has 2^32 rows or more, or `exclude_self` is set and the two sets
/// differ in size.
pub fn top_k(queries: Rows, gallery: Rows, k: usize, exclude_self: bool) -> Result<Neighbors, MetricError> {
    search(queries, gallery, k, exclude_self, Blocks { queries: 192, gallery: 512 })
}

/// Sizes of blocks: 192 queries, 512 gallery rows and their products fit into a second-level cache of 1 MiB.
/// The number of gallery rows is a multiple of [`PackedRows::PANEL`].
#[derive(Debug, Clone, Copy)]
struct Blocks {
    queries: usize,
    gallery: usize,
}

fn search(
    queries: Rows,
    gallery: Rows,
    k: usize,
    exclude_self: bool,
    blocks: Blocks,
) -> Result<Neighbors, MetricError> {
    assert_eq!(queries.dim, gallery.dim, "queries and gallery differ in dimension");
    assert!(u32::try_from(gallery.len()).is_ok(), "a gallery of {} rows", gallery.len());
    assert!(!exclude_self || queries.len() == gallery.len(), "exclude_self needs one set on both sides");
    queries.check_finite("queries")?;
    gallery.check_finite("gallery")?;

    let k = k.min(gallery.len().saturating_sub(usize::from(exclude_self)));
    let mut indices = vec![0; queries.len() * k];
    let mut similarities = vec![0.0; queries.len() * k];
    if indices.is_empty() {
        return Ok(Neighbors { k, indices, similarities });
    }
    let scale = Scale::of(gallery);
    let packed =
        PackedRows::new(gallery.len(), scale.width(), |row, to| scale.write_row(gallery.row(row), to));
    indices
        .par_chunks_mut(blocks.queries * k)
        .zip(similarities.par_chunks_mut(blocks.queries * k))
        .enumerate()
        .try_for_each(|(block, (indices, similarities))| {
            let first = block * blocks.queries;
            let numbers = first..first + indices.len() / k;
            let margins: Vec<f64> = numbers.clone().map(|row| scale.margin(queries.row(row))).collect();
            if let Some(row) = margins.iter().position(|margin| margin.is_infinite()) {
                return Err(MetricError::Overflow { row: first + row });
            }
            let values = queries.slice(numbers.clone());
            let there = Rows::new(values, queries.dim);
            let found = candidates_of(
                &scale.queries(there),
                numbers,
                &packed,
                (k, &margins),
                exclude_self,
                blocks.gallery,
            );
            for (offset, candidates) in found.into_iter().enumerate() {
                let row = first + offset;
                let itself = exclude_self.then_some(row);
                let asked = Asked { query: queries.row(row), gallery, scale: &scale, k, itself };
                let range = offset * k..(offset + 1) * k;
                let (indices, similarities) = (&mut indices[range.clone()], &mut similarities[range]);
                settle(&asked, candidates.into_keys().as_deref(), margins[offset], indices, similarities)
                    .ok_or(MetricError::Overflow { row })?;
            }
            Ok(())
        })?;
    Ok(Neighbors { k, indices, similarities })
}

/// Compares the queries numbered `numbers`, whose values are `queries`, with the whole gallery. Returns the
/// candidates of each: its k best and all rows within its margin of them.
fn candidates_of(
    queries: &[f32],
    numbers: Range<usize>,
    gallery: &PackedRows,
    (k, margins): (usize, &[f64]),
    exclude_self: bool,
    at_once: usize,
) -> Vec<Candidates> {
    let mut candidates: Vec<Candidates> = margins.iter().map(|&margin| Candidates::new(k, margin)).collect();
    let (mut products, mut above) = (vec![0.0; numbers.len() * at_once], Vec::new());
    for start in (0..gallery.len()).step_by(at_once) {
        let range = start..(start + at_once).min(gallery.len());
        let width = PackedRows::width(&range);
        let products = &mut products[..numbers.len() * width];
        gallery.products(queries, range.clone(), products);
        for ((row, candidates), products) in
            numbers.clone().zip(&mut candidates).zip(products.chunks_exact(width))
        {
            let itself = if exclude_self { row } else { usize::MAX };
            candidates.offer(&products[..range.len()], start, itself, &mut above);
        }
    }
    candidates
}

/// The best gallery rows so far for one query, up to a few times k of them.
struct Candidates {
    k: usize,
    capacity: usize,
    /// Twice the largest error of a similarity: rows this near to the k-th best are kept.
    margin: f64,
    /// The keys of the rows (see [`key`]); a larger key is better.
    keys: Vec<u64>,
    /// No later row at or below this similarity can be among the k best, since it has a larger index and
    /// loses a tie.
    floor: f32,
    /// Whether more rows are within the margin than the buffer holds.
    crowded: bool,
}

impl Candidates {
    fn new(k: usize, margin: f64) -> Self {
        let capacity = k + k.max(64);
        Self {
            k,
            capacity,
            margin,
            keys: Vec::with_capacity(capacity),
            floor: f32::NEG_INFINITY,
            crowded: false,
        }
    }

    /// Adds the similarities of gallery rows `start..`, except that of row `itself`. `above` is scratch memory.
    fn offer(&mut self, similarities: &[f32], start: usize, itself: usize, above: &mut Vec<u32>) {
        above.clear();
        // Once the floor is high, this is one comparison for nearly every group of values.
        positions_above(similarities, self.floor, above);
        for &place in above.iter() {
            let (similarity, index) = (similarities[place as usize], start + place as usize);
            // The floor may have risen meanwhile.
            if similarity > self.floor && index != itself {
                self.keys.push(key(similarity, index as u32));
                if self.keys.len() == self.capacity {
                    self.cut();
                }
            }
        }
    }

    /// Keeps the k best and all rows within the margin of them, in no order.
    fn cut(&mut self) {
        let (_, &mut kth, _) = self.keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
        self.floor = lowered(similarity_of(kth), self.margin);
        if self.margin > 0.0 {
            self.keys.retain(|&key| similarity_of(key) > self.floor);
        } else {
            self.keys.truncate(self.k);
        }
        if self.keys.len() > self.k + (self.capacity - self.k) / 2 {
            (self.crowded, self.floor) = (true, f32::INFINITY);
            self.keys = Vec::new();
        }
    }

    /// Returns the candidates, best first; `None` if they were too many to hold.
    fn into_keys(mut self) -> Option<Vec<u64>> {
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
        (!self.crowded).then_some(self.keys)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{Blocks, search, top_k};
    use crate::{MetricError, Rows};
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    /// Returns small integers. Their products are exact, so the order of summation does not matter, and ties
    /// are frequent.
    fn integers(count: usize, range: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Bootstrap, 0, 0);
        (0..count).map(|_| stream.below(2 * range + 1) as f32 - range as f32).collect()
    }

    fn plain(queries: Rows, gallery: Rows, k: usize, exclude_self: bool) -> (Vec<u32>, Vec<f32>) {
        let (mut indices, mut similarities) = (Vec::new(), Vec::new());
        for i in 0..queries.len() {
            let mut all: Vec<(f32, u32)> = (0..gallery.len())
                .filter(|&j| !(exclude_self && i == j))
                .map(|j| {
                    (queries.row(i).iter().zip(gallery.row(j)).map(|(a, b)| a * b).sum::<f32>(), j as u32)
                })
                .collect();
            all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap().then(a.1.cmp(&b.1)));
            indices.extend(all.iter().take(k).map(|x| x.1));
            similarities.extend(all.iter().take(k).map(|x| x.0));
        }
        (indices, similarities)
    }

    proptest! {
        #[test]
        fn agrees_with_sorting_every_row(
            n in 1usize..40, m in 1usize..150, dim in 1usize..20, k in 0usize..160, range in 0usize..4, seed: u64,
            itself: bool,
        ) {
            let gallery = integers(m * dim, range, seed);
            let other = integers(n * dim, range, seed ^ 1);
            let gallery = Rows::new(&gallery, dim);
            let queries = if itself { gallery } else { Rows::new(&other, dim) };
            let blocks = Blocks { queries: 7, gallery: 64 };
            let got = search(queries, gallery, k, itself, blocks).unwrap();
            let (indices, similarities) = plain(queries, gallery, k, itself);
            prop_assert_eq!(got.k, k.min(m - usize::from(itself)));
            prop_assert_eq!(got.indices, indices);
            prop_assert_eq!(got.similarities, similarities);
        }
    }

    #[test]
    fn neither_threads_nor_blocks_change_a_bit() {
        let mut stream = Stream::new(3, Purpose::Bootstrap, 0, 0);
        for dim in [1, 3, 128, 1100] {
            let values: Vec<f32> = (0..700 * dim).map(|_| stream.normal() as f32).collect();
            let rows = Rows::new(&values, dim);
            let want = top_k(rows, rows, 50, true).unwrap();
            for blocks in [(4, 64), (66, 16), (33, 112), (512, 4096)] {
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let blocks = Blocks { queries: blocks.0, gallery: blocks.1 };
                    let got = pool.install(|| search(rows, rows, 50, true, blocks)).unwrap();
                    assert!(got == want, "dim {dim} {blocks:?} {threads} threads");
                }
            }
        }
    }

    #[test]
    fn many_full_buffers_keep_the_best() {
        // Ascending similarities are the worst case: each one enters the buffer, which is cut again and
        // again.
        let gallery: Vec<f32> = (0..5000).map(|i| i as f32).collect();
        let got = top_k(Rows::new(&[1.0, -1.0], 1), Rows::new(&gallery, 1), 3, false).unwrap();
        assert_eq!(got.indices, [4999, 4998, 4997, 0, 1, 2]);
        assert_eq!(got.of(1), (&[0, 1, 2][..], &[0.0, -1.0, -2.0][..]));
    }

    #[test]
    fn bad_numbers_are_named() {
        let good = vec![1.0; 8];
        let mut bad = good.clone();
        bad[5] = f32::NAN;
        let (good, bad) = (Rows::new(&good, 2), Rows::new(&bad, 2));
        let row = |result: Result<_, MetricError>| match result.unwrap_err() {
            MetricError::NotFinite { what, row, .. } => (what, row),
            other => panic!("{other}"),
        };
        assert_eq!(row(top_k(bad, good, 1, false)), ("queries", 2));
        assert_eq!(row(top_k(good, bad, 1, false)), ("gallery", 2));

        let huge = [0.1, 0.1, 3e38, 3e38];
        let error = top_k(Rows::new(&huge, 2), Rows::new(&huge, 2), 2, false).unwrap_err();
        assert_eq!(error, MetricError::Overflow { row: 1 });
        let against = [3e38, -3e38];
        let error = top_k(Rows::new(&against, 2), Rows::new(&[3e38, 3e38], 2), 1, false).unwrap_err();
        assert_eq!(error, MetricError::Overflow { row: 0 });
    }

    #[test]
    fn an_empty_side_has_no_neighbors() {
        let one = [1.0, 2.0];
        let got = top_k(Rows::new(&[], 2), Rows::new(&one, 2), 5, false).unwrap();
        assert_eq!((got.k, got.indices.len()), (1, 0));
        let got = top_k(Rows::new(&one, 2), Rows::new(&one, 2), 5, true).unwrap();
        assert_eq!((got.k, got.indices.len()), (0, 0));
    }
}
