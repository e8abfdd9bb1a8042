//! Multiplies queries with every row of a gallery, block by block.
//!
//! `s_ij = q_i · g_j` in f32, for a block of queries and all j. A block of products fits into a second-level cache,
//! and is handed on before the next one is computed, so n x m numbers are never held.

use crate::Rows;
use crate::exact_order::Scale;
use invaspread_tensor::inner_products::PackedRows;
use std::ops::Range;

/// The largest number of queries in a block.
pub(crate) const QUERIES: usize = 192;
/// Gallery rows that are multiplied at once: a multiple of [`PackedRows::PANEL`].
const AT_ONCE: usize = 512;

/// A gallery that is ready to be multiplied.
pub(crate) struct Multiplied<'a> {
    scale: &'a Scale,
    packed: PackedRows,
}

impl<'a> Multiplied<'a> {
    pub(crate) fn new(gallery: Rows, scale: &'a Scale) -> Self {
        let fill = |row, to: &mut [f32]| scale.write_row(gallery.row(row), to);
        Self { scale, packed: PackedRows::new(gallery.len(), scale.width(), fill) }
    }

    /// Calls `visit(query, first, products)` with the products of query `numbers.start + query` and the gallery rows
    /// from `first` on, in the order of the rows. Rows before `from` are skipped, as far as whole blocks of them go.
    pub(crate) fn for_each(
        &self,
        queries: Rows,
        numbers: Range<usize>,
        from: usize,
        mut visit: impl FnMut(usize, usize, &[f32]),
    ) {
        let block = Rows::new(queries.slice(numbers.clone()), queries.dim);
        let values = self.scale.queries(block);
        let mut products = vec![0.0; numbers.len() * AT_ONCE];
        for start in (from / AT_ONCE * AT_ONCE..self.packed.len()).step_by(AT_ONCE) {
            let range = start..(start + AT_ONCE).min(self.packed.len());
            let width = PackedRows::width(&range);
            let products = &mut products[..numbers.len() * width];
            self.packed.products(&values, range.clone(), products);
            for (query, products) in products.chunks_exact(width).enumerate() {
                visit(query, start, &products[..range.len()]);
            }
        }
    }
}
