//! The inner products of all rows of one batch with one another, and the gradient back through both sides of
//! each.

use invaspread_tensor::gemm;

use crate::float::Float;
use crate::op::Matrix;

/// Returns `x_i · x_j` for all rows i and j, row by row (rows x rows).
pub(crate) fn similarities<T: Float>(x: Matrix<'_, T>) -> Vec<T> {
    let Matrix { values, rows, columns } = x;
    let mut products = vec![T::ZERO; rows * rows];
    gemm::nt(rows, rows, columns, values, values, &mut products);
    products
}

/// Returns the gradient with respect to the rows, `grad x_i = Σ_j (g_ij + g_ji) x_j`, for the gradient g with
/// respect to [`similarities`] (rows x rows).
pub(crate) fn through_both_sides<T: Float>(slopes: &[T], x: Matrix<'_, T>) -> Vec<T> {
    let Matrix { values, rows, columns } = x;
    let mut gradient = vec![T::ZERO; rows * columns];
    gemm::nn(rows, columns, rows, slopes, values, &mut gradient);
    let mut through_keys = vec![T::ZERO; rows * columns];
    gemm::tn(rows, columns, rows, slopes, values, &mut through_keys);
    for (g, k) in gradient.iter_mut().zip(through_keys) {
        *g += k;
    }
    gradient
}
