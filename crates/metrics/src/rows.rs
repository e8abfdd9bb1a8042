//! A borrowed set of row vectors: the input of every metric.

use crate::MetricError;
use invaspread_tensor::inner_products::exact_product;
use rayon::prelude::*;

/// The mean is subtracted if its square is more than this share of the mean square of the rows.
const MOST_OF_ALL: f64 = 0.5;
/// The largest squared length for which no product of two rows can exceed the range of f32.
const LONGEST: f64 = 1e36;

/// `n` row vectors of `dim` numbers each, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The rows (n, dim), one after another; the length must be a multiple of `dim`.
    pub values: &'a [f32],
    /// Numbers in a row, at least 1.
    pub dim: usize,
}

impl<'a> Rows<'a> {
    /// Takes `values` as rows of `dim` numbers each.
    ///
    /// ```
    /// use invaspread_metrics::Rows;
    ///
    /// let rows = Rows::new(&[1.0, 2.0, 3.0, 4.0], 2);
    /// assert_eq!((rows.len(), rows.row(1)), (2, &[3.0, 4.0][..]));
    /// ```
    ///
    /// # Panics
    /// If `dim` is zero or does not divide the length.
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are no rows of {dim}", values.len());
        Self { values, dim }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Returns whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns row `index`.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// Returns the rows in `range` as one slice.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> &'a [f32] {
        &self.values[range.start * self.dim..range.end * self.dim]
    }

    /// Returns the mean of the rows (dim); there must be at least one row.
    pub(crate) fn column_means(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.dim];
        for row in self.values.chunks(self.dim) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        for m in &mut mean {
            *m /= self.len() as f64;
        }
        mean
    }

    /// Returns the squared length of the longest row; 0 if there is no row.
    pub(crate) fn longest_square(&self) -> f64 {
        self.values.par_chunks(self.dim).map(|row| exact_product(row, row)).reduce(|| 0.0, f64::max)
    }

    /// Returns the mean of the rows (dim) if it should be subtracted before inner products are computed. That
    /// is so if the mean makes up most of the rows, because they lie in a narrow cone or far from the origin:
    /// then the digits of f32 are used for the part that all rows share, and inner products lose what
    /// distinguishes the rows. Returns `None` if the square of the mean is less than half of the mean square,
    /// or if rows are so long that their products overflow either way.
    pub(crate) fn common_offset(&self) -> Option<Vec<f32>> {
        let squares: Vec<f64> = self.values.par_chunks(self.dim).map(|row| exact_product(row, row)).collect();
        let longest = squares.iter().copied().fold(0.0, f64::max);
        if self.is_empty() {
            return None;
        }
        let mean: Vec<f32> = self.column_means().into_iter().map(|m| m as f32).collect();
        let mean_square = squares.iter().sum::<f64>() / self.len() as f64;
        is_mostly_offset(&mean, mean_square, longest).then_some(mean)
    }

    /// Returns an error that names the first row with NaN or an infinity.
    pub(crate) fn check_finite(&self, what: &'static str) -> Result<(), MetricError> {
        match self.values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(MetricError::NotFinite { what, row: at / self.dim, value: self.values[at] }),
        }
    }
}

/// Returns whether rows with the mean `mean` lose digits to it: their squares have the mean `mean_square`,
/// and `longest` is the largest square.
pub(crate) fn is_mostly_offset(mean: &[f32], mean_square: f64, longest: f64) -> bool {
    longest <= LONGEST && exact_product(mean, mean) > MOST_OF_ALL * mean_square
}

/// Returns `row - offset`, rounded to f32 once.
pub(crate) fn less_offset<'a>(row: &'a [f32], offset: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    row.iter().zip(offset).map(|(&v, &o)| v - o)
}

/// Divides each row of `values` (n, dim) by its Euclidean length; a row of zeros stays as it is.
///
/// ```
/// let mut values = [3.0, 4.0, 0.0, 0.0];
/// invaspread_metrics::l2_normalize_rows(&mut values, 2);
/// assert_eq!(values, [0.6, 0.8, 0.0, 0.0]);
/// ```
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
    fn an_offset_is_taken_off_only_where_it_is_most_of_the_rows() {
        let spread = [1.0, -1.0, -1.0, 1.5];
        assert_eq!(Rows::new(&spread, 2).common_offset(), None);
        let far = [100.0, 2.0, 102.0, 4.0];
        assert_eq!(Rows::new(&far, 2).common_offset(), Some(vec![101.0, 3.0]));
        let equal = [0.1_f32; 30];
        assert_eq!(
            Rows::new(&equal, 3).common_offset(),
            Some(vec![0.1; 3]),
            "what is left must be exactly zero"
        );
        assert_eq!(Rows::new(&[3e38, 3e38], 2).common_offset(), None);
        assert_eq!(Rows::new(&[], 2).common_offset(), None);
    }

    #[test]
    fn the_first_row_that_is_not_finite_is_named() {
        let values = [0.0, 1.0, 2.0, f32::INFINITY, f32::NAN, 0.0];
        let error = Rows::new(&values, 2).check_finite("gallery").unwrap_err();
        assert_eq!(error, MetricError::NotFinite { what: "gallery", row: 1, value: f32::INFINITY });
        assert!(error.to_string().starts_with("row 1 of the gallery holds inf"));
    }
}
