//! Inner products of the rows of one view with constant rows of the other view, for losses that predict one
//! view from the other: BYOL and `SimSiam`.

use candle_core::{Result, Tensor};

use crate::check::{same_shape, two_views};
use crate::float::{Float, dot};
use crate::op::Matrix;

/// Checks that the predictions and the targets hold the rows of two views, and have one shape.
pub(crate) fn check_partners(loss: &str, predictions: &Tensor, targets: &Tensor) -> Result<()> {
    two_views(loss, predictions)?;
    same_shape(loss, ["targets", "predictions"], [targets, predictions])
}

/// Returns `Σ_i p_i · t_{i⁺}` over the 2B rows, where `i⁺ = (i + B) mod 2B`, and `slope` times its gradient
/// with respect to p.
pub(crate) fn products_with_partners<T: Float>(
    predictions: Matrix<'_, T>,
    targets: Matrix<'_, T>,
    slope: f64,
) -> (f64, Vec<T>) {
    let rows = predictions.rows;
    let slope = T::from_f64(slope);
    let (mut sum, mut gradient) = (0.0, Vec::with_capacity(predictions.values.len()));
    for row in 0..rows {
        let target = targets.row((row + rows / 2) % rows);
        sum += dot(predictions.row(row), target).to_f64();
        gradient.extend(target.iter().map(|&t| slope * t));
    }
    (sum, gradient)
}
