//! Rows of a weight that are scaled to length 1 before their inner products are taken, and the gradient back
//! through the scaling.

use rayon::prelude::*;

use crate::float::{Float, add_scaled, dot};

/// Returns `1/‖w_j‖` of each row, or 0 for a row of zeros, which then has score 0 and no gradient.
pub(crate) fn inverse_lengths<T: Float>(w: &[T], dim: usize) -> Vec<T> {
    w.par_chunks(dim)
        .map(|row| {
            let squared: f64 = row.iter().map(|v| v.to_f64() * v.to_f64()).sum();
            // A NaN must stay in its row, so only an exact zero counts as zero.
            T::from_f64(if squared == 0.0 { 0.0 } else { squared.sqrt().recip() })
        })
        .collect()
}

/// Removes from each row h of `gradient` its part along ŵ, because the length of ŵ does not depend on w: h −
/// (h · ŵ) ŵ. `lengths` are those of [`inverse_lengths`]. There must be at least one row.
pub(crate) fn remove_along<T: Float>(gradient: &mut [T], w: &[T], lengths: &[T]) {
    let dim = w.len() / lengths.len();
    gradient.par_chunks_mut(dim).zip(w.par_chunks(dim)).zip(lengths).for_each(|((h, w), &inverse_length)| {
        let along = dot(h, w) * inverse_length * inverse_length;
        add_scaled(h, -along, w);
    });
}
