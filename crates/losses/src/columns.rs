//! Statistics of the columns of a matrix, for losses that compare the columns of a batch.

use crate::float::Float;
use crate::op::Matrix;

/// Returns the mean of each column, in f64.
pub(crate) fn means<T: Float>(x: Matrix<'_, T>) -> Vec<f64> {
    let mut means = sums(x.columns, x.values, |_, value| value);
    for mean in &mut means {
        *mean /= x.rows as f64;
    }
    means
}

/// Returns for each column the sum of `term(column, value)` over its values, from the first row to the last.
pub(crate) fn sums<T: Float>(columns: usize, values: &[T], term: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        for (column, (sum, value)) in sums.iter_mut().zip(row).enumerate() {
            *sum += term(column, value.to_f64());
        }
    }
    sums
}

/// Returns the two halves of the rows: view 1 of all images and view 2.
pub(crate) fn halves<T: Float>(x: Matrix<'_, T>) -> [Matrix<'_, T>; 2] {
    let (first, second) = x.values.split_at(x.rows / 2 * x.columns);
    [first, second].map(|values| Matrix { values, rows: x.rows / 2, columns: x.columns })
}

/// Returns the sum of the squares of all elements of a square matrix (n x n) that are not on its diagonal.
pub(crate) fn off_diagonal_squares<T: Float>(square: &[T], n: usize) -> f64 {
    let row = |(i, row): (usize, &[T])| -> f64 {
        row.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, v)| v.to_f64() * v.to_f64()).sum()
    };
    square.chunks_exact(n).enumerate().map(row).sum()
}
