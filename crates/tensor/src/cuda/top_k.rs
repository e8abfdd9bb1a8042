//! Finds the exact nearest neighbors of every query by inner product, on the device: the same lists as
//! `metrics::top_k` makes of the same scores.
//!
//! cuBLAS computes the scores of a block of queries against a block of the gallery, in full f32.
//! `kernels/top_k.cu` reads them once and keeps each query's k best, which pass from block to block of the
//! gallery. About 512 MiB of scores are held at most.

use super::blas::{Product, product};
use super::device_of;
use super::kernel::{Argument, launch};
use super::memory::{spread, uninitialized};
use candle_core::{DType, Result, Tensor, bail};
use std::ops::Range;

/// Scores held at once: 512 MiB of f32.
const SCORES: usize = 1 << 27;
/// The most columns of a block when there are many rows: with more columns a block would hold too few rows to
/// keep the device busy.
const COLUMNS: usize = 1 << 15;
/// The most neighbors of a query: `LARGEST_K` of the kernel.
pub const LARGEST_K: usize = 1024;
/// Threads of the kernel's block; a block takes one query.
const THREADS: u32 = 256;

/// Returns the `k` rows of `gallery` (m, d) with the largest inner products with each row of `queries` (n,
/// d), and those products: (n, k) each. The nearest comes first; equal ones are in order of index. `k` is
/// reduced to the number of candidates, as in `metrics::top_k`. With `exclude_self`, query i leaves out
/// gallery row i.
///
/// A row whose product is NaN or minus infinity is no neighbor. Places that remain empty for this reason hold
/// `u32::MAX` and NaN.
///
/// # Errors
/// If the two are not f32 matrices of matching sizes on the device, more than [`LARGEST_K`] neighbors remain
/// to be found, or the device fails.
pub fn top_k(
    queries: &Tensor,
    gallery: &Tensor,
    k: usize,
    exclude_self: bool,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let ((rows, dim), (columns, gallery_dim)) = (queries.dims2()?, gallery.dims2()?);
    if dim != gallery_dim || (exclude_self && rows != columns) || rows.max(columns) > i32::MAX as usize {
        bail!("cuda: neighbors of {:?} among {:?}", queries.shape(), gallery.shape())
    }
    let k = k.min(columns.saturating_sub(usize::from(exclude_self)));
    if k > LARGEST_K {
        bail!("cuda: {k} neighbors of each row, expected at most {LARGEST_K}")
    }
    if rows * k == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    search(queries, gallery, k, exclude_self, at_once(rows, columns))
}

/// Does the same as [`top_k`] for valid arguments and leaves both on the device, n k numbers each.
pub(super) fn nearest(
    queries: &Tensor,
    gallery: &Tensor,
    k: usize,
    exclude_self: bool,
) -> Result<(Tensor, Tensor)> {
    find(queries, gallery, k, exclude_self, at_once(queries.dim(0)?, gallery.dim(0)?))
}

/// Does the same as [`top_k`], for a valid k and blocks of the given numbers of queries and gallery rows.
fn search(
    queries: &Tensor,
    gallery: &Tensor,
    k: usize,
    exclude_self: bool,
    blocks: (usize, usize),
) -> Result<(Vec<u32>, Vec<f32>)> {
    let (indices, similarities) = find(queries, gallery, k, exclude_self, blocks)?;
    Ok((indices.to_vec1()?, similarities.to_vec1()?))
}

/// Does the same as [`search`], and leaves both on the device.
fn find(
    queries: &Tensor,
    gallery: &Tensor,
    k: usize,
    exclude_self: bool,
    (rows_at_once, columns_at_once): (usize, usize),
) -> Result<(Tensor, Tensor)> {
    let (rows, columns) = (queries.dim(0)?, gallery.dim(0)?);
    let device = device_of(queries)?;
    let (queries, gallery) = (queries.detach().contiguous()?, gallery.detach().contiguous()?);
    let indices = uninitialized(rows * k, DType::U32, device)?;
    let similarities = uninitialized(rows * k, DType::F32, device)?;
    for numbers in parts(rows, rows_at_once) {
        let block = queries.narrow(0, numbers.start, numbers.len())?;
        let count = numbers.len() * k;
        // A key is two words long.
        let best = uninitialized((count, 2), DType::U32, device)?;
        for range in parts(columns, columns_at_once) {
            let part = gallery.narrow(0, range.start, range.len())?;
            let scores = product(&block, &part, Product::SecondTransposed, false)?;
            let (carry, exclude_self) = (usize::from(range.start > 0), usize::from(exclude_self));
            let sizes = [range.len(), k, numbers.start, range.start, carry, exclude_self];
            let mut arguments = vec![Argument::address(&scores)?, Argument::address(&best)?];
            arguments.extend(sizes.map(|size| Argument::Int(size as i32)));
            let grid = [numbers.len() as u32, 1, 1];
            launch(device, "top_k", "top_k_merge", grid, [THREADS, 1, 1], 0, &arguments)?;
        }
        let (grid, threads) = spread(count);
        let arguments = [
            Argument::address(&best)?,
            Argument::address(&indices.narrow(0, numbers.start * k, count)?)?,
            Argument::address(&similarities.narrow(0, numbers.start * k, count)?)?,
            Argument::Long(count as i64),
        ];
        launch(device, "top_k", "top_k_write", grid, threads, 0, &arguments)?;
    }
    Ok((indices, similarities))
}

