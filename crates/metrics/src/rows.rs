//! A set of row vectors, borrowed: the one input shape of every metric.

use crate::MetricError;
use rayon::prelude::*;

/// `n` row vectors of `dim` numbers each, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// (n, dim), row-major; the length must be a multiple of `dim`.
    pub values: &'a [f32],
    /// Numbers per row, at least 1.
    pub dim: usize,
}

impl<'a> Rows<'a> {
    /// The rows in `values` (n, dim).
    ///
    /// # Panics
    /// If `dim` is zero or does not divide the length.
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are no rows of {dim}", values.len());
        Self { values, dim }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// `range` of the rows as one slice.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> &'a [f32] {
        &self.values[range.start * self.dim..range.end * self.dim]
    }

    /// An error naming the first row that holds NaN or an infinity.
    pub(crate) fn check_finite(&self, what: &'static str) -> Result<(), MetricError> {
        match self.values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(MetricError::NotFinite { what, row: at / self.dim, value: self.values[at] }),
        }
    }
}

/// Divides each row of `values` (n, dim) by its Euclidean length; a row of zeros stays as it is.
///
/// # Panics
/// If `dim` is zero or does not divide the length.
pub fn l2_normalize_rows(values: &mut [f32], dim: usize) {
    assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are no rows of {dim}", values.len());
    values.par_chunks_mut(dim).for_each(|row| {
        let length = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if length > 0.0 {
            for v in row {
                *v = (f64::from(*v) / length) as f32;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::{Rows, l2_normalize_rows};
    use crate::MetricError;

    #[test]
    fn rows_become_unit_length_and_zeros_stay() {
        let mut values = vec![3.0, 4.0, 0.0, 0.0, -1e-20, 0.0, 1e20, 1e20];
        l2_normalize_rows(&mut values, 2);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(values, [0.6, 0.8, 0.0, 0.0, -1.0, 0.0, half, half]);
    }

    #[test]
    fn the_first_row_that_is_not_finite_is_named() {
        let values = [0.0, 1.0, 2.0, f32::INFINITY, f32::NAN, 0.0];
        let error = Rows::new(&values, 2).check_finite("gallery").unwrap_err();
        assert_eq!(error, MetricError::NotFinite { what: "gallery", row: 1, value: f32::INFINITY });
        assert!(error.to_string().starts_with("row 1 of the gallery holds inf"));
    }
}