/// Returns how many of the rows and of the columns form one block of scores.
pub(super) fn at_once(rows: usize, columns: usize) -> (usize, usize) {
    let columns = columns.min(COLUMNS.max(SCORES / rows));
    (rows.min(SCORES / columns), columns)
}

/// Cuts the numbers below `total` into ranges of about `most` numbers at most. All but the last are equally
/// long.
pub(super) fn parts(total: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    // The length is a multiple of 32, so that each row of a block of scores begins on a new line of memory.
    let each = total.div_ceil(total.div_ceil(most)).next_multiple_of(32);
    (0..total).step_by(each).map(move |start| start..(start + each).min(total))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{SCORES, at_once, parts, search, top_k};
    use crate::cuda::testing::device_or_skip;
    use candle_core::Tensor;
    use invaspread_random::{Purpose, Stream};

    /// Draws small integers: products are exact in any order, and ties are frequent.
    fn integers(stream: &mut Stream, count: usize, range: usize) -> Vec<f32> {
        (0..count).map(|_| stream.below(2 * range + 1) as f32 - range as f32).collect()
    }

    fn plain(
        queries: &[f32],
        gallery: &[f32],
        dim: usize,
        k: usize,
        exclude_self: bool,
    ) -> (Vec<u32>, Vec<f32>) {
        let (mut indices, mut similarities) = (Vec::new(), Vec::new());
        for (i, query) in queries.chunks(dim).enumerate() {
            let products = gallery.chunks(dim).map(|row| query.iter().zip(row).map(|(a, b)| a * b).sum());
            let mut all: Vec<(usize, f32)> =
                products.enumerate().filter(|&(j, _)| !(exclude_self && i == j)).collect();
            all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap()); // keeps the order of equals
            indices.extend(all.iter().take(k).map(|x| x.0 as u32));
            similarities.extend(all.iter().take(k).map(|x| x.1));
        }
        (indices, similarities)
    }

    #[test]
    fn agrees_with_sorting_every_row() {
        let Some(device) = device_or_skip() else { return };
        let mut stream = Stream::new(5, Purpose::Bootstrap, 0, 0);
        for (n, m, dim, k, range) in [
            (1, 1, 1, 1, 1),
            (3, 40, 5, 40, 1),
            (9, 700, 3, 200, 2),
            (2, 4000, 7, 1024, 1),
            (3, 3500, 16, 5, 3),
            (2, 1500, 4, 300, 0),
        ] {
            for exclude_self in [false, true] {
                let gallery = integers(&mut stream, m * dim, range);
                let n = if exclude_self { m.min(70) } else { n };
                let gallery = if exclude_self { gallery[..n * dim].to_vec() } else { gallery };
                let queries =
                    if exclude_self { gallery.clone() } else { integers(&mut stream, n * dim, range) };
                let on = |values: &[f32]| -> Tensor {
                    Tensor::from_slice(values, (values.len() / dim, dim), &device).unwrap()
                };
                let want = plain(&queries, &gallery, dim, k, exclude_self);
                let (queries, gallery) = (on(&queries), on(&gallery));
                let got = top_k(&queries, &gallery, k, exclude_self).unwrap();
                assert!(got == want, "{n} {m} {dim} {k} {range} {exclude_self}");
                let (k, columns) = (want.0.len() / n, if exclude_self { 32 } else { 640 });
                if k > 0 {
                    let got = search(&queries, &gallery, k, exclude_self, (64, columns)).unwrap();
                    assert!(got == want, "{n} {m} {dim} {k} {range} {exclude_self} in small blocks");
                }
            }
        }
    }

    #[test]
    fn blocks_cover_everything_within_bounds() {
        let shapes = [(1, 1), (7, 33), (10_000, 50_000), (60_502, 11_316), (100, 2_000_000), (3_000_000, 10)];
        for (rows, columns) in shapes {
            let (rows_at_once, columns_at_once) = at_once(rows, columns);
            let longest = |total, most| {
                let (mut covered, mut longest) = (0, 0);
                for part in parts(total, most) {
                    assert_eq!(part.start, covered);
                    covered = part.end;
                    longest = part.len().max(longest);
                }
                assert_eq!(covered, total);
                longest
            };
            let held = longest(rows, rows_at_once) * longest(columns, columns_at_once);
            assert!(held <= SCORES + SCORES / 16, "{rows} x {columns}: {held}");
        }
    }
}
